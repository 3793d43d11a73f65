"""Sources of samples as data: fresh chains, chains that live on, pools, guides; their laws, lengths and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from changes import small_model
from linear_gaussian import as_numpy

import pplebm
from pplebm.errors import PplebmError
from pplebm.learning.algorithm import Algorithm, algorithm_of
from pplebm.learning.sources import STEPPED, AdjustedChains, AdjustedPool, BaseDraws, Persistent, Pool, ShortRun

N = 1500
X = np.array([1.0, -1.0, 0.5, 0.0])
SMALL = {"step_size": 0.15}


@pytest.fixture
def algorithm(float64):
    """On a model whose prior and posterior are known in closed form."""
    program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(4,)))
    return Algorithm(pplebm.load("short_run_mle"), program)


def exact(algorithm, observed):
    page = pplebm.load("conjugate_tilt")
    return page.closed_form(as_numpy(algorithm.program.params), page.Hyper(), X if observed else None)


def assert_law(z, law, n=N):
    """Means and variances within five standard errors, and the bias that steps of 0.15 leave."""
    got = np.concatenate([z["z1"].numpy(), z["z2"].numpy()], 1)
    assert (np.abs(got.mean(0) - law.mean) < 5 * np.sqrt(np.diag(law.covariance) / n)).all()
    assert np.abs(np.diag(np.cov(got.T)) / np.diag(law.covariance) - 1).max() < 0.05 + 5 * np.sqrt(2 / n)


CASES = {
    "short run": ShortRun(n_steps=500, **SMALL),
    "short run of mala": ShortRun(n_steps=300, step_size=0.35, kernel="mala"),
    "centered": ShortRun(n_steps=500, step_size=0.15, coordinates="centered", init="base"),
    "base draws, afterwards": BaseDraws(n_steps=500, **SMALL),
    "persistent": Persistent(n_steps=1, n_steps_fresh=500, **SMALL),
    "persistent mala": Persistent(n_steps=1, n_steps_fresh=300, step_size=0.35, kernel="mala"),
    "pool": Pool(n_steps=1, n_steps_fresh=500, **SMALL),
    "adjusted chains": AdjustedChains(),
    "adjusted pool": AdjustedPool(),
    "mala of a step that is far too long": ShortRun(n_steps=200, step_size=6.0, kernel="mala"),
    "mala of a step that is far too short": ShortRun(n_steps=300, step_size=0.01, kernel="mala"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("observed", [False, True])
def test_fresh_draws_have_the_law_they_are_asked_for(algorithm, name, observed):
    rows = torch.as_tensor(np.repeat(X[None], N, 0)) if observed else N
    found = CASES[name].draw(algorithm, 3, algorithm.program.params, rows, observed)
    assert_law(found.z, exact(algorithm, observed))
    assert found.info.divergent == 0


@pytest.mark.parametrize("source", [
    Persistent(n_steps=50, n_steps_fresh=1, **SMALL), Pool(n_steps=50, pool=N, renewed=0.0, n_steps_fresh=1, **SMALL),
    Persistent(n_steps=30, n_steps_fresh=1, step_size=3.0, kernel="mala"),
    Pool(n_steps=30, pool=N, renewed=0.0, n_steps_fresh=1, step_size=3.0, kernel="mala"),
], ids=["persistent", "pool", "persistent mala", "pool of mala"])  # fmt: skip
def test_chains_that_live_on_arrive_where_fresh_ones_of_their_length_do_not(algorithm, source):
    """Ten updates of 50 steps are 500 steps; the data of an index move their own chains and no others."""
    params, observed, ppl = algorithm.program.params, isinstance(source, Persistent), algorithm.ppl
    rows = torch.as_tensor(np.repeat(X[None], N, 0)) if observed else N
    kept, index = source.begin(algorithm, 1, params, N), torch.arange(N)
    for i in range(10):
        found = source.advance(algorithm, ppl.key(10 + i), params, rows, observed, kept, index)
        kept = found.kept
    assert_law(found.z, exact(algorithm, observed))
    with pytest.raises(AssertionError):
        assert_law(source.draw(algorithm, 3, params, rows, observed).z, exact(algorithm, observed))
    assert (kept.age == 10).all()
    few = torch.tensor([3, 5])
    part = source.advance(algorithm, 99, params, rows[:2] if observed else 2, observed, kept, few).kept
    changed = (part.z["z1"] != kept.z["z1"]).any(1).nonzero()[:, 0].tolist()
    assert len(changed) == 2 and (not observed or changed == [3, 5])


def test_chains_of_data_stay_where_they_are_when_the_base_moves(algorithm):
    """In centered coordinates: steps too short to see leave them there at other parameters."""
    still, n = Persistent(n_steps=1, step_size=1e-5), 20
    params, rows = algorithm.program.params, torch.as_tensor(np.repeat(X[None], n, 0))
    kept = (
        Persistent(n_steps=50)
        .advance(algorithm, 2, params, rows, True, still.begin(algorithm, 1, params, n), torch.arange(n))
        .kept
    )
    moved = {name: p + 0.3 for name, p in params.items()}
    found = still.advance(algorithm, 3, moved, rows, True, kept, torch.arange(n))
    for site, z in kept.z.items():
        assert (found.z[site] - z).abs().max() < 1e-3
        assert (found.kept.z[site] == found.z[site]).all()


def test_base_draws_in_learning_are_draws_of_the_base(algorithm):
    found = BaseDraws(n_steps=1).advance(algorithm, 3, algorithm.program.params, N, False, (), torch.arange(N))
    base = algorithm.program.draw_base(4, N, algorithm.program.params)
    for site, z in found.z.items():
        spread = base[site].std(0) * (2 / N) ** 0.5
        assert ((z.mean(0) - base[site].mean(0)).abs() < 5 * spread).all()


def test_persistent_chains_start_as_widely_as_they_are_told(algorithm):
    z = Persistent(spread=0.1).begin(algorithm, 1, algorithm.program.params, 4000).z
    for a in z.values():
        assert abs(a.std().item() - 0.1) < 5 * 0.1 / (2 * a.numel()) ** 0.5


def test_mala_without_temperature_climbs_to_the_mode(algorithm):
    """Which of a normal posterior is its mean; a step far too long is found out."""
    chain = ShortRun(n_steps=400, step_size=5.0, kernel="mala", temperature=0.0)
    z = chain.draw(algorithm, 0, algorithm.program.params, torch.as_tensor(X[None]), True).z
    got = np.concatenate([z["z1"].numpy(), z["z2"].numpy()], 1)[0]
    assert np.abs(got - exact(algorithm, True).mean).max() < 1e-3


def test_a_pool_has_one_step_size_and_data_their_own(algorithm):
    params, n = algorithm.program.params, 40
    rows = torch.as_tensor(np.repeat(X[None], n, 0))
    pool, own = (
        Pool(n_steps=3, pool=100, step_size=3.0, kernel="mala"),
        Persistent(n_steps=3, step_size=0.3, kernel="mala"),
    )
    kept = pool.begin(algorithm, 1, params, n)
    kept = pool.advance(algorithm, 2, params, n, False, kept, torch.arange(n)).kept
    assert kept.log_factor.unique().numel() == 1 and kept.log_factor[0] < 0
    kept = own.advance(algorithm, 2, params, rows, True, own.begin(algorithm, 1, params, n), torch.arange(n)).kept
    assert kept.log_factor.unique().numel() > 10


@pytest.mark.parametrize("name", pplebm.inference_available())
def test_lengths_are_those_of_fresh_chains_on_every_page(name, monkeypatch):
    """`n_steps=` reaches the chain whatever the page calls its fields, and is refused where there is none."""
    program = pplebm.Program(small_model(pplebm.load(name), latent_dim=2))
    algorithm, lengths = algorithm_of(pplebm.load(name), program), []
    from pplebm.learning import adjusted, sources

    run, move = sources.short_run, adjusted.weighted.advance
    moved = lambda *a, **more: lengths.append(a[6].n_steps) or move(*a, **more)
    monkeypatch.setattr(adjusted.weighted, "advance", moved)
    anneal = adjusted.annealed_draws
    monkeypatch.setattr(adjusted, "annealed_draws", lambda *a: lengths.append(a[5].n_steps) or anneal(*a))
    monkeypatch.setattr(sources, "short_run", lambda *a, **more: lengths.append(a[5]) or run(*a, **more))
    params, x = algorithm.init(0, torch.zeros(8, 4)).params, torch.zeros(8, 4)
    longer = algorithm.with_n_steps("prior", 7)
    longer.prior_latents(1, params, 5)
    assert lengths == [7]
    if isinstance(algorithm.source("posterior"), STEPPED) and name != "short_run_learned_step":  # which unrolls its own
        algorithm.with_n_steps("posterior", 3).posterior_latents(1, params, x)
        assert lengths == [7, 3]
    elif name != "short_run_learned_step":
        with pytest.raises(PplebmError, match=f"posterior draws of algorithm '{name}' come from no chain"):
            algorithm.with_n_steps("posterior", 3)
    with pytest.raises(PplebmError, match="n_steps must be a positive integer"):
        algorithm.with_n_steps("prior", 0)


def test_back_off_slows_the_tilt_and_lengthens_the_prior_chain_of_learning():
    program = pplebm.Program(pplebm.bind("latent_ebm", shape=(4,), latent_dim=2))
    algorithm = algorithm_of(pplebm.load("persistent_mle"), program)
    after = algorithm.back_off(2)
    assert after.hyper.optimizer.learning_rate_tilt == algorithm.optimizer.learning_rate_tilt / 4
    assert (after.hyper.prior.n_steps, after.hyper.prior.n_steps_fresh) == (45, 100)
    assert algorithm.back_off(0) is algorithm
    assert "prior.n_steps 20 -> 45" in algorithm.differences(after)
