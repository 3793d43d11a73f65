"""Eleven posteriors of posteriordb, each declared once for Pyro and NumPyro from its published density.

`declare(ppl, xp, data)` returns the model, a function of the observed data, and the data; `xp` is torch or jax.numpy.
`derived(values)` turns draws of the sites into the quantities of the reference draws. Flat priors are normal and
half-normal ones of scale 10^5, whose difference from flat is far below the error of any run here. Linear models move in
the coordinates of their QR decomposition; being linear, this leaves a flat prior flat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

FLAT = 1e5
Values = dict[str, np.ndarray]


class Posterior(NamedTuple):
    """One posterior: where its files are, how it is declared, what is compared."""

    data: str
    draws: str
    declare: Callable[[Any, Any, dict[str, Any]], tuple[Callable[..., None], np.ndarray]]
    derived: Callable[[Values, dict[str, Any]], Values]
    n_leapfrog: int = 10  # steps of a trajectory
    start: str = "normal"  # where chains start in unconstrained coordinates: flat priors have no draws worth a start
    coordinates: str = "centered"  # noncentered coordinates are in units of the prior, which a flat one does not have


def spread(name: str, a: np.ndarray) -> Values:
    """Columns of the last axis as name[1], name[2], ..."""
    return {f"{name}[{i + 1}]": a[..., i] for i in range(a.shape[-1])}


# --- linear models


def design(kind: str, d: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Columns and outcome."""
    a = {k: np.asarray(v, dtype=float) for k, v in d.items() if isinstance(v, list)}
    if kind == "kidscore_interaction":
        return np.stack([0 * a["mom_hs"] + 1, a["mom_hs"], a["mom_iq"], a["mom_hs"] * a["mom_iq"]], 1), a["kid_score"]
    if kind == "kidscore_momhsiq":
        return np.stack([0 * a["mom_hs"] + 1, a["mom_hs"], a["mom_iq"]], 1), a["kid_score"]
    if kind == "logearn_interaction":
        h, m = a["height"], a["male"]
        return np.stack([0 * h + 1, h, m, h * m], 1), np.log(a["earn"])
    if kind == "nes":
        age = a["age_discrete"]
        columns = [0 * age + 1, a["real_ideo"], a["race_adj"], *((age == k) * 1.0 for k in (2, 3, 4)), a["educ1"]]
        return np.stack([*columns, a["gender"], a["income"]], 1), a["partyid7"]
    d1, d2, h = a["diam1"], a["diam2"], a["canopy_height"]
    columns = [0 * h + 1, np.log(d1 * d2 * h), np.log(d1 * d2), np.log(d1 / d2), np.log(a["total_height"])]
    return np.stack([*columns, np.log(a["density"]), a["group"]], 1), np.log(a["weight"])


def linear(kind: str, cauchy: bool) -> Posterior:
    """y ~ N(X β, σ) with flat β, and σ half-Cauchy(0, 2.5) or flat."""

    def declare(ppl: Any, xp: Any, d: dict[str, Any]) -> Any:
        x, y = design(kind, d)
        q = ppl.asarray(np.linalg.qr(x)[0] * np.sqrt(len(x)))

        def model(y: Any) -> None:
            theta = ppl.sample("theta", ppl.dist.Normal(ppl.asarray(np.zeros(q.shape[1])), FLAT).to_event(1))
            sigma = ppl.sample("sigma", ppl.dist.HalfCauchy(2.5) if cauchy else ppl.dist.HalfNormal(FLAT))
            with ppl.plate("data", len(y)):
                ppl.sample("y", ppl.dist.Normal(q @ theta, sigma), obs=y)

        return model, y

    def derived(v: Values, d: dict[str, Any]) -> Values:
        x, _ = design(kind, d)
        r = np.linalg.qr(x)[1] / np.sqrt(len(x))
        return spread("beta", np.linalg.solve(r, v["theta"][..., None])[..., 0]) | {"sigma": v["sigma"]}

    files = {"logearn_interaction": "earnings", "nes": "nes1980", "logmesquite_logvas": "mesquite"}
    data = files.get(kind, "kidiq")
    return Posterior(data, f"{data}-{kind}", declare, derived)


# --- time series


def ark(ppl: Any, xp: Any, d: dict[str, Any]) -> Any:
    """y_t ~ N(α + Σ β_k y_(t-k), σ)."""
    y, k = np.asarray(d["y"], dtype=float), d["K"]
    lags = ppl.asarray(np.stack([y[k - 1 - j : len(y) - 1 - j] for j in range(k)], 1))

    def model(y: Any) -> None:
        alpha = ppl.sample("alpha", ppl.dist.Normal(0.0, 10.0))
        beta = ppl.sample("beta", ppl.dist.Normal(ppl.asarray(np.zeros(k)), 10.0).to_event(1))
        sigma = ppl.sample("sigma", ppl.dist.HalfCauchy(2.5))
        with ppl.plate("data", len(y)):
            ppl.sample("y", ppl.dist.Normal(alpha + lags @ beta, sigma), obs=y)

    return model, y[k:]


