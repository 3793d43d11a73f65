"""Pages beside the tilts: their priors are normalised, and what they say."""

from __future__ import annotations

import contextlib
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp, softmax
from scipy.stats import bernoulli, multivariate_normal, norm

import pplebm
from pplebm.errors import PplebmError
from pplebm.gallery.pages import bind_guide
from pplebm.guides.guide import Guide
from pplebm.learning.algorithm import Algorithm
from pplebm.networks.flows import Coupling, log_det, through
from pplebm.networks.likelihoods import Likelihood
from pplebm.ppl.trees import take_rows
from pplebm.runs.opening import with_guide

SMALL = {
    "mixture_prior": {"latent_dim": 2, "n_components": 3, "width": 5, "depth": 1},
    "vamp_prior": {"latent_dim": 2, "n_components": 3, "width": 5, "depth": 1},
    "flow_prior": {"latent_dim": 2, "n_layers": 3, "flow_width": 5, "width": 5, "depth": 1},
}
MORE = {"flow_prior": {"flow_width": 32, "n_layers": 4}}
SIDE = 401
LINE = np.linspace(-9.0, 9.0, SIDE)
PLANE = np.stack([a.ravel() for a in np.meshgrid(LINE, LINE, indexing="ij")], 1)
CELL = (LINE[1] - LINE[0]) ** 2


@pytest.fixture
def double(ppl, float64):
    """Double precision on the backend under test."""
    import jax

    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        yield ppl


def program_of(ppl, name, **changes):
    """A small program with a guide of the page, if it has one, at parameters far from where they begin."""
    page, hyper = pplebm.load(name), SMALL[name] | changes
    program = pplebm.Program(pplebm.bind(page, ppl.name, shape=(3,), **hyper))
    program = with_guide(program, bind_guide(page, ppl.name, (3,), 0, hyper))
    rng = np.random.default_rng(1)
    moved = {n: ppl.to_numpy(p) + 0.4 * rng.normal(size=tuple(p.shape)) for n, p in program.params.items()}
    return program.with_params({n: ppl.asarray(a) for n, a in moved.items()}), moved


def prior_at(program, z):
    """Density of the prior at rows z."""
    ppl = program.ppl
    return np.exp(ppl.to_numpy(program.log_prior(program.params, {"z1": ppl.asarray(z)})))


@pytest.mark.parametrize("name", SMALL)
def test_the_prior_is_normalised_and_is_the_law_of_its_draws(double, name):
    """By a plane of points; draws within 4.5 standard errors of their own, of the mean, and of a skewed function."""
    program, _ = program_of(double, name)
    density = prior_at(program, PLANE)
    assert density.sum() * CELL == pytest.approx(1.0, abs=1e-6)
    z = double.to_numpy(program.draw_base(double.key(0), 20_000)["z1"])
    for function in (lambda z: z[:, 0], lambda z: z[:, 1], lambda z: np.tanh(z[:, 0] + 0.5) * z[:, 1] ** 2):
        values, exact = function(z), (function(PLANE) * density).sum() * CELL
        assert abs(values.mean() - exact) < 4.5 * values.std() / len(z) ** 0.5


def test_the_mixture_is_that_of_its_equation(double):
    program, at = program_of(double, "mixture_prior")
    z = np.random.default_rng(2).normal(size=(7, 2))
    scales = np.logaddexp(0.0, at["scales"]) + 0.05
    parts = norm.logpdf(z[:, None], at["means"], scales).sum(-1) + np.log(softmax(at["logits"]))
    np.testing.assert_allclose(prior_at(program, z), np.exp(logsumexp(parts, 1)), rtol=1e-8)


def test_the_evidence_of_a_mixture_with_a_matrix_is_a_mixture_of_normals(double):
    """log p(x) by a plane of points of the joint density, and in closed form: Σ wₖ N(x; A mₖ + b, A Sₖ A' + σ² I)."""
    program, at = program_of(double, "mixture_prior", depth=0, sigma=0.8)
    x = np.array([[0.5, -1.0, 2.0], [-2.0, 0.0, 0.3]])
    a, b, scales = at["decoder.weight_0"], at["decoder.bias_0"], np.logaddexp(0.0, at["scales"]) + 0.05
    laws = [multivariate_normal(a @ m + b, a @ np.diag(s**2) @ a.T + 0.64 * np.eye(3))
            for m, s in zip(at["means"], scales, strict=True)]  # fmt: skip
    exact = logsumexp([law.logpdf(x) for law in laws], axis=0, b=softmax(at["logits"])[:, None])
    for row, value in zip(x, exact, strict=True):
        rows = np.broadcast_to(row, (len(PLANE), 3)).copy()
        joint = program.log_joint(program.params, {"z1": double.asarray(PLANE)}, double.asarray(rows))
        assert logsumexp(double.to_numpy(joint)) + np.log(CELL) == pytest.approx(value, abs=1e-6)


