"""Draws of a guide: their law, their weights, k-hat, and ArviZ."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import pplebm
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.guides.guide import Guide
from pplebm.ppl.language import load_backend
from pplebm.sampling.guide_draws import sample_guide
from pplebm.sampling.importance import pareto_k_hat
from pplebm.sampling.to_arviz import has_inference_data, import_arviz

BACKENDS = ("pyro", "numpyro")
X = np.array([-1.0, 0.0, 3.0], np.float32)


def pair(backend, sd=0.5**0.5, tilt=0.7):
    """N(0, 1) tilted by 0.7 z and seen with unit noise: the posterior is N((x + 0.7) / 2, 1/2); and a guide."""
    ppl = load_backend(backend)

    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0))
            ppl.tilt("f", 0.7 * z)
            ppl.sample("x", ppl.dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with ppl.plate("data", len(x)):
            ppl.sample("z", ppl.dist.Normal(0.5 * (x + tilt), sd))

    program = pplebm.Program(model, data=X, backend=backend)
    return program, Guide(program, guide)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_of_the_exact_posterior_are_the_evidence(backend):
    program, guide = pair(backend)
    draws = sample_guide(program, X, guide, n_draws=2000)
    expected = 0.25 * 0.7**2 + 0.5 * 0.7 * X - 0.25 * X**2 - 0.5 * np.log(4 * np.pi)  # log ∫ p(x|z) N(z) e^{0.7 z} dz
    np.testing.assert_allclose(draws.log_weights[0], np.tile(expected, (2000, 1)), atol=1e-4)
    assert (draws.k_hat < 0.7).all() and (draws.ess > 1999).all() and draws.verdict == []
    z = draws.values["z"][0]
    assert (np.abs(z.mean(0) - 0.5 * (X + 0.7)) < 5 * (0.5 / 2000) ** 0.5).all()
    assert (np.abs(z.var(0) / 0.5 - 1) < 5 * (2 / 2000) ** 0.5).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_k_hat_tells_a_guide_that_is_too_narrow_or_beside(backend):
    """A guide almost five times too narrow; one that ignores the tilt has finite weights, and is worth less."""
    narrow, beside = (
        sample_guide(program, X, guide, n_draws=4000) for program, guide in (pair(backend, 0.15), pair(backend, tilt=0))
    )
    assert (narrow.k_hat > 0.7).all() and "3 of 3 data" in narrow.verdict[0] and "pplebm.sample" in narrow.verdict[0]
    assert (beside.k_hat < 0.7).all() and (beside.ess < 3600).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_guide_has_groups_of_its_own_in_arviz(backend):
    program, guide = pair(backend)
    draws = sample_guide(program.with_guide(guide), X, n_draws=200)
    tree = pplebm.to_arviz(guide=draws)
    names = tree.groups() if has_inference_data() else tree.children
    assert set(names) == {"guide", "guide_stats"}
    assert tree["guide"]["z"].dims == tree["guide_stats"]["log_weight"].dims == ("chain", "draw", "data")
    assert tree["guide"]["z"].shape == (1, 200, 3) and tree["guide_stats"]["k_hat"].shape == (3,)
    assert (
        tree["guide"].attrs["inference_method"] == "guide" and "not of the posterior" in tree["guide"].attrs["meaning"]
    )
    with pytest.warns(PplebmWarning, match="k-hat"):
        pplebm.to_arviz(guide=sample_guide(*(pair(backend, 0.2)[0], X, pair(backend, 0.2)[1])))


def test_arviz_gives_a_guide_no_r_hat():
    program, guide = pair("pyro")
    tree = pplebm.to_arviz(guide=sample_guide(program, X, guide))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isnan(np.asarray(import_arviz().rhat(np.asarray(tree["guide"]["z"])[:, :, 0])))


@pytest.mark.parametrize("backend", BACKENDS)
def test_draws_come_from_the_seed_whatever_their_number_at_once(backend, monkeypatch):
    program, guide = pair(backend)
    first, again = (sample_guide(program, X, guide, n_draws=100, seed=3).values["z"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    monkeypatch.setattr("pplebm.sampling.guide_draws.ROWS_AT_ONCE", 90)
    parts = sample_guide(program, X, guide, n_draws=100)
    assert parts.values["z"].shape == (1, 100, 3) and len(np.unique(parts.values["z"])) == 300


def test_what_is_missing_is_said():
    program, guide = pair("pyro")
    with pytest.raises(PplebmError, match="with_guide"):
        sample_guide(program, X)
    with pytest.raises(PplebmError, match="from 100 on"):
        sample_guide(program, X, guide, n_draws=50)
    with pytest.raises(PplebmError, match="guide="):
        pplebm.to_arviz()


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_k_hat_is_that_of_arviz(scale):
    if not has_inference_data():
        pytest.skip("ArviZ 1.x has it elsewhere")
    log_ratio = scale * np.random.default_rng(0).normal(size=1000)
    assert pareto_k_hat(log_ratio) == pytest.approx(float(import_arviz().psislw(log_ratio.copy())[1]), rel=1e-9)
    assert pareto_k_hat(np.append(log_ratio, np.nan)) == np.inf
