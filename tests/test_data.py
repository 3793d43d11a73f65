"""Laws of pplebm.data: what is read is what was stored, and every bad input is one sentence that names its fault."""

import collections
import doctest
import gzip
import hashlib
import importlib
import json
import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import pplebm.data as data
from pplebm.data.scaling import range_of, standard_of
from pplebm.errors import PplebmError

SHARED = Path(__file__).resolve().parents[1] / "../shared/data"
NONE = data.Scaling("none", 0.0, 1.0)
RNG = np.random.default_rng(0)
TABLE = RNG.normal(3.0, 2.0, (50, 3))
IMAGES = RNG.random((20, 6, 5))
BYTES = RNG.integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)


def fault(words, call, *args, **kwargs):
    """The message of the PplebmError that `call` raises: one line that holds all `words`."""
    with pytest.raises(PplebmError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message and not message.endswith(".") and len(message) > 30
    for word in words:
        assert word in message, message
    return message


# --- bad arrays, whatever way they come in --------------------------------------------------------------------------

HOLE = TABLE.copy()
HOLE[[7, 9], [1, 0]] = np.nan, np.inf
HOLE_IMAGE = IMAGES.copy()
HOLE_IMAGE[2, 3, 4] = -np.inf
BAD_ARRAYS = {
    "nan": (HOLE, ["2 of 150 values", "(nan)", "row 7, column 1"]),
    "inf in an image": (HOLE_IMAGE, ["1 of 600 values", "(-inf)", "index (2, 3, 4)"]),
    "rank 0": (np.array(3.0), ["rank 0", "()"]),
    "rank 1": (np.arange(9.0), ["rank 1", "(9,)"]),
    "rank 5": (np.zeros((5, 2, 2, 2, 2)), ["rank 5", "(5, 2, 2, 2, 2)"]),
    "no rows": (np.zeros((0, 3)), ["(0, 3)", "empty"]),
    "no columns": (np.zeros((8, 0)), ["(8, 0)", "empty"]),
    "three rows": (TABLE[:3], ["(3, 3)", "at least 4"]),
    "complex": (TABLE + 1j, ["complex128"]),
    "strings": (np.full((9, 2), "a"), ["<U1"]),
    "dates": (np.zeros((9, 2), "M8[s]"), ["datetime64[s]"]),
    "constant": (np.full((9, 2), 3.0), ["all", "training rows are equal"]),
    "equal rows": (np.tile(np.arange(4.0), (9, 1)), ["all", "training rows are equal"]),
}
BAD_OBJECTS = {
    "objects": (np.array([[1, None]] * 9), ["object"]),
    "list": ([[1.0, 2.0]] * 9, ["builtins.list", "numpy.asarray"]),
    "none": (None, ["NoneType"]),
    "masked": (np.ma.masked_less(TABLE, 3.0), ["masked"]),
    "records": (np.zeros((9, 2), [("a", float)]), ["dtype"]),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
@pytest.mark.parametrize("way", ["array", "npy", "npz", "npz split"])
def test_a_bad_array_is_one_sentence_whatever_way_it_comes(case, way, tmp_path):
    x, words = BAD_ARRAYS[case]
    path = tmp_path / "bad.npz"
    if way == "array":
        fault([*words, "array:"], data.load, x)
    elif way == "npy":
        np.save(tmp_path / "bad.npy", x)
        fault([*words, "bad.npy:"], data.load, tmp_path / "bad.npy")
    elif way == "npz":
        np.savez(path, x=x)
        fault([*words, "bad.npz:"], data.load, str(path))
    elif case not in ("three rows", "constant", "equal rows"):  # these are no faults of a held-out part
        np.savez(path, train=np.zeros((9, *x.shape[1:])), held_out=x)
        fault([], data.load, path)


@pytest.mark.parametrize("case", BAD_OBJECTS)
def test_a_bad_object_is_one_sentence(case):
    x, words = BAD_OBJECTS[case]
    fault(words, data.load, x)
    fault(words, data.load_for, NONE, (2,), x)


def test_values_that_leave_float32_are_reported():
    x = np.array([[[0, 0], [0, 1e300]]])
    fault(["1 of 4 values", "float32", "index (0, 1, 1)"], data.load_for, NONE, (2, 2), x)


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "longdouble", "int8", "int64", "uint8", "bool", ">f4"]
)
@pytest.mark.parametrize("x", [TABLE, IMAGES * 9, BYTES], ids=["table", "images", "colour"])
def test_every_real_dtype_is_fine(dtype, x):
    x = x > np.median(x) if dtype == "bool" else x
    ds = data.load(x.astype(dtype), seed=3)
    assert ds.train.dtype == ds.held_out.dtype == np.float32
    assert ds.event_shape == x.shape[1:] and len(ds.train) + len(ds.held_out) == len(x)
    assert ds.train.flags.c_contiguous and np.isfinite(ds.train).all()


