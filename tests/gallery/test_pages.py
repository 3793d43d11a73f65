"""Laws that every page of both galleries obeys; a new page is tested by lying in the folder."""

from __future__ import annotations

import ast
import importlib
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from changes import hyper_of, of_data

import pplebm
from pplebm.errors import PplebmError
from pplebm.gallery import pages as gallery
from pplebm.gallery.paper import Paper
from pplebm.learning.algorithm import Algorithm

MODELS, ALGORITHMS = (*pplebm.models_available(), "_template"), (*pplebm.inference_available(), "_template")
ARRAYS = tuple(m for m in MODELS if not gallery.takes_columns(importlib.import_module(f"pplebm.models.{m}")))
OF_BASELINES = {"variational_joint", "short_run_mle"}  # a learner with a guide and one with chains are enough for these
SHAPES = {"conjugate_tilt": [(4,)]}
SMALL = {"batch_size": 8, "n_steps_posterior": 2, "n_steps_prior": 2, "n_steps_fresh": 2, "n_updates_fresh": 2}
OF_POSTERIORS = {"flow_posterior", "short_run_learned_step"}  # whose subject are chains or flows of latents given x
GIVEN = {"flow_posterior"}  # which takes the program as it is, and learns something else
TILT_LATER = {"two_stage", "alternating_backprop"}  # not in the first updates, or not at all


def page(shelf, name):
    return importlib.import_module(f"pplebm.{shelf}.{name}")


def is_tilted(name):
    """Whether a model page has tilts; baselines say that they have none."""
    return getattr(page("models", name), "TILTED", True)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_says_when_it_is_to_be_taken(name):
    """In words that go on from "take it"."""
    when = page("inference", name).WHEN
    assert when.startswith(("for ", "to ", "by ")) and len(when) < 110


@pytest.mark.parametrize(("shelf", "name"), [*(("models", m) for m in MODELS), *(("inference", a) for a in ALGORITHMS)])
def test_page_has_exactly_the_lawful_public_names(shelf, name):
    module = page(shelf, name)
    allowed = set(gallery.SHELVES[shelf]) | {"guide", "closed_form", "Gaussian", "SCALING", "REPORTS", "KEEPS_ROWS"}
    allowed |= {"RESULT", "CHECK"}  # which a page of one's own need not have
    allowed |= {"TILTED"} if shelf == "models" else set()
    allowed |= {"positive", "negative", "rates", "init", "step", "after", "arrived"} if shelf == "inference" else set()
    allowed |= {"WITHOUT_LATENTS"} if shelf == "inference" else set()
    allowed |= {"WHEN"} if shelf == "inference" else set()
    allowed |= {"grouped", "density", "log_evidence"} if name == "random_effects" else set()
    allowed |= {"log_z", "exact_prior"} if name == "univariate_tilts" else set()
    allowed |= {"as_direction"} if name == "posed_scene" else set()
    allowed |= {"masked", "MASK"} if name == "multimodal_ebm" else set()
    allowed |= {"masked"} if name == "latent_flow" else set()
    allowed |= {"as_data", "wanted"} if name in {"latent_optimisation", "latent_plan"} else set()
    allowed |= {"encoded", "decoded", "guide_nets"} if name == "text_decoder" else set()
    allowed |= {"known", "wanted", "guide_nets"} if name == "sequence_design" else set()
    allowed |= {"with_every_label", "class_probabilities"} if name == "conditional_ebm" else set()
    allowed |= {"guide_nets"} if hasattr(module, "guide") else set()
    allowed |= {"atoms"} if name == "sparse_coding" else set()
    allowed |= {"instrument"} if name in {"inverse_problem", "intermediate_layers"} else set()
    allowed |= {"generator"} if name == "intermediate_layers" else set()
    own = {
        n
        for n, v in vars(module).items()
        if not n.startswith("_")
        and (isinstance(v, Paper) or getattr(v, "__module__", module.__name__) == module.__name__)
        and not isinstance(v, type(sys))
    }
    assert set(gallery.SHELVES[shelf]) - {"loss"} <= own and (shelf == "models" or {"loss", "step"} & own)
    assert own <= allowed, f"{own - allowed} should be private"
    assert module.__doc__ and len(module.__doc__.splitlines()) >= 3, "a page opens with its equations"
    assert isinstance(module.DEVIATIONS, tuple) and all(s.endswith(".") for s in module.DEVIATIONS)
    assert isinstance(module.PAPER, Paper)
    assert hasattr(module, "CHECK") == (name != "_template"), "a page names a test that can fail; a template has none"
    lines = Path(module.__file__).read_text().splitlines()
    for node in ast.parse("\n".join(lines)).body:
        for field in node.body if isinstance(node, ast.ClassDef) and node.name == "Hyper" else ():
            parts = getattr(getattr(field, "value", None), "keywords", []) or [field]
            for part in parts:
                assert "#" in lines[part.end_lineno - 1], f"{name}: {ast.unparse(part)} gives no reason for its default"


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("shape", [(4,), (3, 3), (4, 4, 3)])
def test_model_page_becomes_a_program(ppl, name, shape):
    if shape not in SHAPES.get(name, [shape]):
        pytest.skip("the page says which data it takes")
    program = pplebm.Program(pplebm.bind(page("models", name), ppl.name, shape=shape))
    x = ppl.asarray(np.random.default_rng(0).normal(size=(6, *shape)))
    z = program.draw_base(ppl.key(0), 6)
    joint = program.log_joint(program.params, z, x)
    assert joint.shape == (6,) and ppl.isfinite(joint).all()
    assert program.log_prior(program.params, z).shape == (6,)
    assert bool(program.tilts) == is_tilted(name), "a page without tilts says TILTED = False"
    assert program.tilt_params <= program.prior_params
    one = program.log_joint(program.params, {k: v[2:3] for k, v in z.items()}, x[2:3])
    np.testing.assert_allclose(ppl.to_numpy(one), ppl.to_numpy(joint[2:3]), rtol=1e-4)  # a datum's density is its own
    _, gradient = ppl.value_and_grad(lambda p: program.log_joint(p, z, x).sum(), program.params)
    for parameter, g in gradient.items():
        assert (g != 0).any(), f"{parameter} receives no gradient"
    seen = program.given or [site.name for site in program.observed]
    assert program.predict(program.params, z)[seen[0]].shape == (6, *shape)


