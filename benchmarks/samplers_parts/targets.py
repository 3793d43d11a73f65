"""The targets of benchmarks/samplers.py, each as a program of pplebm and as a function by hand in JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

D = 10  # dimensions of every target
SEED = 0
D1, D2, WIDTH = 6, 4, 32  # of the tilted target: two layers of latents, and of the networks
CONDITION = 3000.0


class Target(NamedTuple):
    """A density, and how many steps of warm-up every sampler gets."""

    label: str
    n_warmup: int
    declared: Callable[[str], tuple[Any, Any]]  # a backend -> program, and data or None for its prior
    latents: tuple[str, ...]  # of the program, in the order of the coordinates by hand
    by_hand: Callable[[], Callable[[Any], Any]]  # log density of the coordinates of one chain, (D,)


# --- a tilted prior of two layers


def weights() -> dict[str, np.ndarray]:
    """Weights of the mean of z1 and of the two tilts."""
    rng = np.random.default_rng(SEED)
    found = {"mean": rng.normal(size=(D2, D1)) / 2, "scale": np.exp(0.3 * rng.normal(size=D1))}
    for name, d in (("f1", D1), ("f2", D2)):
        for i, (a, b) in enumerate(((d, WIDTH), (WIDTH, WIDTH), (WIDTH, 1))):
            found[f"{name}.{i}"] = rng.normal(size=(a, b)) * (2.0 if i == 2 else 1.5) / np.sqrt(a)
    return {name: a.astype(np.float32) for name, a in found.items()}


def tilt(w: dict[str, Any], name: str, z: Any, tanh: Callable[[Any], Any]) -> Any:
    """Two hidden layers, one number per row."""
    return (tanh(tanh(z @ w[f"{name}.0"]) @ w[f"{name}.1"]) @ w[f"{name}.2"])[..., 0]


def tanh_of(backend: str) -> Any:
    """The function of that backend's arrays."""
    if backend == "pyro":
        import torch as xp
    else:
        import jax.numpy as xp
    return xp.tanh


def tilted(backend: str) -> tuple[Any, None]:
    """z2 is N(0, I) in four dimensions, z1 given z2 Gaussian in six, both tilted by networks."""
    import pplebm
    from pplebm.ppl.language import load_backend

    ppl, tanh = load_backend(backend), tanh_of(backend)
    w = {name: ppl.asarray(a) for name, a in weights().items()}

    def model(x: Any) -> None:
        with ppl.plate("data", len(x)):
            z2 = ppl.sample("z2", ppl.dist.Normal(ppl.asarray(np.zeros(D2)), 1.0).to_event(1))
            z1 = ppl.sample("z1", ppl.dist.Normal(z2 @ w["mean"], w["scale"]).to_event(1))
            ppl.tilt("f", tilt(w, "f1", z1, tanh) + tilt(w, "f2", z2, tanh))
            ppl.sample("x", ppl.dist.Normal(z1[..., 0], 1.0), obs=x)

    return pplebm.Program(model, data=np.zeros(3, np.float32), backend=backend), None


def tilted_by_hand() -> Callable[[Any], Any]:
    """The same in JAX, z1 before z2."""
    import jax.numpy as jnp

    w = {name: jnp.asarray(a) for name, a in weights().items()}

    def log_density(z: Any) -> Any:
        z1, z2 = z[:D1], z[D1:]
        base = -0.5 * (z2**2).sum() - 0.5 * (((z1 - z2 @ w["mean"]) / w["scale"]) ** 2).sum()
        return base + tilt(w, "f1", z1, jnp.tanh) + tilt(w, "f2", z2, jnp.tanh)

    return log_density


# --- a Gaussian in rotated axes


def rotated() -> tuple[np.ndarray, np.ndarray]:
    """W and x of z ~ N(0, I), x ~ N(W z, I), whose posterior has precision I + W'W."""
    rng = np.random.default_rng(SEED)
    turn = np.linalg.qr(rng.normal(size=(D, D)))[0]
    w = (turn * np.sqrt(np.geomspace(1e-2, CONDITION, D))).T
    return w.astype(np.float32), rng.normal(size=(1, D)).astype(np.float32)


def gaussian(backend: str) -> tuple[Any, np.ndarray]:
    """The posterior of one datum."""
    import pplebm
    from pplebm.ppl.language import load_backend

    ppl, (w, x) = load_backend(backend), rotated()
    transposed, zero = ppl.asarray(w.T), ppl.asarray(np.zeros(D))

    def model(x: Any) -> None:
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(zero, 1.0).to_event(1))
            ppl.sample("x", ppl.dist.Normal(z @ transposed, 1.0).to_event(1), obs=x)

    return pplebm.Program(model, data=x, backend=backend), x


def gaussian_by_hand() -> Callable[[Any], Any]:
    """The same in JAX."""
    import jax.numpy as jnp

    w, x = (jnp.asarray(a) for a in rotated())
    return lambda z: -0.5 * (z**2).sum() - 0.5 * ((x[0] - w @ z) ** 2).sum()


TARGETS = {
    "tilted": Target("tilted layers", 300, tilted, ("z1", "z2"), tilted_by_hand),
    "gaussian": Target("rotated Gaussian", 1000, gaussian, ("z",), gaussian_by_hand),
}
