"""Scalings, splits and batches."""

import collections
import hashlib
import json
import math

import numpy as np
import pytest
from data_cases import BYTES, HOLE, IMAGES, NONE, TABLE, fault, same_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import pplebm.data as data
from pplebm.data.scaling import range_of, standard_of

FINITE = st.floats(-1e30, 1e30, width=64)


@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6), elements=FINITE))
def test_standard_scaling_round_trip(x):
    s = standard_of(x)
    model = s.to_model(x)
    assert model.dtype == np.float32 and np.abs(model.astype(float).mean(0)).max() < 1e-5 * max(1, np.abs(model).max())
    error = np.abs(s.to_user(model) - x)
    underflow = 1e-44 * np.asarray(s.scale)  # of float32 model values
    assert (error <= 1e-6 * np.abs(x - s.shift) + 1e-12 * np.abs(x) + underflow + 1e-300).all()
    assert data.Scaling.from_json(json.loads(json.dumps(s.to_json()))) == s


@given(hnp.arrays(np.float64, (3, 2, 2), elements=FINITE))
def test_range_scaling_round_trip(x):
    low, high = float(x.min()), float(x.max())
    if math.nextafter(low, high) >= high:
        return
    s = range_of(low, high)
    model = s.to_model(x)
    assert np.abs(model).max() <= 1
    assert (np.abs(s.to_user(model) - x) <= 1e-6 * s.scale + 1e-12 * np.abs(x)).all()
    assert data.Scaling.from_json(json.loads(json.dumps(s.to_json()))) == s


@pytest.mark.parametrize("unit", [1e-200, 1e-8, 1.0, 1e8, 1e200])
def test_units_do_not_matter(unit):
    np.testing.assert_allclose(data.load(TABLE * unit).train, data.load(TABLE).train, atol=1e-6)
    np.testing.assert_allclose(data.load(IMAGES * unit).train, data.load(IMAGES).train, atol=1e-6)


def test_known_scalings():
    assert data.load(BYTES).scaling == data.Scaling("range", 127.5, 127.5)
    assert data.load(IMAGES + 2, seed=1).train.min() == -1 and data.load(IMAGES, seed=1).train.max() == 1
    table = data.load(TABLE)
    np.testing.assert_allclose(table.train.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(table.train.std(0), 1, atol=1e-6)  # of the training rows, not of all
    np.testing.assert_array_equal(
        BYTES, np.rint(data.load(BYTES).scaling.to_user(data.load(BYTES).scaling.to_model(BYTES)))
    )
    assert NONE.to_model(TABLE) is TABLE
    fault(["(4, 2)", "3 columns", "last axis"], table.scaling.to_model, np.zeros((4, 2)))
    fault(["()", "3 columns"], table.scaling.to_user, 1.0)


@pytest.mark.parametrize(
    "fields",
    [None, {}, [], {"kind": "log", "shift": 0, "scale": 1}, {"kind": "range", "shift": 0, "scale": 0}]
    + [{"kind": "standard", "shift": [0, 1], "scale": [1]}, {"kind": "range", "shift": float("nan"), "scale": 1}]
    + [{"kind": "range", "shift": "a", "scale": 1}, {"kind": [], "shift": 0, "scale": 1}],
)
def test_a_bad_stored_scaling_is_one_sentence(fields):
    fault(["stored scaling", "manifest"], data.Scaling.from_json, fields)


def test_constant_columns_are_left_and_noted(tmp_path):
    x = np.column_stack([TABLE, np.full(50, 7.3)])
    ds = data.load(x)
    assert ds.scaling.scale[3] == 1 and ds.scaling.shift[3] == 7.3 and (ds.train[:, 3] == 0).all()
    assert len(ds.notes) == 1 and "column 3" in ds.notes[0]
    np.savetxt(tmp_path / "t.csv", x, delimiter=",", header="a,b,c,d", comments="")
    assert "column 'd'" in data.load(tmp_path / "t.csv").notes[0]
    assert "and 3 more" in data.load(np.column_stack([TABLE, np.zeros((50, 8))])).notes[0]
    assert data.load(TABLE).notes == ()


def test_notes_on_images():
    assert "features are constant" in " ".join(data.load("digits").notes)
    assert "reach only 1;" in " ".join(data.load((BYTES > 99).astype(np.uint8)).notes)
    assert data.load(BYTES).notes == ()


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.2, 0.5, 0.999])
def test_the_split_is_disjoint_seeded_and_exact(fraction):
    x = np.arange(120.0).reshape(40, 3)
    ds, again, other = (data.load(x, held_out_fraction=fraction, seed=s) for s in (4, 4, 5))
    same_rows(ds, x)
    assert len(ds.held_out) == min(max(round(40 * fraction), 1), 38)
    assert ds.fingerprint == again.fingerprint != other.fingerprint
    assert ds.fingerprint == hashlib.sha256(ds.train.tobytes() + ds.held_out.tobytes()).hexdigest()


