"""Strings from a latent vector: probabilities of all strings add up, evidence is that of quadrature, bounds tighten."""

from __future__ import annotations

import contextlib
import itertools

import numpy as np
import pytest
from scipy.special import logsumexp

import pplebm
from pplebm.errors import PplebmError
from pplebm.evidence.importance import importance_weights, lower_bound

PAGE = pplebm.load("text_decoder")
LINE = np.linspace(-9.0, 9.0, 601)
STEP = LINE[1] - LINE[0]
ALL = [s for s in itertools.product(range(3), repeat=3) if all(b == 0 for a, b in itertools.pairwise(s) if a == 0)]
DATA = {"text": np.array(ALL)}
SMALL = {"symbols": 3, "latent_dim": 1, "units": 6, "tilt_width": 5, "tilt_depth": 1}
CASES = {"recurrent": {}, "attention": {"reader": "attention"}, "tilted": {"tilted": True}}
ROWS = {"text": np.array([(1, 2, 1), (2, 0, 0), (1, 1, 0)])}


@pytest.fixture
def double(ppl, float64):
    """Double precision on the backend under test."""
    import jax

    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        yield ppl


def program_of(ppl, data=DATA, **hyper):
    """A program at parameters far from where they begin: posteriors are far from the prior, and bent."""
    bound = pplebm.bind("text_decoder", ppl.name, shape={"text": data["text"].shape[1:]}, **(SMALL | hyper))
    program = pplebm.Program(bound, data=data)
    rng = np.random.default_rng(4)
    moved = {n: ppl.to_numpy(p) + 1.2 * rng.normal(size=tuple(p.shape)) for n, p in sorted(program.params.items())}
    return program.with_params({n: ppl.asarray(a) for n, a in moved.items()})


def on_line(program, data):
    """log p̃(x, z), (rows, line), and log p̃(z), (line,)."""
    ppl, n = program.ppl, len(data["text"])
    z = {"z1": ppl.asarray(np.tile(LINE, n)[:, None])}
    copies = program.data({"text": np.repeat(data["text"], len(LINE), 0)})
    joint = ppl.to_numpy(program.log_joint(program.params, z, copies)).reshape(n, -1)
    prior = ppl.to_numpy(program.log_prior(program.params, {"z1": ppl.asarray(LINE[:, None])}))
    return joint, prior


def evidence(program, data):
    """log p(x) by quadrature, (rows,)."""
    joint, prior = on_line(program, data)
    return logsumexp(joint, 1) - logsumexp(prior)


@pytest.mark.parametrize("name", CASES)
def test_probabilities_of_all_strings_add_up_to_one(double, name):
    """Given every z of the line, and with z integrated out; every string of three symbols, ended or not."""
    assert len(ALL) == 1 + 2 + 4 + 8
    program = program_of(double, **CASES[name])
    joint, prior = on_line(program, DATA)
    np.testing.assert_allclose(np.exp(joint - prior).sum(0), 1.0, atol=1e-10)
    assert logsumexp(evidence(program, DATA)) == pytest.approx(0.0, abs=1e-10)
    assert np.abs(joint[:, 0] - joint[:, -1]).max() > 1.0, "z is to change what strings are likely"


@pytest.mark.parametrize("name", ["recurrent", "tilted"])
def test_the_bound_tightens_to_the_logarithm_of_the_quadrature(double, name):
    """E log mean of k weights of prior draws: below log p(x), rising, as by quadrature at k = 1 and in the limit."""
    program = program_of(double, **CASES[name])
    exact, (joint, prior) = evidence(program, ROWS), on_line(program, ROWS)
    log_w, why = importance_weights(program, program.params, program.data(ROWS), True, n_particles=60_000,
                                    tilted=name == "tilted", proposal="base", seed=1)  # fmt: skip
    assert not any(why)
    base = -0.5 * LINE**2 - 0.5 * np.log(2 * np.pi)
    exact = exact + (logsumexp(prior) + np.log(STEP))  # weights are relative to the base: their mean is Z p(x)
    first = ((joint - base) * np.exp(base)).sum(1) * STEP
    bounds, errors = zip(*(lower_bound(log_w, k) for k in (1, 4, 16, 64, 1024)), strict=True)
    assert (np.abs(bounds[0] - first) < 4.5 * errors[0]).all()
    assert (exact - first > 0.05).all(), "there is something to tighten"
    for before, after, e, f in itertools.zip_longest(bounds, bounds[1:], errors, errors[1:]):
        if after is not None:
            assert (after > before - 4.5 * np.hypot(e, f)).all()
        assert (before < exact + 4.5 * e).all()
    assert (bounds[-1] > bounds[0]).all() and (np.abs(bounds[-1] - exact) < 0.01 + 4.5 * errors[-1]).all()


