"""Bridge sampling: a ratio that is known, errors that are those seen, and ends that do not overlap."""

import numpy as np
import pytest
from conjugate import BACKENDS, exact_one_layer, instance, one_layer
from scipy.stats import gamma

from pplebm.errors import PplebmError
from pplebm.evidence.bridge import bridge, bridge_sampling
from pplebm.evidence.proposals import Proposal, fitted


def walk(rng, n, chains, rho):
    """Chains of N(0, 1) with autocorrelation rho."""
    z = np.empty((n, chains))
    z[0] = rng.normal(size=chains)
    for t in range(1, n):
        z[t] = rho * z[t - 1] + (1.0 - rho**2) ** 0.5 * rng.normal(size=chains)
    return z


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_errors_are_those_seen(rho):
    """Two hundred repetitions, chains that mix well and badly: N(0.8, 1.3²) times 7, and N(0, 1)."""
    rng, found = np.random.default_rng(1), []
    log_ratio = lambda z: np.log(7.0) - 0.5 * ((z - 0.8) / 1.3) ** 2 - np.log(1.3) + 0.5 * z**2
    for _ in range(200):
        found.append(bridge(log_ratio(0.8 + 1.3 * walk(rng, 200, 8, rho)), log_ratio(rng.normal(size=1000))))
    off = np.array([(one.log_ratio - np.log(7.0)) / one.error for one in found])
    assert abs(off.mean()) < 4 / 200**0.5
    assert 0.8 < off.std() < 1.25  # 4 standard errors of a standard deviation are 0.2
    assert (abs(off) < 1.96).mean() > 0.90


def test_an_asymmetric_pair():
    """Gamma(3, 1) without its constant 1 / Γ(3) beside Gamma(2, 1)."""
    rng = np.random.default_rng(2)
    log_ratio = lambda z: 2.0 * np.log(z) - z - gamma(2.0).logpdf(z)
    found = bridge(log_ratio(rng.gamma(3.0, size=(500, 8))), log_ratio(rng.gamma(2.0, size=4000)))
    assert abs(found.log_ratio - np.log(2.0)) < 4 * found.error < 0.1


def test_ends_far_apart_do_not_overlap():
    rng = np.random.default_rng(3)
    log_ratio = lambda z: 12.0 * z - 72.0
    assert bridge(log_ratio(12.0 + rng.normal(size=(200, 8))), log_ratio(rng.normal(size=2000))).overlap < 3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("other", ["normal", "base"])
def test_posteriors_and_priors_of_the_hierarchy(backend, other):
    program, params, form = instance(backend)
    x = np.random.default_rng(1).normal(size=(40, 4)).astype(np.float32)
    exact = np.array([form(row).log_constant for row in x])
    found = bridge_sampling(program, params, program.data(x), True, other=other, seed=3, n_particles=1000)
    off = ((found.value - exact) / found.error)[found.is_trusted]
    assert found.is_trusted.mean() > 0.8 and abs(off.mean()) < 4 / 40**0.5 and 0.5 < off.std() < 1.6
    prior = bridge_sampling(program, params, None, False, other=other, seed=4)
    assert abs(prior.value[0] - form().log_constant) < 4 * prior.error[0] < 0.4


def test_a_base_far_from_its_posterior_is_refused():
    program, data = one_layer("numpyro")
    data = data | {"x": np.array([0.0, 9.0, -9.0, 0.5], np.float32)}
    found = bridge_sampling(program, program.params, program.data(data), True, other="base", n_particles=500)
    assert found.is_trusted.tolist() == [True, False, False, True]
    assert "do not overlap" in found.reasons[1]
    found = bridge_sampling(program, program.params, program.data(data), True, n_particles=500)
    assert (abs(found.value - sum(exact_one_layer(data))) < 4.5 * found.error).all()
    with pytest.raises(PplebmError, match="choose one of auto, base, normal"):
        bridge_sampling(program, program.params, program.data(data), True, other="guide")


@pytest.mark.parametrize("freedom", [5.0, np.inf])
def test_a_proposal_draws_what_its_density_says(freedom):
    """E_q[p / q] = 1 for a normal p inside of q, and the moments are those it was fitted to."""
    root = np.array([[[1.0, 0.0], [0.8, 0.6]], [[2.0, 0.0], [-1.0, 0.5]]])
    law = Proposal(np.array([[0.0, 1.0], [3.0, -2.0]]), root, freedom)
    z = law.draw(np.random.default_rng(0), 20_000)
    inner = Proposal(law.mean, 0.7 * root, np.inf)
    ratio = np.exp(inner.log_density(z) - law.log_density(z))
    assert (abs(ratio.mean(0) - 1.0) < 4 * ratio.std(0) / 20_000**0.5).all()
    again = fitted(z, freedom)
    np.testing.assert_allclose(again.mean, law.mean, atol=0.1)
    ours, theirs = (r @ np.swapaxes(r, 1, 2) for r in (again.root, root))
    np.testing.assert_allclose(ours, theirs, atol=0.35)
