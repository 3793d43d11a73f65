"""Page multi_stage_nce: whatever a stage left undone the next one learns, and log Z by stages is that of quadrature."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.special import logsumexp
from scipy import stats

import pplebm
import pplebm.numpyro
from pplebm.guides.guide import Guide
from pplebm.learning import loop, stages
from pplebm.learning.algorithm import algorithm_of
from pplebm.objectives.nce import nce, refining_nce

TRUTH = np.array([1.0, 0.0, 0.0, 0.0])
GRID = np.linspace(-7.0, 7.0, 4001)
STEP, SPREAD = GRID[1] - GRID[0], 0.35
RNG = np.random.default_rng(0)
PLACES = np.where(RNG.uniform(size=24) < 0.7, RNG.normal(1.5, 0.3, 24), RNG.normal(-1.3, 0.5, 24))
X = np.tile(PLACES, 10).astype(np.float32)


def exact(z):
    """log q(z) - log p₀(z) of the guide's draws over the data, a skewed mixture of 24 normals, against N(0, 1)."""
    parts = -0.5 * ((z[..., None] - PLACES) / SPREAD) ** 2
    return logsumexp(parts, axis=-1) - np.log(len(PLACES) * SPREAD) + 0.5 * z**2


def features(z):
    """The exact ratio, and others that should have no part in it."""
    return jnp.stack([exact(z), jnp.tanh(2.0 * z), jnp.exp(-((z - 0.5) ** 2)), 1.0 + 0.0 * z], -1)


def model(x):
    a = numpyro.param("a", jnp.zeros(4))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        pplebm.numpyro.tilt("f", (a * features(z)).sum(-1))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(x, SPREAD))


def law(a):
    """log Z and the density of the tilted prior on the grid, (4001,)."""
    log_p = np.asarray(features(jnp.asarray(GRID)) @ jnp.asarray(a)) + stats.norm.logpdf(GRID)
    log_z = np.log(np.exp(log_p).sum() * STEP)
    return log_z, np.exp(log_p - log_z)


def spread_of_the_minimum(n_updates, n_positive, n_negative, n_base):
    """Standard errors of the coefficients by curvature and noise of the logistic loss at f = log q - log p₀."""
    g, q, p0 = np.asarray(features(jnp.asarray(GRID))), law(TRUTH)[1] * STEP, stats.norm.pdf(GRID) * STEP
    m = 0.5 * q + 0.5 * p0
    is_q = q / (q + m)  # what the classifier says
    second = lambda p, of: (g * (p * of)[:, None]).T @ g
    covariance = lambda p, of: second(p, of**2) - np.outer((p * of) @ g, (p * of) @ g)
    noise = covariance(q, 1.0 - is_q) / n_positive
    noise += 0.25 * (covariance(q, is_q) / n_negative + covariance(p0, is_q) / n_base)
    inverse = np.linalg.inv(second(q + m, is_q * (1.0 - is_q)))
    return np.sqrt(np.diag(inverse @ noise @ inverse) / n_updates)


class Learned(NamedTuple):
    """What a run of the page tells."""

    a: np.ndarray
    earlier: list  # coefficients at the beginning of every stage but the first
    rows: list  # figures by update


CHANGES = {
    "updates": 1200, "stages": 4, "first_stage": 0.05, "batch_size": 240, "learning_rate_tilt": 0.03,
    "decay_share": 0.25,
}  # fmt: skip


@pytest.fixture(scope="module")
def learned():
    """The first stage ends long before its minimum; the other three begin at updates 60, 440 and 820."""
    program = pplebm.Program(model, data=X, backend="numpyro")
    program = program.with_guide(Guide(program, guide))
    owner = algorithm_of(pplebm.load("multi_stage_nce"), program, CHANGES)
    data = program.data(X)
    at, earlier, rows = loop.begin(owner, data, 0), [], []
    starts = stages.starts(0.05, 1200, 4)
    for progress, events in loop.updates(owner, data, 0, at, total=1200):
        rows += [event.metrics for event in events]
        kept = np.asarray(progress.state.earlier["a"])
        if progress.update > starts[0] and (not earlier or (kept != earlier[-1]).any()):
            earlier.append(kept)
    return Learned(np.asarray(progress.state.params["a"]), earlier, rows)


