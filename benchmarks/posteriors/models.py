"""Twelve posteriors of posteriordb, each declared once for Pyro and NumPyro as its Stan program declares it.

`declare(ppl, xp, data)` returns the model, a function of the observed data, and these data; `xp` is torch or jax.numpy.
Sites have the names of the reference draws. Stan's flat priors are the hosts' `ImproperUniform`; where Stan adds a
density to a restricted parameter without normalising it there, a tilt does. Coordinates are the supports' own, design
matrices are the published columns, and nothing here says how to sample.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

Model = Callable[[Any], None]


class Posterior(NamedTuple):
    """One posterior: the names of its files, and how it is declared."""

    data: str
    draws: str
    declare: Callable[[Any, Any, dict[str, Any]], tuple[Model, np.ndarray]]


def flat(ppl: Any, support: Any, *shape: int) -> Any:
    """The improper uniform distribution on a support; its density is 1."""
    return ppl.dist.ImproperUniform(support, (), shape)


def deterministic(ppl: Any, name: str, value: Any) -> Any:
    """The host's statement of a value that follows from others."""
    return importlib.import_module(ppl.name).deterministic(name, value)


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


def linear(kind: str, files: str, cauchy: bool = False) -> Posterior:
    """y ~ N(X β, σ) with flat β, and σ half-Cauchy(0, 2.5) or flat."""

    def declare(ppl: Any, xp: Any, d: dict[str, Any]) -> tuple[Model, np.ndarray]:
        columns, y = design(kind, d)
        x, real, positive = ppl.asarray(columns), ppl.dist.constraints.real_vector, ppl.dist.constraints.positive

        def model(y: Any) -> None:
            beta = ppl.sample("beta", flat(ppl, real, columns.shape[1]))
            sigma = ppl.sample("sigma", ppl.dist.HalfCauchy(2.5) if cauchy else flat(ppl, positive))
            with ppl.plate("data", len(y)):
                ppl.sample("y", ppl.dist.Normal(x @ beta, sigma), obs=y)

        return model, y

    return Posterior(files, f"{files}-{kind}", declare)


# --- time series


def lags(y: np.ndarray, k: int) -> np.ndarray:
    """The k values before each of y[k:], the nearest first."""
    return np.stack([y[k - 1 - j : len(y) - 1 - j] for j in range(k)], 1)


def ark(ppl: Any, xp: Any, d: dict[str, Any]) -> tuple[Model, np.ndarray]:
    """y_t ~ N(α + Σ β_k y_(t-k), σ)."""
    y, k = np.asarray(d["y"], dtype=float), d["K"]
    before, zero = ppl.asarray(lags(y, k)), ppl.asarray(np.zeros(k))

    def model(y: Any) -> None:
        alpha = ppl.sample("alpha", ppl.dist.Normal(0.0, 10.0))
        beta = ppl.sample("beta", ppl.dist.Normal(zero, 10.0).to_event(1))
        sigma = ppl.sample("sigma", ppl.dist.HalfCauchy(2.5))
        with ppl.plate("data", len(y)):
            ppl.sample("y", ppl.dist.Normal(alpha + before @ beta, sigma), obs=y)

    return model, y[k:]


def decayed_sums(xp: Any, entered: Any, decay: Any) -> Any:
    """x_t = e_t + b x_(t-1), by sums over 1, 2, 4, ... steps."""
    reach, length = 1, len(entered)
    while reach < length:
        earlier = xp.concatenate([0.0 * entered[:reach], entered[:-reach]])
        entered, decay, reach = entered + decay * earlier, decay * decay, 2 * reach
    return entered


