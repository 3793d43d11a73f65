"""What every program must mean, over a zoo of small ones in both languages: densities, rows, draws, learning."""

from __future__ import annotations

import numpy as np
import pytest
from zoo import ENTRIES
from zoo.cases import Case, by_row, case_of, drawn_forward, moments, n_forward, tiled
from zoo.hosts import Watched
from zoo.reference import mapped, numpy

import pplebm
from pplebm.errors import PplebmError
from pplebm.kernels.langevin import langevin
from pplebm.objectives.contrast import contrast
from pplebm.ppl.trees import take_rows

jax = pytest.importorskip("jax")

EVERY = [(entry, name) for entry in ENTRIES for name in entry.hosts]
LOCAL = [(e, name) for e, name in EVERY if not e.joint]

# JAX compiles for seconds what runs for microseconds: one program of every kind there, and the others as slow tests.
SOON = {
    "linear_by_name", "linear_by_column", "linear_by_position", "slopes_by_row", "poisson_with_offset",
    "binomial_with_totals", "random_intercepts", "schools", "crossed_groups", "survival_by_mask",
    "survival_by_formula", "rows_before_parts", "imputed", "placeholders", "scalars", "observed_parents", "lagged",
    "scanned_states", "scanned_observations", "scanned_panel", "deep_markov_model", "zero_sums", "flat_cholesky",
    "truncated", "conditional_tilt", "constant_tilt", "conditional_prior", "masked_tilt", "scaled_tilt",
    "tilted_globals", "masked_positive", "scaled_and_masked_globals", "kept_values", "reparametrised_and_tilted",
    "improper_by_row", "improper_global",
}  # fmt: skip


@pytest.fixture(autouse=True)
def double(float64):
    """Double precision on both sides."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def unchecked(monkeypatch):
    """Compiled densities are compared with the hosts' here, and need no run of their own for it."""
    import pplebm.backends.numpyro.traced as numpyro_side

    monkeypatch.setattr(numpyro_side, "check_agreement", lambda *args: None)


@pytest.fixture
def quick(monkeypatch, unchecked):
    """Runs of the model as it is on the Pyro side, not of graphs of it: a graph is of no use for one density."""
    import pplebm.backends.pyro.traced as pyro_side

    monkeypatch.setattr(pyro_side, "compile_graph", lambda eager, *args: eager)


def each(pairs):
    """One test for every pair of an entry and a host."""
    cases = []
    for entry, name in pairs:
        marks = [pytest.mark.slow] if name == "numpyro" and entry.name not in SOON else []
        cases.append(pytest.param(case_of(entry, name), id=f"{entry}-{name}", marks=marks))
    return pytest.mark.parametrize("case", cases)


def named(*names):
    return [(entry, host) for entry, host in EVERY if entry.name in names]


def close(got, expected, tolerance=1e-11):
    got, expected = numpy(got), numpy(expected)
    assert got.shape == expected.shape, (got.shape, expected.shape)
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


def names(sites):
    return tuple(site.name for site in sites)


# --- what is found


@each(EVERY)
def test_a_program_tells_what_it_found(case: Case):
    e, program = case.entry, case.program
    assert names(program.latents) == e.latents
    assert names(program.observed) == e.observed
    assert set(names(program.tilts)) == set(e.tilts)
    assert set(names(program.deterministic)) == set(e.deterministic)
    assert set(program.covariates) == set(e.covariates)
    assert program.prior_reads == e.reads_prior
    assert program.generator_reads == e.reads_generator
    assert program.has_global_latents == e.joint


@each(EVERY)
def test_data_keep_their_types(case: Case):
    pairs = zip(leaves(case.program.data(case.entry.data)), leaves(case.entry.data))
    for got, given in pairs:
        assert numpy(got).dtype == given.dtype
        np.testing.assert_array_equal(numpy(got), given)


def leaves(data):
    found = []
    mapped(found.append, data)
    return found


# --- densities and values


@each(EVERY)
def test_densities_are_the_hosts_and_the_jacobian(case: Case, unchecked):
    program, reference = case.program, case.reference
    terms = program.log_terms(program.params, reference.z, program.data(case.entry.data))
    assert set(terms) == set(reference.terms)
    for site, expected in reference.terms.items():
        close(terms[site], expected)
    total = program.log_joint(program.params, reference.z, case.data)
    close(total, sum(reference.terms.values()))
    given = case.data if case.entry.reads_prior else None
    prior = sum(reference.terms[site] for site in (*case.entry.latents, *case.entry.tilts))
    close(program.log_prior(program.params, reference.z, given), prior)


