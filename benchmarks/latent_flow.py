"""Missing pixels of handwritten digits under a flow prior, the prior N(0, I), and a tilted one, at equal decoders.

    python benchmarks/latent_flow.py --seeds 0 1 2

A seed draws the 20 % of scikit-learn's digits that are held out and, of every other digit, the 32 of 64 pixels that
are learned from; the rest of them is never seen. Then 32 pixels of held-out digits are missing: any, or the lower half,
and are predicted by the mean given the others, over draws of adjusted chains. Errors are in grey levels, 0 to 16.
log p(missing | observed) = log p(all) - log p(observed), each by annealing.

All learn by variational_joint, the flow by the paper's short runs in z as well. Beside them: the mean of every pixel
(for the density: normal with its standard deviation, σ or more), and scikit-learn's round-robin linear imputer, both of
the same pixels.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from scipy.stats import norm
from seeded import cell, command
from sklearn.datasets import load_digits
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer

import pplebm

RESULT = Path(__file__).with_suffix(".json")
N_HELD_OUT = 40  # digits that are asked about
PUBLISHED = {"posterior.coordinates": "centered", "posterior.kernel": "langevin", "posterior.n_steps": 20,
             "posterior.step_size": 0.1}  # fmt: skip
MISSING = ("any", "lower")  # which 32 of the 64 pixels
MODELS = ("flow", "flow, short runs in z", "N(0, I)", "tilted")
BASELINES = ("linear imputer", "mean of the pixel")
FIGURES = {
    "any, error": "root mean square error of 32 missing pixels anywhere, grey levels",
    "lower, error": "of the lower half",
    "any, log p": "log p(missing | observed), nats per image",
    "lower, log p": "of the lower half",
    "log p(x)": "of the whole image, nats",
}
page, tilted = pplebm.load("latent_flow"), pplebm.load("latent_ebm")


def masked_tilted() -> ModuleType:
    """The page latent_ebm, x masked as `latent_flow` does."""
    found = ModuleType("masked_latent_ebm")

    def nets(hyper: Any, shape: Any) -> Any:
        return tilted.nets(hyper, shape["x"])

    def model(ppl: Any, net: Any, hyper: Any, x: Any = None, observed_x: Any = None) -> Any:
        with ppl.plate("data", len(x)):
            z = ppl.sample("z1", ppl.dist.Normal(0.0, 1.0).expand([hyper.latent_dim]).to_event(1))
            ppl.tilt("f", net["tilt"](z)[..., 0], bound=hyper.tilt_bound)
            mean = net["decoder"](z)
            return ppl.sample("x", ppl.dist.Normal(mean, hyper.sigma).mask(observed_x).to_event(2), obs=x)

    found.__dict__.update(Hyper=tilted.Hyper, nets=nets, model=model, PAPER=tilted.PAPER, DEVIATIONS=(),
                          BACKENDS=("pyro", "numpyro"))  # fmt: skip
    return found


def halves(rng: np.random.Generator, n: int) -> np.ndarray:
    """For n images, 32 of 64 pixels each."""
    return (rng.random((n, 64)).argsort(1) < 32).reshape(n, 8, 8)


def fitted(name: str, train: Any, algorithm: str, folder: str, seed: int, updates: int | None, backend: str) -> Any:
    """A run of a model."""
    settings = {"out": f"{folder}/run", "seed": seed, "backend": backend, "progress": False}
    if name == "tilted":
        bound = pplebm.bind(masked_tilted(), backend, shape={"x": (8, 8), "observed_x": (8, 8)}, seed=seed)
        return pplebm.fit(bound, train, algorithm, updates=updates, **settings)
    if name == "flow, short runs in z":
        return pplebm.fit("latent_flow", train, "short_run_mle", hyper=PUBLISHED, **settings)
    hyper = {} if name == "flow" else {"n_layers": 0}
    return pplebm.fit("latent_flow", train, algorithm, updates=updates, hyper=hyper, **settings)


def figures(run: Any, x: np.ndarray, masks: dict[str, np.ndarray], seed: int) -> dict[str, float]:
    """Of one model at held-out digits; standard errors are over images."""
    together = lambda names: page.masked(np.tile(x, (len(names), 1, 1)), np.concatenate([masks[n] for n in names]))
    evidence = run.log_evidence(together(("all", *MISSING)), progress=False, seed=seed)
    whole, *parts = (evidence.take(slice(i * len(x), (i + 1) * len(x))) for i in range(3))
    draws = pplebm.sample(run.program.with_coordinates("noncentered"), data=together(MISSING), n_chains=4, n_draws=50,
                          n_warmup=200, thin=2, seed=seed, progress=False)  # fmt: skip
    means = pplebm.predictive(draws, mean=True)["x"].mean((0, 1)).reshape(2, *x.shape)
    found = {"log p(x)": whole.mean, "log p(x), Monte Carlo error": (whole.error**2).mean() ** 0.5,
             "trusted": evidence.is_trusted.mean()}  # fmt: skip
    for name, mean, part in zip(MISSING, means, parts, strict=True):
        given = whole.value - part.value
        found |= {f"{name}, error": error_of(mean, x, masks[name]), f"{name}, log p": given.mean(),
                  f"{name}, log p, error": given.std() / len(x) ** 0.5,
                  f"{name}, log p, Monte Carlo error": (whole.error**2 + part.error**2).mean() ** 0.5}  # fmt: skip
    return {name: float(a) for name, a in found.items()}


def error_of(mean: np.ndarray, x: np.ndarray, there: np.ndarray) -> float:
    """Root mean square error of missing pixels, in grey levels: eight of them are 1."""
    return float(8.0 * np.mean((mean - x)[~there] ** 2) ** 0.5)


def compare(seed: int, updates: int | None, algorithm: str, backend: str) -> dict[str, Any]:
    """All models and baselines on one split."""
    rng = np.random.default_rng(seed)
    images = load_digits().images[rng.permutation(1797)] / 8.0 - 1.0
    x, rest = images[:N_HELD_OUT], images[360:]
    train, lower = page.masked(rest, halves(rng, len(rest))), np.zeros((N_HELD_OUT, 8, 8), bool)
    lower[:, :4] = True
    masks = {"all": np.ones_like(lower), "any": halves(rng, N_HELD_OUT), "lower": lower}
    seen = np.where(train["observed_x"], train["x"], np.nan)
    level, spread = np.nanmean(seen, 0), np.maximum(np.nanstd(seen, 0), page.Hyper().sigma)
    linear = IterativeImputer(random_state=seed, keep_empty_features=True).fit(seen.reshape(-1, 64))
    row: dict[str, Any] = {name: {} for name in BASELINES}
    log_p = norm.logpdf(x, level, spread)
    row["mean of the pixel"]["log p(x)"] = log_p.sum((1, 2)).mean()
    for name in MISSING:
        there = masks[name]
        guess = linear.transform(np.where(there, x, np.nan).reshape(-1, 64)).reshape(x.shape)
        row["linear imputer"][f"{name}, error"] = error_of(guess, x, there)
        row["mean of the pixel"] |= {f"{name}, error": error_of(np.broadcast_to(level, x.shape), x, there),
                                     f"{name}, log p": (log_p * ~there).sum((1, 2)).mean()}  # fmt: skip
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            run = fitted(name, train, algorithm, folder, seed, updates, backend)
            row[name] = figures(run, x, masks, seed)
            log_z = run.log_z(progress=False)
            row[name] |= {"log Z": float(log_z.value[0]), "log Z, error": float(log_z.error[0])}
    return row


def table(rows: dict[str, Any]) -> str:
    """Table in Markdown: mean ± standard deviation over seeds."""
    lines = [f"| | {' | '.join(FIGURES)} |", f"|---{'|---:' * len(FIGURES)}|"]
    for name in (*MODELS, *BASELINES):
        there = next(iter(rows.values()))[name]
        cells = [cell((row[name][f] for row in rows.values()), 2) if f in there else "" for f in FIGURES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    command(__doc__, compare, table, RESULT, [0, 1, 2], 2000, "variational_joint")
