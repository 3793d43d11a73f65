r"""Sources of the samples of a phase, as data: fresh chains, chains that live on, or a guide.

A source draws once for every row, `draw`, and in learning goes on from what it keeps between updates, `advance`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pplebm.errors import PplebmError
from pplebm.gallery.hyper import Count, NonNegative, Positive, Share, Whole
from pplebm.kernels.adjusted_anisotropic import adjusted_anisotropic
from pplebm.kernels.anisotropic import anisotropic
from pplebm.kernels.batch import choose
from pplebm.kernels.hmc import hmc
from pplebm.kernels.kernel import Kernel
from pplebm.kernels.langevin import langevin
from pplebm.kernels.mala import mala
from pplebm.kernels.tuned import tuned
from pplebm.kernels.uphill import uphill
from pplebm.learning.adjusted import AdjustedChains, AdjustedPool
from pplebm.learning.samples import Samples
from pplebm.ppl.language import Data, Latents, Params
from pplebm.program import Coordinates
from pplebm.sampling import buffers
from pplebm.sampling.chains import Init, RunInfo, go_on, short_run, start

if TYPE_CHECKING:
    from pplebm.learning.algorithm import Algorithm

KernelName = Literal["langevin", "mala", "anisotropic", "anisotropic_published", "anisotropic_adjusted"]
UNADJUSTED = ("langevin", "anisotropic", "anisotropic_published")
OWN_DECAY, GAIN = 0.6, 0.2  # of step sizes of chains that live on: of a datum's own, and of those of a pool


class ShortRun(NamedTuple):
    r"""Fresh chains of fixed length, anew every time: :math:`z_{k+1} = z_k + \tfrac12 s^2 \nabla \log p + s \xi`."""

    n_steps: Count = 30  # K
    step_size: Positive = 0.4  # s
    temperature: NonNegative = 1.0  # 0: no noise, the chain climbs to a mode
    init: Init = "normal"  # the same as "base" in noncentered coordinates
    coordinates: Coordinates = "noncentered"  # in which one step size suits every layer
    kernel: KernelName = "langevin"  # or "mala", adjusted: each chain finds its own step size; more in `kernel_of`
    threshold: Positive = 1.0  # b of anisotropic kernels, nats per unit: the slope beyond which steps are shortened

    def draw(
        self,
        algorithm: Algorithm,
        key: Any,
        params: Params,
        rows: Data | int,
        observed: bool,
        init: str | Latents | None = None,
    ) -> Samples:
        """Draw from the posterior given data, or from the tilted prior: n times, or at the covariates of every row."""
        z, info = short_run(
            algorithm.program, key, params, rows, fresh_kernel(self, self.n_steps), self.n_steps,
            observed=observed, init=self.init if init is None else init, coordinates=self.coordinates,
        )  # fmt: skip
        return Samples(z, info)

    def advance(
        self, algorithm: Algorithm, key: Any, params: Params, rows: Data | int, observed: bool, kept: Any, index: Any
    ) -> Samples:
        """The same; nothing is kept."""
        return self.draw(algorithm, key, params, rows, observed)


class BaseDraws(NamedTuple):
    """Ancestral draws of the base in learning, by which it is told from the posterior; afterwards fresh chains."""

    n_steps: Count = 60  # of the chains
    step_size: Positive = 0.4  # s
    temperature: NonNegative = 1.0  # 0: no noise, the chain climbs to a mode
    init: Init = "normal"  # the same as "base" in noncentered coordinates
    coordinates: Coordinates = "noncentered"  # in which one step size suits every layer
    kernel: KernelName = "langevin"  # or "mala", adjusted: each chain finds its own step size; more in `kernel_of`
    threshold: Positive = 1.0  # b of anisotropic kernels, nats per unit: the slope beyond which steps are shortened

    def draw(self, algorithm: Algorithm, key: Any, params: Params, rows: Data | int, observed: bool) -> Samples:
        """Fresh chains, as a `ShortRun` makes them."""
        return ShortRun(*self).draw(algorithm, key, params, rows, observed)

    def advance(
        self, algorithm: Algorithm, key: Any, params: Params, rows: Data | int, observed: bool, kept: Any, index: Any
    ) -> Samples:
        """One draw of the base for every row."""
        return Samples(start(algorithm.centered, key, algorithm.ppl.stop_gradient(params), rows, "base"))


class Persistent(NamedTuple):
    """Chains of the posterior that live on between updates, one for every datum, and move in noncentered coordinates.

    Between updates they stay where they are in centered ones: what data say of a latent holds when the base moves.
    """

    n_steps: Count = 15  # at every update
    step_size: Positive = 0.2  # s
    temperature: NonNegative = 1.0  # 0: no noise, the chains climb to modes
    spread: Positive = 1.0  # standard deviation of where chains start
    n_steps_fresh: Count = 100  # of chains of data that have none, after learning
    kernel: KernelName = "langevin"  # or "mala", adjusted: each chain finds its own step size; more in `kernel_of`
    threshold: Positive = 1.0  # b of anisotropic kernels, nats per unit: the slope beyond which steps are shortened

    def begin(self, algorithm: Algorithm, key: Any, params: Params, n: int) -> buffers.Buffer:
        """Chains of all n data at their start, which is noncentered until their first move."""
        kept = buffers.buffer(algorithm.noncentered, key, params, n, "normal")
        return kept._replace(z={name: self.spread * z for name, z in kept.z.items()})

    def draw(self, algorithm: Algorithm, key: Any, params: Params, rows: Data | int, observed: bool) -> Samples:
        """Fresh chains of any data, longer than those of learning."""
        k_start, k_run = algorithm.ppl.split(key)
        z = start(algorithm.noncentered, k_start, params, rows, "normal")
        z, n = {name: self.spread * a for name, a in z.items()}, self.n_steps_fresh
        return Samples(
            *short_run(algorithm.program, k_run, params, rows, fresh_kernel(self, n), n, observed=observed, init=z)
        )

    def advance(
        self, algorithm: Algorithm, key: Any, params: Params, rows: Data | int, observed: bool, kept: Any, index: Any
    ) -> Samples:
        """Go on with the chains of the data `index`, whose rows these are; adaptation dies away with their age."""
        ppl, z, factor, age = algorithm.ppl, buffers.take_rows(kept, index), kept.log_factor[index], kept.age[index]
        z = choose(ppl, age < 0.5, z, algorithm.centered.move(params, z, "noncentered", rows))
        z, accepted, info = _gone_on(algorithm, key, params, rows, self, z, factor, observed)
        factor = factor + _missed(self, accepted) * (age + 1.0) ** -OWN_DECAY
        z = ppl.stop_gradient(algorithm.noncentered.move(params, z, "centered", rows))
        return Samples(z, info, buffers.put_rows(ppl, kept, index, z, factor))


class Pool(NamedTuple):
    """Chains of the tilted prior that live on between updates, in noncentered coordinates.

    Every update moves as many of them as the batch has rows; where the prior reads covariates, those of the batch's
    own rows, one of each.
    """

    n_steps: Count = 20  # at every update
    step_size: Positive = 0.4  # s
    temperature: NonNegative = 1.0  # other than 1 it is another prior that is learned
    pool: Count = 512  # chains
    renewed: Share = 0.05  # share of the chains drawn anew from the base at an update
    n_steps_fresh: Count = 100  # of fresh chains, after learning
    kernel: KernelName = "langevin"  # or "mala", adjusted: each chain finds its own step size; more in `kernel_of`
    threshold: Positive = 1.0  # b of anisotropic kernels, nats per unit: the slope beyond which steps are shortened

    def begin(self, algorithm: Algorithm, key: Any, params: Params, n: int) -> buffers.Buffer:
        """Chains at their start: the pool, or one for each of n data where the prior reads covariates."""
        n = n if algorithm.program.prior_reads else self.pool
        return buffers.buffer(algorithm.noncentered, key, params, n, "normal")

    def draw(self, algorithm: Algorithm, key: Any, params: Params, rows: Data | int, observed: bool) -> Samples:
        """Fresh chains of the tilted prior, longer than those of learning."""
        n = self.n_steps_fresh
        return Samples(*short_run(algorithm.program, key, params, rows, fresh_kernel(self, n), n, observed=observed))

    def advance(
        self, algorithm: Algorithm, key: Any, params: Params, rows: Data | int, observed: bool, kept: Any, index: Any
    ) -> Samples:
        """Go on with some chains of the pool, or with those of the data `index`; their step size is the same for all.

        One that depended on where its own chain is would move mass between places where steps are easy and hard.
        """
        program, moving = algorithm.program, algorithm.noncentered
        k_pick, k_renew, k_run = program.ppl.split(key, 3)
        picked = index if program.prior_reads else buffers.shared_rows(program, k_pick, kept, len(index))
        z = buffers.rejuvenate(moving, k_renew, params, buffers.take_rows(kept, picked), rows, self.renewed)
        z, accepted, info = _gone_on(algorithm, k_run, params, rows, self, z, kept.log_factor[picked], observed)
        kept = buffers.put_rows(algorithm.ppl, kept, picked, z)
        kept = kept._replace(log_factor=kept.log_factor + GAIN * _missed(self, accepted).mean())
        centered = moving.move(params, z, "centered", None if isinstance(rows, int) else rows)
        return Samples(program.ppl.stop_gradient(centered), info, kept)

    def ends(self, algorithm: Algorithm, kept: buffers.Buffer, params: Params, n: int) -> Latents:
        """Where the first n chains of a pool that all data share stand, centered."""
        return algorithm.noncentered.move(params, {name: z[:n] for name, z in kept.z.items()}, "centered")


class Amortized(NamedTuple):
    """Draws of a guide q(z|x): the program's own (`guide=`), or one derived from it, see `pplebm.guides.amortized`."""

    family: Literal["ladder", "mean_field", "top_down"] = "ladder"  # how layers depend on each other
    n_transforms: Whole = 0  # of flows in the place of the guide's normals

    def draw(self, algorithm: Algorithm, key: Any, params: Params, rows: Data | int, observed: bool) -> Samples:
        """One draw of the guide for every row."""
        return Samples(algorithm.guide.draw(key, params, rows)[0])

    def advance(
        self, algorithm: Algorithm, key: Any, params: Params, rows: Data | int, observed: bool, kept: Any, index: Any
    ) -> Samples:
        r"""Noise :math:`\epsilon`: the loss puts :math:`z = T(\epsilon, x)` itself, and so learns the guide by it."""
        return Samples(algorithm.guide.noise(key, len(index)))