@each(EVERY)
def test_values_are_the_hosts(case: Case, quick):
    program, reference = case.program, case.reference

    def there_and_back(z):
        values = program.constrain(program.params, z, case.data)
        return values, program.unconstrain(program.params, values, case.data)

    values, back = case.once(there_and_back)(reference.z)
    assert set(values) == set(reference.values)
    for site, expected in reference.values.items():
        close(values[site], expected)
    assert set(back) == set(reference.z)
    for site, expected in reference.z.items():
        close(back[site], expected, 1e-8)


# --- rows


@each(LOCAL)
def test_rows_depend_on_themselves_alone(case: Case, quick):
    """In another order, and in two batches that share a row where their number is odd."""
    program, z = case.program, case.reference.z
    whole = {site: numpy(a) for site, a in program.log_terms(program.params, z, case.data).items()}
    order = np.random.default_rng(0).permutation(case.n)
    half = (case.n + 1) // 2
    for rows in (order, order[:half], order[-half:]):
        part = program.log_terms(program.params, case.take(z, rows), case.take(case.data, rows))
        for site, expected in whole.items():
            close(part[site], expected[rows])


@each([(e, name) for e, name in EVERY if e.joint])
def test_chains_depend_on_themselves_alone_and_rows_have_no_order(case: Case, quick):
    program, z, h = case.program, case.reference.z, case.h
    whole = numpy(program.log_joint(program.params, z, case.data))
    swapped = program.log_joint(program.params, case.take(z, [1, 0]), case.data)
    close(swapped, whole[::-1])
    if case.entry.exchangeable:
        order = np.random.default_rng(0).permutation(case.n)
        axes = case.reference.axes
        moved = {s: h.array(np.take(numpy(a), order, axes[s])) if s in axes else a for s, a in z.items()}
        if case.entry.name == "gaussian_process":
            moved = {"f": z["f"][:, h.array(order)]}
        close(program.log_joint(program.params, moved, case.take(case.data, order)), whole)


# --- draws


@each([(e, name) for e, name in EVERY if e.improper or e.reads_prior])
def test_draws_that_cannot_be_made_are_refused(case: Case):
    """Of an improper latent, and of a number of rows where the prior reads covariates."""
    if case.entry.improper:
        with pytest.raises(PplebmError, match="improper"):
            case.program.draw_base(case.program.ppl.key(0), case.data)
    if case.entry.reads_prior:
        assert case.program.prior_rows(case.data) is case.data
        with pytest.raises(PplebmError, match="reads"):
            case.program.draw_base(case.program.ppl.key(0), case.n)


@each([(e, name) for e, name in EVERY if e.observed and not e.improper])
def test_simulated_data_have_the_law_of_the_hosts_own(case: Case):
    """Means, squares and products of what both draw, row by row, within five standard errors; in double precision."""
    e, program = case.entry, case.program
    expected, n = drawn_forward(e), n_forward(e)
    data = case.data if e.joint else program.data(tiled(e.data, n))
    rows = n if e.joint else data if e.reads_prior else n * case.n

    def draw():
        z = program.draw_base(program.ppl.key(3), rows, given=case.data if e.joint else None)
        return z, program.predict(program.params, z, program.ppl.key(4), data)

    z, found = case.once(draw)()
    found = {site: numpy(a) for site, a in found.items()}
    assert not {a.dtype for a in found.values()} & {np.dtype("float32"), np.dtype("int32")}
    for site in program.latents:
        assert z[site.name].shape == (n if e.joint else n * case.n, *site.shape)
        assert numpy(z[site.name]).dtype == np.float64
    found = found if e.joint else {site: by_row(a, case.n) for site, a in found.items()}
    assert {site: a.shape for site, a in found.items()} == {site: a.shape for site, a in expected.items()}
    (mean, error), (theirs, other) = moments(found, expected), moments(expected, expected)
    assert (np.abs(mean - theirs) < 5.0 * np.hypot(error, other) + 1e-9).all()


@each(named("linear_by_name", "slopes_by_row", "conditional_prior", "scalars", "reparametrised_groups"))
def test_simulate_is_a_draw_and_what_it_generates(case: Case):
    """At data, or a number of rows where nothing reads any."""
    program = case.program
    reads = case.entry.reads_prior or case.entry.reads_generator
    found = program.simulate(program.ppl.key(0), case.data if reads or case.entry.joint else 11)
    y = numpy(found[case.entry.observed[0]])
    assert y.dtype == np.float64 and np.isfinite(y).all()
    assert y.shape == ((1, case.n) if case.entry.joint else (case.n if reads else 11,))
    if reads:
        with pytest.raises(PplebmError, match="reads"):
            program.simulate(program.ppl.key(0), 11)


