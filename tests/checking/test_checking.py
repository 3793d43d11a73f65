"""`pplebm.check` finds what is wrong: deliberately broken programs, and the finding that must tell."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from changes import of_data, taken

import pplebm
import pplebm.gallery.pages
from pplebm import PplebmError, check, tilt

X = np.random.default_rng(0).normal(size=(40, 3))
FEW = {"n_steps_posterior": 2, "n_steps_prior": 2}
SHORT = "short_run_mle"  # whose unadjusted steps have a limit of stability
QUICK = {"kernel": "langevin", "batch_size": 16, "n_steps_posterior": 5, "n_steps_prior": 5}


def generator(x, statement=lambda z: tilt("f", z.tanh().sum(-1)), scale=1.0, plate="data", size=None, prior=None):
    """z ~ N(0, I), a tilt, x ~ N(W z, scale); each argument is something to break."""
    weight = pyro.param("W", lambda: torch.eye(3, 2) + 0.1)
    with pyro.plate(plate, len(x) if size is None else size):
        z = pyro.sample("z", prior or dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        statement(z)
        pyro.sample("x", dist.Normal(z[..., :2] @ weight.T, scale).to_event(1), obs=x)


def no_plate(x):
    z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(z @ torch.ones(2, 3), 1.0).to_event(1), obs=x)


def tilt_outside_plate(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)
    tilt("f", z.sum(-1))


def discrete(x):
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(k[:, None], 1.0).expand([len(x), 3]).to_event(1), obs=x)


def global_latent(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    generator(x + 0.0 * mean)


def idle_parameter(x):
    pyro.param("idle", torch.ones(2))
    generator(x)


NET = torch.nn.Linear(2, 1)


def raising(x):
    return torch.ones(2, 4) @ x


def no_latent(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(pyro.param("m", torch.zeros(3)), 1.0).to_event(1), obs=x)


def nothing_observed(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(pyro.param("m", torch.zeros(3)), 1.0).to_event(1))


def other_shape(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([1]).to_event(1))
        pyro.sample("x", dist.Normal(z, pyro.param("s", torch.tensor(1.0))).to_event(1), obs=x)  # one number for three


BROKEN = {  # name -> program, finding, words of its sentence
    "no plate": (no_plate, "sites", "no data plate"),
    "tilt (B, 1)": (lambda x: generator(x, lambda z: tilt("f", z[..., :1])), "sites", "tilt 'f'"),
    "scalar tilt": (lambda x: generator(x, lambda z: tilt("f", z.sum())), "sites", "tilt 'f'"),
    "tilt is a number": (lambda x: generator(x, lambda z: tilt("f", 1.0)), "sites", "tilt 'f' got float"),
    "tilt outside plate": (tilt_outside_plate, "sites", "stands outside the data plate"),
    "discrete latent": (discrete, "sites", "'k' (Bernoulli) is discrete"),
    "factor": (lambda x: generator(x, lambda z: pyro.factor("f", z.sum(-1))), "sites", "pyro.factor"),
    "wrong plate size": (lambda x: generator(x, size=64), "sites", "has size 64 on a batch of 5 data"),
    "fixed plate size": (lambda x: generator(x, size=5), "sites", "has size 5 on a batch of 3 data"),
    "no latent": (no_latent, "sites", "no latent site"),
    "nothing observed": (nothing_observed, "sites", "observes nothing"),
    "raises": (raising, "runs", "RuntimeError"),
    "global latent": (global_latent, "global latents", "'mean'"),
    "dropout": (lambda x: generator(x, lambda z: tilt("f", torch.dropout(z, 0.5, True).sum(-1))), "sites", "dropout"),
    "nan density": (lambda x: generator(x, lambda z: tilt("f", z[..., 0].log())), "sites", "'f' is not finite"),
    "other shape": (other_shape, "data shape", "(1,) and its data (3,)"),
    "idle parameter": (idle_parameter, "parameters", "idle"),
    "unregistered": (lambda x: generator(x, lambda z: tilt("f", NET(z)[..., 0])), "parameters", "pyro.module"),
    "nan tilt": (lambda x: generator(x, lambda z: tilt("f", (4.5 - z[..., 0]).log())), "tilt", "times as wide"),
    "constant tilt": (lambda x: generator(x, lambda z: tilt("f", 0.0 * z.sum(-1))), "tilt", "constant"),
    "improper prior": (lambda x: generator(x, lambda z: tilt("f", z.pow(2).sum(-1))), "normalisable", "Z is infinite"),
    "tiny scale": (lambda x: generator(x, scale=1e-3), "posterior chain", "stability limit"),
    "sharp tilt": (lambda x: generator(x, lambda z: tilt("f", -1e4 * z.pow(2).sum(-1))), "prior chain", "--set prior."),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_program_is_told(name):
    model, finding, words = BROKEN[name]
    report = check(model, X, SHORT, QUICK)
    found = next(f for f in report.findings if f.name == finding)
    assert not report.ok
    assert found.ok is False and words in found.sentence, f"\n{report}"
    after = report.findings[report.findings.index(found) + 1 :]
    if finding in ("runs", "sites", "global latents", "batch sizes", "density"):
        assert all(f.ok is None and finding in f.sentence for f in after)


def test_a_sound_program_passes_and_is_described():
    report = check(generator, X, SHORT, QUICK)
    assert report.ok, f"\n{report}"
    sites = next(f for f in report.findings if f.name == "sites").sentence
    for words in ("z (2,) Normal on real, noncentered coordinates", "x (3,) Normal", "Tilts: f", "'data'"):
        assert words in sites
    chain = next(f for f in report.findings if f.name == "posterior chain").sentence
    assert "step size s=0.2 is at" in chain and "% of the stability limit 2/sqrt(lambda)" in chain


def test_a_tilt_that_starts_at_zero_is_not_called_constant():
    def model(x):
        slope = pyro.param("slope", torch.zeros(2))
        generator(x, lambda z: tilt("f", z @ slope))

    report = check(model, X, SHORT, QUICK)
    assert next(f for f in report.findings if f.name == "tilt").ok


def test_the_default_page_on_its_default_data_passes():
    """Its posterior steps are adjusted, and find their size."""
    report = check("joint_ebm")
    assert report.ok, f"\n{report}"
    assert "% of steps were accepted" in next(f for f in report.findings if f.name == "posterior chain").sentence
    half = next(f for f in report.findings if f.name == "half precision").sentence
    assert 0.1 < float(half.split("off by ")[1].split(" %")[0]) < 10.0


def test_stability_limit_is_the_closed_form():
    precision = 1.0 + 1.0 / 0.1**2  # of z given x for W = I, scale 0.1

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
            pyro.sample("x", dist.Normal(z + pyro.param("b", torch.zeros(3)), 0.1).to_event(1), obs=x)

    report = check(model, X, SHORT, QUICK | {"step_size_posterior": 0.1})
    chain = next(f for f in report.findings if f.name == "posterior chain")
    assert chain.ok and f"at {100 * 0.1 / (2 / precision**0.5):.0f} %" in chain.sentence
    assert not check(model, X, SHORT, QUICK | {"step_size_posterior": 0.3}).ok


def data_of(page, x):
    """Forty rows of what a page takes, made of images x where it is no array of any shape."""
    rng, some = np.random.default_rng(1), np.arange(40) < 9
    module, lengths = pplebm.load(page), rng.integers(1, 7, size=(40, 1))
    text = np.where(np.arange(6) < lengths, rng.integers(1, 5, size=(40, 6)), 0)
    made = {
        "conjugate_tilt": lambda: X,
        "random_effects": lambda: {
            "y": rng.normal(size=(40, 3)), "x": rng.normal(size=(40, 3, 2)), "observed": rng.random((40, 3)) < 0.8,
        },
        "multimodal_ebm": lambda: module.masked({"a": x, "b": np.where(some[:, None], np.nan, x[:, 0])}),
        "latent_optimisation": lambda: module.as_data(x[:, 0], np.where(some, np.nan, x[:, 1, 1])),
        "latent_plan": lambda: module.as_data(x, x[..., :2], np.where(some, np.nan, x[:, 1, 1])),
        "latent_flow": lambda: module.masked(np.where(x < -0.5, np.nan, x)),
        "posed_scene": lambda: {"x": x, "direction": module.as_direction(rng.uniform(0.0, 6.0, 40))},
        "text_decoder": lambda: {"text": text},
        "sequence_design": lambda: module.known(text, x[:, 1, 1]),
        "conditional_ebm": lambda: {"x": x, "label": np.arange(40) % 10},
        "inverse_problem": lambda: {"y": rng.normal(size=(40, 32))},
        "intermediate_layers": lambda: {"y": rng.normal(size=(40, 32))},
    }  # fmt: skip
    return made.get(page, lambda: x)()


@pytest.mark.parametrize("page", pplebm.models_available())
def test_every_model_page_passes(page):
    report = check(page, data_of(page, np.random.default_rng(1).uniform(size=(40, 4, 4))), SHORT, QUICK)
    assert report.ok, f"\n{report}"


@pytest.mark.parametrize("page", pplebm.inference_available())
def test_every_algorithm_page_passes(page):
    few = FEW | {"n_steps_fresh": 2, "n_updates_fresh": 2, "pool": 24}
    report = check(page, hyper=taken(pplebm.load(page), few))
    assert report.ok, f"\n{report}"


FILES = {  # text of a file -> finding, words
    "def model(x:\n    pass": ("loads", "SyntaxError"),
    "import no_such_module_of_mine": ("loads", "ModuleNotFoundError"),
    "x = 1": ("loads", "name your Pyro program `model`"),
    "def loss():\n    pass": ("loads", "lacks"),
    "def model(ppl, net, hyper, x=None, n=None):\n    pass": ("loads", "lacks"),
}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["latent_ebm", "joint_ebm"])
@pytest.mark.parametrize("page", [p for p in pplebm.inference_available() if not of_data(pplebm.load(p))])
def test_every_algorithm_page_goes_with_a_model_page(model, page):
    """Whatever it keeps beside the model's parameters: a guide, step sizes, chains or flows by datum."""
    hyper = {"model.width": 8, "model.tilt_width": 8} | taken(pplebm.load(page), FEW)
    report = check(model, np.random.default_rng(0).normal(size=(200, 4)), page, hyper)
    assert report.ok and report.findings[-1].name == "update", str(report)


