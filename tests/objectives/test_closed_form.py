"""The conjugate model: densities, log Z and the two-phase gradient against closed forms and quadrature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from linear_gaussian import CASES, as_numpy, exact_gradient, instance, log_evidence, sigma_points, split
from scipy import integrate
from scipy.stats import multivariate_normal

from pplebm.objectives.contrast import contrast

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("case", CASES)
def test_prior_posterior_and_log_z(case):
    page, program, hyper, params, x = instance(*case)
    values, rng = as_numpy(params), np.random.default_rng(0)
    u = rng.normal(size=(5, hyper.d1 + hyper.d2))
    prior = page.closed_form(values, hyper)
    got = program.log_prior(params, split(u, hyper.d1)).numpy() - prior.log_constant
    np.testing.assert_allclose(
        got, np.atleast_1d(multivariate_normal(prior.mean, prior.covariance).logpdf(u)), atol=1e-9
    )
    for datum in x:
        posterior = page.closed_form(values, hyper, datum)
        data = torch.as_tensor(np.repeat(datum[None], 5, 0))
        got = program.log_joint(params, split(u, hyper.d1), data).numpy() - posterior.log_constant
        expected = multivariate_normal(posterior.mean, posterior.covariance).logpdf(u)
        np.testing.assert_allclose(got, np.atleast_1d(expected), atol=1e-9)


def test_log_z_and_evidence_equal_quadrature():
    page, program, hyper, params, x = instance(1, 1, 1, 0)
    values = as_numpy(params)

    def integral(log_density):
        grid = np.linspace(-12, 12, 801)
        u = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
        density = np.exp(log_density(split(u, 1)).numpy()).reshape(801, 801)
        return np.log(integrate.simpson(integrate.simpson(density, x=grid), x=grid))

    log_z = integral(lambda z: program.log_prior(params, z))
    joint = integral(lambda z: program.log_joint(params, z, torch.as_tensor(np.full((801**2, 1), x[0, 0]))))
    assert log_z == pytest.approx(page.closed_form(values, hyper).log_constant, abs=1e-8)
    assert joint - log_z == pytest.approx(log_evidence(page, values, hyper, x[0]), abs=1e-8)


def two_phase_gradient(case, coordinates, drop=()):
    """Gradient of the objective at exact samples of both phases; `drop` names parameters denied a negative phase."""
    page, program, hyper, params, x = instance(*case)
    values, moving = as_numpy(params), program.with_coordinates(coordinates)
    prior = sigma_points(page.closed_form(values, hyper))
    posterior = [sigma_points(page.closed_form(values, hyper, datum)) for datum in x]
    positive = program.move(params, split(np.concatenate(posterior), hyper.d1), coordinates)
    negative = program.move(params, split(prior, hyper.d1), coordinates)
    data = torch.as_tensor(np.repeat(x, len(posterior[0]), axis=0))

    def gradient(negative):
        _, g = program.ppl.value_and_grad(lambda p: contrast(moving, p, data, positive, negative)[0], params)
        return {n: -v.numpy() for n, v in g.items()}

    both, only_positive = gradient(negative), gradient(None)
    got = {n: only_positive[n] if n in drop else g for n, g in both.items()}
    return got, exact_gradient(page, hyper, values, x)


@pytest.mark.parametrize("coordinates", ["centered", "noncentered"])
@pytest.mark.parametrize("case", CASES)
def test_two_phase_gradient_is_the_gradient_of_log_evidence(case, coordinates):
    got, exact = two_phase_gradient(case, coordinates)
    assert set(got) == set(exact)
    for name in exact:
        np.testing.assert_allclose(got[name], exact[name], atol=2e-6, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("dropped", ["A", "b", "log_s", "Q1", "c2"])
def test_without_the_negative_phase_the_gradient_is_wrong(dropped):
    """The mutation that published ports make: the inter-layer conditional gets a positive phase only."""
    got, exact = two_phase_gradient(CASES[2], "centered", drop=(dropped,))
    assert np.abs(got[dropped] - exact[dropped]).max() > 0.05


def test_likelihood_parameters_have_no_negative_phase():
    _, program, _, _, _ = instance(*CASES[2])
    assert program.prior_params == {"A", "b", "log_s", "Q1", "Q2", "c1", "c2"}
    assert program.tilt_params == {"Q1", "Q2", "c1", "c2"}


def test_a_constant_added_to_the_tilt_changes_no_gradient(float64):
    import pyro
    import pyro.distributions as dist

    import pplebm

    def gradient(constant):
        def model(x):
            a = pyro.param("a", torch.tensor(0.7))
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(a, 1.0))
                pplebm.tilt("f", a * z + constant)
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        x = torch.linspace(-1, 1, 6)
        program = pplebm.Program(model, data=x)
        z = {"z": torch.linspace(0, 2, 6)}
        negative = {"z": torch.linspace(-1, 3, 6)}
        return program.ppl.value_and_grad(lambda p: contrast(program, p, x, z, negative)[0], program.params)[1]["a"]

    assert gradient(0.0).item() == pytest.approx(gradient(5.0).item(), abs=1e-12)
