"""Papers, results and checks of the pages: entries are BibTeX, figures are those that are kept, tests are there."""

from __future__ import annotations

import ast
import functools
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pplebm
from pplebm.errors import PplebmError
from pplebm.gallery.paper import CONFERENCES, Paper, entry

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))
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


def part(name):
    """A module of `benchmarks/gallery_parts`."""
    return importlib.import_module(f"gallery_parts.{name}")


@functools.cache
def results():
    """What every page may say of itself, from the figures that are kept."""
    return part("results").results()


@pytest.mark.parametrize("name", NAMES)
def test_a_result_is_what_is_kept(name):
    """A page whose figures were measured anew says so, in these words; what was not measured has no result."""
    assert getattr(PAGES[name], "RESULT", None) == results().get(name)


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(PAGES[name], "RESULT")])
def test_a_result_is_told_where_it_says(name):
    """Every figure stands in that document, with its decimals."""
    text, document = re.fullmatch(r"(.*) \((\S+)\)", PAGES[name].RESULT).groups()
    told = (ROOT / document).read_text(encoding="utf-8")
    figures = re.findall(r"-?\d+\.\d+", text)
    assert figures and not [figure for figure in figures if figure not in told]
    assert name in told and ":" in text


def test_the_table_of_results_is_of_what_is_kept():
    text = (ROOT / "models" / "README.md").read_text(encoding="utf-8")
    table = text.split("<!-- gallery: begin -->")[1].split("<!-- gallery: end -->")[0].strip()
    assert table == part("results").table(results()), "python benchmarks/gallery.py --table"


def test_the_table_of_plans_is_of_what_is_kept():
    kept = part("results").kept("latent_plan")["seeds"]
    told = (ROOT / "models" / "README.md").read_text(encoding="utf-8").split("### latent_plan")[1].split("###")[0]
    lines = [line for line in importlib.import_module("latent_plan").table(kept).splitlines()
             if "plans" in line or "cloning" in line]  # fmt: skip
    rows = [line.split(" | ", 1)[1] if line.startswith("|") else line.rsplit(": ", 1)[1] for line in lines]
    assert len(rows) == 22 and not [row for row in rows if row not in told]


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
