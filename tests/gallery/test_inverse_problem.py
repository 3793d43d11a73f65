"""Inverse problems: posteriors in closed form, by quadrature and by simulation, for chains and for flows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

import pplebm
from pplebm.errors import PplebmError
from pplebm.gallery.hyper import override
from pplebm.kernels.langevin import langevin
from pplebm.learning.flow_draws import sample_flow
from pplebm.networks.operators import measured
from pplebm.ppl.language import load_backend

PAGE = pplebm.load("inverse_problem")
LINEAR = {"depth": 0, "latent_dim": 3, "image": (4, 4), "tilt_bound": 1e7, "sigma": 0.5}  # f is a·z + c
BENT = {"depth": 1, "latent_dim": 3, "image": (4, 4), "width": 6, "tilt_width": 5, "sigma": 0.3}
OPERATORS = ("mask", "blur", "downsample", "projection", "heat")


def program_of(ppl, hyper, scale=0.8):
    """A program at parameters far from where they begin, its hyperparameters, and these parameters."""
    values = override(PAGE.Hyper(), hyper, "page")
    m = PAGE.instrument(values).n_measured
    program = pplebm.Program(pplebm.bind(PAGE, ppl.name, shape={"y": (m,)}, **hyper), data={"y": np.zeros((2, m))})
    rng = np.random.default_rng(1)
    moved = {k: ppl.to_numpy(p) + scale * rng.normal(size=tuple(p.shape)) for k, p in sorted(program.params.items())}
    return program.with_params({k: ppl.asarray(a) for k, a in moved.items()}), values, moved


def data_of(program, n=3, seed=0):
    """n of y from the tilted prior, and the x that they are of."""
    prior = pplebm.sample_prior(program, n_chains=n, n_draws=1, n_warmup=200, seed=seed, progress=False)
    found = pplebm.predictive(prior, seed=seed)
    return found["y"][:, 0], found["x"][:, 0]


def closed_form(hyper, at, y):
    """Mean (B, d) and covariance of z given y, and log p(y) + log Z."""
    a = PAGE.instrument(hyper).real
    jacobian, offset = a @ at["decoder.weight_0"], a @ at["decoder.bias_0"]
    tilt = at["tilt.weight_0"][0]
    precision = np.eye(len(tilt)) + jacobian.T @ jacobian / hyper.sigma**2
    covariance = np.linalg.inv(precision)
    mean = (tilt + (y - offset) @ jacobian / hyper.sigma**2) @ covariance
    law = multivariate_normal(offset + jacobian @ tilt, jacobian @ jacobian.T + hyper.sigma**2 * np.eye(len(a)))
    return mean, covariance, law.logpdf(y) + 0.5 * tilt @ tilt + at["tilt.bias_0"][0]


def check_moments(z, mean, covariance, error):
    """Means and second moments of draws (chains, draws, data, d) within 4.5 standard errors over chains."""
    for found, exact in (
        (z, mean),
        ((z[..., :, None] - mean[:, :, None]) * (z[..., None, :] - mean[:, None, :]), covariance),
    ):
        by_chain = found.mean(1)
        se = by_chain.std(0, ddof=1) / len(by_chain) ** 0.5
        assert se.max() < error and (np.abs(by_chain.mean(0) - exact) < 4.5 * se).all()


@pytest.mark.parametrize("operator", OPERATORS)
def test_chains_and_flow_have_the_posterior_of_the_closed_form(operator):
    """Of a linear generator under a linear tilt. The bound of the flow is log p(y) + log Z, to 0.05 nats.

    Its weighted draws have the moments, and the mean weight is the evidence.
    """
    program, hyper, at = program_of(load_backend("pyro"), LINEAR | {"operator": operator, "spread": 2.0})
    y, _ = data_of(program)
    mean, covariance, log_p = closed_form(hyper, at, y)
    draws = pplebm.sample(program, data={"y": y}, n_chains=100, n_draws=60, n_warmup=200, progress=False)
    check_moments(draws["z1"], mean, covariance, 0.05)
    np.testing.assert_allclose(draws["x"].reshape(*draws["z1"].shape[:3], -1),
                               draws["z1"] @ at["decoder.weight_0"].T + at["decoder.bias_0"], atol=1e-4)  # fmt: skip
    flow = sample_flow(program, {"y": y}, n_draws=2000, n_updates=600, n_particles=16)
    bound = flow.log_weights[0].mean(0)
    assert (bound < log_p + 4.5 * flow.log_weights[0].std(0) / 2000**0.5).all() and (log_p - bound < 0.05).all()
    weight, z = np.exp(flow.log_weights[0] - log_p), flow.values["z1"][0]
    for values in (np.ones((2000, 3, 1)), z - mean, z**2 - mean**2 - np.diag(covariance)):
        terms = weight[..., None] * values
        exact = 1.0 if values.shape[-1] == 1 else 0.0
        assert (np.abs(terms.mean(0) - exact) < 4.5 * terms.std(0) / 2000**0.5).all() and flow.ess.min() > 1500


def test_both_backends_have_the_density_of_the_equation(ppl):
    program, hyper, at = program_of(ppl, LINEAR | {"operator": "phase"})
    rng = np.random.default_rng(2)
    y, z = rng.normal(size=(3, PAGE.instrument(hyper).n_measured)), rng.normal(size=(3, 3))
    x = z @ at["decoder.weight_0"].T + at["decoder.bias_0"]
    exact = norm.logpdf(z).sum(1) + z @ at["tilt.weight_0"][0] + at["tilt.bias_0"][0]
    exact += norm.logpdf(y, measured(PAGE.instrument(hyper), x), hyper.sigma).sum(1)
    got = program.log_joint(program.params, {"z1": ppl.asarray(z)}, program.data({"y": y}))
    np.testing.assert_allclose(ppl.to_numpy(got), exact, rtol=2e-5)


def test_plain_langevin_in_noise_space_is_wide_by_its_steps():
    """Its covariance is Λ⁻¹ (I - s²Λ/4)⁻¹ where the posterior's is Λ⁻¹: a bias that accepting and rejecting removes."""
    program, hyper, at = program_of(load_backend("pyro"), LINEAR | {"operator": "blur", "sigma": 1.0}, scale=0.3)
    y, _ = data_of(program)
    mean, covariance, _ = closed_form(hyper, at, y)
    steps = 1.0 / np.linalg.eigvalsh(np.linalg.inv(covariance)).max() ** 0.5
    wide = np.linalg.inv(np.linalg.inv(covariance) @ (np.eye(3) - 0.25 * steps**2 * np.linalg.inv(covariance)))
    draws = pplebm.sample(program, langevin(steps), {"y": y}, n_chains=300, n_draws=60, n_warmup=150, thin=2,
                          progress=False)  # fmt: skip
    check_moments(draws["z1"], mean, wide, 0.05)
    assert np.linalg.norm(wide - covariance) > 0.1 * np.linalg.norm(covariance)


