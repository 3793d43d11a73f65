r"""What the layers of a learned model mean: layers drawn anew given others, single latents moved, ways between data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from pplebm.errors import PplebmError
from pplebm.ppl.language import Latents
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.runs.run import Run
from pplebm.sampling.clamped import clamped
from pplebm.sampling.interpolate import Energies, Method, energies, interpolate

Free = Literal["below", "only"]
QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
N_MARGINAL = 1000  # draws of the tilted prior, whose quantiles these are
N_POSTERIOR = 32  # draws of an end, whose mean it is


class Redrawn(NamedTuple):
    """Draws given some layers of other draws, all by the tilted model."""

    held: tuple[str, ...]  # sites whose values these share with the draws they go out from
    latents: Latents  # (n_redraws * n, *event), centered coordinates
    decoded: Any  # (n, n_redraws, *event) means of the data, user units; by site where there are several
    share: float  # of the variance of the decoded data that is settled by the layers held
    share_error: float  # its standard error, by the jackknife over the n draws


class Hierarchy(NamedTuple):
    """Draws of the tilted prior, and what is left of them when fewer and fewer layers are held."""

    latents: Latents  # (n, *event), centered coordinates
    decoded: Any  # (n, *event) means of their data, user units
    redrawn: list[Redrawn]  # from most layers held to none, which are other draws of the prior


def hierarchy(
    run: Run,
    n: int = 4,
    n_redraws: int = 8,
    free: Free = "below",
    seed: int = 0,
    n_steps: int | None = None,
    given: Any = None,
    n_warmup: int = 100,
    n_steps_redrawn: int = 50,
    latents: Latents | None = None,
) -> Hierarchy:
    r"""Draw from the tilted prior, then draw the layers below each layer anew, or each layer alone, others held.

    With layers :math:`z_1` next to the data to :math:`z_L` on top, and held layers bit for bit those of the first draw,

    .. math:: z_{<k}' \sim \tilde p(z_{<k} \mid z_{\ge k}), \qquad\text{or}\qquad z_k' \sim \tilde p(z_k \mid z_{-k})

    What stays alike among data that share :math:`z_{\ge k}` is what these layers say; what differs is left to those
    below. `share` is the part of the variance that they settle, over all numbers of a datum together,

    .. math:: \frac{\mathrm{var}\, E(\hat x \mid z_{\ge k})}{\mathrm{var}\, E(\hat x \mid z_{\ge k})
              + E\, \mathrm{var}(\hat x \mid z_{\ge k})}, \qquad \hat x = E[x \mid z],

    estimated without bias of numerator and denominator from the redraws alone, as in an analysis of variance; it may
    fall a little below 0. Draws to go out from are by the chains of learning, redraws by adjusted ones.

    Args:
        run: a learned model.
        n: draws of the prior.
        n_redraws: of each of them.
        free: "below", all layers below layer k, for k = 2..L; "only", layer k alone, for k = 1..L.
        seed: of all chains.
        n_steps: of the chains of the prior; those of learning by default.
        given: n rows in the user's units, where the model reads covariates; only these are looked at.
        n_warmup: steps of warm-up of the chains that draw layers anew.
        n_steps_redrawn: steps of these chains after that.
        latents: draws of the tilted prior in the place of new ones, centered coordinates: the first n to go out from,
            the n * n_redraws after them those with no layer held. For a model that reads no covariates.

    Raises:
        PplebmError: for a model of a single layer, an unknown word, or fewer than two draws or redraws.

    Source: Cui, Wu, Han (CVPR 2023), hierarchical sampling; there without the tilt in the lower layers' conditional.

    Example:
        >>> import tempfile, numpy, pplebm
        >>> data = numpy.random.default_rng(0).normal(size=(60, 3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = pplebm.fit("conjugate_tilt", data, out=f"{folder}/run", updates=1, hyper={"batch_size": 8})
        ...     found = hierarchy(run, 2, 3, n_warmup=25, n_steps_redrawn=2)
        >>> [(part.held, part.decoded.shape) for part in found.redrawn]
        [(('z2',), (2, 3, 3)), ((), (2, 3, 3))]
    """
    names = [site.name for site in run.program.latents]  # top first
    if free not in get_args(Free):
        raise PplebmError(f"free '{free}' is not known; choose one of {', '.join(get_args(Free))}.")
    if len(names) < 2:
        raise PplebmError(
            f"the model has one layer of latents, '{names[0]}', and nothing below it can be drawn anew; `traverse` "
            f"moves single latents."
        )
    data, n = _rows(run, given, n)
    if min(n, n_redraws) < 2:
        raise PplebmError(f"variances need two draws and two redraws of each; got n={n} and n_redraws={n_redraws}.")
    rows = _repeated(run, data, n_redraws)
    every = _draws(run, n * (n_redraws + 1), seed, n_steps, _repeated(run, data, n_redraws + 1), latents)
    z, others = {k: a[:n] for k, a in every.items()}, {k: a[n : n * (n_redraws + 1)] for k, a in every.items()}
    groups = [tuple(names[:i]) for i in range(len(names) - 1, 0, -1)]
    if free == "only":
        groups = [tuple(name for name in names if name != one) for one in reversed(names)]
    drawn = {
        held: clamped(
            run.program, run.params, z, held, data, False, n_redraws, n_warmup, n_steps_redrawn, seed=seed + 1 + i
        )
        for i, held in enumerate(groups)
    } | {(): others}
    by_row = lambda a: a.reshape(n_redraws, n, *a.shape[1:]).swapaxes(0, 1)
    means = {held: _each(decoded(run, new, rows), by_row) for held, new in drawn.items()}
    redrawn = [Redrawn(held, new, means[held], *_share(means[held])) for held, new in drawn.items()]
    return Hierarchy(z, decoded(run, z, data), redrawn)


def _share(means: Any) -> tuple[float, float]:
    """Share of the variance that lies between rows, and its standard error by the jackknife over rows."""
    every = _numbers(means)
    n, m = every.shape[:2]
    centre, within = every.mean(1), every.var(1, ddof=1).sum(1)

    def share(rows: np.ndarray) -> float:
        inner = within[rows].mean()
        between = centre[rows].var(0, ddof=1).sum() - inner / m
        return float(between / (between + inner)) if between + inner > 0 else float("nan")

    left_out = np.array([share(np.arange(n) != i) for i in range(n)]) if n > 2 else np.full(n, np.nan)
    return share(np.full(n, True)), float(((n - 1) ** 2 / n) ** 0.5 * left_out.std(ddof=1))


def _numbers(means: Any) -> np.ndarray:
    """Decoded data of all sites side by side, (n, n_redraws, numbers)."""
    parts = list(means.values()) if isinstance(means, dict) else [means]
    return np.concatenate([a.reshape(*a.shape[:2], -1).astype(float) for a in parts], 2)


class Traversal(NamedTuple):
    """Latents of one layer moved one by one, in noncentered coordinates, all others as they were."""

    site: str
    moved: tuple[int, ...]  # which of the latents of the site, counted through
    quantiles: tuple[float, ...]
    values: np.ndarray  # (latents, quantiles), in the coordinates of the move
    latents: Latents  # (latents * quantiles * n, *event), noncentered coordinates
    decoded: Any  # (latents, quantiles, n, *event) means of the data, user units; by site where there are several
    change: np.ndarray  # (latents,) root mean square change of the data over the quantiles, user units


def traverse(
    run: Run,
    site: str,
    index: Sequence[int] | None = None,
    n: int = 1,
    quantiles: Sequence[float] = QUANTILES,
    seed: int = 0,
    n_steps: int | None = None,
    latents: Latents | None = None,
    given: Any = None,
) -> Traversal:
    r"""Move one latent at a time over the quantiles of its marginal under the tilted prior, and decode.

    The move is in noncentered coordinates: all else is held, and a layer below keeps its noise and follows,
    :math:`z_i = \mu_i(z_{i+1}) + \sigma_i(z_{i+1})\,\epsilon_i`. So moves of a layer far from the data are seen as
    well, which in centered coordinates would change nothing but the layer itself.

    Args:
        run: a learned model.
        site: the layer.
        index: which latents of the layer, counted through; all by default.
        n: draws of the prior to go out from.
        quantiles: where to go.
        seed: of the draws.
        n_steps: of the chains of the prior; those of learning by default.
        latents: draws of the tilted prior in the place of new ones, centered coordinates: n to go out from, and all
            of them for quantiles. For a model that reads no covariates.
        given: rows in the user's units, where the model reads covariates; quantiles are those over these rows.

    Raises:
        PplebmError: for a site or a latent that the model does not have, or quantiles outside (0, 1).

    Example:
        >>> import tempfile, numpy, pplebm
        >>> data = numpy.random.default_rng(0).normal(size=(60, 3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = pplebm.fit("conjugate_tilt", data, out=f"{folder}/run", updates=1, hyper={"batch_size": 8})
        ...     found = traverse(run, "z2", [1], quantiles=(0.1, 0.5, 0.9))
        >>> found.decoded.shape, found.change.shape
        ((1, 3, 1, 3), (1,))
    """
    moving, ppl = run.program.with_coordinates("noncentered"), run.program.ppl
    width = _width(run, site, quantiles)
    which = tuple(range(width)) if index is None else tuple(int(i) for i in index)
    if not which or not all(0 <= i < width for i in which):
        raise PplebmError(f"'{site}' has latents 0 to {width - 1}; got index={index!r}.")
    data, n = _rows(run, given, n)
    many = _repeated(run, data, N_MARGINAL // n + 1)
    drawn = _draws(run, N_MARGINAL if many is None else n_rows(many), seed, n_steps, many, latents, least=n)
    every = {name: ppl.to_numpy(a) for name, a in moving_latents(run, drawn, many).items()}
    values = np.quantile(every[site].reshape(-1, width)[:, which], quantiles, axis=0).T
    copies = len(which) * len(quantiles)
    moved = {name: np.tile(a[:n], (copies, *[1] * (a.ndim - 1))) for name, a in every.items()}
    flat = moved[site].reshape(len(which), len(quantiles), n, width)
    for k, i in enumerate(which):
        flat[k, :, :, i] = values[k][:, None]
    arrays = {name: ppl.asarray(a, keep=True) for name, a in moved.items()}
    rows = _repeated(run, data, copies)
    means = decoded(run, moving.move(run.params, arrays, "centered", rows), rows)
    means = _each(means, lambda a: a.reshape(len(which), len(quantiles), n, *a.shape[1:]))
    parts = list(means.values()) if isinstance(means, dict) else [means]
    change = sum(a.var(1).reshape(len(which), -1).mean(1) for a in parts)
    return Traversal(site, which, tuple(quantiles), values, arrays, means, np.sqrt(change))


class Way(NamedTuple):
    """A way between two latents, and what it passes."""

    latents: Latents  # (n_points, *event), noncentered coordinates
    decoded: Any  # (n_points, *event) means of the data, user units; by site where there are several
    energies: Energies  # in noncentered coordinates
    length: float  # in the metric of the prior's density, in that of the straight line


def between(
    run: Run,
    x: Any = None,
    n_points: int = 25,
    seed: int = 0,
    sharpness: float | None = None,
    n_steps: int | None = None,
) -> dict[str, Way]:
    """Go from one datum to another through their latents: "straight", and along the "prior".

    Ends are the means of posterior draws in noncentered coordinates, or without data two draws of the tilted prior. See
    `pplebm.sampling.interpolate.interpolate` for what the way along the prior is.

    Args:
        run: a learned model, whose prior reads no covariates.
        x: two data in the user's units.
        n_points: on each way, both ends included.
        seed: of the draws.
        sharpness: as in `interpolate`.
        n_steps: of the chains of the draws; those of learning by default.

    Raises:
        PplebmError: for a prior that reads covariates, or another number of data.
    """
    moving, ppl = run.program.with_coordinates("noncentered"), run.program.ppl
    if run.program.prior_reads or run.program.generator_reads:
        raise PplebmError(
            f"the model reads {', '.join(run.program.covariates)}, so two data have two priors and no way between "
            f"them; use pplebm.sampling.interpolate.interpolate at one row."
        )
    if x is None:
        z = moving_latents(run, run.prior_latents(2, seed, n_steps=n_steps))
    else:
        data = run.data(x)
        if n_rows(data) != 2:
            raise PplebmError(f"a way leads from one datum to another; got {n_rows(data)} data.")
        copies = take_rows(data, ppl.asarray(np.tile([0, 1], N_POSTERIOR)))
        draws = moving_latents(run, run.posterior_latents(copies, seed, n_steps))
        z = {name: a.reshape(N_POSTERIOR, 2, *a.shape[1:]).mean(0) for name, a in draws.items()}
    ends = [{name: a[i : i + 1] for name, a in z.items()} for i in (0, 1)]
    found = {}
    for method in get_args(Method):
        path = interpolate(moving, run.params, ends[0], ends[1], n_points, method, sharpness)
        means = decoded(run, moving.move(run.params, path.latents, "centered"))
        found[method] = Way(path.latents, means, energies(moving, run.params, path.latents), path.length)
    return found


# --- what these share


def decoded(run: Run, z: Latents, data: Any = None) -> Any:
    """Means of the data given latents in centered coordinates, user units; by site where there are several.

    Raises:
        PplebmError: if the observed distribution has no mean, or covariates are missing.
    """
    found = run.program.predict(run.params, z, data=data)
    values = {name: run.site_to_user(name, run.program.ppl.to_numpy(a)) for name, a in found.items()}
    return values if len(values) > 1 else next(iter(values.values()))


def moving_latents(run: Run, z: Latents, data: Any = None) -> Latents:
    """Latents of a run, as it draws them, in noncentered coordinates."""
    return run.program.move(run.params, z, "noncentered", data)


def _rows(run: Run, given: Any, n: int) -> tuple[Any, int]:
    """Rows in model units where the model reads covariates, and how many draws are wanted."""
    if not (run.program.prior_reads or run.program.generator_reads):
        return None, n
    if given is None:
        raise PplebmError(
            f"the model reads the covariates {', '.join(run.program.covariates)}, so it is another one in every row; "
            f"give given= the rows it is wanted at."
        )
    data = run.data(given)
    return data, n_rows(data)


def _draws(
    run: Run, n: int, seed: int, n_steps: int | None, data: Any, latents: Latents | None, least: int | None = None
) -> Latents:
    """Draws of the tilted prior: new ones, or those given, of which there must be enough."""
    if latents is None:
        return run.prior_latents(n, seed, n_steps=n_steps, given=data)
    there = len(next(iter(latents.values())))
    if data is not None or there < (least or n):
        raise PplebmError(f"latents= takes {least or n} draws or more of a model without covariates; got {there}.")
    return latents


def _repeated(run: Run, data: Any, times: int) -> Any:
    index = None if data is None else run.program.ppl.asarray(np.tile(np.arange(n_rows(data)), times))
    return None if data is None else take_rows(data, index)


def _width(run: Run, site: str, quantiles: Sequence[float]) -> int:
    """Latents of a site."""
    there = {s.name: s for s in run.program.latents}
    if site not in there:
        raise PplebmError(f"there is no latent site '{site}'; there are {', '.join(there)}.")
    if not len(quantiles) or not all(0.0 < q < 1.0 for q in quantiles):
        raise PplebmError(f"quantiles must lie between 0 and 1, both excluded; got {tuple(quantiles)}.")
    return int(np.prod(there[site].shape, dtype=int))


def _each(means: Any, change: Any) -> Any:
    return {name: change(a) for name, a in means.items()} if isinstance(means, dict) else change(means)
