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
# # Anomaly scores
#
# A tilted model has learned nine kinds of handwritten digits. How well does it tell the tenth, which it has never seen?
# There is more than one score to ask, and each says something else. Here they stand side by side, with the same
# generator without the tilt, with what a score that knows nothing would get, and with intervals. At the end there is a
# threshold whose false alarms are known.
#
# The figures of one held-out digit and one short fit are no ranking of scores. They show how to make such a table.

# %%
import os
import tempfile
import warnings

import matplotlib.pyplot as plt
import numpy as np

SMOKE = os.environ.get("PPLEBM_SMOKE") == "1"  # a quick run that only checks that everything works
warnings.filterwarnings("ignore", message="IProgress")  # tqdm's remark on progress bars in notebooks
warnings.filterwarnings("ignore", message=r"log p\(x\) of")  # data that cannot be trusted are counted below

import pyro
import pyro.distributions as dist
import torch
from sklearn.datasets import load_digits
from torch import nn

import pplebm
from pplebm.scores import SCORES, conformal, metrics

UPDATES, N_TEST, N_OTHER, N_NORMAL = (4, 12, 8, 10) if SMOKE else (120, 72, 40, 59)
CHAINS = {"n_chains": 4, "n_draws": 4 if SMOKE else 10, "n_warmup": 20 if SMOKE else 100}
EVIDENCE = {"n_particles": 320}  # draws of a bridge
scratch = tempfile.TemporaryDirectory()  # run folders go here, and away with it
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## 1. Normal data in three parts
#
# To learn from; to set a threshold by; and to test on, together with the anomalies. No image is in two parts.

# %%
HELD_OUT = 4
images, kinds = load_digits(return_X_y=True)
images = (images.reshape(-1, 8, 8) / 8 - 1).astype(np.float32)  # from 0 to 16 to [-1, 1]
order = np.random.default_rng(0).permutation(np.flatnonzero(kinds != HELD_OUT))
train, normal, test = images[order[:1000]], images[order[1000:][:N_NORMAL]], images[order[1300:][:N_TEST]]
test = np.concatenate([test, images[kinds == HELD_OUT][:N_OTHER]])
labels = np.repeat([0, 1], [N_TEST, N_OTHER])
print(f"{len(train)} to learn from, {len(normal)} to set a threshold by, {len(test)} to test on")
print(f"{labels.mean():.3f} of the last are anomalies")

# %% [markdown]
# ## 2. The model and its twin


# %%
def mlp(n_inputs, n_outputs, width=64):
    return nn.Sequential(
        nn.Linear(n_inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, n_outputs)
    )


def make_program(tilted):
    torch.manual_seed(0)
    mix, decoder, f = mlp(4, 2 * 8), mlp(8, 64), mlp(8 + 4, 1)

    def model(x=None, n=None):
        pyro.module("mix", mix)
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x) if n is None else n):
            z2 = pyro.sample("z2", dist.Normal(0.0, 1.0).expand([4]).to_event(1))
            mean, scale = mix(z2).chunk(2, dim=-1)
            z1 = pyro.sample("z1", dist.Normal(mean, nn.functional.softplus(scale) + 0.2).to_event(1))
            if tilted:
                pyro.module("f", f)
                pplebm.tilt("f", f(torch.cat([z1, z2], dim=-1)).squeeze(-1), bound=8.0)
            image = decoder(z1).unflatten(-1, (8, 8))
            return pyro.sample("x", dist.Normal(image, 0.4).to_event(2), obs=x)

    return model


runs = {
    name: pplebm.fit(make_program(name == "tilted"), train, "short_run_mle", updates=UPDATES, progress=False,
                     out=f"{scratch.name}/{name}")
    for name in ("tilted", "twin")
}  # fmt: skip

# %% [markdown]
# ## 3. All scores beside each other
#
# Each is a function of the same posterior draws, by chains that accept and reject, and has a Monte Carlo error.
# `llr>1` draws $z_2$ from the posterior and $z_1$ from the *tilted* prior given $z_2$.

# %%
names = ["log_evidence", "log_joint", "likelihood", "prior", "tilt_ratio", "tempered", "llr>1"]
for name in names:
    print(f"{name:13} {SCORES[name.replace('1', 'k')].sentence}")

