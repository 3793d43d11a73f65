"""Short runs set beside long chains: the bias is found where it is known, told, and kept in the report."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

import pplebm
from pplebm import report
from pplebm.cli import main
from pplebm.errors import PplebmError
from pplebm.report.diagnosis import autocorrelation
from pplebm.runs.short_run_bias import LIKELIHOOD, TILT, short_run_bias

DATA = np.random.default_rng(0).normal(size=(80, 3))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model hardly learned: what matters is its chains, two steps for the posterior."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    hyper = {"batch_size": 8, "n_steps_posterior": 2}
    return pplebm.fit("conjugate_tilt", DATA, "short_run_mle", out=folder, updates=2, seed=0, hyper=hyper)


def test_bias_is_found_where_it_is_and_not_where_it_is_not(run):
    """Two steps leave the posterior far from converged; a thousand do not, but for the step size."""
    short, long = (examine_posterior(run, n) for n in (None, 1000))
    worst = lambda biases: max(abs(b.shift) for b in biases if b.name == f"{LIKELIHOOD}[0]")
    assert worst(short.biases) > 1.0 > worst(long.biases) + 0.3
    page, x = pplebm.load("conjugate_tilt"), run.scaling.to_model(DATA[:2])
    params = {name: p.detach().numpy() for name, p in run.params.items()}
    exact = page.closed_form(params, page.Hyper(**run.manifest.model.hyper), x[1])
    got = {b.name: b for b in short.biases}
    assert abs(got["z1[1,0]"].long_mean - exact.mean[0]) < 0.2 * exact.covariance[0, 0] ** 0.5
    assert abs(got["z1[1,0]"].long_sd / exact.covariance[0, 0] ** 0.5 - 1) < 0.1


def examine_posterior(run, n_steps):
    if n_steps is not None:
        latents = run.posterior_latents
        run.posterior_latents = lambda x, seed=0: latents(x, seed, n_steps=n_steps)
    try:
        return short_run_bias(run, DATA[:2], n_chains=8, n_draws=150, n_warmup=150)[1]
    finally:
        run.__dict__.pop("posterior_latents", None)


def test_prior_and_posterior_have_their_rows(run):
    prior, posterior = short_run_bias(run, DATA[:2], n_chains=4, n_draws=40, n_warmup=100)
    assert {b.name for b in prior.biases} >= {TILT, "z1[0]", "z2[0]"}
    assert {b.name for b in posterior.biases} >= {f"{TILT}[1]", f"{LIKELIHOOD}[0]", "z1[1,2]"}
    assert [e.title for e in short_run_bias(run, n_chains=2, n_draws=10, n_warmup=0)] == ["tilted prior"]


def test_a_run_goes_to_arviz(run):
    tree = run.to_arviz(DATA[:2], n_chains=2, n_draws=20, n_warmup=100)
    assert tree["posterior"]["z1"].shape == (2, 20, 2, 3) and tree["prior"]["z2"].shape[:2] == (2, 20)
    assert tree["posterior"]["z1"].dims[2] == "data"


def test_without_tilt_and_data_there_is_nothing_to_examine(tmp_path):
    import pyro
    import pyro.distributions as dist

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            pyro.sample(
                "x",
                dist.Normal(z[..., :1], pyro.param("s", lambda: __import__("torch").tensor(1.0))).to_event(1),
                obs=x,
            )

    plain = pplebm.fit(model, DATA[:, :1], out=tmp_path / "run", updates=1, hyper={"batch_size": 8})
    with pytest.raises(PplebmError, match="give data"):
        short_run_bias(plain)


def test_command_prints_tables_and_the_report_keeps_them(run, tmp_path):
    np.save(tmp_path / "data.npy", DATA)
    words = ["diagnose", str(run.path), "--data", str(tmp_path / "data.npy"), "--chains", "4", "--draws", "40",
             "--warmup", "100", "--rows", "2"]  # fmt: skip
    told = CliRunner().invoke(main, words, standalone_mode=False)
    assert told.exit_code == 0, told.output
    assert "tilted prior: 4 chains of 40 draws" in told.output and "R-hat" in told.output and LIKELIHOOD in told.output
    page = (run.path / "report.html").read_text()
    assert page.count('id="diagnosis"') == 1 and 'href="#diagnosis"' in page and page.count("Ranks of each chain") == 2
    opened = pplebm.open_run(run.path)
    report.write(opened)
    assert 'id="diagnosis"' in (run.path / "report.html").read_text()
    opened.manifest = opened.manifest._replace(
        updates=opened.manifest.updates + 1
    )  # a run that has learned on is another one
    report.write(opened)
    assert 'id="diagnosis"' not in (run.path / "report.html").read_text()


def test_autocorrelation_of_an_autoregression():
    rng, x = np.random.default_rng(0), np.zeros(20_000)
    for t in range(1, len(x)):
        x[t] = 0.7 * x[t - 1] + rng.normal()
    np.testing.assert_allclose(autocorrelation(x, 5), 0.7 ** np.arange(5), atol=0.03)
