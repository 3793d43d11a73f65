"""Fixtures: double precision where numbers are compared, and the backends under test."""

from __future__ import annotations

import os

import hypothesis
import pytest
import torch
from further import MANY, is_further, unmatched

# What XLA makes here runs seldom: soon made matters more than quick.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")

BACKENDS = ("pyro", "numpyro")


def pytest_collection_modifyitems(items):
    names = [item.nodeid for item in items]
    if len(names) > MANY and (lost := unmatched(names)):
        raise pytest.UsageError(f"tests/further.py: {', '.join(lost)} find no test")
    for item in items:
        if is_further(item.nodeid):
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
