"""Draws in netCDF files: those in memory, whole at any instant, and read no more than is asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray
from conjugate import BACKENDS, hierarchy, instance, scalars

import pplebm
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.kernels.langevin import langevin
from pplebm.kernels.mala import mala
from pplebm.kernels.underdamped import underdamped
from pplebm.sampling import appending, store
from pplebm.sampling import job as sampling
from pplebm.sampling.diagnostics import diagnose
from pplebm.sampling.on_disk import OnDisk
from pplebm.sampling.predictive import log_likelihood, predictive
from pplebm.sampling.to_arviz import has_inference_data, import_arviz

X = np.array([28.0, 8.0, -3.0, 7.0], np.float32)
SETTINGS = {"n_chains": 2, "n_warmup": 12, "thin": 2}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Blocks of five draws."""
    monkeypatch.setattr(sampling, "BASE_WINDOW", 5)
    monkeypatch.setattr(sampling, "DRAWS_PER_BLOCK", 5)


@pytest.fixture(params=BACKENDS, scope="module")
def program(request):
    return scalars(request.param)


def assert_same(draws, others):
    for kind in ("latents", "values", "stats"):
        ours, theirs = getattr(draws, kind), getattr(others, kind)
        assert set(ours) == set(theirs)
        for name in ours:
            assert ours[name].dtype == theirs[name].dtype
            np.testing.assert_array_equal(ours[name], theirs[name])


def two(backend):
    """Latents with axes of their own."""
    program, params, _ = instance(backend)
    return program, {"params": params, "data": np.ones((3, 4), np.float32)}


