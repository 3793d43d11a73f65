"""The report: one file that stands alone, whatever the run was."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread

import pplebm
from pplebm import report
from pplebm.data import load
from pplebm.report import figures, gathered, page, reproduce, tables
from pplebm.runs import files
from pplebm.runs.manifest import RollBack, read_manifest, write_manifest
from pplebm.runs.short_run_bias import short_run_bias

SECTIONS = ("figures", "curves", "samples", "chains", "latents", "layers", "reproduce")
SHORT = {"batch_size": 16, "n_steps_prior": 3, "n_steps_posterior": 3}
SMALL = {**SHORT, "latent_dim": 3, "width": 8, "tilt_width": 8}


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch):
    for name, n in {"N_BASE": 300, "N_DRAWS": 40, "N_CHAINS": 12}.items():
        monkeypatch.setattr(gathered, name, n)
    monkeypatch.setattr(page, "DPI", 40)


class Page(HTMLParser):
    """Parts of a page: sections, links, pictures, and whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.sections, self.links, self.images, self.open, self.words = [], [], [], [], ""
        self.tags = []
        self.feed(text)
        assert not self.open

    def all(self, tag):
        """Attributes of every element of a kind."""
        return [values for name, values in self.tags if name == tag]

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append((tag, values))
        if tag == "section":
            self.sections.append(values["id"])
        self.links += [values[name] for name in ("src", "href") if name in values]
        if tag == "img":
            self.images.append(values["src"])
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def table(columns):
    return np.random.default_rng(0).normal(size=(60, columns)) * np.arange(1, columns + 1)


NARROWEST = 360  # pixels of a phone


def assert_reads_on_a_phone(shown, text):
    """Nothing is wider than the screen: tables reflow, pictures shrink, commands and hashes break."""
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in shown.all("meta")
    assert all("reflow" in table["class"].split() for table in shown.all("table"))
    assert len(shown.all("table")) and all(cell["data-column"] for cell in shown.all("td"))
    assert all(picture["alt"] and picture["style"].startswith("width:min(100%,") for picture in shown.all("img"))
    style = text.partition("<style>")[2].partition("</style>")[0]
    rules = [(selector.strip(), rule) for selector, rule in re.findall(r"([^{}]+){([^{}]*)}", style)]
    for selector, rule in {
        ".plate img": "max-width: 100%", "body": "overflow-wrap: anywhere", "pre": "white-space: pre-wrap",
    }.items():  # fmt: skip
        assert any(selector == s and rule in r for s, r in rules)
    assert "nowrap" not in style
    assert "overflow-x" not in style, "a part that scrolls sideways does not read without scrolling sideways"
    written_in = [*(rule for _, rule in rules), *(values["style"] for _, values in shown.tags if "style" in values)]
    fixed = [
        float(width) for part in written_in for width in re.findall(r"(?<![-\w])(?:min-)?width: ?([\d.]+)px", part)
    ]
    assert max(fixed, default=0) <= NARROWEST


def written(run, data=None):
    """Write the report, check what holds for every one of them, and return it as a Page."""
    path = report.write(run, data)
    assert path == run.path / files.REPORT
    shown = Page(path.read_text())
    assert_reads_on_a_phone(shown, path.read_text())
    assert shown.sections == list(SECTIONS)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in shown.links)
    assert shown.images
    for source in shown.images:
        pixels = imread(io.BytesIO(base64.b64decode(source.partition(",")[2], validate=True)))
        assert min(pixels.shape[:2]) > 50 and pixels[..., :3].std() > 0
    assert "Traceback" not in shown.words and "nan" not in shown.words.split()
    return shown


def test_the_command_names_what_is_not_at_its_default(tmp_path):
    first = pplebm.fit("latent_ebm", out=tmp_path / "first", updates=2, hyper=SHORT)
    words = reproduce.footer(SimpleNamespace(run=first))
    assert "--updates 2 --set" in words and "--backend" not in words and "--no-compile" not in words
    run = pplebm.fit("latent_ebm", out=tmp_path / "run", updates=250, hyper=SHORT, backend="numpyro", ema=0.5,
                     patience=1, start=first.path)  # fmt: skip
    words = reproduce.footer(SimpleNamespace(run=run))
    assert f"--backend numpyro --ema 0.5 --patience 1 --start {tmp_path}/first" in words
    settings = run.manifest.settings._replace(backend="pyro", compiled=False, precision="bf16")
    manifest = run.manifest._replace(settings=settings)
    words = reproduce.footer(SimpleNamespace(run=SimpleNamespace(**vars(run) | {"manifest": manifest})))
    assert "--precision bf16" in words and "--no-compile" in words


