r"""Draws of a guide q(z|x), with weights that tell how far it is from the posterior."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pplebm.errors import PplebmError
from pplebm.ppl.language import Array, Data, Key, Latents, Params
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program
from pplebm.sampling.draws import ROWS_AT_ONCE
from pplebm.sampling.importance import GOOD_K_HAT, effective_size, pareto_k_hat


class GuideDraws(NamedTuple):
    """Independent draws of a guide at data, `draws.values[site]` of shape (1, draws, data, *event).

    They are no draws of the posterior, and there are no chains to disagree: R-hat says nothing about them, k-hat does.
    """

    program: Program
    data: Data
    values: dict[str, np.ndarray]  # in the supports of the sites, deterministic sites among them
    log_weights: np.ndarray  # (1, draws, data) log p̃(x, z) - log q(z|x)
    k_hat: np.ndarray  # (data,) of the weights; above 0.7 they cannot be trusted
    ess: np.ndarray  # (data,) how many draws of the posterior the weighted draws are worth

    @property
    def verdict(self) -> list[str]:
        """A sentence if the guide misses the posterior of some data; empty otherwise."""
        is_bad = ~(self.k_hat <= GOOD_K_HAT)
        if not is_bad.any():
            return []
        worst = int(np.where(np.isnan(self.k_hat), np.inf, self.k_hat).argmax())
        return [
            f"k-hat of the guide's weights is {self.k_hat[worst]:.2f} at datum {worst} and above {GOOD_K_HAT} at "
            f"{int(is_bad.sum())} of {len(self.k_hat)} data: the guide misses parts of the posterior there, and its "
            f"draws cannot be weighted right; sample with chains (pplebm.sample), or learn a wider guide."
        ]


def sample_guide(
    program: Program,
    data: Any,
    guide: Any = None,
    *,
    n_draws: int = 1000,
    seed: int = 0,
    params: Params | None = None,
) -> GuideDraws:
    r"""Draw from a guide at every datum, and weigh the draws by the posterior.

    .. math:: z_s \sim q(z \mid x), \qquad \log w_s = \log \tilde p(x, z_s) - \log q(z_s \mid x)

    The weights are constant where the guide is the posterior. The generalised Pareto distribution of the largest ones
    has shape :math:`\hat k`: below 0.7 weighted means are of use, above it the guide is too narrow somewhere.

    Args:
        program: whose posteriors the guide is for.
        data: as for `pplebm.sample`.
        guide: a `pplebm.guides.guide.Guide`; the program's own (`program.with_guide`) if left out.
        n_draws: of every datum, at least 100 for a k-hat.
        seed: of the draws.
        params: of the model and of the guide ("guide." before their names), if not their own; those of a run's
            program are learned.

    Raises:
        PplebmError: if there is no guide, or fewer than 100 draws are wanted.

    Source: Yao, Vehtari, Simpson, Gelman (ICML 2018), section 3; Vehtari, Simpson, Gelman, Yao, Gabry (JMLR 2024).

    Example:
        >>> import torch, pyro, pyro.distributions as dist, pplebm
        >>> from pplebm.guides.guide import Guide
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0., 1.))
        ...         pyro.sample("x", dist.Normal(z, 1.), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(0.5 * x, 0.15))  # the posterior's sd is 0.71
        >>> program = pplebm.Program(model, data=torch.zeros(2))
        >>> draws = sample_guide(program, torch.tensor([0., 1.]), Guide(program, guide))
        >>> draws.values["z"].shape, bool(draws.k_hat.max() > 0.7), len(draws.verdict)
        ((1, 1000, 2), True, 1)
    """
    guide = program.guide if guide is None else guide
    if guide is None:
        raise PplebmError("the program has no guide: give guide=, or program.with_guide(...).")
    if not isinstance(n_draws, int) or n_draws < 100:
        raise PplebmError(f"n_draws must be an integer from 100 on, which a k-hat needs; got {n_draws!r}.")
    x, ppl = program.data(data), program.ppl
    params = program.params | guide.params | dict(params or {})
    size = max(1, min(n_draws, ROWS_AT_ONCE // n_rows(x)))
    copies = take_rows(x, ppl.asarray(np.tile(np.arange(n_rows(x)), size)))
    run = program.compiled(("guide", id(guide)), _drawing(program.with_coordinates("centered"), guide))
    parts = []
    for key in ppl.split(ppl.key(seed), -(-n_draws // size)):
        values, log_weights = run(key, params, copies)
        parts.append({"": ppl.to_numpy(log_weights)} | {name: ppl.to_numpy(a) for name, a in values.items()})
    shape = (1, len(parts) * size, n_rows(x))
    found = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    found = {name: a.reshape(*shape, *a.shape[1:])[:, :n_draws] for name, a in found.items()}
    log_weights = found.pop("").astype(float)
    k_hat = np.array([pareto_k_hat(w) for w in log_weights[0].T])
    return GuideDraws(program, x, found, log_weights, k_hat, np.array([effective_size(w) for w in log_weights[0].T]))


def _drawing(program: Program, guide: Any) -> Any:
    """A function of key, parameters and data, to values by site and log weights, a row each."""

    def run(key: Key, params: Params, x: Data) -> tuple[Latents, Array]:
        z, log_q = guide.draw(key, params, x)
        return program.constrain(params, z, x), program.log_joint(params, z, x) - log_q

    return run
