"""Scores against their closed forms on the linear-Gaussian hierarchy, layers and tilted conditionals included."""

import numpy as np
import pytest
from conjugate import BACKENDS, X, exact_one_layer, hierarchy, instance, one_layer
from linear_gaussian import sigma_points
from scipy.stats import multivariate_normal

from pplebm.errors import PplebmError
from pplebm.scores import SCORES, anomaly_scores, decomposition
from pplebm.scores.registry import names_of

HOW = {"n_chains": 64, "n_draws": 20, "n_warmup": 150, "n_draws_lower": 6}
SIGMA = 0.5  # of the page
D1 = 3
NAMES = ["log_joint", "likelihood", "reconstruction", "prior", "tilt_ratio", "tempered", "log_joint>1", "llr>1"]


class Exact:
    """Expectations of the terms under Gaussians of (z1, z2), by sigma points: no Monte Carlo error."""

    def __init__(self, backend):
        self.program, self.params, self.closed = instance(backend)
        self.prior, ppl = self.closed(), self.program.ppl
        self.values = {name: ppl.to_numpy(a).astype(float) for name, a in self.params.items()}

    def terms(self, mean, covariance, x):
        """E of log p(x|z), log p0(z), f(z)."""
        gaussian = type(self.prior)(mean, covariance, 0.0)
        v = self.values
        z1, z2 = np.split(sigma_points(gaussian), [D1], axis=1)
        scale = np.exp(v["log_s"])
        likelihood = -0.5 * ((x - z1 @ v["W"].T) ** 2).sum(1) / SIGMA**2 - 2 * np.log(2 * np.pi * SIGMA**2)
        base = multivariate_normal(np.zeros(2)).logpdf(z2)
        base = base + multivariate_normal(np.zeros(3)).logpdf((z1 - z2 @ v["A"].T - v["b"]) / scale)
        base = base - np.log(scale).sum()
        tilt = sum(-0.5 * ((z @ v[f"Q{i}"]) * z).sum(1) + z @ v[f"c{i}"] for i, z in ((1, z1), (2, z2)))
        return likelihood.mean(), base.mean(), tilt.mean()

    def above(self, x, tilted=True):
        """Terms with z2 from the posterior and z1 given z2, from the tilted prior or from its base."""
        posterior, prior, v = self.closed(x), self.prior, self.values
        m2, c2 = posterior.mean[D1:], posterior.covariance[D1:, D1:]
        if tilted:
            c12, c22 = prior.covariance[:D1, D1:], prior.covariance[D1:, D1:]
            slope = c12 @ np.linalg.inv(c22)
            shift, own = prior.mean[:D1] - slope @ prior.mean[D1:], prior.covariance[:D1, :D1] - slope @ c12.T
        else:
            slope, shift, own = v["A"], v["b"], np.diag(np.exp(2 * v["log_s"]))
        mean = np.concatenate([slope @ m2 + shift, m2])
        covariance = np.block([[slope @ c2 @ slope.T + own, slope @ c2], [c2 @ slope.T, c2]])
        return self.terms(mean, covariance, x)

    def scores(self, x):
        """Every score of NAMES, of one datum."""
        posterior, log_z = self.closed(x), self.prior.log_constant
        likelihood, base, tilt = self.terms(posterior.mean, posterior.covariance, x)
        joint, above = likelihood + base + tilt, sum(self.above(x))
        squares = -2 * SIGMA**2 * (likelihood + 2 * np.log(2 * np.pi * SIGMA**2))
        return dict(zip(NAMES, (-joint, -likelihood, squares, -base - tilt + log_z, -tilt + log_z,
                                -likelihood / 9 - base - tilt, -above, joint - above), strict=True))  # fmt: skip


@pytest.fixture(scope="module", params=BACKENDS)
def found(request):
    """Closed forms, and all scores from one call."""
    exact = Exact(request.param)
    return exact, anomaly_scores(exact.program, X, NAMES, params=exact.params, **HOW)


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_their_closed_forms(found, name):
    exact, scores = found
    wanted, score = np.array([exact.scores(x)[name] for x in X]), scores[name]
    assert score.error.max() < (2.5 if ">" in name else 0.1)
    assert (abs(score.value - wanted) < 4.5 * score.error).all(), (score.value, wanted, score.error)


def test_layers_below_come_from_the_tilted_conditional(found):
    """Ancestral draws from the base, which the formula of the paper suggests as well, are another score."""
    exact, scores = found
    ancestral = np.array([-sum(exact.above(x, tilted=False)) for x in X])
    tilted = np.array([-sum(exact.above(x)) for x in X])
    score = scores["log_joint>1"]
    assert (abs(score.value - tilted) < 4.5 * score.error).all()
    assert (abs(score.value - ancestral) > 10 * score.error).all()


