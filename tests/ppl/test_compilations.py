"""Compilations are kept where they should be, found again, and no more of them than allowed."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from pplebm.ppl import compilations

COMPILE = """
import sys
if sys.argv[1] == "before": import jax
from pplebm.ppl.compilations import keep_compilations
keep_compilations()
import jax
jax.monitoring.register_event_listener(lambda name, **more: print(name) if "cache_hits" in name else None)
jax.jit(lambda a: a * 3 + 1)(1.0)
"""


def run(when, cache, **more):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_COMPILATION", "JAX_PERSISTENT"))}
    env |= {"PPLEBM_CACHE_HOME": str(cache)} | more
    done = subprocess.run([sys.executable, "-W", "error", "-c", COMPILE, when], env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_one_process_compiled_another_one_finds(tmp_path):
    assert "cache_hits" not in run("before", tmp_path)
    assert list(tmp_path.glob("xla/*/*")) and "cache_hits" in run("after", tmp_path)


def test_a_folder_of_ones_own_is_respected_and_one_that_cannot_be_written_is_no_error(tmp_path):
    run("after", tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"))
    assert not (tmp_path / "ours").exists()
    (tmp_path / "file").write_text("")
    assert "cache_hits" not in run("before", tmp_path / "file")


def test_the_oldest_go_first(tmp_path):
    for i in range(5):
        (tmp_path / str(i)).write_bytes(bytes(100))
        os.utime(tmp_path / str(i), (i, i))
    compilations.prune(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4"]


def test_the_folder_is_looked_through_once_in_a_day(tmp_path):
    note, now = tmp_path / "note", time.time()
    assert compilations._is_due(note) and not compilations._is_due(note)
    for age, is_due in ((0.9, False), (1.1, True), (-1.1, True)):  # clocks jump
        os.utime(note, (now - age * compilations.DAY,) * 2)
        assert compilations._is_due(note) is is_due


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({"PPLEBM_CACHE_HOME": "a"}, "a"), ({"XDG_CACHE_HOME": "b"}, "b/pplebm"), ({}, "c/.cache/pplebm")],
)
def test_where_they_lie(monkeypatch, variables, expected):
    for name in ("PPLEBM_CACHE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": "c"} | variables).items():
        monkeypatch.setenv(name, value)
    assert str(compilations.home()) == expected


def test_quick_compilations_end_with_their_block():
    jax = pytest.importorskip("jax")
    before = jax.config.values[compilations.QUICK]
    with pytest.raises(KeyError), compilations.quickly():
        assert jax.config.values[compilations.QUICK] is True
        raise KeyError
    assert jax.config.values[compilations.QUICK] is before
