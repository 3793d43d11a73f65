"""The narrow waist `pplebm.ppl.language.PPL` in Pyro and torch."""

from __future__ import annotations

import pyro.distributions as dist

from pplebm.backends.pyro.arrays import asarray as asarray
from pplebm.backends.pyro.arrays import concat as concat
from pplebm.backends.pyro.arrays import exp as exp
from pplebm.backends.pyro.arrays import isfinite as isfinite
from pplebm.backends.pyro.arrays import iterate as iterate
from pplebm.backends.pyro.arrays import log_abs_det as log_abs_det
from pplebm.backends.pyro.arrays import logsumexp as logsumexp
from pplebm.backends.pyro.arrays import median as median
from pplebm.backends.pyro.arrays import put as put
from pplebm.backends.pyro.arrays import repeat as repeat
from pplebm.backends.pyro.arrays import softplus as softplus
from pplebm.backends.pyro.arrays import stack as stack
from pplebm.backends.pyro.arrays import stop_gradient as stop_gradient
from pplebm.backends.pyro.arrays import take as take
from pplebm.backends.pyro.arrays import threads_for as threads_for
from pplebm.backends.pyro.arrays import to_numpy as to_numpy
from pplebm.backends.pyro.arrays import value_and_grad as value_and_grad
from pplebm.backends.pyro.arrays import where as where
from pplebm.backends.pyro.declare import bind as bind
from pplebm.backends.pyro.declare import param as param
from pplebm.backends.pyro.declare import plate as plate
from pplebm.backends.pyro.declare import sample as sample
from pplebm.backends.pyro.declare import tilt as tilt
from pplebm.backends.pyro.devices import average as average
from pplebm.backends.pyro.devices import parallel as parallel
from pplebm.backends.pyro.keys import key as key
from pplebm.backends.pyro.keys import normal_like as normal_like
from pplebm.backends.pyro.keys import seeded as seeded
from pplebm.backends.pyro.keys import split as split
from pplebm.backends.pyro.optimizers import optimizer as optimizer
from pplebm.backends.pyro.traced import trace as trace
from pplebm.backends.pyro.whole import compiled as compiled

__all__ = ["dist"]
name = "pyro"
