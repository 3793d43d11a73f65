"""Learning: the objective's parts, roll-back, and that log p(x) rises where it is known."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from linear_gaussian import as_numpy, log_evidence
from updating import one_by_one

import pplebm
from pplebm.errors import PplebmError
from pplebm.kernels.langevin import langevin
from pplebm.learning import loop as train
from pplebm.learning.algorithm import Algorithm, algorithm_of
from pplebm.learning.optimizer import Optimizer
from pplebm.learning.sources import ShortRun
from pplebm.objectives.contrast import contrast
from pplebm.runs import checkpoints as folder
from pplebm.sampling import chains


@pytest.fixture
def conjugate():
    """Page, program and data simulated from the model at other parameters."""
    page = pplebm.load("conjugate_tilt")
    truth = pplebm.Program(pplebm.bind(page, shape=(4,), init_seed=5))
    params = truth.params
    exact = page.closed_form(as_numpy(params), page.Hyper())
    rng = np.random.default_rng(0)
    z1 = rng.multivariate_normal(exact.mean, exact.covariance, size=512)[:, :3]
    x = z1 @ params["W"].numpy().T + 0.5 * rng.normal(size=(512, 4))
    return page, pplebm.Program(pplebm.bind(page, shape=(4,))), x.astype("float32")


def test_short_run_mle_raises_the_exact_log_evidence(conjugate):
    """The model's own log p(x), log Z included, in closed form before and after."""
    model_page, program, x = conjugate
    page = pplebm.load("short_run_mle")
    changes = {
        "updates": 150, "batch_size": 128, "learning_rate": 0.01, "learning_rate_tilt": 0.01, "tilt_penalty": 0.0,
        "step_size_posterior": 0.4, "step_size_prior": 0.4,
        "n_steps_posterior": 15, "n_steps_prior": 20,
    }  # fmt: skip
    algorithm = algorithm_of(page, program, changes)

    def evidence(params):
        return np.mean([log_evidence(model_page, as_numpy(params), model_page.Hyper(), datum) for datum in x])

    start = train.begin(algorithm, program.ppl.asarray(x[:128]), 0)
    loop = one_by_one(algorithm, x, 0, start)
    for _ in range(150):
        progress, _event = next(loop)
    gain = evidence(progress.state.params) - evidence(start.state.params)
    entropy_bound = evidence(pplebm.Program(pplebm.bind(model_page, shape=(4,), init_seed=5)).params)
    assert gain > 0.5
    assert evidence(progress.state.params) > entropy_bound - 0.25  # within a quarter nat of the truth's own fit


def test_without_tilt_there_is_no_negative_phase(monkeypatch):
    program = pplebm.Program(pplebm.bind("joint_ebm", shape=(4,), tilted=False))
    algorithm = algorithm_of(pplebm.load("short_run_mle"), program, {"batch_size": 8, "n_steps_posterior": 2})
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    state = algorithm.init(0, x)
    runs, draw = [], ShortRun.draw
    monkeypatch.setattr(ShortRun, "draw", lambda *a, **more: runs.append(a) or draw(*a, **more))
    _, info = algorithm.step(1, state, x)
    assert len(runs) == 1 and runs[0][-1] is True  # towards the posterior
    assert info["tilt_gap"] == 0 and "divergent_negative" not in info and "divergent_positive" in info


def test_saturation_is_the_share_of_tilt_values_at_their_bound():
    program = pplebm.Program(pplebm.bind("latent_ebm", shape=(4,), latent_dim=3, tilt_bound=0.01))
    z = program.draw_base(0, 64)
    f = program.log_tilt(program.params, z)
    aux = contrast(program, program.params, torch.zeros(64, 4), z, z)[1]
    assert 0 < aux.tilt_saturation.item() == pytest.approx((f.abs() > 0.0095).float().mean().item())
    with pytest.raises(PplebmError, match="'tilt_bound' of page 'latent_ebm' must be greater than 0"):
        pplebm.bind("latent_ebm", shape=(4,), tilt_bound=-1.0)
    with pytest.raises(PplebmError, match="positive number of nats"):
        pplebm.tilt("f", f, bound=-1.0)


