"""Words of Shakespeare, character by character: short runs, a variational autoencoder, and a plain language model.

    python benchmarks/text_decoder.py --seeds 0 1 2

Reads `data/text/tinyshakespeare.txt.gz` from the folder where it is started. A row is one of the distinct words of 3
to 10 letters, in lower case; a seed draws the 1000 that are held out, of which 50 are asked about, and starts learning.
All models have one decoder of 32 units; the language model's is told nothing by z, so that its log p is exact. The
short run's chains take 25 steps, and it has a quarter of the updates, at many times the cost of one; beside it stands
the language model after as many. Bits are of every letter and of the end of the word. Information is that of a word and
its latent under the model, KL(p(z | x) || p(z)), and a coordinate of z is active where the posterior means of the words
have a variance above 0.01; both by chains that accept and reject. Words between two held-out words are drawn, all with
the same noise, at latents on the straight line between posterior means.
"""

from __future__ import annotations

import gzip
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from seeded import cell, command

import pplebm
from pplebm.kernels.mala import mala

RESULT = Path(__file__).with_suffix(".json")
SOURCE = Path("data") / "text" / "tinyshakespeare.txt.gz"
ALPHABET, LENGTH = "abcdefghijklmnopqrstuvwxyz", 10
N_HELD_OUT, N_ASKED = 1000, 50
HYPER = {"symbols": len(ALPHABET) + 1, "units": 32}
SHORT_RUN = {"n_steps_posterior": 25}
MODELS = {
    "language model": ("variational_joint", {"is_plain": True}),
    "language model, a quarter": ("variational_joint", {"is_plain": True}),
    "variational autoencoder": ("variational_joint", {}),
    "short run": ("short_run_mle", SHORT_RUN),
}
FIGURES = ("bits per character", "log p(x)", "information, nats", "active of 8")
page = pplebm.load("text_decoder")


def words(seed: int) -> tuple[list[str], list[str]]:
    """Training and held-out words."""
    with gzip.open(SOURCE, "rt", encoding="utf-8") as file:
        found = sorted({word for word in re.findall("[a-z]+", file.read().lower()) if 3 <= len(word) <= LENGTH})
    order = np.random.default_rng(seed).permutation(len(found))
    return [found[i] for i in order[N_HELD_OUT:]], [found[i] for i in order[:N_HELD_OUT]]


def figures(run: Any, data: dict[str, np.ndarray], is_plain: bool, seed: int) -> dict[str, float]:
    """Of one model, by name; standard errors are over words."""
    program, ppl, n = run.program, run.program.ppl, len(data["text"])
    draws = pplebm.sample(program, mala(), data=data, n_chains=8, n_draws=20, n_warmup=150, thin=5, seed=seed,
                          progress=False)  # fmt: skip
    z = draws["z1"].reshape(-1, n, draws["z1"].shape[-1])
    halves = [a - a.mean(0) for a in (draws["z1"][:4].mean((0, 1)), draws["z1"][4:].mean((0, 1)))]  # (words, 8)
    covariance = (halves[0] * halves[1]).mean(0)  # of means by chains apart: that of the means, free of their errors
    rows = program.data({"text": np.tile(data["text"], (len(z), 1))})
    at = {"z1": ppl.asarray(z.reshape(-1, z.shape[-1]))}
    given = ppl.to_numpy(program.log_likelihood(program.params, at, rows)).reshape(len(z), n)
    if is_plain:
        log_p, error, trusted = given.mean(0), np.zeros(n), np.ones(n, bool)
    else:
        found = pplebm.log_evidence(program, data, method="importance", proposal="laplace", seed=seed, progress=False)
        log_p, error, trusted = found.value, found.error, found.is_trusted
    symbols = np.minimum((data["text"] > 0).sum(1) + 1, LENGTH)
    log_p, given, symbols = log_p[trusted], given[:, trusted], symbols[trusted]
    by_word = given.mean(0) - log_p
    return {
        "bits per character": -log_p.sum() / symbols.sum() / np.log(2.0),
        "log p(x)": log_p.mean(),
        "log p(x), error": log_p.std() / len(log_p) ** 0.5,
        "log p(x), Monte Carlo error": (error[trusted] ** 2).mean() ** 0.5,
        "rows": len(log_p),
        "information, nats": by_word.mean(),
        "information, error": by_word.std() / len(by_word) ** 0.5,
        "active of 8": (covariance > 0.01).sum(),
    }


def between(run: Any, pair: list[str], seed: int) -> list[str]:
    """Words on the way from one to the other."""
    program, ppl = run.program, run.program.ppl
    data = page.encoded(pair, ALPHABET, LENGTH)
    ends = pplebm.sample(program, mala(), data=data, n_chains=8, n_draws=20, n_warmup=150, thin=5, seed=seed,
                         progress=False)["z1"].mean((0, 1))  # fmt: skip
    found = []
    for share in np.linspace(0.0, 1.0, 5):
        z = {"z1": ppl.asarray(((1.0 - share) * ends[0] + share * ends[1])[None])}
        found += page.decoded(ppl.to_numpy(program.predict(program.params, z, ppl.key(seed))["text"]), ALPHABET)
    return found


def compare(seed: int, updates: int | None, algorithm: str, backend: str) -> dict[str, Any]:
    """All models on one split; `algorithm` learns all but the short run."""
    train, held_out = words(seed)
    data, asked = (page.encoded(part, ALPHABET, LENGTH) for part in (train, held_out[:N_ASKED]))
    row: dict[str, Any] = {"words": {"training": len(train), "held out": len(held_out)}}
    for name, (learner, hyper) in MODELS.items():
        is_short, is_quarter = name == "short run", name in ("short run", "language model, a quarter")
        with tempfile.TemporaryDirectory() as folder:
            run = pplebm.fit("text_decoder", data, learner if is_short else algorithm, f"{folder}/run", seed=seed,
                             updates=updates and (updates // 4 if is_quarter else updates), hyper=HYPER | hyper,
                             backend=backend, progress=False)  # fmt: skip
            found = figures(run, asked, "is_plain" in hyper, seed)
            row[name] = {figure: float(a) for figure, a in found.items()}
            if is_short:
                row["between"] = {" and ".join(pair): ", ".join(between(run, pair, seed))
                                  for pair in (held_out[:2], held_out[2:4])}  # fmt: skip
    return row


def table(rows: dict[str, Any]) -> str:
    """Table in Markdown: mean ± standard deviation over seeds, and words between words."""
    lines = [f"| | {' | '.join(FIGURES)} |", "|---" + "|---:" * len(FIGURES) + "|"]
    for name in MODELS:
        told = [cell((row[name][figure] for row in rows.values()), 2) for figure in FIGURES]
        lines.append(f"| {name} | {' | '.join(told)} |")
    for seed, row in rows.items():
        lines += [f"seed {seed}, between {pair}: {found}" for pair, found in row["between"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    command(__doc__, compare, table, RESULT, [0, 1, 2], 1200, "variational_joint")