def sharp(x):
    """z1 close to z2: in noncentered coordinates the prior is nearly N(0, I) all the same."""
    weight = pyro.param("weight", lambda: torch.eye(2, 3))
    with pyro.plate("data", len(x)):
        z2 = pyro.sample("z2", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        z1 = pyro.sample("z1", dist.Normal(z2, 0.02).to_event(1))
        tilt("f", 0.1 * z1.sum(-1))
        pyro.sample("x", dist.Normal(z1 @ weight, 0.5).to_event(1), obs=x)


@pytest.mark.parametrize("page", ["short_run_mle", "noise_contrastive", "dual_mcmc", "persistent_mle"])
def test_the_stability_limit_is_that_of_the_chains_own_coordinates(page):
    """A linear tilt adds no curvature: the limit is 2, and steps of 0.4 are at 20 % of it."""
    report = check(sharp, X, page, taken(pplebm.load(page), FEW | {"kernel": "langevin"}))
    told = next(f for f in report.findings if f.name == "prior chain")
    assert told.ok and "at 20 % of the stability limit 2/sqrt(lambda) = 2;" in told.sentence + ";", told.sentence


@pytest.mark.parametrize("text", FILES)
def test_a_broken_file_is_told(tmp_path, text):
    (tmp_path / "mine.py").write_text(text)
    report = check(tmp_path / "mine.py", X)
    first = next(f for f in report.findings if f.ok is False)
    assert (first.name, FILES[text][1] in first.sentence) == (FILES[text][0], True), f"\n{report}"


VALUE = "return contrast(algorithm.program, params, x, positive, negative, algorithm.hyper.tilt_penalty)"
STEP = "\n\ndef step(algorithm, key, state, x, index):\n    "
POSITIVE = "\n\ndef positive(algorithm, key, params, x):\n    from pplebm.learning.samples import Samples\n    "
ALGORITHMS = {  # a change to short_run_mle -> finding, words
    (VALUE, VALUE + STEP + "return [state], {}"): ("conjugate tilt", "got a list"),
    (VALUE, VALUE.replace("return", "value, seen =") + "; return value, seen._replace(tilt_positive=params['A'])"): (
        "conjugate tilt", "tilt_gap",
    ),
    (VALUE, VALUE.replace("return", "value, seen =") + "; return value, seen._asdict() | {'mine': value}"): (
        "conjugate tilt", "REPORTS does not say what mine mean",
    ),
    (VALUE, VALUE.replace("params", "parameters")): ("conjugate tilt", "NameError"),
    (VALUE, VALUE.replace("params", "algorithm.program.params")): ("conjugate tilt", "nothing moved"),
    (VALUE, VALUE + POSITIVE + "import time; return algorithm.hyper.posterior.draw("
     "algorithm, algorithm.ppl.key(time.time_ns() % 2**32), params, x, True)"): (
        "conjugate tilt", "could not be repeated",
    ),
    (VALUE, VALUE + POSITIVE + "return Samples({})"): ("conjugate tilt", ""),
    ("batch_size: Count = 128", "batch_sizes: Count = 128"): ("hyperparameters", "batch_size"),
    ("    prior: ShortRun", "    priors: ShortRun"): ("hyperparameters", "Hyper needs prior"),
}  # fmt: skip


@pytest.mark.parametrize("change", ALGORITHMS)
def test_a_broken_algorithm_is_told(tmp_path, change):
    path = pplebm.gallery.pages.copy("short_run_mle", tmp_path / "mine.py")
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    report = check(path, hyper=None if ALGORITHMS[change][0] == "hyperparameters" else FEW)
    first = next(f for f in report.findings if f.ok is False)
    assert (first.name, ALGORITHMS[change][1] in first.sentence) == (ALGORITHMS[change][0], True), f"\n{report}"


def test_mistakes_of_the_caller_are_raised():
    with pytest.raises(PplebmError, match="did you mean 'joint_ebm'"):
        check("joint_ebn")
    with pytest.raises(PplebmError, match="sigma"):
        check("joint_ebm", hyper={"sigmo": 1.0})
    with pytest.raises(PplebmError, match="not an algorithm"):
        check("joint_ebm", inference="latent_ebm")
