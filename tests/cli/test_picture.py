"""`pplebm picture`: pictures that are there and not empty, and one sentence where there is nothing to draw."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.image import imread

import pplebm
from pplebm.cli import main
from pplebm.cli.picture import KINDS
from pplebm.report import pictures

FEW = {"batch_size": 16, "n_steps_posterior": 2, "prior.n_steps": 6, "model.width": 8, "tilt_width": 8,
       "latent_dims": (3, 2)}  # fmt: skip
SHAPES = {"images": (60, 4, 4), "table": (60, 3), "column": (60, 1)}


@pytest.fixture(scope="module", params=SHAPES)
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictured")
    np.save(folder / "data.npy", np.random.default_rng(0).uniform(0.0, 16.0, SHAPES[request.param]))
    return pplebm.fit("joint_ebm", folder / "data.npy", out=folder / "run", updates=1, hyper=FEW, compiled=False,
                      progress=False).path  # fmt: skip


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch):
    for name, n in {"N_HIERARCHY": 4, "N_REDRAWS": 2, "N_LATENTS": 60, "N_FOLLOWED": 30, "LONG": 60}.items():
        monkeypatch.setattr(pictures, name, n)


def call(*args, status=0):
    result = CliRunner().invoke(main, ["picture", *map(str, args)])
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result.output


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_there_and_not_empty(run, kind, tmp_path):
    words = call(run, kind, "--out", tmp_path / "a.png", "--seed", 1, "--dpi", 30)
    a = imread(tmp_path / "a.png")
    assert f"a.png: {kind}, {a.shape[1]} x {a.shape[0]} pixels" in words and min(a.shape[:2]) > 50
    assert len(np.unique(a[..., :3].reshape(-1, 3), axis=0)) > 8 and (a[..., :3] < 1).any(-1).mean() > 0.01
    call(run, kind, "--out", tmp_path / "b.png", "--seed", 1, "--dpi", 30)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    call(run, kind, "--out", tmp_path / "c.png", "--seed", 2, "--dpi", 30)
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "c.png").read_bytes()


def test_a_picture_goes_into_the_run_folder(run):
    assert str(run / "traverse.png") in call(run, "traverse", "--site", "z2", "--dpi", 30)
    assert (run / "traverse.png").read_bytes().startswith(b"\x89PNG")


def test_what_has_no_picture_is_told(tmp_path):
    small = {"batch_size": 16, "n_steps_posterior": 1, "n_steps_prior": 1, "latent_dim": 2, "width": 4}
    data, common = np.random.default_rng(0).normal(size=(40, 3)), {"updates": 1, "compiled": False, "progress": False}
    one = pplebm.fit("latent_ebm", data, out=tmp_path / "one", hyper=small, **common).path
    assert "one layer of latents, 'z1'" in call(one, "hierarchy", status=2)
    assert "no latent site 'z3'; there are z1" in call(one, "traverse", "--site", "z3", status=2)
    assert "must end in .png" in call(one, "latents", "--out", tmp_path / "a.pdf", status=2)
    assert "is not one of" in call(one, "hierachy", status=2)
    assert "the picture goes without the data" in call(one, "latents", "--dpi", 30)
    bare = pplebm.fit("latent_ebm", data, out=tmp_path / "bare", hyper=small | {"tilted": False}, **common).path
    assert "no tilt" in call(bare, "long-run", status=2)
    series = np.random.default_rng(0).normal(size=(40, 2, 3, 5))
    odd = pplebm.fit("joint_ebm", series, out=tmp_path / "odd", hyper=FEW, **common)
    for kind in ("hierarchy", "traverse", "between"):
        with pytest.raises(pplebm.PplebmError, match=r"data of shape \(2, 3, 5\) are neither pictures nor rows"):
            pictures.draw(odd, kind)
    assert len(pictures.draw(odd, "transition")) == 1  # energies alone
    with pytest.raises(pplebm.PplebmError, match="picture 'chain' is not known"):
        pictures.draw(odd, "chain")
