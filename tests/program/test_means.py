"""Means of observed sites: told where there is one, refused where there is none, and nothing leans on them then."""

from __future__ import annotations

import numpy as np
import pytest
from zoo.hosts import host

import pplebm
from pplebm.errors import PplebmError

RNG = np.random.default_rng(0)
CLASSES, NUMBERS = RNG.integers(0, 3, size=40), RNG.normal(size=40).astype(np.float32)
WITHOUT = {
    "Categorical": (lambda h, z: h.dist.Categorical(logits=z[:, None] * h.array(np.arange(3.0))), CLASSES),
    "OrderedLogistic": (lambda h, z: h.dist.OrderedLogistic(z, h.array(np.array([-1.0, 1.0]))), CLASSES),
    "Cauchy": (lambda h, z: h.dist.Cauchy(z, 1.0), NUMBERS),
    "HalfCauchy": (lambda h, z: h.dist.HalfCauchy(h.xp.exp(z)), np.abs(NUMBERS)),
}


def program_of(name, law, y):
    h = host(name)

    def model(y):
        with h.plate("data", len(y)):
            z = h.sample("z", h.dist.Normal(0.0, 1.0))
            h.tilt("f", h.xp.tanh(z))
            h.sample("y", law(h, z), obs=y)

    return pplebm.Program(model, data=y, backend=name)


@pytest.mark.parametrize("law", WITHOUT)
def test_a_site_without_a_mean_is_refused_and_draws_are_not(ppl, law):
    """Both libraries say NaN or infinity, which a score would have handed on."""
    program = program_of(ppl.name, *WITHOUT[law])
    z = program.draw_base(ppl.key(0), 40)
    with pytest.raises(PplebmError, match=r"site 'y' \(\w+\) has no mean; ask for draws, and for scores by 'likeli"):
        program.predict(program.params, z)
    assert np.isfinite(ppl.to_numpy(program.predict(program.params, z, ppl.key(1))["y"])).all()
    few = {"n_chains": 2, "n_draws": 3, "n_warmup": 5, "seed": 0}
    with pytest.raises(PplebmError, match="has no mean"):
        pplebm.anomaly_scores(program, WITHOUT[law][1], ["reconstruction"], **few)
    scores = pplebm.anomaly_scores(program, WITHOUT[law][1], ["likelihood"], **few)
    assert np.isfinite(scores["likelihood"].value).all()


def test_a_mean_that_is_there_is_that_of_the_law(ppl):
    """Inside Independent and after a mask as well: exp(z) of Poisson counts."""
    counts = RNG.poisson(2.0, size=(40, 2)).astype(np.float32)
    two = lambda h, z: h.dist.Poisson(h.xp.exp(z)[:, None] * h.array(np.ones(2, np.float32))).mask(True).to_event(1)
    program = program_of(ppl.name, two, counts)
    z = program.draw_base(ppl.key(0), 40)
    found = ppl.to_numpy(program.predict(program.params, z)["y"])
    np.testing.assert_allclose(found, np.exp(ppl.to_numpy(z["z"]))[:, None] * np.ones(2), rtol=1e-5)


def test_learning_from_classes_tells_no_error_of_reconstructions(ppl, tmp_path):
    """It would be NaN, which a stop by patience and a picture would take for a figure."""
    h = host(ppl.name)

    def model(y):
        with h.plate("data", len(y)):
            z = h.sample("z", h.dist.Normal(0.0, 1.0))
            h.sample("y", h.dist.Categorical(logits=z[:, None] * h.param("w", np.arange(3.0, dtype="float32"))), obs=y)

    same = {"out": tmp_path / "run", "backend": ppl.name, "updates": 4, "progress": False, "hyper": {"batch_size": 8}}
    run = pplebm.fit(model, CLASSES, "short_run_mle", **same)
    assert not any("held_out_error" in row for row in run.metrics)


def test_a_mean_that_parameters_take_away_is_no_figure_either(ppl, tmp_path):
    """A Student law has a mean from one degree of freedom on: neither score nor held-out error is NaN."""
    h = host(ppl.name)

    def model(y):
        freedom = h.param("freedom", np.array(1.0, np.float32))
        with h.plate("data", len(y)):
            z = h.sample("z", h.dist.Normal(0.0, 1.0))
            h.sample("y", h.dist.StudentT(h.xp.clip(freedom, 0.5, 1.0), z, 1.0), obs=y)

    program = pplebm.Program(model, data=NUMBERS, backend=ppl.name)
    few = {"n_chains": 2, "n_draws": 3, "n_warmup": 5, "seed": 0}
    with pytest.raises(PplebmError, match=r"mean given the latents of 40 of 40 data is not finite.*'likelihood'"):
        pplebm.anomaly_scores(program, NUMBERS, ["reconstruction"], **few)
    same = {"out": tmp_path / "run", "backend": ppl.name, "updates": 4, "progress": False, "hyper": {"batch_size": 8}}
    run = pplebm.fit(model, NUMBERS, "short_run_mle", **same)
    assert not any("held_out_error" in row for row in run.metrics)


def test_data_in_the_place_of_the_kernel_are_refused(ppl):
    program = program_of(ppl.name, *WITHOUT["Cauchy"])
    with pytest.raises(PplebmError, match=r"kernel must be one of pplebm\.kernels, got ndarray; give data as data="):
        pplebm.sample(program, NUMBERS)