@pytest.mark.parametrize("name", ["recurrent", "tilted"])
def test_the_evidence_is_that_of_quadrature(double, name):
    program = program_of(double, **CASES[name])
    found = pplebm.log_evidence(program, ROWS, progress=False)
    assert (np.abs(found.value - evidence(program, ROWS)) < 4.5 * found.error + 1e-3).all() and found.is_trusted.all()


def test_posteriors_are_those_of_quadrature(double):
    program = program_of(double)
    joint, _ = on_line(program, ROWS)
    weights = np.exp(joint - logsumexp(joint, 1)[:, None])
    draws = pplebm.sample(program, data=ROWS, n_chains=100, n_draws=20, n_warmup=150, thin=2, progress=False)
    for power in (1, 2):
        by_chain = (draws["z1"][..., 0] ** power).mean(1)
        error = by_chain.std(0, ddof=1) / 10.0
        assert (np.abs(by_chain.mean(0) - weights @ LINE**power) < 4.5 * error).all()
    assert np.ptp(weights @ LINE) > 0.3


def test_strings_drawn_from_the_prior_have_the_probabilities_of_quadrature(double):
    """By the chi-square statistic of 3000 strings, at 4.5 standard deviations."""
    program = program_of(double)
    p, prior = np.exp(evidence(program, DATA)), pplebm.sample_prior(program, n_chains=300, n_draws=10, progress=False)
    drawn = pplebm.predictive(prior, seed=2)["text"].reshape(-1, 3)
    counts = np.array([(drawn == s).all(1).sum() for s in ALL])
    assert counts.sum() == len(drawn) == 3000
    often = 3000 * p > 5
    statistic = ((counts - 3000 * p)[often] ** 2 / (3000 * p)[often]).sum()
    assert statistic < often.sum() + 4.5 * (2 * often.sum()) ** 0.5


def test_a_plain_language_model_is_told_nothing_by_its_latents(double):
    joint, prior = on_line(program_of(double, is_plain=True), DATA)
    assert np.ptp(joint - prior, axis=1).max() < 1e-10


def test_what_follows_an_end_counts_for_nothing_and_is_no_character(double):
    """A longer page gives the same strings the same probability, whatever it pads them with: nothing but the end."""
    program = program_of(double)
    wrong = program.data({"text": np.array([(1, 0, 2), (1, 2, 0)])})
    z = {"z1": double.asarray(np.zeros((2, 1)))}
    found = double.to_numpy(program.log_joint(program.params, z, wrong))
    assert found[0] == -np.inf and np.isfinite(found[1])
    longer = {"text": np.pad(DATA["text"], ((0, 0), (0, 2)))[::4]}
    short = [s for s in range(0, len(ALL), 4) if 0 in ALL[s]]
    a, b = (on_line(program_of(double, data), data)[0] for data in (DATA, longer))
    assert short
    np.testing.assert_allclose(a[short], b[[s // 4 for s in short]], atol=1e-10)


def test_strings_become_integers_and_back():
    data = PAGE.encoded(["ab", "", "cab"], "abc", 4)
    assert data["text"].tolist() == [[1, 2, 0, 0], [0, 0, 0, 0], [3, 1, 2, 0]]
    assert PAGE.decoded(data["text"], "abc") == ["ab", "", "cab"]
    for wrong in (["abd"], ["abcab"]):
        with pytest.raises(PplebmError, match="at most 4 characters, of 'abc'"):
            PAGE.encoded(wrong, "abc", 4)


@pytest.mark.parametrize("algorithm", ["variational_joint", "short_run_mle"])
def test_a_grammar_is_learned(tmp_path, ppl, algorithm):
    """Three strings, evenly: the model gives them 0.8 of the probability of all strings, or more."""
    strings = ["aaaa", "bbbb", "ab"] * 60
    data = PAGE.encoded(strings, "ab", 5)
    hyper = {"symbols": 3, "latent_dim": 2, "units": 16, "batch_size": 60, "learning_rate": 0.02}
    if algorithm == "short_run_mle":
        hyper |= {"n_steps_posterior": 4}
    run = pplebm.fit("text_decoder", data, algorithm, tmp_path / "run", updates=150, hyper=hyper, backend=ppl.name,
                     compiled=False, progress=False)  # fmt: skip
    three = PAGE.encoded(["aaaa", "bbbb", "ab"], "ab", 5)
    log_p = run.log_evidence(three, progress=False).value
    assert logsumexp(log_p) > np.log(0.8)  # little else is drawn
