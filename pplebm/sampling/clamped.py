r"""Draws of some latents given the others: the tilted conditional of the layers that are not held."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from pplebm.errors import PplebmError, PplebmWarning
from pplebm.kernels.adaptation import BASE_WINDOW, adapted, adapting, next_window, tuned, windows, with_tuning
from pplebm.kernels.clamped import clamped as kernel_of
from pplebm.kernels.dual_averaging import Shape
from pplebm.kernels.kernel import Kernel, State
from pplebm.ppl.language import Data, Key, Latents, Params
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program
from pplebm.sampling import chains


def clamped(
    program: Program,
    params: Params,
    z: Latents,
    fixed: Sequence[str],
    data: Data | None = None,
    observed: bool | None = None,
    n_chains: int = 1,
    n_warmup: int = 100,
    n_steps: int = 50,
    n_leapfrog: int = 8,
    seed: int = 0,
) -> Latents:
    r"""Draw some latents anew given the others, by adjusted chains in the tilted conditional.

    .. math:: z_F' \sim \tilde p(z_F \mid z_C) \propto \tilde p(z_F, z_C), \qquad z_C' = z_C \text{ exactly}

    with C the sites that are held and F the others; with data, :math:`\tilde p(z_F \mid z_C, x)`. A tilt on a layer
    that is free counts, one on a layer that is held cancels. Chains start at what the base makes of fresh noise given
    the sites held above, not at the latents given, learn a step size and a diagonal metric, and then take `n_steps`
    trajectories of Hamiltonian Monte Carlo, whose scale is zero at the sites that are held.

    Args:
        program: its coordinates are those of z, and in them sites are held. In "centered" coordinates that is a value;
            in "noncentered" ones it is the noise, so that a layer follows those above it.
        params: of the program.
        z: latents, (n, *event) by site.
        fixed: names of the sites that are held; all others are drawn.
        data: with a row for every row of z, or all data of a joint program; None where no observed site is wanted and
            the prior reads none.
        observed: False for the prior given the covariates of data.
        n_chains: draws of every row, each by a chain of its own; they share what they learn.
        n_warmup: steps in which step size and metric are learned.
        n_steps: steps after that, whose last one is the draw.
        n_leapfrog: leapfrog steps of every step.
        seed: of all random numbers.

    Returns:
        Latents in the coordinates of z, (n_chains * n, *event): all rows of the first chains, then of the second.

    Raises:
        PplebmError: for a site that the program does not have, counts out of range, or a start of no density.

    Source: Neal (Handbook of Markov Chain Monte Carlo, 2011), section 5.4, within a Gibbs step.

    Example:
        >>> import torch, pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> z = program.draw_base(0, 4)
        >>> again = clamped(program, program.params, z, ["z2"], n_warmup=25, n_steps=5)
        >>> bool((again["z2"] == z["z2"]).all()), bool((again["z1"] == z["z1"]).any())
        (True, False)
    """
    _check(program, fixed, {"n_chains": n_chains, "n_steps": n_steps}, n_warmup)
    ppl, n = program.ppl, len(next(iter(z.values())))
    index = ppl.asarray(np.tile(np.arange(n), n_chains))
    z = {site.name: z[site.name][index] for site in program.latents}
    if data is not None and not program.has_global_latents:
        if n_rows(data) != n:
            raise PplebmError(f"{n_rows(data)} rows of data for {n} latents; give one row for each.")
        data = take_rows(data, index)
    if len(set(fixed)) == len(program.latents):
        return z
    k_start, k_warm, k_run = ppl.split(ppl.key(seed), 3)
    kernel = kernel_of([site.name for site in program.latents], fixed, n_leapfrog=n_leapfrog)
    shape = (1, n_chains, n)
    start = _redrawn(program, k_start, params, z, fixed, data)
    with ppl.threads_for(program.work(n_chains * n)):
        state = _warmed_up(program, k_warm, params, data, observed, kernel, shape, start, fixed, n_warmup)
        end, info = chains.advance(program, k_run, state, params, data, kernel, n_steps, observed)
    still = ~ppl.to_numpy(info.is_accepted).astype(bool).any(0)
    if still.any():
        warnings.warn(
            f"{int(still.sum())} of {len(still)} chains given {', '.join(fixed) or 'nothing'} never moved in {n_steps} "
            f"steps, and their draws are starts; give a larger n_warmup.",
            PplebmWarning, stacklevel=2,
        )  # fmt: skip
    return dict(end.z)


def _check(program: Program, fixed: Sequence[str], counts: dict[str, int], n_warmup: int) -> None:
    names = [site.name for site in program.latents]
    unknown = [name for name in ([fixed] if isinstance(fixed, str) else fixed) if name not in names]
    if unknown or isinstance(fixed, str):
        what = f"'{fixed}' is a name" if isinstance(fixed, str) else f"there is no latent site '{unknown[0]}'"
        raise PplebmError(f"{what}; give fixed= a list of sites to hold, of {', '.join(names)}.")
    for name, count in (counts | {"n_warmup": n_warmup}).items():
        if not isinstance(count, int) or count < (name != "n_warmup"):
            raise PplebmError(f"{name} must be an integer from {int(name != 'n_warmup')} on, got {count!r}.")


def _redrawn(
    program: Program, key: Key, params: Params, z: Latents, fixed: Sequence[str], data: Data | None
) -> Latents:
    """The latents with fresh noise at the sites that are free, of the base given the sites held above them."""
    ppl, at, there = program.ppl, program.coordinates, program.with_coordinates("noncentered")
    k_noise, k_base = ppl.split(key)
    noise = ppl.normal_like(k_noise, z)
    if not all(program.has_noncentered.values()):  # these sites have no noise of their own, and start at base draws
        n = len(next(iter(z.values())))
        rows = data if data is not None and not program.has_global_latents else n
        base = there.draw_start(k_base, rows, params, data if program.has_global_latents else None)
        noise = {site: noise[site] if has else base[site] for site, has in program.has_noncentered.items()}
    moved = program.move(params, z, "noncentered", data)
    found = there.move(params, {site: a if site in fixed else noise[site] for site, a in moved.items()}, at, data)
    return {site: z[site] if site in fixed else a for site, a in found.items()}


def _warmed_up(
    program: Program,
    key: Key,
    params: Params,
    data: Data | None,
    observed: bool | None,
    kernel: Kernel,
    shape: Shape,
    start: Latents,
    fixed: Sequence[str],
    n_warmup: int,
) -> State:
    """State of the kernel with a step size and a metric for every row, zero at the sites that are held."""
    ppl, warming, n = program.ppl, adapting(kernel, shape), shape[1] * shape[2]
    if not n_warmup:
        return chains.begin(program, key, params, data, kernel, n, start, observed)
    state = chains.begin(program, key, params, data, warming, n, start, observed)
    phases = windows(n_warmup)
    for i, (k_window, (length, has_metric)) in enumerate(zip(ppl.split(key, len(phases) + 1), phases, strict=False)):
        keys = ppl.split(k_window, length)
        for at in range(0, length, BASE_WINDOW):  # pieces of equal length compile once
            state, _ = program.chain(warming, state, keys[at : at + BASE_WINDOW], params, data, observed)
        if i + 1 < len(phases):
            state = next_window(ppl, state, shape, has_metric)
            held = {site: 0.0 * a if site in fixed else a for site, a in tuned(state).scale.items()}
            state = state._replace(inner=with_tuning(state.inner, tuned(state).step_size, held))
    return adapted(ppl, state, shape)
