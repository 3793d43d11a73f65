"""Fixtures: double precision where numbers are compared, and the backends under test."""

from __future__ import annotations

import os

import hypothesis
import pytest
import torch

# What XLA makes here runs seldom: soon made matters more than quick.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")

BACKENDS = ("pyro", "numpyro")


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
