"""The narrow waist `pplebm.ppl.language.PPL` in NumPyro and JAX."""

from __future__ import annotations

import numpyro.distributions as dist

from pplebm.backends.numpyro.arrays import asarray as asarray
from pplebm.backends.numpyro.arrays import compiled as compiled
from pplebm.backends.numpyro.arrays import concat as concat
from pplebm.backends.numpyro.arrays import exp as exp
from pplebm.backends.numpyro.arrays import isfinite as isfinite
from pplebm.backends.numpyro.arrays import iterate as iterate
from pplebm.backends.numpyro.arrays import key as key
from pplebm.backends.numpyro.arrays import log_abs_det as log_abs_det
from pplebm.backends.numpyro.arrays import logsumexp as logsumexp
from pplebm.backends.numpyro.arrays import median as median
from pplebm.backends.numpyro.arrays import normal_like as normal_like
from pplebm.backends.numpyro.arrays import put as put
from pplebm.backends.numpyro.arrays import repeat as repeat
from pplebm.backends.numpyro.arrays import seeded as seeded
from pplebm.backends.numpyro.arrays import softplus as softplus
from pplebm.backends.numpyro.arrays import split as split
from pplebm.backends.numpyro.arrays import stack as stack
from pplebm.backends.numpyro.arrays import stop_gradient as stop_gradient
from pplebm.backends.numpyro.arrays import take as take
from pplebm.backends.numpyro.arrays import threads_for as threads_for
from pplebm.backends.numpyro.arrays import to_numpy as to_numpy
from pplebm.backends.numpyro.arrays import value_and_grad as value_and_grad
from pplebm.backends.numpyro.arrays import where as where
from pplebm.backends.numpyro.declare import bind as bind
from pplebm.backends.numpyro.declare import param as param
from pplebm.backends.numpyro.declare import plate as plate
from pplebm.backends.numpyro.declare import sample as sample
from pplebm.backends.numpyro.declare import tilt as tilt
from pplebm.backends.numpyro.devices import average as average
from pplebm.backends.numpyro.devices import parallel as parallel
from pplebm.backends.numpyro.optimizers import optimizer as optimizer
from pplebm.backends.numpyro.traced import trace as trace

__all__ = ["dist"]
name = "numpyro"
