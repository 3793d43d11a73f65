r"""Noise of the parameters: the Langevin system of parameters and particles together."""

from __future__ import annotations

from typing import Any

from pplebm.errors import PplebmError
from pplebm.learning import stopping
from pplebm.learning.algorithm import Algorithm


def check(algorithm: Algorithm) -> None:
    """Refuse noise that no law stands behind.

    Raises:
        PplebmError: for noise with an optimizer other than plain gradient steps.
    """
    hyper = algorithm.hyper
    if hyper.parameter_noise and (hyper.optimizer.rule != "sgd" or hyper.optimizer.arguments):
        raise PplebmError(
            f"parameter_noise has its law with plain gradient steps alone, and optimizer.rule is "
            f"'{hyper.optimizer.rule}'; set optimizer.rule=sgd, or parameter_noise=0."
        )


def langevin_step(algorithm: Algorithm, key: Any, state: Any) -> Any:
    r"""The state with noise added to its parameters, after a gradient step of rate :math:`\gamma` on means over data.

    .. math:: \theta \leftarrow \theta + \nu \sqrt{\frac{2 \gamma}{n N}}\, \xi, \qquad \xi \sim N(0, I)

    for n data of N particles each, with :math:`\nu` the hyperparameter `parameter_noise`. With :math:`\nu = 1` the
    parameters and their particles are one Langevin system, whose law is
    :math:`\propto \exp(\sum_{j \le N} \log \tilde p_\theta(x, z_j))`: in :math:`\theta` it is
    :math:`p_\theta(x)^N`, which closes on the maximum as N grows.

    Source: Akyildiz, Crucinio, Girolami, Johnston, Sabanis (2023, arXiv:2303.13429); with a tilted prior, Marks, Wang,
    Akyildiz (2025, arXiv:2510.12311).
    """
    hyper, ppl = algorithm.hyper, algorithm.ppl
    if not hyper.parameter_noise:
        return state
    n, particles = state.positive.age.shape
    before = state._replace(update=state.update - 1)  # whose rates the gradient step had
    factor = algorithm.optimizer.factor(ppl, ppl.asarray(before.update), hyper.updates) * stopping.factor(ppl, before)
    shrink = hyper.parameter_noise * (2.0 * factor / (n * particles)) ** 0.5
    noise = ppl.normal_like(key, state.params)
    tilts, rate = algorithm.program.tilt_params, algorithm.optimizer
    at = {name: rate.learning_rate_tilt if name in tilts else rate.learning_rate for name in state.params}
    params = {name: p + at[name] ** 0.5 * shrink * noise[name] for name, p in state.params.items()}
    return state._replace(params=params)
