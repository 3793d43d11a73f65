"""Processes and devices that learn together do what one does on the same batch; what fails is told by whom it fails."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

import pplebm
from pplebm.errors import PplebmError
from pplebm.ppl.parallel import check_batch

EQUAL = """
import numpy as np, torch, pplebm
from pplebm.inference import short_run_mle as page
from pplebm.learning.algorithm import algorithm_of
from pplebm.learning.samples import Samples
from pplebm.learning.sources import ShortRun
from pplebm.ppl.trees import tree_leaves, tree_map

torch.set_default_dtype(torch.float64)
changes = {"n_steps_posterior": 5, "n_steps_prior": 5, "clip_norm": 1.0}
x, draw = np.random.default_rng(0).normal(size=(8, 3)), ShortRun.draw

def both(self, algorithm, key, params, rows, observed):
    # the chains of both processes, one after the other, as one batch
    keys = [algorithm.ppl.split(key, 3)[not observed] for key in algorithm.ppl.split(algorithm.ppl.key(update), 2)]
    of = lambda r: rows[4 * r : 4 * r + 4] if observed else 4
    parts = [draw(self, algorithm, keys[r], params, of(r), observed) for r in (0, 1)]
    z = {n: torch.cat([part.z[n] for part in parts]) for n in parts[0].z}
    return Samples(z, tree_map(lambda a, b: (a + b) / 2, *(part.info for part in parts)))

def learn(group, of_all):
    global update
    program = pplebm.Program(pplebm.bind("joint_ebm", "pyro", shape=(3,), width=8, tilt_width=8))
    algorithm = algorithm_of(page, program, changes)
    ppl = program.ppl
    state = algorithm.init(ppl.key(0), x)
    for update in (1, 2):
        if of_all:
            ShortRun.draw = both
            state, info = algorithm.step(ppl.key(update), state, ppl.asarray(x))
        else:
            (own,), (rows,) = group.key(ppl.key([update])), group.share(x[None])
            state, info = algorithm.step(own, state, rows)
            group.check_same(state)
    return tree_map(lambda a: a.detach() if hasattr(a, "detach") else a, (state, info))

if __name__ == "__main__":
    from pplebm.backends import pyro as ppl
    group = ppl.parallel(2, 1, "ddp")
    together = group.launch(learn, False)
    if group.rank == 0:
        one = dict(tree_leaves(learn(None, True)))
        assert one["1/clipped"] == 1.0
        for name, value in tree_leaves(together):
            np.testing.assert_allclose(value, one[name], rtol=1e-12, atol=1e-13, err_msg=name)
        print("equal")
"""

FIT = """
import sys
import numpy as np, pplebm
from pplebm.runs import learn as learning

if __name__ == "__main__":
    backend, strategy, out, devices, steps, resume, stop = sys.argv[1:8]
    if int(stop):
        class Bar(learning.tqdm):
            def update(self, n=1):
                super().update(n)
                if self.n == int(stop) and not self.disable:
                    raise KeyboardInterrupt
        learning.tqdm = Bar
    x = np.random.default_rng(0).normal(size=(40, 3))
    few = {"batch_size": 8, "n_steps_posterior": 5, "n_steps_prior": 5}
    run = pplebm.fit("latent_ebm", x, "short_run_mle", out=out, updates=int(steps),
                     hyper=None if resume == "True" else few, backend=backend, devices=int(devices),
                     strategy=strategy, resume=resume == "True", progress=bool(int(stop)))
    np.savez(out + "/params.npz", **{n: run.program.ppl.to_numpy(p) for n, p in run.params.items()})