@settings(max_examples=50)
@given(st.lists(st.integers(0, 4), min_size=20, max_size=200), st.floats(0.1, 0.9), st.integers(0, 2**40))
def test_the_split_is_stratified(labels, fraction, seed):
    from pplebm.data.raw import split

    y = np.array(labels)
    train, held_out = split(len(y), fraction, seed, y)
    assert sorted([*train, *held_out]) == list(range(len(y)))
    for label in set(labels):
        assert abs((y[held_out] == label).sum() - (y == label).sum() * len(held_out) / len(y)) < 1


def test_digits():
    ds = data.load("digits", held_out_fraction=0.25, seed=3)
    assert ds.train.shape == (1348, 8, 8) and ds.held_out.shape == (449, 8, 8)
    assert ds.scaling == data.Scaling("range", 8.0, 8.0) and (ds.train.min(), ds.train.max()) == (-1, 1)
    counts = np.bincount(ds.held_out_labels)
    assert len(counts) == 10 and counts.min() >= 43 and counts.max() <= 46
    assert data.load(ds) is ds
    with_seeds = [data.load("digits", seed=s).fingerprint for s in (0, 0, 1)]
    assert with_seeds[0] == with_seeds[1] != with_seeds[2]
    every = data.load_for(ds.scaling, ds.event_shape, "digits")
    assert every.shape == (1797, 8, 8)
    np.testing.assert_array_equal(data.load_for(ds.scaling, ds.event_shape, ds), ds.held_out)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**40), st.integers(0, 10**6))
def test_batches_cover_every_row_at_most_once(n, batch_size, seed, epoch):
    if batch_size > n:
        fault([str(batch_size), f"{n} training rows"], data.batches, n, batch_size, seed, epoch)
        return
    got = data.batches(n, batch_size, seed, epoch)
    counts = collections.Counter(int(i) for batch in got for i in batch)
    assert len(got) == n // batch_size and all(len(b) == batch_size for b in got)
    assert set(counts) <= set(range(n)) and set(counts.values()) <= {1}
    np.random.seed(0)  # the global state must play no part
    np.testing.assert_array_equal(np.array(got), np.array(data.batches(n, batch_size, seed, epoch)))


def test_batches_differ_by_seed_and_epoch():
    orders = {tuple(np.concatenate(data.batches(50, 5, seed, epoch))) for seed in range(6) for epoch in range(6)}
    assert len(orders) == 36


BAD_CALLS = {
    "fraction 1": (data.load, (TABLE,), dict(held_out_fraction=1), ["held_out_fraction", "1"]),
    "fraction nan": (data.load, (TABLE,), dict(held_out_fraction=float("nan")), ["nan"]),
    "fraction text": (data.load, (TABLE,), dict(held_out_fraction="a"), ["'a'"]),
    "seed -1": (data.load, (TABLE,), dict(seed=-1), ["seed", "-1"]),
    "seed 0.5": (data.load, (TABLE,), dict(seed=0.5), ["seed", "0.5"]),
    "no rows": (data.batches, (0, 1, 0, 0), {}, ["n must", "0"]),
    "batch 0": (data.batches, (9, 0, 0, 0), {}, ["batch_size must", "0"]),
    "batch 2.0": (data.batches, (9, 2.0, 0, 0), {}, ["batch_size must", "2.0"]),
    "batch True": (data.batches, (9, True, 0, 0), {}, ["True"]),
    "epoch -1": (data.batches, (9, 3, 0, -1), {}, ["epoch must", "-1"]),
    "seed None": (data.batches, (9, 3, None, 0), {}, ["seed must", "None"]),
    "shape": (data.load_for, (NONE, (8, 8), IMAGES), {}, ["(6, 5)", "(8, 8)", "(rows, 8, 8)"]),
    "one datum": (data.load_for, (NONE, (6, 5), IMAGES[0]), {}, ["(5,)", "(rows, 6, 5)"]),
    "digits for colour": (data.load_for, (NONE, (32, 32, 3), "digits"), {}, ["digits:", "(8, 8)", "(32, 32, 3)"]),
    "nan for a model": (data.load_for, (NONE, (3,), HOLE), {}, ["2 of 150"]),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_a_bad_argument_is_one_sentence(case):
    call, args, kwargs, words = BAD_CALLS[case]
    fault(words, call, *args, **kwargs)


def test_new_data_may_be_one_row():
    assert data.load_for(NONE, (3,), TABLE[:1]).shape == (1, 3)