@pytest.mark.parametrize("name", ARRAYS)
def test_model_page_is_an_ordinary_host_callable(name):
    import pyro

    model = pplebm.bind(page("models", name), "pyro", shape=(4,))
    trace = pyro.poutine.trace(model).get_trace(n=3)
    assert trace.nodes["x"]["value"].shape == (3, 4)
    pyro.clear_param_store()


@pytest.mark.parametrize("name", ARRAYS)
def test_same_seed_same_weights(name):
    first, same, other = (
        pplebm.Program(pplebm.bind(page("models", name), "pyro", shape=(4,), seed=s)).params for s in (1, 1, 2)
    )
    assert all((first[n] == same[n]).all() for n in first)
    assert name == "conjugate_tilt" or any((first[n] != other[n]).any() for n in first)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", ARRAYS)
def test_every_algorithm_takes_a_step_on_every_model(ppl, algorithm, name):
    if not is_tilted(name) and algorithm not in OF_BASELINES:
        pytest.skip("nothing of a tilt to learn")
    module = page("inference", algorithm)
    program = pplebm.Program(pplebm.bind(page("models", name), ppl.name, shape=(4,)))
    x = ppl.asarray(np.random.default_rng(0).normal(size=(8, 4)))
    owner = Algorithm(module, program, hyper_of(module, SMALL))
    if program.given and (owner.has_guide or algorithm in OF_POSTERIORS):
        with pytest.raises(PplebmError, match="every site of the program is observed"):
            owner.step(ppl.key(1), owner.init(ppl.key(0), x), x)
        return
    if of_data(module) and not program.given:
        with pytest.raises(PplebmError, match=f"page {algorithm} .* takes no program with latents"):
            owner.init(ppl.key(0), x)
        return
    state = owner.init(ppl.key(0), x)
    before = {n: 1.0 * p for n, p in state.params.items()}
    step = ppl.compiled(owner.step)
    new, info = step(ppl.key(1), state, x)
    again, _ = step(ppl.key(1), state, x)
    assert type(new) is type(state) and set(info) <= set(owner.reports)
    assert all(math.isfinite(float(v)) for v in info.values())
    for parameter in before:
        assert (state.params[parameter] == before[parameter]).all(), "a step must not change the state it was given"
        assert (new.params[parameter] == again.params[parameter]).all(), "a step must follow from its key"
        moved = (new.params[parameter] != before[parameter]).any()
        assert moved or parameter in program.tilt_params or algorithm in GIVEN, f"{parameter} was not learned"
    changed = {n for n in program.tilt_params if (new.params[n] != before[n]).any()}
    # a tilt's last bias is a constant: it changes no density
    assert len(changed) >= len(program.tilt_params) / 2 or algorithm in {*GIVEN, *TILT_LATER}
    for draw in (
        owner.positive(ppl.key(2), new.params, x).z,
        owner.negative(ppl.key(2), new.params, 5).z,
    ):
        assert set(draw) == {s.name for s in program.latents}


@pytest.mark.parametrize(
    ("name", "words"), [("latent_emb", "did you mean 'latent_ebm'"), ("nothing_at_all", "pages are")]
)
def test_unknown_page_suggests(name, words):
    with pytest.raises(PplebmError, match=words):
        pplebm.load(name)


def test_unknown_hyperparameter_and_backend():
    with pytest.raises(PplebmError, match="did you mean 'sigma'"):
        pplebm.bind("latent_ebm", sigm=0.2)
    with pytest.raises(PplebmError, match="must be float, got 'wide'"):
        pplebm.bind("latent_ebm", sigma="wide")
    with pytest.raises(PplebmError, match="'jax' is not known"):
        pplebm.bind("latent_ebm", "jax")


@pytest.mark.parametrize("dims", [(5,), (4, 3), (5, 4, 3, 2)])
def test_joint_ebm_takes_any_number_of_layers(dims):
    program = pplebm.Program(pplebm.bind("joint_ebm", shape=(6,), latent_dims=dims))
    assert {s.name: s.shape for s in program.latents} == {f"z{i}": (d,) for i, d in enumerate(dims, start=1)}
    assert len(program.tilts) == len(dims)


def test_listing_the_galleries_needs_no_torch():
    code = (
        "import sys, pplebm; pplebm.models_available(); pplebm.inference_available(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