def test_what_a_stage_leaves_undone_the_next_learns(learned):
    """The last stage ends at the exact ratio; the first one did not."""
    error = spread_of_the_minimum(300, 240, 256 * 0.3, 240)  # of the updates in which rates fall; pools move slowly
    assert (np.abs(learned.earlier[0] - TRUTH) > 5.0 * error).any()
    assert (np.abs(learned.a - TRUTH) < 5.0 * error).all(), (learned.a, error)
    inside = law(TRUTH)[1] > 0.01
    ratio = np.asarray(features(jnp.asarray(GRID)) @ jnp.asarray(learned.a) - exact(jnp.asarray(GRID)))[inside]
    assert np.abs(ratio).max() < 0.15


def test_log_z_by_stages_is_that_of_quadrature(learned):
    assert len(learned.earlier) == 3
    rows = {k: np.array([row[k] for row in learned.rows]) for k in learned.rows[0]}
    assert set(rows["stage"]) == {1.0, 2.0, 3.0, 4.0} and (rows["log_z_before"][rows["stage"] == 1.0] == 0.0).all()
    variance = 0.0
    for k, a in enumerate(learned.earlier, start=2):
        of_stage = np.flatnonzero(rows["stage"] == k)
        variance += rows["log_z_before_error"][of_stage[0]] ** 2  # what a jump of the tilt adds to the weights
        found = rows["log_z_before"][of_stage[10:]].mean()
        assert abs(found - law(a)[0]) < 4.0 * variance**0.5 + 0.01, (k, found, law(a)[0])
    last = slice(-100, None)
    ratio = np.log(rows["z_ratio"][last].mean())
    assert abs(rows["log_z_before"][last].mean() + ratio - law(learned.a)[0]) < 4.0 * variance**0.5 + 0.02
    # the minimum of the logistic loss is normalised, to the error that log Z before the stage brings into it
    assert abs(law(learned.a)[0]) < 4.0 * variance**0.5 < 0.5


@pytest.mark.parametrize("has_base", [True, False])
@pytest.mark.parametrize("earlier", [[0.0, 0.0, 0.0, 0.0], [0.4, -0.5, 0.8, 0.3]])
def test_the_minimum_is_the_exact_ratio_whatever_the_earlier_tilt(earlier, has_base):
    """At f = log q - log p₀ the gradient vanishes by quadrature; with the earlier tilt left out it does not."""
    program = pplebm.Program(model, data=X, backend="numpyro")
    ppl, before = program.ppl, np.array(earlier)
    log_z, density = law(before)
    weight, z = ppl.asarray(density * STEP), {"z": ppl.asarray(GRID)}
    levels = (np.arange(8000) + 0.5) / 8000
    q = {"z": ppl.asarray(np.interp(levels, np.cumsum(law(TRUTH)[1]) * STEP, GRID))}
    base = {"z": ppl.asarray(stats.norm.ppf(levels))} if has_base else None
    given = ({"a": ppl.asarray(before)}, q, z, None, weight, log_z, base)
    at = {"a": ppl.asarray(TRUTH)}
    (_, z_ratio), gradient = ppl.value_and_grad(lambda p: refining_nce(program, p, *given), at, has_aux=True)
    assert np.abs(np.asarray(gradient["a"])).max() < 2e-3 and abs(float(z_ratio) - np.exp(-log_z)) < 2e-3
    wrong = ppl.value_and_grad(lambda p: refining_nce(program, p, *given, strength=0.0)[0], at)[1]
    assert any(earlier) == (np.abs(np.asarray(wrong["a"])).max() > 0.01)