def test_penalty_adds_its_own_gradient():
    program = pplebm.Program(pplebm.bind("latent_ebm", shape=(4,), latent_dim=3))
    ppl, params = program.ppl, program.params
    x, z = torch.zeros(6, 4), program.draw_base(0, 6)
    negative = program.draw_base(1, 6)

    def loss(penalty):
        return contrast(program, params, x, z, negative, penalty)[0].item()

    f = [program.log_tilt(params, v).pow(2).mean().item() for v in (z, negative)]
    assert loss(0.7) - loss(0.0) == pytest.approx(0.7 * sum(f), rel=1e-3)
    _, gradient = ppl.value_and_grad(lambda p: contrast(program, p, x, z, negative, 0.7)[0], params)
    assert set(gradient) == set(params)


@pytest.mark.parametrize(
    "name", [name for name in pplebm.inference_available() if "tilt_penalty" in pplebm.load(name).Hyper._fields]
)
def test_a_page_with_a_penalty_pays_it(ppl, name):
    """In an update of its own: nothing at 0, and in proportion elsewhere, at the same draws."""
    program = pplebm.Program(pplebm.bind("latent_ebm", ppl.name, shape=(4,), latent_dim=3))
    x, paid = ppl.asarray(np.random.default_rng(0).normal(size=(8, 4)).astype("float32")), []
    for penalty in (0.0, 0.3, 0.6):
        algorithm = algorithm_of(pplebm.load(name), program, {"batch_size": 8, "tilt_penalty": penalty})
        state = algorithm.init(ppl.key(0), x)
        _, info = algorithm.step(ppl.key(1), state, x, ppl.asarray(np.arange(8)))
        paid.append(float(info["tilt_penalty"]))
    assert paid[0] == 0.0 < paid[1] and paid[2] == pytest.approx(2.0 * paid[1], rel=1e-4)


class Hyper(NamedTuple):
    batch_size: int = 4
    updates: int = 100


class State(NamedTuple):
    params: dict


class Fragile:
    """An algorithm whose update is non-finite at chosen calls."""

    Hyper = Hyper

    def __init__(self, bad, always=False):
        self.calls, self.bad, self.always = 0, bad, always

    def init(self, algorithm, key, x, n_data):
        return State({"a": algorithm.ppl.asarray(0.0)})

    def step(self, algorithm, key, state, x, index):
        self.calls += 1
        bad = self.always or self.calls in self.bad
        return State({"a": state.params["a"] + (math.nan if bad else 1.0)}), {"value": 1.0}


@pytest.fixture
def program():
    return pplebm.Program(pplebm.bind("latent_ebm", shape=(2,), latent_dim=1))


@pytest.fixture
def unwatched(monkeypatch):
    """Pages without chains to watch."""
    monkeypatch.setattr(train, "WATCH_EVERY", 10**9)


@pytest.mark.usefixtures("unwatched")
def test_roll_back_to_the_last_good_state(program):
    algorithm, x = Algorithm(Fragile({120}), program), np.zeros((8, 2), "float32")
    loop = one_by_one(algorithm, x, 0, train.begin(algorithm, x, 0))
    for _ in range(125):
        progress, event = next(loop)
        if event.rolled_back_to is not None:
            assert progress.update == 120 and event.rolled_back_to == 100 and progress.state.params["a"] == 100
    assert progress.n_rollbacks == 1 and progress.state.params["a"] == 105


def test_endless_roll_back_stops_with_a_remedy(program):
    algorithm, x = Algorithm(Fragile(set(), always=True), program), np.zeros((8, 2), "float32")
    loop = one_by_one(algorithm, x, 0, train.begin(algorithm, x, 0))
    with pytest.raises(PplebmError, match=r"non-finite.*bound the tilt"):
        for _ in range(50):
            next(loop)


