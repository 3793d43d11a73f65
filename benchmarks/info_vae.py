"""Information, mismatch and likelihood of digits by InfoVAE, by a plain autoencoder, and under a tilted prior.

    python benchmarks/info_vae.py --seeds 0 1 2

The generator is `latent_ebm` with 2 latents; InfoVAE and the autoencoder have its untilted twin. The aggregate of
a guide is that of 1000 training images, so the information is at most log 1000 = 6.91: two latents were
chosen to stay below. The prior is the tilted one where there is a tilt. The discrepancy has the kernel that
`info_vae` learns by, the inverse multiquadric of bandwidth 1. log p(x) is of held-out images.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from seeded import cell, command

import pplebm
from pplebm.ppl.trees import take_rows

RESULT = Path(__file__).with_suffix(".json")
N_TRAINING, N_HELD_OUT, SIZE = 1000, 50, 2
MODELS = {"info_vae": ("info_vae", False), "autoencoder": ("variational_joint", False),
          "tilted": ("variational_joint", True)}  # fmt: skip
FIGURES = ("rate", "mutual", "mismatch", "MMD²", "active", "log p(x)")


def figures(run: Any, seed: int, tilted: bool) -> dict[str, float]:
    """Of one model; errors are those of Monte Carlo."""
    guide, data = run.algorithm.guide, run.load()
    train, log_z = run.program.data(take_rows(data.train, slice(0, N_TRAINING))), run.log_z(progress=False)
    found = pplebm.information(run.program, train, guide, log_z=log_z, n_draws=2, params=run.params, seed=seed,
                               progress=False)  # fmt: skip
    settings = {"n_chains": 1000, "n_draws": 1, "n_warmup": 200, "seed": seed, "progress": False}
    prior = pplebm.sample_prior(run.program.with_coordinates("noncentered"), **settings) if tilted else None
    apart = pplebm.aggregate_mmd(run.program, train, guide, prior=prior, params=run.params, seed=seed)
    log_p = run.log_evidence(run.held_out(n=N_HELD_OUT), progress=False, seed=seed)
    row = {name: getattr(found, name) for name in found._fields if name not in ("activity", "ceiling")}
    row |= {"active": found.n_active, "MMD²": apart.value, "MMD² error": apart.error, "log Z": log_z.value[0],
            "log Z error": log_z.error[0], "log p(x)": log_p.mean, "log p(x) error": log_p.mean_error,
            "log p(x) sd over images": log_p.value.std(), "trusted": log_p.is_trusted.mean()}  # fmt: skip
    return {name: float(a) for name, a in row.items()}


def compare(seed: int, updates: int | None, algorithm: str, backend: str) -> dict[str, Any]:
    """All models on one split; `algorithm` is that of the autoencoder and of the tilted model."""
    row: dict[str, Any] = {}
    for name, (page, tilted) in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            page = algorithm if page == "variational_joint" else page
            run = pplebm.fit("latent_ebm", "digits", page, f"{folder}/run", updates=updates, seed=seed, backend=backend,
                             hyper={"latent_dim": SIZE, "tilted": tilted}, progress=False)  # fmt: skip
            row[name] = figures(run, seed, tilted)
    return row


def table(rows: dict[str, Any]) -> str:
    """Table in Markdown: mean ± standard deviation over seeds."""
    lines = [f"| | {' | '.join(FIGURES)} |", f"|---{'|---:' * len(FIGURES)}|"]
    for name in next(iter(rows.values())):
        cells = [cell((row[name][f] for row in rows.values()), 4 if f == "MMD²" else 2) for f in FIGURES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    command(__doc__, compare, table, RESULT, [0, 1, 2], 2000, "variational_joint")
