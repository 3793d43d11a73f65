"""Data sets known by name, and their real files where there are any; the real torchvision is in test_vision."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
from data_cases import BYTES, SHARED, fault
from data_idx import write_idx, write_mnist

import pplebm.data as data


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
    monkeypatch.setitem(sys.modules, "sklearn", None)
    fault(["digits", "pip install scikit-learn"], data.load, "digits")


@pytest.mark.parametrize("is_there", [True, False])
def test_digits_are_those_of_scikit_learn(monkeypatch, is_there):
    from sklearn.datasets import load_digits

    monkeypatch.setattr(Path, "is_file", lambda path: is_there)
    found, expected = data.named.read_digits(Path()), load_digits()
    np.testing.assert_array_equal(found.x, expected.images)
    np.testing.assert_array_equal(found.y, expected.target)


# --- the real files, where there are any ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_real_sets(name):
    ds = data.load(name, SHARED)
    assert ds.train.shape == (60000, 28, 28) and ds.held_out.shape == (10000, 28, 28)
    assert (ds.train.min(), ds.train.max()) == (-1, 1) and np.bincount(ds.train_labels).min() > 5000
    assert np.bincount(ds.held_out_labels).sum() == 10000