def test_every_term_has_its_closed_form():
    exact = Exact("pyro")
    terms = decomposition(exact.program, X, params=exact.params, **HOW)
    assert sorted(terms) == ["f1", "f2", "x", "z1", "z2"]
    for i, x in enumerate(X):
        posterior = exact.closed(x)
        wanted = exact.terms(posterior.mean, posterior.covariance, x)
        for names, value in zip((["x"], ["z1", "z2"], ["f1", "f2"]), wanted, strict=True):
            error = sum(terms[name].error[i] for name in names)
            assert abs(sum(terms[name].value[i] for name in names) - value) < 4 * error


def test_minus_log_evidence_and_typicality():
    """|log p(x) - mean| over normal data: the far datum and the one at the mode are both untypical."""
    exact = Exact("pyro")
    log_p = lambda rows: np.array([exact.closed(x).log_constant - exact.prior.log_constant for x in rows])
    settings = {"params": exact.params, "normal": X[:2], **HOW}
    found = anomaly_scores(exact.program, X, ["log_evidence", "typicality", "typicality_joint"], **settings)
    first = found["log_evidence"]
    assert (abs(first.value + log_p(X)) < 4.5 * first.error).all()
    second, wanted = found["typicality"], abs(log_p(X) - log_p(X[:2]).mean())
    assert (abs(second.value - wanted) < 4.5 * second.error).all()
    joint = np.array([-exact.scores(x)["log_joint"] for x in X])
    third, wanted = found["typicality_joint"], abs(joint - joint[:2].mean())
    assert (abs(third.value - wanted) < 4.5 * third.error).all()


def test_scores_do_not_depend_on_batches_beyond_their_draws():
    """Ten data in batches of four: every row is scored once, in its place."""
    exact, rows = Exact("pyro"), np.concatenate([X, 3 * X, -X, X[:1]])
    how = {"n_chains": 16, "n_draws": 10, "n_warmup": 100, "rows_at_once": 64}
    found = anomaly_scores(exact.program, rows, ["log_joint", "llr>1"], params=exact.params, **how)
    wanted = np.array([exact.scores(x)["log_joint"] for x in rows])
    assert (abs(found["log_joint"].value - wanted) < 5 * found["log_joint"].error).all()
    assert found["llr>1"].value.shape == (10,)


def test_names():
    exact = Exact("pyro")
    assert set(names_of(exact.program)) == {name.replace("k", "1") if ">" in name else name for name in SCORES}
    with pytest.raises(PplebmError, match="score 'elbo' is not known; choose one of log_evidence"):
        anomaly_scores(exact.program, X, ["elbo"])
    with pytest.raises(PplebmError, match=r"k = 2 leaves no layer .* 2 layers, z1, z2"):
        anomaly_scores(exact.program, X, ["llr>2"], params=exact.params)
    with pytest.raises(PplebmError, match="typicality' compares with normal data"):
        anomaly_scores(exact.program, X, ["typicality"], params=exact.params)
    with pytest.raises(PplebmError, match="n_chains must be an integer from 2 on"):
        anomaly_scores(exact.program, X, n_chains=1)
    with pytest.raises(PplebmError, match="temperature must be positive"):
        anomaly_scores(exact.program, X, temperature=0.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_row_has_its_own_log_z_where_the_prior_reads_a_covariate(backend):
    """z ~ N(m(c), 1) after the tilt m z; E[f | x] = m E[z | x], less log Z = m² / 2."""
    program, rows = one_layer(backend, slope=0.8)
    log_z, log_p = exact_one_layer(rows, slope=0.8)
    found = anomaly_scores(program, rows, ["log_evidence", "tilt_ratio"], **HOW)
    m = 0.7 + 0.8 * rows["c"]
    mean = (m + rows["x"] / 0.36) / (1 + 1 / 0.36)
    for score, wanted in ((found["log_evidence"], -log_p), (found["tilt_ratio"], log_z - m * mean)):
        assert (abs(score.value - wanted) < 4.5 * score.error + 1e-5).all() and score.error.max() < 0.3


def test_a_single_posterior_of_all_data_has_no_scores_by_datum():
    with pytest.raises(PplebmError, match="latent site 'mean' stands outside the data plate"):
        anomaly_scores(hierarchy("pyro"), np.zeros(4, np.float32))
