r"""Lower layers of a program given upper ones, tilts included, by chains that accept and reject."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from pplebm.errors import PplebmError
from pplebm.kernels.adaptation import adapted, adapting
from pplebm.kernels.clamped import clamped
from pplebm.ppl.language import Data, Latents, Params
from pplebm.program import Program
from pplebm.sampling import chains

Layers = tuple[tuple[str, ...], ...]  # names of sites by layer, next to the data first
THIN = 5  # trajectories between draws


def layers_of(program: Program, layers: Sequence[Any] | None = None) -> Layers:
    """Layers of latents, the one next to the data first.

    By default every site is a layer, in the reverse of program order: a model declares what others depend on first.

    Args:
        program: any.
        layers: names of sites, or tuples of names for layers of several sites, where they are to be others.

    Raises:
        PplebmError: unless every latent is in one of them once.

    Example:
        >>> import pplebm
        >>> layers_of(pplebm.Program(pplebm.bind("conjugate_tilt")))
        (('z1',), ('z2',))
    """
    names = [site.name for site in program.latents]
    if layers is None:
        return tuple((name,) for name in reversed(names))
    found = tuple((layer,) if isinstance(layer, str) else tuple(layer) for layer in layers)
    if sorted(name for layer in found for name in layer) != sorted(names):
        raise PplebmError(f"layers {found} must name every latent once; the latents are {', '.join(names)}.")
    return found


def conditional_draws(
    program: Program,
    params: Params,
    z: Latents,
    held: Collection[str],
    data: Data | None = None,
    *,
    n_draws: int,
    n_warmup: int,
    seed: int,
) -> list[Latents]:
    r"""Draw the other layers given those that are held, one chain a row, from the tilted prior.

    .. math:: p(z_{\le k} \mid z_{>k}) \propto e^{\sum_i f_i(z)} \prod_{i \le k} p_0(z_i \mid z_{>i})

    Ancestral draws, which leave out the tilts, are but where chains start. Every chain learns its step size in warm-up.

    Args:
        program, params: any without global latents.
        z: latents, (B, *event), in centered coordinates; of sites that are held the values given.
        held: names of sites that depend on no other site, or on held ones.
        data: a row for every latent, with the covariates that the prior reads.
        n_draws: of every chain.
        n_warmup: steps before the first draw.
        seed: of all random numbers.

    Returns:
        For each draw latents, (B, *event), in centered coordinates.

    Raises:
        PplebmError: if a held site depends on one that is not.

    Example:
        >>> import numpy as np, torch, pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> z = program.draw_base(0, 5)
        >>> draws = conditional_draws(program, program.params, z, {"z2"}, n_draws=2, n_warmup=20, seed=0)
        >>> len(draws), bool(torch.allclose(draws[1]["z2"], z["z2"])), bool((draws[1]["z1"] != z["z1"]).all())
        (2, True, True)
    """
    inner, outer = program.with_coordinates("noncentered"), program.with_coordinates("centered")
    ppl, n = program.ppl, len(next(iter(z.values())))
    data = data if program.prior_reads else None
    kernel = clamped([site.name for site in program.latents], held)
    warming, shape = adapting(kernel, (1, 1, n)), (1, 1, n)
    keys = ppl.split(ppl.key(seed), 4)
    start = inner.draw_start(keys[0], n if data is None else data, params)
    start |= {site: a for site, a in outer.move(params, z, "noncentered", data).items() if site in held}
    state = chains.begin(inner, keys[1], params, data, warming, n, start, observed=False)
    if n_warmup:
        state, _ = chains.advance(inner, keys[2], state, params, data, warming, n_warmup, observed=False)
        state = adapted(ppl, state, shape)
    else:
        state = state.inner
    _, kept = chains.record(inner, keys[3], state, params, data, kernel, n_draws * THIN, THIN)
    found = [inner.move(params, at, "centered", data) for at in kept[1:]]
    _check_held(program, z, found[-1], held)
    return found


def _check_held(program: Program, before: Latents, after: Latents, held: Collection[str]) -> None:
    for site in held:
        old, new = (program.ppl.to_numpy(a[site]).astype(float) for a in (before, after))
        if not np.allclose(old, new, rtol=1e-3, atol=1e-4):
            raise PplebmError(
                f"site '{site}' cannot be held while others move, because it depends on them; give layers= in which "
                f"every site depends on sites of its own or later layers alone, next to the data first."
            )
