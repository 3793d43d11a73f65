"""Trajectories: their dynamics, their metric and their number of steps, and that none of these changes the law."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.stats import qmc
from targets import SKEWED, TARGETS, assert_same_law, rows_of

import pplebm.backends.pyro as torch_ppl
from pplebm.errors import PplebmError
from pplebm.kernels.adaptive_hmc import adaptive_hmc
from pplebm.kernels.mams import _turn, mams
from pplebm.kernels.metric import Metric, flat, pull, relax, stretch, unflat
from pplebm.kernels.trajectory import FIRST_STEPS, HALTON, MAX_STEPS, halton, n_steps, rank_of
from pplebm.sampling import chains

N = 10_000  # chains; all tolerances follow from it
MAKERS = {"adaptive_hmc": adaptive_hmc, "mams": mams}
WIDE = [TARGETS[0], TARGETS[2], TARGETS[3], SKEWED]  # of two latents or more


@pytest.fixture(params=MAKERS)
def make(request):
    return MAKERS[request.param]


def some_metric(ppl, rows, width, rank, spread=0.4, seed=0):
    """A metric of its own for every row, as float64 and as arrays of the backend."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(rows, width, width)))[0][:, :, :rank]
    scale, factors = (np.exp(spread * rng.normal(size=(rows, n))) for n in (width, rank))
    found = Metric(scale, directions, factors)
    return found, Metric(*map(ppl.asarray, found))


def as_matrix(metric):
    """A of every row, (B, d, d)."""
    v = metric.directions
    inner = np.eye(v.shape[1]) + (v * (metric.factors - 1.0)[:, None]) @ np.swapaxes(v, 1, 2)
    return metric.scale[:, :, None] * inner


def noise_of(ppl, momentum, accept=9.0):
    """Random numbers of a trajectory that is accepted, whatever it comes to."""
    n = len(momentum)
    accept = {"first": ppl.asarray(np.full(n, accept)), "second": ppl.asarray(np.zeros(n))}
    return {"accept": accept, "momentum": ppl.asarray(momentum)}


# --- the law


@pytest.mark.parametrize("rank", [0, 1, None], ids=["diagonal", "low rank", "dense"])
def test_no_metric_step_or_length_changes_the_law(ppl, make, rank):
    """Every chain has a metric, a step size and a length of its own."""
    for target in WIDE[2:] if rank is None else [TARGETS[0]]:
        start = target.draw(np.random.default_rng(1), N)
        width, rng = start.shape[1], np.random.default_rng(3)
        kernel, log_density = make(0.3), lambda z, target=target: target.log_density(ppl, z)
        state = kernel.init(ppl, target.latents(ppl, start), log_density)
        size, length = rng.uniform(0.2, 0.5, N), rng.uniform(0.5, 3.0, N)
        state = state._replace(
            metric=some_metric(ppl, N, width, width if rank is None else rank)[1], step=state.step + 1,
            step_size=ppl.asarray(size), length=ppl.asarray(length)
        )  # fmt: skip
        go = ppl.compiled(lambda key, state, k=kernel, f=log_density: chains.run(ppl, key, state, f, k, 4))
        end, info = go(ppl.key(0), state)
        accepted = ppl.to_numpy(info.accept_prob).mean()
        assert 0.4 < accepted < 0.99 and np.abs(rows_of(ppl, end.z) - start).mean() > 0.3
        assert_same_law(rows_of(ppl, end.z), target.draw(np.random.default_rng(2), N))


