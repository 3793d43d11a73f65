"""Tables of estimates: closed forms, scales of constraints, the score as a test of arrival, runs and the command."""

from __future__ import annotations

import csv

import identifiable
import numpy as np
import pytest
from click.testing import CliRunner
from conjugate import BACKENDS
from scaled import data_of, declared, scaled
from scipy import stats

import pplebm
from pplebm.cli import main
from pplebm.errors import PplebmError
from pplebm.ppl.language import load_backend

QUICK = {"n_draws": 60, "n_warmup": 200, "progress": False}


@pytest.mark.parametrize("backend", BACKENDS)
def test_estimates_with_a_constraint_are_told_on_its_scale(backend):
    """At the exact maximum: closed-form errors of both kinds, the delta method, an interval that stays positive."""
    x = data_of().astype(float)
    t, variance = x.mean(), x.var()
    s = (variance - 1.0) ** 0.5
    found = pplebm.estimates(scaled(backend, float(t), float(s), x.astype(np.float32)), x.astype(np.float32), **QUICK)
    assert found.labels == ("t", "s") and found.is_changed.tolist() == [False, True]
    np.testing.assert_allclose(found.estimate, [t, s], rtol=1e-5)
    n, v = len(x), variance
    exact = np.array([(v / n) ** 0.5, v / (s * (2 * n) ** 0.5)])  # var(s) = var(v) / (2 s)², var(v) = 2 v² / n
    scores = np.stack([(x - t) / v, ((x - t) ** 2 / v - 1.0) * s / v], 1)  # by t and s
    spread = np.diag(1 / np.array([n / v, 2 * n * s**2 / v**2]))
    robust = np.sqrt(np.diag(spread @ scores.T @ scores @ spread))
    assert (np.abs(found.standard_error - exact) < 4.5 * found.standard_error_error + 1e-4).all()
    assert (np.abs(found.robust_error - robust) < 4.5 * found.robust_error_error + 1e-4).all()
    assert (found.standard_error_error < 0.1 * exact).all()
    width = stats.norm.ppf(0.975) * found.standard_error
    np.testing.assert_allclose([found.low[0], found.high[0]], t + width[0] * np.array([-1, 1]), rtol=1e-4)
    np.testing.assert_allclose([found.low[1], found.high[1]], s * np.exp(width[1] / s * np.array([-1, 1])), rtol=1e-4)
    assert np.isnan(found.z[1]) and found.z[0] == pytest.approx(t / found.standard_error[0], rel=1e-4)


def test_the_score_says_whether_learning_has_arrived():
    """A standard error from the maximum the log likelihood is half a nat lower, and the Newton step leads back."""
    x = data_of(n=40)
    at = float(x.mean() + (2.0 / 40) ** 0.5)
    settings = QUICK | {"names": ["t"]}
    away = pplebm.estimates(scaled("pyro", at, 1.0, x), x, **settings).score
    top = pplebm.estimates(scaled("pyro", float(x.mean()), 1.0, x), x, **settings).score
    assert abs(away.gain - 0.5) < 4.5 * away.gain_error and away.p_value < 1e-6
    assert abs(away.step[0] + 1.0) < 4.5 * away.step_error[0] < 0.5
    assert away.mean[0] == pytest.approx(-((2.0 / 40) ** 0.5) / 2.0, abs=4.5 * away.error[0])
    assert abs(top.step[0]) < 4.5 * top.step_error[0] and top.p_value > 1e-4


def test_a_table_reads_like_one_and_is_a_data_frame():
    x = data_of()
    found = pplebm.estimates(scaled("pyro", 0.6, 1.1, x), x, level=0.9, **QUICK)
    lines = found.table().splitlines()
    assert lines[0].split() == ["parameter", "estimate", "std.", "error", "±", "robust", "z", "5", "%", "95", "%"]
    assert lines[1].startswith("t ") and lines[2].startswith("s *") and "positive" not in lines[2]
    assert any("delta method" in line for line in lines) and any("Newton step" in line for line in lines)
    frame = found.to_frame()
    assert list(frame.index) == ["t", "s"] and frame.std_error["t"] == found.standard_error[0]
    assert found.covariance[0, 0] == pytest.approx(found.standard_error[0] ** 2)
    with pytest.raises(PplebmError, match=r"level must lie in \(0, 1\)"):
        pplebm.estimates(scaled("pyro", 0.6, 1.1, x), x, level=95)


