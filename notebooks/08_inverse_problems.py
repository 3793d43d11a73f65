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
# # Inverse problems
#
# An instrument shows a part of an image, or a blur of it, or moduli alone. A model that has learned images says what
# the image may have been: all of them, each as often as it is probable, and not one best guess. The generator and its
# tilt are those of a run; the instrument is put before it, and nothing is learned again.
#
# $$z \sim \tfrac1Z e^{f(z)} N(z; 0, I), \qquad x = g(z), \qquad y \sim N(A(x), \sigma^2 I)$$

# %%
import os
import tempfile
import warnings

import matplotlib.pyplot as plt
import numpy as np

SMOKE = os.environ.get("PPLEBM_SMOKE") == "1"  # a quick run that only checks that everything works
warnings.filterwarnings("ignore", message="IProgress")  # tqdm's remark on progress bars in notebooks

import arviz
from scipy.special import logsumexp
from sklearn.datasets import load_digits

import pplebm
from pplebm.learning.flow_draws import sample_flow
from pplebm.networks.operators import heat, measured

UPDATES, FLOW_UPDATES = (6, 10) if SMOKE else (800, 400)
CHAINS = {"n_chains": 4, "n_draws": 10 if SMOKE else 400, "n_warmup": 20 if SMOKE else 300, "progress": False}
scratch = tempfile.TemporaryDirectory()  # run folders go here, and away with it
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
page = pplebm.load("inverse_problem")

# %% [markdown]
# ## 1. A generator

# %%
images = load_digits().images / 8.0 - 1.0
images = images[np.random.default_rng(0).permutation(len(images))].astype(np.float32)
train, truth = images[200:], images[:8]
run = pplebm.fit("latent_ebm", train, "variational_joint", out=f"{scratch.name}/run", updates=UPDATES, seed=0,
                 scaling="none", held_out_fraction=0.0, progress=False)  # fmt: skip
print(f"{len(train)} digits learned from; {len(truth)} others will be looked at through instruments")

# %% [markdown]
# ## 2. Four instruments
#
# `inverse_problem` is a page like any other. Its parameters are named as those of `latent_ebm`, so that
# `with_params(run.params)` puts the learned generator in. The noise of y is 0.1; the model's own σ of 0.3 for pixels,
# as far as it reaches y, is added to it.

# %%
INSTRUMENTS = {
    "mask": {"operator": "mask", "share": 0.5},
    "blur": {"operator": "blur", "spread": 1.0},
    "downsample": {"operator": "downsample", "factor": 2},
    "projection": {"operator": "projection", "share": 0.25},
}
rng = np.random.default_rng(1)
sigmas, seen, programs, draws = {}, {}, {}, {}
for name, settings in INSTRUMENTS.items():
    instrument = page.instrument(page.Hyper()._replace(**settings))
    some = train[:400]
    moved = measured(instrument, some + 0.3 * rng.normal(size=some.shape)) - measured(instrument, some)
    sigmas[name] = float((0.1**2 + (moved**2).mean()) ** 0.5)
    clean = measured(instrument, truth)
    seen[name] = clean + 0.1 * rng.normal(size=clean.shape)
    model = pplebm.bind(page, shape={"y": clean.shape[1:]}, sigma=sigmas[name], **settings)
    program = pplebm.Program(model, data={"y": seen[name]}).with_params(run.params)
    programs[name] = program.with_coordinates("noncentered")
    draws[name] = pplebm.sample(programs[name], data={"y": seen[name]}, seed=0, **CHAINS)
    print(f"{name:11} {clean.shape[1]:3} numbers of 64 pixels, σ of y {sigmas[name]:.2f}")

# %%
fig, axes = plt.subplots(1 + 3 * len(INSTRUMENTS), 8, figsize=(7, 11.5))
show = lambda ax, a, low=-1, high=1: ax.imshow(a, cmap="gray", vmin=low, vmax=high)
for i, image in enumerate(truth):
    show(axes[0, i], image)
axes[0, 0].set_ylabel("truth", rotation=0, ha="right")
for k, name in enumerate(INSTRUMENTS):
    x = draws[name]["x"].reshape(-1, *truth.shape)
    for i in range(8):
        show(axes[1 + 3 * k, i], x[:, i].mean(0))
        show(axes[2 + 3 * k, i], x[:, i].std(0), 0, 0.7)
        show(axes[3 + 3 * k, i], x[-1, i])
    for row, words in enumerate(("mean", "deviation", "a draw")):
        axes[1 + 3 * k + row, 0].set_ylabel(f"{name}: {words}", rotation=0, ha="right", va="center")
