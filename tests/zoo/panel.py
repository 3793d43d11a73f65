"""Groups, panels, several plates, masks, missing values, censoring."""

from __future__ import annotations

import numpy as np

from zoo.entries import entry

rng = np.random.default_rng(2)
PANEL = rng.normal(size=(7, 3))
SEEN = np.arange(3) < np.array([3, 1, 2, 3, 2, 1, 3])[:, None]
TIME = rng.exponential(2.0, size=9)
EVENT = np.array([True, False, True, True, False, True, False, True, True])
X = rng.normal(size=9)
MISSING = np.array([1.0, np.nan, 0.3, -0.4, np.nan, 2.0, 0.1])
GROUP = np.array([0, 2, 1, 1, 0, 2, 2, 0])
ITEM = np.array([1, 0, 0, 1, 1, 0, 1, 0])


@entry(
    {"y": PANEL, "seen": SEEN},
    latents="a",
    observed="y",
    covariates="seen",
)
def random_intercepts(h):
    """Padded rows: what a mask leaves out does not count."""

    def model(y, seen):
        with h.plate("data", len(y)):
            a = h.sample("a", h.dist.Normal(0.0, 1.0))
            h.sample("y", h.dist.Normal(a[..., None], 0.5).expand(y.shape).mask(seen).to_event(1), obs=y)

    return model


@entry(
    np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
    latents="mu tau theta",
    observed="y",
    deterministic="shift",
    joint=True,
    plate="school",
)
def schools(h):
    """Global and local latents; a plate of another name; a value that is kept."""

    def model(x):
        mu = h.sample("mu", h.dist.Normal(0.0, 5.0))
        tau = h.sample("tau", h.dist.HalfCauchy(5.0))
        with h.plate("school", len(x)):
            theta = h.sample("theta", h.dist.Normal(mu, tau))
            h.deterministic("shift", theta - mu)
            h.sample("y", h.dist.Normal(theta, 10.0), obs=x)

    return model


@entry(
    {"group": GROUP, "item": ITEM, "y": rng.normal(size=8)},
    latents="a b",
    observed="y",
    covariates="group item",
    joint=True,
    reads_generator=True,
)
def crossed_groups(h):
    """Two global plates that integer columns point into."""

    def model(group, item, y):
        with h.plate("group", 3):
            a = h.sample("a", h.dist.Normal(0.0, 1.0))
        with h.plate("item", 2):
            b = h.sample("b", h.dist.Normal(0.0, 0.5))
        with h.plate("data", len(y)):
            h.sample("y", h.dist.Normal(a[group] + b[item], 0.7), obs=y)

    return model


@entry(
    {"x": X, "time": TIME, "event": EVENT},
    latents="z",
    observed="time",
    covariates="x event",
    factors="beyond",
    reads_generator=True,
)
def survival_by_mask(h):
    """Events observed under a mask, and the survival function of the censored rows as a factor."""

    def model(x, time, event):
        with h.plate("data", len(time)):
            z = h.sample("z", h.dist.Normal(0.0, 0.5))
            rate = h.xp.exp(z + 0.4 * x)
            with h.mask(event):
                h.sample("time", h.dist.Exponential(rate), obs=time)
            h.likelihood_factor("beyond", h.xp.where(event, 0.0 * time, -rate * time))

    return model


@entry(
    {"x": X, "time": TIME, "event": EVENT},
    latents="a b",
    observed="",
    covariates="x time event",
    factors="loglik",
    joint=True,
)
def survival_by_formula(h):
    """The whole likelihood as a formula, in the host's own factor."""

    def model(x, time, event):
        a = h.sample("a", h.dist.Normal(0.0, 1.0))
        b = h.sample("b", h.dist.Normal(0.0, 1.0))
        with h.plate("data", len(time)):
            log_rate = a + b * x
            h.factor("loglik", h.xp.where(event, log_rate, 0.0 * log_rate) - h.xp.exp(log_rate) * time)

    return model