def test_the_vamp_prior_is_the_mean_of_its_guide_at_pseudo_inputs(double):
    """Both by the same numbers, wherever these have gone."""
    program, at = program_of(double, "vamp_prior")
    z = np.random.default_rng(2).normal(size=(7, 2))
    pseudo_inputs = at["pseudo_inputs.weight_0"].T + at["pseudo_inputs.bias_0"]
    assert not program.guide.params
    parts = []
    for u in pseudo_inputs:
        rows = double.asarray(np.broadcast_to(u, (7, 3)).copy())
        log_q = program.guide.log_density(program.params, {"z1": double.asarray(z)}, rows)
        parts.append(double.to_numpy(log_q))
    np.testing.assert_allclose(prior_at(program, z), np.exp(parts).mean(0), rtol=1e-8)


@pytest.mark.parametrize("kind", get_args(Likelihood))
@pytest.mark.parametrize("name", SMALL)
def test_data_given_latents_have_the_law_that_is_asked_for(double, name, kind):
    """log p(x|z), by SciPy, of a decoder that is a matrix; no datum is another's."""
    program, at = program_of(double, name, depth=0, likelihood=kind, sigma=0.8)
    rng = np.random.default_rng(3)
    z, x = rng.normal(size=(9, 2)), (rng.random((9, 3)) < 0.3).astype(float)
    g = z @ at["decoder.weight_0"].T + at["decoder.bias_0"]
    exact = bernoulli.logpmf(x, expit(g)) if kind == "bernoulli" else norm.logpdf(x, g, 0.8)
    latents = {"z1": double.asarray(z)}
    joint = program.log_joint(program.params, latents, double.asarray(x))
    prior = program.log_prior(program.params, latents)
    np.testing.assert_allclose(double.to_numpy(joint) - double.to_numpy(prior), exact.sum(1), rtol=1e-8)


def test_coupling_layers_lead_back_and_know_their_jacobian():
    """Five coordinates and three layers, by NumPy; the Jacobian by central differences."""
    rng, flow = np.random.default_rng(5), Coupling(size=5, width=7, depth=1, n_layers=3)
    weights = [[rng.normal(size=shape) for shape in ((5, 7), (7,), (7, 10), (10,))] for _ in range(3)]
    nets = [lambda a, w=w: np.tanh(a @ w[0] + w[1]) @ w[2] + w[3] for w in weights]
    steps, u = list(zip(nets, flow.kept(), strict=True)), rng.normal(size=5)
    z, h = through(steps, np.exp, u), 1e-6 * np.eye(5)
    jacobian = (through(steps, np.exp, u + h) - through(steps, np.exp, u - h)) / 2e-6
    assert (abs(z - u) > 0.01).all()
    np.testing.assert_allclose(through(steps, np.exp, z, backwards=True), u, atol=1e-10)
    assert log_det(steps, np.exp, u) == pytest.approx(np.linalg.slogdet(jacobian)[1], abs=1e-6)
    with pytest.raises(PplebmError, match="two numbers or more, got 1"):
        flow._replace(size=1).nets()


@pytest.mark.parametrize("name", SMALL)
def test_the_variational_page_learns_by_the_plain_bound(double, name):
    """The loss is -E_q[log p(x, z) - log q(z|x)], and its slope along any direction that of the loss itself."""
    program, _ = program_of(double, name)
    owner = Algorithm(pplebm.load("variational_joint"), program)
    x = double.asarray(np.random.default_rng(3).normal(size=(6, 3)))
    params = program.params | owner.guide.params
    noise = owner.guide.noise(double.key(1), 6)
    loss = lambda p: owner.page.loss(owner, double.key(0), p, x, noise, None)[0]
    value, slope = double.value_and_grad(loss, params)
    z, log_q = owner.guide.at(params, noise, x)
    assert float(value) == pytest.approx(-float((program.log_joint(params, z, x) - log_q).mean()), rel=1e-10)
    rng = np.random.default_rng(4)
    groups = [["encoder.weight_1"], ["pseudo_inputs.weight_0"]] if name == "vamp_prior" else [list(program.params)]
    for names in groups:
        along = {n: double.asarray(rng.normal(size=tuple(params[n].shape))) for n in names}
        at = lambda h, along=along: float(loss(params | {n: params[n] + h * v for n, v in along.items()}))
        expected = sum(float((slope[n] * v).sum()) for n, v in along.items())
        assert (at(1e-5) - at(-1e-5)) / 2e-5 == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_a_run_of_the_vamp_prior_has_one_encoder(ppl, tmp_path):
    x, hyper = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32), SMALL["vamp_prior"] | {"batch_size": 8}
    run = pplebm.fit("vamp_prior", x, "variational_joint", tmp_path / "run", updates=3, hyper=hyper,
                     backend=ppl.name, progress=False)  # fmt: skip
    assert not [name for name in run.params if name.startswith("guide.")]
    again, program, plane = pplebm.open_run(run.path), run.program, {"z1": ppl.asarray(PLANE)}
    np.testing.assert_array_equal(again.posterior_latents(x[:4])["z1"], run.posterior_latents(x[:4])["z1"])
    found, rows = again.log_evidence(x[:4]), again.data(x[:4])
    for i in range(4):
        copies = take_rows(rows, np.full(len(PLANE), i))
        joint = ppl.to_numpy(program.log_joint(run.params, plane, program.data(copies))).astype(float)
        assert abs(logsumexp(joint) + np.log(CELL) - found.value[i]) < 4.5 * found.error[i] + 1e-4