CASES = {
    "posteriors": lambda backend: (scalars(backend), {"data": X}),
    "batches of data": lambda backend: (scalars(backend), {"data": X, "rows_at_once": 6}),
    "a prior": lambda backend: (scalars(backend), {}),
    "a global latent": lambda backend: (hierarchy(backend), {"data": X}),
    "two sites and a field with a slash": lambda backend: (
        two(backend)[0], two(backend)[1] | {"kernel": underdamped(0.3), "extra_fields": ("momentum",)}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_streamed_is_what_is_in_memory(backend, case, tmp_path):
    program, settings = CASES[case](backend)
    call = lambda n_draws, **more: pplebm.sample(program, n_draws=n_draws, **SETTINGS | settings, **more)
    whole, path = call(17), tmp_path / "draws.nc"
    first = call(8, out=path)
    assert_same(call(17, resume=path), whole)
    assert first.n_draws == 8  # and no more than it had
    for name, a in first.values.items():
        np.testing.assert_array_equal(a, whole[name][:, :8])


@pytest.fixture(scope="module")
def both(program, tmp_path_factory):
    call = lambda **more: pplebm.sample(program, mala(), X, n_draws=17, **SETTINGS, **more)
    return call(), call(out=tmp_path_factory.mktemp("draws") / "draws.nc")


def test_readers_of_draws_take_both(both):
    whole, streamed = both
    assert str(streamed) == str(whole)
    figures = [[row[1:] for row in diagnose(draws).rows] for draws in both]
    np.testing.assert_allclose(*figures, rtol=1e-4)
    for reader in (predictive, log_likelihood, lambda draws, n: draws.last()):
        for n in (None, 5):
            for name, a in reader(whole, n).items():
                np.testing.assert_array_equal(reader(streamed, n)[name], a)
    assert streamed.n_divergent == whole.n_divergent


def group(tree, name):
    return tree[name] if has_inference_data() else tree[name].to_dataset()


def test_arviz_reads_the_file_and_the_draws(both):
    """And is told of thinning."""
    whole, streamed = both
    arviz = import_arviz()
    written = arviz.from_netcdf(str(streamed.path))
    lazy, eager = pplebm.to_arviz(streamed), pplebm.to_arviz(whole)
    for name in ("posterior", "sample_stats", "observed_data"):
        assert group(written, name).equals(group(eager, name)) and group(lazy, name).equals(group(eager, name))
        assert group(written, name).sizes == group(eager, name).sizes
    for tree in (written, lazy, eager):
        assert group(tree, "posterior").attrs["thinning"] == 2 and group(tree, "posterior").attrs["sampling_time"] > 0
    assert "r_hat" in arviz.summary(written, var_names=["z"]).columns
    written.close()


@pytest.mark.parametrize(
    "index",
    [0, -1, slice(3), (1, -2), (..., 1), (slice(None), slice(-4, None)), (slice(None), slice(None, None, -3)),
     (slice(None), np.array([0, 3, 9])), (slice(None), np.array([3, 0])), (0, slice(None), np.array([0, 2])),
     (slice(None), np.array([2, 5]), ..., slice(1, 3)), (slice(None), slice(9, 2)), None],
    ids=str,
)  # fmt: skip
def test_an_index_reads_what_it_reads_of_an_array(both, index):
    whole, streamed = both
    np.testing.assert_array_equal(streamed["z"][index], whole["z"][index])


def test_arrays_on_disk_do_what_arrays_do(both):
    a, b = both[1]["z"], both[0]["z"]
    assert isinstance(a, OnDisk) and (len(a), a.shape, a.ndim, a.size) == (len(b), b.shape, b.ndim, b.size)
    for do in (lambda a: a.mean((0, 1)), lambda a: 1.0 - a, lambda a: np.exp(a), lambda a: np.concatenate([a, a], -1)):
        np.testing.assert_array_equal(do(a), do(b))
    with pytest.raises(IndexError):
        a[:, 17]
    with pytest.raises(AttributeError, match="mode"):
        a.mode()


@pytest.mark.slow
def test_killed_at_any_write(tmp_path, monkeypatch):
    """After every write of a run, the files as they are then: readable up to a whole block, and to go on from."""
    program, path, n = scalars("pyro"), tmp_path / "draws.nc", 7
    call = lambda **more: pplebm.sample(program, langevin(0.3), X, n_draws=n, **SETTINGS | {"n_warmup": 0}, **more)
    whole, kept, changing = call(), [], []

    def copied(function):
        def run(*given):
            found = function(*given)
            if Path(f"{path}.state").exists():
                kept.append((tmp_path / str(len(kept)), bool(changing)))
                kept[-1][0].mkdir()
                for file in tmp_path.glob("draws.nc*"):
                    shutil.copy(file, kept[-1][0])
            return found

        return run

    def in_place(path, written):
        changing.append(True)
        rewrite(path, written)
        changing.clear()

    rewrite = appending.rewrite
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", copied(os.replace))
        patched.setattr(appending, "rewrite", in_place)
        patched.setattr(appending, "_write", copied(appending._write))
        call(out=path)
    assert len(kept) > 30
    for i, (folder, is_changing) in enumerate(kept):
        if (folder / "draws.nc").exists() and not is_changing:
            with xarray.open_dataset(folder / "draws.nc", group="posterior", engine="h5netcdf") as found:
                assert found.sizes["draw"] in (0, 5, 7)
                np.testing.assert_array_equal(found["z"], whole["z"][:, : found.sizes["draw"]])
        if i % 3 and not is_changing:
            continue
        assert_same(call(resume=folder / "draws.nc"), whole)
        assert sorted(p.name for p in folder.iterdir() if p.suffix != ".partial") == ["draws.nc", "draws.nc.state"]


@pytest.mark.parametrize("where", [1, 3], ids=["in warm-up", "in the draws"])
def test_interrupted_streaming_goes_on(program, where, monkeypatch, tmp_path):
    call = lambda **more: pplebm.sample(program, mala(), X, n_draws=17, **SETTINGS, **more)
    whole, advance, left = call(), sampling.Job.advance, iter(range(where))

    def stopped(job, draws, block):
        if next(left, None) is None:
            raise KeyboardInterrupt
        advance(job, draws, block)

    with monkeypatch.context() as patched:
        patched.setattr(sampling.Job, "advance", stopped)
        with pytest.warns(PplebmWarning, match="resume="):
            part = call(out=tmp_path / "draws.nc")
    assert part.n_draws < 17
    assert_same(call(resume=part), whole)


def test_draws_in_memory_go_on_in_a_file(program, tmp_path):
    call = lambda n, **more: pplebm.sample(program, mala(), X, n_draws=n, **SETTINGS, **more)
    first = call(8)
    assert_same(call(17, resume=first, out=tmp_path / "draws.nc"), call(17))
    assert_same(call(17, resume=tmp_path / "draws.nc", out=tmp_path / "draws.nc"), call(17))


def test_what_others_added_to_the_file_stays(program, tmp_path):
    call = lambda n, **more: pplebm.sample(program, mala(), X, n_draws=n, **SETTINGS, **more)
    call(8, out=tmp_path / "draws.nc")
    with h5py.File(tmp_path / "draws.nc", "a") as file:
        file["notes"] = np.arange(3)
    assert_same(call(17, resume=tmp_path / "draws.nc"), call(17))
    with h5py.File(tmp_path / "draws.nc") as file:
        assert file["notes"][2] == 2


def test_a_full_disk_loses_nothing(program, monkeypatch, tmp_path):
    """Told before a block, or at a write: what was there is there, and grows when there is room."""
    call = lambda **more: pplebm.sample(program, mala(), X, n_draws=17, **SETTINGS, **more)
    whole, path, write, append, blocks = call(), tmp_path / "draws.nc", appending._write, appending.append, []
    usage = namedtuple("usage", "free")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: usage(1000))
        with pytest.raises(PplebmError, match=r"17 more draws.*free"):
            call(out=path)

    def full(file, at, data):
        if len(blocks) > 1:
            raise OSError(28, "No space left on device")
        write(file, at, data)

    with monkeypatch.context() as patched:
        patched.setattr(appending, "_write", full)
        patched.setattr(store, "append", lambda *given: (blocks.append(given), append(*given))[1])
        with pytest.raises(PplebmError, match=r"holds the 5 draws.*make room"):
            call(resume=path)
    with xarray.open_dataset(path, group="posterior", engine="h5netcdf") as found:
        assert found.sizes["draw"] == 5
    assert_same(call(resume=path), whole)


def test_files_that_cannot_be_begun_or_gone_on_with_are_refused(program, tmp_path):
    call = lambda **more: pplebm.sample(program, mala(), X, n_draws=3, **SETTINGS, **more)
    path = tmp_path / "draws.nc"
    call(out=path)
    before = path.read_bytes()
    for wrong, words in (
        ({"out": path}, "there already"),
        ({"out": tmp_path / "draws.zarr"}, r"ends in \.nc"),
        ({"out": tmp_path / "nowhere" / "draws.nc"}, "folder"),
        ({"resume": path, "out": tmp_path / "other.nc"}, "grow where they are"),
        ({"resume": tmp_path / "other.nc"}, r"other\.nc\.state' is not there"),
        ({"resume": path, "seed": 1}, "seed=0"),
    ):
        with pytest.raises(PplebmError, match=words):
            call(**wrong)
    assert path.read_bytes() == before
    path.unlink()
    with pytest.raises(PplebmError, match="is not there"):
        call(resume=path)


MEMORY = """
import resource, sys, warnings
import numpy as np, torch, pyro, pyro.distributions as dist, pplebm
from pplebm.kernels.langevin import langevin

def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(20_000), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)

peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
program = pplebm.Program(model, data=np.zeros(3, np.float32))
settings = dict(kernel=langevin(0.1), n_chains=50, n_warmup=0)
pplebm.sample(program, n_draws=4, **settings)
before = peak()
draws = pplebm.sample(program, n_draws=50, out=sys.argv[1], **settings)
assert draws["z"].size * 4 == 200e6
assert np.isfinite(draws["z"][:, 40, :5]).all()
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_draws(tmp_path):
    """400 MB, the draws in the supports and unconstrained, raise the peak by less than a quarter of it."""
    found = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "draws.nc")], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert float(found.stdout) < 100
    shutil.rmtree(tmp_path)