# %%
found = {name: run.anomaly_scores(test, names, evidence=EVIDENCE, **CHAINS) for name, run in runs.items()}
known = np.all([score.is_trusted for scores in found.values() for score in scores.values()], axis=0)
print(f"{(~known).sum()} of {len(test)} data have a score that cannot be trusted, and are left out")
tables = {
    which: metrics.table(labels[known], {n: s.value[known] for n, s in scores.items()}, n_bootstrap=200)
    for which, scores in found.items()
}
for which, table in tables.items():
    print(which)
    for row in table:
        print("  " + "  ".join(cell.rjust(20) if i else cell.ljust(13) for i, cell in enumerate(row[:4])))
share = labels[known].mean()
print(f"prevalence {share:.3f}: AUPRC of a score that knows nothing; no ranking is below {metrics.floor(share):.3f}")

assert known.mean() > 0.8
assert SMOKE or metrics.auroc(labels[known], found["tilted"]["log_evidence"].value[known]) > 0.6
assert np.allclose(found["twin"]["tilt_ratio"].value, 0.0)  # there is no tilt, and log Z is 0
assert np.isclose(metrics.auprc(labels[known], np.zeros(known.sum())), (1 + share) / 2)
assert np.isclose(metrics.average_precision(labels[known], np.zeros(known.sum())), share)

# %% [markdown]
# Areas under precision and recall depend on the share of anomalies. A table of them without prevalence and floor says
# little. And look at `tilt_ratio` of the twin, which is 0 for all data: the trapezoid rule gives it $(1 + \pi) / 2$
# at prevalence $\pi$, though it knows nothing. Average precision is not fooled by ties. Does the tilt help? The
# paired difference uses the same bootstrap samples for both models, so that it is sharper than two intervals beside
# each other.

# %%
fig, ax = plt.subplots(figsize=(7, 3))
for i, name in enumerate(names):
    if name == "tilt_ratio":
        continue  # constant for the twin
    first, second = (found[which][name].value[known] for which in ("tilted", "twin"))
    gain = metrics.difference(labels[known], first, second, n_bootstrap=200)
    ax.errorbar(gain.value, i, xerr=[[gain.value - gain.low], [gain.high - gain.value]], fmt="o", color="#d95f02")
    assert gain.low <= gain.high
ax.axvline(0, color="#7f7f7f", lw=0.8)
ax.set_yticks(range(len(names)), names)
ax.set(xlabel="AUPRC of the tilted model less that of its twin", title="paired bootstrap, 95 %")
fig.tight_layout()
plt.show()

# %% [markdown]
# ## 4. A threshold whose false alarms are known
#
# Scores of held-out normal digits give p-values. They are right whatever the model, if new normal digits are like
# these.

# %%
run, rate = runs["tilted"], 0.1
calibration = run.anomaly_scores(normal, ["log_evidence"], evidence=EVIDENCE)["log_evidence"]
calibration = calibration.value[calibration.is_trusted]
limit = conformal.threshold(calibration, rate)
mine = found["tilted"]["log_evidence"].value[known]
flags, is_anomaly = limit.flags(mine), labels[known] == 1
print(f"threshold {limit.value:.1f} nats, by {limit.n} normal digits; its rate of false alarms is {limit.low:.3f} to "
      f"{limit.high:.3f} with probability {limit.level}")  # fmt: skip
print(f"false alarms: {flags[~is_anomaly].mean():.3f} of normal digits")
print(f"found: {flags[is_anomaly].mean():.3f} of anomalies")
p_values = conformal.conformal_p_values(mine, calibration)
print(f"by Benjamini-Hochberg at 20 %: {conformal.discoveries(p_values, 0.2).sum()} of {len(mine)} called anomalous")
assert (flags == (p_values <= rate + 1e-9)).all()
assert SMOKE or flags[~is_anomaly].mean() < 0.25

fig, ax = plt.subplots(figsize=(7, 2.6))
bins = np.linspace(mine.min(), mine.max(), 40)
ax.hist(mine[~is_anomaly], bins, alpha=0.6, color="black", label="normal digits")
ax.hist(mine[is_anomaly], bins, alpha=0.6, color="#d95f02", label=f"the digit {HELD_OUT}")
ax.axvline(limit.value, color="#7570b3", label="threshold")
ax.set(xlabel=r"$-\log p(x)$, nats", ylabel="digits")
ax.legend(frameon=False)
fig.tight_layout()
plt.show()
scratch.cleanup()

# %% [markdown]
# **What to take along**
#
# - `run.anomaly_score(x)` is $-\log p(x)$; other scores by name, several at once with `run.anomaly_scores`.
# - Beside AUPRC stand prevalence, floor, an interval, and the twin.
# - Choose a score before you see the labels. The best of seven is no result.
# - On the command line: `pplebm anomaly RUN --data FILE --score NAME --normal FILE --false-alarm 0.05`.