Chain = ShortRun | BaseDraws | Persistent | Pool
CHAINS = (ShortRun, BaseDraws, Persistent, Pool)
STEPPED = (*CHAINS, AdjustedChains, AdjustedPool)  # whose fresh draws are of so many steps
Source = Chain | AdjustedChains | AdjustedPool | Amortized


def kernel_of(chain: Chain | AdjustedPool) -> Kernel:
    """The kernel of a chain's steps, of one step size; mala at temperature 0 climbs.

    "anisotropic" takes shorter steps where it is steep, with the divergence that its publication lacks;
    "anisotropic_published" lacks it, and so samples another law; "anisotropic_adjusted" accepts or rejects.

    Raises:
        PplebmError: for an anisotropic kernel at another temperature than 1.
    """
    if isinstance(chain, AdjustedPool):
        return hmc(max(1, chain.n_leapfrog // 2), chain.step_size)
    if chain.kernel == "langevin":
        return langevin(chain.step_size, chain.temperature)
    if chain.kernel == "mala":
        return mala(chain.step_size, temperature=chain.temperature) if chain.temperature else uphill(chain.step_size)
    if chain.temperature != 1.0:
        raise PplebmError(f"kernel={chain.kernel} has no temperature but 1, got {chain.temperature:g}; take mala.")
    if chain.kernel == "anisotropic_adjusted":
        return adjusted_anisotropic(chain.step_size, chain.threshold)
    return anisotropic(chain.step_size, chain.threshold, correction=chain.kernel == "anisotropic")


def fresh_kernel(chain: Chain | AdjustedPool, n: int) -> Kernel:
    """The kernel of n steps of a fresh chain: an adjusted one adapts its step size in the first half of them."""
    kernel = kernel_of(chain)
    return kernel if kernel.tuning is None else tuned(kernel, n // 2)


def coordinates_of(chain: Chain | AdjustedChains | AdjustedPool) -> str:
    """The coordinates that a chain moves in."""
    return getattr(chain, "coordinates", "noncentered")


def with_n_steps(chain: Chain | AdjustedChains | AdjustedPool, n: int) -> Any:
    """The same chain with fresh draws of n steps."""
    changes: dict[str, Any] = {"n_steps_fresh" if hasattr(chain, "n_steps_fresh") else "n_steps": n}
    return chain._replace(**changes)


def _gone_on(
    algorithm: Algorithm, key: Any, params: Params, rows: Any, chain: Persistent | Pool, z: Latents, factor: Any,
    observed: bool,
) -> tuple[Latents, Any, RunInfo]:  # fmt: skip
    return go_on(
        algorithm.noncentered, key, params, rows, kernel_of(chain), chain.n_steps, z, factor, observed
    )  # fmt: skip


def _missed(chain: Chain, accepted: Any) -> Any:
    """By how much acceptance is above its aim, where there is one."""
    tuning = kernel_of(chain).tuning
    return 0.0 * accepted if tuning is None else accepted - tuning.target_accept
