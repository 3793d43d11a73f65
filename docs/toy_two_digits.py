"""Learns the digits 0 and 1 with two layers of two latents, and draws what tilts do: `python docs/toy_two_digits.py`.

Writes docs/toy.md and its pictures, in about four minutes. `--data-dir` takes MNIST, which the pictures that are kept
show, instead of scikit-learn's 8 x 8 digits.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

import pplebm
from pplebm.data import load
from pplebm.report.figures import BASE, POSTERIOR, PRIOR, styled
from pplebm.report.layers import hierarchy as drawn_hierarchy
from pplebm.report.layers import stitched
from pplebm.runs.layers import hierarchy
from pplebm.runs.run import Run

DOCS = Path(__file__).resolve().parent
CLASSES, MOST = (0, 1), 2000  # images of MNIST that are used
DIMS = (2, 2)
SIGMA = {"digits": 0.3, "mnist": 1.0}  # of a pixel: two latents leave that much of an image of 28 x 28 unsaid
PAGES = {"short_run_mle": 1500, "noise_contrastive": 1500}  # updates
N, SHOWN = 1000, 600  # draws of each kind, and points of a picture
LAYERS = ("z1", "z2")
COLUMNS = (("base", "base", BASE), ("given the data", "posterior", POSTERIOR), ("tilted prior", "tilted", PRIOR))


def two_digits(data_dir: str | None) -> tuple[str, np.ndarray, np.ndarray]:
    """Name, images in their own units, and labels of the two classes."""
    name = "digits" if data_dir is None else "mnist"
    data = load(name, data_dir)
    x, y = np.concatenate([data.train, data.held_out]), np.concatenate([data.train_labels, data.held_out_labels])
    rows = np.flatnonzero(np.isin(y, CLASSES))
    rows = np.random.default_rng(0).permutation(rows)[:MOST]
    return name, np.asarray(data.scaling.to_user(x[rows]), np.float32), y[rows]


def auc(a: np.ndarray, b: np.ndarray, seed: int) -> float:
    """Five-fold AUC of a random forest that tells a from b: 0.5 if it cannot."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    y = np.repeat([0, 1], [len(a), len(b)])
    forest = RandomForestClassifier(200, min_samples_leaf=5, random_state=seed)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    guess = cross_val_predict(forest, np.concatenate([a, b]), y, cv=folds, method="predict_proba")
    return float(roc_auc_score(y, guess[:, 1]))