def garch(ppl: Any, xp: Any, d: dict[str, Any]) -> Any:
    """s_t² = α0 + α1 (y_(t-1) - μ)² + β1 s_(t-1)², summed up: powers of β1 times what entered at each time."""
    y = np.asarray(d["y"], dtype=float)
    t = np.arange(len(y))
    lag = t[:, None] - t[None, :] - 1  # of what entered at the time of the column
    powers, before = ppl.asarray(np.maximum(lag, 0).astype(float)), ppl.asarray((lag >= 0) * 1.0)
    own, first, given = ppl.asarray(t * 1.0), d["sigma1"] ** 2, ppl.asarray(y)

    def model(y: Any) -> None:
        mu = ppl.sample("mu", ppl.dist.Normal(0.0, FLAT))
        alpha0 = ppl.sample("alpha0", ppl.dist.HalfNormal(FLAT))
        alpha1 = ppl.sample("alpha1", ppl.dist.Beta(1.0, 2.0))  # so that (α1, β1) is uniform on its triangle
        beta1 = ppl.sample("share", ppl.dist.Uniform(0.0, 1.0)) * (1.0 - alpha1)
        entered = alpha0 + alpha1 * (given - mu) ** 2
        variance = (before * beta1**powers) @ entered + beta1**own * first
        with ppl.plate("data", len(y)):
            ppl.sample("y", ppl.dist.Normal(mu, variance**0.5), obs=y)

    return model, y


def scanned(xp: Any, step: Callable[[Any, Any], Any], carry: Any, n: int) -> Any:
    """Results of n steps, stacked; JAX compiles one of them."""
    if xp.__name__ == "jax.numpy":
        import jax

        return jax.lax.scan(step, carry, None, n)[1]
    given = []
    for _ in range(n):
        carry, out = step(carry, None)
        given.append(out)
    return xp.stack(given)


def lotka_volterra(ppl: Any, xp: Any, d: dict[str, Any]) -> Any:
    """Hare and lynx by Runge-Kutta of fourth order, two steps a year."""
    y = np.concatenate([[d["y_init"]], d["y"]])
    substeps, h = 2, 0.5

    def model(y: Any) -> None:
        theta = []
        for i, (loc, scale) in enumerate(((1.0, 0.5), (0.05, 0.05), (1.0, 0.5), (0.05, 0.05)), start=1):
            theta.append(ppl.sample(f"theta{i}", ppl.dist.HalfNormal(loc)))
            base, wanted = -0.5 * (theta[-1] / loc) ** 2, -0.5 * ((theta[-1] - loc) / scale) ** 2
            ppl.tilt(f"prior{i}", wanted - base)  # a normal around loc, restricted to the half line
        start = [ppl.sample(f"start{i}", ppl.dist.LogNormal(float(np.log(10.0)), 1.0)) for i in (1, 2)]
        sigma = [ppl.sample(f"sigma{i}", ppl.dist.LogNormal(-1.0, 1.0)) for i in (1, 2)]
        rates = lambda u, v: ((theta[0] - theta[1] * v) * u, (-theta[2] + theta[3] * u) * v)

        def year(at: Any, _: Any) -> Any:
            u, v = at
            for _ in range(substeps):
                a, b = rates(u, v)
                c, e = rates(u + 0.5 * h * a, v + 0.5 * h * b)
                f, g = rates(u + 0.5 * h * c, v + 0.5 * h * e)
                k, m = rates(u + h * f, v + h * g)
                u, v = u + h / 6 * (a + 2 * c + 2 * f + k), v + h / 6 * (b + 2 * e + 2 * g + m)
            return (u, v), xp.stack([u, v])

        path = xp.concatenate([xp.stack(start)[None], scanned(xp, year, tuple(start), len(d["ts"]))])
        with ppl.plate("data", len(y)):
            known = xp.clip(xp.nan_to_num(path), 1e-8, 1e8)  # some draws of the prior explode
            ppl.sample("y", ppl.dist.LogNormal(xp.log(known), xp.stack(sigma)).to_event(1), obs=y)

    return model, y


# --- others


def eight_schools(ppl: Any, xp: Any, d: dict[str, Any]) -> Any:
    """Centered as written; noncentered coordinates make it the other."""
    sd = ppl.asarray(np.asarray(d["sigma"], dtype=float))

    def model(y: Any) -> None:
        mu = ppl.sample("mu", ppl.dist.Normal(0.0, 5.0))
        tau = ppl.sample("tau", ppl.dist.HalfCauchy(5.0))
        with ppl.plate("data", len(y)):
            theta = ppl.sample("theta", ppl.dist.Normal(mu, tau))
            ppl.sample("y", ppl.dist.Normal(theta, sd), obs=y)

    return model, np.asarray(d["y"], dtype=float)


