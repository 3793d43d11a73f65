"""Bad input: one sentence that names the thing, status 2, no traceback, nothing left behind, and mostly no torch."""

from __future__ import annotations

import contextlib
import json
import os
import zipfile

import numpy as np
import pytest
import tiny
from click.testing import CliRunner
from hypothesis import assume, given
from hypothesis import strategies as st

import pplebm
from pplebm.cli import main
from pplebm.errors import PplebmError

HUGE, LONG = "9" * 30, "a" * 5000
NO_COUNT = ("0", "-1", "-99", "1.5", "x", "", "1e3", "nan", "inf", "0x10", "--", "None")
FIT, CHECK = ("fit", "latent_ebm"), ("check", "latent_ebm")
RUNS = (
    ("sample", "--out", "a.npz"), ("anomaly", "--data", "digits"), ("report",), ("diagnose",),
    ("calibrate",), ("fit", "--resume", "--out"),
)  # fmt: skip

# --- refused before torch is imported

EARLY = [
    *[(*FIT, f"--{name}={value}") for name in ("updates", "devices", "nodes") for value in (*NO_COUNT, HUGE)],
    *[(*FIT, f"--jobs={value}") for value in NO_COUNT],
    *[(*FIT, f"--patience={value}") for value in NO_COUNT if value != "0"],
    *[(*page, f"--seed={value}") for page in (FIT, CHECK) for value in (*NO_COUNT[1:], HUGE, str(2**32))],
    *[(*FIT, f"--ema={value}") for value in ("1", "-0.1", "nan", "inf", "x", "", "1e400")],
    *[(*FIT, f"--seeds={value}") for value in (
        "", "..", "0..", "..3", "5..1", "-1..3", "a..b", "1,,2", "1,1", "0..1..2", f"0..{HUGE}", HUGE, "0..4294967296",
        "0..100000", "1.5", ",", "0x1..3",
    )],
    *[(*FIT, f"--{name}={value}") for name in ("backend", "precision", "scaling") for value in ("", "x", "PYRO", LONG)],
    *[(*FIT, f"--out={value}") for value in (
        "", "file", "file/run", LONG, "x/" * 3000, "a\0b", "/dev/null", "fifo.npy")],
    *[(*FIT, "--set", value) for value in ("", "=", "=3", "sigma", " =1")],
    *[("fit", name) for name in (LONG, "a\0b")],
    ("fit",), ("fit", "--resume"), ("fit", "--resume", "--seed", "3"), (*FIT, "more"), (*FIT, "--updats", "3"),
    (*FIT, "--resume"), (*FIT, "--resume", "--inference", "nothing"), (*FIT, "--resume", "--set", "sigma=1"),
    *[(*words, path) for words in RUNS for path in (
        "nowhere", "file", "empty", "", "binary", "other", "newer", "edited", "fifo.npy", "list", LONG, "a\0b")],
    *[("sample", "nowhere", f"--out={value}") for value in ("", "a", "a.txt", "a.npz.gz")],
    *[("sample", "nowhere", "--out=a.npz", f"-n{value}") for value in NO_COUNT[:7]],
    *[("diagnose", "nowhere", f"--{name}={value}") for name in ("rows", "chains", "draws", "warmup") for value in (
        "-1", "1.5", "x")],
    *[("calibrate", "nowhere", f"--replications={value}") for value in (*NO_COUNT, "19")],
    *[("calibrate", "nowhere", f"--by={value}") for value in ("", "x", "learning,chains")],
    *[("anomaly", "nowhere", "--data=digits", f"-k{value}") for value in ("-1", "1.5", "x")],
    ("anomaly", "nowhere"), ("sample", "nowhere"), ("sample",), ("report",), ("diagnose",), ("calibrate",),
    *[("demo", f"--updates={value}") for value in NO_COUNT], ("demo", "--out=file"), ("demo", f"--out={LONG}"),
    *[(word, *rest) for word, *rest in (
        ("show", ""), ("show", "nothing"), ("show", "file"), ("show", "folder"), ("show", LONG), ("show", "a\0b"),
        ("show", "exits.py"), ("show", "syntax.py"), ("show", "fails.py"), ("show", "binary.py"),
        ("show", "neither.py"),
        ("show", "fifo.py"), ("show",), ("copy", "latent_ebm"), ("copy", "nothing", "x.py"),
        ("copy", "latent_ebm", "file"), ("copy", "latent_ebm", "file/x.py"), ("copy", "latent_ebm", LONG),
        ("copy", "latent_ebm", "a\0b"), ("copy", "latent_ebm", "/proc/x.py"), ("nothing",), ("fits",), (LONG,),
        ("--nothing",),
    )],
]  # fmt: skip

