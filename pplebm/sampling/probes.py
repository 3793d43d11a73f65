r"""What draws alone cannot show, asked of their program: the rounding of its log density, and chains from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pplebm.kernels.adaptation import adapting, tuned, with_tuning
from pplebm.kernels.ascent import ascent
from pplebm.kernels.hmc import hmc
from pplebm.kernels.kernel import Score
from pplebm.kernels.schedules import linear
from pplebm.ppl.language import Array, Data, Latents, Params
from pplebm.ppl.trees import take_rows
from pplebm.sampling import chains
from pplebm.sampling.blocks import recording
from pplebm.sampling.convergence import effective_size
from pplebm.sampling.draws import Draws

N_LINES, N_POINTS, SPACING = 8, 9, 0.02  # of the lines on which rounding is measured
N_ASCENT, N_TOGETHER, N_TIMES, N_LAST = 200, 25, 12, 4  # steps of a chain from elsewhere; the last of so many times
N_LEAPFROG = 4
MOST_ROWS = 64  # chains from elsewhere of all data together
WIDTH = 10.0  # of the starts: standard deviations of the draws, or units of the unconstrained latents
FAR, BARRIER, COMPARABLE = 4.0, 2.0, 3.0  # sd from all chains; nats on the way; nats of log weight


def log_density_at(draws: Draws, latents: dict[str, np.ndarray], data: Data | None) -> np.ndarray:
    """The log density the chains moved in, at latents shaped as draws are."""

    def value(params: Params, z: Latents, x: Data | None = None) -> dict[str, Array]:
        observed = None if x is None else not draws.is_prior
        return {"log_density": draws.program.log_density(params, x, observed)(z)}

    name = f"log density of {'the prior' if draws.is_prior else 'the posterior'}"
    return draws.by_row(name, value, latents, data)["log_density"].astype(float)


def rows_of(draws: Draws, rows: np.ndarray) -> Data | None:
    """The data whose numbers are given; all of them for draws without an axis of data."""
    return take_rows(draws.data, draws.program.ppl.asarray(rows)) if draws.has_data_axis else draws.data


def by_datum(draws: Draws, latents: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Latents side by side, (..., data, K), of draws without an axis of data with one datum."""
    parts = [a[:, :, rows] if draws.has_data_axis else a[:, :, None] for a in latents.values()]
    return np.concatenate([a.reshape(*a.shape[:3], -1) for a in parts], -1).astype(float)