def test_parameters_are_shared_only_where_it_is_asked_for(ppl):
    """Parameters of one name are two, or one that learns from both; others are the guide's own."""

    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(ppl.param("a", 1.0), 1.0))
            ppl.sample("x", ppl.dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with ppl.plate("data", len(x)):
            ppl.sample("z", ppl.dist.Normal(ppl.param("a", 1.0) + ppl.param("b", 0.0), 1.0))

    x = ppl.asarray(np.zeros(3))
    program = pplebm.Program(model, data=x, backend=ppl.name)
    apart, shared = Guide(program, guide), Guide(program, guide, shares=True)
    assert set(apart.params) == {"guide.a", "guide.b"} and set(shared.params) == {"guide.b"}
    at = {"a": ppl.asarray(np.array(2.0)), "guide.b": ppl.asarray(np.array(0.5))}
    z = {"z": ppl.asarray(np.array([0.0, 1.0, 4.0]))}
    expected = norm.logpdf([0.0, 1.0, 4.0], 2.5)
    np.testing.assert_allclose(ppl.to_numpy(shared.log_density(at, z, x)), expected, rtol=1e-5)
    at["guide.a"] = ppl.asarray(np.array(-1.0))
    expected = norm.logpdf([0.0, 1.0, 4.0], -0.5)
    np.testing.assert_allclose(ppl.to_numpy(apart.log_density(at, z, x)), expected, rtol=1e-5)


def test_a_latent_that_is_a_mixture_has_the_coordinates_of_its_components(double):
    """Two log-normal laws: log p(u) = log Σ wₖ LogNormal(e^u) + u, a sum of normal laws of u."""
    ppl = double

    def model(x):
        with ppl.plate("data", len(x)):
            parts = ppl.dist.LogNormal(ppl.asarray(np.array([-1.0, 2.0])), ppl.asarray(np.array([0.5, 0.7])))
            labels = ppl.dist.Categorical(logits=ppl.asarray(np.log([0.3, 0.7])))
            scale = ppl.sample("scale", ppl.dist.MixtureSameFamily(labels, parts))
            ppl.sample("x", ppl.dist.Normal(0.0, scale), obs=x)

    program = pplebm.Program(model, data=ppl.asarray(np.ones(3)), backend=ppl.name)
    u = np.array([-1.5, 0.0, 2.5])
    found = ppl.to_numpy(program.log_prior(program.params, {"scale": ppl.asarray(u)}))
    exact = np.log(0.3 * norm.pdf(u, -1.0, 0.5) + 0.7 * norm.pdf(u, 2.0, 0.7))
    assert program.latents[0].support == "positive"
    np.testing.assert_allclose(found, exact, rtol=1e-8)


@pytest.mark.parametrize("name", SMALL)
def test_what_is_learned_comes_nearer_to_a_skewed_truth_than_any_normal_law(name, tmp_path):
    """With a matrix for a decoder and N(0, I) the model is normal; log p(x) by a plane of points, and in closed form.

    Of the mean over held-out data, more than half of the way from the best normal law to the truth.
    """
    hyper = SMALL[name] | {"depth": 0, "sigma": 0.5, "batch_size": 64, "learning_rate": 0.02} | MORE.get(name, {})
    laws = [multivariate_normal([2.0, 0.0], 0.5), multivariate_normal([-2.0, 1.5], np.diag([0.4, 1.5]))]
    rng, n = np.random.default_rng(6), 1200
    label = rng.random(n) < 0.8
    x = np.where(label[:, None], *(law.rvs(n, random_state=rng) for law in laws)).astype(np.float32)
    run = pplebm.fit(name, x[:1000], "variational_joint", tmp_path / "run", updates=400, hyper=hyper, scaling="none",
                     compiled=False, progress=False)  # fmt: skip
    line = np.linspace(-9.0, 9.0, 161)
    plane = {"z1": torch.tensor(np.stack([a.ravel() for a in np.meshgrid(line, line)], 1), dtype=torch.float32)}
    prior, mean = run.program.log_prior(run.params, plane).numpy(), run.program.predict(run.params, plane)["x"].numpy()
    found = np.array([logsumexp(prior + norm.logpdf(row, mean, 0.5).sum(1)) for row in x[1000:]])
    found += 2.0 * np.log(line[1] - line[0])
    truth = logsumexp([law.logpdf(x[1000:]) for law in laws], axis=0, b=np.array([[0.8], [0.2]]))
    normal = multivariate_normal(x.mean(0), np.cov(x.T)).logpdf(x[1000:])
    lost = truth - found
    assert -3.0 * lost.std() / len(lost) ** 0.5 < lost.mean() < 0.5 * (truth - normal).mean()
