"""The loop: k updates in one call are k calls of one, an update's graph is the update, rows are read from files."""

from __future__ import annotations

import numpy as np
import pytest
from changes import small_model, taken

import pplebm
from pplebm.backends.pyro import whole
from pplebm.backends.pyro.keys import Notes, normal_like, split
from pplebm.learning import loop
from pplebm.learning.algorithm import Algorithm, State, algorithm_of
from pplebm.learning.batches import BLOCK, Reader
from pplebm.ppl.language import load_backend
from pplebm.ppl.parallel import Alone
from pplebm.ppl.trees import tree_leaves, tree_map

FEW = {
    "batch_size": 8, "updates": 40, "n_steps": 2, "n_steps_posterior": 2, "n_steps_prior": 2, "n_steps_fresh": 2,
    "pool": 16, "width": 4, "n_layers": 2, "n_particles": 2,
}  # fmt: skip
DATA = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)


def algorithm(backend, page, **more):
    page = pplebm.load(page)
    program = pplebm.Program(small_model(page, backend, latent_dim=2, width=8, tilt_width=8))
    return algorithm_of(page, program, taken(page, FEW | more))


def after(owner, n, at_most=BLOCK, progress=None):
    progress = progress or loop.begin(owner, owner.program.data(DATA[:8]), 3, len(DATA), averages=True)
    *_, (last, _) = loop.updates(owner, DATA, 3, progress, ema=0.9, total=n, at_most=at_most)
    return last


def plain(owner, tree):
    return {n: owner.ppl.to_numpy(a) if hasattr(a, "shape") else np.asarray(a) for n, a in tree_leaves(tree)}