@pytest.mark.parametrize("init", ["normal", "base", "given"])
def test_chains_start_where_they_are_told(init, float64):
    model = pplebm.bind("joint_ebm", shape=(4,), latent_dims=(3, 2))
    program = pplebm.Program(model)
    ppl, params, n = program.ppl, program.params, 4000
    given = {"z1": torch.ones(n, 3), "z2": torch.zeros(n, 2)}
    z = chains.start(program, 0, params, n, given if init == "given" else init)
    if init == "given":
        assert (z["z1"] == 1).all() and (z["z2"] == 0).all()
    elif init == "normal":
        assert abs(z["z1"].mean().item()) < 5 / (3 * n) ** 0.5
        assert abs(z["z1"].var().item() - 1) < 5 * (2 / (3 * n)) ** 0.5
    else:  # ancestral draws are N(0, I) in noncentered coordinates, and those of the host in z
        noise = program.move(params, z, "noncentered")
        assert abs(noise["z1"].var().item() - 1) < 5 * (2 / (3 * n)) ** 0.5
        assert torch.equal(z["z2"], program.draw_base(0, n, params)["z2"])
    assert ppl.isfinite(z["z1"]).all()


def test_bad_starts_are_named(program):
    with pytest.raises(PplebmError, match="'anywhere' is not known"):
        chains.start(program, 0, program.params, 3, "anywhere")
    with pytest.raises(PplebmError, match=r"'z1' is \(2, 1\); expected shape \(3, 1\)"):
        chains.start(program, 0, program.params, 3, {"z1": torch.zeros(2, 1)})


def test_short_run_without_data_is_the_prior_and_with_data_the_posterior(float64):
    """Moments against the closed form, at steps small enough for the bias to vanish in the error."""
    page = pplebm.load("conjugate_tilt")
    program = pplebm.Program(pplebm.bind(page, shape=(4,)))
    params, n, kernel = program.params, 1500, langevin(0.2)
    x = np.array([1.0, -1.0, 0.5, 0.0])
    for data, exact in (
        (None, page.closed_form(as_numpy(params), page.Hyper())),
        (torch.as_tensor(np.repeat(x[None], n, 0)), page.closed_form(as_numpy(params), page.Hyper(), x)),
    ):
        z, trouble = chains.short_run(program, 3, params, n if data is None else data, kernel, 250)
        got = np.concatenate([z["z1"].numpy(), z["z2"].numpy()], 1)
        error = np.sqrt(np.diag(exact.covariance) / n)
        assert (np.abs(got.mean(0) - exact.mean) < 5 * error).all()
        assert np.abs(np.diag(np.cov(got.T)) / np.diag(exact.covariance) - 1).max() < 0.05 + 5 * np.sqrt(2 / n)
        assert trouble.divergent == 0 and trouble.accepted == 1


def test_updates_follow_from_seed_and_number_alone(program):
    changes = {"updates": 6, "batch_size": 4, "n_steps_posterior": 2, "n_steps_prior": 2}
    algorithm = algorithm_of(pplebm.load("short_run_mle"), program, changes)
    x = np.random.default_rng(0).normal(size=(9, 2)).astype("float32")
    progress = start = train.begin(algorithm, program.ppl.asarray(x[:4]), 0)
    loop = one_by_one(algorithm, x, 0, start)
    middle = None
    for i in range(6):
        progress, _ = next(loop)
        middle = progress if i == 2 else middle
    again = middle
    loop = one_by_one(algorithm, x, 0, middle)
    for _ in range(3):
        again, _ = next(loop)
    assert again.update == progress.update == 6
    for name, value in progress.state.params.items():
        assert torch.equal(value, again.state.params[name])