# --- learning


@each(EVERY)
def test_the_gradient_of_a_constant_tilt_is_zero(case: Case, quick):
    """A constant per label, weighed and masked, changes no density, whatever the program is."""
    e, h = case.entry, case.h
    label, weight = np.arange(case.n) % 3, np.linspace(0.5, 2.0, case.n)
    if isinstance(e.data, dict):
        data = e.data | {"label_": label, "weight_": weight}
    else:
        data = (label, weight, *(e.data if isinstance(e.data, tuple) else (e.data,)))
    shaped = lambda a: a.reshape(-1, *[1] * (-1 - e.dim))

    watched = Watched(h)
    model = e.make(watched)

    def wrapped(label_, weight_, *args, **kwargs):
        watched.plates.clear()
        model(*args, **kwargs)
        c = h.param("constants", np.array([0.3, -0.2, 0.5]))
        if e.plate is None:
            h.tilt("constant", c.sum())
            return
        with watched.plates[e.plate], h.scale(shaped(weight_)), h.mask(shaped(label_ != 1)):
            h.tilt("constant", shaped(c[label_]))

    program, z = case.made(wrapped, data), case.reference.z
    params, x = program.params, program.data(data)
    other = case.take(z, np.arange(len(next(iter(z.values()))))[::-1].copy())
    loss = lambda params: contrast(program, params, x, z, other)
    _, gradient = program.ppl.value_and_grad(loss, params, has_aux=True)
    assert np.abs(numpy(gradient["constants"])).max() < 1e-10
    assert "constants" in program.tilt_params


@each(named("conditional_tilt", "constant_tilt"))
def test_every_row_has_a_constant_of_its_own(case: Case, quick):
    """The integral of exp(log p̃) over a grid is the constant in closed form."""
    program, grid = case.program, np.linspace(-12.0, 12.0, 481)
    data = program.data(tiled(case.entry.data, len(grid)))
    z = {"z": case.h.array(np.tile(grid, case.n))}
    density = np.exp(numpy(program.log_prior(program.params, z, data))).reshape(case.n, -1)
    np.testing.assert_allclose(np.log(np.trapezoid(density, grid)), case.entry.log_z(case.entry.data), atol=1e-9)


FEW = {"n_chains": 40, "n_draws": 25, "n_warmup": 100, "progress": False}


@each(named("conditional_tilt"))
def test_draws_of_a_conditional_prior_are_those_of_every_row(case: Case):
    """exp(c z) times N(0, 1) is N(c, 1)."""
    draws = pplebm.sample_prior(case.program, given=case.entry.data, **FEW)["z"]
    assert draws.shape == (40, 25, case.n) and draws.dtype == np.float64
    np.testing.assert_allclose(draws.mean((0, 1)), case.entry.data["c"], atol=0.2)
    np.testing.assert_allclose(draws.std((0, 1)), 1.0, atol=0.2)


# --- sampling: predictions at new covariates, values that are kept


def predicted(case, new):
    draws = pplebm.sample(case.program, data=case.entry.data, **FEW)
    return pplebm.predictive(draws, data=new)["y"]


def slope(dose, y, prior_mean, prior_variance, variance):
    """Posterior mean and variance of y ~ N(b dose, variance)."""
    precision = 1.0 / prior_variance + (dose**2 / variance).sum()
    return (prior_mean / prior_variance + (dose * y / variance).sum()) / precision, 1.0 / precision


@each(named("linear_by_name"))
def test_predictions_of_a_line_at_new_doses(case: Case):
    mean, variance = slope(*case.entry.data.values(), 0.0, 25.0, 0.25)
    new = np.array([-3.0, 0.0, 1.0, 5.0])
    found = predicted(case, {"dose": new, "y": np.zeros(4)})
    assert found.shape == (40, 25, 4) and found.dtype == np.float64
    np.testing.assert_allclose(found.mean((0, 1)), mean * new, atol=0.2)
    np.testing.assert_allclose(found.std((0, 1)), np.sqrt(variance * new**2 + 0.25), rtol=0.15)


@each(named("slopes_by_row"))
def test_predictions_of_every_rows_line_at_its_new_dose(case: Case):
    dose, y = case.entry.data.values()
    mean, variance = np.array([slope(d, v, 0.5, 1.0, 0.25) for d, v in zip(dose, y)]).T
    new = dose[::-1] + 1.0
    found = predicted(case, {"dose": new, "y": y})
    np.testing.assert_allclose(found.mean((0, 1)), mean * new, atol=0.25)
    np.testing.assert_allclose(found.std((0, 1)), np.sqrt(variance * new**2 + 0.25), rtol=0.2)


