"""Statements of NumPyro programs, as `pplebm.tilt` and `pplebm.likelihood_factor` are for Pyro programs."""

from __future__ import annotations

from pplebm.backends.numpyro.declare import likelihood_factor as likelihood_factor
from pplebm.backends.numpyro.declare import tilt as tilt
