"""Fixtures: double precision where numbers are compared, and the backends under test."""

from __future__ import annotations

import gc
import os
import re
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest
import torch
from further import MANY, is_further, is_slow, pairs_beyond, unmatched

# What is compiled here runs seldom: soon made matters more than quick. It is kept for every process and the next run.
KEPT = Path(__file__).resolve().parents[1] / ".pytest_cache"
QUICK = (
    "backend_optimization_level=0",
    "llvm_disable_expensive_passes=true",
    "cpu_use_fusion_emitters=false",
    "cpu_parallel_codegen_split_count=1",  # a function at a time, which on few cores is a seventh less
)
for name, value in {
    "XLA_FLAGS": " ".join(f"--xla_{flag}" for flag in QUICK),
    "JAX_COMPILATION_CACHE_DIR": KEPT / "jax",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": 0,
    "TORCHINDUCTOR_CACHE_DIR": KEPT / "inductor",
}.items():
    os.environ.setdefault(name, str(value))
CONFIG = tempfile.TemporaryDirectory()  # the user's own is not touched
os.environ["PPLEBM_CONFIG_HOME"] = CONFIG.name

hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")

BACKENDS = ("pyro", "numpyro")
MOST = 5 * 2**30  # bytes of a worker, of which two or more share a machine


def pytest_collection_modifyitems(items):
    names = [item.nodeid for item in items]
    if len(names) > MANY and (lost := unmatched(names)):
        raise pytest.UsageError(f"tests/further.py: {', '.join(lost)} find no test")
    for item in items:
        if is_further(item.nodeid):
            item.add_marker(pytest.mark.full)
        if is_slow(item.nodeid):
            item.add_marker(pytest.mark.slow)
    for item in pairs_beyond(items):
        item.add_marker(pytest.mark.full)


@pytest.fixture(params=BACKENDS)
def ppl(request):
    """Every backend in turn."""
    from pplebm.ppl.language import load_backend

    return load_backend(request.param)


@pytest.fixture
def float64():
    """Torch in double precision for one test."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module", autouse=True)
def frozen():
    """What the tests of a module leave behind is kept anyway, and need not be looked at by collections to come.

    Of a worker that has grown large, what JAX has compiled is dropped: it is on the disk.
    """
    yield
    if "jax" in sys.modules and resident() > MOST:
        gc.unfreeze()
        sys.modules["jax"].clear_caches()
    gc.collect()
    gc.freeze()


def resident():
    """Bytes of memory of this process; 0 where the system does not tell."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Tests that share what is made once go to one worker: an entry of the zoo, else a file and a backend."""
    from xdist.scheduler import LoadScopeScheduling

    class Shared(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file, _, test = nodeid.partition("::")
            entry = re.search(r"\[(\w+)-(?:pyro|numpyro)\b", test) if file.startswith("tests/program/") else None
            backend = re.search(r"\b(?:pyro|numpyro)\b", test)
            return entry[1] if entry else f"{file} {backend[0] if backend else ''}"

    return Shared(config, log)
