"""Plans for more coins than any trajectory of the data finds, from trajectories that hold the pieces of the way.

    python benchmarks/latent_plan.py --seeds 0 1 2

A way of 12 columns and 3 rows, one column a step: up, straight or down. Four coins lie on it, one after every three
steps. Walkers go to a row chosen at random for each coin, a tenth of the steps at random, and two sets of 1000
trajectories are learned from, by actions and number of coins: in "pieces" they walk six columns, from any of three
beginnings and any row, and so find two coins at most; in "whole ways" they walk all twelve, and those who found more
than two coins are left out. 128 plans are drawn for two, three and four coins and are followed along the whole way: an
action is drawn at the state that the one before it led to. "Plans" are of the page as it is, without a tilt; "tilted
plans" of the same with one. Beside them: the data; cloning, which is the same decoder without z; cloning of the
trajectories with two coins; and even draws of actions. log p is of new trajectories.
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
LENGTH, N_ROWS, COINS, MOST = 12, 3, np.array([2, 0, 0, 2]), 2  # rows of the coins; the most that data hold
PLANS = ("plans", "tilted plans")  # the page as it is, and with a tilt of the prior of z
KINDS = (*PLANS, "cloning", "cloning of the best")
page = pplebm.load("latent_plan")


def state(column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Column and row as vectors with a single 1, side by side, (n, 15)."""
    return np.concatenate([np.eye(LENGTH)[column], np.eye(N_ROWS)[row]], 1)