# --- files ----------------------------------------------------------------------------------------------------------


def same_rows(ds, x):
    """Whether the data set holds the rows of `x`, each once, in user values."""
    both = ds.scaling.to_user(np.concatenate([ds.train, ds.held_out])).reshape(len(x), -1)
    wanted = np.asarray(x, float).reshape(len(x), -1)
    np.testing.assert_allclose(both[np.lexsort(both.T)], wanted[np.lexsort(wanted.T)], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("x", [TABLE, IMAGES, BYTES], ids=["table", "images", "colour"])
def test_npy_and_npz_round_trips(x, tmp_path):
    np.save(tmp_path / "a.npy", x)
    np.savez(tmp_path / "one.npz", x)
    np.savez_compressed(tmp_path / "x.npz", x=x, other=np.arange(3))
    direct = data.load(x, seed=5)
    same_rows(direct, x)
    for name in ("a.npy", "one.npz", "x.npz"):
        ds = data.load(tmp_path / name, seed=5)
        assert ds.name == name and ds.fingerprint == direct.fingerprint and ds.scaling == direct.scaling
        assert data.load(str(tmp_path / name), seed=5).fingerprint == ds.fingerprint
        np.testing.assert_array_equal(
            data.load_for(ds.scaling, ds.event_shape, tmp_path / name), ds.scaling.to_model(x)
        )


@pytest.mark.parametrize(
    "keys",
    [
        ("train", "held_out", "train_labels", "held_out_labels"),
        ("train", "held_out", "y_train", "y_test"),
        ("x_train", "x_test", "y_train", "y_test"),
    ],
)
def test_a_split_in_the_file_is_kept(keys, tmp_path):
    y = np.arange(20) % 3
    np.savez(tmp_path / "s.npz", **dict(zip(keys, (BYTES[:15], BYTES[15:], y[:15], y[15:, None]), strict=True)))
    ds = data.load(tmp_path / "s.npz", held_out_fraction=0.9, seed=9)
    np.testing.assert_allclose(ds.scaling.to_user(ds.train), BYTES[:15], atol=1e-4)
    np.testing.assert_array_equal(ds.held_out, data.load_for(ds.scaling, (4, 4, 3), tmp_path / "s.npz"))
    assert ds.train_labels.tolist() == y[:15].tolist() and ds.held_out_labels.tolist() == y[15:].tolist()


@pytest.mark.parametrize("keys", [("x", "y"), ("x_train", "y_train"), ("train", "train_labels"), ("arr", "labels")])
def test_labels_follow_their_rows(keys, tmp_path):
    np.savez(tmp_path / "l.npz", **{keys[0]: np.column_stack([np.arange(40), TABLE[:40, 0]]), keys[1]: np.arange(40)})
    ds = data.load(tmp_path / "l.npz", seed=2)
    np.testing.assert_allclose(ds.scaling.to_user(ds.train)[:, 0], ds.train_labels, atol=1e-4)
    np.testing.assert_allclose(ds.scaling.to_user(ds.held_out)[:, 0], ds.held_out_labels, atol=1e-4)


BAD_NPZ = {
    "unknown keys": (dict(a=TABLE, b=TABLE), ["keys a, b", "'x_train'"]),
    "no keys": ({}, ["keys (none)"]),
    "labels only": (dict(y=np.arange(9)), ["keys y"]),
    "labels too short": (dict(x=TABLE, y=np.arange(9)), ["(9,)", "50 rows"]),
    "labels of rank 2": (dict(x=TABLE, y=np.zeros((50, 2))), ["(50, 2)"]),
    "complex labels": (dict(x=TABLE, y=np.zeros(50, complex)), ["complex128"]),
    "labels on one side": (dict(x_train=TABLE, x_test=TABLE, y_train=np.zeros(50)), ["only one"]),
    "two shapes": (dict(train=TABLE, held_out=TABLE[:, :2]), ["(2,)", "(3,)"]),
    "empty held-out": (dict(train=TABLE, held_out=TABLE[:0]), ["held-out", "(0, 3)"]),
    "objects": (dict(x=np.array([[1, None]] * 9)), ["bad.npz", "ValueError"]),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_a_bad_npz_is_one_sentence(case, tmp_path):
    arrays, words = BAD_NPZ[case]
    np.savez(tmp_path / "bad.npz", **arrays)
    fault(["bad.npz", *words], data.load, tmp_path / "bad.npz")


CSV = {
    "commas": "1,2\n3,4\n5,6\n7,8.5\n",
    "no last newline": "1,2\n3,4\n5,6\n7,8.5",
    "blank lines": "\n1,2\n\n3,4\n5,6\n7,8.5\n\n",
    "windows": "a,b\r\n1,2\r\n3,4\r\n5,6\r\n7,8.5\r\n",
    "byte order mark": "\ufeffa,b\n1,2\n3,4\n5,6\n7,8.5\n",
    "header": 'a,"b, in cm"\n1,2\n3,4\n5,6\n7,8.5\n',
    "two-line header": 'a,"b\nc"\n1,2\n3,4\n5,6\n7,8.5\n',
    "header with a number": "a,2020\n1,2\n3,4\n5,6\n7,8.5\n",
    "semicolons": "a;b\n1;2\n3;4\n5;6\n7;8.5\n",
    "tabs": "1\t2\n3\t4\n5\t6\n7\t8.5\n",
    "quoted": '"1","2"\n3,4\n5,6\n" 7",8.5e0\n',
}


@pytest.mark.parametrize("zipped", [False, True], ids=["csv", "csv.gz"])
@pytest.mark.parametrize("case", CSV)
def test_csv_round_trips(case, zipped, tmp_path):
    path = tmp_path / ("t.csv.gz" if zipped else "t.csv")
    path.write_bytes(gzip.compress(CSV[case].encode()) if zipped else CSV[case].encode())
    rows = data.load_for(NONE, (2,), path)
    np.testing.assert_array_equal(rows, np.array([[1, 2], [3, 4], [5, 6], [7, 8.5]], np.float32))
    assert data.load(path).train.shape == (3, 2)


def test_one_column_is_a_table(tmp_path):
    (tmp_path / "t.csv").write_text("x\n1\n2\n3\n4\n")
    assert data.load(tmp_path / "t.csv").event_shape == (1,)


BAD_CSV = {
    "text column": ("a,kind\n1,x\n2,y\n3,z\n", ["column 'kind'", "line 2", "'x'"]),
    "text without header": ("5.1,x\n2,y\n3,z\n", ["column 2 (of 2)", "line 1", "'x'"]),
    "text late": ("a,b\n1,2\n2,3\n3,?\n", ["column 'b'", "line 4", "'?'"]),
    "all text": ("name,kind\nq,x\n", ["column 'name'", "'q'"]),
    "underscore": ("1,2\n1_000,3\n", ["column 1", "'1_000'"]),
    "decimal comma": ("a;b\n1,5;2\n", ["column 'a'", "'1,5'"]),
    "empty cell": ("a,b\n1,2\n3,\n", ["column 'b'", "line 3 is empty"]),
    "trailing comma": ("1,2,\n3,4,\n", ["column 3", "is empty"]),
    "ragged": ("a,b\n1,2\n3\n", ["line 3 has 1 cells", "has 2"]),
    "short header": ("a,b\n1,2,3\n4,5,6\n", ["header names 2 columns", "have 3"]),
    "empty": ("", ["is empty"]),
    "header only": ("a,b\n\n", ["is empty"]),
    "few rows": ("a,b\n1,2\n", ["(1, 2)", "at least 4"]),
    "nan": ("a,b\n1,2\n3,nan\n5,6\n7,inf\n", ["2 of 8", "row 1, column 'b'"]),
    "constant": ("a,b\n" + "1,2\n" * 9, ["equal"]),
    "binary": (b"\xff\xfe\x00\x01", ["UTF-8"]),
    "zero byte": (b"1,2\n3,\x00\n", []),
    "huge cell": ("a,b\n1," + "9" * 200_000 + "\n", []),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_a_bad_csv_is_one_sentence(case, tmp_path):
    content, words = BAD_CSV[case]
    path = tmp_path / "bad.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    fault(["bad.csv", *words], data.load, path)


def test_missing_and_damaged_files_are_one_sentence(tmp_path, monkeypatch):
    np.save(tmp_path / "galaxies.npy", TABLE)
    monkeypatch.chdir(tmp_path)
    fault([str(tmp_path / "galaxy.npy"), "did you mean 'galaxies.npy'?"], data.load, "galaxy.npy")
    fault([str(tmp_path / "galaxie"), "did you mean 'galaxies.npy'?"], data.load, "galaxie")
    fault([str(tmp_path / "no" / "x.csv"), f"no folder {tmp_path / 'no'}"], data.load, Path("no/x.csv"))
    for typo in ("Digits", "digit", "fashion-mnist", "MNIST"):
        fault(["did you mean", *data.names(), ".csv.gz"], data.load, typo)
    fault(["is a folder"], data.load, tmp_path)
    fault(["neither"], data.load, "x" * 5000)
    fault(["no file"], data.load, Path("x" * 5000 + ".npy"))
    (tmp_path / "m.pkl").write_bytes(b"")
    fault(["m.pkl", "unpickled", ".npz"], data.load, "m.pkl")
    np.savez_compressed("whole.npz", x=TABLE)
    Path("whole.csv.gz").write_bytes(gzip.compress(CSV["commas"].encode() * 99))
    for name in ("galaxies.npy", "whole.npz", "whole.csv.gz"):
        whole = Path(name).read_bytes()
        for part in (whole[:20], whole[: len(whole) // 2], b"no such thing", b""):
            Path("cut-" + name).write_bytes(part)
            word = "is empty" if name == "whole.csv.gz" and not part else "cannot be read"
            fault(["cut-" + name, word], data.load, "cut-" + name)
    np.save("o.npy", np.array([[1, None]] * 9), allow_pickle=True)
    fault(["o.npy", "cannot be read", "numpy.save"], data.load, "o.npy")


# --- scaling --------------------------------------------------------------------------------------------------------

FINITE = st.floats(-1e30, 1e30, width=64)


@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6), elements=FINITE))
def test_standard_scaling_round_trip(x):
    s = standard_of(x)
    model = s.to_model(x)
    assert model.dtype == np.float32 and np.abs(model.astype(float).mean(0)).max() < 1e-5 * max(1, np.abs(model).max())
    error = np.abs(s.to_user(model) - x)
    assert (error <= 1e-6 * np.abs(x - s.shift) + 1e-12 * np.abs(x) + 1e-300).all()
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
    assert NONE.to_model(TABLE).tolist() == TABLE.astype(np.float32).tolist()
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


# --- splits and batches ---------------------------------------------------------------------------------------------


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
    "fraction 0": (data.load, (TABLE,), dict(held_out_fraction=0.0), ["held_out_fraction", "0.0"]),
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


# --- named sets -----------------------------------------------------------------------------------------------------


def write_idx(path, x, zipped):
    content = b"\0\0\x08" + bytes([x.ndim]) + np.array(x.shape, ">i4").tobytes() + x.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.with_name(path.name + ".gz") if zipped else path
    path.write_bytes(gzip.compress(content) if zipped else content)
    return path


def write_mnist(root, folder, zipped):
    rng = np.random.default_rng(1)
    parts = {}
    for stem, n in (("train", 30), ("t10k", 10)):
        parts[stem] = rng.integers(0, 256, (n, 28, 28)), rng.integers(0, 10, n)
        write_idx(root / folder / "raw" / f"{stem}-images-idx3-ubyte", parts[stem][0], zipped)
        write_idx(root / folder / "raw" / f"{stem}-labels-idx1-ubyte", parts[stem][1], zipped)
    return parts


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name, folder", [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_idx_sets_are_read_in_a_folder_that_is_left_as_it_was(name, folder, zipped, tmp_path):
    parts = write_mnist(tmp_path, folder, zipped)
    before = sorted(tmp_path.rglob("*"))
    ds = data.load(name, tmp_path)
    assert ds.name == name and ds.scaling == data.Scaling("range", 127.5, 127.5) and ds.event_shape == (28, 28)
    np.testing.assert_allclose(ds.scaling.to_user(ds.train), parts["train"][0], atol=1e-4)
    np.testing.assert_allclose(ds.scaling.to_user(ds.held_out), parts["t10k"][0], atol=1e-4)
    assert ds.train_labels.tolist() == parts["train"][1].tolist()
    assert ds.held_out_labels.tolist() == parts["t10k"][1].tolist()
    np.testing.assert_array_equal(data.load_for(ds.scaling, (28, 28), name, tmp_path), ds.held_out)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
def test_damaged_idx_files_are_one_sentence(zipped, tmp_path):
    write_mnist(tmp_path, "MNIST", zipped)
    path = write_idx(tmp_path / "MNIST/raw/t10k-images-idx3-ubyte", np.zeros((10, 28, 28)), zipped)
    whole = path.read_bytes()
    for part in (b"", whole[:3], whole[:30], whole[:-1], b"\0" * 100):
        path.write_bytes(part)
        fault([str(path), "damaged", "fetch"], data.load, "mnist", tmp_path)


@pytest.mark.parametrize("name", data.names()[1:])
def test_files_that_are_not_there_name_the_place_and_the_remedy(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    words = [f"'{name}' was looked for", "data_dir", "download=True", "pip install 'pplebm[vision]'"]
    fault([str(tmp_path / "here"), *words], data.load, name, "here")
    fault([str(tmp_path / "data"), *words], data.load, name)


def fake_root(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    for split in ("train", "test"):
        (tmp_path / f"{split}_32x32.mat").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize("name", ["cifar10", "svhn"])
def test_torchvision_missing_broken_or_refusing_is_one_sentence(name, tmp_path, monkeypatch):
    root = fake_root(tmp_path)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torchvision", None)
        fault([name, "pip install 'pplebm[vision]'"], data.load, name, root)
    (tmp_path / "broken/torchvision").mkdir(parents=True)
    (tmp_path / "broken/torchvision/__init__.py").write_text("raise RuntimeError('operator nms\\ndoes not exist')")
    with monkeypatch.context() as patch:
        for module in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
            patch.delitem(sys.modules, module)
        patch.syspath_prepend(tmp_path / "broken")
        fault([name, "RuntimeError: operator nms", "built for your torch"], data.load, name, root)
    fake_torchvision(monkeypatch, refuse=True)
    fault([name, "incomplete or damaged", "not found or corrupted", "download=True"], data.load, name, root)


def fake_torchvision(monkeypatch, refuse=False):
    """A torchvision whose sets have 12 + 6 images; it fails if asked to download."""

    def parts(root, train, download):
        assert download is False
        if refuse:
            raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it")
        x = BYTES[:, :1, :1].repeat(32, 1).repeat(32, 2)
        return (x[:12], np.arange(12)) if train else (x[12:18], np.arange(6))

    class CIFAR10:
        def __init__(self, root, train, download):
            self.data, labels = parts(root, train, download)
            self.targets = labels.tolist()

    class SVHN:
        def __init__(self, root, split, download):
            x, self.labels = parts(root, split == "train", download)
            self.data = x.transpose(0, 3, 1, 2)

    datasets = types.SimpleNamespace(CIFAR10=CIFAR10, SVHN=SVHN)
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(datasets=datasets))


@pytest.mark.parametrize("name", ["cifar10", "svhn"])
def test_colour_sets_have_channels_last_and_never_download(name, tmp_path, monkeypatch):
    fake_torchvision(monkeypatch)
    ds = data.load(name, fake_root(tmp_path))
    assert ds.train.shape == (12, 32, 32, 3) and ds.held_out.shape == (6, 32, 32, 3)
    np.testing.assert_allclose(ds.scaling.to_user(ds.train[:, 5, 7]), BYTES[:12, 0, 0], atol=1e-4)
    assert ds.train_labels.tolist() == list(range(12)) and ds.held_out_labels.tolist() == list(range(6))


@pytest.mark.parametrize("place", ["cifar10.npz", "cifar10/part.npz"])
def test_cifar10_from_an_npz_needs_no_torchvision(place, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    (tmp_path / "cifar10").mkdir()
    x = BYTES[:, :1, :1].repeat(32, 1).repeat(32, 2)
    np.savez(tmp_path / place, x_train=x[:12], x_test=x[12:], class_names=np.array(["cat"]))
    ds = data.load("cifar10", tmp_path)
    assert ds.name == "cifar10" and len(ds.train) == 12 and place.split("/")[-1] in ds.notes[0]
    np.savez(tmp_path / place, x_train=x.transpose(0, 3, 1, 2))
    fault(["(3, 32, 32)", "channels last"], data.load, "cifar10", tmp_path)


def test_digits_without_scikit_learn_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    fault(["digits", "pip install scikit-learn"], data.load, "digits")


# --- the real files and the real torchvision, where there are any -----------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_real_sets(name):
    ds = data.load(name, SHARED)
    assert ds.train.shape == (60000, 28, 28) and ds.held_out.shape == (10000, 28, 28)
    assert (ds.train.min(), ds.train.max()) == (-1, 1) and np.bincount(ds.train_labels).min() > 5000
    assert np.bincount(ds.held_out_labels).sum() == 10000


@pytest.fixture
def torchvision_sets():
    """The real torchvision.datasets; skipped also where it is installed for another torch and does not import."""
    try:
        return importlib.import_module("torchvision.datasets")
    except Exception as error:
        pytest.skip(f"torchvision does not import: {error}")


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")
@pytest.mark.parametrize("name, folder", [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_torchvision_reads_the_same(name, folder, torchvision_sets, tmp_path):
    (tmp_path / folder / "raw").mkdir(parents=True)
    for path in (SHARED / folder / "raw").glob("*.gz"):
        (tmp_path / folder / "raw" / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    ds = data.load(name, SHARED)
    assert data.load(name, tmp_path).fingerprint == ds.fingerprint
    theirs = getattr(torchvision_sets, folder)(str(tmp_path), train=False, download=False)
    np.testing.assert_array_equal(np.rint(ds.scaling.to_user(ds.held_out)), theirs.data.numpy())
    np.testing.assert_array_equal(ds.held_out_labels, theirs.targets.numpy())


@pytest.mark.parametrize("name", ["cifar10", "svhn"])
def test_torchvision_refuses_damaged_files(name, torchvision_sets, tmp_path):
    fault([name, "damaged", "download=True"], data.load, name, fake_root(tmp_path))


@pytest.mark.parametrize("module", ["pplebm.data", "pplebm.data.scaling"])
def test_the_examples_in_the_docstrings(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted and not result.failed