@pytest.mark.parametrize("backend", BACKENDS)
def test_parameters_in_their_supports(backend):
    """Those with a constraint alone, as the model sees them, and a simplex that is no function of each number."""
    host = load_backend(backend)

    def model(x):
        shares, sd = declared(backend, "shares", [0.2, 0.3, 0.5], "simplex"), declared(backend, "sd", 2.0, "positive")
        free = declared(backend, "free", 0.5)
        with host.plate("data", len(x)):
            z = host.sample("z", host.dist.Normal(free, sd))
            host.sample("x", host.dist.Normal(z * shares[0] + shares[1], 1.0), obs=x)

    program = pplebm.Program(model, data=np.zeros(3, np.float32), backend=backend)
    seen = {name: program.ppl.to_numpy(a) for name, a in program.params_in_supports().items()}
    assert set(seen) == {"shares", "sd"}
    np.testing.assert_allclose(seen["shares"], [0.2, 0.3, 0.5], rtol=1e-5)
    np.testing.assert_allclose([float(seen["sd"]), float(program.ppl.to_numpy(program.params["sd"]))],
                               [2.0, np.log(2.0)], rtol=1e-5)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the conjugate page, on a file of data in units of their own."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    common, own = rng.normal(size=(60, 1)), rng.normal(size=(60, 2))
    np.save(folder / "x.npy", 2.0 + 3.0 * (common * np.array([1.0, 0.7]) + 0.5 * own))
    hyper = {"batch_size": 16, "model.d1": 1, "model.d2": 1, "optimizer.learning_rate": 0.02}
    return pplebm.fit(
        "conjugate_tilt", str(folder / "x.npy"), "persistent_mle", backend="numpyro", updates=300, hyper=hyper,
        out=folder / "a", progress=False,
    )  # fmt: skip


def test_estimates_of_a_run_are_those_of_what_it_learned_from(run, tmp_path):
    found = run.estimates(names=["W"], **QUICK)
    x = np.asarray(run.program.ppl.to_numpy(run.data(run.to_user(run.load().train))), float)
    page, values = pplebm.load("conjugate_tilt"), {n: run.program.ppl.to_numpy(a) for n, a in run.params.items()}
    hyper = page.Hyper(d1=1, d2=1)
    of = lambda w: np.array([page.closed_form(values | {"W": w[:, None]}, hyper, row).log_constant for row in x])
    exact = np.linalg.inv(identifiable.derivatives(of, np.asarray(values["W"], float)[:, 0], 0.01)[1])
    assert found.labels == ("W[0,0]", "W[1,0]")
    assert (np.abs(found.standard_error - np.diag(exact) ** 0.5) < 4.5 * found.standard_error_error).all()
    assert (found.standard_error_error < 0.1 * found.standard_error).all()
    out = tmp_path / "x.csv"
    arguments = ["estimates", str(run.path), "--name", "W", "--draws", "20", "--warmup", "100", "--out", str(out)]
    told = CliRunner().invoke(main, arguments)
    assert told.exit_code == 0 and "std. error" in told.output and "W[0,0]" in told.output, told.output
    page = (run.path / "report.html").read_text()
    assert page.count('id="estimates"') == 1 and 'href="#estimates"' in page and "W[0,0]" in page
    rows = list(csv.reader(out.read_text().splitlines()))
    assert rows[0][:3] == ["parameter", "estimate", "std_error"] and float(rows[1][2]) > 0.0
    told = CliRunner().invoke(main, ["estimates", str(run.path), "--name", "nothing"])
    assert told.exit_code == 2 and "'nothing' is no parameter of the program" in told.output