# --- phase retrieval: two modes

SIDE = np.linspace(-7.0, 7.0, 701)
PLANE = np.stack([a.ravel() for a in np.meshgrid(SIDE, SIDE, indexing="ij")], 1)
PHASE = {"operator": "phase", "image": (3,), "latent_dim": 2, "depth": 0, "tilt_bound": 1e7}


def on_plane(program, y):
    """Normalised masses on a plane of points, and log p(y) + log Z."""
    ppl, n = program.ppl, len(PLANE)
    data = program.data({"y": np.repeat(y, n, 0)})
    log_p = ppl.to_numpy(program.log_joint(program.params, {"z1": ppl.asarray(PLANE)}, data)).astype(float)
    total = logsumexp(log_p)
    return np.exp(log_p - total), total + 2.0 * np.log(SIDE[1] - SIDE[0])


def phase_problem(sigma):
    """A program with uneven modes, and a y: which side of a line between its modes a z is on."""
    ppl = load_backend("pyro")
    program, hyper, _ = program_of(ppl, PHASE | {"sigma": sigma})
    at = {"decoder.weight_0": [[1.0, 0.2], [0.3, 1.0], [-0.5, 0.7]], "decoder.bias_0": [0.1, 0.05, -0.1],
          "tilt.weight_0": [[0.15, 0.1]], "tilt.bias_0": [0.3]}  # fmt: skip
    program = program.with_params({k: ppl.asarray(np.array(a)) for k, a in at.items()})
    x = np.array([[1.2, 0.8]]) @ np.array(at["decoder.weight_0"]).T + at["decoder.bias_0"]
    return program, measured(PAGE.instrument(hyper), x)


def test_chains_find_both_modes_of_phase_retrieval_at_their_masses():
    program, y = phase_problem(1.0)
    mass, _ = on_plane(program, y)
    draws = pplebm.sample(program, data={"y": y}, n_chains=300, n_draws=100, n_warmup=400, thin=3, progress=False)
    z = draws["z1"][:, :, 0]
    for function in (lambda z: z.sum(-1) > 0.0, lambda z: z[..., 0], lambda z: z[..., 0] * z[..., 1]):
        by_chain, exact = function(z).mean(1), (mass * function(PLANE)).sum()
        error = by_chain.std(ddof=1) / 300**0.5
        assert error < 0.04 and abs(by_chain.mean() - exact) < 4.5 * error
    share = mass[PLANE.sum(-1) > 0.0].sum()
    assert 0.55 < share < 0.9, "modes of different mass"


