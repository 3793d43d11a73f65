"""The speed benchmark as a command: all candidates do the same work, and the JSON says all. Nothing is timed here."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pplebm.errors import PplebmError

pytest.importorskip("numpyro")
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "speed.py"
CANDIDATES = {"a", "b-torch", "b-jax", "c", "d"}
TOLERANCE = 1e-5  # of float32, after a few steps


@pytest.fixture(scope="module")
def part():
    """A part of the benchmark by name."""
    sys.path.insert(0, str(SCRIPT.parent))
    yield lambda name: importlib.import_module(f"speed_parts.{name}")
    sys.path.remove(str(SCRIPT.parent))


def command(*arguments):
    """The script in a process of its own."""
    line = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Output of a quick run, printed and written; torch's steps are left uncompiled, which takes seconds each."""
    out = tmp_path_factory.mktemp("speed") / "speed.json"
    only = ("a", "b-torch", "b-jax", "c", "d")
    done = command("--quick", "--size", "S", "--only", *only, "--no-compile", "--rounds", 1, "--out", out)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(out.read_text())


@pytest.mark.slow
def test_all_candidates_end_at_the_same_latents_with_noise_off(quick):
    (found,) = quick[1]["sizes"]
    assert set(found["equal_work"]) >= CANDIDATES
    for key, phases in found["equal_work"].items():
        for phase, off in phases.items():
            assert off["worst"] <= (0.05 if "bf16" in key else TOLERANCE), f"{key}, {phase}"


@pytest.mark.slow
def test_the_json_says_all(quick):
    text, result = quick
    assert {"command", "quick", "seed", "choice", "machine", "sizes"} <= set(result)
    assert {"cpu", "vectors", "cores", "gpu", "torch_threads", "versions"} <= set(result["machine"])
    (found,) = result["sizes"]
    assert {"size", "place", "rounds", "peak", "operations", "skipped", "labels", "workload", "others_load"} <= set(
        found
    )
    for column in ("iteration", "posterior", "prior"):
        rows = found["columns"][column]["rows"]
        assert set(rows) == set(found["labels"]) >= CANDIDATES
        assert all(len(row["rounds"]) == found["rounds"] and row["seconds"] > 0 for row in rows.values())
        assert {"over_by_hand"} <= set(rows["c"]) and {"over_by_hand"} <= set(rows["d"])
    assert set(found["compile_seconds"]) == set(found["of_peak"]) == set(found["labels"])
    assert all(label in text for label in found["labels"].values()) and "a quick run" in text


def test_a_checkout_that_is_none_is_told(tmp_path):
    done = command("--quick", "--size", "S", "--only", "a", "--reference", tmp_path)
    assert done.returncode != 0
    assert "no train_cifar10.py, nets.py, utils.py" in done.stderr and "Traceback" not in done.stderr


def test_a_checkout_without_the_functions_is_told(part, tmp_path):
    folder = tmp_path / "joint-training"
    folder.mkdir()
    for name in part("original").FILES:
        (folder / name).write_text("def train_step(): ...\n")
    with pytest.raises(PplebmError, match="has no langevin_posterior_sampling"):
        part("original").load(tmp_path)
    (folder / "nets.py").write_text("import a_module_that_is_not_there\n")
    (folder / "train_cifar10.py").write_text("from nets import anything\n")
    with pytest.raises(PplebmError, match="could not be imported: ModuleNotFoundError"):
        part("original").load(tmp_path)
    assert "nets" not in sys.modules and str(folder) not in sys.path


def test_other_work_is_refused(part):
    timing, candidate = part("timing"), part("candidate").Candidate()
    candidate.key, candidate.label = "c", "(c)"
    z = {"z1": np.zeros((100, 3)), "z2": np.zeros((100, 2))}
    few, many, broken = (({k: v.copy() for k, v in z.items()}) for _ in range(3))
    few["z1"][:3] += 0.01  # a kink or two
    many["z2"][:30] += 0.01
    broken["z1"][:30] = np.nan
    timing.check(candidate, "prior", timing.differences(few, z))
    for end in (many, broken):
        with pytest.raises(PplebmError, match="does other work than"):
            timing.check(candidate, "prior", timing.differences(end, z))


def test_ratios_are_medians_of_rounds_against_the_faster_of_the_published_loops(part):
    timing = part("timing")
    seconds = {"a": [2.0, 4.0, 60.0], "a-1": [3.0, 5.0, 5.0], "c": [1.0, 1.0, 20.0]}
    assert timing.baseline_of(seconds) == "a"
    assert timing.ratio(seconds, "c", "a") == 3.0


def test_operations_are_those_of_the_study(part):
    """29.7 and 16.1 million a step at S, 4712 and 122 million at M, counted from the layers by hand."""
    sizes = part("sizes")
    for size, posterior, prior in ((sizes.S, 29.7e6, 16.1e6), (sizes.M, 4712e6, 122e6)):
        assert sizes.flops(size)["posterior"] == pytest.approx(posterior, rel=0.01)
        assert sizes.flops(size)["prior"] == pytest.approx(prior, rel=0.01)
