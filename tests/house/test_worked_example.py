"""The worked example of CONTRIBUTING.md: a kernel, an objective and a page, each short, each what it says it is."""

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from targets import TARGETS, assert_same_law, rows_of

import pplebm
from pplebm.errors import PplebmError
from pplebm.guides.guide import Guide
from pplebm.sampling import chains

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M | re.S)
KERNEL, OBJECTIVE, PAGE = BLOCKS
N = 10_000  # chains


def names_of(block):
    names = {}
    exec(block, names)
    return names


@pytest.fixture
def sleep(monkeypatch):
    """The objective, where the page imports it from."""
    module = ModuleType("pplebm.objectives.sleep")
    exec(OBJECTIVE, module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.sleep


def test_each_is_short():
    assert all(len(block.splitlines()) < 40 for block in BLOCKS)


@pytest.mark.parametrize("target", [TARGETS[1], TARGETS[2]], ids=lambda t: t.name)
def test_the_kernel_keeps_its_target(ppl, target):
    kernel = names_of(KERNEL)["barker"](target.step_size)
    log_density = lambda z: target.log_density(ppl, z)
    start = target.draw(np.random.default_rng(1), N)
    state = kernel.init(ppl, target.latents(ppl, start), log_density)
    go = ppl.compiled(lambda key, state: chains.run(ppl, key, state, log_density, kernel, 5))
    state, info = go(ppl.key(0), state)
    assert 0.3 < ppl.to_numpy(info.accept_prob).mean() < 0.99
    assert np.abs(rows_of(ppl, state.z) - start).mean() > 0.3
    assert_same_law(rows_of(ppl, state.z), target.draw(np.random.default_rng(2), N))


@pytest.mark.parametrize(("at", "is_least"), [((0.5, 0.75, -0.3466), True), ((0.5, 1.05, 0.0), False)])
def test_the_objective_is_least_at_the_posterior(ppl, sleep, at, is_least):
    """z ~ N(0, 1) tilted by 1.5 z and x ~ N(z, 1) have the posterior N(x / 2 + 0.75, 1 / 2)."""
    statement, dist = ppl.sample, ppl.dist

    def model(x):
        with ppl.plate("data", len(x)):
            z = statement("z", dist.Normal(0.0, 1.0))
            ppl.tilt("f", 1.5 * z)
            statement("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        slope, offset, log_s = (ppl.param(name, value) for name, value in zip("sol", at, strict=True))
        with ppl.plate("data", len(x)):
            statement("z", dist.Normal(slope * x + offset, ppl.exp(log_s)))

    rng, x = np.random.default_rng(0), ppl.asarray(np.zeros(1000))
    program = pplebm.Program(model, data=x, backend=ppl.name)
    own, rows = Guide(program, guide), []
    for i, z in enumerate(rng.normal(1.5, 1.0, (20, 1000))):
        loss = lambda params, z=z, i=i: sleep(program, own, params, ppl.key(i), {"z": ppl.asarray(z)}, x)
        gradient = ppl.value_and_grad(loss, program.params | own.params)[1]
        rows.append([float(gradient[f"guide.{name}"]) for name in "sol"])
    errors = np.mean(rows, 0) / (np.std(rows, 0) / 20**0.5)
    assert np.abs(errors).max() < 5.0 if is_least else np.abs(errors[1:]).min() > 20.0


def test_the_objective_refuses_data_of_several_arrays(sleep):
    with pytest.raises(PplebmError, match="one array, and these are 2"):
        sleep(None, None, {}, 0, {}, (0, 0))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_the_page_is_checked_and_learns(sleep, tmp_path, backend):
    path = tmp_path / "wake_sleep.py"
    path.write_text(PAGE)
    few = {"batch_size": 20, "updates": 3, "prior.n_steps": 4}
    report = pplebm.check(str(path), hyper=few)
    assert report.ok, str(report)
    data = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    run = pplebm.fit("conjugate_tilt", data, path, tmp_path / "run", hyper=few, backend=backend)
    assert np.isfinite(run.metrics[-1]["sleep"]) and np.isfinite(run.metrics[-1]["tilt_gap"])
