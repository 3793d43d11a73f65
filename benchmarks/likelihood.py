"""log p(x) of held-out data, in nats: every algorithm page on generators whose likelihood is known, and on images.

    python benchmarks/likelihood.py                                             # generators, all pages, seeds 0 1 2
    python benchmarks/likelihood.py --data digits mnist --data-dir FOLDER --pages mle noise_contrastive --write
    python benchmarks/likelihood.py --table                                     # of what is kept; nothing is run

A cell is a set of data, a page and a seed; likelihood.json is written after each, and a cell that is there is not run
again. Every cell has the tilted model, its base (the same without its tilts) and its untilted twin, which the same page
learns from the same data with the same settings. Nothing is chosen by held-out data.

Generators. `identifiable` (tests/identifiable.py), `skewed_scale` (tests/skewed_scale.py: a positive latent, a skewed
tilt, a covariate in the prior), `univariate_tilts` and `linear_gaussian` (the pages). log p(x) is exact, by quadrature
or in closed form, of 1000 data that are independent of the 1000 to learn from; what is told is how far below the truth
it is on the same data, so that the mean is a Kullback-Leibler divergence. "exact maximum" is where the exact
likelihood of the training data is highest, found without any page of the gallery. Default settings but for one: the
learning rates of model and tilt, for the two generators with a few scalar parameters, are 0.02.

Images. `joint_ebm` at its defaults, or another model with --model, and `Run.log_evidence` at its own, on the first
held-out images; pages whose model is a baseline are there when the gallery has them, and `variational_joint` or
another --learner learns them. Nats are those of densities of pixels in [-1, 1]; of `binary_mnist` those of
probabilities, under models with `likelihood=bernoulli`: a pixel is 1 with the probability of its grey, drawn anew for
every image that an update sees and once for held-out ones. A page whose posterior chains live on has them for data that
stay as they are: for it the training images too are binarised once.
Learning of `flow_posterior` leaves the model as it was: it has no cell.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks")]

from likelihood_parts.cells import BOUND, LEARNERS, MODEL, Settings, is_model, measured, pages  # noqa: E402
from likelihood_parts.images import IMAGES  # noqa: E402
from likelihood_parts.known import KNOWN  # noqa: E402
from likelihood_parts.tables import table  # noqa: E402
from speed_parts.machine import machine  # noqa: E402

from pplebm.errors import PplebmError  # noqa: E402

RESULT, README = ROOT / "benchmarks" / "likelihood.json", ROOT / "inference" / "README.md"
ONE_ARRAY = (MODEL, "latent_ebm", "univariate_tilts")  # models with a twin whose data are images
BEGIN, END = "<!-- likelihood: begin -->", "<!-- likelihood: end -->"


def name_of(data: str, page: str, seed: int, settings: Settings) -> str:
    """The name of a cell; one with fewer updates than the page's own, other images, model or learner is another one."""
    another = data in IMAGES and not is_model(page) and settings.model != MODEL
    more = "" if settings.updates is None else f"/{settings.updates} updates"
    fewer = settings.images if data in IMAGES and settings.images != IMAGES[data] else None
    more += "" if fewer is None else f"/{fewer} images"
    by = data in IMAGES and is_model(page) and settings.learner != BOUND
    more += f"/by {settings.learner}" * by
    return f"{data}/{page}/{seed}" + f"/{settings.model}" * another + more


def read(path: Path) -> dict[str, Any]:
    """Cells that are kept."""
    return dict(json.loads(path.read_text())["rows"]) if path.exists() else {}


def run(wanted: list[tuple[str, str, int]], settings: Settings, path: Path, again: bool = False) -> dict[str, Any]:
    """All cells, those that are not there, or all `again`, measured and kept one by one."""
    rows = read(path)
    for data, page, seed in wanted:
        name = name_of(data, page, seed, settings)
        if name in rows and not again:
            continue
        try:
            found = measured(data, page, seed, settings)
        except PplebmError as error:
            print(f"  {name}: {error}", file=sys.stderr, flush=True)
            continue  # not kept: data may be there another time
        if found is None:
            continue
        rows[name] = found
        print(f"  {name}: {json.dumps(found)}", file=sys.stderr, flush=True)
        whole = json.dumps({"machine": machine(), "rows": rows}, indent=1, allow_nan=False) + "\n"
        path.with_suffix(".part").write_text(whole)
        path.with_suffix(".part").replace(path)
    return rows


def put(text: str, readme: Path) -> None:
    """The table between its markers."""
    whole = readme.read_text()
    head, tail = whole.split(BEGIN)[0], whole.split(END)[1]
    readme.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")


def main() -> None:
    """Run what is asked for, and print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=(*KNOWN, *IMAGES), default=list(KNOWN))
    parser.add_argument("--pages", nargs="+", choices=pages(), default=list(pages()))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--model", choices=ONE_ARRAY, default=MODEL, help="whose images are learned, with its twin")
    parser.add_argument("--learner", choices=LEARNERS, default=BOUND, help="which page learns baselines")
    parser.add_argument("--updates", type=int, help="fewer than a page's own number, as a cell of its own")
    parser.add_argument("--images", type=int, help="held-out images to find log p of, as a cell of its own")
    parser.add_argument("--data-dir", help="where sets of images lie")
    parser.add_argument("--backend", choices=("pyro", "numpyro"), default="numpyro")
    parser.add_argument("--out", type=Path, default=RESULT, help="where cells are kept")
    parser.add_argument("--again", action="store_true", help="measure cells that are kept once more")
    parser.add_argument("--table", action="store_true", help="only the table of what is kept")
    parser.add_argument("--write", action="store_true", help="put the table into inference/README.md")
    args = parser.parse_args()
    wanted = [(data, page, seed) for seed in args.seeds for data in args.data for page in args.pages]
    settings = Settings(
        args.data_dir, args.backend, args.updates, images=args.images, model=args.model, learner=args.learner
    )
    text = table(read(args.out) if args.table else run(wanted, settings, args.out, args.again))
    print(text)
    if args.write:
        put(text, README)


if __name__ == "__main__":
    main()
