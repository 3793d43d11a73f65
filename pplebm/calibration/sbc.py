r"""Simulation-based calibration of tilted programs: ranks of the truth among draws of the posterior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pplebm.calibration import uniformity
from pplebm.calibration.posteriors import AdjustedChains, Posteriors
from pplebm.calibration.quantities import Quantity, numbers
from pplebm.calibration.replications import replicate
from pplebm.errors import PplebmError
from pplebm.program import Program
from pplebm.sampling.convergence import effective_size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOUBT = 0.01  # chance of a false alarm over all quantities
LEVELS = (0.5, 0.9)
LEAST_ESS = 0.7  # of the draws a rank is among; fewer make ranks of right chains gather at the ends
HEAD = ("quantity", "ECDF p", "chi² p", "mean rank, σ", "spread, σ", "ESS")


@dataclass(frozen=True)
class Calibration:
    """Ranks of true values among draws of their posteriors, by quantity, and what they say.

    Attributes:
        method: name of the way the posteriors were drawn.
        ranks: (replications,) each, by quantity, from 0 to `n_draws`.
        n_draws: L, draws that a rank is among.
        ess: mean effective sample size of the L draws, by quantity.
    """

    method: str
    ranks: dict[str, np.ndarray]
    n_draws: int
    ess: dict[str, float]

    @property
    def n_replications(self) -> int:
        """How many data were simulated."""
        return len(next(iter(self.ranks.values())))

    @property
    def p_values(self) -> dict[str, float]:
        """Of uniform ranks, by the simultaneous test of their empirical distribution, by quantity."""
        return {name: uniformity.ecdf_p_value(r, self.n_draws) for name, r in self.ranks.items()}

    @property
    def failed(self) -> list[str]:
        """Quantities whose ranks are not uniform, the worst first; right posteriors have any in 1 % of all calls."""
        found = sorted(self.p_values.items(), key=lambda item: item[1])
        return [name for name, p in found if p * len(found) < DOUBT]

    def coverage(self, levels: Sequence[float] = LEVELS) -> dict[str, list[uniformity.Coverage]]:
        """Coverage of central intervals by quantity, at levels in (0, 1)."""
        for level in levels:
            if not 0.0 < level < 1.0:
                raise PplebmError(f"levels of intervals lie in (0, 1), got {level!r}.")
        return {name: [uniformity.coverage(r, self.n_draws, c) for c in levels] for name, r in self.ranks.items()}

    def table(self, levels: Sequence[float] = LEVELS) -> list[tuple[str, ...]]:
        """Rows of text, a head and one for every quantity, those that look worst first.

        Spread is that of ranks about the middle: positive where posteriors are too narrow. Coverage is told as its
        share with a 95 % interval, beside the share expected.
        """
        covered, p_values = self.coverage(levels), self.p_values
        expected = [f"in {found.level:.0%} interval" for found in next(iter(covered.values()))]
        rows = []
        for name in sorted(self.ranks, key=lambda name: p_values[name]):
            mean, spread = uniformity.shape_of(self.ranks[name], self.n_draws)
            chi = uniformity.chi_square_p_value(self.ranks[name], self.n_draws)
            figures = (f"{p_values[name]:.3g}", f"{chi:.3g}", f"{mean:+.1f}", f"{spread:+.1f}", f"{self.ess[name]:.0f}")
            rows.append((name, *figures, *(f"{c.share:.0%} ({c.low:.0%}–{c.high:.0%})" for c in covered[name])))
        return [(*HEAD, *expected), *rows]

    @property
    def verdict(self) -> list[str]:
        """Sentences on what is wrong; empty if nothing is seen to be."""
        failed = self.failed
        sentences = [self._fault(name) for name in failed[:3]]
        if len(failed) > 3:
            sentences.append(f"The ranks of {len(failed) - 3} further quantities are not uniform either.")
        least = min(self.ess, key=lambda name: self.ess[name])
        if failed and self.ess[least] < LEAST_ESS * self.n_draws:
            sentences.append(
                f"The {self.n_draws} draws of a posterior are worth only {self.ess[least]:.0f} of {least}, which alone "
                f"makes ranks gather at both ends: take more chains or thin more before you blame the posterior."
            )
        return sentences

    def _fault(self, name: str) -> str:
        mean, spread = uniformity.shape_of(self.ranks[name], self.n_draws)
        p = f"p = {self.p_values[name]:.1g}, {self.n_replications} replications"
        what = "have another shape than the exact ones"
        if abs(mean) > max(3.0, abs(spread)):
            what = f"lie too {'low' if mean > 0 else 'high'}"
        elif abs(spread) > 3.0:
            what = f"are too {'narrow' if spread > 0 else 'wide'}"
        return f"Ranks of {name} are not uniform ({p}): its posterior draws by {self.method} {what}."

    def ecdf_figure(self, names: Sequence[str] | None = None) -> Figure:
        """Empirical distribution minus the uniform one, with the band that right posteriors stay in with chance 95 %.

        Args:
            names: of quantities; the six that look worst if left out.
        """
        from pplebm.calibration.figures import ecdf_differences

        return ecdf_differences({name: self.ranks[name] for name in self.worst(names)}, self.n_draws)

    def rank_figure(self, names: Sequence[str] | None = None) -> Figure:
        """Histograms of ranks, with the range in which a bar of uniform ranks is with chance 95 %; as `ecdf_figure`."""
        from pplebm.calibration.figures import rank_histograms

        return rank_histograms({name: self.ranks[name] for name in self.worst(names)}, self.n_draws)

    def worst(self, names: Sequence[str] | None = None, n: int = 6) -> list[str]:
        """Names of the n quantities that look worst, or those given if they are there."""
        for name in names or ():
            if name not in self.ranks:
                raise PplebmError(f"there are no ranks of '{name}'; there are {', '.join(self.ranks)}.")
        p_values = self.p_values
        return list(names) if names is not None else sorted(self.ranks, key=lambda name: p_values[name])[:n]


def sbc(
    program: Program,
    by: Posteriors | None = None,
    *,
    n_replications: int = 200,
    quantities: Mapping[str, Quantity] | None = None,
    params: Any = None,
    given: Any = None,
    prior: dict[str, np.ndarray] | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Calibration:
    r"""Calibrate a way of inference by simulation: draw latents, data, and the posteriors of all data in one batch.

    .. math::
        z^* \sim \tilde p(z | c) / Z(c), \quad x^* \sim p(x | z^*, c), \quad z_1 .. z_L \sim q(z | x^*)
        \;\Rightarrow\; \#\{z_l < z^*\} \text{ is uniform on } 0 .. L \text{ where } q \text{ is the posterior}

    and the same for any number made of z and x*. The host's own forward simulation ignores tilts, so that
    calibration with it blames right posteriors of a tilted program; here the latents are draws of the tilted prior.

    Args:
        program: any. With latents outside the data plate every replication is a whole data set, and the posteriors of
            these are drawn one after the other.
        by: how posteriors are drawn: `AdjustedChains()` (the default), `ShortRun(kernel, n_steps)` or `OfGuide()` of
            `pplebm.calibration.posteriors`, or anything else that has `name` and `draw`.
        n_replications: data simulated. 200 show coarse faults, 1000 fine ones.
        quantities: further functions by name, of values by site (rows, *event) to one number per row.
        params, given, prior: as in `pplebm.calibration.replications.replicate`.
        seed: of all random numbers.
        progress: show bars; by default if the output is a terminal.

    Raises:
        PplebmError: for likelihood factors, data that are missing, or draws that are not finite.

    Source: Talts, Betancourt, Simpson, Vehtari, Gelman (arXiv 1804.06788); Modrák et al. (Bayesian Analysis 2023).

    Example:
        >>> import torch, pyro, pyro.distributions as dist, pplebm
        >>> from pplebm.kernels.langevin import langevin
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0., 1.))
        ...         pplebm.tilt("f", 2. * z)
        ...         pyro.sample("x", dist.Normal(z, 0.5), obs=x)
        >>> program = pplebm.Program(model, data=torch.zeros(2))
        >>> from pplebm.calibration.posteriors import ShortRun
        >>> short = ShortRun(langevin(0.1), 5)
        >>> sbc(program, short, n_replications=100).failed[0]
        'z'
    """
    way: Posteriors = AdjustedChains() if by is None else by
    found = replicate(program, way, n_replications, params=params, given=given, prior=prior, seed=seed,
                      progress=progress)  # fmt: skip
    ranks, ess = {}, {}
    for i, (name, (true, draws)) in enumerate(numbers(found, quantities).items()):
        flat = draws.reshape(-1, draws.shape[2])
        ranks[name] = uniformity.ranks_of(true, flat, seed + i)
        ess[name] = float(effective_size(draws.transpose(2, 0, 1)).mean()) if draws.shape[1] > 3 else float(len(flat))
    return Calibration(way.name, ranks, len(flat), ess)
