"""Fixtures: double precision where numbers are compared, and the backends under test."""

from __future__ import annotations

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")

BACKENDS = ("pyro", "numpyro")


@pytest.fixture(params=BACKENDS)
def ppl(request):
    """Every backend in turn."""
    from pplebm.program import load_backend

    return load_backend(request.param)


@pytest.fixture
def float64():
    """Torch in double precision for one test."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
