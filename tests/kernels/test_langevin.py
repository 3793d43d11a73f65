"""The Langevin kernel against the closed-form law of the *unadjusted* chain, not only of its target."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from linear_gaussian import as_numpy, instance
from scipy import stats
from scipy.linalg import solve_discrete_lyapunov

from pplebm.errors import PplebmError
from pplebm.kernels.langevin import from_h, from_tau, init, langevin
from pplebm.ppl.language import load_backend
from pplebm.sampling import chains

pytestmark = pytest.mark.usefixtures("float64")
N = 5_000  # chains; all tolerances below follow from it
LAMBDA = np.array([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]])
MEAN = np.array([1.0, -2.0, 0.5])


@pytest.fixture
def ppl():
    """Chains in torch; the same kernel in JAX is compared with it in test_parity."""
    return load_backend("pyro")


def gaussian_target(z):
    centered = torch.cat([z["a"], z["b"]], -1) - torch.as_tensor(MEAN)
    return -0.5 * ((centered @ torch.as_tensor(LAMBDA)) * centered).sum(-1)


def sample(ppl, log_density, start, n_steps, seed=0, **settings):
    kernel = langevin(**settings)
    state, info = chains.run(ppl, ppl.key(seed), init(ppl, start), log_density, kernel, n_steps)
    return state, info


def draws(state):
    return np.concatenate([v.reshape(len(v), -1).numpy() for v in state.z.values()], axis=1)


def assert_moments(samples, mean, covariance, sigmas=5.0):
    """Mean and covariance within `sigmas` of their own Monte Carlo errors (Gaussian draws)."""
    n, c = len(samples), np.asarray(covariance)
    error = np.sqrt(np.diag(c) / n)
    np.testing.assert_array_less(np.abs(samples.mean(0) - mean), sigmas * error)
    spread = np.sqrt((np.outer(np.diag(c), np.diag(c)) + c**2) / n)
    np.testing.assert_array_less(np.abs(np.cov(samples.T) - c), sigmas * spread)


def start_at_standard_normal(ppl):
    return ppl.normal_like(99, {"a": torch.zeros(N, 1), "b": torch.zeros(N, 2)})


def law_after(n_steps, s, temperature=1.0):
    """Mean and covariance after n steps of size s (scalar or per coordinate) from N(0, I)."""
    size = np.broadcast_to(s, 3)
    drift = np.eye(3) - 0.5 * np.diag(size**2) @ LAMBDA
    mean, covariance = np.zeros(3), np.eye(3)
    for _ in range(n_steps):
        mean = drift @ mean + 0.5 * size**2 * (LAMBDA @ MEAN)
        covariance = drift @ covariance @ drift.T + temperature * np.diag(size**2)
    return mean, covariance


@pytest.mark.parametrize("n_steps", [1, 5, 25])
@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_law_after_k_steps(ppl, n_steps, temperature):
    state, _ = sample(
        ppl, gaussian_target, start_at_standard_normal(ppl), n_steps, step_size=0.7, temperature=temperature
    )
    assert_moments(draws(state), *law_after(n_steps, 0.7, temperature))


def test_step_sizes_by_site_and_by_step(ppl):
    sizes = {"a": [0.9, 0.5, 0.2], "b": 0.4}
    state, _ = sample(ppl, gaussian_target, start_at_standard_normal(ppl), 3, step_size=sizes)
    mean, covariance = np.zeros(3), np.eye(3)
    for t in range(3):
        size = np.array([sizes["a"][t], 0.4, 0.4])
        drift = np.eye(3) - 0.5 * np.diag(size**2) @ LAMBDA
        mean = drift @ mean + 0.5 * size**2 * (LAMBDA @ MEAN)
        covariance = drift @ covariance @ drift.T + np.diag(size**2)
    assert_moments(draws(state), mean, covariance)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_stationary_covariance_solves_the_lyapunov_equation(ppl, temperature):
    s = 1.0
    state, _ = sample(ppl, gaussian_target, start_at_standard_normal(ppl), 60, step_size=s, temperature=temperature)
    drift = np.eye(3) - 0.5 * s**2 * LAMBDA
    stationary = solve_discrete_lyapunov(drift, temperature * s**2 * np.eye(3))
    assert_moments(draws(state), MEAN, stationary)
    exact = temperature * np.linalg.inv(LAMBDA)
    assert np.abs(stationary - exact).max() > 0.05  # the bias is there, and larger than the error of the test


def unadjusted_stationary(grid, gradient, s):
    """Stationary law of the unadjusted chain on a grid, by iterating its transition kernel."""
    kernel = stats.norm.pdf(grid[None, :], grid[:, None] + 0.5 * s**2 * gradient(grid)[:, None], s)
    kernel /= kernel.sum(1, keepdims=True)
    law = np.full(len(grid), 1.0 / len(grid))
    for _ in range(4000):
        law = law @ kernel
    return law


def test_asymmetric_target_against_quadrature(ppl):
    """log p = -(z + e^{-z}): the Gumbel law, whose skewness shows a reversed sign anywhere."""
    s, grid = 0.5, np.linspace(-4, 16, 1500)
    law = unadjusted_stationary(grid, lambda z: -1 + np.exp(-z), s)
    start = {"z": torch.full((N, 1), 0.5)}
    state, _ = sample(ppl, lambda z: -(z["z"] + torch.exp(-z["z"])).sum(-1), start, 80, step_size=s)
    got = state.z["z"].numpy().ravel()
    for power in (1, 2, 3):
        expected = (law * grid**power).sum()
        error = np.sqrt((law * grid ** (2 * power)).sum() - expected**2) / np.sqrt(N)
        assert abs((got**power).mean() - expected) < 5 * error, power
    exact = np.exp(-grid - np.exp(-grid)) / np.exp(-grid - np.exp(-grid)).sum()
    assert (exact * grid).sum() == pytest.approx(np.euler_gamma, abs=1e-3)
    cdf = np.interp(got, grid, np.cumsum(law))
    assert stats.kstest(cdf, "uniform").statistic < 2.0 / np.sqrt(N)


def test_mutated_drift_is_noticed(ppl):
    """The test above fails for a drift of s² instead of s²/2, and for the wrong sign."""
    mean, covariance = law_after(5, 0.7)
    for wrong in (2.0, -1.0):
        state, _ = sample(
            ppl, lambda z, w=wrong: w * gaussian_target(z), start_at_standard_normal(ppl), 5, step_size=0.7
        )
        with pytest.raises(AssertionError):
            assert_moments(draws(state), mean, covariance)


@pytest.mark.parametrize("coordinates", ["centered", "noncentered"])
def test_both_coordinates_reach_the_same_prior(ppl, coordinates):
    """Long chains in z and in ε, each with its own known bias, both mapped back to z."""
    page, program, hyper, params, _ = instance(2, 2, 3, 2, coordinates)
    exact = page.closed_form(as_numpy(params), hyper)
    precision = np.linalg.inv(exact.covariance)
    jacobian = np.eye(4)
    if coordinates == "noncentered":  # z1 = A ε2 + b + s ε1, z2 = ε2
        jacobian[:2, :2] = np.diag(np.exp(params["log_s"].numpy()))
        jacobian[:2, 2:] = params["A"].numpy()
    s = 0.5 / np.sqrt(np.linalg.eigvalsh(jacobian.T @ precision @ jacobian).max())
    drift = np.eye(4) - 0.5 * s**2 * jacobian.T @ precision @ jacobian
    stationary = solve_discrete_lyapunov(drift, s**2 * np.eye(4))
    slowest = -1 / np.log(np.abs(np.linalg.eigvals(drift)).max())
    start = chains.start(program, 1, params, N, "base")
    state, _ = sample(ppl, lambda z: program.log_prior(params, z), start, int(6 * slowest), step_size=s)
    z = program.move(params, state.z, "centered")
    got = np.concatenate([z["z1"].numpy(), z["z2"].numpy()], 1)
    assert_moments(got, exact.mean, jacobian @ stationary @ jacobian.T)


def test_noise_coordinates_carry_the_jacobian(ppl):
    """log p in ε = log p at z(ε) + log|det ∂z/∂ε|, the determinant by autodiff; scales depend on z2."""
    import pplebm

    program = pplebm.Program(
        pplebm.bind("joint_ebm", "pyro", shape=(5,), latent_dims=(3, 2)), coordinates="noncentered"
    )
    params, centered = program.params, program.with_coordinates("centered")
    e = torch.randn(20, 5, generator=torch.Generator().manual_seed(3))

    def to_z(e):
        z = program.move(params, {"z2": e[:, :2], "z1": e[:, 2:]}, "centered")
        return torch.cat([z["z2"], z["z1"]], 1)

    jacobian = torch.autograd.functional.jacobian(lambda e: to_z(e).sum(0), e).permute(1, 0, 2)
    u = to_z(e)
    expected = centered.log_prior(params, {"z2": u[:, :2], "z1": u[:, 2:]}) + torch.linalg.slogdet(jacobian)[1]
    got = program.log_prior(params, {"z2": e[:, :2], "z1": e[:, 2:]})
    np.testing.assert_allclose(got.detach().numpy(), expected.detach().numpy(), atol=1e-10)


def test_temperature_zero_is_gradient_ascent(ppl):
    start = start_at_standard_normal(ppl)
    state, _ = sample(ppl, gaussian_target, start, 400, step_size=0.7, temperature=0.0)
    np.testing.assert_allclose(draws(state), np.broadcast_to(MEAN, (N, 3)), atol=1e-6)


def test_a_divergent_datum_is_counted_and_poisons_nobody(ppl):
    start = {"z": torch.zeros(4, 2)}
    start["z"][1] = 30.0

    def log_density(z):  # steep far out: chains that start there explode
        return -0.25 * (z["z"] ** 4).sum(-1)

    state, info = sample(ppl, log_density, start, 30, step_size=0.4)
    alone, _ = sample(ppl, log_density, start, 30, step_size=0.4)
    assert state.n_divergent[1] > 0 and (state.n_divergent[[0, 2, 3]] == 0).all()
    assert torch.isfinite(state.z["z"]).all() and torch.isfinite(info.log_density).all()
    assert info.is_divergent.shape == (30, 4)
    assert torch.equal(state.z["z"], alone.z["z"])


def test_nan_density_keeps_its_place(ppl):
    start = {"z": torch.tensor([-1.0, 1.0])}
    state, _ = sample(ppl, lambda z: torch.log(z["z"]), start, 1, step_size=0.1)
    assert state.z["z"][0] == -1.0 and state.n_divergent.tolist() == [1.0, 0.0]
    assert state.z["z"][1] != 1.0


def test_step_conventions_agree_with_their_formulas(ppl):
    """h: z + (h/2)∇ + √h ξ;  τ: z + τ∇ + √(2τ) ξ, the convention in which 0.08 is our 0.4."""
    z, key = {"z": torch.tensor([0.3, -2.0])}, 5
    noise = ppl.normal_like(key, z)["z"]
    for size, drift, spread in ((from_h(0.2), 0.1, 0.2**0.5), (from_tau(0.08), 0.08, 0.16**0.5)):
        state, _ = langevin(size)(ppl, key, init(ppl, z), lambda z: -0.5 * z["z"] ** 2)
        torch.testing.assert_close(state.z["z"], z["z"] - drift * z["z"] + spread * noise)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"step_size": 0.0}, "step_size"),
        ({"step_size": -1.0}, "step_size"),
        ({"step_size": {"z": [0.1, -0.1]}}, "step_size"),
        ({"step_size": "big"}, "step_size"),
        ({"step_size": []}, "step_size"),
        ({"step_size": 0.1, "temperature": -1.0}, "temperature"),
    ],
)
def test_bad_settings_are_named(settings, word):
    with pytest.raises(PplebmError, match=word):
        langevin(**settings)


def test_step_size_by_site_must_name_every_site(ppl):
    with pytest.raises(PplebmError, match="'b'"):
        sample(ppl, gaussian_target, start_at_standard_normal(ppl), 1, step_size={"a": 0.1})
