"""The published densities of `models`, up to a constant, in NumPy and SciPy: what the declarations are checked against.

Every function takes the data and one value of all parameters, by site, and returns a log density.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats
from scipy.integrate import solve_ivp

from posteriors.models import JITTER, design, lags

Values = dict[str, Any]
Density = Callable[[dict[str, Any], Values], float]


def linear(kind: str, cauchy: bool = False) -> Density:
    """Normal errors; the prior of σ is half-Cauchy(0, 2.5) or flat."""

    def density(d: dict[str, Any], v: Values) -> float:
        x, y = design(kind, d)
        prior = stats.halfcauchy(scale=2.5).logpdf(v["sigma"]) if cauchy else 0.0
        return float(prior + stats.norm(x @ v["beta"], v["sigma"]).logpdf(y).sum())

    return density


def ark(d: dict[str, Any], v: Values) -> float:
    """Autoregression of order K."""
    y, k = np.asarray(d["y"], dtype=float), d["K"]
    prior = stats.norm(0, 10).logpdf(v["alpha"]) + stats.norm(0, 10).logpdf(v["beta"]).sum()
    means = v["alpha"] + lags(y, k) @ v["beta"]
    return float(
        prior + stats.halfcauchy(scale=2.5).logpdf(v["sigma"]) + stats.norm(means, v["sigma"]).logpdf(y[k:]).sum()
    )


def garch(d: dict[str, Any], v: Values) -> float:
    """Flat priors; the variance step by step."""
    y, variance = d["y"], [d["sigma1"] ** 2]
    for before in y[:-1]:
        variance.append(v["alpha0"] + v["alpha1"] * (before - v["mu"]) ** 2 + v["beta1"] * variance[-1])
    return float(stats.norm(v["mu"], np.sqrt(variance)).logpdf(y).sum())


def gp_pois(d: dict[str, Any], v: Values) -> float:
    """Of the length scale, the amplitude and standard normal numbers."""
    x = np.asarray(d["x"], dtype=float)
    covariance = v["alpha"] ** 2 * np.exp(-((x[:, None] - x) ** 2) / (2 * v["rho"] ** 2)) + JITTER * np.eye(len(x))
    f = np.linalg.cholesky(covariance) @ v["f_tilde"]
    prior = stats.gamma(25, scale=1 / 4).logpdf(v["rho"]) + stats.halfnorm(scale=2).logpdf(v["alpha"])
    return float(prior + stats.norm().logpdf(v["f_tilde"]).sum() + stats.poisson(np.exp(f)).logpmf(d["k"]).sum())


def lotka_volterra(d: dict[str, Any], v: Values) -> float:
    """The differential equation is solved to ten digits."""
    a, b, c, e = v["theta"]
    rates = lambda t, z: [(a - b * z[1]) * z[0], (-c + e * z[0]) * z[1]]
    times = np.arange(len(d["ts"]) + 1.0)
    path = solve_ivp(rates, (0, times[-1]), v["z_init"], t_eval=times, rtol=1e-10, atol=1e-10).y.T
    prior = stats.norm([1, 0.05, 1, 0.05], [0.5, 0.05, 0.5, 0.05]).logpdf(v["theta"]).sum()
    prior += stats.lognorm(1, scale=10).logpdf(v["z_init"]).sum()
    prior += stats.lognorm(1, scale=np.exp(-1)).logpdf(v["sigma"]).sum()
    return float(prior + stats.lognorm(v["sigma"], scale=path).logpdf([d["y_init"], *d["y"]]).sum())


def eight_schools(centered: bool) -> Density:
    """Effects as they are, or standardised."""

    def density(d: dict[str, Any], v: Values) -> float:
        prior = stats.norm(0, 5).logpdf(v["mu"]) + stats.halfcauchy(scale=5).logpdf(v["tau"])
        name, law = ("theta", stats.norm(v["mu"], v["tau"])) if centered else ("theta_trans", stats.norm())
        theta = v["theta"] if centered else v["mu"] + v["tau"] * v["theta_trans"]
        return float(prior + law.logpdf(v[name]).sum() + stats.norm(theta, d["sigma"]).logpdf(d["y"]).sum())

    return density


def mixture(d: dict[str, Any], v: Values) -> float:
    """Two normals."""
    parts = [stats.norm(m, s).pdf(d["y"]) for m, s in zip(v["mu"], v["sigma"], strict=True)]
    prior = stats.norm(0, 2).logpdf(v["mu"]).sum() + stats.halfnorm(scale=2).logpdf(v["sigma"]).sum()
    mixed = np.log(v["theta"] * parts[0] + (1 - v["theta"]) * parts[1])
    return float(prior + stats.beta(5, 5).logpdf(v["theta"]) + mixed.sum())


DENSITIES: dict[str, Density] = {
    "arK": ark,
    "eight_schools_centered": eight_schools(centered=True),
    "eight_schools_noncentered": eight_schools(centered=False),
    "garch11": garch,
    "gp_pois_regr": gp_pois,
    "kidscore_interaction": linear("kidscore_interaction", cauchy=True),
    "kidscore_momhsiq": linear("kidscore_momhsiq", cauchy=True),
    "logearn_interaction": linear("logearn_interaction"),
    "logmesquite_logvas": linear("logmesquite_logvas"),
    "lotka_volterra": lotka_volterra,
    "low_dim_gauss_mix": mixture,
    "nes": linear("nes"),
}
