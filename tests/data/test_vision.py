"""Sets of images through torchvision's own readers, transforms and grids, which are ours: `make test-vision`.

torchvision has to be the build for its torch, so these tests have an environment of their own. They fail where it does
not import.
"""

import importlib

import numpy as np
import pytest
import torch
from data_cases import SHARED, fault
from data_idx import unpack, write_mnist

import pplebm
import pplebm.data as data

pytestmark = pytest.mark.vision
SETS = [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]


def part(name):
    """A module of torchvision, imported when a test runs: `make test` collects this file as well."""
    return importlib.import_module(f"torchvision.{name}")


def stacked(dataset, rows):
    """Images of a torch Dataset as its transforms leave them, and their labels."""
    pairs = [dataset[int(i)] for i in rows]
    return np.stack([image.numpy() for image, _ in pairs]), np.array([label for _, label in pairs])


@pytest.fixture(params=["written", "real"])
def roots(request, tmp_path):
    """Where ours and theirs are read: files of random images, and the real ones where they are."""
    if request.param == "written":
        for _, folder in SETS:
            write_mnist(tmp_path, folder, False)
        return tmp_path, tmp_path
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data")
    for _, folder in SETS:
        unpack(SHARED, tmp_path, folder)
    return SHARED, tmp_path


@pytest.mark.parametrize("name, folder", SETS)
def test_torchvision_reads_the_same(name, folder, roots):
    ours, theirs = data.load(name, roots[0]), getattr(part("datasets"), folder)
    assert data.load(name, roots[1]).fingerprint == ours.fingerprint  # packed or not
    for rows, labels, train in (
        (ours.train, ours.train_labels, True),
        (ours.held_out, ours.held_out_labels, False),
    ):
        found = theirs(str(roots[1]), train=train, download=False)
        np.testing.assert_array_equal(np.rint(ours.scaling.to_user(rows)), found.data.numpy())
        np.testing.assert_array_equal(labels, found.targets.numpy())


@pytest.mark.parametrize("name, folder", SETS)
def test_transforms_give_model_values(name, folder, roots):
    """ToTensor divides bytes by 255 and puts channels first; Normalize(.5, .5) brings them to [-1, 1], as `Scaling`."""
    transforms, ours = part("transforms"), data.load(name, roots[0])
    usual = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    theirs = getattr(part("datasets"), folder)(str(roots[1]), train=False, transform=usual)
    rows = np.linspace(0, len(theirs) - 1, min(len(theirs), 200)).astype(int)
    x, y = stacked(theirs, rows)
    np.testing.assert_allclose(x[:, 0], ours.held_out[rows], atol=1e-6)
    np.testing.assert_array_equal(y, ours.held_out_labels[rows])
    turned = transforms.functional.rotate(torch.as_tensor(x), 90.0)[:, 0]  # by quarters without interpolation
    np.testing.assert_allclose(turned, np.rot90(ours.held_out[rows], axes=(1, 2)), atol=1e-6)


@pytest.mark.parametrize("shape", [(7, 8, 8), (4, 28, 28), (6, 32, 32, 3), (2, 5, 9, 1)])
def test_a_grid_of_pictures_is_that_of_make_grid(shape):
    from pplebm.report.figures import gap_of, tiled

    x, across = np.random.default_rng(0).uniform(-1.2, 1.2, shape), min(3, shape[0])
    first = torch.as_tensor(x if x.ndim == 4 else x[..., None]).permute(0, 3, 1, 2).clamp(-1, 1)
    gap = gap_of(shape[1])
    theirs = part("utils").make_grid(first, across, gap, normalize=True, value_range=(-1.0, 1.0), pad_value=1.0)
    ours = tiled(x, across, -1.0, 1.0)
    np.testing.assert_allclose(ours, theirs.permute(1, 2, 0).numpy()[gap:-gap, gap:-gap], atol=1e-6)


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_what_torchvision_reads_is_learned(backend, tmp_path):
    """A user's own stack of transformed images, and the set by its name, are one data set to learn from."""
    write_mnist(tmp_path, "MNIST", False)
    theirs = part("datasets").MNIST(str(tmp_path), train=True, transform=part("transforms").ToTensor())
    x = stacked(theirs, range(len(theirs)))[0][:, 0]
    ours = data.load("mnist", tmp_path)
    assert data.load(x).scaling.to_user(data.load(x).train).max() <= 1.0
    hyper = {"latent_dims": (3, 2), "width": 8, "depth": 1, "tilt_width": 8, "batch_size": 16}
    for n, source in enumerate((x, ours)):
        run = pplebm.fit(
            "joint_ebm", source, "variational_joint", hyper=hyper, backend=backend, updates=3,
            out=tmp_path / f"run{n}", progress=False,
        )  # fmt: skip
        assert run.sample_data(4, seed=0).shape == (4, 28, 28)


@pytest.mark.parametrize("name", ["cifar10", "svhn"])
def test_torchvision_refuses_damaged_files(name, tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    for split in ("train", "test"):
        (tmp_path / f"{split}_32x32.mat").write_bytes(b"")
    fault([name, "damaged", "download=True"], data.load, name, tmp_path)