@pytest.mark.usefixtures("unwatched")
def test_a_tilt_that_runs_away_is_rolled_back_slowed_and_told(program, tmp_path):
    """A page whose tilt gap grows until its rate was halved twice."""

    class Rates(NamedTuple):
        updates: int = 200
        batch_size: int = 4
        optimizer: Optimizer = Optimizer(learning_rate_tilt=1.0)
        prior: ShortRun = ShortRun(n_steps=10)

    seen = []

    class Runaway(Fragile):
        Hyper = Rates

        def step(self, algorithm, key, state, x, index):
            seen.append(algorithm.hyper)
            gap = state.params["a"] + algorithm.optimizer.learning_rate_tilt - 0.3
            return State({"a": gap}), {"tilt_gap": gap}

    algorithm, x = Algorithm(Runaway(set()), program), np.zeros((8, 2), "float32")
    loop = one_by_one(algorithm, x, 0, train.begin(algorithm, x, 0))
    events = []
    for _ in range(180):
        progress, event = next(loop)
        events += [event] if event.rolled_back_to is not None else []
    assert len(events) == 2 and progress.n_back_offs == 2
    assert events[0].reason == (
        f"the tilt gap is {events[0].metrics['tilt_gap']:.1f} nats; optimizer.learning_rate_tilt 1 -> 0.5, "
        f"prior.n_steps 10 -> 15"
    )
    assert seen[-1].optimizer.learning_rate_tilt == 0.25 and seen[-1].prior.n_steps == 23
    again = one_by_one(algorithm, x, 0, progress)  # a resumed run keeps to the gentler settings
    next(again)
    assert seen[-1] == seen[-2]


def test_average_and_early_stop(tmp_path):
    data = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    hyper = {"batch_size": 12, "n_steps_posterior": 2, "n_steps_prior": 2}
    settings = {"out": tmp_path / "a", "updates": 400, "hyper": hyper, "ema": 0.9, "patience": 1, "compiled": False}
    run = pplebm.fit("conjugate_tilt", data, "short_run_mle", **settings)
    stop = run.manifest.stopped_early
    errors = [row["held_out_error"] for row in run.metrics if "held_out_error" in row]
    assert stop == 100 * len(errors) and errors[-1] >= min(errors[:-1]) and stop < 400
    progress = folder.read_checkpoint(
        run.path, run.program.ppl, train.begin(run.algorithm, torch.zeros(12, 4), 0, 48, True)
    )
    for name, average in progress.average.items():
        assert torch.equal(run.params[name], average)
    assert any(not torch.equal(run.params[n], p) for n, p in progress.state.params.items())
    table = (run.path / "metrics.csv").read_text().splitlines()
    assert table[0].startswith("update,seconds,tilt_gap") and len(table) == len(run.metrics) + 1
    for wrong in ({"ema": 1.0}, {"patience": -1}):
        with pytest.raises(PplebmError, match="ema"):
            pplebm.fit("conjugate_tilt", data, out=tmp_path / "b", **wrong)


@pytest.mark.parametrize("step_size", [0.1, 1.0])
def test_learned_steps_that_are_unstable_grow_shorter(ppl, step_size):
    """Logits of a steep decoder: derivatives through 25 steps are of tens of thousands of nats, and of either sign."""
    x = (np.random.default_rng(0).random((24, 16)) < 0.5).astype(np.float32)
    model = pplebm.bind("latent_ebm", ppl.name, shape=(16,), latent_dim=4, likelihood="bernoulli")
    program = pplebm.Program(model, data=x)
    page, changes = pplebm.load("short_run_learned_step"), {"posterior.step_size": step_size, "batch_size": 24}
    owner = algorithm_of(page, program, changes)
    state = owner.init(ppl.key(0), program.data(x), 24)
    steep = {name: 8.0 * p if name.startswith("decoder") else p for name, p in state.params.items()}
    new, info = owner.step(ppl.key(1), state._replace(params=steep), program.data(x))
    name = "step_size.z1"
    assert float(new.params[name]) < float(steep[name]) - 1e-3
    assert np.isfinite(float(info["grad_norm"])) and np.isfinite(float(info["divergence"]))
