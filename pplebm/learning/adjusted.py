r"""Sources of samples by adjusted chains that live on: one or more per datum, or a pool for the tilted prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pplebm.gallery.hyper import Count, Positive, Share
from pplebm.learning.samples import Samples
from pplebm.ppl.language import Array, Data, Params
from pplebm.ppl.trees import n_rows
from pplebm.program import Program
from pplebm.sampling import weighted
from pplebm.sampling.annealed_draws import annealed_draws
from pplebm.sampling.buffers import Buffer, shared_rows

if TYPE_CHECKING:
    from pplebm.learning.algorithm import Algorithm


REPORTED = {
    "accepted_positive": "mean acceptance of trajectories of posterior chains",
    "accepted_negative": "mean acceptance of trajectories of prior chains",
    "ess_positive": "effective chains of a datum, as a share of them; 1 for one chain each",
    "ess_negative": "effective chains of the prior, as a share of those that moved; a low one means a stale pool",
    "log_z": "log Z by the weights of the prior's chains, nats",
    "log_z_error": "its standard error, nats",
    "log_evidence": "mean log p(x) of the batch by the weights of its chains, nats; a lower bound in expectation, "
    "close with several chains per datum and restarts",
    "log_evidence_error": "standard error of that mean over data, nats",
}


class AdjustedInfo(NamedTuple):
    """Figures of chains at an update, scalars."""

    accepted: Array  # mean acceptance of trajectories
    ess: Array  # effective chains, as a share of those that moved
    divergent: Array  # share that stood where the density was not finite
    log_weight: Array  # log mean weight: log Z of the prior, mean of log p̃(x) of the posterior
    log_weight_error: Array  # its standard error


class AdjustedChains(NamedTuple):
    """Chains of the posterior that live on between updates, every trajectory accepted or rejected."""

    n_steps: Count = 2  # trajectories at every update
    n_leapfrog: Count = 12  # steps of the longest trajectory; lengths are spread evenly below it
    step_size: Positive = 0.3  # where adaptation starts; every chain finds its own
    particles: Count = 1  # chains of a datum
    n_annealed: Count = 10  # strengths over which a chain is brought from the base to its target
    restarted: Share = 0.0  # share of the updates at which half of the chains that move begin anew, if not alone
    n_steps_fresh: Count = 50  # trajectories of fresh chains, after learning

    def begin(self, algorithm: Algorithm, key: Any, params: Params, n: int) -> weighted.Chains:
        """Chains of all n data, which begin when their datum is first seen."""
        return weighted.begin(algorithm.noncentered, n, self.particles, self.step_size)

    def advance(
        self, algorithm: Algorithm, key: Any, params: Params, rows: Data, observed: bool, kept: Any, index: Any
    ) -> Samples:
        """Go on with the chains of the data `index`, whose rows these are."""
        return _advanced(algorithm, key, params, rows, observed, kept, index, settings_of(self), False)

    def draw(self, algorithm: Algorithm, key: Any, params: Params, rows: Data, observed: bool) -> Samples:
        """Fresh chains of any data."""
        return _fresh(self, algorithm, key, params, rows, observed)


class AdjustedPool(NamedTuple):
    """Chains of the tilted prior that live on between updates, every trajectory accepted or rejected.

    Every update moves some of them, `moved`; where the prior reads covariates, those of the batch's own rows.
    """

    n_steps: Count = 4  # trajectories at every update
    n_leapfrog: Count = 12  # steps of the longest trajectory; lengths are spread evenly below it
    step_size: Positive = 0.3  # where adaptation starts; every chain finds its own
    pool: Count = 512  # chains that all data share
    moved: Count = 256  # of them that move at an update
    particles: Count = 1  # chains of a datum, where the prior reads covariates
    n_annealed: Count = 10  # strengths over which a chain is brought from the base to the tilted prior
    restarted: Share = 0.01  # share of the updates at which half of the chains that move begin anew, if not alone
    n_steps_fresh: Count = 100  # trajectories of fresh draws, after learning; half of them on the way there

    def begin(self, algorithm: Algorithm, key: Any, params: Params, n: int) -> weighted.Chains:
        """The pool, or chains of all n data where the prior reads covariates, which begin at their first move."""
        n, m = (n, self.particles) if algorithm.program.prior_reads else (self.pool, 1)
        return weighted.begin(algorithm.noncentered, n, m, self.step_size)

    def advance(
        self, algorithm: Algorithm, key: Any, params: Params, rows: Data | int, observed: bool, kept: Any, index: Any
    ) -> Samples:
        """Go on with some chains of the pool, or with those of the data `index`."""
        program = algorithm.program
        k_pick, k_run = program.ppl.split(key)
        if not program.prior_reads:
            moved = min(self.moved, self.pool)
            index, rows = shared_rows(program, k_pick, Buffer(kept.z, kept.age[:, 0]), moved), moved
        return _advanced(
            algorithm, k_run, params, rows, observed, kept, index, settings_of(self), not program.prior_reads
        )

    def draw(self, algorithm: Algorithm, key: Any, params: Params, rows: Data | int, observed: bool) -> Samples:
        """Fresh draws of the tilted prior: particles that choose their strengths, of which there are many.

        Where the prior reads covariates every row has a target of its own, and a chain.
        """
        if algorithm.program.prior_reads or not isinstance(rows, int):
            return _fresh(self, algorithm, key, params, rows, observed)
        program, ppl = algorithm.noncentered, algorithm.ppl
        settings, params = settings_of(self)._replace(n_steps=self.n_steps_fresh), ppl.stop_gradient(params)
        with ppl.threads_for(program.work(max(rows, self.pool))):
            found = annealed_draws(program, key, params, rows, self.pool, settings, self.step_size)
        return Samples(ppl.stop_gradient(program.move(params, found.z, "centered", None)), found.info)


def curves(info: Mapping[str, Array]) -> dict[str, Array]:
    """Figures of an update by name, log Z and log p(x) in the place of the log mean weights of both phases."""
    found = {name: a for name, a in info.items() if not name.startswith("log_weight")}
    joint, error = info["log_weight_positive"], info["log_weight_error_positive"]
    log_z, log_z_error = (info.get(f"log_weight{part}_negative", 0.0 * joint) for part in ("", "_error"))
    return found | {
        "log_z": log_z,
        "log_z_error": log_z_error,
        "log_evidence": joint - log_z,
        "log_evidence_error": (error**2 + log_z_error**2) ** 0.5,
    }


def settings_of(source: AdjustedChains | AdjustedPool) -> weighted.Settings:
    """How the chains of a source move in learning."""
    return weighted.Settings(source.n_steps, source.n_leapfrog, source.n_annealed, source.restarted)


def _fresh(
    source: AdjustedChains | AdjustedPool, algorithm: Algorithm, key: Any, params: Params, rows: Any, observed: bool
) -> Samples:
    """One chain for every row, or n of the prior, from the base and long enough to forget it."""
    n = rows if isinstance(rows, int) else n_rows(rows)
    kept = weighted.begin(algorithm.noncentered, n, 1, source.step_size)
    settings = settings_of(source)._replace(n_steps=source.n_steps_fresh, restarted=0.0)
    index = algorithm.ppl.asarray(range(n))
    return _advanced(algorithm, key, params, rows, observed, kept, index, settings, isinstance(rows, int))


def _advanced(
    algorithm: Algorithm,
    key: Any,
    params: Params,
    rows: Data | int,
    observed: bool,
    kept: weighted.Chains,
    index: Array,
    settings: weighted.Settings,
    is_shared: bool,
) -> Samples:
    program: Program = algorithm.noncentered
    ppl, data = program.ppl, None if isinstance(rows, int) else rows
    params = ppl.stop_gradient(params)
    with ppl.threads_for(program.work(len(index) * kept.age.shape[1])):
        kept, moved = weighted.advance(
            program, key, params, data, kept, index, settings, observed=observed, is_shared=is_shared
        )
    log_weight = moved.log_mean_weight
    if is_shared:
        error = (abs(1.0 / moved.ess - 1.0) / len(index)) ** 0.5  # of even weights 0 but for rounding
    else:
        error = (((log_weight - log_weight.mean()) ** 2).mean() / len(log_weight)) ** 0.5
    info = AdjustedInfo(moved.accept_prob, moved.ess, moved.divergent, log_weight.mean(), error)
    return Samples(moved.z, info, kept, moved.weight)