def test_a_flow_finds_one_mode_and_its_weights_lack_the_mass_of_the_others():
    """Their mean is p(y) times the mass around that mode, and the bound is lower still: what `sample_flow` warns of."""
    program, y = phase_problem(0.1)
    mass, log_p = on_plane(program, y)
    flow = sample_flow(program, {"y": y}, n_draws=4000, n_updates=800, n_particles=16)
    z, weight = flow.values["z1"][0, :, 0], np.exp(flow.log_weights[0, :, 0] - log_p)
    share = mass[(np.abs(PLANE - z.mean(0)) < 7.0 * z.std(0)).all(-1)].sum()
    error = weight.std() / 4000**0.5
    assert (z.std(0) < 0.3).all() and 0.05 < share < 0.7 and error < 0.01
    assert abs(weight.mean() - share) < 4.5 * error + 0.02 * share  # points of the plane are 0.02 apart
    assert flow.log_weights[0].mean() < log_p + np.log(share) + 0.02


# --- against simulation, and one against the other


def covered(program, y, x, seed=0):
    """Share of the numbers of each x inside 90 % intervals of the posterior given its y."""
    draws = pplebm.sample(program, data={"y": y}, n_chains=6, n_draws=60, n_warmup=300, thin=4, seed=seed,
                          progress=False)["x"]  # fmt: skip
    low, high = np.quantile(draws.reshape(-1, *x.shape), (0.05, 0.95), axis=0)
    return ((x > low) & (x < high)).reshape(len(x), -1).mean(1)


def test_intervals_cover_the_truth():
    """Nine times in ten over images of the tilted prior; not if the noise is thought to be a third of what it is."""
    ppl = load_backend("pyro")
    program, _, _ = program_of(ppl, BENT | {"operator": "mask"})
    y, x = data_of(program, n=120, seed=4)
    share = covered(program, y, x)
    assert abs(share.mean() - 0.9) < 4.5 * share.std() / len(share) ** 0.5 and share.std() / len(share) ** 0.5 < 0.02
    wrong, _, _ = program_of(ppl, BENT | {"operator": "mask", "sigma": 0.1})
    assert covered(wrong.with_params(program.params), y, x).mean() < 0.8


def test_weighted_draws_of_flows_agree_with_chains():
    """Of a bent generator under a bent tilt, within their errors."""
    program, _, _ = program_of(load_backend("pyro"), BENT | {"operator": "projection"})
    y, _ = data_of(program, seed=1)
    draws = pplebm.sample(program, data={"y": y}, n_chains=100, n_draws=60, n_warmup=300, progress=False)["z1"]
    flow = sample_flow(program, {"y": y}, n_draws=4000, n_updates=800)
    assert flow.k_hat.max() < 0.7
    weight = np.exp(flow.log_weights[0] - logsumexp(flow.log_weights[0], axis=0))[..., None]
    for power in (1, 2):
        by_chain, values = (draws**power).mean(1), flow.values["z1"][0] ** power
        mean = (weight * values).sum(0)
        error = by_chain.var(0, ddof=1) / 100 + (weight**2 * (values - mean) ** 2).sum(0)
        assert (np.abs(by_chain.mean(0) - mean) < 4.5 * error**0.5).all() and error.max() ** 0.5 < 0.1


def test_parameters_of_latent_ebm_fit(ppl):
    """With the identity for an operator the two pages are one model."""
    program, hyper, _ = program_of(ppl, BENT | {"operator": "identity"})
    own = {k: v for k, v in BENT.items() if k != "image"}
    other = pplebm.Program(pplebm.bind("latent_ebm", ppl.name, shape=hyper.image, **own))
    rng = np.random.default_rng(3)
    x, z = rng.normal(size=(3, 4, 4)), {"z1": ppl.asarray(rng.normal(size=(3, 3)))}
    got = program.log_joint(program.params, z, program.data({"y": x.reshape(3, -1)}))
    np.testing.assert_allclose(
        ppl.to_numpy(got), ppl.to_numpy(other.log_joint(program.params, z, other.data(x))), rtol=1e-5
    )


def test_few_draws_of_a_flow_are_refused(ppl):
    program, _, _ = program_of(ppl, BENT)
    with pytest.raises(PplebmError, match="from 100 on"):
        sample_flow(program, {"y": np.zeros((1, 8))}, n_draws=10)
