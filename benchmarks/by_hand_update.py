r"""The updates of two pages on the model `joint_ebm` of two layers, written by hand, once in torch and once in JAX.

A page of guides, `noise_contrastive`: the ELBO of the twin at one draw of a ladder guide, and the logistic loss of the
tilts. A page of chains, `short_run_mle`: noncentered Langevin of both phases, then the difference of log densities.
No program, no sites, no checks; weights are those of the program, by name.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
DIMS, DEPTH, SIGMA, FLOOR, BOUND = (16, 8), 2, 0.3, 0.2, 8.0  # the page's defaults
RATES = {"tilt": 1e-3, "other": 1e-3}
CLIP, PENALTY = 100.0, 0.05
Chains = dict[str, tuple[int, float]]  # by phase: steps, step size


class Densities:
    """Log densities, of a module `xp` with torch's names: exp, tanh, softplus, leaky_relu, silu."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def net(self, params: Any, name: str, depth: int, a: Any, activation: Any) -> Any:
        """Dense layers, the last one linear."""
        for i in range(depth):
            a = activation(a @ params[f"{name}.weight_{i}"].T + params[f"{name}.bias_{i}"])
        return a @ params[f"{name}.weight_{depth}"].T + params[f"{name}.bias_{depth}"]

    def normal(self, e: Any, scale: Any) -> Any:
        """log N at standardised values, summed."""
        return (-0.5 * e * e - self.log(scale) - HALF_LOG_2PI).reshape(len(e), -1).sum(1)

    def log(self, scale: Any) -> Any:
        """Of a number or an array."""
        return math.log(scale) if isinstance(scale, float) else self.xp.log(scale)

    def conditional(self, params: Any, z2: Any) -> tuple[Any, Any]:
        """Mean and scale of z1 given z2."""
        h = self.net(params, "conditional1", DEPTH, z2, self.xp.leaky_relu)
        return h[:, : DIMS[0]], self.xp.softplus(h[:, DIMS[0] :] + 0.2) + FLOOR

    def tilt(self, params: Any, z: Any) -> Any:
        """f(z1) + f(z2), bounded."""
        found = 0.0
        for i in (1, 2):
            f = self.net(params, f"tilt{i}", DEPTH, z[i - 1], self.xp.leaky_relu)[:, 0]
            found = found + BOUND * self.xp.tanh(f / BOUND)
        return found

    def likelihood(self, params: Any, z1: Any, x: Any) -> Any:
        """log p(x|z1)."""
        mean = self.net(params, "decoder", DEPTH, z1, self.xp.leaky_relu)
        return self.normal((x.reshape(len(x), -1) - mean) / SIGMA, SIGMA)

    def base(self, params: Any, z: Any) -> Any:
        """log p0(z)."""
        mean, scale = self.conditional(params, z[1])
        return self.normal(z[1], 1.0) + self.normal((z[0] - mean) / scale, scale)

    def guide(self, params: Any, x: Any, noise: Any) -> tuple[Any, Any]:
        """A draw of the ladder, and log q there."""
        z, log_q, below = [], 0.0, x.reshape(len(x), -1)
        for i in (1, 2):
            below = self.xp.silu(below @ params[f"guide.encoder.weight_{i}"].T + params[f"guide.encoder.bias_{i}"])
        for i, depth in ((1, 0), (2, DEPTH)):
            h = self.net(params, f"guide.q_z{i}", depth, below, self.xp.silu)
            mean, scale = h[:, : DIMS[i - 1]], self.xp.softplus(h[:, DIMS[i - 1] :]) + 0.01
            below = mean + scale * noise[i - 1]
            z.append(below)
            log_q = log_q + self.normal(noise[i - 1], scale)
        return z, log_q

    def contrastive(self, params: Any, x: Any, noise: Any, base_noise: Any, stop: Any) -> Any:
        """Loss of `noise_contrastive`; `stop` cuts a tree off from the gradient."""
        z, log_q = self.guide(params, x, noise)
        bound = (self.likelihood(params, z[0], x) + self.base(params, z) - log_q).mean()
        mean, scale = self.conditional(stop(params), base_noise[1])
        drawn, base = stop(z), [mean + scale * base_noise[0], base_noise[1]]
        positive, negative = self.tilt(params, drawn), self.tilt(params, base)
        return self.xp.softplus(-positive).mean() + self.xp.softplus(negative).mean() - bound

    def moving(self, params: Any, e: Any, x: Any) -> Any:
        """Log density of noncentered latents, of the posterior or without data of the prior."""
        mean, scale = self.conditional(params, e[1])
        z = [mean + scale * e[0], e[1]]
        total = self.normal(e[0], 1.0) + self.normal(e[1], 1.0) + self.tilt(params, z)
        return total if x is None else total + self.likelihood(params, z[0], x)

    def two_phases(self, params: Any, x: Any, positive: Any, negative: Any) -> Any:
        """Loss of `short_run_mle` at centered latents."""
        f_positive, f_negative = self.tilt(params, positive), self.tilt(params, negative)
        joint = self.base(params, positive) + f_positive + self.likelihood(params, positive[0], x)
        prior = self.base(params, negative) + f_negative
        return prior.mean() - joint.mean() + PENALTY * ((f_positive**2).mean() + (f_negative**2).mean())


