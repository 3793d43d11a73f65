"""Bad arrays: every one is a sentence that names its fault, whatever way it comes in."""

import numpy as np
import pytest
from data_cases import BYTES, HOLE, IMAGES, NONE, TABLE, fault

import pplebm.data as data

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
    fault(["1 of 4 values", "float32", "index (0, 1, 1)"], data.load_for, data.Scaling("range", 0.0, 1.0), (2, 2), x)


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