def test_images(tmp_path):
    hyper = {**SHORT, "latent_dims": (3, 2), "width": 8, "tilt_width": 8}
    run = pplebm.fit("joint_ebm", out=tmp_path / "run", updates=2, seed=1, hyper=hyper)
    shown = written(run)
    assert len(shown.all("figure")) >= 6  # curves, grids, strip, profile, two layers
    assert "pplebm fit joint_ebm --data digits --inference mle --seed 1 --updates 2" in shown.words
    assert "--set latent_dims=3,2 " in shown.words and "--set batch_size=16" in shown.words
    assert run.manifest.model.paper in shown.words
    assert all(sentence in shown.words for sentence in run.manifest.inference.deviations)
    assert "Effective sample size" in shown.words and "Mean tilt of posterior draws" in shown.words
    for word in ("Tilted prior", "Base", "Positive", "Noncentered coordinates"):
        assert f"{word}:" in shown.words or f"{word} " in shown.words
    assert shown.words.index("Noncentered coordinates of") < shown.words.index("noncentered coordinates")
    for name in ("tilt_gap", "tilt_saturation", "grad_norm", "divergent_negative", "accepted_positive"):
        assert name in run.algorithm.reports and f" {name}" in shown.words


def test_a_table_with_its_data_and_without(tmp_path):
    run = pplebm.fit("latent_ebm", table(2), out=tmp_path / "run", updates=2, hyper=SMALL)
    shown = written(run, table(2))
    assert "Held-out log-likelihood" in shown.words and "--data DATA" in shown.words

    without = written(run)
    assert "given as an array" in without.words and "pplebm.report.write(run, data)" in without.words
    assert len(without.all("figure")) == len(shown.all("figure"))
    assert "Mean tilt of posterior draws" not in without.words

    with pytest.raises(pplebm.PplebmError, match="data have shapes"):
        report.write(run, table(4))


def test_an_untilted_run_of_one_row(tmp_path):
    run = pplebm.fit("latent_ebm", out=tmp_path / "run", updates=1, hyper={**SMALL, "latent_dim": 1, "tilted": False})
    assert len(run.metrics) == 1
    shown = written(run)
    assert "no tilt gap" in shown.words and "no chain is needed" in shown.words
    assert "tilt_gap" not in shown.words and "Tilted prior" not in shown.words and len(shown.all("figure")) == 5
    one = (run.path / files.REPORT).read_bytes()
    assert report.write(pplebm.open_run(run.path)).read_bytes() == one, "the same run makes the same report"


def test_the_section_of_long_chains_reads_on_a_phone(tmp_path):
    run = pplebm.fit("conjugate_tilt", table(2), out=tmp_path / "run", updates=1, hyper=SHORT)
    found = short_run_bias(run, table(2)[:1], n_chains=4, n_draws=30, n_warmup=20)
    report.keep_diagnosis(run, found)
    text = report.write(run).read_text()
    shown = Page(text)
    assert "diagnosis" in shown.sections
    assert [t["class"] for t in shown.all("table")] == ["reflow figures", "reflow scalars", "reflow scalars"]
    assert_reads_on_a_phone(shown, text)


def test_rollbacks_odd_columns_and_no_rows(tmp_path):
    run = pplebm.fit("conjugate_tilt", table(2), out=tmp_path / "run", updates=2, hyper=SHORT)
    manifest = read_manifest(run.path)
    manifest.inference.hyper["updates"] = 9
    model = manifest.model._replace(paper="<script>alert(1)</script>")
    rollback = RollBack(2, 1, "the tilt gap is 31.4 nats", {})
    write_manifest(run.path, manifest._replace(model=model, rollbacks=[rollback]))
    rows = [{"update": i, "seconds": 1.0, "elbo": -i, "tilt_gap": float("nan"), "note": "a"} for i in (1, 2)]
    (run.path / files.METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = written(pplebm.open_run(run.path), load(table(2)))
    assert "update 2: the tilt gap is 31.4 nats; went back to update 1" in shown.words
    assert "2 of 9: learning was stopped early" in shown.words
    assert "Further figures" in shown.words and "<script>" in shown.words  # as words, not as a tag

    (run.path / files.METRICS).unlink()
    assert "No figures by update were kept." in written(pplebm.open_run(run.path)).words


def test_small_parts():
    grid = figures.tiled(np.zeros((3, 14, 14)), 2, 0.0, 1.0)
    assert grid.shape == (29, 29, 3)
    assert (grid[:14, :14] == 0).all() and (grid[14] == 1).all() and (grid[15:, 15:] == 1).all()
    assert figures.smooth(np.array([2.0])).tolist() == [2.0]
    assert tables.number(float("nan")) == "not finite"