for ax in axes.ravel():
    ax.set_xticks([])
    ax.set_yticks([])
fig.tight_layout(pad=0.3)
plt.show()

# %% [markdown]
# Means are smooth where the instrument says little; draws are digits. The deviation tells where one may not believe
# the mean.
#
# ## 3. Is it right?
#
# Chains that disagree would show in $\hat R$. Intervals of 90 % hold about 90 % of the pixels, if the generator is
# right; for digits it has not seen, with its own σ for pixels added.

# %%
mean_image = np.broadcast_to(train.mean(0), truth.shape)
print("instrument    error   of the mean image   pixels in 90 % intervals   largest R-hat of z")
for name in INSTRUMENTS:
    x = draws[name]["x"].reshape(-1, *truth.shape)
    r_hat = float(arviz.rhat(pplebm.to_arviz(draws[name]).posterior["z1"])["z1"].max())
    pixels = x + 0.3 * rng.normal(size=x.shape)
    low, high = np.quantile(pixels, (0.05, 0.95), axis=0)
    inside = ((truth > low) & (truth < high)).mean()
    errors = [np.sqrt(((guess - truth) ** 2).mean()) for guess in (x.mean(0), mean_image)]
    print(f"{name:11} {errors[0]:7.2f} {errors[1]:12.2f} {inside:21.2f} {r_hat:22.2f}")
    assert SMOKE or (errors[0] < errors[1] and inside > 0.8)
    assert SMOKE or r_hat < 1.05

# %% [markdown]
# ## 4. A flow instead of chains
#
# `sample_flow` fits a normalizing flow to the posterior of every datum, draws from it, and weighs the draws by what
# the posterior really is. Where k-hat is below 0.7 the weights make up for what the flow misses. It costs learning,
# and then draws are free.

# %%
name = "projection"
flow = sample_flow(programs[name], {"y": seen[name][:4]}, n_draws=400, n_updates=FLOW_UPDATES, seed=0)
weights = np.exp(flow.log_weights[0] - logsumexp(flow.log_weights[0], axis=0))  # (draws, data)
by_flow = np.einsum("sn,sn...->n...", weights, flow.values["x"][0])
by_chains = draws[name]["x"].reshape(-1, *truth.shape)[:, :4].mean(0)
print("k-hat by datum:", np.round(flow.k_hat, 2))
print("means by flow and by chains differ by", np.round(np.sqrt(((by_flow - by_chains) ** 2).mean((1, 2))), 3))
assert SMOKE or np.sqrt(((by_flow - by_chains) ** 2).mean()) < 0.1

# %% [markdown]
# ## 5. Where a flow is not enough
#
# An instrument that sees moduli alone cannot tell a signal from its mirror image. Two latents, a linear generator, and
# three moduli of its Fourier transform: the posterior has modes that lie opposite to each other, and here quadrature
# knows it exactly. A flow that is fitted by the reverse divergence settles in one of them, and k-hat, which sees its
# own draws alone, cannot know. Compare a few data with chains.

# %%
small = {"operator": "phase", "image": (4,), "latent_dim": 2, "depth": 0, "sigma": 0.3, "tilted": False}
matrix = np.random.default_rng(3).normal(size=(4, 2)).astype(np.float32)
y = measured(page.instrument(page.Hyper()._replace(**small)), np.array([[1.2, -0.4]]) @ matrix.T).astype(np.float32)
program = pplebm.Program(pplebm.bind(page, shape={"y": y.shape[1:]}, **small), data={"y": y})


def with_generator(program, matrix):
    """The program whose generator is x = matrix z."""
    ppl = program.ppl
    linear = {name: ppl.asarray(matrix) if name.endswith("weight_0") else 0.0 * a for name, a in program.params.items()}
    return program.with_params(linear).with_coordinates("noncentered")


program = with_generator(program, matrix)
many = CHAINS | {"n_chains": 100, "n_draws": 5 if SMOKE else 20}  # chains stay in their mode: its share is theirs
chains = pplebm.sample(program, data={"y": y}, seed=0, **many)
one = sample_flow(program, {"y": y}, n_draws=400, n_updates=FLOW_UPDATES, seed=1)