@entry(PANEL, latents="z", observed="x")
def parts_before_rows(h):
    """A plate of parts left of the data's."""

    def model(x):
        data = h.plate("data", len(x), dim=-1)
        with h.plate("parts", 3, dim=-2), data:
            z = h.sample("z", h.dist.Normal(0.0, h.array([1.0, 2.0, 0.5])[:, None]))
            h.sample("x", h.dist.Normal(z, 0.4), obs=x.T)

    return model


@entry(PANEL, latents="a z", observed="x", dim=-2)
def rows_before_parts(h):
    """The data plate left of the parts."""

    def model(x):
        with h.plate("data", len(x), dim=-2):
            a = h.sample("a", h.dist.Normal(0.0, 1.0))
            with h.plate("parts", 3, dim=-1):
                z = h.sample("z", h.dist.Normal(a, 0.7))
                h.sample("x", h.dist.Normal(z, 0.4), obs=x)

    return model


@entry(rng.normal(size=(5, 2, 3)), latents="s z", observed="x", dim=-2)
def three_plates(h):
    """Plates on both sides of the data's, a positive latent and an event axis."""

    def model(x):
        with h.plate("data", len(x), dim=-2), h.plate("parts", 2, dim=-1):
            s = h.sample("s", h.dist.Gamma(3.0, 2.0))
            with h.plate("looks", 4, dim=-3):
                z = h.sample("z", h.dist.Normal(0.0, s[..., None]).expand([4, len(x), 2, 3]).to_event(1))
            h.sample("x", h.dist.Normal(z.sum(0), 0.5).to_event(1), obs=x)

    return model


@entry(
    {"y": np.nan_to_num(MISSING), "seen": ~np.isnan(MISSING)},
    latents="z y_unobserved",
    observed="y_observed",
    covariates="seen",
    deterministic="y",
    reads_prior=True,
)
def imputed(h):
    """Missing values as latents, by the host's obs_mask."""

    def model(y, seen):
        with h.plate("data", len(y)):
            z = h.sample("z", h.dist.Normal(0.0, 1.0))
            h.sample("y", h.dist.Normal(z, 0.5), obs=y, obs_mask=seen)

    return model


@entry({"y": MISSING, "seen": ~np.isnan(MISSING)}, latents="mu z", observed="y", covariates="seen", joint=True)
def placeholders(h):
    """NaN in the data, replaced in the model where a mask hides them."""

    def model(y, seen):
        mu = h.sample("mu", h.dist.Normal(0.0, 1.0))
        with h.plate("data", len(y)):
            z = h.sample("z", h.dist.Normal(mu, 1.0))
            with h.mask(seen):
                h.sample("y", h.dist.Normal(z, 0.5), obs=h.xp.where(seen, y, 0.0))

    return model


@entry(rng.normal(size=6), latents="z", observed="x")
def scalars(h):
    """One number by row."""

    def model(x):
        with h.plate("data", len(x)):
            z = h.sample("z", h.dist.Normal(1.0, 2.0))
            h.sample("x", h.dist.Normal(z, 1.0), obs=x)

    return model


@entry(rng.poisson(3.0, size=(6, 2)), latents="rate", observed="x")
def integer_events(h):
    """Integers with an event axis."""

    def model(x):
        with h.plate("data", len(x)):
            rate = h.sample("rate", h.dist.Gamma(2.0, 1.0).expand([2]).to_event(1))
            h.sample("x", h.dist.Poisson(rate).to_event(1), obs=x)

    return model


@entry(
    {"group": GROUP, "y": rng.normal(size=8)},
    latents="mu a",
    observed="y",
    covariates="group",
    deterministic="effect",
    joint=True,
    reads_generator=True,
)
def noncentred_groups(h):
    """Standard normal latents, shifted and scaled by parameters; their sum by group is kept."""

    def model(group, y):
        spread = h.param("spread", 0.8, constraint=h.dist.constraints.positive)
        mu = h.sample("mu", h.dist.Normal(0.0, 1.0))
        with h.plate("group", 3):
            a = h.sample("a", h.dist.Normal(0.0, 1.0))
            effect = h.deterministic("effect", mu + spread * a)
        with h.plate("data", len(y)):
            h.sample("y", h.dist.Normal(effect[group], 0.7), obs=y)

    return model
