"""Toy data of every model page, and the algorithm that learns it where the default one is not meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

ROWS = 512  # to learn from


class Toy(NamedTuple):
    """What a page learns at toy size; digits, unless another function makes data."""

    data: Callable[[], Any] = lambda: "digits"
    inference: str = "variational_joint"
    hyper: Mapping[str, Any] = {}


def _quadratic() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, 4)) @ np.random.default_rng(1).normal(size=(4, 4)) / 2.0


def _views() -> Any:
    from multimodal_ebm import page, views

    return page.masked({name: a[:ROWS] for name, a in views(0)[0].items()}, None, ("label",))


def _labelled() -> Any:
    from conditional_ebm import digits

    return {name: a[:ROWS] for name, a in digits(0)[0].items()}


def _designs() -> Any:
    from latent_optimisation import HIGH, LOW, branin, page

    x = np.random.default_rng(0).uniform(LOW, HIGH, (ROWS, 2))
    y = -np.log(branin(x))
    return page.as_data((x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std())


def _strings() -> Any:
    import pplebm

    rng, letter = np.random.default_rng(0), np.array(list("abc"))
    strings = [
        "".join(letter[(k + np.arange(n)) % 3])
        for k, n in zip(rng.integers(3, size=ROWS), rng.integers(2, 9, ROWS), strict=True)
    ]
    return pplebm.load("text_decoder").encoded(strings, "abc", 8)


def _sequences() -> Any:
    from sequence_design import page, value

    x = np.random.default_rng(0).integers(1, 5, size=(ROWS, 12))
    return page.known(x, (value(x) - value(x).mean()) / value(x).std())


def _halves() -> Any:
    from latent_flow import halves, page
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(0)
    return page.masked(load_digits().images[:ROWS] / 8.0 - 1.0, halves(rng, ROWS))


def _patients() -> Any:
    import pandas as pd

    import pplebm

    rng, who, year = np.random.default_rng(0), np.repeat(np.arange(256), 5), np.tile(np.arange(5.0), 256)
    y = 0.3 * year + np.where(rng.random(256) < 0.3, 2.0, -0.5)[who] + 0.3 * rng.normal(size=len(who))
    frame = pd.DataFrame({"who": who, "year": year, "y": y})
    return pplebm.load("random_effects").grouped(frame, "y", ["year"], "who")


def _series() -> Any:
    from pplebm.data import windows

    rng, t = np.random.default_rng(0), np.arange(2 * ROWS + 32)
    x = np.sin(2 * np.pi * t / 24)[:, None] * [1.0, -0.5] + 0.2 * rng.normal(size=(len(t), 2))
    x[rng.random(x.shape) < 0.1] = np.nan
    return windows(x, 32, 2).data


def _moons() -> np.ndarray:
    from sklearn.datasets import make_moons

    x, _ = make_moons(ROWS, noise=0.1, random_state=0)
    return np.asarray((x - x.mean(0)) / x.std(0))


def _posed() -> Any:
    from posed_scene import digits

    return digits(0)[0]


def _bars() -> np.ndarray:
    from sparse_coding import bars

    return bars(0)[1][:ROWS]


def _seen() -> Any:
    from inverse_problem import page
    from sklearn.datasets import load_digits

    from pplebm.networks.operators import measured

    return {"y": measured(page.instrument(page.Hyper()), load_digits().images[:ROWS] / 8.0 - 1.0)}


def _walkers() -> Any:
    from latent_plan import page, walked

    states, actions, coins = walked(np.random.default_rng(0), ROWS, pieces=True)
    return page.as_data(states, actions, (coins - coins.mean()) / coins.std(), one_hot=True)


MODELS = {
    "data_ebm": Toy(_moons, "persistent_mle"),
    "posed_scene": Toy(_posed),
    "conjugate_tilt": Toy(_quadratic, "mle"),
    "univariate_tilts": Toy(inference="short_run_mle"),
    "multimodal_ebm": Toy(_views, hyper={"one_hot": ("label",)}),
    "conditional_ebm": Toy(_labelled),
    "latent_optimisation": Toy(_designs, "noise_contrastive"),
    "latent_plan": Toy(_walkers, hyper={"one_hot": True}),
    "text_decoder": Toy(_strings, hyper={"symbols": 4}),
    "sequence_design": Toy(_sequences, hyper={"symbols": 5}),
    "latent_flow": Toy(_halves),
    "random_effects": Toy(_patients, "persistent_mle"),
    "series_factors": Toy(_series),
    "sparse_coding": Toy(_bars, "mle", {"n_atoms": 8}),
    "inverse_problem": Toy(_seen),
    "intermediate_layers": Toy(_seen),
}
