"""What every page may say of itself, made from the figures that are kept in this folder, and how they are made anew."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BENCHMARKS = Path(__file__).resolve().parents[1]
LIKELIHOOD = "likelihood.py --data {} --pages noise_contrastive"
BASELINE = "likelihood.py --data digits --out baselines.json --pages {}"
Cells = dict[str, Any]


def kept(name: str) -> Cells:
    """Figures of a benchmark."""
    return dict(json.loads((BENCHMARKS / f"{name}.json").read_text(encoding="utf-8")))


def over_seeds(name: str, *path: str) -> str:
    """Mean over seeds of a figure at a path of names, with two decimals."""
    found = []
    for seed in kept(name)["seeds"].values():
        for part in path:
            seed = seed[part]
        found.append(seed)
    return f"{np.mean(found):.2f}"


def nats(rows: Cells, cell: str, model: str, figure: str = "mean", digits: int = 2) -> str:
    """Mean over three seeds of a figure of the benchmark of likelihoods."""
    return f"{np.mean([rows[cell.format(seed)]['models'][model][figure] for seed in range(3)]):.{digits}f}"


def _beside_its_twin(name: str, cell: str, by: str, where: str) -> Callable[[], str]:
    def told() -> str:
        rows = kept(name)["rows"]
        words = f"digits: {nats(rows, cell, 'tilted')} nats held out, its twin {nats(rows, cell, 'twin')}"
        return f"{words}, by {by} ({where}/README.md)"

    return told


def _univariate_tilts() -> str:
    rows, cell = kept("likelihood")["rows"], "univariate_tilts/noise_contrastive/{}"
    below = [nats(rows, cell, model, "below_truth", 3) for model in ("tilted", "twin")]
    words = f"draws of its own: {below[0]} nats below the truth, its twin {below[1]}"
    return f"{words}, by noise_contrastive (inference/README.md)"


def _conjugate_tilt() -> str:
    rows, cell = kept("likelihood")["rows"], "linear_gaussian/noise_contrastive/{}"
    below = nats(rows, cell, "tilted", "below_truth", 3)
    return f"draws of its own: {below} nats below the truth, by noise_contrastive (inference/README.md)"


def _random_effects() -> str:
    seeds = kept("random_effects")["seeds"].values()
    exact, chains = (np.mean([seed[f"gain, {how}"] for seed in seeds]) for how in ("exact", "chains"))
    words = f"pbcseq: {exact:.3f} nats a patient above Gaussian effects held out, {chains:.3f} by chains"
    return f"{words} (models/README.md)"


def _multimodal_ebm() -> str:
    views = [over_seeds("multimodal_ebm", model, "log p(all)") for model in ("tilted", "twin")]
    words = f"three views of digits: {views[0]} nats held out, its twin {views[1]}"
    return f"{words}, by variational_joint (models/README.md)"


def _conditional_ebm() -> str:
    given = [over_seeds("conditional_ebm", model, "log p(x | label)") for model in ("tilted", "twin")]
    words = f"digits: {given[0]} nats held out given the label, its twin {given[1]}"
    return f"{words}, by variational_joint (models/README.md)"


def _latent_optimisation() -> str:
    of = lambda part, figure: over_seeds("latent_optimisation", part, figure)
    models = [of(f"{model}, best value", "median") for model in ("tilted", "twin")]
    words = f"Branin: median design {models[0]}, its twin's {models[1]}, best datum {of('data', 'best')}"
    return f"{words}, by noise_contrastive (models/README.md)"


def _latent_plan() -> str:
    of = lambda part: over_seeds("latent_plan", part, "coins")
    plans, best = ([of(f"{data}: {name}") for data in ("pieces", "whole ways")]
                   for name in ("plans, 4 coins", "cloning of the best"))  # fmt: skip
    words = f"four coins: plans of pieces find {plans[0]}, cloning the best {best[0]}"
    return f"{words}; of whole ways {plans[1]} and {best[1]} (models/README.md)"


def _series_factors() -> str:
    """Of SMAP and MSL the nearest window is that of telemetry, which is nearer the labels than that of all columns."""
    nab, channels = "series_factors", "series_channels"
    told = [f"{words} {over_series(nab, *path)}, {over_series(channels, *other)}" for words, path, other in (
        ("by windows", ("tilted", "log_joint"), ("tilted", "log_joint")),
        ("twin", ("twin", "log_joint"), ("twin", "log_joint")), ("nearest", ("nearest",), ("nearest of the first",)),
    )]  # fmt: skip
    return f"NAB, SMAP/MSL: VUS-PR {', '.join(told)} (models/README.md)"


def over_series(name: str, *path: str) -> str:
    """Mean over series and seeds of the VUS-PR of a score."""
    rows = kept(name)["seeds"].values()
    return f"{np.mean([[one_of(one, *path, 'vus_pr') for one in row.values()] for row in rows]):.3f}"


def one_of(cells: Cells, *path: str) -> float:
    """A figure at a path of names."""
    found: Any = cells
    for part in path:
        found = found[part]
    return float(found)


def _text_decoder() -> str:
    of = lambda model: over_seeds("text_decoder", model, "bits per character")
    words = f"words: {of('short run')} bits a character"
    plain = f"a language model {of('language model, a quarter')}, learned longer {of('language model')}"
    return f"{words}, {plain}, by short_run_mle (models/README.md)"


def _sequence_design() -> str:
    of = lambda part, figure: over_seeds("sequence_design", part, figure)
    words = f"sequences: median design {of('round 3', 'median')}"
    best = f"best datum {of('data', 'best')}, even ones {of('even sequences', 'median')}"
    return f"{words}, {best}, by variational_joint (models/README.md)"


def _data_ebm() -> str:
    of = lambda model: over_seeds("data_ebm", model)
    words = f"two moons: {of('anisotropic')} nats held out, score_matching {of('score matching')}"
    return f"{words}, normal {of('normal')}, kernel density {of('kernel density estimate')} (models/README.md)"


def _latent_flow() -> str:
    given = [over_seeds("latent_flow", model, "any, log p") for model in ("flow", "N(0, I)")]
    words = f"half digits: the other half {given[0]} nats, under N(0, I) {given[1]}"
    return f"{words}, by variational_joint (models/README.md)"


def _hierarchical_features() -> str:
    cells = kept("accuracy_by_layer")["cells"]
    of = lambda model, layer: np.mean([cells[f"mnist/hierarchical_features, {model}/{i}"]["guide"][layer]
                                       for i in range(3)])  # fmt: skip
    told = [", ".join(f"{of(model, layer):.3f}" for layer in ("z1", "z2", "z3")) for model in ("tilted", "twin")]
    return f"MNIST: labels by z1 to z3 {told[0]}, its twin {told[1]} (models/README.md)"


def _posed_scene() -> str:
    told = [over_seeds("posed_scene", model, "log p(x)") for model in ("tilted", "twin")]
    off = over_seeds("posed_scene", "tilted", "median error")
    words = f"turned digits: {told[0]} nats held out, its twin {told[1]}"
    return f"{words}; angles are off by {off} degrees (models/README.md)"


def _multi_layer_generator() -> str:
    of = lambda way: over_seeds("multi_layer_generator", way, "log p(x)")
    words = f"digits: {of('learned step sizes')} nats held out by short runs of learned sizes"
    return f"{words}, fixed {of('step size 0.1')}, a guide {of('guide')} (models/README.md)"


def _inverse_problem() -> str:
    of = lambda figure: over_seeds("inverse_problem", "projection", figure)
    errors = [of(f"error, {name}, digits") for name in ("chains", "Gaussian", "mean image")]
    words = f"digits of 16 projections: error {errors[0]}, linear {errors[1]}, mean image {errors[2]}"
    return f"{words}; 90 % cover {of('coverage, chains')} (models/README.md)"


def _intermediate_layers() -> str:
    of = lambda way: over_seeds("intermediate_layers", f"projection: {way}", "error, digits")
    errors = [of(way) for way in ("layer 2, score", "layer 2, normal", "noise space")]
    words = f"digits of 16 projections: error in layer 2 {errors[0]}, if it is normal {errors[1]}"
    return f"{words}, noise space {errors[2]} (models/README.md)"


def _sparse_coding() -> str:
    of = [over_seeds("sparse_coding", "bars", f"above 0.95, {whose}") for whose in ("page", "dictionary", "chance")]
    words = f"bars: {of[0]} found to a cosine of 0.95, dictionary learning {of[1]}, chance {of[2]}"
    return f"{words}, by mle (models/README.md)"


def _baseline(name: str) -> Callable[[], str]:
    def told() -> str:
        rows = kept("baselines")["rows"]
        held_out = nats(rows, f"digits/{name}/{{}}", "model")
        autoencoder = nats(rows, "digits/variational_joint/{}/latent_ebm", "twin")
        words = f"digits: {held_out} nats held out, an autoencoder {autoencoder}"
        return f"{words}, by variational_joint (models/README.md)"

    return told


_JOINT_EBM = _beside_its_twin("likelihood", "digits/noise_contrastive/{}", "noise_contrastive", "inference")
_LATENT_EBM = _beside_its_twin("baselines", "digits/variational_joint/{}/latent_ebm", "variational_joint", "models")

# by page: the sentence, and the command of this folder that makes its figures anew, by seeds
RESULTS: dict[str, tuple[Callable[[], str], str]] = {
    "joint_ebm": (_JOINT_EBM, LIKELIHOOD.format("digits")),
    "latent_ebm": (_LATENT_EBM, BASELINE.format("variational_joint --model latent_ebm")),
    "univariate_tilts": (_univariate_tilts, LIKELIHOOD.format("univariate_tilts")),
    "conjugate_tilt": (_conjugate_tilt, LIKELIHOOD.format("linear_gaussian")),
    "random_effects": (_random_effects, "random_effects.py"),
    "multimodal_ebm": (_multimodal_ebm, "multimodal_ebm.py"),
    "conditional_ebm": (_conditional_ebm, "conditional_ebm.py"),
    "data_ebm": (_data_ebm, "data_ebm.py"),
    "hierarchical_features": (_hierarchical_features, "accuracy_by_layer.py"),
    "latent_optimisation": (_latent_optimisation, "latent_optimisation.py"),
    "latent_plan": (_latent_plan, "latent_plan.py"),
    "series_factors": (_series_factors, "series_factors.py"),
    "text_decoder": (_text_decoder, "text_decoder.py"),
    "sequence_design": (_sequence_design, "sequence_design.py"),
    "latent_flow": (_latent_flow, "latent_flow.py"),
    "posed_scene": (_posed_scene, "posed_scene.py"),
    "multi_layer_generator": (_multi_layer_generator, "multi_layer_generator.py"),
    "inverse_problem": (_inverse_problem, "inverse_problem.py --backend pyro"),
    "intermediate_layers": (_intermediate_layers, "intermediate_layers.py"),
    "sparse_coding": (_sparse_coding, "sparse_coding.py"),
    **{name: (_baseline(name), BASELINE.format(name)) for name in ("vamp_prior", "mixture_prior", "flow_prior")},
}


def results() -> dict[str, str]:
    """The sentence of every page that has figures."""
    return {name: told() for name, (told, _) in RESULTS.items()}


def table(sentences: dict[str, str]) -> str:
    """Pages, what they are tried on, what came out, and the command, in Markdown."""
    lines = ["| page | data | result | command |", "|---|---|---|---|"]
    for name, sentence in sorted(sentences.items()):
        data, told, where = re.fullmatch(r"(.*?): (.*) \((\S+)\)", sentence).groups()  # type: ignore[union-attr]
        link = f"[{told}](../{where})" if where != "models/README.md" else told
        lines.append(f"| `{name}` | {data} | {link} | `benchmarks/{RESULTS[name][1]}` |")
    return "\n".join(lines)
