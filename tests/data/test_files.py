"""Files: what is read is what was stored, and every damaged file is one sentence."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from data_cases import BYTES, IMAGES, NONE, TABLE, fault, same_rows

import pplebm.data as data


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
