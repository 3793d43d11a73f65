"""What long runs ask for: accumulated gradients, courses of rates, starts, own guides, logs, watched chains."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from changes import hyper_of, small_model
from updating import one_by_one

import pplebm
from pplebm.errors import PplebmError
from pplebm.gallery.hyper import Schedule
from pplebm.inference import short_run_mle
from pplebm.learning import loop as train
from pplebm.learning import safeguards
from pplebm.learning.algorithm import Algorithm, algorithm_of
from pplebm.learning.optimizer import Optimizer
from pplebm.ppl.language import load_backend
from pplebm.ppl.trees import tree_leaves
from pplebm.runs import checkpoints as folder

FEW = {"batch_size": 8, "n_steps_posterior": 2, "n_steps_prior": 2}


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)


# --- the optimiser


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_accumulated_gradients_make_the_step_of_their_mean(backend):
    ppl = load_backend(backend)
    program = pplebm.Program(pplebm.bind("latent_ebm", backend, shape=(3,)))
    params, rng = program.params, np.random.default_rng(0)
    some = [{n: ppl.asarray(0.01 * rng.normal(size=tuple(p.shape))) for n, p in params.items()} for _ in range(6)]
    mean = lambda gs: {n: sum(g[n] for g in gs) / len(gs) for n in params}
    plain, by_three = (Optimizer(clip_norm=5.0, accumulate=k) for k in (1, 3))

    want, plain_adam = params, plain.init(ppl, params)
    for i, three in enumerate((some[:3], some[3:])):
        want, plain_adam, *_ = plain.update(program, want, mean(three), plain_adam, i, 10**9)
    got, adam = params, by_three.init(ppl, params)
    for i, gradient in enumerate(some):
        before = got
        got, adam, norm, *_ = by_three.update(program, got, gradient, adam, i, 10**9)
        stays = all(bool((got[n] == before[n]).all()) for n in params)
        assert stays == (i % 3 < 2) and float(norm) > 0
    for name in params:
        for a, b in ((got, want), (adam.rule.mean, plain_adam.mean), (adam.rule.square, plain_adam.square)):
            np.testing.assert_allclose(ppl.to_numpy(a[name]), ppl.to_numpy(b[name]), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("schedule", typing.get_args(Schedule))
def test_rates_rise_during_warm_up_stay_and_fall_as_the_schedule_says(ppl, schedule):
    optimizer = Optimizer(warmup=20, decay_share=0.4, schedule=schedule)
    found = [float(optimizer.factor(ppl, t, 100)) for t in range(101)]
    np.testing.assert_allclose(found[:20], np.arange(1, 21) / 20, rtol=1e-5)
    np.testing.assert_allclose(found[20:60], 1.0, rtol=1e-5)
    left = 1 - (np.arange(60, 101) - 60) / 40
    fall = {"linear": left, "exponential": 0.01 ** (1 - left), "constant": np.ones(41)}[schedule]
    np.testing.assert_allclose(found[60:], fall, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("change", "words"), [
    ({"schedule": "cosine"}, "'schedule' of algorithm 'mle' must be one of linear, exponential, constant"),
    ({"accumulate": 0}, "accumulate"), ({"warmup": -1}, "warmup"),
])  # fmt: skip
def test_courses_that_are_none_are_refused(tmp_path, x, change, words):
    with pytest.raises(PplebmError, match=words):
        pplebm.fit("latent_ebm", x, out=tmp_path / "run", updates=2, hyper=FEW | change)


SMALL = {
    "batch_size": 8, "updates": 6, "accumulate": 2, "n_steps": 2, "n_steps_posterior": 2, "n_steps_prior": 2,
    "n_steps_fresh": 2, "n_learned": 2, "pool": 16, "n_updates_fresh": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", pplebm.inference_available())
def test_every_algorithm_goes_on_from_its_checkpoint_bit_for_bit(tmp_path, x, name):
    """Guide, optimiser, accumulated gradients, chains, flows, running averages."""
    page = pplebm.load(name)
    program = pplebm.Program(small_model(page, latent_dim=4))
    algorithm = Algorithm(page, program, hyper_of(page, SMALL))
    first = train.begin(algorithm, torch.as_tensor(x[:8]), 0, len(x), averages=True)
    loop, at = one_by_one(algorithm, x, 0, first, ema=0.9), []
    for _ in range(6):
        at.append(next(loop)[0])
    folder.write_checkpoint(tmp_path, program.ppl, at[2])
    again = folder.read_checkpoint(tmp_path, program.ppl, first)
    loop = one_by_one(algorithm, x, 0, again, ema=0.9)
    for _ in range(3):
        again, _ = next(loop)
    whole, parts = dict(tree_leaves(at[-1])), dict(tree_leaves(again))
    assert whole.keys() == parts.keys()
    for leaf, value in whole.items():
        assert np.array_equal(np.asarray(value), np.asarray(parts[leaf])), leaf


# --- where a run begins


def test_a_run_starts_from_the_parameters_of_its_twin(tmp_path, x, monkeypatch):
    twin = pplebm.fit("joint_ebm", x, out=tmp_path / "twin", updates=3, hyper=FEW | {"tilted": False})
    seen, step = [], Algorithm.step
    monkeypatch.setattr(Algorithm, "step", lambda self, key, state, *a: seen.append(state.params) or step(
        self, key, state, *a))  # fmt: skip
    run = pplebm.fit("joint_ebm", x, out=tmp_path / "run", updates=1, hyper=FEW, start=twin.path, compiled=False)
    monkeypatch.undo()
    assert set(twin.params) < set(run.params)
    for name, value in twin.params.items():
        assert torch.equal(seen[0][name], value)
    with pytest.raises(PplebmError, match="no checkpoint to start from"):
        pplebm.fit("joint_ebm", x, out=tmp_path / "other", updates=1, hyper=FEW, start=tmp_path)
    with pytest.raises(PplebmError, match="no parameter of the run"):
        pplebm.fit("conjugate_tilt", x, out=tmp_path / "third", updates=1, hyper=FEW, start=twin.path)


# --- guides of one's own


def written(ppl):
    def guide(x):
        location = ppl.param("location", 0.0)
        with ppl.plate("data", len(x)):
            mean = (location + 0.1 * x.sum(-1))[:, None] + ppl.asarray(np.zeros(8))
            ppl.sample("z1", ppl.dist.Normal(mean, 0.5).to_event(1))

    return guide


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_fit_learns_a_guide_of_ones_own_and_opens_with_it(tmp_path, x, backend):
    ppl = load_backend(backend)
    hyper = {"batch_size": 8, "n_steps_prior": 2, "model.latent_dim": 8}
    run = pplebm.fit(
        "latent_ebm", x, "variational_joint", tmp_path / "run", updates=3, hyper=hyper, backend=backend,
        guide=written(ppl),
    )  # fmt: skip
    assert {n for n in run.params if n.startswith("guide.")} == {"guide.location"}
    assert float(run.params["guide.location"]) != 0.0
    with pytest.raises(PplebmError, match="with a guide of its own"):
        pplebm.open_run(run.path)
    again = pplebm.open_run(run.path, guide=written(ppl))
    np.testing.assert_array_equal(again.reconstruct(x[:5]), run.reconstruct(x[:5]))
    with pytest.raises(PplebmError, match="learns no guide"):
        pplebm.fit(
            "latent_ebm",
            x,
            out=tmp_path / "b",
            hyper=FEW | {"latent_dim": 8},
            updates=1,
            backend=backend,
            guide=written(ppl),
        )


def test_a_files_own_guide_is_learned_and_kept_with_the_run(tmp_path, x):
    text = """
