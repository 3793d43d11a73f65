# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Text and sequences
#
# Strings of characters from a latent vector, and sequences that are drawn given a property. The decoder reads what
# stands before each character, and the latent beside it; a string ends with a symbol of its own, after which nothing
# can come. So every string has a probability, and all of them together have probability one.

# %%
import os
import re
import tempfile
import warnings

import matplotlib.pyplot as plt
import numpy as np

SMOKE = os.environ.get("PPLEBM_SMOKE") == "1"  # a quick run that only checks that everything works
warnings.filterwarnings("ignore", message="IProgress")  # tqdm's remark on progress bars in notebooks

from pydoc_data.topics import topics  # the reference of Python itself: English text that every Python carries

import pplebm

UPDATES, DESIGN_UPDATES, ROUNDS = (4, 4, 1) if SMOKE else (600, 300, 3)
scratch = tempfile.TemporaryDirectory()  # run folders go here, and away with it
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
text, design = pplebm.load("text_decoder"), pplebm.load("sequence_design")

# %% [markdown]
# ## 1. Words as data
#
# `encoded` makes integers of strings, `decoded` strings of integers; 0 is the end and fills up.

# %%
ALPHABET, LENGTH = "abcdefghijklmnopqrstuvwxyz", 10
words = sorted({word for word in re.findall(r"\b[a-z]{3,10}\b", " ".join(topics.values()))})
order = np.random.default_rng(0).permutation(len(words))
train, held_out = ([words[i] for i in part] for part in (order[200:], order[:40]))
data, asked = (text.encoded(part, ALPHABET, LENGTH) for part in (train, held_out))
print(f"{len(train)} words to learn from, such as {', '.join(train[:5])}")
print(asked["text"][0], "is", text.decoded(asked["text"][:1], ALPHABET)[0])
assert text.decoded(asked["text"], ALPHABET) == held_out

# %% [markdown]
# ## 2. A latent beside the characters, and none
#
# The same decoder twice: with a latent vector, learned with a guide, and as a plain language model, which the latent
# tells nothing. The plain model is what a latent has to beat.

# %%
common = {"symbols": len(ALPHABET) + 1, "units": 32}
runs = {
    name: pplebm.fit("text_decoder", data, "variational_joint", hyper=common | more, updates=UPDATES, seed=0,
                     out=f"{scratch.name}/{name}", progress=False)
    for name, more in {"latent": {}, "plain": {"is_plain": True}}.items()
}  # fmt: skip

# %% [markdown]
# log p(x) of a string is an integral over the latent. Importance-weighted bounds come from below, and tighten with the
# number of draws; the estimate and its error are those of `log_evidence`.

# %%
evidence = {
    name: pplebm.log_evidence(run.program, asked, method="importance", seed=0, progress=False)
    for name, run in runs.items()
}
symbols = np.minimum((asked["text"] > 0).sum(1) + 1, LENGTH)  # the end counts where there is one
for name, found in evidence.items():
    there = found.is_trusted
    bits = -found.value[there].sum() / symbols[there].sum() / np.log(2)
    print(f"{name:7} {bits:.2f} bits a character, by {there.sum()} of {len(held_out)} held-out words")
    assert SMOKE or bits < np.log2(27)  # of 27 symbols that are equally probable

# %%
drawn = {name: text.decoded(run.sample_data(60, seed=1), ALPHABET) for name, run in runs.items()}
for name, found in drawn.items():
    print(f"{name:7}", " ".join(found[:14]))
    print(" " * 7, f"{np.mean([word in set(train) for word in found]):.2f} of the draws are words of the training set")
assert all(set(word) <= set(ALPHABET) for found in drawn.values() for word in found)

# %% [markdown]
# How much does the latent know? `information` splits what the guide tells: the rate is the mutual information of words
# and latents plus how far the guide's aggregate is from the prior. A decoder that reads all characters before needs the
# latent little, and learning by the bound then leaves it unused: a rate near zero is that collapse, and not a fault of
# the estimate.

# %%
some = text.encoded(train[:300], ALPHABET, LENGTH)
told = pplebm.information(runs["latent"].program, some, seed=0, progress=False)
print(f"rate {told.rate:.3f} nats a word, mutual information {told.mutual:.3f} ± {told.mutual_error:.3f}, "
      f"{told.n_active} of 8 latents in use")  # fmt: skip
assert told.mutual < told.ceiling and abs(told.rate - told.mutual - told.mismatch) < 1e-3

# %% [markdown]
# ## 3. Sequences given a property
#
# Twelve letters out of four, and a property that is a sum over neighbours. The data are 500 even sequences without
# their best tenth. A model of sequences and property is learned, sequences are drawn for a property above the best
# there is, the property is evaluated of them, they are added to the data, and so on. The best of all $4^{12}$ sequences
# is known, by dynamic programming.

# %%
LETTERS, SITES = 4, 12
pairs = np.random.default_rng(2024).normal(size=(LETTERS, LETTERS))
rng = np.random.default_rng(0)


def value(x):
    """Sum over neighbours, as far as the sequence goes."""
    both = (x[:, :-1] > 0) & (x[:, 1:] > 0)
    return np.where(both, pairs[x[:, :-1] - 1, x[:, 1:] - 1], 0.0).sum(1)


best = np.zeros(LETTERS)
for _ in range(SITES - 1):
    best = (best[:, None] + pairs).max(0)
x = rng.integers(1, LETTERS + 1, size=(500, SITES))
x = x[np.argsort(value(x))[:450]]
shown = {"data": value(x)}
for turn in range(1, ROUNDS + 1):
    y = value(x)
    centre, scale = y.mean(), y.std()
    run = pplebm.fit("sequence_design", design.known(x, (y - centre) / scale), "variational_joint",
                     hyper={"symbols": LETTERS + 1, "units": 32}, updates=DESIGN_UPDATES, seed=0,
                     out=f"{scratch.name}/round{turn}", progress=False)  # fmt: skip
    wanted = design.wanted(np.full(4, (y.max() - centre) / scale + 0.5), SITES)
    draws = pplebm.sample(run.program, data=wanted, n_chains=25, n_draws=1, n_warmup=20 if SMOKE else 200, seed=0,
                          progress=False)  # fmt: skip
    found = pplebm.predictive(draws, seed=0)["x"].reshape(-1, SITES)
    shown[f"round {turn}"] = value(found)
    x = np.concatenate([x, found])
shown["as many even ones"] = value(rng.integers(1, LETTERS + 1, size=(100 * ROUNDS, SITES)))

# %%
fig, ax = plt.subplots(figsize=(7, 3))
ax.boxplot(list(shown.values()), orientation="horizontal", tick_labels=list(shown), whis=(0, 100))
ax.axvline(best.max(), color="k", ls=":")
ax.text(best.max() - 0.2, 0.6, "best of all", ha="right")
ax.set_xlabel("property")
ax.invert_yaxis()
plt.show()
for name, found in shown.items():
    print(f"{name:18} median {np.median(found):6.2f}, best {found.max():6.2f}")
assert max(found.max() for found in shown.values()) <= best.max() + 1e-9
assert SMOKE or np.median(shown[f"round {ROUNDS}"]) > np.median(shown["data"])

# %% [markdown]
# In a small space chance finds good sequences as well: the even ones stand beside the designs for that reason. What the
# model does is move the whole distribution. Three seeds, and the figures of text, are in
# [models/README.md](../models/README.md). The networks for sequences (embeddings, recurrent units that give all their
# states, causal attention, convolutions in time) are data in `pplebm.networks` and may stand in any page.