"""


def started(tmp_path, text, *arguments, **environment):
    script = tmp_path / "script.py"
    script.write_text(text)
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", str(script), *map(str, arguments)], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={k: v for k, v in os.environ.items() if k not in ("MASTER_ADDR", "NODE_RANK")} | environment,
    )  # fmt: skip


def done(process, code=0):
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err[-3000:]
    return out + err


def fit(tmp_path, backend, out, devices, strategy="auto", steps=3, resume=False, stop=0, code=0, **environment):
    return done(
        started(tmp_path, FIT, backend, strategy, tmp_path / out, devices, steps, resume, stop, **environment), code
    )


def params(tmp_path, out):
    with np.load(tmp_path / out / "params.npz") as file:
        return dict(file)


def assert_same(a, b, tolerance=0.0):
    assert a.keys() == b.keys()
    for name, value in a.items():
        np.testing.assert_allclose(value, b[name], rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.fixture
def fabric():
    pytest.importorskip("lightning_fabric")


@pytest.mark.slow
def test_two_processes_make_the_update_of_one_on_the_same_batch(tmp_path, fabric):
    assert "equal" in done(started(tmp_path, EQUAL))


@pytest.mark.slow
def test_interrupted_and_resumed_equals_uninterrupted_with_two_processes(tmp_path, fabric):
    fit(tmp_path, "pyro", "whole", 2, steps=4)
    said = fit(tmp_path, "pyro", "parts", 2, steps=4, stop=2, code=-signal.SIGINT)
    assert "stopped at update 2 and saved" in said and "KeyboardInterrupt" in said
    assert "process 1 of 2" in said and "lost another process" in said
    fit(tmp_path, "pyro", "parts", 1, steps=4, resume=True)  # a run keeps its two devices
    assert_same(params(tmp_path, "whole"), params(tmp_path, "parts"))


@pytest.mark.slow
def test_spawned_processes_are_those_of_a_script(tmp_path, fabric):
    fit(tmp_path, "pyro", "script", 2)
    fit(tmp_path, "pyro", "spawned", 2, strategy="ddp_spawn")
    assert_same(params(tmp_path, "script"), params(tmp_path, "spawned"))


@pytest.mark.slow
def test_a_page_that_does_not_average_is_refused_and_the_process_named(tmp_path, fabric):
    imports = "import numpy as np, pplebm\n"
    text = FIT.replace(imports, imports + "from pplebm.backends import pyro\npyro.average = lambda tree: tree\n")
    assert text != FIT
    process = started(tmp_path, text, "pyro", "auto", tmp_path / "run", 2, 3, False, 0)
    out, err = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "ppl.average" in out + err and "process 0 of 2" in out + err


@pytest.mark.slow
def test_numpyro_over_devices_and_over_processes_is_numpyro_alone(tmp_path):
    pytest.importorskip("jax")
    double = {"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}
    colour = FIT.replace("size=(40, 3)", "size=(40, 8, 8, 3)")  # and a convolutional decoder
    colour = colour.replace('"n_steps_prior": 5}', '"n_steps_prior": 5, "decoder": "conv", "channels": 4}')
    assert colour.count("8, 8, 3") == colour.count("conv") == 1
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    joined = double | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    of_nodes = colour.replace("devices=int(devices)", "nodes=int(devices)")
    cases = [(colour, "one", 1, double), (colour, "two", 2, double)]
    cases += [(of_nodes, "processes", 2, joined | {"NODE_RANK": rank}) for rank in "01"]
    running = [
        started(folder(tmp_path, i), text, "numpyro", "auto", tmp_path / out, n, 3, False, 0, **environment)
        for i, (text, out, n, environment) in enumerate(cases)
    ]
    for process in running:
        done(process)
    for out in ("two", "processes"):
        assert_same(params(tmp_path, "one"), params(tmp_path, out), 1e-10)


def folder(tmp_path, i):
    (tmp_path / f"script{i}").mkdir()
    return tmp_path / f"script{i}"


def test_alone_nothing_is_averaged_or_shared(ppl):
    group, tree = ppl.parallel(1, 1, "auto"), {"a": ppl.asarray(np.arange(3.0))}
    assert ppl.average(tree) is tree and group.same(tree) is tree and group.local(tree) is tree
    assert (group.rank, group.size, group.key(ppl.key(1))) == (0, 1, ppl.key(1))
    rows = np.arange(4.0).reshape(2, 2)
    np.testing.assert_array_equal(ppl.to_numpy(group.share(rows)), rows)
    group.check_same(tree)
    assert group.launch(lambda group, a: (group.size, a), 2) == (1, 2)


@pytest.mark.parametrize("counts", [(0, 1), (1, 0), (-2, 1)])
def test_numbers_of_devices_that_are_none_are_refused(ppl, counts):
    with pytest.raises(PplebmError, match="must be positive"):
        ppl.parallel(*counts, "auto")


def test_strategies_that_shard_a_model_are_refused(ppl):
    with pytest.raises(PplebmError, match="fsdp"):
        ppl.parallel(2, 1, "fsdp")


def test_without_fabric_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    ppl = importlib.import_module("pplebm.backends.pyro")
    with pytest.raises(PplebmError, match=r"pplebm\[parallel\]"):
        ppl.parallel(2, 1, "auto")


def test_more_devices_than_jax_sees_are_refused(tmp_path):
    jax = pytest.importorskip("jax")
    x = np.zeros((20, 3))
    with pytest.raises(PplebmError, match="devices are wanted and JAX sees"):
        pplebm.fit("joint_ebm", x, out=tmp_path / "run", backend="numpyro", devices=jax.device_count() + 1)
    assert not (tmp_path / "run").exists()


def test_a_batch_that_cannot_be_split_is_refused():
    with pytest.raises(PplebmError, match="batch_size=8"):
        check_batch(10, 4)
    check_batch(8, 4)
