"""A run as small as runs can be, and a command of another process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import pplebm

ROOT = Path(__file__).resolve().parents[1]
FEW = {"batch_size": 8, "n_steps_posterior": 1, "n_steps_prior": 1}


def data():
    return np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)


def fit(out, updates=1, model="conjugate_tilt", hyper=FEW, **more):
    settings = {"compiled": False, "progress": False, "hyper": hyper, "updates": updates} | more
    return pplebm.fit(model, data(), out=out, **settings)


def resume(out, **more):
    return pplebm.fit("conjugate_tilt", data(), out=out, resume=True, progress=False, **more)


def python(*args, **kwargs):
    """A command of another process, in which the library is importable and warnings are errors."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "OMP_NUM_THREADS": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | kwargs
    return subprocess.Popen([sys.executable, "-W", "error", *map(str, args)], env=env, text=True, **streams)


def files_in(folder):
    """What a folder holds, by path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
