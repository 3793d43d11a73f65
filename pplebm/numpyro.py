"""Statements of NumPyro programs: `tilt` and `likelihood_factor`, as `pplebm` has them for Pyro."""

from __future__ import annotations

from pplebm.backends.numpyro.declare import likelihood_factor as likelihood_factor
from pplebm.backends.numpyro.declare import tilt as tilt