import pyro, pyro.distributions as dist, torch, pplebm
scale = torch.nn.Parameter(torch.tensor(0.3))

def model(x):
    w = pyro.param("w", torch.ones(4))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0., 1.))
        pplebm.tilt("f", torch.tanh(z))
        pyro.sample("x", dist.Normal(z[:, None] * w, 0.5).to_event(1), obs=x)

def guide(x):
    slope = pyro.param("slope", torch.tensor(0.2))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x.sum(-1), 0.5))
"""
    (tmp_path / "own.py").write_text(text)
    hyper = {"batch_size": 8, "n_steps_prior": 2}
    run = pplebm.fit(tmp_path / "own.py", x, "variational_joint", tmp_path / "run", updates=3, hyper=hyper)
    (tmp_path / "own.py").unlink()
    assert float(pplebm.open_run(run.path).params["guide.slope"]) != 0.2


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_gallery_page_may_declare_its_guide(tmp_path, x, backend):
    page = pplebm.load("latent_ebm")
    text = (
        Path(page.__file__).read_text()
        + """

def guide_nets(hyper, shape):
    return {"encoder": mlp(shape[0], 2 * hyper.latent_dim, width=8, depth=1)}


def guide(ppl, net, hyper, x):
    h = net["encoder"](x)
    d = hyper.latent_dim
    with ppl.plate("data", len(x)):
        ppl.sample("z1", ppl.dist.Normal(h[:, :d], ppl.softplus(h[:, d:]) + 0.01).to_event(1))
