"""The command line: every command, its files, its exit statuses, and the life of a run."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

import pplebm
from pplebm.cli import main
from pplebm.cli.citation import of_package
from pplebm.gallery.hyper import flat
from pplebm.learning.algorithm import Algorithm

ROOT = Path(__file__).resolve().parents[2]
TINY = ("n_steps_posterior=2", "n_steps_prior=2", "batch_size=16")
SMALL = ("model.width=8", "tilt_width=8", "latent_dim=3")

PLAIN = """
import pyro, torch
import pyro.distributions as dist
from pplebm import tilt
from my_parts import Decoder

decoder, f = Decoder(), torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))

def model(x):
    pyro.module("decoder", decoder)
    pyro.module("f", f)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0., 1.).expand([2]).to_event(1))
        tilt("f", f(z).squeeze(-1))
        pyro.sample("x", dist.Normal(decoder(z), 0.5).to_event(1), obs=x)
"""
PARTS = """
import torch

class Decoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 3)

    def forward(self, z):
        return self.layer(z)
"""


def sets(*pairs):
    return [word for pair in pairs for word in ("--set", pair)]


def call(*args, status=0):
    """Run the command in this process; its output, after checking its status and that there is no traceback."""
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result.output


def python(*args, **kwargs):
    """A command of another process, in which the library is importable."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-W", "error", *map(str, args)], env=env, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, **kwargs,
    )  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(path, np.random.default_rng(0).uniform(0.0, 16.0, (60, 4, 4)))
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "table.csv"
    np.savetxt(path, np.random.default_rng(0).normal(5.0, 2.0, (60, 3)), delimiter=",")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp("fitted") / "run"
    output = call(
        "fit", "latent_ebm", "--data", images, "--out", folder, "--updates", 2, "--no-report", *sets(*TINY, *SMALL)
    )
    assert f"run: {folder}" in output and "log_likelihood" in output and "2 updates" in output
    assert not (folder / "report.html").exists()
    return folder


# --- pages