def on_jax(params: dict[str, np.ndarray], x: np.ndarray, page: str, chains: Chains) -> Any:
    """A function (n) that makes n updates in one compiled scan."""
    from types import SimpleNamespace

    import jax
    import jax.numpy as jnp
    import optax

    xp = SimpleNamespace(
        exp=jnp.exp, log=jnp.log, tanh=jnp.tanh, softplus=jax.nn.softplus, silu=jax.nn.silu,
        leaky_relu=lambda a: jax.nn.leaky_relu(a, 0.2),
    )  # fmt: skip
    of, adam, n = Densities(xp), optax.adam(RATES["other"]), len(x)
    draw = lambda key: [jax.random.normal(k, (n, d)) for k, d in zip(jax.random.split(key), DIMS, strict=True)]

    def chain(key: Any, params: Any, phase: str, x: Any) -> Any:
        steps, s = chains[phase]
        k_start, k_run = jax.random.split(key)

        def step(e: Any, noise: Any) -> Any:
            gradient = jax.grad(lambda e: of.moving(params, e, x).sum())(e)
            drift = [0.5 * s * s * g for g in gradient]
            return [a + d + s * b for a, d, b in zip(e, drift, noise, strict=True)], None

        e, _ = jax.lax.scan(step, draw(k_start), jax.vmap(draw)(jax.random.split(k_run, steps)))
        mean, scale = of.conditional(params, e[1])
        return jax.lax.stop_gradient([mean + scale * e[0], e[1]])

    def update(carry: Any, key: Any) -> Any:
        params, state = carry
        first, second = jax.random.split(key)
        if page == "noise_contrastive":
            stop = jax.lax.stop_gradient
            loss = lambda p: of.contrastive(p, data, draw(first), draw(second), stop)
        else:
            positive, negative = chain(first, params, "posterior", data), chain(second, params, "prior", None)
            loss = lambda p: of.two_phases(p, data, positive, negative)
        value, gradient = jax.value_and_grad(loss)(params)
        gradient = optax.clip_by_global_norm(CLIP).update(gradient, optax.EmptyState())[0]
        changes, state = adam.update(gradient, state)
        return (optax.apply_updates(params, changes), state), value

    data = jnp.asarray(x)
    run = jax.jit(lambda carry, keys: jax.lax.scan(update, carry, keys))
    carry = [(jax.tree.map(jnp.asarray, params), adam.init(params))]

    def updates(n: int) -> None:
        carry[0], values = run(carry[0], jax.random.split(jax.random.key(0), n))
        values.block_until_ready()

    return updates


def on_torch(params: dict[str, np.ndarray], x: np.ndarray, page: str, chains: Chains) -> Any:
    """A function (n) that makes n updates in eager torch."""
    from types import SimpleNamespace

    import torch
    from torch.nn import functional

    xp = SimpleNamespace(
        exp=torch.exp, log=torch.log, tanh=torch.tanh, softplus=functional.softplus, silu=functional.silu,
        leaky_relu=lambda a: functional.leaky_relu(a, 0.2),
    )  # fmt: skip
    of, data, n = Densities(xp), torch.as_tensor(x), len(x)
    weights = {name: torch.tensor(a, requires_grad=True) for name, a in params.items()}
    adam = torch.optim.Adam(weights.values(), lr=RATES["other"])
    draw = lambda: [torch.randn(n, d) for d in DIMS]

    def stop(tree: Any) -> Any:
        return {k: v.detach() for k, v in tree.items()} if isinstance(tree, dict) else [a.detach() for a in tree]

    def chain(phase: str, x: Any) -> Any:
        (steps, s), held, e = chains[phase], stop(weights), draw()
        for _ in range(steps):
            e = [a.detach().requires_grad_() for a in e]
            gradient = torch.autograd.grad(of.moving(held, e, x).sum(), e)
            with torch.no_grad():
                drift = [0.5 * s * s * g for g in gradient]
                e = [a + d + s * b for a, d, b in zip(e, drift, draw(), strict=True)]
        with torch.no_grad():
            mean, scale = of.conditional(held, e[1])
            return [mean + scale * e[0], e[1]]

    def updates(n: int) -> None:
        for _ in range(n):
            if page == "noise_contrastive":
                loss = of.contrastive(weights, data, draw(), draw(), stop)
            else:
                loss = of.two_phases(weights, data, chain("posterior", data), chain("prior", None))
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights.values(), CLIP)
            adam.step()

    return updates
