"""Hierarchical latent-variable generators with energy-tilted priors, declared as Pyro programs.

>>> import pplebm
>>> "joint_ebm" in pplebm.models_available()
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the public page, for people and type checkers
    from pplebm.backends.pyro.declare import likelihood_factor as likelihood_factor
    from pplebm.backends.pyro.declare import tilt as tilt
    from pplebm.calibration.compare import compare as compare
    from pplebm.calibration.sbc import sbc as sbc
    from pplebm.checking import check as check
    from pplebm.errors import PplebmError as PplebmError
    from pplebm.errors import PplebmWarning as PplebmWarning
    from pplebm.estimation.bootstrap import bootstrap_ratio as bootstrap_ratio
    from pplebm.estimation.profile import profile as profile
    from pplebm.estimation.ratio import likelihood_ratio as likelihood_ratio
    from pplebm.estimation.table import estimates as estimates
    from pplebm.evidence.bidirectional import bidirectional as bidirectional
    from pplebm.evidence.discrepancy import aggregate_mmd as aggregate_mmd
    from pplebm.evidence.estimators import log_evidence as log_evidence
    from pplebm.evidence.estimators import log_z as log_z
    from pplebm.evidence.information import information as information
    from pplebm.gallery.pages import bind as bind
    from pplebm.gallery.pages import inference_available as inference_available
    from pplebm.gallery.pages import load as load
    from pplebm.gallery.pages import models_available as models_available
    from pplebm.program import Program as Program
    from pplebm.runs.fit import fit as fit
    from pplebm.runs.run import open_run as open_run
    from pplebm.sampling.diagnostics import diagnose as diagnose
    from pplebm.sampling.guide_draws import sample_guide as sample_guide
    from pplebm.sampling.predictive import predictive as predictive
    from pplebm.sampling.sampler import sample as sample
    from pplebm.sampling.sampler import sample_prior as sample_prior
    from pplebm.sampling.to_arviz import to_arviz as to_arviz
    from pplebm.scores.front import anomaly_scores as anomaly_scores

__version__ = "0.1.0"

# Loaded on first use, so that `import pplebm` costs nothing and needs neither torch nor jax.
_HOME = {
    "likelihood_factor": "pplebm.backends.pyro.declare",
    "tilt": "pplebm.backends.pyro.declare",
    "compare": "pplebm.calibration.compare",
    "sbc": "pplebm.calibration.sbc",
    "check": "pplebm.checking",
    "PplebmError": "pplebm.errors",
    "PplebmWarning": "pplebm.errors",
    "bootstrap_ratio": "pplebm.estimation.bootstrap",
    "likelihood_ratio": "pplebm.estimation.ratio",
    "profile": "pplebm.estimation.profile",
    "estimates": "pplebm.estimation.table",
    "bidirectional": "pplebm.evidence.bidirectional",
    "aggregate_mmd": "pplebm.evidence.discrepancy",
    "log_evidence": "pplebm.evidence.estimators",
    "log_z": "pplebm.evidence.estimators",
    "information": "pplebm.evidence.information",
    "fit": "pplebm.runs.fit",
    "bind": "pplebm.gallery.pages",
    "inference_available": "pplebm.gallery.pages",
    "load": "pplebm.gallery.pages",
    "models_available": "pplebm.gallery.pages",
    "Program": "pplebm.program",
    "open_run": "pplebm.runs.run",
    "diagnose": "pplebm.sampling.diagnostics",
    "sample_guide": "pplebm.sampling.guide_draws",
    "predictive": "pplebm.sampling.predictive",
    "sample": "pplebm.sampling.sampler",
    "sample_prior": "pplebm.sampling.sampler",
    "to_arviz": "pplebm.sampling.to_arviz",
    "anomaly_scores": "pplebm.scores.front",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pplebm' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