def test_the_first_stage_is_noise_contrastive(ppl):
    """With the base as the stage before, the loss and its gradient are those of `nce`."""
    program = pplebm.Program(pplebm.bind("joint_ebm", ppl.name, shape=(3,), latent_dims=(2, 2)))
    z, base = (program.draw_base(ppl.key(k), 40) for k in (0, 1))
    earlier = {name: 2.0 * program.params[name] for name in program.tilt_params}
    refined = lambda p: refining_nce(program, p, earlier, z, base, strength=0.0)[0]
    (first, of_first), (plain, of_plain) = (
        ppl.value_and_grad(f, program.params) for f in (refined, lambda p: nce(program, p, z, base))
    )
    assert abs(float(first) - float(plain)) < 1e-6
    assert all(abs(ppl.to_numpy(of_first[n] - of_plain[n])).max() < 1e-6 for n in program.params)


def test_draws_are_those_of_the_stage_before(ppl):
    """New ones of the base in the first stage; later of the earlier tilt, whatever the tilt is by now."""
    page, n = pplebm.load("conjugate_tilt"), 600
    program = pplebm.Program(pplebm.bind(page, ppl.name, shape=(3,)))
    owner = algorithm_of(pplebm.load("multi_stage_nce"), program, {"prior.pool": n, "prior.moved": n, "n_leapfrog": 4})
    x, index = program.data(np.zeros((8, 3), np.float32)), ppl.asarray(range(8))
    state = owner.init(ppl.key(0), x, 8)
    later = {name: state.params[name] + (0.9 if name.startswith("c") else 0.0) for name in state.earlier}
    state = state._replace(params=dict(state.params) | later)
    draw = ppl.compiled(lambda key, state, stage: stages.draws(owner, key, state, x, index, stage)[0])
    found = []
    for key in range(14):
        found.append(draw(ppl.key(key), state, ppl.asarray(1.0 if key < 2 else 3.0)))
        state = state._replace(negative=found[-1].kept)
    laws = [
        page.closed_form({k: ppl.to_numpy(a).astype(float) for k, a in p.items()}, page.Hyper())
        for p in (program.params, state.params)
    ]
    base = [np.concatenate([ppl.to_numpy(d.z[k]) for k in ("z1", "z2")], 1) for d in (*found[:2], found[-1])]
    plain = program.draw_base(ppl.key(99), 4000)
    plain = np.concatenate([ppl.to_numpy(plain[k]) for k in ("z1", "z2")], 1)
    assert (base[0] != base[1]).all() and (ppl.to_numpy(found[1].kept.age) == 0).all()
    for z in base[:2]:
        assert all(stats.ks_2samp(z[:, j], plain[:, j]).pvalue > 1e-3 for j in range(z.shape[1]))
    assert abs(float(found[0].info.log_weight)) < 1e-6 and float(found[0].info.accepted) == 1.0
    weight, error = ppl.to_numpy(found[-1].weight), np.sqrt(np.diag(laws[0].covariance) / (0.5 * n))
    assert (np.abs(weight @ base[2] - laws[0].mean) < 5.0 * error).all()
    assert (np.abs(weight @ base[2] - laws[1].mean) > 5.0 * error).any()


def test_the_twin_has_stages_and_nothing_to_learn_in_them():
    program = pplebm.Program(pplebm.bind("joint_ebm", shape=(4,), tilted=False))
    owner = algorithm_of(pplebm.load("multi_stage_nce"), program, {"updates": 4, "batch_size": 8})
    x, rows, states = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32), [], []
    for progress, events in loop.updates(owner, x, 0, loop.begin(owner, program.data(x), 0), total=4, at_most=1):
        rows += [event.metrics for event in events]
        states.append(progress.state.params)
    assert [row["stage"] for row in rows] == [1.0, 1.0, 2.0, 3.0] and "nce" not in rows[0]
    moved = [any((a[n] != b[n]).any() for n in a) for a, b in pairwise(states)]
    assert moved == [True, False, False]