def assert_equal(owner, a, b):
    a, b = plain(owner, a), plain(owner, b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("page", ["short_run_mle", "noise_contrastive", "persistent_mle"])
@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_updates_in_one_call_are_those_of_single_calls(backend, page):
    owner = algorithm(backend, page)
    together = after(owner, 23)
    assert together.update == 23
    assert_equal(owner, together, after(owner, 23, at_most=1))
    assert_equal(owner, together, after(owner, 23, 3, after(owner, 14, 4)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", ["weight", "number", "moment", "chain", "metric", None])
@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_whatever_is_not_finite_is_seen_wherever_it_is(backend, place, bad):
    ppl = load_backend(backend)
    values = dict.fromkeys(("weight", "number", "moment", "chain", "metric"), 1e30) | {place: bad}
    array = lambda name: ppl.asarray(np.array([[0.0, values[name]], [-1e30, 1.0]], np.float32))
    params = {"weight": array("weight"), "number": ppl.asarray(values["number"])}
    state = State(params, {"moment": array("moment")}, 3, array("chain"), ())
    info = {"metric": ppl.asarray(values["metric"]), "count": ppl.asarray(2), "share": 0.5}
    seen = ppl.compiled(lambda key: loop._is_finite(ppl, state, info))(ppl.key(0))
    assert bool(seen) is (place is None)


@pytest.mark.parametrize("page", ["persistent_mle", "flow_posterior"])
@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_of_what_is_kept_by_datum_the_rows_of_the_batch_are_looked_at(backend, page):
    owner = algorithm(backend, page)
    ppl, state = owner.ppl, loop.begin(owner, owner.program.data(DATA[:8]), 3, len(DATA)).state
    index = ppl.asarray(np.array([1, 3, 30]))
    for row, is_finite in ((None, True), (2, True), (3, False), (30, False)):
        chosen = ppl.asarray(np.arange(len(DATA)) == row)
        spoilt = lambda a, chosen=chosen: ppl.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a * np.nan, a)
        by_row = lambda a, spoilt=spoilt: spoilt(a) if a.ndim and len(a) == len(DATA) else a
        bad = state._replace(positive=tree_map(by_row, state.positive))
        assert bool(loop._is_finite(ppl, loop._of_batch(owner, bad, index, len(DATA)), {})) is is_finite
    broken = state._replace(params={name: a * np.nan for name, a in state.params.items()})
    assert not loop._is_finite(ppl, loop._of_batch(owner, broken, index, len(DATA)), {})


def test_a_block_ends_with_every_fiftieth_update_at_the_latest():
    owner = algorithm("pyro", "noise_contrastive")
    begin = loop.begin(owner, owner.program.data(DATA[:8]), 0, len(DATA))
    ends = [(p.update, [e.update for e in events]) for p, events in loop.updates(owner, DATA, 0, begin, total=120)]
    assert [n for _, numbers in ends for n in numbers] == list(range(1, 121))
    assert all(update == numbers[-1] and (numbers[0] - 1) // BLOCK == (update - 1) // BLOCK for update, numbers in ends)
    assert {50, 100, 120} <= {update for update, _ in ends}


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_block_ends_where_the_page_says_that_learning_has_arrived(backend, monkeypatch):
    """Otherwise the last update would depend on how many of them were made in one call."""
    owner = algorithm(backend, "noise_contrastive")
    monkeypatch.setattr(owner.page, "arrived", lambda algorithm, state: state.update == 17, raising=False)
    begin = loop.begin(owner, owner.program.data(DATA[:8]), 0, len(DATA))
    ends = [p.update for p, _ in loop.updates(owner, DATA, 0, begin, total=40)]
    assert 17 in ends and ends[-1] == 40


@pytest.mark.parametrize("page", ["noise_contrastive", "flow_posterior"])
@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_what_the_optimizer_keeps_is_looked_at_before_it_may_be_gone_back_to(backend, page, monkeypatch):
    """A rule that breaks what it keeps, and leaves what is learned as it is."""
    owner = algorithm(backend, page, updates=200)
    spoilt = lambda a: a * np.nan if getattr(a, "ndim", 0) else a
    plainly = Algorithm.step

    def step(self, key, state, x, index=None):
        new, info = plainly(self, key, state, x, index)
        kept = {"params": state.params, "positive": state.positive}
        return new._replace(**kept, optimizer=tree_map(spoilt, new.optimizer)), info

    monkeypatch.setattr(Algorithm, "step", step)
    begin = loop.begin(owner, owner.program.data(DATA[:8]), 0, len(DATA))
    undone = [e for _, events in loop.updates(owner, DATA, 0, begin, total=60) for e in events if e.reason]
    assert [(e.update, e.rolled_back_to) for e in undone] == [(50, 0)]


@pytest.mark.parametrize("page", ["persistent_mle", "flow_posterior"])
@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_what_is_kept_by_datum_is_looked_at_after_every_update(backend, page, monkeypatch):
    """The seventh update breaks the first of its rows, and nothing that is told."""
    owner, plainly = algorithm(backend, page, updates=200), Algorithm.step
    ppl = owner.ppl

    def step(self, key, state, x, index=None):
        new, info = plainly(self, key, state, x, index)
        factor = ppl.where(ppl.asarray(state.update) == 6, ppl.asarray(np.nan), ppl.asarray(1.0))
        is_row = lambda a: getattr(a, "ndim", 0) and len(a) == len(DATA)
        spoilt = lambda a: ppl.put(a, index[:1], factor * a[index[:1]]) if is_row(a) else a
        return new._replace(positive=tree_map(spoilt, new.positive)), info

    monkeypatch.setattr(Algorithm, "step", step)
    begin = loop.begin(owner, owner.program.data(DATA[:8]), 0, len(DATA))
    events = [e for _, found in loop.updates(owner, DATA, 0, begin, total=8) for e in found][:7]
    assert [e.update for e in events] == list(range(1, 8)) and events[-1].rolled_back_to == 0
    assert not any(e.reason for e in events[:-1])


def as_graph(self, function):
    """A part of an update as in a long run, its chains as in a short one."""
    options = self.program.options._replace(compiled=True)
    return self._compiled.setdefault(function.__name__, whole.compiled(function, options))


@pytest.mark.parametrize("page", sorted(pplebm.inference_available()))
def test_the_graph_of_an_update_is_the_update(page, float64, monkeypatch):
    """Also at another key and another state than those it was made with."""
    owner = algorithm("pyro", page)
    x = owner.program.data(DATA[:8].astype(np.float64))
    state = owner.init(0, x, len(DATA))
    eager = [owner.step(key, state, x) for key in (1, 2)]
    eager += [owner.step(3, at, x) for at in (eager[0][0], state._replace(update=37))]  # rates fall, stages change
    monkeypatch.setattr(Algorithm, "_whole", as_graph)
    owner = algorithm("pyro", page)
    graph = [owner.step(key, state, x) for key in (1, 2)]
    graph += [owner.step(3, at, x) for at in (graph[0][0], state._replace(update=37))]
    for a, b in zip(graph, eager, strict=True):
        a, b = plain(owner, a), plain(owner, b)
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-9, atol=1e-11, err_msg=name)


def test_a_function_that_draws_otherwise_is_run_as_it_is():
    owner = algorithm("pyro", "noise_contrastive")
    calls = []

    def draws(key, params):
        calls.append(1)
        with owner.ppl.seeded(key):
            return {"a": params["a"] + np.random.default_rng(0).normal()}

    run = owner.ppl.compiled(draws, whole=owner.program.options._replace(compiled=True))
    for key in (1, 2):
        run(key, {"a": owner.ppl.asarray(np.zeros(3))})
    assert len(calls) == 3  # once more, to see what it draws


def test_draws_of_a_graph_follow_its_key():
    import torch

    like = {"a": torch.zeros(3)}

    def function(key):
        first, second = split(key)
        return normal_like(split(second, 3)[1], like), normal_like(first, like)

    notes = Notes()
    function(notes.key(5))
    for found, expected in zip(notes.draws(9), function(9), strict=True):
        assert torch.equal(found["a"], expected["a"])


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_rows_are_read_from_a_mapped_file(backend, tmp_path):
    """Whatever was read ahead is what is asked for, or is not used."""
    np.save(tmp_path / "rows.npy", DATA)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    owner = algorithm(backend, "persistent_mle")
    group = Alone(lambda a: owner.ppl.asarray(a, keep=True))
    found, expected = Reader(owner, mapped, 3, group, 0.9), Reader(owner, DATA, 3, group, 0.9)
    found.read_ahead(10, 0)
    for update, n_rollbacks in ((10, 0), (10, 1), (17, 1)):
        a, b = found.read(update, n_rollbacks), expected.read(update, n_rollbacks)
        for name in ("x", "index", "decay"):
            np.testing.assert_array_equal(owner.ppl.to_numpy(a[name]), owner.ppl.to_numpy(b[name]))
        assert str(a["key"]) == str(b["key"])
        found.read_ahead(17, 0)
    assert a["x"].shape == (BLOCK, 8, 4)
    found.close(), expected.close()