def test_list_and_show_need_no_torch():
    code = (
        "import sys; from pplebm.cli import main\n"
        "for args in ('--help', 'list', 'show joint_ebm', 'show short_run_mle', 'cite mle', 'cite', 'fti'):\n"
        "    try: main(args.split())\n"
        "    except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'pyro', 'jax', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    process = python("-c", code)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "joint_ebm" in out and "did you mean 'fit'?" in err


def listed(output):
    """Lines of every page of the list."""
    found, lines = {}, []
    for line in output.partition("\n\n")[0].splitlines():
        if re.match(r"  \w", line):
            lines = found[line.split()[0]] = []
        lines.append(line)
    return {name: [line for line in lines if line not in ("models:", "algorithms:")] for name, lines in found.items()}


def test_list_has_whole_lines_of_every_page_in_a_pipe():
    found = listed(call("list"))
    assert list(found) == [*pplebm.models_available(), *pplebm.inference_available()]
    for name, (first, *more) in found.items():
        page = pplebm.load(name)
        assert first.split()[0] == name and first.endswith(f" {page.PAPER}")
        assert "+".join(getattr(page, "BACKENDS", ["any"])) in first.split()
        told = [f"take it {page.WHEN}"] if hasattr(page, "WHEN") else []
        told += [f"on {page.RESULT}"] if hasattr(page, "RESULT") else []
        assert [line.strip() for line in more] == told
    assert any("on digits: " in line for line in found["joint_ebm"])


@pytest.mark.parametrize("columns", [60, 80, 130])
def test_list_is_read_in_any_terminal(columns, monkeypatch):
    """The same words in the same order, in lines that fit and go on behind the names of the pages."""
    words = lambda found: [" ".join(lines).split() for lines in found.values()]
    piped = listed(call("list"))
    monkeypatch.setattr("pplebm.cli.pages.terminal_width", lambda: columns)
    found = listed(call("list"))
    assert words(found) == words(piped)
    for first, *more in found.values():
        assert max(map(len, (first, *more))) <= columns and all(line.startswith("      ") for line in more)


def test_cite_prints_bibtex():
    assert call("cite", "joint_ebm") == pplebm.load("joint_ebm").PAPER.bibtex() + "\n"
    output = call("cite", "joint_ebm", "latent_ebm", "two_stage")  # two of them are of one paper
    assert [line for line in output.splitlines() if line.startswith("@")] == [
        "@inproceedings{cui2023learningjoint,",
        "@inproceedings{pang2020learninglatent,",
    ]


def test_cite_without_a_page_is_the_package_as_its_file_tells_it(tmp_path):
    yaml = pytest.importorskip("yaml")
    output, told = call("cite"), yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert output.startswith("@misc{pplebm,\n") and f"title = {{{{{told['title']}}}}}" in output
    assert f"version {pplebm.__version__}}}" in output and str(told["version"]) == pplebm.__version__
    assert "{" + " and ".join(f"{{{author['name']}}}" for author in told["authors"]) + "}" in output
    assert "year" not in output and "date-released" not in told  # what the file does not tell is not told
    more = tmp_path / "CITATION.cff"
    text = (ROOT / "CITATION.cff").read_text().replace("keywords:", "date-released: 2031-05-06\nkeywords:", 1)
    person = "  - family-names: Laird\n    given-names: 'Nan M.'\n"
    more.write_text(text.replace("  - name: The pplebm", f"{person}  - name: The pplebm"))
    assert [author.get("family-names") for author in yaml.safe_load(more.read_text())["authors"]] == ["Laird", None]
    found = of_package(more)
    assert "year = {2031}" in found and "author = {Laird, Nan M. and {The pplebm authors}}" in found


def test_pages_that_tell_no_paper_cannot_be_cited(tmp_path):
    own = tmp_path / "own.py"
    own.write_text("def model(x):\n    pass\n")
    assert "names no paper" in call("cite", own, status=2)
    own.write_text("PAPER = 'Wu. Sums. 2000'\n\ndef model(x):\n    pass\n")
    assert "Paper(authors, title, year, ...)" in call("cite", own, status=2)
    assert "Wu. Sums. 2000" in call("show", own)
    call("copy", "joint_ebm", tmp_path / "copied.py")
    assert call("cite", tmp_path / "copied.py") == call("cite", "joint_ebm")


@pytest.mark.parametrize("name", [*pplebm.models_available(), *pplebm.inference_available()])
def test_show_tells_all_of_a_page(name):
    page, output = pplebm.load(name), call("show", name)
    for field, value in flat(page.Hyper()).items():
        [line] = [line for line in output.splitlines() if line.startswith(f"  {field} = ")]
        assert line.startswith(f"  {field} = {value}")
    assert str(page.PAPER) in output and page.__file__ in output and page.__doc__.splitlines()[0] in output
    assert f"\n  cd {ROOT}\n  python -m pytest {shlex.quote(page.CHECK)}\n" in output
    assert call("show", name, "--source") == Path(page.__file__).read_text()


def test_show_gives_the_reason_of_a_default():
    assert "of x given z1, the paper's value for data in [-1, 1]" in call("show", "joint_ebm")


def test_show_tells_where_tests_are_that_are_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr("pplebm.cli.pages.place", lambda name: tmp_path / name)
    output = call("show", "mle")
    assert "check: learning reaches the exact maximum and ends\n" in output
    assert "in the sources of pplebm: tests are not installed" in output and "cd " not in output


def test_show_says_of_a_copy_that_the_file_tells_its_result(tmp_path):
    call("copy", "latent_ebm", tmp_path / "own.py")
    output = call("show", tmp_path / "own.py")
    assert "result, as the file says, on digits: " in output and "as the file says; pplebm check" in output
    text = (tmp_path / "own.py").read_text()
    (tmp_path / "own.py").write_text(re.sub("^(RESULT|CHECK) = .*\n", "", text, flags=re.M))
    output = call("show", tmp_path / "own.py")
    assert "result" not in output.partition("deviations:")[0] and "check:" not in output


def test_version_and_bare_command():
    assert pplebm.__version__ in call("--version")
    assert "demo" in call() and "demo" in call("-h")


SLIPS = {  # arguments -> words
    ("fti",): "did you mean 'fit'?",
    ("show", "joint_ebn"): "did you mean 'joint_ebm'?",
    ("fit", "latent_ebn"): "did you mean 'latent_ebm'?",
    ("fit",): "pplebm list",
    ("fit", "latent_ebm", "--updats", "3"): "--updates",
    ("fit", "latent_ebm", "--set", "sigmo=1"): "did you mean 'sigma'?",
    ("fit", "latent_ebm", "--set", "sigma"): "--set name=value",
    ("fit", "latent_ebm", "--set", "sigma=wide"): "must be float",
    ("fit", "latent_ebm", "--data", "digit"): "digits",
    ("fit", "short_run_mle"): "not a model",
    ("fit", "latent_ebm", "--inference", "joint_ebm"): "not an algorithm",
    ("fit", "--resume"): "--out",
    ("fit", "--resume", "--out", "nowhere"): "holds no run",
    ("sample", "nowhere", "--out", "a.npz"): "holds no run",
    ("sample", "nowhere", "--out", "a.txt"): ".npz",
    ("anomaly", "nowhere", "--data", "digits"): "holds no run",
    ("score", "nowhere", "--data", "digits"): "holds no run",
    ("report", "nowhere"): "holds no run",
    ("estimates", "nowhere"): "holds no run",
    ("check", "joint_ebn"): "did you mean",
    ("cite", "joint_ebn"): "did you mean 'joint_ebm'?",
}


@pytest.mark.parametrize("args", SLIPS)
def test_slips_are_told_in_two_lines_and_exit_2(args, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = call(*args, status=2)
    assert output.startswith("pplebm: ") and SLIPS[args] in output
    assert len(output.splitlines()) <= 2


# --- use of a run


def test_sample_writes_draws_and_a_picture(run, tmp_path):
    call("sample", run, "-n", 5, "--seed", 3, "--out", tmp_path / "a.npz")
    call("sample", run, "-n", 5, "--seed", 3, "--out", tmp_path / "b.npy")
    x = np.load(tmp_path / "a.npz")["x"]
    assert x.shape == (5, 4, 4) and np.array_equal(x, np.load(tmp_path / "b.npy"))
    assert np.array_equal(x, pplebm.open_run(run).sample_data(5, seed=3))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    call("sample", run, "-n", 5, "--base", "--mean", "--out", tmp_path / "c.npz")
    call("sample", run, "-n", 5, "--n-steps", 3, "--out", tmp_path / "d.npz")
    assert len({np.load(tmp_path / f"{name}.npz")["x"].tobytes() for name in "acd"}) == 3


def test_anomaly_keeps_the_order_of_the_data(run, images, tmp_path):
    output = call("anomaly", run, "--data", images, "--out", tmp_path / "scores.csv", "-k", 2)
    table = np.genfromtxt(tmp_path / "scores.csv", delimiter=",", names=True)
    assert table["index"].tolist() == list(range(60))
    worst = int(table["anomaly_score"].argmax())
    assert f"datum {worst}: {table['anomaly_score'].max():.4g}" in output and output.count("datum ") == 2
    direct = pplebm.open_run(run).anomaly_score(np.load(images))
    np.testing.assert_allclose(table["anomaly_score"], direct, rtol=1e-3)


def test_of_a_named_set_the_held_out_part_is_scored(tmp_path):
    call("fit", "latent_ebm", "--out", tmp_path / "run", "--updates", 1, "--no-report", *sets(*TINY, *SMALL))
    output = call("anomaly", tmp_path / "run", "--data", "digits", "-k", 0, "--out", tmp_path / "scores.csv",
                  "--particles", 320)  # fmt: skip
    assert "anomaly score of 359 data" in output
    opened, data = pplebm.open_run(tmp_path / "run"), pplebm.data.load("digits")
    direct = opened.anomaly_score(data.scaling.to_user(data.held_out), evidence={"n_particles": 320})
    table = np.genfromtxt(tmp_path / "scores.csv", delimiter=",", names=True)
    np.testing.assert_allclose(table["anomaly_score"], direct, rtol=1e-5)


def test_older_words_are_understood_and_not_shown(run, images, tmp_path):
    assert "  anomaly " in call("-h") and "  score " not in call("-h")
    assert "anomaly score of 60 data" in call("score", run, "--data", images, "-k", 0)
    assert "anomaly --help" in call("score", run, status=2)
    call("fit", "latent_ebm", "--data", images, "--out", tmp_path / "run", "--steps", 1, *sets(*TINY, *SMALL))
    assert pplebm.open_run(tmp_path / "run").manifest.updates == 1


def test_a_run_keeps_the_line_of_a_paper(run):
    manifest = pplebm.open_run(run).manifest
    assert manifest.model.paper == str(pplebm.load("latent_ebm").PAPER)
    assert manifest.inference.paper == str(pplebm.load("mle").PAPER)
    assert manifest.model.paper in (run / "manifest.json").read_text()


def test_report_is_written(run):
    assert "report.html" in call("report", run)
    assert (run / "report.html").read_text().lstrip().lower().startswith("<!doctype html")


def test_demo_takes_a_new_folder_every_time(tmp_path):
    (tmp_path / "demo").mkdir()
    output = call("demo", "--updates", 1, "--out", tmp_path / "demo", *sets(*TINY[1:], "model.width=8"))
    report = tmp_path / "demo-2" / "report.html"
    assert str(report) in output and report.is_file()
    assert not list((tmp_path / "demo").iterdir())


# --- the life of a run


def learned(folder):
    """All that must not differ between runs that are equal: every array and number, and the metrics but for seconds."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return load_file(folder / "checkpoint.safetensors"), [{k: v for k, v in r.items() if k != "seconds"} for r in rows]


def assert_equal_runs(a, b):
    (arrays, rows), (others, other_rows) = learned(a), learned(b)
    assert arrays.keys() == others.keys() and rows == other_rows
    assert all(np.array_equal(arrays[name], others[name]) for name in arrays)


def test_an_existing_run_is_not_overwritten(run, images):
    before = (run / "checkpoint.safetensors").read_bytes()
    output = call("fit", "latent_ebm", "--data", images, "--out", run, "--updates", 2, *sets(*TINY, *SMALL), status=2)
    assert "holds a run already" in output and "--resume" in output
    assert (run / "checkpoint.safetensors").read_bytes() == before


def test_a_resumed_run_equals_an_uninterrupted_one(images, tmp_path, monkeypatch):
    args = ["fit", "latent_ebm", "--data", images, "--no-report", "--updates", 23, *sets(*TINY, *SMALL)]
    call(*args, "--out", tmp_path / "whole")
    step, n_calls = Algorithm.step, []

    def stopping(*a):
        n_calls.append(1)
        if len(n_calls) == 12:
            raise KeyboardInterrupt
        return step(*a)

    monkeypatch.setattr(Algorithm, "step", stopping)
    output = call(*args, "--out", tmp_path / "stopped", status=130)
    assert re.search(r"stopped at update (\d|1[01]) and saved", output) and "--resume --out" in output  # a block's end
    monkeypatch.setattr(Algorithm, "step", step)
    call("fit", "--resume", "--out", tmp_path / "stopped", "--no-report")  # model, data and steps as the run knows them
    assert_equal_runs(tmp_path / "whole", tmp_path / "stopped")


def test_resume_refuses_what_a_run_has_settled(run):
    assert "--set" in call("fit", "--resume", "--out", run, "--set", "sigma=1", status=2)
    assert "--seed" in call("fit", "--resume", "--out", run, "--seed", 0, status=2)
    assert "not of 'joint_ebm'" in call("fit", "joint_ebm", "--resume", "--out", run, status=2)
    assert "differ" in call("fit", "--resume", "--out", run, "--data", "digits", status=2)


def test_ctrl_c_saves_exits_130_and_says_how_to_go_on(images, tmp_path):
    folder = tmp_path / "run"
    main = (  # listens to Ctrl-C even where the tests themselves run in the background and do not
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from pplebm.cli import main; main()"
    )
    process = python(
        "-c", main, "fit", "latent_ebm", "--data", images, "--out", folder, "--updates", 100000, "--no-report",
        *sets(*TINY, *SMALL),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (folder / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err and f"--resume --out {folder}" in out
    assert pplebm.open_run(folder).manifest.updates >= 100


# --- files of one's own


def test_a_plain_program_is_fitted_by_path_and_opened_elsewhere(table, tmp_path, monkeypatch):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir(), elsewhere.mkdir()
    (home / "mine.py").write_text(PLAIN)
    (home / "my_parts.py").write_text(PARTS)
    monkeypatch.chdir(elsewhere)
    assert "Nothing wrong found." in call("check", home / "mine.py", "--data", table, *sets(*TINY))
    call("fit", home / "mine.py", "--data", table, "--updates", 2, "--no-report", *sets(*TINY))
    (home / "mine.py").unlink()  # the run has its own copy
    folder = elsewhere / "runs" / "mine-mle-seed0"
    monkeypatch.chdir(tmp_path)
    opened = pplebm.open_run(folder)
    assert opened.sample_data(4).shape == (4, 3) and "decoder.layer.weight" in opened.params
    assert "report.html" in call("report", folder)


def test_a_copied_page_gives_the_numbers_of_the_shipped_one(images, tmp_path):
    assert "pplebm check" in call("copy", "latent_ebm", tmp_path / "own.py")
    assert "exists already" in call("copy", "latent_ebm", tmp_path / "own.py", status=2)
    call("copy", "short_run_mle", tmp_path / "own_algorithm.py")
    for name, model, algorithm in (
        ("a", "latent_ebm", "short_run_mle"),
        ("b", tmp_path / "own.py", tmp_path / "own_algorithm.py"),
    ):
        call(
            "fit", model, "--inference", algorithm, "--data", images, "--updates", 3, "--no-report",
            "--out", tmp_path / name, *sets(*TINY, *SMALL),
        )  # fmt: skip
    assert_equal_runs(tmp_path / "a", tmp_path / "b")


def test_check_exits_1_when_it_finds_something(table, tmp_path):
    (tmp_path / "mine.py").write_text("def model(x):\n    pass\n")
    assert "FAIL  sites" in call("check", tmp_path / "mine.py", "--data", table, status=1)


def test_an_error_in_an_algorithm_of_ones_own_is_told_with_its_line(images, tmp_path):
    call("copy", "short_run_mle", tmp_path / "own.py")
    text = (tmp_path / "own.py").read_text()
    (tmp_path / "own.py").write_text(text.replace("return contrast(", "raise KeyError('oh')\n    return contrast("))
    args = ("fit", "latent_ebm", "--inference", tmp_path / "own.py", "--data", images, "--out", tmp_path / "run")
    output = call(*args, *sets(*TINY, *SMALL), status=2)
    line = text.split("return contrast(")[0].count("\n") + 1
    assert f"KeyError: 'oh' (own.py, line {line})" in output


def test_warnings_are_notes():
    code = (
        "import warnings, click; from pplebm.cli import main\n"
        "@main.command()\ndef warn(): warnings.warn('one\\ntwo')\n"
        "main(['warn'])"
    )
    process = python("-W", "default", "-c", code)
    assert process.communicate(timeout=60)[1] == "pplebm: note: one two\n"
