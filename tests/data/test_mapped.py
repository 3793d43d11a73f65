"""Files too large for memory: everything that is made of them equals what is made of the same rows in memory."""

from __future__ import annotations

import numpy as np
import pytest

import pplebm
from pplebm.data import load, load_as_given, mapped, rescaled, scaling_for
from pplebm.data.columns import Signature
from pplebm.data.mapped import Mapped, chunks, extremes, mean_of
from pplebm.data.scaling import Scaling
from pplebm.errors import PplebmError

KINDS = [
    ((60, 4, 3), np.uint8, "auto"),
    ((60, 4, 3), np.float64, "unit"),
    ((60, 4, 3), np.float32, "standard"),
    ((60, 5), np.float32, "auto"),
    ((60, 5), np.int16, "unit"),
    ((60, 5), np.int64, "none"),
]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Files over 200 bytes are large, and looked at by parts of 300 bytes; both ways go through the same parts."""
    monkeypatch.setattr(mapped, "LARGEST", 200)
    monkeypatch.setattr(mapped, "AT_ONCE", 300)


def saved(tmp_path, shape, dtype, seed=0):
    a = (100 + 30 * np.random.default_rng(seed).gamma(1.0, size=shape)).astype(dtype)
    np.save(tmp_path / "rows.npy", a)
    return tmp_path / "rows.npy", a


@pytest.mark.parametrize("shape, dtype, kind", KINDS)
def test_a_mapped_file_equals_its_rows_in_memory(tmp_path, shape, dtype, kind):
    path, a = saved(tmp_path, shape, dtype)
    memory = load(a, scaling=kind)
    for source in (path, str(path), np.load(path, mmap_mode="r")):
        file = load(source, scaling=kind)
        assert isinstance(file.train, Mapped) and not isinstance(memory.train, Mapped)
        assert (file.fingerprint, file.scaling, file.notes) == (memory.fingerprint, memory.scaling, memory.notes)
        for one, other in ((file.train, memory.train), (file.held_out, memory.held_out)):
            assert (one.shape, one.ndim, one.dtype, len(one)) == (other.shape, other.ndim, other.dtype, len(other))
            rows = np.array([[3, 0], [7, 3]])
            assert all(np.array_equal(one[i], other[i]) for i in (slice(2, 9), rows, 4))
            np.testing.assert_array_equal(np.asarray(one), other)


@pytest.mark.parametrize("kind", ["none", "standard", "unit"])
def test_so_does_a_file_given_to_a_model_of_ones_own(tmp_path, kind):
    path, a = saved(tmp_path, (60, 4, 3), np.float32)
    signature = Signature(("x",), frozenset(), False)
    made = [load_as_given(source, signature) for source in (path, a)]
    if kind != "none":
        made = [rescaled(data, scaling_for(kind, data, {"": "real"})) for data in made]
    file, memory = made
    assert isinstance(file.train, Mapped)
    assert (file.fingerprint, file.scaling) == (memory.fingerprint, memory.scaling)
    np.testing.assert_array_equal(np.asarray(file.held_out), memory.held_out)


def test_a_mapping_of_mapped_arrays_stays_in_its_files(tmp_path):
    path, a = saved(tmp_path, (60, 4), np.float32)
    dose = np.arange(60.0)
    rows = {"dose": dose, "y": np.load(path, mmap_mode="r")}
    found = load_as_given(rows, Signature(("dose", "y"), frozenset(), False))
    assert isinstance(found.train["y"], Mapped) and isinstance(found.train["dose"], np.ndarray)
    np.testing.assert_array_equal(found.train["y"][:], a[found.train["dose"].astype(int)])


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_learning_from_a_mapped_file_is_that_from_memory(tmp_path, backend):
    path, a = saved(tmp_path, (60, 4, 3), np.uint8)
    tiny = {"updates": 3, "hyper": {"batch_size": 8, "prior.n_steps": 2, "posterior.n_steps": 2, "width": 4}}
    runs = [
        pplebm.fit("latent_ebm", source, out=tmp_path / name, backend=backend, progress=False, **tiny)
        for source, name in ((path, "file"), (a, "memory"))
    ]
    file, memory = ({name: np.asarray(v) for name, v in run.params.items()} for run in runs)
    assert all(np.array_equal(file[name], memory[name]) for name in memory)
    assert runs[0].load().fingerprint == runs[1].manifest.data.fingerprint
    resumed = pplebm.fit("latent_ebm", path, out=tmp_path / "file", resume=True, updates=4, progress=False)
    assert resumed.manifest.updates == 4


@pytest.mark.parametrize("place", [0, 31, 59])
def test_nan_in_a_large_file_is_found_wherever_it_is(tmp_path, place):
    path, a = saved(tmp_path, (60, 5), np.float32)
    a[place, 2] = np.nan
    a[59, 4] = np.inf
    np.save(path, a)
    with pytest.raises(PplebmError, match=rf"[12] of 300 values are NaN.*row {place}, column [24]"):
        load(path)


def test_a_large_file_that_is_cut_short_is_refused(tmp_path):
    path, _ = saved(tmp_path, (60, 5), np.float32)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(PplebmError, match="cannot be read"):
        load(path)


def test_a_large_file_of_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}] * 100), allow_pickle=True)
    with pytest.raises(PplebmError, match="cannot be read"):
        load(tmp_path / "objects.npy")


def test_parts_give_the_extremes_and_means_of_the_whole():
    a = np.random.default_rng(0).gamma(0.3, size=(997, 6)) * np.array([1, 1e-8, 1e8, -1, 5, 0])
    a[::7, 1] = np.nan
    assert len(list(chunks(a))) > 100
    for axis in (0, None):
        low, high = extremes(a, axis)
        np.testing.assert_array_equal((low, high), (np.nanmin(a, axis), np.nanmax(a, axis)))
        np.testing.assert_allclose(mean_of(a, axis), np.nanmean(a, axis), rtol=1e-12)


def test_scaled_twice_is_one_scaling_after_the_other(tmp_path):
    path, a = saved(tmp_path, (60, 5), np.float32)
    first, second = Scaling("range", 100.0, 30.0), Scaling("range", 0.5, 2.0)
    rows = second.to_model(first.to_model(Mapped(np.load(path, mmap_mode="r"), np.arange(60))))
    np.testing.assert_array_equal(rows[:], second.to_model(first.to_model(a)))