def test_chains_from_afar_find_the_target(ppl, make):
    target, kernel = TARGETS[0], make(0.5)
    log_density = lambda z: target.log_density(ppl, z)
    state = kernel.init(ppl, target.latents(ppl, np.full((N // 2, 3), 3.0)), log_density)
    go = ppl.compiled(lambda key, state: chains.run(ppl, key, state, log_density, kernel, 16))
    assert_same_law(rows_of(ppl, go(ppl.key(0), state)[0].z), target.draw(np.random.default_rng(2), N))


# --- trajectories


def trajectory(ppl, kernel, target, start, momentum, length, size, step=1):
    """The state and the figures after one accepted trajectory, in a dense metric of every row's own."""
    log_density = lambda z: target.log_density(ppl, z)
    state = kernel.init(ppl, target.latents(ppl, start), log_density)
    metric = some_metric(ppl, len(start), start.shape[1], start.shape[1])[1]
    full = lambda value: 0.0 * state.step_size + value
    state = state._replace(metric=metric, length=full(length), step_size=full(size), step=state.step + step)
    return kernel.move(ppl, noise_of(ppl, momentum), state, log_density)


def test_a_trajectory_goes_back_the_way_it_came(make, float64):
    rng, target = np.random.default_rng(0), SKEWED
    start, momentum = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    there, info = trajectory(torch_ppl, make(), target, start, momentum, 2.0, 0.2)
    assert info.num_steps.tolist() == [6.0] * 5 and (info.is_accepted == 1).all()  # half of 10, and the least part
    back, again = trajectory(torch_ppl, make(), target, rows_of(torch_ppl, there.z), -info.velocity.numpy(), 2.0, 0.2)
    np.testing.assert_allclose(rows_of(torch_ppl, back.z), start, atol=1e-10)
    ratio = torch.log(info.accept_prob) - torch.log(again.accept_prob)  # one of the two is 0 in every row
    assert ((info.accept_prob == 1) ^ (again.accept_prob == 1)).all() and (ratio.abs() < 1).all()


def test_what_a_trajectory_loses_is_of_second_order_in_the_step(make, float64):
    """The acceptance ratio tends to one over the same time: kinetic energy won is potential energy lost."""
    rng, target = np.random.default_rng(1), SKEWED
    start, momentum = rng.normal(size=(6, 2)), rng.normal(size=(6, 2))
    lost = []
    for size in (0.04, 0.02, 0.01):
        _, info = trajectory(torch_ppl, make(), target, start, momentum, 2.0 - size, size)
        lost.append(1.0 - info.accept_prob.numpy())
    rows = lost[0] > 1e-5  # those that lose
    assert rows.sum() >= 2 and (lost[0] < 0.05).all()
    for coarse, fine in pairwise(lost):
        assert (coarse[rows] / fine[rows] > 3.0).all()


def test_trajectories_that_break_are_counted_and_stay(ppl, make):
    z = {"a": ppl.asarray(np.array([[0.1, 0.2], [1e3, -30.0]]))}
    log_density = lambda z: -0.25 * (z["a"] ** 4).sum(1)
    kernel = make(0.5)
    go = ppl.compiled(lambda key, state: chains.run(ppl, key, state, log_density, kernel, 3))
    state, info = go(ppl.key(0), kernel.init(ppl, z, log_density))
    assert ppl.to_numpy(state.n_divergent).tolist() == [0.0, 3.0]
    assert ppl.to_numpy(state.z["a"])[1].tolist() == [1e3, -30.0]
    assert ppl.to_numpy(info.is_divergent)[1:].tolist() == [[False, True]] * 2


# --- the turn of microcanonical dynamics


def turned(velocity, force, size):
    """In float64 by torch."""
    out = _turn(torch_ppl, *(torch.as_tensor(np.asarray(a, float)) for a in (velocity, force, size)))
    return tuple(a.numpy() for a in out)


def some_turns(width=4, n=7):
    rng = np.random.default_rng(width)
    velocity = rng.normal(size=(n, width))
    velocity *= width**0.5 / np.linalg.norm(velocity, axis=1, keepdims=True)
    return velocity, rng.normal(size=(n, width)) * np.geomspace(1e-3, 30.0, n)[:, None], np.linspace(0.1, 1.0, n)


@pytest.mark.parametrize("width", [2, 5])
def test_the_turn_keeps_the_speed_and_can_be_undone(width):
    velocity, force, size = some_turns(width)
    new, gain = turned(velocity, force, size)
    np.testing.assert_allclose((new**2).sum(1), width, rtol=1e-12)
    strong = size * np.linalg.norm(force, axis=1) < 8.0  # beyond that all velocities end along the force
    back, loss = turned(new, force, -size)
    np.testing.assert_allclose(back[strong], velocity[strong], atol=1e-6)
    np.testing.assert_allclose(loss[strong], -gain[strong], rtol=1e-6, atol=1e-9)
    assert np.abs(new - velocity)[strong].max() > 0.5


def test_the_turn_solves_its_equation():
    r"""dv/dt = d / (d - 1) (I - v̂ v̂ᵀ) g with a constant force, by a general solver."""
    velocity, force, size = some_turns(3)
    for v, g, s, new in zip(velocity, force, size, turned(velocity, force, size)[0]):
        flow = lambda t, v, g=g: 1.5 * (g - v * (v @ g) / (v @ v))
        np.testing.assert_allclose(solve_ivp(flow, (0, s), v, rtol=1e-10, atol=1e-10).y[:, -1], new, atol=1e-6)


def test_what_the_turn_wins_is_how_it_shrinks_the_sphere():
    """Minus the log determinant between the tangent planes before and after, by automatic derivatives."""
    velocity, force, size = (torch.as_tensor(a) for a in some_turns(4))
    gain = _turn(torch_ppl, velocity, force, size)[1]
    for i in range(5):
        unit = lambda v, i=i: _turn(torch_ppl, 2.0 * (v / v.norm())[None], force[[i]], size[[i]])[0][0] / 2.0
        jacobian = torch.autograd.functional.jacobian(unit, velocity[i] / 2.0)
        volume = torch.linalg.svdvals(jacobian)[:3].log().sum()  # the fourth is 0, along the velocity
        assert float(volume) == pytest.approx(-float(gain[i]), abs=1e-8)


def test_the_turn_is_the_same_on_every_backend_and_finite_for_any_force(ppl):
    velocity, force, size = some_turns(4)
    force = np.concatenate([force, [[0.0] * 4, [1e12] * 4]])
    velocity, size = np.concatenate([velocity, velocity[:2]]), np.append(size, [0.5, 0.5])
    found = _turn(ppl, *map(ppl.asarray, (velocity, force, size)))
    for a, b in zip(found, turned(velocity, force, size)):
        np.testing.assert_allclose(ppl.to_numpy(a), b, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ppl.to_numpy(found[0])[-2:], [velocity[0], [1.0] * 4], rtol=1e-5)  # no force; along it


def test_microcanonical_dynamics_need_two_latents(ppl):
    with pytest.raises(PplebmError, match="mams needs 2 latents"):
        mams().init(ppl, {"a": ppl.asarray(np.zeros((3, 1)))}, lambda z: -0.5 * (z["a"] ** 2)[:, 0])


@pytest.mark.parametrize(("settings", "word"), [({"step_size": 0.0}, "step_size"), ({"target_accept": 1.0}, "target"),
                                                ({"metric": "round"}, "metric 'round'")])  # fmt: skip
def test_bad_settings_are_named(make, settings, word):
    with pytest.raises(PplebmError, match=word):
        make(**settings)


# --- the metric


@pytest.mark.parametrize("rank", [0, 2, 5])
def test_stretch_pull_and_relax_are_a_matrix_its_transpose_and_its_inverse(ppl, rank):
    metric, at = some_metric(ppl, 3, 5, rank)
    u, matrix = np.random.default_rng(1).normal(size=(3, 5)), as_matrix(metric)
    apply = lambda f: ppl.to_numpy(f(at, ppl.asarray(u)))
    np.testing.assert_allclose(apply(stretch), np.einsum("bij,bj->bi", matrix, u), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(apply(pull), np.einsum("bji,bj->bi", matrix, u), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(apply(relax), np.linalg.solve(matrix, u[:, :, None])[:, :, 0], rtol=1e-4, atol=1e-5)


def test_latents_side_by_side_and_back(ppl):
    rng = np.random.default_rng(0)
    tree = {"b": rng.normal(size=(2, 2, 3)), "c": rng.normal(size=2), "a": rng.normal(size=(2, 1))}
    arrays = {site: ppl.asarray(a) for site, a in tree.items()}
    rows = flat(ppl, arrays)
    expected = np.concatenate([tree["a"], tree["b"].reshape(2, 6), tree["c"][:, None]], 1)
    np.testing.assert_allclose(ppl.to_numpy(rows), expected, rtol=1e-6)
    back = unflat(rows, arrays)
    assert list(back) == list(tree)
    for site, a in tree.items():
        np.testing.assert_allclose(ppl.to_numpy(back[site]), a, rtol=1e-6)


def test_the_metric_is_dense_or_not_as_asked_and_as_memory_allows():
    assert [rank_of("auto", width, 4) for width in (1, 2, 64, 65, 10)] == [0, 2, 64, 16, 10]
    assert rank_of("auto", 64, 10_000) == 0 and rank_of("dense", 64, 10_000) == 64
    assert (rank_of("low rank", 5, 4), rank_of("low rank", 50, 4), rank_of("diagonal", 9, 4)) == (5, 16, 0)


# --- how many steps


def test_halton_numbers_are_those_of_scipy_moved_off_zero(ppl):
    expected = qmc.Halton(1, scramble=False).random(len(HALTON))[:, 0] + 2.0**-13
    np.testing.assert_allclose(HALTON, expected, atol=1e-15)
    assert float(halton(ppl, ppl.asarray(5 + 4096))) == float(halton(ppl, ppl.asarray(5))) == 0.625 + 2.0**-13


def test_steps_are_the_length_by_the_step_size_rounded_up_and_bounded(ppl):
    z = {"a": ppl.asarray(np.zeros((5, 1)))}
    state = adaptive_hmc().init(ppl, z, lambda z: 0.0 * z["a"][:, 0])
    size = ppl.asarray(np.array([0.5, 0.5, 0.1, 0.1, 10.0]))
    state = state._replace(length=ppl.asarray(np.array([0.0, 2.0, 2.0, 1e9, 1.0])), step_size=size)
    for step, h in ((1, 0.5), (3, 0.75)):
        found = ppl.to_numpy(n_steps(ppl, state._replace(step=state.step + step)))
        h += 2.0**-13
        wanted = np.array([np.ceil(FIRST_STEPS * h), np.ceil(4 * h), np.ceil(20 * h), MAX_STEPS, 1.0])
        assert found.tolist() == np.minimum(wanted, 4 * np.median(wanted)).tolist()


def test_rows_end_their_trajectories_each_for_itself(ppl, make):
    """A row in a batch with longer ones goes as far as it would alone, and is told its own number of steps."""
    target, kernel, rng = TARGETS[0], make(0.2), np.random.default_rng(0)
    start, momentum, length = rng.normal(size=(3, 3)), rng.normal(size=(3, 3)), np.array([0.5, 4.0, 0.0])
    log_density = lambda z: target.log_density(ppl, z)
    move = ppl.compiled(lambda noise, state: kernel.move(ppl, noise, state, log_density))

    def end(rows):
        state = kernel.init(ppl, target.latents(ppl, start[rows]), log_density)
        state = state._replace(length=ppl.asarray(length[rows]), step=state.step + 1)
        new, info = move(noise_of(ppl, momentum[rows]), state)
        return rows_of(ppl, new.z), ppl.to_numpy(info.num_steps)

    together, steps = end([0, 1, 2])
    assert steps.tolist() == [2.0, 11.0, 9.0]
    for i in range(3):
        np.testing.assert_allclose(end([i] * 3)[0][0], together[i], rtol=1e-4, atol=1e-5)