def rounding(draws: Draws, rows: np.ndarray, seed: int = 0) -> np.ndarray:
    r"""Rounding error of the log density by datum, nats.

    On lines between draws, at points a fiftieth of their distance apart, a smooth log density has fourth differences of
    about zero, and independent errors of size σ have ones of size :math:`\sqrt{70}\,\sigma`. The sizes of numbers alone
    do not tell: large terms may cancel, and coordinates be rounded as well.

    Args:
        draws: of `pplebm.sample`.
        rows: numbers of the data to look at; [0] for draws without an axis of data.
        seed: of the choice of draws.

    Example:
        >>> import torch, pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> draws = pplebm.sample(program, n_chains=2, n_draws=50, n_warmup=50)
        >>> bool(rounding(draws, np.array([0]))[0] < 1e-5)
        True
    """
    rng, (n_chains, n_draws) = np.random.default_rng(seed), next(iter(draws.latents.values())).shape[:2]
    chain, first = rng.integers(n_chains, size=N_LINES), rng.integers(n_draws, size=N_LINES)
    other, second = (chain + 1) % n_chains, (first + n_draws // 2) % n_draws
    along = (SPACING * (np.arange(N_POINTS) - N_POINTS // 2))[None, :]
    lines = {}
    for site, a in draws.latents.items():
        a = a[:, :, rows] if draws.has_data_axis else a
        here, there = a[chain, first][:, None].astype(float), a[other, second][:, None].astype(float)
        lines[site] = (here + along.reshape(1, -1, *[1] * (a.ndim - 2)) * (there - here)).astype(a.dtype)
    found = np.diff(log_density_at(draws, lines, rows_of(draws, rows)), 4, 1)  # (lines, points, data)
    size = np.sqrt((found**2).mean(1) / 70.0)
    return np.asarray(np.median(size, 0)).reshape(-1)


def coarse(draws: Draws) -> list[tuple[int, str, float, float]]:
    """Latents that the numbers between which they can move are too few for.

    Returns:
        By datum, 0 for draws without an axis of data, the worst of its latents, the distance of neighbouring numbers
        there and its standard deviation, where there are fewer than four numbers in a standard deviation.
    """
    found: dict[int, tuple[int, str, float, float]] = {}
    for site, a in draws.latents.items():
        step, sd = np.spacing(np.abs(a).max((0, 1))), a.std((0, 1), dtype=float)
        for index in np.argwhere((step > 0.25 * sd) & (np.abs(a).max((0, 1)) > 0)):
            at = tuple(index.tolist())
            name = f"{site}[{','.join(map(str, at))}]" if at else site
            datum = at[0] if draws.has_data_axis else 0
            new = (datum, name, float(step[at]), float(sd[at]))
            if datum not in found or new[2] * found[datum][3] > found[datum][2] * new[3]:
                found[datum] = new
    return list(found.values())


class Elsewhere(NamedTuple):
    """A place that the draws know nothing of."""

    datum: int
    n_there: int  # chains from elsewhere that settled at such places
    n_chains: int  # all of them
    distance: float  # standard deviations of the draws, from the nearest chain to the place of most weight
    barrier: float  # nats, on the way there
    log_density: float  # mean of the chain there
    draws: float  # mean of the draws
    gain: float  # nats by which the place outweighs that of the draws, log density and log widths together
    scalar: int  # in which the places differ most, of the latents side by side
    at: float  # its mean there, unconstrained
    mean: float  # of the draws


def elsewhere(draws: Draws, n: int = 16, seed: int = 0) -> list[Elsewhere]:
    r"""Look for modes that no chain has seen, by short chains from starts far from the draws.

    Starts are uniform, half of them within 10 standard deviations of the draws, half in [-10, 10] in unconstrained
    coordinates. Each climbs for 200 steps, then 300 of `hmc` follow, whose last 100 are looked at. A chain has found
    another mode if it moves without a trend; the weight of its place, log density and log widths together, is at most 3
    nats below that of the draws; its mean is more than 4 standard deviations, in the metric of the draws, away from the
    mean of every chain, and further that way than any draw; and on the straight way there the log density falls by more
    than 2 nats below both ends.

    What it cannot see: modes whose basin no start hits, which is likely in many dimensions; modes that weigh less than
    a twentieth or so; places
    joined to the draws by a ridge; more than one mode inside a single chain of the draws; and data beyond those looked
    at, 64 chains in all, at least 4 for each of evenly spaced data. That nothing is found proves nothing.

    Args:
        draws: of `pplebm.sample`, at least 80 of each chain.
        n: starts, of every datum if there are up to four.
        seed: of the starts and the chains.

    Returns:
        One entry for every datum with such a place.

    Example:
        >>> import torch, pyro, pyro.distributions as dist, pplebm
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0., 3.))
        ...         pplebm.tilt("f", -0.2 * (z ** 2 - 16.) ** 2)  # modes near -4 and 4
        ...         pyro.sample("x", dist.Normal(0. * z, 1.), obs=x)
        >>> program = pplebm.Program(model, data=torch.zeros(2))
        >>> draws = pplebm.sample(program, init={"z": torch.full((4,), 4.)}, n_draws=100, n_warmup=100)
        >>> found = elsewhere(draws)[0]
        >>> round(found.mean), round(found.at)
        (4, -4)
    """
    rows = np.arange(1)
    if draws.has_data_axis:
        n_data = next(iter(draws.latents.values())).shape[2]
        rows = np.unique(np.linspace(0, n_data - 1, min(n_data, MOST_ROWS // 4)).round().astype(int))
        n = max(4, min(n, MOST_ROWS // len(rows)))
    data = rows_of(draws, rows)
    there = _chains_from(draws, rows, data, n, np.random.default_rng(seed), seed)
    x, log_density = by_datum(draws, draws.latents, rows), draws.stats["log_density"].astype(float)
    log_density = log_density[:, :, rows] if draws.has_data_axis else log_density[:, :, None]
    found = []
    for i, row in enumerate(rows):
        settled = [_Settled(z[:, i], v[:, i]) for z, v in zip(*there, strict=True)]
        met = _place(draws, x[:, :, i], log_density[:, :, i], settled, rows[[i]])
        found += [] if met is None else [met._replace(datum=int(row))]
    return found


class _Settled(NamedTuple):
    """The last part of a chain from elsewhere."""

    x: np.ndarray  # (draws, K)
    log_density: np.ndarray  # (draws,)


def _chains_from(
    draws: Draws, rows: np.ndarray, data: Data | None, n: int, rng: np.random.Generator, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Latents side by side, (n, draws, data, K), and log densities, (n, draws, data), of chains from elsewhere."""
    program, ppl, copies = draws.program, draws.program.ppl, data
    if draws.has_data_axis:
        copies = take_rows(data, ppl.asarray(np.tile(np.arange(len(rows)), n)))
    observed = None if copies is None else not draws.is_prior
    k_begin, k_climb, *keys = ppl.split(ppl.key(seed), N_TIMES + 2)
    climb, z = ascent(linear(0.3, 0.01, N_ASCENT)), _starts(draws, rows, copies, n, rng)
    start = climb.init(ppl, z, Score(lambda z: z))
    end, _ = chains.advance(program, k_climb, start, draws.params, copies, climb, N_ASCENT, observed)
    kernel = recording(adapting(hmc(N_LEAPFROG), (1, 1, n * len(rows))), ())  # every chain finds its own step size
    state, kept = chains.begin(program, k_begin, draws.params, copies, kernel, n * len(rows), end.last, observed), []
    state = with_tuning(state, tuned(state).step_size, _metric(draws, rows, n))
    for key in keys:
        state, seen = chains.advance(program, key, state, draws.params, copies, kernel, N_TOGETHER, observed)
        kept.append(seen)
    shape = (N_LAST * N_TOGETHER, n, len(rows))
    kept = kept[-N_LAST:]
    sites = [
        np.concatenate([ppl.to_numpy(seen.z[site]) for seen in kept]).reshape(*shape, -1) for site in draws.latents
    ]
    values = np.concatenate([ppl.to_numpy(seen.stats["log_density"]) for seen in kept]).reshape(shape)
    return np.concatenate(sites, -1).swapaxes(0, 1).astype(float), values.swapaxes(0, 1).astype(float)


def _metric(draws: Draws, rows: np.ndarray, n: int) -> Latents:
    """Standard deviations of the draws within their chains, for every chain from elsewhere."""
    found = {}
    for site, a in draws.latents.items():
        a = a[:, :, rows] if draws.has_data_axis else a[:, :, None]
        sd = np.tile(a.std(1).mean(0), (n, *[1] * (a.ndim - 3))).astype(a.dtype)
        found[site] = draws.program.ppl.asarray(sd + np.finfo(a.dtype).tiny, keep=True)
    return found


def _gradient(draws: Draws, data: Data | None) -> Callable[..., tuple[Array, Latents]]:
    """Log density and gradient of latents and data, a row each, compiled."""
    ppl, observed = draws.program.ppl, None if data is None else not draws.is_prior

    def both(params: Params, z: Latents, x: Data | None) -> tuple[Array, Latents]:
        return ppl.value_and_grad(draws.program.log_density(params, x, observed), z)

    return draws.program.compiled(("value and gradient", data is None, observed), both)


def _starts(draws: Draws, rows: np.ndarray, data: Data | None, n: int, rng: np.random.Generator) -> Latents:
    """Latents far from the draws, start by start; where the density is not finite, nearer to a draw."""
    ppl, run, far, near = draws.program.ppl, _gradient(draws, data), {}, {}
    for site, a in draws.latents.items():
        a = a[:, :, rows] if draws.has_data_axis else a[:, :, None]
        u = WIDTH * rng.uniform(-1.0, 1.0, (n, *a.shape[2:]))
        is_wide = (np.arange(n) % 2 == 1).reshape(-1, *[1] * (a.ndim - 2))
        far[site] = np.where(is_wide, u, a.mean((0, 1)) + a.std((0, 1)) * u).reshape(-1, *a.shape[3:])
        near[site] = a[rng.integers(len(a), size=n), rng.integers(a.shape[1], size=n)].reshape(-1, *a.shape[3:])
    share = np.ones(n * len(rows))  # of the way from the draw
    for attempt in range(12):
        z = {}
        for site, a in near.items():
            way = share.reshape(-1, *[1] * (a.ndim - 1))
            z[site] = ppl.asarray((a + way * (far[site] - a)).astype(a.dtype), keep=True)
        value, gradient = run(draws.params, z, data)
        with np.errstate(over="ignore"):  # in the precision of the chains, whose squares overflow first
            sizes = [(ppl.to_numpy(g) ** 2).reshape(len(share), -1).sum(1) for g in gradient.values()]
        is_ready = np.isfinite(ppl.to_numpy(value) + sum(sizes))
        if is_ready.all():
            break
        share = np.where(is_ready, share, 0.5 * share if attempt < 10 else 0.0)
    return z


def _place(
    draws: Draws, x: np.ndarray, log_density: np.ndarray, settled: list[_Settled], row: np.ndarray
) -> Elsewhere | None:
    """The place of most weight among those far from all chains, (C, N, K), of one datum."""
    means, level = x.mean(1), float(log_density.mean())
    scatter = x - means[:, None]
    n, k = x.shape[0] * x.shape[1], x.shape[2]
    covariance = np.einsum("cni,cnj->ij", scatter, scatter) / n if n >= 10 * k else np.diag((scatter**2).mean((0, 1)))
    sd = np.sqrt(np.diag(covariance)) + 1e-300
    inverse = np.linalg.pinv(covariance / np.outer(sd, sd), hermitian=True)
    best: Elsewhere | None = None
    count = 0
    for chain in settled:
        gain = float(chain.log_density.mean()) - level + float(np.log((chain.x.std(0) + 1e-300) / sd).sum())
        if not _is_settled(chain) or not gain > -COMPARABLE:
            continue
        off = (chain.x.mean(0) - means) / sd
        own = float(np.median(effective_size(np.ascontiguousarray(chain.x.T)[:, None])))
        squared = np.einsum("ci,ij,cj->c", off, inverse, off) - 2.0 * k / max(own, 1.0)
        distance, nearest = math.sqrt(max(float(squared.min()), 0.0)), int(squared.argmin())
        along = inverse @ off[nearest]
        is_covered = ((x - means[nearest]) / sd @ along).max() >= off[nearest] @ along
        if distance < FAR or is_covered or (barrier := _barrier(draws, chain.x.mean(0), means, row)) < BARRIER:
            continue
        count += 1
        value, i = float(chain.log_density.mean()), int(np.abs(off[nearest]).argmax())
        if best is None or gain > best.gain:
            at, mean = float(chain.x[:, i].mean()), float(means[nearest, i])
            best = Elsewhere(0, 0, len(settled), distance, barrier, value, level, gain, i, at, mean)
    return None if best is None else best._replace(n_there=count)


def _is_settled(chain: _Settled) -> bool:
    """Whether a chain moves, without a trend."""
    if not (np.isfinite(chain.x).all() and np.isfinite(chain.log_density).all()):
        return False
    first, second = np.array_split(chain.log_density, 2)
    has_moved = (np.diff(chain.x, axis=0) != 0).any(1).mean() > 0.2
    is_steady = abs(second.mean() - first.mean()) < max(1.0, chain.log_density.std())
    return bool(has_moved and is_steady)


def _barrier(draws: Draws, place: np.ndarray, means: np.ndarray, row: np.ndarray) -> float:
    """Nats that the log density falls on the way from a place to the chains' means: the least of them."""
    way = np.linspace(0.0, 1.0, 17)[None, :, None]
    line, latents, at = place + way * (means[:, None] - place), {}, 0
    for site, a in draws.latents.items():
        shape = a.shape[3:] if draws.has_data_axis else a.shape[2:]
        size = math.prod(shape)
        part = line[..., at : at + size].reshape(*line.shape[:2], *([1] if draws.has_data_axis else []), *shape)
        latents[site], at = part.astype(a.dtype), at + size
    value = log_density_at(draws, latents, rows_of(draws, row)).reshape(line.shape[:2])
    value = np.where(np.isfinite(value), value, -np.inf)
    return float((np.minimum(value[:, 0], value[:, -1]) - value.min(1)).min())
