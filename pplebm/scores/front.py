r"""The front of the room: scores of data under a program, several at once from the same draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pplebm.ppl.language import Params
from pplebm.program import Program
from pplebm.scores.posterior import Posterior
from pplebm.scores.registry import entry_of, of_chains, scored
from pplebm.scores.scoring import Constants, Score, Scoring
from pplebm.scores.settings import Settings


def anomaly_scores(
    program: Program,
    data: Any,
    names: Sequence[str] = ("log_evidence",),
    *,
    params: Params | None = None,
    normal: Any = None,
    posterior: Posterior | None = None,
    constants: Constants | None = None,
    **settings: Any,
) -> dict[str, Score]:
    r"""Score data under a tilted program, higher the more anomalous, with the Monte Carlo error of every score.

    With latents z of the posterior of each datum, layers :math:`z_1` next to the data to :math:`z_L`,

    .. math::
        L^{>0} &= E_{z \mid x}[\log p(x \mid z) + \log p_0(z) + f(z)], \\
        L^{>k} &= E_{z_{>k} \mid x}\, E_{z_{\le k} \mid z_{>k}}[\log p(x \mid z) + \log p_0(z) + f(z)], \qquad
        LLR^{>k} = L^{>0} - L^{>k}

    where :math:`p(z_{\le k} \mid z_{>k}) \propto e^{f(z)} \prod_{i \le k} p_0(z_i \mid z_{>i})` is the tilted
    conditional. log Z cancels in the ratio; entropies do not, and are left out by definition. `scores.SCORES` says what
    every score is. Densities of latents are those of unconstrained coordinates. Where the prior reads covariates, log Z
    is another one in every row, so that only scores that subtract it, such as "log_evidence", compare rows.

    Args:
        program: any without global latents, tilted or not.
        data: n rows.
        names: of `scores.SCORES`, with a number in the place of k.
        params: where the program's parameters are not to be its own.
        normal: rows known to be normal, for the scores of typicality.
        posterior: another source of latents given data, such as `scores.posterior.learned`; by default chains of
            `pplebm.sample`, which accept and reject.
        constants: another source of log p(x) and log Z, such as those kept with a run.
        settings: fields of `scores.settings.Settings`: `n_chains`, `n_draws`, `n_warmup`, `seed`, `temperature`,
            `layers`, `rows_at_once`, `progress`, and `evidence`, a dict of settings of `pplebm.log_evidence`.

    Returns:
        A `Score` of n values and errors for every name.

    Raises:
        PplebmError: for unknown names, global latents, data that leave the support.

    Source: Cui, Wu, Han (CVPR 2023); Havtorn, Frellsen, Hauberg, Maaløe (ICML 2021) for layers; Nalisnick, Matsukawa,
    Teh, Lakshminarayanan (2019, arXiv:1906.02994) for typicality.

    Example:
        >>> import numpy as np, pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> x = np.array([[0.0, 0.3, 0.1], [5.0, -6.0, 4.0]], np.float32)
        >>> found = anomaly_scores(program, x, ["log_joint", "likelihood"], n_chains=4, n_draws=10, n_warmup=50)
        >>> [bool(score.value[1] > score.value[0]) for score in found.values()]
        [True, True]
    """
    for name in names:
        entry_of(name)
    how, params = Settings(**settings), program.params if params is None else dict(params)
    squares = "reconstruction" in names
    make = lambda rows, other: Scoring(program, program.data(rows), params, how, posterior, constants, other, squares)
    scoring = make(data, None if normal is None else make(normal, None))
    return {name: scored(scoring, name) for name in names}


def decomposition(program: Program, data: Any, *, params: Params | None = None, **settings: Any) -> dict[str, Score]:
    r"""Posterior mean of every term of the log joint: of each observed site, latent, tilt and factor, nats.

    .. math:: L^{>0} = \sum_{\text{sites}} E_{z \mid x}[\log \text{term}]

    These are parts of a log density, not scores: lower is more anomalous.

    Args:
        program, data, params, settings: as in `anomaly_scores`, `posterior` among the settings.

    Example:
        >>> import numpy as np, pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> found = decomposition(program, np.zeros((2, 3), np.float32), n_chains=4, n_draws=10, n_warmup=50)
        >>> sorted(found), found["x"].value.shape
        (['f1', 'f2', 'x', 'z1', 'z2'], (2,))
    """
    posterior = settings.pop("posterior", None)
    params = program.params if params is None else dict(params)
    scoring = Scoring(program, program.data(data), params, Settings(**settings), posterior)
    return {name: Score(name, *of_chains(a)) for name, a in scoring.terms.items()}