def walk(column: np.ndarray, row: np.ndarray, n_steps: int, choose: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States (n, steps, 15), actions (n, steps, 3) and coins (n,) of those who choose 0, 1 or 2 by column and row."""
    coins, states, actions = np.zeros(len(row)), [], []
    for step in range(n_steps):
        action = choose(step, column, row)
        states.append(state(column, row))
        actions.append(np.eye(3)[action])
        row, column = (row + action - 1).clip(0, N_ROWS - 1), column + 1
        coins += (column % 3 == 0) & (row == COINS[column // 3 - 1])
    return np.stack(states, 1), np.stack(actions, 1), coins


def whole_way(n: int, choose: Any) -> np.ndarray:
    """Coins of n walkers along the whole way, from the middle row."""
    return walk(np.zeros(n, int), np.ones(n, int), LENGTH, choose)[2]


def walked(rng: np.random.Generator, n: int, pieces: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What n walkers did who found two coins at most."""
    size = 2 * n
    target = rng.integers(0, N_ROWS, (size, 4))

    def choose(step: int, column: np.ndarray, row: np.ndarray) -> np.ndarray:
        towards = np.sign(target[np.arange(size), column // 3] - row) + 1
        return np.where(rng.random(size) < SLIP, rng.integers(0, 3, size), towards)

    column, row = 3 * rng.integers(0, 3, size) * pieces, rng.integers(0, N_ROWS, size) if pieces else np.ones(size, int)
    states, actions, coins = walk(column, row, 6 if pieces else LENGTH, choose)
    kept = np.flatnonzero(coins <= MOST)[:n]
    return states[kept], actions[kept], coins[kept]


def followed(program: Any, z: np.ndarray, seed: int) -> np.ndarray:
    """Coins that plans z, (n, d), find along the whole way, action by action."""
    ppl = program.ppl
    act = program.compiled(("act",), lambda params, z, key, data: program.predict(params, z, key, data))
    keys, latents = ppl.split(ppl.key(seed), LENGTH), {"z1": ppl.asarray(z, keep=True)}

    def choose(step: int, column: np.ndarray, row: np.ndarray) -> np.ndarray:
        asked = page.wanted(np.full(len(z), np.nan), state(column, row)[:, None], 3, one_hot=True)
        drawn = act(program.params, latents, keys[step], program.data(asked))["actions"]
        return np.asarray(ppl.to_numpy(drawn)[:, 0].argmax(-1))

    return whole_way(len(z), choose)


def told(coins: np.ndarray) -> dict[str, Any]:
    """Mean of coins, their largest number, and the shares that have three or more, and four."""
    return {"coins": coins.mean(), "most": coins.max(), "three": (coins >= 3).mean(), "four": (coins >= 4).mean()}


def plans(program: Any, y: float, seed: int) -> np.ndarray:
    """Latents (128, d) given the return y alone, each by a chain of its own."""
    asked = page.wanted(np.full(4, y), np.zeros((4, 1, LENGTH + N_ROWS)), 3, one_hot=True)
    draws = pplebm.sample(program.with_coordinates("noncentered"), data=asked, n_chains=N_PLANS // 4, n_draws=1,
                          n_warmup=1000, seed=seed, progress=False)  # fmt: skip
    return draws["z1"].reshape(N_PLANS, -1)


def figures(
    run: Any, new: Any, units: tuple[float, float], seed: int, is_plan: bool, is_of_all: bool
) -> dict[str, dict[str, Any]]:
    """Coins that a learned model finds, plans asked for 2, 3 and 4; and log p of new rows, if all data were learned."""
    found: dict[str, dict[str, Any]] = {}
    mean, spread = units
    if is_plan:
        for asked in (2, 3, 4):
            z = plans(run.program, (asked - mean) / spread, seed)
            found[f", {asked} coins"] = told(followed(run.program, z, seed))
    else:  # any z does
        found[""] = told(followed(run.program, np.zeros((N_PLANS, page.Hyper().latent_dim), np.float32), seed))
    if not is_of_all:
        return found
    log_p = run.log_evidence(new, progress=False)
    found[", log p"] = {"log p": log_p.value.mean(), "error": log_p.value.std() / N_NEW**0.5,
                        "Monte Carlo error": np.sqrt((log_p.error**2).mean()),
                        "trusted": log_p.is_trusted.mean()}  # fmt: skip
    return found


def compare(seed: int, updates: int | None, algorithm: str, backend: str) -> dict[str, Any]:
    """Coins that are found by plans, by cloning, and by chance, learning from pieces and from whole ways."""
    rng = np.random.default_rng(seed)
    chance = whole_way(N_PLANS, lambda step, column, row: rng.integers(0, 3, len(row)))
    rows: dict[str, Any] = {"even draws": told(chance)}
    for words in ("pieces", "whole ways"):
        states, actions, coins = walked(rng, N_DATA, words == "pieces")
        units = coins.mean(), coins.std()
        data, new = (page.as_data(s, a, (c - units[0]) / units[1], one_hot=True)
                     for s, a, c in ((states, actions, coins), walked(rng, N_NEW, words == "pieces")))  # fmt: skip
        best = {name: a[coins == MOST] for name, a in data.items()}
        rows[f"{words}: data"] = told(coins)
        for name in KINDS:
            there = best if name == "cloning of the best" else data
            hyper = {"one_hot": True, "reads_plan": name in PLANS, "tilted": name == "tilted plans",
                     "batch_size": 128 if there is data else 64}  # fmt: skip
            with tempfile.TemporaryDirectory() as folder:
                run = pplebm.fit("latent_plan", there, algorithm, f"{folder}/run", updates=updates, seed=seed,
                                 hyper=hyper, backend=backend, progress=False)  # fmt: skip
                found = figures(run, new, units, seed, name in PLANS, there is data)
            rows |= {f"{words}: {name}{part}": a for part, a in found.items()}
    return {name: {k: float(v) for k, v in part.items()} for name, part in rows.items()}


def table(rows: dict[str, Any]) -> str:
    """Table in Markdown: mean ± standard deviation over seeds."""
    lines, seeds = ["| learned from: | coins | three or more | four |", "|---|---:|---:|---:|"], list(rows.values())
    for name, part in seeds[0].items():
        figures = [figure for figure in ("coins", "three", "four") if figure in part]
        if figures:
            lines.append(f"| {name} | {' | '.join(cell((row[name][f] for row in seeds), 2) for f in figures)} |")
    logs = [name for name, part in seeds[0].items() if "log p" in part]
    return "\n".join([*lines, *(f"{name}: {cell((row[name]['log p'] for row in seeds), 2)}" for name in logs)])


if __name__ == "__main__":
    command(__doc__, compare, table, RESULT, [0, 1, 2], 1500, "variational_joint")
