"""The test bed: tilted programs whose log Z, log p(x), posteriors and prior draws are known (`exact` says how).

for bed in BEDS: bed.program("numpyro"), bed.data, bed.log_z, bed.log_evidence, bed.moments(), bed.draw(n, seed)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from exact import Bed, Grid, Linear, Page, normal
from scipy.special import gammaln

import pplebm

LINE = ((-9.0, 9.0),)
PLANE = ((-7.5, 7.5), (-7.5, 7.5))


def scalar(name: str, x: Any, values: dict[str, Any], tilt: Any, sd: float = 0.6) -> Grid:
    """z ~ N(0, 1), tilted, seen through N(z, sd²)."""

    def declare(ppl: Any, xp: Any, params: Any) -> Any:
        def model(x: Any) -> None:
            p = params()
            with ppl.plate("data", len(x)):
                z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0))
                ppl.tilt("f", tilt(xp, p, {"z": z}, {"x": x}))
                ppl.sample("x", ppl.dist.Normal(z, sd), obs=x)

        return model

    return Grid(
        name, np.array(x, np.float32), {k: np.array(v) for k, v in values.items()}, declare, LINE,
        sites=lambda p, e, c: {"z": e[None, :, 0]},
        tilt=tilt,
        likelihood=lambda p, z, c: normal(c["x"][:, None], z["z"], sd),
    )  # fmt: skip


def two_bumps(xp: Any, p: Any, z: Any, c: Any) -> Any:
    """Unequal modes, three standard deviations of the base apart."""
    return p["high"] * xp.exp(-3.0 * (z["z"] - 1.5) ** 2) + p["low"] * xp.exp(-3.0 * (z["z"] + 1.5) ** 2)


def soft_slope(xp: Any, p: Any, z: Any, c: Any) -> Any:
    """2 log(1 + e^z): upwards only, so that the lower tail is the longer one."""
    return p["slope"] * xp.log1p(xp.exp(z["z"]))


def linear(d: int, width: int, seed: int) -> Linear:
    """Two layers of d latents, well conditioned; one tilt widens its layer, one narrows it, both move it."""
    rng, root = np.random.default_rng(seed), np.sqrt(d)
    values = {
        "W": rng.normal(size=(width, d)) / root, "A": 0.7 * rng.normal(size=(d, d)) / root,
        "b": 0.3 * rng.normal(size=d), "log_s": -0.2 + 0.1 * rng.normal(size=d),
        "Q1": np.diag(rng.uniform(-0.2, 0.1, d)), "Q2": np.diag(rng.uniform(0.2, 0.6, d)),
        "c1": rng.normal(size=d) / root, "c2": rng.normal(size=d) / root,
    }  # fmt: skip
    hyper = {"d1": d, "d2": d, "sigma": 0.7}
    prior = pplebm.load("conjugate_tilt").closed_form(values, pplebm.load("conjugate_tilt").Hyper(**hyper))
    z1 = rng.multivariate_normal(prior.mean, prior.covariance, 4)[:, :d]
    x = z1 @ values["W"].T + 0.7 * rng.normal(size=(4, width))
    return Linear(f"linear_{2 * d}", x.astype(np.float32), values, None, hyper=hyper)


def univariate() -> Page:
    """The page of univariate tilts with two latents and a decoder of four hidden units."""
    rng, page = np.random.default_rng(7), pplebm.load("univariate_tilts")
    hyper = {"latent_dim": 2, "width": 4, "depth": 1, "sigma": 0.5, "n_bumps": 9, "reach": 3.0}
    values = {
        "a": 0.4 * rng.normal(size=(2, 9)),
        "decoder.weight_0": rng.normal(size=(4, 2)), "decoder.bias_0": rng.normal(size=4),
        "decoder.weight_1": 0.6 * rng.normal(size=(3, 4)), "decoder.bias_1": 0.3 * rng.normal(size=3),
    }  # fmt: skip
    h = page.Hyper(**hyper)

    def tilt(xp: Any, p: Any, z: Any, c: Any) -> Any:
        return page._tilts(h, p["a"], z["z1"], np.asarray, np.exp, lambda u: np.logaddexp(0.0, u)).sum(-1)

    def likelihood(p: Any, z: Any, c: Any) -> Any:
        u = z["z1"] @ p["decoder.weight_0"].T + p["decoder.bias_0"]
        mean = np.where(u > 0.0, u, 0.2 * u) @ p["decoder.weight_1"].T + p["decoder.bias_1"]
        return sum(normal(c["x"][:, [i]], mean[..., i], h.sigma) for i in range(3))

    x = np.array([[0.2, -0.4, 0.5], [1.5, 0.3, -1.0], [-0.8, 0.9, 0.1]], np.float32)
    return Page(
        "univariate", x, values, None, PLANE,
        sites=lambda p, e, c: {"z1": e[None]}, tilt=tilt, likelihood=likelihood, points=601,
        page="univariate_tilts", hyper=hyper,
    )  # fmt: skip


def coupled() -> Grid:
    """Two layers whose tilt couples them, the scale of the lower one being a function of the upper one."""
    bound = 2.0

    def declare(ppl: Any, xp: Any, params: Any) -> Any:
        def model(x: Any) -> None:
            p = params()
            with ppl.plate("data", len(x)):
                z2 = ppl.sample("z2", ppl.dist.Normal(0.0, 1.0))
                z1 = ppl.sample("z1", ppl.dist.Normal(0.5 * z2, xp.exp(p["rate"] * z2)))
                ppl.tilt("f", p["strength"] * z1 * z2, bound=bound)
                means = ppl.stack([z1, z1 + 0.5 * z2], -1)
                ppl.sample("x", ppl.dist.Normal(means, 0.5).to_event(1), obs=x)

        return model

    def sites(p: Any, e: Any, c: Any) -> Any:
        z2 = e[None, :, 0]
        return {"z2": z2, "z1": 0.5 * z2 + np.exp(p["rate"] * z2) * e[None, :, 1]}

    def likelihood(p: Any, z: Any, c: Any) -> Any:
        x = c["x"]
        return normal(x[:, [0]], z["z1"], 0.5) + normal(x[:, [1]], z["z1"] + 0.5 * z["z2"], 0.5)

    return Grid(
        "coupled", np.array([[0.3, 0.1], [-1.0, 0.4], [2.0, 3.0], [0.0, -1.0]], np.float32),
        {"rate": np.array(0.4), "strength": np.array(1.5)}, declare, PLANE, sites=sites,
        tilt=lambda xp, p, z, c: bound * xp.tanh(p["strength"] * z["z1"] * z["z2"] / bound),
        likelihood=likelihood, points=501,
    )  # fmt: skip


def counts() -> Grid:
    """Poisson counts whose log rates are tilted."""
    tilt = lambda xp, p, z, c: p["height"] * xp.exp(-2.0 * (z["z"] - 1.0) ** 2)

    def declare(ppl: Any, xp: Any, params: Any) -> Any:
        def model(y: Any) -> None:
            p = params()
            with ppl.plate("data", len(y)):
                z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0))
                ppl.tilt("f", tilt(xp, p, {"z": z}, {}))
                ppl.sample("y", ppl.dist.Poisson(xp.exp(p["level"] + z)), obs=y)

        return model

    def likelihood(p: Any, z: Any, c: Any) -> Any:
        y, rate = c["y"][:, None], p["level"] + z["z"]
        return y * rate - np.exp(rate) - gammaln(y + 1.0)

    return Grid(
        "counts", {"y": np.array([0.0, 1.0, 3.0, 12.0], np.float32)},
        {"height": np.array(2.5), "level": np.array(0.5)}, declare, LINE,
        sites=lambda p, e, c: {"z": e[None, :, 0]}, tilt=tilt, likelihood=likelihood,
    )  # fmt: skip


def positive() -> Grid:
    """A Gamma latent whose tilt adds a mode; coordinates are its logarithm."""
    tilt = lambda xp, p, z, c: p["height"] * xp.exp(-2.0 * (z["u"] - 4.0) ** 2)

    def declare(ppl: Any, xp: Any, params: Any) -> Any:
        def model(x: Any) -> None:
            p = params()
            with ppl.plate("data", len(x)):
                u = ppl.sample("u", ppl.dist.Gamma(2.0, 1.0))
                ppl.tilt("f", tilt(xp, p, {"u": u}, {}))
                ppl.sample("x", ppl.dist.Normal(u, 0.7), obs=x)

        return model

    return Grid(
        "positive", np.array([0.2, 1.5, 3.7, 6.0], np.float32), {"height": np.array(2.5)}, declare, ((-18.0, 5.0),),
        sites=lambda p, e, c: {"u": np.exp(e[None, :, 0])}, tilt=tilt,
        likelihood=lambda p, z, c: normal(c["x"][:, None], z["u"], 0.7),
        base=lambda e: (2.0 * e - np.exp(e)).sum(-1),
    )  # fmt: skip


def covariate() -> Grid:
    """Mean and tilt of the prior read a covariate; where it is zero, so is log Z."""
    tilt = lambda xp, p, z, c: c["c"] * p["height"] * xp.exp(-2.0 * (z["z"] - 1.0) ** 2)

    def declare(ppl: Any, xp: Any, params: Any) -> Any:
        def model(c: Any, x: Any) -> None:
            p = params()
            with ppl.plate("data", len(x)):
                z = ppl.sample("z", ppl.dist.Normal(p["effect"] * c, 1.0))
                ppl.tilt("f", tilt(xp, p, {"z": z}, {"c": c}))
                ppl.sample("x", ppl.dist.Normal(z, 0.6), obs=x)

        return model

    c = np.array([0.0, 1.0, 2.0, -1.0, 1.0], np.float32)
    return Grid(
        "covariate", {"c": c, "x": np.array([0.5, -0.7, 1.2, 0.0, 2.0], np.float32)},
        {"effect": np.array(0.5), "height": np.array(1.5)}, declare, LINE,
        sites=lambda p, e, c: {"z": p["effect"] * c["c"][:, None] + e[None, :, 0]},
        tilt=lambda xp, p, z, c: tilt(xp, p, z, {"c": c["c"][:, None]}),
        likelihood=lambda p, z, c: normal(c["x"][:, None], z["z"], 0.6),
    )  # fmt: skip


def identifiable() -> Grid:
    """Eight scalar parameters, all identifiable: a tilted top latent, a curved layer, and their product in the data."""

    def tilt(xp: Any, p: Any, z: Any, c: Any) -> Any:
        bump = lambda at, width: xp.exp(-((z["z2"] - at) ** 2) / width)
        return p["b1"] * bump(1.5, 0.5) + p["b2"] * bump(-1.0, 0.3)

    def means(p: Any, z1: Any, z2: Any) -> list[Any]:
        return [p["v1"] * z1, p["v2"] * z2, p["v3"] * z1 * z2]

    def declare(ppl: Any, xp: Any, params: Any) -> Any:
        def model(x: Any) -> None:
            p = params()
            with ppl.plate("data", len(x)):
                z2 = ppl.sample("z2", ppl.dist.Normal(p["m"], 1.0))
                ppl.tilt("f", tilt(xp, p, {"z2": z2}, {}))
                z1 = ppl.sample("z1", ppl.dist.Normal(xp.sin(2.0 * z2), xp.exp(p["ls"])))
                ppl.sample("x", ppl.dist.Normal(ppl.stack(means(p, z1, z2), -1), xp.exp(p["lsig"])).to_event(1), obs=x)

        return model

    def sites(p: Any, e: Any, c: Any) -> Any:
        z2 = p["m"] + e[None, :, 0]
        return {"z2": z2, "z1": np.sin(2.0 * z2) + np.exp(p["ls"]) * e[None, :, 1]}

    def likelihood(p: Any, z: Any, c: Any) -> Any:
        mean = means(p, z["z1"], z["z2"])
        return sum(normal(c["x"][:, [i]], mean[i], np.exp(p["lsig"])) for i in range(3))

    truth = {"m": 0.3, "ls": -0.7, "b1": 3.0, "b2": 2.0, "v1": 1.0, "v2": 1.0, "v3": 0.5, "lsig": float(np.log(0.3))}
    x = [[0.1, 1.6, 0.1], [-0.9, -1.0, 0.5], [1.3, 0.4, 0.0], [0.5, 2.4, 0.9]]
    return Grid(
        "identifiable", np.array(x, np.float32), {k: np.array(v) for k, v in truth.items()}, declare, PLANE,
        sites=sites, tilt=tilt, likelihood=likelihood, points=501,
    )  # fmt: skip


BEDS: list[Bed] = [
    linear(1, 2, seed=1), linear(3, 4, seed=2), linear(10, 8, seed=3), univariate(),
    scalar("bimodal", [-1.8, 0.1, 1.2, 3.0], {"high": 3.0, "low": 2.2}, two_bumps),
    scalar("skewed", [-1.5, 0.5, 2.0, 4.5], {"slope": 2.0}, soft_slope),
    coupled(), counts(), positive(), covariate(), identifiable(),
]  # fmt: skip


def bed(name: str) -> Any:
    """The case of that name."""
    return next(b for b in BEDS if b.name == name)
