"""Every page of both galleries learns at toy size on both backends; or all results of model pages are made anew.

    python benchmarks/gallery.py                                # a table of what learned, and how long it took
    python benchmarks/gallery.py --pages joint_ebm mle --backends numpyro
    python benchmarks/gallery.py --table                        # of results, from the figures that are kept
    python benchmarks/gallery.py --full                         # runs all benchmarks of model pages: hours

At toy size a model page learns its own small data (`gallery_parts/toys.py`) in 60 updates, an algorithm page learns
`latent_ebm` on digits; data are drawn from what was learned. Two run side by side: seconds are rough. The command
fails if anything that is learned or drawn is not finite, or if the bound, or else E log p(x | z), or the tilt gap
where there is no z, does not rise.

`--full` makes the kept figures anew, but for those of data that lie in a folder of the user's, whose commands it
names, writes the table of results between its markers in models/README.md, and the line `RESULT` of every page. The
longer tables of models/README.md are printed by their commands and are put in by hand; a test finds a result that is
not told there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

SOON = ("backend_optimization_level=0", "llvm_disable_expensive_passes=true")  # compiled soon: few updates follow
os.environ.setdefault("XLA_FLAGS", " ".join(f"--xla_{flag}" for flag in SOON))
os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent

import numpy as np  # noqa: E402
from gallery_parts.results import RESULTS, results, table  # noqa: E402
from gallery_parts.toys import MODELS, Toy  # noqa: E402

import pplebm  # noqa: E402
from pplebm.errors import PplebmError  # noqa: E402
from pplebm.ppl.trees import take_rows, tree_leaves  # noqa: E402

README = ROOT / "models" / "README.md"
BEGIN, END = "<!-- gallery: begin -->", "<!-- gallery: end -->"
UPDATES, SIDE_BY_SIDE = 60, 2
OF_FILES = ("accuracy_by_layer", "series_factors", "text_decoder")
RISES = ("bound", "log_likelihood", "score_gain")  # the first of them that a page reports


def toy_of(name: str) -> tuple[str, Toy]:
    """The model that is learned, and how: a model page by its toy, an algorithm page on digits."""
    if name in pplebm.inference_available():
        of_data = getattr(pplebm.load(name), "WITHOUT_LATENTS", False)
        return (
            ("data_ebm", MODELS["data_ebm"]._replace(inference=name))
            if of_data
            else ("latent_ebm", Toy(inference=name))
        )
    return name, MODELS.get(name, Toy())


def learned(name: str, backend: str, updates: int) -> dict[str, Any]:
    """Figures of one page on one backend; what is wrong, in a sentence, where anything is."""
    began, (model, toy) = time.perf_counter(), toy_of(name)
    try:
        with tempfile.TemporaryDirectory() as folder:
            data = toy.data()
            run = pplebm.fit(
                model, data, toy.inference, f"{folder}/run", hyper=dict(toy.hyper), backend=backend, updates=updates,
                seed=0, progress=False,
            )  # fmt: skip
            rows, drawn = run.metrics, run.sample_data(*_draws_of(run, data))
            finite = all(np.isfinite(a).all() for _, a in tree_leaves(drawn))
            found = _figures(rows, run.manifest.first_update_seconds, bool(run.program.given))
    except PplebmError as error:
        return {"wrong": str(error)}
    rises = found["to"] > found["from"]
    wrong = "draws are not finite" if not finite else "" if rises else f"{found['curve']} does not rise"
    return found | {"seconds": time.perf_counter() - began, "wrong": wrong}


def _draws_of(run: Any, data: Any) -> tuple[Any, ...]:
    """Arguments of `sample_data`: a number, or the first rows of data by name, which may be covariates."""
    if not isinstance(data, dict):
        return (8,)
    return (None, 0, False, False, None, take_rows(data, slice(0, 8)))


def _figures(rows: list[dict[str, Any]], first: float, is_given: bool) -> dict[str, Any]:
    """What rises, where it began and ended, and seconds to the first update; data without z have no likelihood."""
    rises = (*RISES[2:], "tilt_gap") if is_given else RISES
    name = next(name for name in rises if name in rows[0])
    return {"curve": name, "from": rows[0][name], "to": rows[-1][name], "first": first}


def run_all(pages: list[str], backends: list[str], updates: int) -> bool:
    """Learn every page, print a row as soon as it is there; whether all is well."""
    cells, well, began = [(page, backend) for page in pages for backend in backends], True, time.perf_counter()
    print("| page | backend | what rises | from | to | first update, s | all, s | wrong |")
    print("|---|---|---|---:|---:|---:|---:|---|")
    with ProcessPoolExecutor(SIDE_BY_SIDE, get_context("spawn")) as pool:
        jobs = {pool.submit(learned, page, backend, updates): (page, backend) for page, backend in cells}
        for job in as_completed(jobs):
            found, (page, backend) = job.result(), jobs[job]
            well &= not found["wrong"]
            told = f"{found['curve']} | {found['from']:.2f} | {found['to']:.2f} | " if "curve" in found else "| | | "
            told += f"{found['first']:.1f} | {found['seconds']:.1f}" if "curve" in found else "| "
            print(f"| {page} | {backend} | {told} | {found['wrong']} |", flush=True)
    minutes = (time.perf_counter() - began) / 60.0
    print(f"\n{len(cells)} runs of {updates} updates in {minutes:.1f} minutes, {SIDE_BY_SIDE} at a time")
    return well


def rebuild(pages: list[str]) -> None:
    """Make figures of model pages anew, command by command; then the table and the line `RESULT` of every page."""
    for command in dict.fromkeys(RESULTS[page][1] for page in pages):
        if command.startswith(OF_FILES):
            print(f"python benchmarks/{command}: wants data of a folder; run it by itself", flush=True)
            continue
        print(f"python benchmarks/{command}", flush=True)
        again = ["--again"] if command.startswith("likelihood.py") else []  # which leaves cells that are kept
        subprocess.run([sys.executable, *command.split(), *again], cwd=ROOT / "benchmarks", check=True)
    write(results())


def write(sentences: dict[str, str]) -> None:
    """The table between its markers, and sentences in their pages."""
    text = README.read_text(encoding="utf-8")
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    README.write_text(f"{head}{BEGIN}\n{table(sentences)}\n{END}{tail}", encoding="utf-8")
    for name, sentence in sentences.items():
        if len(f'RESULT = "{sentence}"') > 120:
            raise SystemExit(f"the sentence of {name} is too long for a line of its page: {sentence}")
        page = ROOT / "models" / f"{name}.py"
        lines = page.read_text(encoding="utf-8").splitlines(keepends=True)
        lines = [f'RESULT = "{sentence}"\n' if line.startswith("RESULT = ") else line for line in lines]
        page.write_text("".join(lines), encoding="utf-8")


def main() -> int:
    """Learn at toy size, or make results anew."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    names = (*pplebm.models_available(), *pplebm.inference_available())
    parser.add_argument("--pages", nargs="+", choices=names, default=list(names), metavar="PAGE")
    parser.add_argument("--backends", nargs="+", choices=("pyro", "numpyro"), default=["numpyro", "pyro"])
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--table", action="store_true", help="only the table of results that are kept")
    parser.add_argument("--full", action="store_true", help="make all results anew; hours")
    args = parser.parse_args()
    if args.table:
        print(table(results()))
        return 0
    if args.full:
        rebuild([page for page in args.pages if page in RESULTS])
        return 0
    return 0 if run_all(args.pages, args.backends, args.updates) else 1


if __name__ == "__main__":
    sys.exit(main())
