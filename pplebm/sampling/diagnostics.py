r"""Convergence of chains, and the worth of their draws: figures by scalar, and a verdict that says what to do."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from pplebm.errors import PplebmError
from pplebm.sampling.arrival import LOST
from pplebm.sampling.convergence import Figures, figures, nested_r_hat
from pplebm.sampling.draws import Draws
from pplebm.sampling.probes import Elsewhere, coarse, elsewhere, rounding
from pplebm.sampling.suspects import GOOD_BFMI, GOOD_ESS, GOOD_R_HAT, Advice, Chains, Sign, listed
from pplebm.sampling.verdicts import bfmi, signs

MAX_ROUNDING = 0.3  # nats; accept decisions hang on the rounding beyond it
MOST_PROBED = 16  # data whose rounding is measured
EXPLAINED_BY_ROUNDING = ("stuck", "start", "warm-up", "steps", "trajectories", "modes")


class Row(NamedTuple):
    """One scalar of the latents."""

    name: str  # site[index]
    mean: float
    sd: float
    mcse_mean: float
    ess_bulk: float
    ess_tail: float
    r_hat: float


class Finding(NamedTuple):
    """A cause of trouble, in one sentence with the figure it rests on and the remedy.

    The causes are "stuck", "start" (at a place without weight), "warm-up" (too short), "modes" (chains in different
    ones), "elsewhere" (a mode that no chain has seen), "steps" (too large), "trajectories" (too short), "draws" (too
    few), "divergences", "energy" and "rounding" (of float32).
    """

    cause: str
    sentence: str
    data: tuple[int, ...]  # their numbers; () for draws without an axis of data


class Diagnosis(NamedTuple):
    """Findings about a run of `pplebm.sample`."""

    rows: list[Row]
    nested_r_hat: float | None  # the largest over all scalars, of 8 chains or more
    n_divergent: int
    acceptance: float | None
    bfmi: float | None  # the smallest over chains and data
    findings: list[Finding]
    n_redrawn: int = 0  # times that a chain which never moved, or lagged hopelessly, was moved during warm-up

    @property
    def verdict(self) -> list[str]:
        """Sentences; empty if nothing is wrong."""
        return [found.sentence for found in self.findings]

    @property
    def causes(self) -> list[str]:
        """What is wrong, a word each."""
        return [found.cause for found in self.findings]


def diagnose(draws: Draws, sites: list[str] | None = None, *, n_elsewhere: int = 16, seed: int = 0) -> Diagnosis:
    """Diagnose draws, scalar by scalar, and say what is wrong with them and what to do about it.

    R-hat is rank-normalised and split, the effective sample sizes are those of bulk and tails, as in ArviZ. The verdict
    names one cause for each way in which chains are sick, with the chains and data by number: chains that are stuck;
    that settled where nothing is, or were under way when the draws began; that are in different modes; that walk
    slowly. An R-hat above 1.01 is no cause by itself, since the largest of many exceeds it by chance: the chains must
    differ by more than their own autocorrelation explains, or be worth fewer than 400 draws. Divergences count if
    they are more than 1 % of the draws, or gather where the other draws are few.

    Where all seems well, short chains from starts elsewhere look for modes that no chain has seen
    (`pplebm.sampling.probes.elsewhere`, with what these cannot see). Where chains are sick, the rounding of the log
    density is measured, which no choice of steps can mend.

    Args:
        draws: of `pplebm.sample`, at least 4 of each chain; fewer than 80 or so tell little about causes.
        sites: names of the latent sites to look at; all by default.
        n_elsewhere: chains from elsewhere, 0 for none; they cost about a tenth of a call of `pplebm.sample`.
        seed: of these chains.

    Raises:
        PplebmError: for fewer draws, or a site that is not there.

    Source: Vehtari, Gelman, Simpson, Carpenter, Bürkner (Bayesian Analysis 2021).

    Example:
        >>> import torch, pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> found = diagnose(pplebm.sample(program, n_chains=8, n_draws=1000, n_warmup=500))
        >>> found.verdict, found.rows[0].name, found.rows[0].r_hat < 1.01
        ([], 'z2[0]', True)
    """
    if draws.n_draws < 4:
        raise PplebmError(f"diagnostics need at least 4 draws of each chain; there are {draws.n_draws}.")
    scalars = _Scalars(draws, sites or list(draws.latents))
    seen = figures(scalars.x)
    n_chains, groups, accept = len(scalars.x), _groups(len(scalars.x)), draws.stats.get("accept_prob")
    is_nested = n_chains >= 8 and bool(groups)
    nested = [nested_r_hat(scalars.x[:, :, i], groups) for i in range(len(scalars.names)) if is_nested]
    energies = draws.stats.get("energy")
    return Diagnosis(
        [Row(name, *map(float, row)) for name, row in zip(scalars.names, zip(*seen, strict=True), strict=True)],
        max(nested, default=None),
        draws.n_divergent,
        None if accept is None else float(accept.mean()),
        None if energies is None or draws.n_draws < 2 else float(bfmi(energies).min()),
        _findings(draws, scalars, seen, n_elsewhere, seed),
        int(draws.facts.get("n_redrawn", 0)),
    )


class _Scalars:
    """All scalars of some sites side by side, and the datum that each belongs to."""

    def __init__(self, draws: Draws, sites: list[str]) -> None:
        self.names: list[str] = []
        parts, data = [], []
        for site in sites:
            values = draws[site]
            parts.append(values.reshape(*values.shape[:2], -1))
            for index in np.ndindex(values.shape[2:]):
                self.names.append(f"{site}[{','.join(map(str, index))}]" if index else site)
                data.append(index[0] if draws.has_data_axis else 0)
        self.x, self.datum = np.concatenate(parts, 2), np.array(data)


def _groups(n_chains: int) -> int:
    """Superchains of as many chains as there are superchains, about; 0 if the chains cannot be grouped."""
    fitting = [n for n in range(2, n_chains // 2 + 1) if n_chains % n == 0]
    return min(fitting, key=lambda n: abs(n - n_chains**0.5), default=0)


def _findings(draws: Draws, scalars: _Scalars, seen: Figures, n_elsewhere: int, seed: int) -> list[Finding]:
    by_datum: dict[int, list[Sign]] = {}
    for datum, chains in _suspects(draws, scalars, seen):
        if told := signs(chains, _advice(draws)):
            by_datum[datum] = told
    for datum, sign in _too_coarse(draws):
        told = [s for s in by_datum.get(datum, []) if s.cause not in EXPLAINED_BY_ROUNDING]
        by_datum[datum] = [sign, *told]
    sick = [datum for datum, told in by_datum.items() if {s.cause for s in told} & set(EXPLAINED_BY_ROUNDING)]
    rounded = _rounded(draws, np.array(sick[:MOST_PROBED], int)) if sick else {}
    for datum, sign in rounded.items():
        by_datum[datum] = [sign, *(s for s in by_datum[datum] if s.cause not in EXPLAINED_BY_ROUNDING)]
    if not by_datum and n_elsewhere and draws.n_draws >= 80 and "log_density" in draws.stats:
        for unseen in elsewhere(draws, n_elsewhere, seed):
            by_datum.setdefault(unseen.datum, []).append(_of_elsewhere(draws, unseen))
    return _gathered(by_datum, draws.has_data_axis)


def _suspects(draws: Draws, scalars: _Scalars, seen: Figures) -> list[tuple[int, Chains]]:
    """Chains of the data that a figure speaks against, with their scalars and the log density."""
    ess = np.minimum(seen.ess_bulk, seen.ess_tail)
    data = np.unique(scalars.datum)
    stats = {
        name: a if draws.has_data_axis else a[:, :, None]
        for name, a in draws.stats.items()
        if a.ndim == (3 if draws.has_data_axis else 2)
    }
    log_density = stats.get("log_density")
    level = None if log_density is None else figures(log_density)
    found = []
    for datum in data:
        mine = scalars.datum == datum
        names, x, r_hat, own = [n for n, is_mine in zip(scalars.names, mine) if is_mine], scalars.x[:, :, mine], \
            seen.r_hat[mine], ess[mine]  # fmt: skip
        if level is not None and log_density is not None:
            names, x = [*names, "log density"], np.concatenate([x, log_density[:, :, [datum]]], 2)
            r_hat = np.append(r_hat, level.r_hat[datum])
            own = np.append(own, min(level.ess_bulk[datum], level.ess_tail[datum]))
        of_datum = {name: a[:, :, datum] for name, a in stats.items()}
        place = f" of datum {datum}" if draws.has_data_axis else ""
        chains = Chains(place, names, np.arange(len(x)), x, of_datum, r_hat, own)
        if _is_suspect(chains):
            found.append((int(datum), chains))
    return found


def _is_suspect(chains: Chains) -> bool:
    is_good = bool((chains.ess >= GOOD_ESS).all()) and not (chains.r_hat > GOOD_R_HAT).any()
    energies, divergent = chains.stats.get("energy"), chains.stats.get("is_divergent")
    is_slow = energies is not None and len(energies[0]) >= 100 and bool((bfmi(energies) < GOOD_BFMI).any())
    still = (chains.x[:, 1:] == chains.x[:, :-1]).all(2).mean(1).max()
    return not is_good or is_slow or bool(still > 0.9) or (divergent is not None and bool(divergent.any()))


def _advice(draws: Draws) -> Advice:
    program, settings = draws.program, _settings(draws.plan.kernel)
    can_move = program.coordinates == "centered" and any(program.has_noncentered.values())
    name = settings[0] if settings else ""
    if name == "hmc":
        longer = (
            f"leave out the kernel, since the default learns length and metric, or take trajectories {{times:.0f}} "
            f"times longer than hmc's {settings[1]} leapfrog steps"
        )
    elif name in ("mala", "langevin", "underdamped", "tempering", "anisotropic", "adjusted_anisotropic"):
        longer = (
            f"{name} walks at random: leave out the kernel, since the default learns to go {{times:.0f}} steps at once"
        )
    elif name in ("adaptive_hmc", "mams"):
        longer = "give n_warmup more steps, in which metric and length are learned, or rescale the latents"
    else:
        longer = "take longer trajectories, or rescale what is far from unit scale"
    temper = (
        "take pplebm.kernels.tempering.parallel_tempering, which crosses between them"
        if program.tilts
        else "the share of the chains in a mode is not its weight; tell the modes apart in the model, or weigh them"
    )
    other = ', or move in noncentered coordinates (with_coordinates("noncentered"))' if can_move else ""
    return Advice(longer, other, temper, draws.plan.n_warmup)


def _settings(kernel: str) -> tuple[Any, ...]:
    try:
        found = ast.literal_eval(kernel)
    except (SyntaxError, ValueError):
        return ()
    return found if isinstance(found, tuple) else ()


def _rounded(draws: Draws, rows: np.ndarray) -> dict[int, Sign]:
    """Signs of a log density whose rounding decides on acceptance, by datum."""
    dtype = next(iter(draws.latents.values())).dtype
    found = {}
    for datum, size in zip(rows, rounding(draws, rows), strict=True):
        if size > MAX_ROUNDING:
            place = f" of datum {datum}" if draws.has_data_axis else ""
            sentence = (
                f"the log density{place} is rounded by {size:.2g} nats in {dtype} (> {MAX_ROUNDING}), which drowns "
                f"what acceptance is decided by: {_finer(dtype)}."
            )
            found[int(datum)] = Sign("rounding", float(size), sentence, place)
    return found


def _too_coarse(draws: Draws) -> Iterator[tuple[int, Sign]]:
    """Signs of latents that have too few numbers to move between, with their datum."""
    dtype = next(iter(draws.latents.values())).dtype
    for datum, name, step, sd in coarse(draws):
        sentence = (
            f"{name} moves in steps of {step:.2g}, which {dtype} has there, and has an sd of {sd:.2g} (under 4 steps): "
            f"{_finer(dtype)}."
        )
        yield datum, Sign("rounding", step / max(sd, 1e-300), sentence, f" of datum {datum}" * draws.has_data_axis)


def _finer(dtype: np.dtype[Any]) -> str:
    return "sample in float64, or " * (dtype == np.float32) + "shift and rescale data and latents"


def _of_elsewhere(draws: Draws, found: Elsewhere) -> Sign:
    place = f" of datum {found.datum}" if draws.has_data_axis else ""
    names = [
        (site, index) for site, a in draws.latents.items() for index in np.ndindex(a.shape[2 + draws.has_data_axis :])
    ]
    site, index = names[found.scalar]
    scalar = f"{site}[{','.join(map(str, index))}]" if index else site
    told = (
        f"{found.n_there} of {found.n_chains} chains{place} from starts elsewhere settled {found.distance:.2g} sd away "
        f"from all chains (unconstrained {scalar} {found.at:.3g}, not {found.mean:.3g}) behind a barrier of "
        f"{found.barrier:.2g} nats, at log density {found.log_density:.4g} beside {found.draws:.4g}"
    )
    if found.gain > LOST:
        return Sign("start", found.gain, f"{told}: all chains are at a minor place; start them there (init=).", place)
    return Sign(
        "elsewhere", found.gain, f"{told}: there is a mode that no chain has seen; {_advice(draws).temper}.", place
    )


def _gathered(by_datum: dict[int, list[Sign]], has_data_axis: bool) -> list[Finding]:
    """One finding of every cause: the worst sentence, and the data it holds for as well."""
    causes = dict.fromkeys(sign.cause for told in by_datum.values() for sign in told)
    found = []
    for cause in causes:
        met = [(s.severity, datum, s) for datum, told in by_datum.items() for s in told if s.cause == cause]
        worst = max(met, key=lambda m: m[0])[2]
        data = sorted({datum for _, datum, _ in met})
        others = [datum for datum in data if worst.place != f" of datum {datum}"]
        more = f" The same holds for {listed('datum', others)}." if others and has_data_axis else ""
        found.append(Finding(cause, worst.sentence + more, tuple(data) if has_data_axis else ()))
    return found