def draws(run: Run, x: np.ndarray, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Latents by layer: of the base, of the tilted prior, and of the posteriors of data that are drawn by chance."""
    rows = np.random.default_rng(seed).integers(0, len(x), N)
    found = {
        "base": run.prior_latents(N, seed + 1, base=True),
        "tilted": run.prior_latents(N, seed + 2),
        "posterior": run.posterior_latents(run.data(x[rows]), seed + 3),
    }
    numpy = {kind: {k: run.program.ppl.to_numpy(a) for k, a in z.items()} for kind, z in found.items()}
    return numpy | {"rows": {"x": rows}}


def measure(run: Run, x: np.ndarray, seed: int) -> dict[str, float]:
    """AUC of base and tilted prior against the aggregated posterior, by layer and of both; what z2 settles."""
    z, found = draws(run, x, 100 * seed), {}
    wide = {kind: {**z[kind], "both": np.concatenate([z[kind][s] for s in LAYERS], 1)} for kind in list(z)[:3]}
    for layer in (*LAYERS, "both"):
        for kind in ("base", "tilted"):
            found[f"{kind} {layer}"] = auc(wide["posterior"][layer], wide[kind][layer], seed)
    return found | {"z2 settles": hierarchy(run, 48, 8, seed=seed).redrawn[0].share}


def tilt_on_grid(run: Run, layer: str, limits: Any, n: int = 81) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tilt of a layer in nats on a grid of its two latents."""
    program = run.program
    first, second = (np.linspace(*limit, n) for limit in limits)
    points = np.stack(np.meshgrid(first, second), -1).reshape(-1, 2).astype(np.float32)
    z = {s: program.ppl.asarray(points if s == layer else np.zeros_like(points)) for s in LAYERS}
    f = program.log_terms(run.params, z, observed=False)[f"f{layer[1:]}"]
    return first, second, program.ppl.to_numpy(f).reshape(n, n)


@styled
def picture_of_layers(run: Run, x: np.ndarray, y: np.ndarray) -> Any:
    """A row per layer: base, aggregated posterior, tilted prior, and the tilt that leads from one to the other."""
    from matplotlib.figure import Figure

    z = draws(run, x, 0)
    labels = y[z["rows"]["x"]]
    figure = Figure(figsize=(10.4, 5.4), layout="constrained")
    axes = figure.subplots(2, 4)
    for row, layer in zip(axes, reversed(LAYERS), strict=True):
        every = np.concatenate([z[kind][layer] for kind in ("base", "posterior", "tilted")])
        limits = [np.quantile(every[:, j], (0.002, 0.998)) + np.array([-0.4, 0.4]) for j in (0, 1)]
        for ax, (title, kind, colour) in zip(row, COLUMNS, strict=False):
            a = z[kind][layer]
            for digit, shade in zip(CLASSES, (POSTERIOR, "#009e73"), strict=True):
                at = labels == digit if kind == "posterior" else np.full(N, digit == CLASSES[0])
                at &= np.arange(N) < SHOWN
                label = f"digit {digit}" if kind == "posterior" else None
                ax.plot(
                    *a[at].T, ".", color=shade if kind == "posterior" else colour, markersize=3, alpha=0.5, label=label
                )
            ax.set_title(f"{layer}: {title}")
            if kind == "posterior":
                ax.legend(fontsize=7, markerscale=2)
        first, second, f = tilt_on_grid(run, layer, limits)
        f = f - f.max()
        filled = row[3].contourf(first, second, f, levels=12, cmap="Oranges")
        row[3].contour(first, second, f, levels=6, colors="#7a4a00", linewidths=0.5)
        figure.colorbar(filled, ax=row[3], shrink=0.9)
        row[3].set_title(f"{layer}: tilt, nats below its top")
        for ax in row:
            ax.set_xlim(limits[0])
            ax.set_ylim(limits[1])
    return figure


def fitted(name: str, page: str, x: np.ndarray, seed: int, folder: str) -> tuple[Run, float]:
    """A run, and the seconds it took."""
    began = time.perf_counter()
    run = pplebm.fit("joint_ebm", x, page, out=f"{folder}/{page}-{seed}", seed=seed, updates=PAGES[page],
                     backend="numpyro", progress=False, hyper={"latent_dims": DIMS, "sigma": SIGMA[name]})  # fmt: skip
    return run, time.perf_counter() - began


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: means ± standard deviations over seeds."""
    cell = lambda rows, key: f"{np.mean([r[key] for r in rows]):.2f} ± {np.std([r[key] for r in rows], ddof=1):.2f}"
    names = [f"{kind} {layer}" for layer in (*LAYERS, "both") for kind in ("base", "tilted")] + ["z2 settles"]
    lines = ["| algorithm | " + " | ".join(names) + " | updates | seconds |", "|---" * (len(names) + 3) + "|"]
    for page, rows in found.items():
        cells = [cell(rows, name) for name in names]
        lines.append(
            f"| {page} | {' | '.join(cells)} | {rows[0]['updates']:.0f} | {np.mean([r['seconds'] for r in rows]):.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="where MNIST lies; scikit-learn's digits are taken without it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="two or more")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of toy.md and toy/")
    args = parser.parse_args()
    name, x, y = two_digits(args.data_dir)
    (args.out / "toy").mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, float]]] = {page: [] for page in PAGES}
    with tempfile.TemporaryDirectory() as folder:
        for page in PAGES:
            for seed in args.seeds:
                run, seconds = fitted(name, page, x, seed, folder)
                found[page].append(measure(run, x, seed) | {"seconds": seconds, "updates": run.manifest.updates})
                print(page, seed, {key: round(value, 2) for key, value in found[page][-1].items()}, flush=True)
                if seed == args.seeds[0]:
                    draw_pictures(run, x, y, args.out / "toy")
    (args.out / "toy.md").write_text(page_of(name, x, args.seeds, table(found)))
    print(args.out / "toy.md")


def draw_pictures(run: Run, x: np.ndarray, y: np.ndarray, folder: Path) -> None:
    """Both pictures of a run, in few colours, which keeps them small."""
    from PIL import Image

    page = run.manifest.inference.name
    found, low, high = hierarchy(run, 48, 8, seed=1), *(float(run.scaling.to_user(end)) for end in (-1.0, 1.0))
    rows = {"layers": [[picture_of_layers(run, x, y)]], "hierarchy": [drawn_hierarchy(found, low, high)]}
    for kind, figures in rows.items():
        image = (
            Image.fromarray(stitched(figures, 96))
            .convert("RGB")
            .quantize(200, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        )
        image.save(folder / f"{kind}-{page}.png", optimize=True)


def page_of(name: str, x: np.ndarray, seeds: list[int], rows: str) -> str:
    """The text of toy.md."""
    command = "python docs/toy_two_digits.py" + ("" if name == "digits" else " --data-dir DATA")
    return f"""# Two digits, two latents in each of two layers

`{command}` learns {len(x)} images of 0 and 1 ({name}, {x.shape[1]} x {x.shape[2]})
with `joint_ebm`, z1 and z2 of two latents each, so that all of it can be looked at. Set by hand: `latent_dims=(2, 2)`,
`sigma={SIGMA[name]}` (of a pixel), the number of updates, the backend (numpyro, one thread), and the seeds
({", ".join(map(str, seeds))}); everything else is the default of the pages.

## Maximum likelihood by short runs

![Base, aggregated posterior, tilted prior and tilt of both layers, short_run_mle](toy/layers-short_run_mle.png)

Rows: z2 on top, z1 next to the data. Columns: draws of the base; draws given the data, colours telling the digits,
which learning did not see; draws of the tilted prior; the tilt. Prior and posterior are the short chains of learning,
of the first seed. The base of z2 is N(0, I), that of z1 what its conditional makes of it. Tilts take mass away where
the base has it and the data do not, and the tilted prior follows: a Gaussian becomes a prior of several modes.

![Draws that share z2, short_run_mle](toy/hierarchy-short_run_mle.png)

Each row goes out from the draw at its left: z2 is held exactly, z1 is drawn anew given it by adjusted chains in the
tilted conditional. The percentage is the share of the variance of the decoded images that z2 settles.

## Noise contrast against a twin

![Base, aggregated posterior, tilted prior and tilt of both layers, noise_contrastive](toy/layers-noise_contrastive.png)

![Draws that share z2, noise_contrastive](toy/hierarchy-noise_contrastive.png)

## Figures

How far a random forest tells prior draws from the aggregated posterior, {N} draws of each: AUC in five folds, mean ±
standard deviation over {len(seeds)} seeds; 0.5 is chance, lower is better. Last but two: the share that z2 settles, as
a fraction.

{rows}

Read rows across, not down: the AUC of an algorithm is about its own posterior. Where base and tilted prior are equally
far from 0.5, the tilt has found nothing to do, as in a layer that the data do not use. What remains above 0.5 is left
by tilts that see one layer each and are bounded by 8 nats, and by chains of finite length.
"""


if __name__ == "__main__":
    main()
