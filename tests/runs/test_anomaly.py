"""Scores of a run: in its units, by chains or by the runs of learning, and told by the command line."""

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import spearmanr

import pplebm
from pplebm.cli import main
from pplebm.errors import PplebmError
from pplebm.scores.conformal import conformal_p_values, threshold
from pplebm.scores.metrics import auroc

X = np.random.default_rng(0).normal(2.0, 3.0, size=(160, 4))
FAR = X[:20] * [1.0, -2.0, 1.0, 4.0]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A run on a file of data, and a file of new data: ten normal ones, twenty others."""
    folder = tmp_path_factory.mktemp("run")
    new = np.concatenate([np.random.default_rng(1).normal(2.0, 3.0, size=(10, 4)), FAR])
    for name, a in {"data": X, "new": new, "labels": np.repeat([0, 1], [10, 20])}.items():
        np.save(folder / f"{name}.npy", a)
    run = pplebm.fit("conjugate_tilt", folder / "data.npy", "persistent_mle", updates=3, out=folder / "run",
                     progress=False)  # fmt: skip
    return folder, run, new


def call(*args, status=0):
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == status, result.output
    return result.output


def test_the_default_is_minus_log_p_of_x(files):
    _, run, new = files
    page, ppl = pplebm.load("conjugate_tilt"), run.program.ppl
    values = {name: ppl.to_numpy(a) for name, a in run.params.items()}
    closed = lambda x=None: page.closed_form(values, page.Hyper(), x).log_constant
    exact = np.array([closed() - closed(x) for x in ppl.to_numpy(run.data(new))])
    found = run.anomaly_scores(new)["log_evidence"]
    assert (abs(found.value - exact) < 5 * found.error).all() and found.error.max() < 0.5
    np.testing.assert_array_equal(run.anomaly_score(new), found.value)
    np.testing.assert_array_equal(found.value, -run.log_evidence(new).value)


def test_scores_by_the_short_runs_of_learning(files):
    _, run, new = files
    wanted = [run.program.log_joint(run.params, run.posterior_latents(run.data(new), 5 + 7919 * i), run.data(new))
              for i in range(3)]  # fmt: skip
    found = run.anomaly_score(new, 5, 3, "log_joint", posterior="learned")
    np.testing.assert_allclose(found, -np.mean([run.program.ppl.to_numpy(a) for a in wanted], 0), rtol=1e-5)
    chains = run.anomaly_scores(new, ["log_joint"], n_draws=10, n_warmup=100)["log_joint"]
    assert spearmanr(chains.value, found)[0] > 0.95


def test_refusals(files):
    _, run, new = files
    with pytest.raises(PplebmError, match="draws from no posterior, so n_draws and posterior have no meaning"):
        run.anomaly_score(new, 0, 4)
    with pytest.raises(PplebmError, match="posterior 'exact' is not known"):
        run.anomaly_score(new, score="log_joint", posterior="exact")
    with pytest.raises(PplebmError, match="n_draws must be an integer from 2 on"):
        run.anomaly_score(new, 0, 1, "log_joint", posterior="learned")


def test_the_command_tells_p_values_and_a_threshold(files):
    folder, run, new = files
    out = call("anomaly", folder / "run", "--data", folder / "new.npy", "--false-alarm", 0.1, "--out", folder / "s.csv",
               "--labels", folder / "labels.npy", "-k", 1)  # fmt: skip
    table = np.genfromtxt(folder / "s.csv", delimiter=",", names=True)
    held_out = run.to_user(run.load().held_out)
    mine, theirs = run.anomaly_score(new), run.anomaly_score(held_out)
    np.testing.assert_allclose(table["anomaly_score"], mine, rtol=1e-6)
    np.testing.assert_allclose(table["p_value"], conformal_p_values(mine, theirs), rtol=1e-6)
    limit = threshold(theirs, 0.1)
    assert f"threshold {limit.value:.4g}: at most 0.1 false alarms, by {len(theirs)} held-out normal data" in out
    assert f"{limit.flags(mine).sum()} of 30 data exceed it" in out
    assert f"{auroc(np.repeat([0, 1], [10, 20]), mine):.3f} [" in out and "0.667" in out  # prevalence


def test_the_command_says_why_there_is_no_p_value_or_threshold(files):
    folder, *_ = files
    told = call("anomaly", folder / "run", "--data", folder / "data.npy", "-k", 0, "--out", folder / "t.csv",
                "--score", "log_joint", "--posterior", "learned")  # fmt: skip
    assert "no p-values: the data are those of the run itself" in told
    assert (folder / "t.csv").read_text().startswith("index,anomaly_score\n")
    told = call("anomaly", folder / "run", "--data", folder / "new.npy", "--score", "log_joint", "--posterior",
                "learned")  # fmt: skip
    assert "no threshold: a false-alarm rate of 0.01 needs 99 held-out normal data or more" in told


def test_typicality_of_the_command_compares_with_one_half_and_calibrates_on_the_other(files):
    folder, run, new = files
    call("anomaly", folder / "run", "--data", folder / "new.npy", "--score", "typicality_joint", "--posterior",
         "learned", "--out", folder / "u.csv")  # fmt: skip
    held_out = run.to_user(run.load().held_out)
    half = len(held_out) // 2
    how = {"score": "typicality_joint", "posterior": "learned", "normal": held_out[:half]}
    mine, theirs = run.anomaly_score(new, **how), run.anomaly_score(held_out[half:], **how)
    table = np.genfromtxt(folder / "u.csv", delimiter=",", names=True)
    np.testing.assert_allclose(table["p_value"], conformal_p_values(mine, theirs), rtol=1e-6)


def test_slips(files):
    folder, *_ = files
    data = ("anomaly", folder / "run", "--data", folder / "new.npy")
    assert "score 'elbo' is not known; choose one of log_evidence" in call(*data, "--score", "elbo", status=2)
    (folder / "labels.csv").write_text("kind,other\n1,0\n")
    assert "has no column 'label'; it has kind, other" in call(
        *data, "--labels", f"{folder}/labels.csv:label", status=2
    )
    learned = ("--score", "log_joint", "--posterior", "learned")
    assert "there are 1 labels and 30 data" in call(*data, *learned, "--labels", f"{folder}/labels.csv:kind", status=2)
    assert "llr>k: LLR^{>k} = L^{>0} - L^{>k}" in call(*data, "--score", "help")
