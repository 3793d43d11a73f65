"""The benchmark of estimators tells good ones from bad ones."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from pplebm.evidence.estimate import Evidence

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "evidence.py"
EXACT = np.array([-3.0, 1.0, 0.5])


@pytest.fixture(scope="module")
def script():
    """Names of the script."""
    return runpy.run_path(str(PATH))


def repeated(bias=0.0, scale=1.0, refused=0, n=400):
    """An estimator whose errors are `scale` times what it tells, and the data of it that are refused."""
    rng, reasons = np.random.default_rng(0), ["low"] * refused + [""] * (3 - refused)
    draw = lambda: EXACT + bias + 0.1 * scale * rng.normal(size=3)
    return [Evidence.of("test", draw(), np.full(3, 0.1), reasons=reasons) for _ in range(n)]


def test_figures_of_an_estimator_that_is_right(script):
    found = script["figures"](repeated(), EXACT)
    assert abs(found["bias_in_errors"]) < 4.0 and abs(found["bias"]) < 4.0 * 0.1 / np.sqrt(1200)
    assert abs(found["coverage"] - 0.95) < 4.0 * np.sqrt(0.95 * 0.05 / 1200)
    assert found["rmse"] == pytest.approx(0.1, rel=0.1) and found["told"] == pytest.approx(0.1)
    assert found["refused"] == 0.0


def test_figures_of_wrong_ones(script):
    biased = script["figures"](repeated(bias=0.03), EXACT)
    assert biased["bias_in_errors"] > 6.0 and biased["worst_bias"] > 0.02
    bold = script["figures"](repeated(scale=2.0), EXACT)
    assert bold["coverage"] < 0.75 and bold["rmse"] > 1.8 * bold["told"]


def test_refusals_are_counted_and_not_judged(script):
    found = script["figures"]([*repeated(refused=1, n=60), *[None] * 20], EXACT)
    assert found["refused"] == pytest.approx(1.0 - (60 * 2) / (80 * 3))
    assert found["coverage"] > 0.85 and found["told"] == pytest.approx(0.1)
    assert script["figures"]([None, None], EXACT) == {"bias": None, "refused": 1.0}


def test_an_estimate_without_error_may_be_off_by_rounding(script):
    exact = [Evidence.of("test", EXACT + 1e-6, np.zeros(3)) for _ in range(3)]
    assert script["figures"](exact, EXACT)["coverage"] == 1.0
    assert script["figures"](exact, EXACT + 1e-3)["coverage"] == 0.0


@pytest.mark.parametrize("quantity", ["log_z", "log_evidence"])
def test_a_row_of_the_table(script, quantity):
    found = script["measured"]("skewed", quantity, "smc", "numpyro", 2)
    assert found["refused"] == 0.0 and found["data"] == 4 and abs(found["bias"]) < 0.5
    lines = script["table"]({f"skewed/{quantity}/smc/numpyro": found}).splitlines()
    assert len(lines) == 3 and len({line.count("|") for line in lines}) == 1
