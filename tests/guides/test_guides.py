"""Guides: every family on every kind of latent, written ones, and what is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy import integrate

import pplebm
from pplebm.errors import PplebmError
from pplebm.guides.amortized import FAMILIES, amortized
from pplebm.guides.coupling import coupling, transport
from pplebm.guides.guide import Guide
from pplebm.objectives.elbo import elbo, flow_elbo
from pplebm.ppl.language import load_backend

BACKENDS = ("pyro", "numpyro")


def constrained(ppl):
    """A positive and a real latent in a hierarchy, tilted."""

    def model(x):
        with ppl.plate("data", len(x)):
            scale = ppl.sample("scale", ppl.dist.Gamma(3.0, 3.0))
            z = ppl.sample("z", ppl.dist.Normal(0.0, 0.5 + scale))
            ppl.tilt("f", 0.5 * z)
            ppl.sample("x", ppl.dist.Normal(z, 0.5), obs=x)

    return pplebm.Program(model, data=np.zeros(3, np.float32), backend=ppl.name)


def log_evidence(x):
    """log ∫ p̃(x, z, scale) by quadrature."""
    normal = lambda v, m, s: np.exp(-0.5 * ((v - m) / s) ** 2) / (s * np.sqrt(2 * np.pi))
    gamma = lambda s: 13.5 * s**2 * np.exp(-3 * s)
    density = lambda z, s: gamma(s) * normal(z, 0, 0.5 + s) * np.exp(0.5 * z) * normal(x, z, 0.5)
    return np.log(integrate.dblquad(density, 1e-6, 8, -8, 8)[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_importance_weights_of_a_derived_guide_average_to_the_evidence(backend, family):
    """Whatever its weights: so log q is the density of what is drawn, supports included."""
    ppl = load_backend(backend)
    program = constrained(ppl)
    guide = amortized(program, family=family, width=8, depth=1)
    for x in (0.3, -1.2):
        data = ppl.asarray(np.full(200_000, x))
        z, log_q = guide.draw(ppl.key(1), guide.params, data)
        weights = np.exp(ppl.to_numpy(program.log_joint(program.params, z, data) - log_q).astype(float))
        error = weights.std() / np.sqrt(len(weights)) / weights.mean()
        assert error < 0.06 and abs(np.log(weights.mean()) - log_evidence(x)) < 4 * error
        np.testing.assert_allclose(log_q, guide.log_density(guide.params, z, data), rtol=1e-5)


@pytest.mark.parametrize(("backend", "family", "page", "shape", "encoder"), [
    *(("pyro", family, *case) for family in FAMILIES for case in (
        ("joint_ebm", (6, 7), "conv"), ("joint_ebm", (20, 18), None), ("conjugate_tilt", (5,), None),
        ("latent_ebm", (3, 5), "dense"),
    )), ("numpyro", "top_down", "joint_ebm", (6, 7), "conv"), ("numpyro", "ladder", "conjugate_tilt", (5,), None),
])  # fmt: skip
def test_families_fit_data_of_any_shape_and_batch_and_all_their_parameters_learn(backend, family, page, shape, encoder):
    ppl = load_backend(backend)
    program = pplebm.Program(pplebm.bind(page, backend, shape=shape))
    guide = amortized(program, encoder, family, width=6, depth=1, channels=2)
    for n in (1, 4):
        x = ppl.asarray(np.random.default_rng(0).normal(size=(n, *shape)))
        noise = guide.noise(ppl.key(0), n)
        value, gradient = ppl.value_and_grad(
            lambda p, x=x, noise=noise: (program.log_joint(program.params, guide.at(p, noise, x)[0], x)
                                         - guide.at(p, noise, x)[1]), guide.params,
        )  # fmt: skip
        assert value.shape == (n,) and np.isfinite(ppl.to_numpy(value)).all()
    still = [name for name, g in gradient.items() if not float(abs(g).max()) > 0]
    assert not still, still
    assert all(name.startswith("guide.") for name in guide.params)


@pytest.mark.parametrize("backend", BACKENDS)
def test_written_guides_may_use_bijections_of_normals(backend):
    ppl = load_backend(backend)
    program = constrained(ppl)

    def guide(x):
        with ppl.plate("data", len(x)):
            scale = ppl.sample("scale", ppl.dist.LogNormal(0.0 * x, 0.8))
            ppl.sample("z", ppl.dist.Normal(0.8 * x, 0.2 + 0.5 * scale))

    written, x = Guide(program, guide), -0.7
    data = ppl.asarray(np.full(200_000, x))
    z, log_q = written.draw(ppl.key(0), written.params, data)
    weights = np.exp(ppl.to_numpy(program.log_joint(program.params, z, data) - log_q).astype(float))
    error = weights.std() / np.sqrt(len(weights)) / weights.mean()
    assert error < 0.06 and abs(np.log(weights.mean()) - log_evidence(x)) < 4 * error


def bent(ppl):
    """A posterior like a banana: x sees z0 and the square of z1."""

    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            ppl.tilt("f", 0.5 * z[..., 0])
            ppl.sample("x", ppl.dist.Normal(z[..., 0] + 0.7 * z[..., 1] ** 2, 0.4), obs=x)

    return pplebm.Program(model, data=np.zeros(3, np.float32), backend=ppl.name)


def bent_evidence(x):
    normal = lambda v, m, s: np.exp(-0.5 * ((v - m) / s) ** 2) / (s * np.sqrt(2 * np.pi))
    density = lambda b, a: normal(a, 0, 1) * normal(b, 0, 1) * np.exp(0.5 * a) * normal(x, a + 0.7 * b * b, 0.4)
    return np.log(integrate.dblquad(density, -7, 7, -7, 7)[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_importance_weights_of_a_flow_average_to_the_evidence(backend, family):
    ppl = load_backend(backend)
    program = bent(ppl)
    guide = amortized(program, family=family, width=8, depth=1, n_transforms=2)
    data = ppl.asarray(np.full(100_000, 0.8))
    z, log_q = guide.draw(ppl.key(1), guide.params, data)
    weights = np.exp(ppl.to_numpy(program.log_joint(program.params, z, data) - log_q).astype(float))
    error = weights.std() / np.sqrt(len(weights)) / weights.mean()
    assert error < 0.03 and abs(np.log(weights.mean()) - bent_evidence(0.8)) < 4 * error


def test_a_flow_of_zuko_in_a_written_guide():
    import pyro
    import torch
    import zuko
    from pyro.contrib.zuko import ZukoToPyro

    torch.manual_seed(0)
    ppl, flow = load_backend("pyro"), zuko.flows.MAF(2, 1, transforms=2, hidden_features=(8,))

    def guide(x):
        pyro.module("flow", flow)
        with pyro.plate("data", len(x)):
            pyro.sample("z", ZukoToPyro(flow(x[:, None])))

    program, data = bent(ppl), torch.full((100_000,), 0.8)
    written = Guide(program, guide)
    z, log_q = written.draw(1, written.params, data)
    weights = (program.log_joint(program.params, z, data) - log_q).detach().double().exp().numpy()
    error = weights.std() / np.sqrt(len(weights)) / weights.mean()
    assert error < 0.03 and abs(np.log(weights.mean()) - bent_evidence(0.8)) < 4 * error


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_flow_fits_what_normals_cannot(backend):
    """The gap between bound and evidence of a bent posterior, after the same learning."""
    ppl = load_backend(backend)
    program, x = bent(ppl), ppl.asarray(np.full(256, 1.5))
    negative = program.draw_base(ppl.key(9), 4)  # no parameter of the prior learns here
    bounds = {}
    for n_transforms in (0, 2):
        guide = amortized(program, width=16, depth=1, n_transforms=n_transforms)

        def step(key, params, adam, guide=guide):
            noise = guide.noise(key, 256)
            loss = lambda p: elbo(program, guide, p, x, noise, negative)
            (_, aux), gradient = ppl.value_and_grad(loss, params, has_aux=True)
            params, adam = ppl.optimizer().update(params, gradient, adam, dict.fromkeys(params, 0.02))
            return params, adam, aux.bound

        step, params = ppl.compiled(step), guide.params
        adam, last = ppl.optimizer().init(params), []
        for i in range(400):
            params, adam, bound = step(ppl.key(i), params, adam)
            last.append(float(bound))
        bounds[n_transforms] = np.mean(last[-100:])
    evidence = bent_evidence(1.5)
    assert bounds[0] < bounds[2] - 0.1 and bounds[2] < evidence + 0.05, (bounds, evidence)


@pytest.mark.usefixtures("float64")
def test_flows_know_their_jacobian():
    import torch

    ppl = load_backend("pyro")
    guide = amortized(bent(ppl), width=8, depth=1, n_transforms=3)
    params = {n: 2.0 * p for n, p in guide.params.items()}
    noise, x = guide.noise(0, 4), torch.randn(4)
    log_q = guide.at(params, noise, x)[1]
    for i in range(4):
        alone = lambda u, i=i: guide.at(params, {"z": u[None]}, x[i : i + 1])[0]["z"][0]
        jacobian = torch.autograd.functional.jacobian(alone, noise["z"][i])
        log_normal = -0.5 * float((noise["z"][i] ** 2).sum()) - np.log(2 * np.pi)
        exact = log_normal - float(torch.linalg.slogdet(jacobian).logabsdet)
        assert float(log_q[i]) == pytest.approx(exact, abs=1e-8)


def test_flows_for_what_has_no_flow_are_refused():
    program = pplebm.Program(pplebm.bind("joint_ebm", shape=(4,)))
    with pytest.raises(PplebmError, match="n_transforms must be 0"):
        amortized(program, n_transforms=-1)


def test_guides_that_do_not_fit_are_refused():
    ppl = load_backend("pyro")
    program = constrained(ppl)

    def guide_of(statement):
        def guide(x):
            with ppl.plate("data", len(x)):
                statement(x)

        return guide

    normal, gamma = ppl.dist.Normal, ppl.dist.Gamma
    wrong = {
        "no latent 'z'": lambda x: ppl.sample("scale", ppl.dist.LogNormal(0.0 * x, 1.0)),
        "they must agree": lambda x: [ppl.sample(n, normal(0.0 * x, 1.0)) for n in ("scale", "z")],
        "Gamma": lambda x: [ppl.sample("scale", gamma(1.0 + 0.0 * x, 1.0)), ppl.sample("z", normal(0.0 * x, 1.0))],
        "declares w": lambda x: [
            ppl.sample("scale", ppl.dist.LogNormal(0.0 * x, 1.0)), ppl.sample("z", normal(0.0 * x, 1.0)),
            ppl.sample("w", normal(0.0 * x, 1.0)),
        ],
    }  # fmt: skip
    for words, statement in wrong.items():
        with pytest.raises(PplebmError, match=words):
            Guide(program, guide_of(statement))
    for settings, words in (({"family": "flow"}, "family"), ({"encoder": "lstm"}, "encoder"),
                            ({"encoder": "conv"}, "images")):  # fmt: skip
        with pytest.raises(PplebmError, match=words):
            amortized(program, **settings)


@pytest.mark.usefixtures("float64")
def test_coupling_flows_know_their_jacobian():
    import torch

    import pplebm.backends.pyro as ppl

    flow = coupling(ppl, 3, 5, n_layers=3, width=4)
    flow = {n: a + 0.3 * b for (n, a), b in zip(flow.items(), ppl.normal_like(0, flow).values(), strict=True)}
    u = ppl.normal_like(1, {"u": torch.zeros(3, 5)})["u"]
    z, log_det = transport(ppl, flow, u)
    for i in range(3):
        own = {n: a[i : i + 1] for n, a in flow.items()}
        jacobian = torch.func.jacrev(lambda v, own=own: transport(ppl, own, v[None])[0][0])(u[i])
        assert float(torch.linalg.slogdet(jacobian).logabsdet) == pytest.approx(float(log_det[i]), abs=1e-10)
        assert torch.allclose(transport(ppl, own, u[i : i + 1])[0][0], z[i])


def test_the_bound_of_a_flow_is_the_evidence_less_the_divergence(ppl):
    """z ~ N(0, 1) tilted by a z, x ~ N(z, 1): posterior N((x + a) / 2, 1/2); draws ±√d e make means exact."""
    a, d = np.array([0.7, -1.2, 0.4]), 3

    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0).expand([d]).to_event(1))
            ppl.tilt("f", (ppl.asarray(a) * z).sum(-1))
            ppl.sample("x", ppl.dist.Normal(z, 1.0).to_event(1), obs=x)

    x, off = np.random.default_rng(0).normal(size=(4, d)), np.array([0.3, 0.0, -0.5])
    program = pplebm.Program(model, data=ppl.asarray(x), backend=ppl.name)
    flow = coupling(ppl, 4, d, n_layers=2, width=4)
    location, width = 0.5 * (x + a) + off, np.full((4, d), 0.5 * np.log(0.5))
    flow |= {"location": ppl.asarray(location), "log_width": ppl.asarray(width)}
    points = np.concatenate([np.eye(d), -np.eye(d)]) * d**0.5
    u = ppl.asarray(np.repeat(points, 4, 0))  # one draw of every datum after the other
    loss, bound = flow_elbo(program, program.params, flow, ppl.asarray(x), u, 2 * d)
    evidence = (-0.25 * (x - a) ** 2 - 0.5 * np.log(4.0 * np.pi) + 0.5 * a**2).sum(1)
    exact = evidence - (off**2).sum()
    assert float(bound) == pytest.approx(exact.mean(), abs=1e-4)
    assert -float(loss) == pytest.approx((exact - 0.5 * d * (1.0 + np.log(2.0 * np.pi))).sum(), abs=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("encoder", "shape"), [("series", (20, 2)), ("recurrent", (6, 2)), (None, (16, 3))])
def test_guides_read_series_and_learn_from_them(backend, encoder, shape):
    ppl = load_backend(backend)
    program = pplebm.Program(pplebm.bind("latent_ebm", backend, shape=shape, latent_dim=3, width=8))
    guide = amortized(program, encoder, width=8, channels=4)
    x = ppl.asarray(np.random.default_rng(0).normal(size=(5, *shape)))
    params, noise, negative = (
        program.params | guide.params,
        guide.noise(ppl.key(0), 5),
        program.draw_base(ppl.key(1), 5),
    )
    loss = lambda p: elbo(program, guide, p, x, noise, negative)
    (value, _), gradient = ppl.value_and_grad(loss, params, has_aux=True)
    assert np.isfinite(float(value))
    still = {name for name, g in gradient.items() if name.startswith("guide.encoder") and not bool((g != 0).any())}
    assert not still


def test_flows_of_matrices_and_without_their_library_are_refused(monkeypatch):
    ppl = load_backend("pyro")

    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0).expand([2, 2]).to_event(2))
            ppl.sample("x", ppl.dist.Normal(z.sum((-1, -2)), 1.0), obs=x)

    with pytest.raises(PplebmError, match="a flow needs a vector"):
        amortized(pplebm.Program(model, data=np.zeros(3, np.float32)), n_transforms=1)
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(PplebmError, match=r"pplebm\[flows\]"):
        amortized(bent(ppl), n_transforms=1)


def test_a_ladder_shows_the_data_to_every_site_they_depend_on():
    """And to the lowest alone where they depend on that alone; without, q(z2|z1) would know nothing of x."""
    import pyro
    import pyro.distributions as dist
    import torch

    def model(x, both):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(z2, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z1 + both * z2, 1.0).to_event(1), obs=x)

    x = torch.linspace(-3.0, 3.0, 12).reshape(6, 2)
    for both in (True, False):
        program = pplebm.Program(lambda x, both=both: model(x, float(both)), data=x)
        guide = amortized(program)
        width = [max(p.shape[1] for name, p in guide.params.items() if "q_z2" in name and p.ndim == 2)]
        assert width == [128 + 2 * both]
        z, _ = guide.draw(0, guide.params, x)
        other, _ = guide.at(guide.params, guide.noise(0, 6), x)
        assert set(z) == set(other) == {"z1", "z2"}