# --- refused later: pages and data are read first

LATE = [
    *[(*FIT, "--set", value) for value in (
        "sigmo=1", "sigma=nan", "sigma=0", "sigma=-1", "sigma=wide", "sigma=True",
        "latent_dim=0", "latent_dim=1.5", "latent_dim=x", "batch_size=0", "batch_size=1e3", "prior.n_steps=0",
        "prior.step_size=-1", "optimizer.schedule=cosine", "prior=3", "model.prior.n_steps=3", "inference.sigma=1",
        "batch_size=" + HUGE[:0], "prior.n_steps=True",
    )],
    *[(*FIT, f"--data={value}") for value in (
        "", "nowhere", "nowhere.npy", "folder", "file", "fifo.npy", "fifo.csv", "binary.npy", "empty.npy", "empty.csv",
        "nan.npy", "words.csv", "ragged.csv", "object.npy", "one.npy", "scalar.npy", "truncated.npz", "none.npz",
        "member.npz", "keys.npz", LONG, "a\0b", LONG + ".npy",
    )],
    *[(*CHECK, f"--data={value}") for value in ("nowhere.npy", "fifo.npy", "binary.npy", "member.npz")],
    *[(*FIT, f"--inference={value}") for value in ("", "nothing", "joint_ebm", "file", "exits.py", "fails.py")],
    *[(*FIT, f"--start={value}") for value in ("nowhere", "file", "empty", LONG, "a\0b")],
    *[("fit", name) for name in (
        "", "nothing", "short_run_mle", "file", "folder", "exits.py", "syntax.py", "fails.py", "binary.py", "fifo.py",
        "neither.py", "x/" * 3000 + "y")],
    (*FIT, "--strategy=x"), (*FIT, "--backend=numpyro", "--precision=bf16"), (*FIT, "--data=mnist", "--data-dir=file"),
    (*FIT, "--data=mnist", f"--data-dir={LONG}"), ("fit", "truth.py", "--data=good.npy", "--updates=1"),
]  # fmt: skip
PAGES = {
    "exits": "import sys\ndef model(x): pass\nsys.exit(0)\n", "syntax": "def model(x:\n", "fails": "1 / 0\n",
    "neither": "x = 1\n", "binary": "\0\1\2",
    "truth": "import pyro, pyro.distributions as dist, pplebm\ndef model(x):\n    with pyro.plate('data', len(x)):\n"
    "        z = pyro.sample('z', dist.Normal(0., 1.))\n        pplebm.tilt('f', z > 0)\n"
    "        pyro.sample('x', dist.Normal(z[:, None].expand(-1, 3), 1.).to_event(1), obs=x)\n",
}  # fmt: skip


