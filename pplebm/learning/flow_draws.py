"""Posteriors by normalizing flows fitted on the spot: independent draws with weights, of a program as it is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tqdm import tqdm

from pplebm.errors import PplebmError
from pplebm.gallery.hyper import override
from pplebm.gallery.pages import load
from pplebm.guides.coupling import latents_of, transport
from pplebm.learning.algorithm import Algorithm
from pplebm.ppl.language import Array, Key, Latents, Params
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program
from pplebm.sampling.draws import ROWS_AT_ONCE
from pplebm.sampling.guide_draws import GuideDraws
from pplebm.sampling.importance import effective_size, pareto_k_hat


def sample_flow(
    program: Program,
    data: Any,
    *,
    n_draws: int = 1000,
    n_updates: int = 1500,
    seed: int = 0,
    params: Params | None = None,
    progress: bool | None = None,
    **hyper: Any,
) -> GuideDraws:
    r"""Fit a flow to the posterior of every datum, as the page `flow_posterior` does, and draw from it.

    .. math:: z_s = T_i(u_s), \quad u_s \sim N(0, I), \qquad
              \log w_s = \log \tilde p(x_i, z_s) + \log |\det \partial T_i / \partial u| - \log N(u_s; 0, I)

    The mean of :math:`\log w` is the bound on :math:`\log p(x_i) + \log Z`. A flow is drawn to one mode of a posterior
    of several: k-hat tells only of those that its draws reach, so compare a few data with `pplebm.sample`.

    Args:
        program: as it is; nothing of it is learned.
        data: as for `pplebm.sample`, a flow for every row.
        n_draws: of every datum, at least 100 for a k-hat.
        n_updates: of the flows.
        seed: of flows and draws.
        params: of the program, if not its own.
        progress: show a bar; by default if the output is a terminal.
        hyper: changes to the page's hyperparameters, such as `n_layers=8`.

    Raises:
        PplebmError: for too few draws, programs with one latent number or with latents outside the data plate.

    Source: Dasgupta et al. (2023, arXiv:2310.04690), section 3.

    Example:
        >>> import torch, pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> found = sample_flow(program, torch.ones(2, 3), n_draws=200, n_updates=20)
        >>> found.values["z1"].shape[:3]
        (1, 200, 2)
    """
    if not isinstance(n_draws, int) or n_draws < 100:
        raise PplebmError(f"n_draws must be an integer from 100 on, which a k-hat needs; got {n_draws!r}.")
    page, ppl, x = load("flow_posterior"), program.ppl, program.data(data)
    program = program if params is None else program.with_params(params)
    program.check_data(x, program.params)
    settings = override(page.Hyper(), {"updates": n_updates, **hyper}, "page 'flow_posterior'")
    algorithm = Algorithm(page, program, settings)
    k_begin, k_learn, k_draw = ppl.split(ppl.key(seed), 3)
    state, step = algorithm.init(k_begin, x), ppl.compiled(algorithm.step)
    for key in tqdm(ppl.split(k_learn, n_updates), desc="flows", disable=None if progress is None else not progress):
        state, _ = step(key, state, x)
    draw = _drawing(algorithm)
    parts, size = [], max(1, min(n_draws, ROWS_AT_ONCE // n_rows(x)))
    copies = ppl.asarray(np.tile(np.arange(n_rows(x)), size))
    rows, flows = take_rows(x, copies), {name: a[copies] for name, a in state.positive.items()}
    for key in ppl.split(k_draw, -(-n_draws // size)):
        values, log_weights = draw(key, program.params, flows, rows)
        parts.append({"": ppl.to_numpy(log_weights)} | {name: ppl.to_numpy(a) for name, a in values.items()})
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    found = {name: a.reshape(1, -1, n_rows(x), *a.shape[1:])[:, :n_draws] for name, a in joined.items()}
    weights = found.pop("").astype(float)
    k_hat, ess = (np.array([f(w) for w in weights[0].T]) for f in (pareto_k_hat, effective_size))
    return GuideDraws(program, x, found, weights, k_hat, ess)


def _drawing(algorithm: Algorithm) -> Any:
    """A function of key, parameters, flows and data, to values by site and log weights, a row each."""
    program, ppl = algorithm.noncentered, algorithm.ppl

    def run(key: Key, params: Params, flows: Any, x: Any) -> tuple[Latents, Array]:
        u = ppl.normal_like(key, {"u": flows["location"]})["u"]
        z, log_det = transport(ppl, flows, u)
        latents = latents_of(program, z)
        log_q = -0.5 * (u**2).sum(1) - 0.5 * program.width * math.log(2.0 * math.pi) - log_det
        return program.constrain(params, latents, x), program.log_joint(params, latents, x) - log_q

    return run