def garch(ppl: Any, xp: Any, d: dict[str, Any]) -> tuple[Model, np.ndarray]:
    """s_t² = α0 + α1 (y_(t-1) - μ)² + β1 s_(t-1)², flat on the triangle α1 + β1 < 1."""
    y, on = np.asarray(d["y"], dtype=float), ppl.dist.constraints
    before, first = ppl.asarray(y[:-1]), ppl.asarray(np.array([d["sigma1"] ** 2]))

    def model(y: Any) -> None:
        mu = ppl.sample("mu", flat(ppl, on.real))
        alpha0 = ppl.sample("alpha0", flat(ppl, on.positive))
        alpha1 = ppl.sample("alpha1", ppl.dist.Beta(1.0, 2.0))  # 2 (1 - α1), times 1 / (1 - α1) of the uniform β1
        beta1 = ppl.sample("beta1", ppl.dist.Uniform(0.0, 1.0 - alpha1))
        entered = xp.concatenate([first, alpha0 + alpha1 * (before - mu) ** 2])
        with ppl.plate("data", len(y)):
            ppl.sample("y", ppl.dist.Normal(mu, decayed_sums(xp, entered, beta1) ** 0.5), obs=y)

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


def runge_kutta(rates: Callable[[Any, Any], tuple[Any, Any]], u: Any, v: Any, h: float) -> tuple[Any, Any]:
    """One step of fourth order for two numbers."""
    a, b = rates(u, v)
    c, e = rates(u + 0.5 * h * a, v + 0.5 * h * b)
    f, g = rates(u + 0.5 * h * c, v + 0.5 * h * e)
    k, m = rates(u + h * f, v + h * g)
    return u + h / 6 * (a + 2 * c + 2 * f + k), v + h / 6 * (b + 2 * e + 2 * g + m)


SUBSTEPS = 4  # a year
EXPLODED = 1e8  # hares or lynxes


def lotka_volterra(ppl: Any, xp: Any, d: dict[str, Any]) -> tuple[Model, np.ndarray]:
    """Hare and lynx from the year of `y_init` on."""
    y = np.concatenate([[d["y_init"]], d["y"]])
    typical, spread = ppl.asarray(np.array([1.0, 0.05, 1.0, 0.05])), ppl.asarray(np.array([0.5, 0.05, 0.5, 0.05]))
    positive = ppl.dist.constraints.independent(ppl.dist.constraints.positive, 1)
    pair = ppl.asarray(np.ones(2))

    def model(y: Any) -> None:
        theta = ppl.sample("theta", flat(ppl, positive, 4))
        ppl.tilt("theta_prior", ppl.dist.Normal(typical, spread).log_prob(theta).sum(-1))
        z_init = ppl.sample("z_init", ppl.dist.LogNormal(float(np.log(10.0)) * pair, 1.0).to_event(1))
        sigma = ppl.sample("sigma", ppl.dist.LogNormal(-pair, 1.0).to_event(1))
        rates = lambda u, v: ((theta[0] - theta[1] * v) * u, (-theta[2] + theta[3] * u) * v)

        def year(at: Any, _: Any) -> Any:
            for _ in range(SUBSTEPS):
                at = runge_kutta(rates, *at, 1.0 / SUBSTEPS)
            return at, xp.stack(at)

        path = xp.concatenate([z_init[None], scanned(xp, year, (z_init[0], z_init[1]), len(d["ts"]))])
        known = xp.where((path > 0.0) & (path < EXPLODED), path, 1.0 / EXPLODED)  # next to no density, but a number
        with ppl.plate("data", len(y)):
            ppl.sample("y", ppl.dist.LogNormal(xp.log(known), sigma).to_event(1), obs=y)

    return model, y


# --- others


def eight_schools(centered: bool) -> Posterior:
    """Effects θ_j ~ N(μ, τ) as they are, or as μ + τ times a standard normal number."""

    def declare(ppl: Any, xp: Any, d: dict[str, Any]) -> tuple[Model, np.ndarray]:
        sd = ppl.asarray(np.asarray(d["sigma"], dtype=float))

        def model(y: Any) -> None:
            mu = ppl.sample("mu", ppl.dist.Normal(0.0, 5.0))
            tau = ppl.sample("tau", ppl.dist.HalfCauchy(5.0))
            with ppl.plate("data", len(y)):
                if centered:
                    theta = ppl.sample("theta", ppl.dist.Normal(mu, tau))
                else:
                    standard = ppl.sample("theta_trans", ppl.dist.Normal(0.0, 1.0))
                    theta = deterministic(ppl, "theta", mu + tau * standard)
                ppl.sample("y", ppl.dist.Normal(theta, sd), obs=y)

        return model, np.asarray(d["y"], dtype=float)

    return Posterior("eight_schools", "eight_schools-eight_schools_noncentered", declare)