def furnish(folder):
    """Files that are none, and runs that are none."""
    for name, text in PAGES.items():
        (folder / f"{name}.py").write_text(text)
    for name in ("file", "empty.npy", "empty.csv", "words.csv", "ragged.csv", "truncated.npz", "binary.npy"):
        (folder / name).touch()
    for name in ("fifo.npy", "fifo.csv", "fifo.py"):
        os.mkfifo(folder / name)
    (folder / "words.csv").write_text("a,b\n1,x\n2,y\n")
    (folder / "ragged.csv").write_text("1,2\n3\n")
    (folder / "binary.npy").write_bytes(bytes(range(256)))
    rows = np.random.default_rng(0).normal(size=(30, 3))
    for name, a in {"nan": rows * np.nan, "one": rows[:1], "scalar": np.array(1.0), "good": rows}.items():
        np.save(folder / f"{name}.npy", a)
    np.save(folder / "object.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    np.savez(folder / "keys.npz", a=rows, b=rows)
    np.savez(folder / "truncated.npz", x=rows)
    os.truncate(folder / "truncated.npz", 300)
    with zipfile.ZipFile(folder / "member.npz", "w") as file:
        file.writestr("x.npy", b"")
    zipfile.ZipFile(folder / "none.npz", "w").close()
    manifests = {
        "binary": b"\xff\0\1", "other": b"{}", "newer": b'{"format": 99}', "list": b"[1]",
        "edited": b'{"format": 1, "sha256": "0"}',
    }  # fmt: skip
    for name in ("empty", "folder", *manifests):
        (folder / name).mkdir()
    for name, content in manifests.items():
        (folder / name / "manifest.json").write_bytes(content)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    furnish(folder)
    return folder


def refuse(args):
    said = CliRunner().invoke(main, args)
    assert said.exit_code == 2, (said.exit_code, said.output)
    assert said.output.startswith("pplebm: ") and said.output.count("\n") == 1 and len(said.output) < 1000, said.output
    assert "Traceback" not in said.output and not said.output.startswith("pplebm: unexpected"), said.output


def test_there_are_many():
    assert len({*EARLY, *LATE}) >= 300 and len(EARLY) > 2 * len(LATE)


@pytest.mark.parametrize("args", [*EARLY, *LATE], ids=lambda args: " ".join(args).replace("\0", "0")[:60] or "none")
def test_bad_input_is_refused_in_one_sentence(args, place, monkeypatch):
    monkeypatch.chdir(place)
    before = set(os.listdir(place))
    refuse(args)
    assert set(os.listdir(place)) == before


def test_most_is_refused_without_torch(tmp_path):
    furnish(tmp_path)
    (tmp_path / "args.json").write_text(json.dumps([args for args in EARLY if "\0" not in "".join(args)]))
    code = (
        "import json, sys\nfrom pplebm.cli import main\n"
        "for args in json.load(open('args.json')):\n"
        "    try: main(args)\n"
        "    except SystemExit as ended: assert ended.code == 2, args[:3]\n"
        "    assert 'torch' not in sys.modules and 'jax' not in sys.modules, [a[:50] for a in args]\n"
    )
    process = tiny.python("-W", "ignore", "-c", code, cwd=tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0 and "Traceback" not in err, err[-2000:]


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(WORDS)
def test_any_word_is_no_command(word):
    assume(word not in main.commands and word not in ("score", "", "-h", "--help", "--version", "--traceback"))
    refuse([word] if not word.startswith("--t") else ["--nothing"])


@given(WORDS)
def test_any_word_is_no_page(word):
    assume(not os.path.exists(word) and word not in (*pplebm.models_available(), *pplebm.inference_available()))
    refuse(["show", "--", word])


@given(WORDS)
def test_any_words_are_no_seeds(word):
    assume(not any(c.isdigit() for c in word))
    refuse(["fit", "latent_ebm", f"--seeds={word}"])


@given(st.integers() | st.floats() | WORDS)
def test_any_value_that_is_no_share_is_no_decay(value):
    with contextlib.suppress(ValueError, OverflowError):
        assume(not 0 <= float(value) < 1)
    refuse(["fit", "latent_ebm", f"--ema={value}"])


@given(
    st.sampled_from(["updates", "devices", "nodes", "seed"]), st.integers(max_value=-1) | st.integers(min_value=2**32)
)
def test_any_number_out_of_range_is_refused(name, value):
    refuse(["fit", "latent_ebm", f"--{name}={value}"])


@pytest.mark.parametrize("change", [
    {"seed": True}, {"seed": -1}, {"seed": 1.5}, {"seed": "0"}, {"seed": 1 << 20000}, {"seed": None}, {"updates": 0},
    {"updates": True}, {"updates": 2.0}, {"devices": "1"}, {"nodes": None}, {"ema": "0"}, {"ema": True},
    {"patience": None}, {"backend": None}, {"scaling": 3}, {"inference": None}, {"inference": 3}, {"model": None},
    {"model": 3}, {"out": ""}, {"updates": 1, "steps": 1},
], ids=lambda change: " ".join(change))  # fmt: skip
def test_bad_arguments_are_refused(change, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PplebmError):
        pplebm.fit(**{"model": "latent_ebm"} | change)
    assert not os.listdir(tmp_path)
