"""Plans given the return that is wanted: in closed form, by quadrature, and on a chain whose best way is known."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from plane import CELL, PLANE, moved, on_plane
from scipy.special import log_softmax, logsumexp
from scipy.stats import multivariate_normal, norm

import pplebm
from pplebm.errors import PplebmError

PAGE = pplebm.load("latent_plan")
LINEAR = {"latent_dim": 2, "plan_dim": 3, "depth": 0, "sigma": 0.6, "tau": 0.4, "tilted": True, "tilt_bound": 1e7}
BENT = {"latent_dim": 2, "plan_dim": 3, "depth": 1, "value_depth": 1, "width": 5, "tau": 0.4}
STATES = np.random.default_rng(7).normal(size=(4, 3, 2))
ACTIONS = np.random.default_rng(8).normal(size=(4, 3, 2))
ACTIONS[1] = ACTIONS[2, 1] = ACTIONS[3] = np.nan  # no action; a step that is missing; no action
RETURNS = np.array([1.0, -0.7, 0.4, np.nan])
DATA = PAGE.as_data(STATES, ACTIONS, RETURNS)


@pytest.fixture
def double(ppl, float64):
    """Double precision on the backend under test."""
    import jax

    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        yield ppl


def linear_law(at, states):
    """The map of z1 to the means of (a1, a2, a3, y) at states (3, 2), their means and covariance, and log Z.

    Under the tilt a·z + c of N(0, I) z1 is N(a, I), and log Z is |a|²/2 + c.
    """
    a, up = at["tilt.weight_0"][0], at["plan.weight_0"]
    g, m = at["action.weight_0"], at["value.weight_0"]
    matrix = np.concatenate([*[g[:, 2:] @ up] * 3, m @ up])
    at_zero = g @ np.concatenate([states, np.tile(at["plan.bias_0"], (3, 1))], 1).T + at["action.bias_0"][:, None]
    shift = np.append(at_zero.T.ravel(), m @ at["plan.bias_0"] + at["value.bias_0"])
    covariance = matrix @ matrix.T + np.diag([0.36] * 6 + [0.16])
    return matrix, shift + matrix @ a, covariance, 0.5 * a @ a + at["tilt.bias_0"][0]


def test_the_evidence_of_a_trajectory_is_a_normal_law(double):
    """Rows of a trajectory and its return, of a return, of a trajectory that lacks a step, and of nothing."""
    program, at = moved(PAGE, double, DATA, LINEAR)
    for row in range(4):
        _, mean, covariance, log_z = linear_law(at, STATES[row])
        data = {name: a[row : row + 1] for name, a in DATA.items()}
        values = np.append(ACTIONS[row].ravel(), RETURNS[row])
        parts = np.flatnonzero(np.isfinite(values))
        got = logsumexp(on_plane(program, data)) + np.log(CELL) - log_z
        exact = multivariate_normal(mean[parts], covariance[np.ix_(parts, parts)]) if len(parts) else None
        assert got == pytest.approx(exact.logpdf(values[parts]) if exact else 0.0, abs=1e-6)
    assert logsumexp(on_plane(program)) + np.log(CELL) == pytest.approx(log_z, abs=1e-6) and abs(log_z) > 0.2


def test_plans_given_a_return_have_the_law_of_the_closed_form(double):
    """p(z1 | y) and p(a | y, s) are normal; means and covariances at two returns, 4.5 standard errors of 200 chains."""
    program, at = moved(PAGE, double, DATA, LINEAR)
    matrix, mean, covariance, _ = linear_law(at, STATES[0])
    asked, where = np.array([mean[6] + 2.0, mean[6] - 1.0]), np.stack([STATES[0]] * 2)
    draws = pplebm.sample(program, data=PAGE.wanted(asked, where, 2), n_chains=200, n_draws=20, n_warmup=150, thin=2,
                          progress=False)  # fmt: skip
    of_y = np.concatenate([matrix[6], covariance[:6, 6]])  # covariances with y of z1 and of the actions
    gain = of_y / covariance[6, 6]
    prior = np.block([[np.eye(2), matrix[:6].T], [matrix[:6], covariance[:6, :6]]])
    spread, centre = prior - np.outer(gain, of_y), np.append(at["tilt.weight_0"][0], mean[:6])
    assert np.abs(gain[:2]).max() > 0.3 and np.abs(gain[2:]).max() > 0.3
    actions = pplebm.predictive(draws, seed=1)["actions"].reshape(200, 20, 2, 6)
    found = np.concatenate([draws["z1"], actions], -1)
    for k, y in enumerate(asked):
        off = found[:, :, k] - (centre + gain * (y - mean[6]))
        for by_chain, value in ((off.mean(1), 0.0), ((off[..., :, None] * off[..., None, :]).mean(1), spread)):
            error = by_chain.std(0, ddof=1) / 200**0.5
            assert (np.abs(by_chain.mean(0) - value) < 4.5 * error).all()


def test_choices_under_a_bent_model_have_the_probabilities_of_quadrature(double):
    """One of two actions, at three states, given a low return and a high one."""
    data = PAGE.as_data(STATES[:1], np.eye(2)[[[0, 1, 1]]], RETURNS[:1], one_hot=True)
    program, _ = moved(PAGE, double, data, BENT | {"one_hot": True, "tilted": True})
    rows = {name: np.repeat(a, len(PLANE), 0) for name, a in data.items()}
    means = program.predict(program.params, {"z1": double.asarray(PLANE)}, data=program.data(rows))
    choices, m = double.to_numpy(means["actions"])[..., 0], double.to_numpy(means["y"])
    prior, asked = on_plane(program), np.quantile(m, [0.05, 0.95])
    wanted = PAGE.wanted(asked, np.repeat(STATES[:1], 2, 0), 2, one_hot=True)
    draws = pplebm.sample(program, data=wanted, n_chains=200, n_draws=20, n_warmup=200, thin=3, progress=False)
    by_chain = pplebm.predictive(draws, mean=True)["actions"][..., 0].mean(1)
    exact = [np.exp(w - logsumexp(w)) @ choices for w in (prior + norm.logpdf(y, m, 0.4) for y in asked)]
    assert np.abs(exact[0] - exact[1]).max() > 0.05
    error = by_chain.std(0, ddof=1) / 200**0.5
    assert (np.abs(by_chain.mean(0) - exact) < 4.5 * error).all()


@pytest.mark.parametrize("reads_plan", [True, False])
def test_the_density_of_choices_is_that_of_the_equation(double, reads_plan):
    """Written once more; cloning has actions that do not read the plan, and returns that do."""
    chosen = np.array([[0, 1, 1], [1, 0, 1]])
    actions = np.eye(2)[chosen]
    actions[1, 2] = np.nan  # the second trajectory ends after two steps
    data = PAGE.as_data(STATES[:2], actions, RETURNS[:2], one_hot=True)
    program, at = moved(PAGE, double, data, BENT | {"one_hot": True, "reads_plan": reads_plan})

    def net(name, a):
        hidden = a @ at[f"{name}.weight_0"].T + at[f"{name}.bias_0"]
        return hidden / (1.0 + np.exp(-hidden)) @ at[f"{name}.weight_1"].T + at[f"{name}.bias_1"]

    z1 = np.random.default_rng(3).normal(size=(2, 2))
    z = net("plan", z1)
    read = [STATES[:2], np.repeat(z[:, None], 3, 1)][: 2 if reads_plan else 1]
    steps = np.take_along_axis(log_softmax(net("action", np.concatenate(read, -1)), -1), chosen[..., None], -1)[..., 0]
    exact = norm.logpdf(z1).sum(-1) + steps[:, :2].sum(1) + [steps[0, 2], 0.0]
    exact += norm.logpdf(RETURNS[:2], net("value", z)[:, 0], 0.4)
    got = program.log_joint(program.params, {"z1": double.asarray(z1)}, program.data(data))
    np.testing.assert_allclose(double.to_numpy(got), exact, rtol=1e-9)


def test_states_that_are_not_known_are_refused():
    with pytest.raises(PplebmError, match="states hold nan"):
        PAGE.wanted([1.0], np.full((1, 3, 2), np.nan), 2)


def test_what_is_wanted_is_masked_and_filled():
    data = PAGE.wanted([1.0, 2.0], STATES[:2], 3, one_hot=True)
    assert data["actions"].shape == (2, 3, 3) and (data["actions"] == [1.0, 0.0, 0.0]).all()
    assert not data["observed_actions"].any() and data["observed_y"].all() and data["y"].tolist() == [1.0, 2.0]
    assert DATA["observed_actions"].tolist() == [[True] * 3, [False] * 3, [True, False, True], [False] * 3]
    assert DATA["observed_y"].tolist() == [True, True, True, False] and np.isfinite(DATA["actions"]).all()


def test_plans_do_what_their_return_asks(tmp_path):
    """Three steps, each 0 or 1, whose return is their sum, and none has 3: plans for 0, 1 and 2, and for 3."""
    rng = np.random.default_rng(5)
    chosen = rng.integers(0, 2, (400, 3))
    chosen = chosen[chosen.sum(1) < 3]
    steps = np.eye(3)[None].repeat(len(chosen), 0)
    data = PAGE.as_data(steps, np.eye(2)[chosen], chosen.sum(1) - 1.0, one_hot=True)
    hyper = {"one_hot": True, "latent_dim": 3, "width": 32, "batch_size": 64, "learning_rate": 0.005}
    run = pplebm.fit("latent_plan", data, "variational_joint", tmp_path / "run", updates=400, hyper=hyper,
                     backend="numpyro", progress=False)  # fmt: skip
    asked = PAGE.wanted(np.arange(4) - 1.0, steps[:4], 2, one_hot=True)
    draws = pplebm.sample(run.program, data=asked, n_chains=20, n_draws=5, n_warmup=300, thin=5, progress=False)
    found = pplebm.predictive(draws, mean=True)["actions"][..., 1].sum(-1).mean((0, 1))
    assert np.abs(found[:3] - [0.0, 1.0, 2.0]).max() < 0.3 and found[3] > found[2] - 0.1
