"""The test bed itself: its programs are those of its integrals, and the integrals and draws are right."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from beds import BEDS, bed
from exact import Grid
from joint_bed import JOINT, Joint
from scipy.special import logsumexp

ALL = [*BEDS, JOINT]
GRIDS = [b for b in BEDS if isinstance(b, Grid)]
N = 4000  # draws
FAR = [("skewed", 3)]  # a datum that one draw of the base in 100 000 explains


@pytest.fixture(params=ALL, ids=str)
def case(request):
    """Every case in turn."""
    return request.param


@pytest.fixture
def double(ppl, float64):
    """Double precision on the backend under test."""
    import jax

    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        yield ppl


def repeated(case, program, rows):
    """Rows of the data for the program; all data of a joint one."""
    data = case.data if case.is_joint else {k: v[rows] for k, v in case.columns.items()}
    return program.data(data if case.is_joint or isinstance(case.data, dict) else data["x"])


def logs(case, program, values, row, what):
    """Log tilts or log likelihoods by the program, at values of the latents, with the data of a row."""
    ppl, n = program.ppl, len(next(iter(values.values())))
    rows = np.full(n, row)
    data = repeated(case, program, rows)
    z = program.unconstrain(program.params, {k: ppl.asarray(v) for k, v in values.items()}, data)
    return ppl.to_numpy(getattr(program, f"log_{what}")(program.params, z, data)).astype(float)


def off(log_weights, wanted):
    """Standard errors between the mean of weights and what it should be, and the relative error of the mean."""
    weight = np.exp(log_weights - wanted)
    error = weight.std() / np.sqrt(len(weight))
    return abs(weight.mean() - 1.0) / max(error, 1e-9), error


@pytest.mark.parametrize("case", GRIDS, ids=str)
def test_integrals_are_those_of_the_program(case, double):
    """The same points, now noncentered coordinates of the program, whose base has its own Jacobian."""
    program, ppl = case.program(double.name, coordinates="noncentered"), double
    e, steps = case.coordinates
    sites = list(case.sites(case.values, e[:1], case.columns))
    z = {s: ppl.asarray(e if len(sites) < e.shape[1] else e[:, i]) for i, s in enumerate(sites)}
    for row in (0, case.n - 1):
        data = repeated(case, program, np.full(len(e), row))
        prior = logsumexp(ppl.to_numpy(program.log_prior(program.params, z, data))) + np.log(steps).sum()
        joint = logsumexp(ppl.to_numpy(program.log_joint(program.params, z, data))) + np.log(steps).sum()
        assert prior == pytest.approx(case.log_z[row if len(case.log_z) > 1 else 0], abs=1e-9)
        assert joint - prior == pytest.approx(case.log_evidence[row], abs=1e-9)


def test_weighted_draws_of_the_base_agree(case, double):
    """E₀ e^f = Z and E₀ e^f p(x|z) = Z p(x), which the base of the program enters."""
    program, ppl = case.program(double.name), double
    for row in range(case.n):
        data = repeated(case, program, np.full(N, row))
        z = program.draw_base(
            ppl.key(row), N if case.is_joint else data, program.params, data if case.is_joint else None
        )
        tilt = ppl.to_numpy(program.log_tilt(program.params, z, data))
        likelihood = ppl.to_numpy(program.log_likelihood(program.params, z, data))
        log_z = case.log_z[row if len(case.log_z) > 1 else 0]
        pairs = [(tilt, log_z), (tilt + likelihood, log_z + case.log_evidence[row])]
        for log_weights, wanted in pairs[: 1 if (case.name, row) in FAR else 2]:
            errors, relative = off(log_weights, wanted)
            assert errors < 4.5 and relative < 0.5, f"row {row}"


def test_exact_draws_agree_with_evidence_and_moments(case):
    """E p(x|z) = p(x) under exact draws of the prior; means and squares of exact draws of the posterior."""
    program, (mean, sd) = case.program("numpyro"), case.moments()
    for row in range(case.n):
        errors, relative = off(logs(case, program, case.draw(N, 2, row), row, "likelihood"), case.log_evidence[row])
        assert errors < 4.5 and relative < 0.5, f"row {row}"
        for site, values in case.draw(N, 3, row, observed=True).items():
            assert values.shape == (N, *mean[site].shape[1:])
            for got, wanted in ((values, mean[site][row]), ((values - mean[site][row]) ** 2, sd[site][row] ** 2)):
                assert (np.abs(got.mean(0) - wanted) < 5.0 * got.std(0) / np.sqrt(N)).all(), f"{site}, row {row}"


@pytest.mark.parametrize("case", GRIDS, ids=str)
def test_finer_and_wider_grids_change_nothing(case):
    finer = replace(case, points=2 * case.points - 1)
    wider = replace(case, ends=tuple((1.1 * low, 1.1 * high) for low, high in case.ends))
    for other in (finer, wider):
        np.testing.assert_allclose(other.log_z, case.log_z, atol=1e-6)
        np.testing.assert_allclose(other.log_evidence, case.log_evidence, atol=1e-6)


@pytest.mark.parametrize("name", ["bimodal", "skewed", "positive", "covariate", "counts"])
def test_total_probability_of_a_datum(name):
    case = bed(name)
    if name == "counts":
        y = np.arange(4000.0)
        total = np.exp(logsumexp(case.log_evidence_of({"y": y})))
        assert total == pytest.approx(1.0, abs=1e-4)  # counts beyond have a log rate of 8
        return
    x = np.linspace(-9.0, 22.0, 400)
    for c in (-1.0, 2.0) if name == "covariate" else (None,):
        data = x if c is None else {"x": x, "c": np.full(len(x), c)}
        assert np.exp(case.log_evidence_of(data)).sum() * (x[1] - x[0]) == pytest.approx(1.0, abs=1e-6)


def test_total_probability_of_a_pair():
    case = replace(bed("coupled"), points=121)
    side = np.linspace(-14.0, 14.0, 71)
    total = sum(np.exp(case.log_evidence_of(np.stack([np.full(71, a), side], 1))).sum() for a in side)
    assert total * (side[1] - side[0]) ** 2 == pytest.approx(1.0, abs=1e-3)


def test_a_joint_case_is_one_of_one_row_where_it_has_one():
    """With one row, m and z are two latents of a datum, and the integral is one over a plane."""
    from joint_bed import NOISE, SPREAD, normal, of_mean, of_row

    one = Joint("one", JOINT.data[:1], JOINT.values, JOINT.declare, is_joint=True)
    plane = Grid(
        "plane", JOINT.data[:1], JOINT.values, JOINT.declare, ((-8.0, 8.0), (-8.0, 8.0)),
        sites=lambda p, e, c: {"m": e[None, :, 0], "z": e[None, :, 0] + SPREAD * e[None, :, 1]},
        tilt=lambda xp, p, z, c: of_mean(xp, p, z["m"]) + of_row(xp, p, z["z"]),
        likelihood=lambda p, z, c: normal(c["x"][:, None], z["z"], NOISE), points=401,
    )  # fmt: skip
    assert one.log_z == pytest.approx(plane.log_z, abs=1e-8)
    assert one.log_evidence == pytest.approx(plane.log_evidence, abs=1e-8)
    for mine, theirs in zip(one.moments(), plane.moments(), strict=True):
        assert mine["m"] == pytest.approx(theirs["m"], abs=1e-8)
        assert mine["z"].ravel() == pytest.approx(theirs["z"], abs=1e-8)