def gp_pois(ppl: Any, xp: Any, d: dict[str, Any]) -> Any:
    """Counts whose log rate is a Gaussian process."""
    x = np.asarray(d["x"], dtype=float)
    squares, eye = ppl.asarray((x[:, None] - x[None, :]) ** 2), ppl.asarray(np.eye(len(x)))

    def model(k: Any) -> None:
        rho = ppl.sample("rho", ppl.dist.Gamma(25.0, 4.0))
        alpha = ppl.sample("alpha", ppl.dist.HalfNormal(2.0))
        covariance = alpha**2 * xp.exp(-squares / (2.0 * rho**2)) + 1e-10 * eye
        f = ppl.sample("f", ppl.dist.MultivariateNormal(ppl.asarray(np.zeros(len(x))), covariance))
        with ppl.plate("data", len(k)):
            ppl.sample("k", ppl.dist.Poisson(xp.exp(f)), obs=k)

    return model, np.asarray(d["k"], dtype=float)


def mixture(ppl: Any, xp: Any, d: dict[str, Any]) -> Any:
    """Two normals, the lower first."""

    def model(y: Any) -> None:
        low = ppl.sample("low", ppl.dist.Normal(0.0, 2.0))
        gap = ppl.sample("gap", ppl.dist.HalfNormal(FLAT))
        ppl.tilt("high", -0.5 * ((low + gap) / 2.0) ** 2)  # the upper mean is N(0, 2) as well
        sd = ppl.sample("sd", ppl.dist.HalfNormal(ppl.asarray([2.0, 2.0])).to_event(1))
        theta = ppl.sample("theta", ppl.dist.Beta(5.0, 5.0))
        mean = xp.stack([low, low + gap])
        weights = xp.stack([theta, 1.0 - theta])
        with ppl.plate("data", len(y)):
            ppl.sample("y", _mixed(ppl, weights, mean, sd), obs=y)

    return model, np.asarray(d["y"], dtype=float)


def _mixed(ppl: Any, weights: Any, mean: Any, sd: Any) -> Any:
    kind = ppl.dist.MixtureSameFamily
    return kind(ppl.dist.Categorical(probs=weights), ppl.dist.Normal(mean, sd))


def garch_values(v: Values, d: dict[str, Any]) -> Values:
    """Back from the share to β1."""
    return {k: v[k] for k in ("mu", "alpha0", "alpha1")} | {"beta1": v["share"] * (1.0 - v["alpha1"])}


def lotka_values(v: Values, d: dict[str, Any]) -> Values:
    """Sites of one number each as the vectors of the reference."""
    names = {"theta": "theta", "start": "z_init", "sigma": "sigma"}
    return {f"{new}[{i}]": v[f"{old}{i}"] for old, new in names.items() for i in (1, 2, 3, 4) if f"{old}{i}" in v}


def named(*names: str, **vectors: str) -> Callable[[Values, dict[str, Any]], Values]:
    """Sites as they are, and sites spread over columns under another name."""

    def derived(v: Values, d: dict[str, Any]) -> Values:
        found = {name: v[name] for name in names}
        for site, name in vectors.items():
            found |= spread(name, v[site])
        return found

    return derived


def mixture_values(v: Values, d: dict[str, Any]) -> Values:
    """Both means from the lower and the gap."""
    mu = np.stack([v["low"], v["low"] + v["gap"]], -1)
    return spread("mu", mu) | spread("sigma", v["sd"]) | {"theta": v["theta"]}


SCHOOLS, GAUSS, GP = "eight_schools-eight_schools_noncentered", "low_dim_gauss_mix", "gp_pois_regr"
POSTERIORS = {
    "arK": Posterior("arK", "arK-arK", ark, named("alpha", "sigma", beta="beta")),
    "eight_schools": Posterior(
        "eight_schools", SCHOOLS, eight_schools, named("mu", "tau", theta="theta"), coordinates="noncentered"
    ),
    "garch11": Posterior("garch", "garch-garch11", garch, garch_values),
    "gp_pois_regr": Posterior(GP, f"{GP}-{GP}", gp_pois, named("rho", "alpha", f="f"), 40, coordinates="noncentered"),
    "kidscore_interaction": linear("kidscore_interaction", True),
    "kidscore_momhsiq": linear("kidscore_momhsiq", True),
    "logearn_interaction": linear("logearn_interaction", False),
    "logmesquite_logvas": linear("logmesquite_logvas", False),
    "low_dim_gauss_mix": Posterior(GAUSS, f"{GAUSS}-{GAUSS}", mixture, mixture_values),
    "nes": linear("nes", False),
    "lotka_volterra": Posterior(
        "hudson_lynx_hare", "hudson_lynx_hare-lotka_volterra", lotka_volterra, lotka_values, 20, start="base"
    ),
}
