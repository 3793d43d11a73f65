"""Papers, results and checks of the pages: entries are BibTeX, figures are those that are kept, tests are there."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pplebm
from pplebm.errors import PplebmError
from pplebm.gallery.paper import CONFERENCES, Paper, entry

ROOT = Path(__file__).resolve().parents[2]
NAMES = (*pplebm.models_available(), *pplebm.inference_available())
PAGES = {name: pplebm.load(name) for name in NAMES}
VENUE = {"inproceedings": "booktitle", "article": "journal", "misc": None}  # a field that this kind of entry needs


def parsed(text):
    """Kind, key and fields of one BibTeX entry, read character by character: fields are in balanced braces."""
    kind, key, rest = re.fullmatch(r"@(\w+)\{([\w:-]+),\n(.*)\n\}", text, re.S).groups()
    fields = {}
    while rest:
        start = re.match(r"\s*(\w+) = \{", rest)
        assert start and start[1] not in fields, rest
        depth, at = 1, start.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(rest[at], 0)
            at += 1
        fields[start[1]] = rest[start.end() : at - 1]
        assert re.match(r",\n|$", rest[at:]), rest[at:]
        rest = rest[at + 2 :]
    return kind, key, fields


@pytest.mark.parametrize("text", ["@misc{a,\n  title = {b\n}", "@misc{a,\n  title = {b} year = {c}\n}", "@misc{\n}"])
def test_the_parser_sees_what_is_broken(text):
    with pytest.raises((AssertionError, AttributeError, IndexError)):
        parsed(text)


@pytest.mark.parametrize("name", NAMES)
def test_the_paper_of_a_page_is_bibtex(name):
    paper = PAGES[name].PAPER
    kind, key, fields = parsed(paper.bibtex())
    assert key == paper.key and re.fullmatch(r"[a-z]+\d{4}[a-z0-9]+", key)
    assert fields["title"] == f"{{{paper.title}}}" and len(paper.title) > 15
    assert re.fullmatch("(19|20)[0-9]{2}", fields["year"])
    authors = fields["author"].split(" and ")
    assert all(len(author.split()) > 1 and not re.search("et al|[&;]", author) for author in authors)
    assert VENUE[kind] is None or len(fields[VENUE[kind]]) > 5
    assert set(fields) <= {
        "author",
        "title",
        "year",
        VENUE[kind],
        "volume",
        "number",
        "pages",
        "eprint",
        "archivePrefix",
    }
    assert ("eprint" in fields) == ("archivePrefix" in fields) == bool(paper.arxiv)
    assert kind != "misc" or paper.arxiv, "a paper that is in no journal and no proceedings has to be found elsewhere"
    if paper.arxiv:  # numbers tell year and month; a paper is published afterwards
        number = re.fullmatch(r"(\d\d)(0[1-9]|1[0-2])\.\d{4,5}", paper.arxiv)
        assert 0 <= paper.year - 2000 - int(number[1]) <= 2
    assert not paper.conference or paper.conference in CONFERENCES
    line = str(paper)
    assert authors[0].split()[-1] in line and paper.title in line and fields["year"] in line and paper.arxiv in line


def test_a_key_is_of_one_paper():
    entries = {}
    for page in PAGES.values():
        entries.setdefault(page.PAPER.key, set()).add(page.PAPER.bibtex())
    assert {key: found for key, found in entries.items() if len(found) > 1} == {}
    assert len(entries) == len({page.PAPER.title for page in PAGES.values()}) > 10


def test_a_line_names_few_authors_and_all_that_there_is_of_the_rest():
    paper = Paper("Anna van der Berg and others", "On Sums & Terms", 1999, journal="JMLR", volume="3", number="2")
    assert str(paper) == "van der Berg et al. On Sums & Terms. JMLR 3(2), 1999"
    kind, key, fields = parsed(paper.bibtex())
    assert (kind, key, fields["title"]) == ("article", "vanderberg1999terms", r"{On Sums \& Terms}")
    assert fields["journal"] == "Journal of Machine Learning Research"
    many = Paper(" and ".join(f"A B{i}" for i in range(7)), "Title", 2000, remark="in part")
    assert str(many) == "B0 et al. Title. 2000; in part"
    assert str(many._replace(authors="Müller, Jörg and A. Wu")) == "Müller, Wu. Title. 2000; in part"
    assert many._replace(authors="Müller, Jörg").key == "muller2000title"


@pytest.mark.parametrize("change", [{"authors": ""}, {"title": ""}, {"year": 0}, {"journal": "JMLR"}])
def test_papers_that_are_none_are_refused(change):
    with pytest.raises(PplebmError, match="PAPER"):
        Paper("A B", "Title", 2000, "ICML")._replace(**change).bibtex()


def test_fields_without_a_value_are_left_out():
    found = parsed(entry("misc", "a1", {"title": "50% of #1_a", "url": ""}))
    assert found == ("misc", "a1", {"title": r"50\% of \#1\_a"})


# --- results


def kept(name):
    return json.loads((ROOT / "benchmarks" / name).read_text(encoding="utf-8"))


def mean(rows, cell, model, figure="mean"):
    """Mean over seeds of a figure of the benchmark of likelihoods."""
    return np.mean([rows[cell.format(seed)]["models"][model][figure] for seed in range(3)])


def results():
    """What every page may say of itself, from the figures that are kept."""
    rows, baselines = kept("likelihood.json")["rows"], kept("baselines.json")["rows"]
    seeds = kept("random_effects.json")["seeds"].values()
    exact, chains = (np.mean([seed[f"gain, {how}"] for seed in seeds]) for how in ("exact", "chains"))
    vae = f"{mean(baselines, 'digits/variational_joint/{}/latent_ebm', 'twin'):.2f}"
    tilted = lambda cell, model, of=rows: f"{mean(of, cell, model):.2f}"
    below = lambda bed, model: f"{mean(rows, f'{bed}/noise_contrastive/{{}}', model, 'below_truth'):.3f}"
    out = {
        "joint_ebm": f"digits: {tilted('digits/noise_contrastive/{}', 'tilted')} nats held out, its twin "
        f"{tilted('digits/noise_contrastive/{}', 'twin')}, by noise_contrastive (inference/README.md)",
        "latent_ebm": f"digits: {tilted('digits/variational_joint/{}/latent_ebm', 'tilted', baselines)} nats held out, "
        f"its twin {vae}, by variational_joint (models/README.md)",
        "univariate_tilts": f"draws of its own: {below('univariate_tilts', 'tilted')} nats below the truth, its twin "
        f"{below('univariate_tilts', 'twin')}, by noise_contrastive (inference/README.md)",
        "conjugate_tilt": f"draws of its own: {below('linear_gaussian', 'tilted')} nats below the truth, "
        "by noise_contrastive (inference/README.md)",
        "random_effects": f"pbcseq: {exact:.3f} nats a patient above Gaussian effects held out, {chains:.3f} by chains "
        "(models/README.md)",
    }
    three = kept("multimodal_ebm.json")["seeds"].values()
    views = [f"{np.mean([seed[model]['log p(all)'] for seed in three]):.2f}" for model in ("tilted", "twin")]
    words = f"three views of digits: {views[0]} nats held out, its twin {views[1]}"
    out["multimodal_ebm"] = f"{words}, by variational_joint (models/README.md)"
    labelled, own = kept("conditional_ebm.json")["seeds"].values(), "log p(x | label)"
    given = [f"{np.mean([seed[model][own] for seed in labelled]):.2f}" for model in ("tilted", "twin")]
    words = f"digits: {given[0]} nats held out given the label, its twin {given[1]}"
    out["conditional_ebm"] = f"{words}, by variational_joint (models/README.md)"
    designs = kept("latent_optimisation.json")["seeds"].values()
    of = lambda part, figure: f"{np.mean([seed[part][figure] for seed in designs]):.2f}"
    models = [of(f"{model}, best value", "median") for model in ("tilted", "twin")]
    words = f"Branin: median design {models[0]}, its twin's {models[1]}, best datum {of('data', 'best')}"
    out["latent_optimisation"] = f"{words}, by noise_contrastive (models/README.md)"
    for name in ("vamp_prior", "mixture_prior", "flow_prior"):
        held_out = tilted(f"digits/{name}/{{}}", "model", baselines)
        out[name] = f"digits: {held_out} nats held out, an autoencoder {vae}, by variational_joint (models/README.md)"
    moons = kept("data_ebm.json")["seeds"].values()
    nats = [
        f"{np.mean([seed[of] for seed in moons]):.2f}" for of in ("anisotropic", "normal", "kernel density estimate")
    ]
    words = f"two moons: {nats[0]} nats held out, a normal {nats[1]}, a kernel density estimate {nats[2]}"
    out["data_ebm"] = f"{words} (models/README.md)"
    return out


@pytest.mark.parametrize("name", NAMES)
def test_a_result_is_what_is_kept(name):
    """A page whose figures were measured anew says so, in these words; what was not measured has no result."""
    assert getattr(PAGES[name], "RESULT", None) == results().get(name)


@pytest.mark.parametrize("name", results())
def test_a_result_is_told_where_it_says(name):
    """Every figure stands in that document, with its decimals."""
    text, document = re.fullmatch(r"(.*) \((\S+)\)", PAGES[name].RESULT).groups()
    told = (ROOT / document).read_text(encoding="utf-8")
    figures = re.findall(r"-?\d+\.\d+", text)
    assert figures and not [figure for figure in figures if figure not in told]
    assert name in told and ":" in text


# --- checks


@pytest.mark.parametrize("name", NAMES)
def test_the_check_of_a_page_is_a_test(name):
    file, _, test = PAGES[name].CHECK.partition("::")
    functions = {node.name: node for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body
                 if isinstance(node, ast.FunctionDef)}  # fmt: skip
    assert test.partition("[")[0] in functions, f"{name}: {PAGES[name].CHECK} is no test"
    nodes = list(ast.walk(functions[test.partition("[")[0]]))
    calls = {getattr(node.func, "attr", getattr(node.func, "id", "")) for node in nodes if isinstance(node, ast.Call)}
    assert any(isinstance(node, ast.Assert) for node in nodes) or "assert_allclose" in calls, "a check that cannot fail"


def test_pytest_finds_all_checks():
    """With their parameters, as the command prints them."""
    checks = sorted({page.CHECK for page in PAGES.values()})
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--collect-only", *checks]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = set(done.stdout.splitlines())
    assert all(any(line.startswith(check) for line in found) for check in checks)