JITTER = 1e-10


def gp_pois(ppl: Any, xp: Any, d: dict[str, Any]) -> tuple[Model, np.ndarray]:
    """Counts whose log rate is a Gaussian process, f = L f_tilde."""
    x = np.asarray(d["x"], dtype=float)
    squares, jitter = ppl.asarray((x[:, None] - x[None, :]) ** 2), ppl.asarray(JITTER * np.eye(len(x)))
    zero = ppl.asarray(np.zeros(len(x)))

    def model(k: Any) -> None:
        rho = ppl.sample("rho", ppl.dist.Gamma(25.0, 4.0))
        alpha = ppl.sample("alpha", ppl.dist.HalfNormal(2.0))
        standard = ppl.sample("f_tilde", ppl.dist.Normal(zero, 1.0).to_event(1))
        covariance = alpha**2 * xp.exp(-squares / (2.0 * rho**2)) + jitter
        f = deterministic(ppl, "f", xp.linalg.cholesky(covariance) @ standard)
        with ppl.plate("data", len(k)):
            ppl.sample("k", ppl.dist.Poisson(xp.exp(f)), obs=k)

    return model, np.asarray(d["k"], dtype=float)


def mixture(ppl: Any, xp: Any, d: dict[str, Any]) -> tuple[Model, np.ndarray]:
    """Two normals, the lower first."""
    two, ordered = ppl.asarray(np.full(2, 2.0)), ppl.dist.constraints.ordered_vector

    def model(y: Any) -> None:
        mu = ppl.sample("mu", flat(ppl, ordered, 2))
        ppl.tilt("mu_prior", ppl.dist.Normal(0.0, two).log_prob(mu).sum(-1))
        sigma = ppl.sample("sigma", ppl.dist.HalfNormal(two).to_event(1))
        theta = ppl.sample("theta", ppl.dist.Beta(5.0, 5.0))
        shares = ppl.dist.Categorical(probs=xp.stack([theta, 1.0 - theta]))
        with ppl.plate("data", len(y)):
            ppl.sample("y", ppl.dist.MixtureSameFamily(shares, ppl.dist.Normal(mu, sigma)), obs=y)

    return model, np.asarray(d["y"], dtype=float)


def posteriors() -> Iterable[tuple[str, Posterior]]:
    """All of them by name."""
    gauss, gp = "low_dim_gauss_mix", "gp_pois_regr"
    yield "arK", Posterior("arK", "arK-arK", ark)
    yield "eight_schools_centered", eight_schools(centered=True)
    yield "eight_schools_noncentered", eight_schools(centered=False)
    yield "garch11", Posterior("garch", "garch-garch11", garch)
    yield gp, Posterior(gp, f"{gp}-{gp}", gp_pois)
    yield "kidscore_interaction", linear("kidscore_interaction", "kidiq", cauchy=True)
    yield "kidscore_momhsiq", linear("kidscore_momhsiq", "kidiq", cauchy=True)
    yield "logearn_interaction", linear("logearn_interaction", "earnings")
    yield "logmesquite_logvas", linear("logmesquite_logvas", "mesquite")
    yield "lotka_volterra", Posterior("hudson_lynx_hare", "hudson_lynx_hare-lotka_volterra", lotka_volterra)
    yield gauss, Posterior(gauss, f"{gauss}-{gauss}", mixture)
    yield "nes", linear("nes", "nes1980")


POSTERIORS = dict(posteriors())
