"""Anisotropic steps: the law as published, with the divergence, and adjusted; on a symmetric and a skewed density."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from targets import rows_of

from pplebm.errors import PplebmError
from pplebm.kernels.adjusted_anisotropic import adjusted_anisotropic
from pplebm.kernels.anisotropic import anisotropic
from pplebm.kernels.kernel import Score
from pplebm.kernels.tuned import tuned
from pplebm.sampling import chains

N, B = 10_000, 0.5  # chains; threshold
GRID = np.linspace(-8.0, 14.0, 1501)
SLOPES = {"normal": lambda z: -z, "gumbel": lambda z: np.exp(-z) - 1.0}  # of the log density
LAWS = {"normal": stats.norm, "gumbel": stats.gumbel_r}


def density(ppl, target):
    """Log density of a backend."""
    if target == "normal":
        return lambda z: -0.5 * (z["a"] ** 2)[:, 0]
    return lambda z: -(z["a"] + ppl.exp(-z["a"]))[:, 0]


def moment(target, power, weight=1.0):
    """E zᵏ of the density times a weight, on the grid."""
    law = LAWS[target].pdf(GRID) * weight
    return (law * GRID**power).sum() / law.sum()


def biased(target):
    """What the published step multiplies the density with."""
    return np.maximum(1.0, np.abs(SLOPES[target](GRID)) / B)


def drawn(target, weight=1.0):
    law = LAWS[target].pdf(GRID) * weight
    return np.random.default_rng(0).choice(GRID, p=law / law.sum(), size=(N, 1))


def assert_moments(got, target, weight, slack):
    """First and second moments to 5 standard errors and the bias of the step size."""
    for power in (1, 2):
        want, square = moment(target, power, weight), moment(target, 2 * power, weight)
        error = np.sqrt((square - want**2) / N)
        assert abs((got**power).mean() - want) < 5.0 * error + slack, power


def run(ppl, kernel, start, log_density, n_steps):
    state = kernel.init(ppl, {"a": ppl.asarray(start)}, log_density)
    go = ppl.compiled(lambda key, state: chains.run(ppl, key, state, log_density, kernel, n_steps))
    return go(ppl.key(0), state)


def test_the_bias_of_the_published_step_is_that_of_the_card():
    assert moment("normal", 2, biased("normal")) == pytest.approx(1.786, abs=1e-3)


@pytest.mark.parametrize("target", LAWS)
@pytest.mark.parametrize("correction", [True, False])
def test_the_law_of_the_small_step_is_that_of_quadrature(ppl, correction, target):
    """p with the divergence; without it p(z) max(1, |∂ log p| / b), from either law's own draws and from p's."""
    weight = 1.0 if correction else biased(target)
    state, _ = run(ppl, anisotropic(0.15, B, correction), drawn(target, weight), density(ppl, target), 120)
    assert_moments(rows_of(ppl, state.z), target, weight, slack=0.03)
    apart = abs(moment(target, 2) - moment(target, 2, biased(target)))
    assert apart > 0.3, "a test that cannot tell them apart"


@pytest.mark.parametrize("target", LAWS)
@pytest.mark.parametrize("s", [0.7, 3.0])
def test_adjusted_steps_keep_the_density_at_every_size(ppl, target, s):
    """Draws of p remain draws of p; no slack for the step, which is long where it is flat."""
    state, info = run(ppl, adjusted_anisotropic(s, B), drawn(target), density(ppl, target), 40)
    assert_moments(rows_of(ppl, state.z), target, 1.0, slack=0.0)
    assert 0.05 < ppl.to_numpy(info.accept_prob).mean() < 0.99


def test_adjusted_steps_arrive_from_afar_and_find_their_size(ppl):
    kernel = tuned(adjusted_anisotropic(0.05, B), 200)
    state, _ = run(ppl, kernel, np.full((N, 1), 6.0), density(ppl, "gumbel"), 300)
    assert_moments(rows_of(ppl, state.z), "gumbel", 1.0, slack=0.0)


def test_the_scale_stretches_the_proposal_with_the_coordinate(ppl):
    """On z = d·u steps with D = d are d times those on u."""
    start = drawn("normal")[:200]
    log_density = density(ppl, "normal")
    wide = lambda z: log_density({"a": z["a"] / 3.0})
    one, _ = run(ppl, adjusted_anisotropic(0.8, B), start, log_density, 3)
    other, _ = run(ppl, adjusted_anisotropic(0.8, B, scale=3.0), 3.0 * start, wide, 3)
    np.testing.assert_allclose(rows_of(ppl, other.z), 3.0 * rows_of(ppl, one.z), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda p: adjusted_anisotropic(0.0, 1.0), "step_size"),
        (lambda p: adjusted_anisotropic(0.1, -1.0), "threshold"),
        (lambda p: adjusted_anisotropic(0.1, 1.0).init(p, {"a": p.asarray([[0.0]])}, Score(lambda z: z)), "Score"),
    ],
)
def test_what_cannot_be_is_refused(ppl, make, word):
    with pytest.raises(PplebmError, match=word):
        make(ppl)