@each(named("lagged"))
def test_predictions_given_another_value_before(case: Case):
    before, y = case.entry.data.values()
    mean = 0.8 * (y - 0.8 * before)  # of z, of variance 0.2
    found = predicted(case, {"before": before + 2.0, "y": y})
    np.testing.assert_allclose(found.mean((0, 1)), 0.8 * (before + 2.0) + mean, atol=0.15)
    np.testing.assert_allclose(found.std((0, 1)), np.sqrt(0.45), rtol=0.15)


@each(named("linear_by_position"))
def test_predictions_of_a_plane_at_more_rows(case: Case):
    design, response = case.entry.data
    covariance = np.linalg.inv(np.eye(2) + design.T @ design / 0.49)
    mean = covariance @ design.T @ response / 0.49
    new = np.random.default_rng(0).normal(size=(20, 2))
    found = predicted(case, (new, np.zeros(20)))
    np.testing.assert_allclose(found.mean((0, 1)), new @ mean, atol=0.2)
    variance = np.einsum("ni,ij,nj->n", new, covariance, new) + 0.49
    np.testing.assert_allclose(found.std((0, 1)), np.sqrt(variance), rtol=0.15)


KEPT = {
    "schools": lambda d, data: {"shift": d["theta"] - d["mu"][..., None]},
    "imputed": lambda d, data: {"y": np.where(data["seen"], data["y"], d["y_unobserved"])},
    "kept_values": lambda d, data: {"level": data["c"] + d["z"].sum(-1), "twice": 2.0 * d["z"]},
    "reparametrised_and_tilted": lambda d, data: {"theta": 2.0 + 0.5 * d["theta_decentered"]},
    "kept_residuals": lambda d, data: {
        "mean": data["c"] + d["z"],
        "residual": data["y"] - data["c"] - d["z"],
        "above": data["y"] > data["c"] + d["z"],
    },
}


@each(named(*KEPT))
def test_values_that_are_kept_come_with_the_draws(case: Case, quick):
    kernel = langevin(0.01)
    settings = {"n_chains": 2, "n_draws": 3, "n_warmup": 0, "progress": False}
    draws = pplebm.sample(case.program, kernel, case.entry.data, **settings)
    expected = KEPT[case.entry.name](draws, case.entry.data)
    assert set(expected) == set(case.entry.deterministic)
    for site, values in expected.items():
        close(draws[site], values)
    found = pplebm.predictive(draws)
    drawn = {"y": found[case.program.observed[0].name]}
    data = case.entry.data | drawn if isinstance(case.entry.data, dict) else drawn
    for site, values in KEPT[case.entry.name](draws, data).items():
        close(found[site], values)


@each(named("kept_residuals"))
def test_values_kept_of_data_that_lack_what_they_need(case: Case, quick):
    """A residual is nobody's before its observation is there; over observations its mean is 0, half of them above."""
    given = {"c": case.entry.data["c"]}
    prior = pplebm.sample_prior(case.program, given=given, n_chains=2, n_draws=3, n_warmup=0, progress=False)
    assert set(prior.values) == {"z", "mean"}
    close(prior["mean"], given["c"] + prior["z"])
    z = {"z": case.program.ppl.asarray(prior["z"][0, 0], keep=True)}
    assert set(case.program.constrain(case.program.params, z)) == {"z"}
    found = pplebm.predictive(prior, mean=True)
    close(found["mean"], found["y"])
    assert np.abs(found["residual"]).max() < 5 * 0.5 / np.sqrt(1000)
    assert np.abs(found["above"] - 0.5).max() < 5 * 0.5 / np.sqrt(1000)
    drawn = pplebm.predictive(prior, seed=1)
    close(drawn["residual"], drawn["y"] - drawn["mean"])


@pytest.mark.parametrize("n", [1, 2])
@each(named("kept_values", "kept_residuals"))
def test_few_rows_keep_their_values_by_row(case: Case, quick, n):
    data = take_rows(case.entry.data, slice(0, n))
    program = pplebm.Program(case.model, data=data, backend=case.name)
    rows = program.data(data)
    z = program.draw_base(program.ppl.key(0), rows)
    values = {k: program.ppl.to_numpy(a) for k, a in program.constrain(program.params, z, rows).items()}
    for site, expected in KEPT[case.entry.name](values, data).items():
        close(values[site], expected)
