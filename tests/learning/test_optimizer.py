"""Optimizers as data: any rule of torch.optim or optax, or one's own, by the same object."""

from __future__ import annotations

import numpy as np
import optax
import pytest
import torch

import pplebm
from pplebm.errors import PplebmError
from pplebm.gallery.hyper import flat, override
from pplebm.learning.algorithm import algorithm_of
from pplebm.learning.optimizer import Optimizer
from pplebm.learning.sources import Amortized
from pplebm.ppl.language import load_backend
from pplebm.ppl.trees import tree_leaves

FEW = {"batch_size": 8, "n_steps": 2}
X = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
START, RATES = {"a": np.array([1.0, -2.0]), "b": np.array(0.5)}, {"a": 0.1, "b": 0.01}


class Halving(torch.optim.Optimizer):
    """A rule of one's own: half of the gradient, and a count."""

    def __init__(self, params, lr=1.0):
        super().__init__(params, {"lr": lr})

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["n"] = self.state[p].get("n", torch.tensor(0.0)) + 1.0
                p.data -= 0.5 * group["lr"] * p.grad


def halving(learning_rate):
    """The same for optax."""
    return optax.sgd(0.5 * learning_rate)


OWN = {"pyro": f"{__name__}.Halving", "numpyro": f"{__name__}.halving"}


def gradient(params):
    """Of a quadratic with its minimum at 0."""
    return {name: 3.0 * p for name, p in params.items()}


def followed(ppl, rule, n=4, **arguments):
    """Parameters after n steps."""
    rule, params = ppl.optimizer(rule, **arguments), {n: ppl.asarray(p) for n, p in START.items()}
    state = rule.init(params)
    for _ in range(n):
        params, state = rule.update(params, gradient(params), state, RATES)
    return {n: ppl.to_numpy(p) for n, p in params.items()}


def by_torch(make, n=4):
    """The same by torch's own loop."""
    params = {n: torch.tensor(p, dtype=torch.get_default_dtype(), requires_grad=True) for n, p in START.items()}
    optimizer = make([{"params": [p], "lr": RATES[n]} for n, p in params.items()])
    for _ in range(n):
        for p in params.values():
            p.grad = 3.0 * p.detach()
        optimizer.step()
    return {n: p.detach().numpy() for n, p in params.items()}


