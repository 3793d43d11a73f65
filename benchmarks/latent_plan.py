"""Plans for more coins than any trajectory of the data collects, from trajectories that hold its pieces.

    python benchmarks/latent_plan.py --seeds 0 1 2

A way of 12 columns and 3 rows, one column a step: up, straight or down. Four coins lie on it. Whoever went it before
walked to a row chosen at random for every third of the columns, a tenth of the steps at random, and 1000 of those
who found two coins at most are learned from, by actions and number of coins. Every good piece of the way is among
them, and three or four together are not. 128 plans are drawn for two, three and four coins, and are followed: an action
is drawn at the state that the one before it led to. Beside them: the data; cloning, which is the same decoder without z;
cloning of those who found two coins; and even draws of actions. log p is of new trajectories with two coins at most.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from seeded import cell, command

import pplebm

RESULT = Path(__file__).with_suffix(".json")
N_DATA, N_NEW, N_PLANS, SLIP = 1000, 200, 128, 0.1
COINS = {3: 2, 6: 0, 9: 0, 12: 2}  # row by column
N_STEPS, N_ROWS, MOST = 12, 3, 2
page = pplebm.load("latent_plan")


def state(column: int, row: np.ndarray) -> np.ndarray:
    """Column and row as vectors with a single 1, side by side, (n, 15)."""
    return np.concatenate([np.eye(N_STEPS)[np.full(len(row), column)], np.eye(N_ROWS)[row]], 1)


def walk(n: int, choose: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States (n, 12, 15), actions (n, 12, 3) and coins (n,) of those who choose 0, 1 or 2 by column and row."""
    row, coins, states, actions = np.ones(n, int), np.zeros(n), [], []
    for column in range(N_STEPS):
        action = choose(column, row)
        states.append(state(column, row))
        actions.append(np.eye(3)[action])
        row = (row + action - 1).clip(0, N_ROWS - 1)
        coins += row == COINS.get(column + 1, -1)
    return np.stack(states, 1), np.stack(actions, 1), coins


def habits(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What n walkers did who found two coins at most."""
    target = rng.integers(0, N_ROWS, (2 * n, 4))

    def choose(column: int, row: np.ndarray) -> np.ndarray:
        towards = np.sign(target[:, column // 3] - row) + 1
        return np.where(rng.random(len(row)) < SLIP, rng.integers(0, 3, len(row)), towards)

    states, actions, coins = walk(2 * n, choose)
    kept = np.flatnonzero(coins <= MOST)[:n]
    return states[kept], actions[kept], coins[kept]


def followed(program: Any, z: np.ndarray, seed: int) -> np.ndarray:
    """Coins that plans z, (n, d), find, action by action."""
    ppl = program.ppl
    act = program.compiled(("act",), lambda params, z, key, data: program.predict(params, z, key, data))
    keys, latents = ppl.split(ppl.key(seed), N_STEPS), {"z1": ppl.asarray(z, keep=True)}

    def choose(column: int, row: np.ndarray) -> np.ndarray:
        asked = page.wanted(np.full(len(z), np.nan), state(column, row)[:, None], 3, one_hot=True)
        drawn = act(program.params, latents, keys[column], program.data(asked))["actions"]
        return ppl.to_numpy(drawn)[:, 0].argmax(-1)

    return walk(len(z), choose)[2]


def told(coins: np.ndarray) -> dict[str, Any]:
    """Mean of coins, their largest number, and the shares that have three and four."""
    return {"coins": coins.mean(), "most": coins.max(), "three": (coins >= 3).mean(), "four": (coins >= 4).mean()}


def compare(seed: int, updates: int | None, algorithm: str, backend: str) -> dict[str, Any]:
    """Coins that are found by plans of both models, by cloning, and by chance."""
    rng = np.random.default_rng(seed)
    states, actions, coins = habits(rng, N_DATA)
    mean, spread = coins.mean(), coins.std()
    as_data = lambda states, actions, coins: page.as_data(states, actions, (coins - mean) / spread, one_hot=True)
    data, new = as_data(states, actions, coins), as_data(*habits(rng, N_NEW))
    best = {name: a[coins == MOST] for name, a in data.items()}
    row: dict[str, Any] = {"data": told(coins)}
    row["even draws"] = told(walk(N_PLANS, lambda column, row: rng.integers(0, 3, len(row)))[2])
    for name, rows, hyper in (
        ("plan", data, {}), ("tilted plan", data, {"tilted": True}), ("cloning", data, {"reads_plan": False}),
        ("cloning of the best", best, {"reads_plan": False}),
    ):  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            run = pplebm.fit("latent_plan", rows, algorithm, f"{folder}/run", updates=updates, seed=seed,
                             hyper=hyper | {"one_hot": True}, backend=backend, progress=False)  # fmt: skip
            program = run.program.with_coordinates("noncentered")
            if not hyper.get("reads_plan", True):
                row[name] = told(followed(program, rng.normal(size=(N_PLANS, page.Hyper().latent_dim)), seed))
            else:
                for asked in (2, 3, 4):
                    z = plans(program, (asked - mean) / spread, seed)
                    row[f"{name}, {asked} coins"] = told(followed(program, z, seed))
            if rows is data:
                log_p = run.log_evidence(new, progress=False)
                row[f"{name}, log p"] = {"value": log_p.value.mean(), "error": log_p.value.std() / N_NEW**0.5,
                                         "Monte Carlo error": np.sqrt((log_p.error**2).mean()),
                                         "trusted": log_p.is_trusted.mean()}  # fmt: skip
    return {name: {k: float(v) for k, v in part.items()} for name, part in row.items()}


def plans(program: Any, y: float, seed: int) -> np.ndarray:
    """Latents (128, d) given the return y alone, each by a chain of its own."""
    asked = page.wanted(np.full(4, y), np.zeros((4, 1, N_STEPS + N_ROWS)), 3, one_hot=True)
    draws = pplebm.sample(program, data=asked, n_chains=N_PLANS // 4, n_draws=1, n_warmup=1000, seed=seed,
                          progress=False)  # fmt: skip
    return draws.latents["z1"].reshape(N_PLANS, -1)


def table(rows: dict[str, Any]) -> str:
    """Table in Markdown: mean ± standard deviation over seeds."""
    lines = ["| | coins | three or more | four |", "|---|---:|---:|---:|"]
    for name, part in next(iter(rows.values())).items():
        if "coins" in part:
            cells = [cell((row[name][figure] for row in rows.values()), 2) for figure in ("coins", "three", "four")]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    for name in ("plan", "tilted plan", "cloning"):
        lines.append(f"| log p, {name}: {cell((row[f'{name}, log p']['value'] for row in rows.values()), 2)} | | | |")
    return "\n".join(lines)


if __name__ == "__main__":
    command(__doc__, compare, table, RESULT, [0, 1, 2], None, "variational_joint")