# %%
line = np.linspace(-3.5, 3.5, 141)
plane = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2).astype(np.float32)
rows, ppl = {"y": np.repeat(y, len(plane), 0)}, program.ppl
log_p = ppl.to_numpy(program.log_joint(program.params, {"z1": ppl.asarray(plane)}, program.data(rows))).astype(float)
exact = np.exp(log_p - logsumexp(log_p))
fig, axes = plt.subplots(1, 3, figsize=(9, 3), sharex=True, sharey=True)
axes[0].contourf(line, line, exact.reshape(141, 141), levels=12)
clouds = {"chains": chains["z1"].reshape(-1, 2), "flow": one.values["z1"].reshape(-1, 2)}
for ax, z in zip(axes[1:], clouds.values(), strict=True):
    ax.scatter(z[:, 0], z[:, 1], s=3, alpha=0.4)
for ax, words in zip(axes, ("quadrature", *clouds), strict=True):
    ax.set_title(words)
plt.show()
share = {words: float((z[:, 0] > 0).mean()) for words, z in clouds.items()} | {
    "exact": float(exact[plane[:, 0] > 0].sum())
}
print(
    "share of z to the right:", {words: round(value, 2) for words, value in share.items()}, "k-hat", one.k_hat.round(2)
)
assert SMOKE or (abs(share["chains"] - share["exact"]) < 0.15 and abs(share["flow"] - share["exact"]) > 0.3)

# %% [markdown]
# ## 6. A physical law as the instrument
#
# What was the temperature of a rod a while ago? The heat equation forgets fine detail at once, and the prior supplies
# what is known of it. `heat(n, time)` is the exact solution operator on a grid, by its sine modes, so that the only
# errors are those of the data.

# %%
n, time = 32, 0.01
place = np.arange(1, n + 1) / (n + 1)
modes = np.sin(np.pi * np.outer(place, np.arange(1, 9))) / np.arange(1, 9)  # a smooth prior: eight modes that decay
start = modes @ np.random.default_rng(5).normal(size=8)
settings = {"operator": "heat", "image": (n,), "spread": 100 * time, "latent_dim": 8, "depth": 0, "sigma": 0.02,
            "tilted": False}  # fmt: skip
later = heat(n, time) @ start
y = (later + 0.02 * rng.normal(size=n))[None]
program = pplebm.Program(pplebm.bind(page, shape={"y": (n,)}, **settings), data={"y": y.astype(np.float32)})
program = with_generator(program, modes.astype(np.float32))
found = pplebm.sample(program, data={"y": y}, seed=0, **CHAINS)["x"].reshape(-1, n)
forward = heat(n, time) @ modes
precision = np.eye(8) + forward.T @ forward / 0.02**2
exact_mean = modes @ np.linalg.solve(precision, forward.T @ y[0] / 0.02**2)
exact_sd = np.sqrt(np.einsum("ij,jk,ik->i", modes, np.linalg.inv(precision), modes))
low, high = np.quantile(found, (0.05, 0.95), axis=0)
fig, ax = plt.subplots(figsize=(7, 3))
ax.fill_between(place, low, high, alpha=0.3, label="90 % of the posterior by chains")
ax.plot(place, start, "k", label="the rod at the beginning")
ax.plot(place, y[0], ".", color="#d95f02", label="what is measured later")
ax.plot(place, np.linalg.lstsq(heat(n, time), y[0], rcond=None)[0].clip(-3, 3), ":", color="gray",
        label="inverted without a prior, cut at ±3")  # fmt: skip
ax.set_xlabel("place")
ax.set_ylabel("temperature")
ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
plt.show()
print("mean and deviation by chains differ from the exact ones by at most",
      np.abs(found.mean(0) - exact_mean).max().round(3), np.abs(found.std(0) - exact_sd).max().round(3))  # fmt: skip
assert SMOKE or (np.abs(found.mean(0) - exact_mean) < 5 * exact_sd / 10).all()
assert SMOKE or (np.abs(found.std(0) - exact_sd) < 0.3 * exact_sd).all()

# %% [markdown]
# Where to go on: [models/inverse_problem.py](../models/inverse_problem.py) is the page, copy it (`pplebm copy
# inverse_problem mine.py`) to write an operator of your own; [models/README.md](../models/README.md) has errors and
# coverage of all six operators.