RULES = {
    "sgd": ({}, torch.optim.SGD),
    "sgd, momentum": ({"momentum": 0.9}, lambda groups: torch.optim.SGD(groups, momentum=0.9)),
    "adamw": ({"weight_decay": 0.1}, lambda groups: torch.optim.AdamW(groups, weight_decay=0.1)),
    "rmsprop": ({}, torch.optim.RMSprop),
    "radam": ({}, torch.optim.RAdam),
    "nadam": ({}, torch.optim.NAdam),
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_of_torch_is_torchs_own(name, float64):
    arguments, make = RULES[name]
    found, wanted = followed(load_backend("pyro"), name.partition(",")[0], **arguments), by_torch(make)
    for n, value in wanted.items():
        np.testing.assert_allclose(found[n], value, rtol=1e-12, err_msg=n)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lion", "adabelief"])
def test_a_rule_of_optax_is_optaxs_own(name):
    """With one rate for all, so that its own loop can be written down."""
    rule = getattr(optax, name)(learning_rate=0.1)
    wanted = {n: np.asarray(p, np.float32) for n, p in START.items()}
    state = rule.init(wanted)
    for _ in range(4):
        updates, state = rule.update(gradient(wanted), state, wanted)
        wanted = optax.apply_updates(wanted, updates)
    ppl = load_backend("numpyro")
    rule, params = ppl.optimizer(name), {n: ppl.asarray(p) for n, p in START.items()}
    state = rule.init(params)
    for _ in range(4):
        params, state = rule.update(params, gradient(params), state, dict.fromkeys(params, 0.1))
    for n, value in wanted.items():
        np.testing.assert_allclose(np.asarray(params[n]), value, rtol=1e-5, err_msg=n)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_both_backends_follow_the_same_rule(name):
    first, second = (followed(load_backend(b), name) for b in ("pyro", "numpyro"))
    for n in first:
        np.testing.assert_allclose(first[n], second[n], rtol=1e-5)


def test_a_rule_of_ones_own_is_found_by_its_path(ppl):
    found = followed(ppl, OWN[ppl.name], n=3)
    for n, p in START.items():
        np.testing.assert_allclose(found[n], p * (1 - 1.5 * RATES[n]) ** 3, rtol=1e-5)


def test_rates_of_tilts_rise_besides(ppl):
    """With plain steps on gradients of 1 of every parameter: what moves is the rate."""
    program = pplebm.Program(pplebm.bind("latent_ebm", ppl.name, shape=(4,), latent_dim=2))
    optimizer = Optimizer(
        rule="sgd", learning_rate=0.1, learning_rate_tilt=0.2, decay_share=0.0, clip_norm=1e9, warmup_tilt=0.25
    )
    gradient, state = {n: 0.0 * p + 1.0 for n, p in program.params.items()}, optimizer.init(ppl, program.params)
    for update, risen in ((0, 0.1), (4, 0.5), (9, 1.0), (30, 1.0)):  # 10 of 40
        new = optimizer.update(program, program.params, gradient, state, ppl.asarray(update), 40)
        for n, p in program.params.items():
            rate = 0.2 * risen if n in program.tilt_params else 0.1
            np.testing.assert_allclose(ppl.to_numpy(p - new.params[n]), rate, rtol=1e-4, err_msg=n)


@pytest.mark.parametrize(("rule", "arguments", "words"), [
    ("adamm", "", "'adamm' is not known"), ("no_such_module.Rule", "", "'no_such_module.Rule' is not known"),
    ("sgd", "momentums=0.9", "'sgd' cannot be used with"), ("sgd", "momentum", "write them as in a call"),
])  # fmt: skip
def test_rules_and_arguments_that_are_none_are_refused(ppl, rule, arguments, words):
    program = pplebm.Program(pplebm.bind("latent_ebm", ppl.name, shape=(4,), latent_dim=2))
    with pytest.raises(PplebmError, match=words):
        Optimizer(rule=rule, arguments=arguments).init(ppl, program.params)


def test_a_rule_that_needs_the_loss_itself_is_refused():
    program = pplebm.Program(pplebm.bind("latent_ebm", shape=(4,), latent_dim=2))
    with pytest.raises(PplebmError, match="'lbfgs' cannot be used"):
        Optimizer(rule="lbfgs").init(program.ppl, program.params)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_run_by_another_rule_goes_on_bit_for_bit(backend, accumulate, tmp_path):
    hyper = FEW | {"optimizer.rule": "sgd", "optimizer.arguments": "momentum=0.9", "accumulate": accumulate}
    settings = {"data": X, "hyper": hyper | {"learning_rate": 1e-4}, "backend": backend, "compiled": False}
    whole = pplebm.fit("latent_ebm", out=tmp_path / "whole", updates=6, progress=False, **settings)
    pplebm.fit("latent_ebm", out=tmp_path / "parts", updates=3, progress=False, **settings)
    parts = pplebm.fit("latent_ebm", X, out=tmp_path / "parts", updates=6, resume=True, progress=False)
    assert parts.hyper.optimizer.rule == "sgd" and parts.hyper.optimizer.accumulate == accumulate
    for name, value in whole.params.items():
        assert np.array_equal(np.asarray(value), np.asarray(parts.params[name])), name


def test_frozen_parameters_stay_under_every_rule():
    """A factor of 0 holds a parameter still, weight decay included."""
    program = pplebm.Program(pplebm.bind("latent_ebm", shape=(4,), latent_dim=2))
    algorithm = algorithm_of(pplebm.load("short_run_mle"), program, {"rule": "adamw"})
    optimizer, params = algorithm.optimizer, program.params
    gradient = {n: torch.ones_like(p) for n, p in params.items()}
    factors = {n: 0.0 for n in params if n.startswith("decoder")}
    new = optimizer.update(program, params, gradient, optimizer.init(program.ppl, params), 0, 100, factors)
    for name, value in new.params.items():
        assert torch.equal(value, params[name]) == name.startswith("decoder"), name


@pytest.mark.parametrize("moving", ["learning_rate", "learning_rate_tilt", "learning_rate_guide"])
@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_model_tilt_and_guide_follow_rates_of_their_own(backend, moving):
    """A model of a few numbers learns fast at rates at which the networks of its guide would break."""
    program = pplebm.Program(pplebm.bind("latent_ebm", backend, shape=(4,), latent_dim=2))
    rates = {"learning_rate": 0.0, "learning_rate_tilt": 0.0, "learning_rate_guide": 0.0, "rule": "sgd", "n_steps": 2}
    algorithm = algorithm_of(pplebm.load("variational_joint"), program, rates | {moving: 0.01})
    x = program.data(X[:8])
    state = algorithm.init(program.ppl.key(0), x)
    after, _ = algorithm.step(program.ppl.key(1), state, x)
    numbers = program.ppl.to_numpy
    moved = {n for n, p in state.params.items() if not np.array_equal(numbers(p), numbers(after.params[n]))}
    kinds = {"learning_rate_tilt": program.tilt_params, "learning_rate_guide": set(algorithm.guide.params)}
    others = set(program.params) - program.tilt_params
    assert moved and moved <= kinds.get(moving, others), moved
    assert moving != "learning_rate_guide" or moved == set(algorithm.guide.params)


@pytest.mark.parametrize("name", pplebm.inference_available())
def test_a_rate_of_a_guide_is_refused_where_none_is_learned(name):
    """A setting that does nothing would be believed to have done something."""
    program = pplebm.Program(pplebm.bind("latent_ebm", shape=(4,), latent_dim=2))
    page, learned = pplebm.load(name), None
    if "learning_rate_guide" not in {path.split(".")[-1] for path in flat(page.Hyper())}:
        return
    try:
        learned = algorithm_of(page, program, {"learning_rate_guide": 0.02}).guide
    except PplebmError as error:
        assert str(error) == f"algorithm '{name}' learns no guide; leave learning_rate_guide out."
    assert (learned is not None) == any(isinstance(field, Amortized) for field in page.Hyper())
    algorithm_of(page, program, {"learning_rate_guide": 1e-3})


def test_hyperparameters_of_parts_are_named_by_path_turned_or_alone():
    page = pplebm.load("short_run_mle")
    for change in ({"prior.n_steps": 7}, {"n_steps_prior": "7"}, {"prior": {"n_steps": 7}}):
        hyper = override(page.Hyper(), change, "page")
        assert (hyper.prior.n_steps, hyper.posterior.n_steps) == (7, page.Hyper().posterior.n_steps)
    both = override(page.Hyper(), {"n_steps": 7, "coordinates": "centered"}, "page")
    assert both.prior.n_steps == both.posterior.n_steps == 7
    assert both.prior.coordinates == both.posterior.coordinates == "centered"
    for wrong in ({"prior.n_step": 7}, {"n_steps_posterio": 7}):
        with pytest.raises(PplebmError, match="did you mean"):
            override(page.Hyper(), wrong, "page")
    assert len(dict(tree_leaves(page.Hyper()))) > 15