"""
    )
    (tmp_path / "mine.py").write_text(text)
    hyper = {"batch_size": 8, "n_steps_prior": 2}
    run = pplebm.fit(tmp_path / "mine.py", x, "variational_joint", tmp_path / "run", updates=2, hyper=hyper,
                     backend=backend)  # fmt: skip
    assert {n for n in run.params if n.startswith("guide.")} == {
        f"guide.encoder.{kind}_{i}" for kind in ("weight", "bias") for i in (0, 1)
    }
    other = pplebm.open_run(run.path, backend="numpyro" if backend == "pyro" else "pyro")
    z = run.posterior_latents(x[:3])
    assert other.posterior_latents(x[:3])["z1"].shape == z["z1"].shape


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
@pytest.mark.parametrize("change", [{"n_transforms": 2}, {"ratio_weight": 1.0}, {"tilt_to_guide": False}])
def test_choices_of_the_variational_page_change_what_they_say(tmp_path, x, backend, change):
    """Flows have weights of their own; a ratio loss moves the tilt alone; the tilt's pull moves the guide alone."""
    hyper = {"batch_size": 8, "n_steps_prior": 2, "model.latent_dim": 4}
    plain, changed = (
        pplebm.fit("latent_ebm", x, "variational_joint", tmp_path / name, updates=1, hyper=h, backend=backend)
        for name, h in (("plain", hyper), ("changed", hyper | change))
    )
    shared = set(plain.params) & set(changed.params)
    to_numpy = plain.program.ppl.to_numpy
    moved = {n.split(".")[0] for n in shared if not np.array_equal(*(to_numpy(r.params[n]) for r in (plain, changed)))}
    own = {n.split(".")[1] for n in set(changed.params) - shared}
    assert (moved, own) == {
        "n_transforms": ({"guide", "decoder", "tilt"}, {"flow_z1"}), "ratio_weight": ({"tilt"}, set()),
        "tilt_to_guide": ({"guide"}, set()),
    }[next(iter(change))]  # fmt: skip


# --- logs


def test_tensorboard_holds_what_metrics_hold(tmp_path, x):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = pplebm.fit("latent_ebm", x, out=tmp_path / "run", updates=30, hyper=FEW, tensorboard=True, compiled=False)
    events = reader.EventAccumulator(str(run.path / "tensorboard")).Reload()
    found = [(e.step, e.value) for e in events.Scalars("tilt_gap")]
    assert [step for step, _ in found] == [10, 20, 30]
    np.testing.assert_allclose([v for _, v in found], [row["tilt_gap"] for row in run.metrics], rtol=1e-6)


# --- watched chains


