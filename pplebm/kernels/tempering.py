r"""Parallel tempering over the strength of the tilt: easy chains near the base help those of the tilted target."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from pplebm.errors import PplebmError
from pplebm.kernels.batch import choose, zeros
from pplebm.kernels.kernel import Kernel, LogDensity, Target, density_of
from pplebm.kernels.metropolis import MetropolisInfo, MetropolisState, decide, uniform_noise
from pplebm.ppl.language import PPL, Array, Key, Latents, Tree

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


class TemperingState(NamedTuple):
    """State of chains between steps; rows are replicas of chains, strength by strength, the full tilt last."""

    z: Latents
    inner: MetropolisState
    round: Array  # steps done; neighbours swap in pairs of even and odd number by turns

    @property
    def n_divergent(self) -> Array:
        """Divergent steps of the inner kernel, per row."""
        return self.inner.n_divergent


class TemperingInfo(NamedTuple):
    """Figures of one step, (R * B,) each."""

    log_density: Array  # at the row's own strength, after the step
    accept_prob: Array  # of the inner kernel
    is_accepted: Array
    is_divergent: Array
    energy: Array
    num_steps: Array
    step_size: Array
    swap_prob: Array  # of the pair the row was in; 0 for a row without partner
    is_swapped: Array


def parallel_tempering(inner: Kernel, strengths: Sequence[float] = STRENGTHS) -> Kernel:
    r"""Make a kernel that runs `inner` at every tilt strength β and lets neighbours swap places.

    .. math::
        \pi_\beta(z) \propto p_0(z)\, p(x \mid z)\, e^{\beta f(z)}, \qquad
        \alpha = \min\big(1, e^{(\beta_i - \beta_j)(f(z_j) - f(z_i))}\big)

    The rows of a state are replicas of chains: B rows at the first strength, B at the next, and so on; the last B,
    at strength 1, are draws of the target, without bias if `inner` has none. `pplebm.sample` sees to that. Where the
    tilt alone separates the modes, the chains at small β cross between them.

    Args:
        inner: made by `mala` or `hmc`.
        strengths: increasing, the last of them 1.

    Raises:
        PplebmError: for strengths out of order, an inner kernel without accept decision, or a log density that is
            not a program's: it must take `tilt_strength`, a number per row.

    Source: Geyer (Computing Science and Statistics 1991); Swendsen, Wang (PRL 1986).

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> from pplebm.kernels.hmc import hmc
        >>> def log_density(z, tilt_strength=1.0):  # modes at -6 and 6, separated by the tilt
        ...     return -0.125 * z["z"] ** 2 + tilt_strength * (-0.02 * (z["z"] ** 2 - 36.) ** 2 / 4)
        >>> kernel = parallel_tempering(hmc(5, 1.0), (0.0, 0.01, 0.05, 0.2, 1.0))
        >>> state = kernel.init(ppl, {"z": torch.full((5 * 100,), 6.)}, log_density)
        >>> for key in range(150):
        ...     state, info = kernel(ppl, key, state, log_density)
        >>> 0.3 < (state.z["z"][-100:] < 0).float().mean() < 0.7
        tensor(True)
    """
    ladder = [float(b) for b in strengths]
    if len(ladder) < 2 or ladder[-1] != 1.0 or any(a >= b for a, b in pairwise(ladder)) or ladder[0] < 0:
        raise PplebmError(f"strengths must increase from at least 0 to 1, got {list(strengths)}.")
    if inner.tuning is None or inner.trajectory is not None:
        raise PplebmError(f"the inner kernel must be mala or hmc, got {inner.settings}.")
    n = len(ladder)

    def strength(ppl: PPL, rows: int) -> Array:
        if rows % n:
            raise PplebmError(f"{rows} rows cannot be split over {n} tilt strengths; give every chain {n} rows.")
        return ppl.asarray([b for b in ladder for _ in range(rows // n)])

    def tempered(ppl: PPL, log_density: LogDensity, z: Latents) -> LogDensity:
        beta = strength(ppl, len(next(iter(z.values()))))
        return lambda z: log_density(z, tilt_strength=beta)

    def init(ppl: PPL, z: Latents, log_density: Target) -> TemperingState:
        density = density_of(log_density, "parallel_tempering")
        return TemperingState(z, inner.init(ppl, z, tempered(ppl, density, z)), ppl.asarray(0))

    def noise(ppl: PPL, key: Key, z: Latents) -> Tree:
        first, second = ppl.split(key)
        return {"inner": inner.noise(ppl, first, z), "swap": ppl.normal_like(second, uniform_noise(z))}

    def move(ppl: PPL, noise: Tree, state: TemperingState, log_density: Target) -> tuple[TemperingState, TemperingInfo]:
        density = density_of(log_density, "parallel_tempering")
        at, info = inner.move(ppl, noise["inner"], state.inner, tempered(ppl, density, state.z))
        beta = strength(ppl, len(at.log_density))
        tilt = density(at.z, tilt_strength=1.0) - density(at.z, tilt_strength=0.0)
        even, odd = (_swap(ppl, noise["swap"], at.z, beta, tilt, _partners(len(beta), n, first)) for first in (0, 1))
        is_odd = (zeros(at.z) + state.round % 2) > 0.5
        z = choose(ppl, is_odd, odd.z, even.z)
        probability = ppl.where(is_odd, odd.probability, even.probability)
        is_swapped = (is_odd & odd.is_swapped) | (~is_odd & even.is_swapped)
        value, gradient = ppl.value_and_grad(tempered(ppl, density, z), z)
        new = TemperingState(z, at._replace(z=z, log_density=value, gradient=gradient), state.round + 1)
        kept = {name: getattr(info, name) for name in MetropolisInfo._fields} | {"log_density": value}
        return new, TemperingInfo(**kept, swap_prob=probability, is_swapped=is_swapped)

    return Kernel(("tempering", inner.settings, tuple(ladder)), init, noise, move, inner.tuning, n)


class _Swapped(NamedTuple):
    """Latents after swaps of pairs, the probabilities of the swaps, and which rows were swapped."""

    z: Latents
    probability: Array
    is_swapped: Array


def _swap(
    ppl: PPL, noise: dict[str, Array], z: Latents, beta: Array, tilt: Array, pairs: tuple[list[int], list[int]]
) -> _Swapped:
    """One accept decision for both of a pair."""
    partner, lower = (ppl.asarray(rows) for rows in pairs)
    of_pair = {k: a[lower] for k, a in noise.items()}
    is_accepted, probability, _ = decide(ppl, of_pair, (beta - beta[partner]) * (tilt[partner] - tilt))
    is_paired = partner != ppl.asarray(list(range(len(pairs[0]))))
    is_swapped = is_accepted & is_paired
    z = choose(ppl, is_swapped, {k: a[partner] for k, a in z.items()}, z)
    return _Swapped(z, ppl.where(is_paired, probability, 0.0 * probability), is_swapped)


def _partners(rows: int, n: int, first: int) -> tuple[list[int], list[int]]:
    """Rows that every row may swap with (itself if none), and the lower of the two."""
    size = rows // n
    partner = list(range(rows))
    for level in range(first, n - 1, 2):
        for i in range(size):
            a, b = level * size + i, (level + 1) * size + i
            partner[a], partner[b] = b, a
    return partner, [min(i, j) for i, j in enumerate(partner)]
