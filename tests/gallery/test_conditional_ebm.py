"""A tilted prior for every class: constants, evidence and classes in closed form and by quadrature."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import pplebm
from pplebm.errors import PplebmError

PAGE = pplebm.load("conditional_ebm")
LINE = np.linspace(-9.0, 9.0, 361)
PLANE = np.stack([a.ravel() for a in np.meshgrid(LINE, LINE, indexing="ij")], 1)
CELL = (LINE[1] - LINE[0]) ** 2
LINEAR = {"n_classes": 3, "latent_dims": (2,), "depth": 0, "tilt_bound": 1e7, "sigma": 0.7}  # f_c is a_c·z + b_c
BENT = {"n_classes": 3, "latent_dims": (2,), "depth": 1, "width": 5, "tilt_width": 5, "sigma": 0.7}
X = np.array([[0.5, -1.0, 2.0], [-2.0, 0.0, 0.3], [1.0, 1.0, 1.0], [0.2, -0.3, 0.1]])
DATA = PAGE.with_every_label(X, 3)
SHARES = np.array([0.5, 0.2, 0.3])


@pytest.fixture
def double(ppl, float64):
    """Double precision on the backend under test."""
    import jax

    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        yield ppl


def program_of(ppl, hyper):
    """A program at parameters far from where they begin, and these."""
    program = pplebm.Program(pplebm.bind("conditional_ebm", ppl.name, shape={"x": (3,)}, **hyper), data=DATA)
    rng = np.random.default_rng(1)
    moved = {n: ppl.to_numpy(p) + 0.6 * rng.normal(size=tuple(p.shape)) for n, p in sorted(program.params.items())}
    return program.with_params({n: ppl.asarray(a) for n, a in moved.items()}), moved


def closed_form(at):
    """log Z(c) = |a_c|²/2 + b_c, and laws of x given c: z is N(a_c, I)."""
    a, w = at["tilt1.weight_0"], at["decoder.weight_0"]
    laws = [multivariate_normal(w @ row + at["decoder.bias_0"], w @ w.T + 0.49 * np.eye(3)) for row in a]
    return 0.5 * (a**2).sum(1) + at["tilt1.bias_0"], laws


def on_plane(program, row, observed):
    """Integral over the plane of p̃(x, z | c) of a row of the data, or of p̃(z | c); the logarithm."""
    ppl = program.ppl
    data = program.data({name: np.repeat(a[row : row + 1], len(PLANE), 0) for name, a in DATA.items()})
    density = program.log_joint if observed else program.log_prior
    return logsumexp(ppl.to_numpy(density(program.params, {"z1": ppl.asarray(PLANE)}, data))) + np.log(CELL)


def test_every_class_has_the_constant_and_the_evidence_of_its_closed_form(double):
    program, at = program_of(double, LINEAR)
    assert program.prior_reads and program.covariates == ("label",)
    log_z, laws = closed_form(at)
    assert np.ptp(log_z) > 0.5
    for row, label in enumerate(DATA["label"]):
        assert on_plane(program, row, False) == pytest.approx(log_z[label], abs=1e-6)
        exact = laws[label].logpdf(DATA["x"][row])
        assert on_plane(program, row, True) - on_plane(program, row, False) == pytest.approx(exact, abs=1e-6)


def test_estimates_of_constants_and_evidence_are_those_of_the_closed_form(double):
    """Within 5 of their own errors, the classes that follow too."""
    program, at = program_of(double, LINEAR)
    log_z, laws = closed_form(at)
    found = pplebm.log_z(program, given={"x": np.zeros((3, 3)), "label": np.arange(3)}, progress=False)
    assert (np.abs(found.value - log_z) < 5.0 * found.error).all() and (found.error < 0.1).all()
    joint = pplebm.log_evidence(program, DATA, progress=False)
    exact = np.array([laws[c].logpdf(x) for x, c in zip(DATA["x"], DATA["label"], strict=True)])
    assert (np.abs(joint.value - exact) < 5.0 * joint.error).all() and (joint.error < 0.2).all()
    by_bayes = np.array([[s * law.pdf(x) for s, law in zip(SHARES, laws, strict=True)] for x in X])
    by_bayes /= by_bayes.sum(1, keepdims=True)
    np.testing.assert_allclose(PAGE.class_probabilities(exact, SHARES), by_bayes, atol=1e-12)
    assert np.abs(PAGE.class_probabilities(joint.value, SHARES) - by_bayes).max() < 2.5 * joint.error.max()


def two_layers(ppl):
    """A program of two linear layers, and by class log Z and the laws of z = (z1, z2) and of x, normal all.

    Without labels z2 ~ N(0, I), z1 = W z2 + b + s e, so z ~ N(m, C); tilts a1·z1 + a2·z2 move its mean by C a.
    """
    program, at = program_of(ppl, LINEAR | {"latent_dims": (2, 1), "scale_floor": 0.3})
    at["conditional1.weight_0"][2:] = 0.0  # scales that are the same everywhere
    program = program.with_params({n: ppl.asarray(a) for n, a in at.items()})
    w, (b, s) = at["conditional1.weight_0"][:2], at["conditional1.bias_0"].reshape(2, 2)
    s = np.log1p(np.exp(s + 0.2)) + 0.3
    m = np.concatenate([b, [0.0]])
    c = np.block([[w @ w.T + np.diag(s**2), w], [w.T, np.eye(1)]])
    a = np.concatenate([at["tilt1.weight_0"], at["tilt2.weight_0"]], 1)
    log_z = a @ m + 0.5 * np.einsum("ki,ij,kj->k", a, c, a) + at["tilt1.bias_0"] + at["tilt2.bias_0"]
    g, means = at["decoder.weight_0"], m + a @ c
    laws = [multivariate_normal(g @ mean[:2] + at["decoder.bias_0"], g @ c[:2, :2] @ g.T + 0.49 * np.eye(3))
            for mean in means]  # fmt: skip
    return program, log_z, means, laws


def test_a_joint_prior_of_two_layers_has_a_constant_for_every_label(double):
    """Constants and evidence within 5 of their errors, means of draws given labels within 4.5."""
    program, log_z, means, laws = two_layers(double)
    assert np.ptp(log_z) > 0.5 and [s.name for s in program.latents] == ["z2", "z1"]
    given = {"x": np.zeros((3, 3)), "label": np.arange(3)}
    found = pplebm.log_z(program, given=given, progress=False)
    assert (np.abs(found.value - log_z) < 5.0 * found.error).all() and (found.error < 0.1).all()
    joint = pplebm.log_evidence(program, DATA, progress=False)
    exact = np.array([laws[c].logpdf(x) for x, c in zip(DATA["x"], DATA["label"], strict=True)])
    assert (np.abs(joint.value - exact) < 5.0 * joint.error).all() and (joint.error < 0.2).all()
    draws = pplebm.sample_prior(program, given=given, n_chains=200, n_draws=20, n_warmup=150, progress=False)
    by_chain = np.concatenate([draws["z1"], draws["z2"]], -1).mean(1)
    assert (np.abs(by_chain.mean(0) - means) < 4.5 * by_chain.std(0, ddof=1) / 200**0.5).all()


def test_evidence_under_bent_tilts_is_that_of_quadrature(double):
    program, _ = program_of(double, BENT)
    found = pplebm.log_evidence(program, DATA, progress=False)
    for row in range(len(DATA["label"])):
        exact = on_plane(program, row, True) - on_plane(program, row, False)
        assert abs(found.value[row] - exact) < 5.0 * found.error[row]


def test_the_prior_is_drawn_given_the_label(double):
    program, at = program_of(double, LINEAR)
    with pytest.raises(PplebmError, match="reads label"):
        pplebm.sample_prior(program, n_draws=2)
    given = {"x": np.zeros((3, 3)), "label": np.array([2, 0, 1])}
    draws = pplebm.sample_prior(program, given=given, n_chains=200, n_draws=20, n_warmup=150, progress=False)
    by_chain = draws["z1"].mean(1)
    error = by_chain.std(0, ddof=1) / 200**0.5
    assert (np.abs(by_chain.mean(0) - at["tilt1.weight_0"][[2, 0, 1]]) < 4.5 * error).all()


def test_learning_finds_where_every_class_lies(tmp_path):
    """Classes are normal with covariance I and different means, which linear tilts can have: W a_c + b.

    The means that are learned are those of the training data to 4.5 standard errors, and Bayes' rule tells the classes.
    """
    rng, n = np.random.default_rng(4), 750
    label = rng.integers(0, 3, n)
    centers = np.array([[2.0, 0.0], [-1.0, 1.5], [-1.0, -1.5]])
    x = centers[label] + rng.normal(size=(n, 2))
    hyper = LINEAR | {"sigma": 0.5, "batch_size": 150, "learning_rate": 0.03, "learning_rate_tilt": 0.03,
                      "tilt_penalty": 0.0}  # fmt: skip
    run = pplebm.fit("conditional_ebm", {"x": x, "label": label}, "variational_joint", tmp_path / "run", updates=400,
                     hyper=hyper, compiled=False, progress=False)  # fmt: skip
    at = {name: a.detach().numpy().astype(float) for name, a in run.params.items()}
    fitted = at["tilt1.weight_0"] @ at["decoder.weight_0"].T + at["decoder.bias_0"]
    assert np.abs(fitted - centers).max() < 4.5 / 200**0.5
    log_p = run.log_evidence(PAGE.with_every_label(centers + 0.1, 3), progress=False)
    assert PAGE.class_probabilities(log_p.value, np.full(3, 1 / 3)).argmax(1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_that_is_no_class_is_refused(ppl, label):
    """An index out of range would be clamped or counted from the end, and so be another class's tilt."""
    data = {"x": X, "label": np.array([0, 1, 2, label])}
    bound = pplebm.bind("conditional_ebm", ppl.name, shape={"x": (3,)}, **BENT)
    with pytest.raises(PplebmError, match="'f1' is not finite"):
        pplebm.Program(bound, data=data)