@pytest.mark.parametrize("slope", [1.5, -0.8])
def test_the_gap_between_chains_and_resampled_draws_is_that_of_the_laws(slope):
    """N(0, 1) tilted by slope z is N(slope, 1), where the mean of the tilt is slope²."""
    rng = np.random.default_rng(1)
    base, right = slope * rng.normal(size=4000), slope * (slope + rng.normal(size=4000))
    found = safeguards.chain_gap(right, base)
    assert abs(found["chain_gap"]) < 4 * found["chain_gap_error"] < 1
    left_behind = safeguards.chain_gap(slope * rng.normal(size=4000), base)
    assert abs(left_behind["chain_gap"] + slope**2) < 4 * left_behind["chain_gap_error"]
    exact = 4000 * np.exp(-(slope**2))  # (E w)² / E w²
    assert found["base_ess"] == pytest.approx(exact, rel=0.35)


def test_chains_that_miss_the_tilted_prior_are_lengthened():
    """The mean of the tilt slope z is slope² = 3.8 nats; one step of a chain moves it by a tenth of that."""

    def model(x):
        slope = pyro.param("slope", torch.tensor(1.95))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pplebm.tilt("f", slope * z)
            pyro.sample("x", dist.Normal(z, 0.3), obs=x)

    data = np.full(16, 2.0, np.float32)
    program = pplebm.Program(model, data=torch.as_tensor(data))
    changes = {"updates": 200, "batch_size": 8, "n_steps_prior": 1, "n_steps_posterior": 5, "learning_rate_tilt": 1e-6}
    algorithm = algorithm_of(short_run_mle, program, changes)
    loop = one_by_one(algorithm, data, 0, train.begin(algorithm, torch.as_tensor(data), 0))
    events = [next(loop) for _ in range(100)]
    progress, event = events[-1]
    assert all(e.rolled_back_to is None for _, e in events[:-1])
    assert event.rolled_back_to == 50 and progress.n_back_offs == 1
    told = re.search(r"prior chains and resampled base draws differ by ([0-9.]+) nats", event.reason)
    assert told and abs(float(told[1]) - 3.8) < 0.6  # 256 chains that hardly moved, of f ~ N(0, 3.8) at their start
    assert "prior.n_steps 1 -> " in event.reason
    assert event.metrics["base_ess"] > safeguards.MIN_BASE_ESS


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_chains_that_live_on_are_watched_where_they_stand(backend):
    """Not by fresh ones: a pool that was left behind is told, whatever fresh chains would reach."""
    program = pplebm.Program(pplebm.bind("conjugate_tilt", backend, shape=(3,)))
    page, rng, ppl = pplebm.load("persistent_mle"), np.random.default_rng(0), program.ppl
    algorithm = algorithm_of(page, program, {"pool": 512})
    state = algorithm.init(ppl.key(0), program.data(rng.normal(size=(16, 3)).astype(np.float32)), 16)
    watch = safeguards.watch(algorithm)
    exact = algorithm.negative(ppl.key(1), state.params, 512).z
    for shift, is_told in ((0.0, False), (8.0, True)):
        z = {name: a + shift for name, a in algorithm.noncentered.move(state.params, exact, "noncentered").items()}
        found = watch(ppl.key(2), state._replace(negative=state.negative._replace(z=z)), None)
        assert bool(safeguards.fault(found)) is is_told, found


def test_seeds_at_once_are_seeds_one_after_another(tmp_path):
    from click.testing import CliRunner

    from pplebm.cli import main

    few = [f"--set={n}={v}" for n, v in FEW.items()]
    said = []
    for jobs in ("1", "2"):
        done = CliRunner().invoke(
            main, ["fit", "latent_ebm", "--updates=2", "--seeds=0..1", f"--jobs={jobs}", f"--out={tmp_path}/{jobs}",
                   "--no-report", "--no-compile", *few]
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        said.append([line for line in done.output.splitlines() if "±" in line and "seconds" not in line])
    assert said[0] == said[1] and len(said[0]) > 3
