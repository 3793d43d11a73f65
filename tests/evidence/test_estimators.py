"""Every estimator on every case of the test bed: within its errors of the exact answer, or refused."""

import contextlib
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from beds import BEDS
from joint_bed import JOINT

import pplebm
from pplebm.errors import PplebmError, PplebmWarning
from pplebm.evidence.estimate import Evidence
from pplebm.evidence.estimators import METHODS
from pplebm.ppl.language import load_backend

CASES = [*BEDS, JOINT]
LEVEL = 1.0 - 1e-5  # of the intervals that must hold: some 200 of them, Student's with seven degrees of freedom or more
ROUNDING = 1e-5  # nats


def is_within(found, exact):
    low, high = found.interval(LEVEL)
    return ~found.is_trusted | ((low - ROUNDING <= exact) & (exact <= high + ROUNDING))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bed", CASES, ids=str)
def test_within_errors_of_the_truth(bed, method):
    program = bed.program("numpyro")
    given = bed.data if program.prior_reads or program.has_global_latents else None
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore", PplebmWarning)
        if method == "importance":  # from the base, whose tails may be too light for the tilt: refused, and said so
            stack.enter_context(contextlib.suppress(PplebmError))
        constant = pplebm.log_z(program, given, method=method, seed=2, progress=False)
        assert is_within(constant, bed.log_z).all() and np.nanmax(constant.error) < 0.3
        found = pplebm.log_evidence(program, bed.data, method=method, seed=1, progress=False)
        assert is_within(found, bed.log_evidence).all() and np.nanmax(found.error) < 0.6
        assert found.is_trusted.mean() >= (0.5 if method == "importance" else 0.75), found.reasons


@pytest.mark.parametrize("bed", [b for b in CASES if b.name in ("univariate", "covariate")], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_on_pyro_as_well(bed, method):
    constant = pplebm.log_z(bed.program("pyro"), bed.data, seed=2, progress=False)
    found = pplebm.log_evidence(bed.program("pyro"), bed.data, method=method, log_z=constant, seed=1)
    assert is_within(found, bed.log_evidence).all() and found.is_trusted.all()


@pytest.mark.parametrize("seed", range(3))
def test_a_mode_that_few_draws_of_the_base_lead_to(seed):
    """log Z = 0 by construction: annealing's weights are refused, and particles that multiply find the mode's mass."""
    from jax.scipy.special import logsumexp

    ppl, d, at, sd, share = load_backend("numpyro"), 3, 1.8, 0.4, 0.8

    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0).expand([d]).to_event(1))
            base = -0.5 * (z**2).sum(-1)
            mode = -0.5 * (((z - at) / sd) ** 2).sum(-1) - d * np.log(sd)
            ppl.tilt("f", logsumexp(jnp.stack([np.log(1.0 - share) + base, np.log(share) + mode]), 0) - base)
            ppl.sample("x", ppl.dist.Normal(z[..., 0], 1.0), obs=x)

    program = pplebm.Program(model, data=np.zeros(5, np.float32), backend="numpyro")
    with pytest.raises(PplebmError, match="k-hat of 4096 weights"):
        pplebm.log_z(program, method="ais", seed=seed, progress=False)
    found = pplebm.log_z(program, seed=seed, progress=False)
    assert found.method == "sequential Monte Carlo" and is_within(found, 0.0).all() and found.error[0] < 0.15


def test_batches_of_data_are_those_of_one_call():
    """The first batch is that of a call with its data alone; all batches together are the whole, in order."""
    bed = next(b for b in CASES if b.name == "bimodal")
    program, known = bed.program("numpyro"), Evidence.of("known", [float(np.ravel(bed.log_z)[0])], [0.0])
    settings = {"n_particles": 16, "log_z": known, "seed": 3, "progress": False}
    whole = pplebm.log_evidence(program, bed.data[:3], rows_at_once=32, **settings)
    first = pplebm.log_evidence(program, bed.data[:2], rows_at_once=32, **settings)
    np.testing.assert_array_equal(whole.value[:2], first.value)
    assert len(whole) == 3 and len(set(whole.value.tolist())) == 3


def test_what_is_subtracted_is_told_with_its_error():
    bed = next(b for b in CASES if b.name == "bimodal")
    program, known = bed.program("numpyro"), Evidence.of("known", [100.0], [0.3])
    found = pplebm.log_evidence(program, bed.data, log_z=known, progress=False)
    assert found.common_error == pytest.approx(0.3) and (found.error > 0.3).all()
    np.testing.assert_allclose(found.value, bed.log_evidence + np.ravel(bed.log_z)[0] - 100.0, atol=1.0)
    alone = found.error**2 - 0.09
    assert found.mean_error == pytest.approx((alone.sum() / len(found) ** 2 + 0.09) ** 0.5)


def test_a_program_without_tilt_has_log_z_of_zero_exactly():
    program = pplebm.Program(pplebm.bind("joint_ebm", "numpyro", shape=(4,), tilted=False))
    found = pplebm.log_z(program)
    assert found.value.tolist() == [0.0] and found.error.tolist() == [0.0]
