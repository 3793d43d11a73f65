"""For NumPyro programs: `pplebm.numpyro.tilt` is the statement that `pplebm.tilt` is for Pyro programs."""

from __future__ import annotations

from pplebm.backends.numpyro import tilt as tilt
