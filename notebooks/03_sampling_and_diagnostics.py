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
# # Sampling and diagnostics
#
# A tilted prior has no ancestral sampler, so everything rests on chains. Which ones can be trusted, how would you know,
# and what does a chain look like that is wrong? One small model whose law can be integrated numerically, and four ways
# to sample it: the short run that learning uses, MALA, HMC, and Pyro's own NUTS, read with ArviZ.

# %%
import os
import time
import warnings

import matplotlib.pyplot as plt
import numpy as np

SMOKE = os.environ.get("PPLEBM_SMOKE") == "1"  # a quick run that only checks that everything works
warnings.filterwarnings("ignore")  # ArviZ 0.x on its successor, and on Matplotlib

import arviz as az
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS, Predictive

import pplebm
from pplebm.kernels.hmc import hmc
from pplebm.kernels.langevin import langevin
from pplebm.kernels.mala import mala
from pplebm.kernels.tempering import parallel_tempering
from pplebm.sampling import chains

N_CHAINS, N_DRAWS, N_WARMUP = (8, 60, 50) if SMOKE else (40, 500, 300)
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## 1. A target that can be integrated
#
# Two layers of one dimension each. The tilt pulls z1 towards 2 and -1.5, not equally: two modes of unequal weight.


# %%
def f(z1, exp=torch.exp):
    return 2.5 * exp(-2.0 * (z1 - 2.0) ** 2) + 2.0 * exp(-2.0 * (z1 + 1.5) ** 2)


def model(x):
    with pyro.plate("data", len(x)):
        z2 = pyro.sample("z2", dist.Normal(0.0, 1.0))
        z1 = pyro.sample("z1", dist.Normal(0.8 * z2, 0.9))
        pplebm.tilt("f", f(z1))
        pyro.sample("x", dist.Normal(z1, 1.0), obs=x)


program = pplebm.Program(model, data=torch.zeros(2))
program

# %% [markdown]
# The exact density of z1 on a grid: z2 can be integrated out by hand, since the tilt does not touch it. The last column
# is the posterior given one datum, x = 0.3.

# %%
grid = np.linspace(-6, 7, 4001)
sd = np.sqrt(0.8**2 + 0.9**2)


def normalised(log_density):
    weights = np.exp(log_density - log_density.max())
    return weights / weights.sum() / (grid[1] - grid[0])


exact = {
    "prior": normalised(-0.5 * (grid / sd) ** 2 + f(grid, np.exp)),
    "posterior": normalised(-0.5 * (grid / sd) ** 2 + f(grid, np.exp) - 0.5 * (0.3 - grid) ** 2),
}
moments = {k: (np.trapezoid(grid * p, grid), np.trapezoid((grid > 0.4) * p, grid)) for k, p in exact.items()}
{k: f"mean {m:.3f}, mass right of 0.4: {r:.3f}" for k, (m, r) in moments.items()}

# %% [markdown]
# ## 2. The short run
#
# Learning draws its negative samples with a short Langevin run: 30 steps from N(0, I). Nothing is accepted or rejected,
# and nobody waits for convergence. How far off is it, and does the step size matter?

# %%
fig, axes = plt.subplots(1, 3, figsize=(10, 2.6), sharey=True)
short = {}
for ax, size in zip(axes, (0.1, 0.4, 1.2)):
    z, _ = chains.short_run(
        program,
        0,
        program.params,
        500 if SMOKE else 20_000,
        langevin(size),
        30,
        coordinates="noncentered",
    )
    short[size] = z["z1"].numpy()
    ax.fill_between(grid, exact["prior"], color="0.85", label="exact")
    ax.hist(short[size], 80, (-6, 7), density=True, histtype="step", color="#e08600", lw=1.5, label="30 steps")
    ax.set_title(f"step size {size}, mean {short[size].mean():.2f}")
axes[0].legend()
plt.show()

# %% [markdown]
# Too small a step has hardly left the start; too large a one smears the modes. In between the run is useful, and
# slightly wrong: the steps are finite, and their number as well. That is no mistake as long as it is *known*: a model
# learned with this run is a model of this run.
#
# ## 3. MALA and HMC
#
# `pplebm.sample` runs all chains of all data as one batch. MALA and HMC accept and reject every chain by itself, so
# their law is exact; during warm-up they find step size and metric.

# %%
settings = {"n_chains": N_CHAINS, "n_draws": N_DRAWS, "n_warmup": N_WARMUP, "seed": 1, "progress": False}
found, seconds = {}, {}
for name, kernel in {"MALA": mala(), "HMC": hmc()}.items():
    began = time.perf_counter()
    found[name] = pplebm.sample(program, kernel, **settings)
    seconds[name] = time.perf_counter() - began
trees = {name: pplebm.to_arviz(prior=draws) for name, draws in found.items()}
az.summary(trees["HMC"].prior, kind="diagnostics")

# %%
for name, draws in found.items():
    means = draws["z1"].mean(1)
    error = means.std(ddof=1) / np.sqrt(N_CHAINS)
    print(
        f"{name}: mean {means.mean():.3f} ± {error:.3f} (exact {moments['prior'][0]:.3f}), "
        f"acceptance {draws.stats['accept_prob'].mean():.2f}, {len(pplebm.diagnose(draws).verdict)} complaints"
    )
    assert SMOKE or abs(means.mean() - moments["prior"][0]) < 5 * error

# %% [markdown]
# The prior is sampled with its tilt by construction, since the chain moves in the tilted density. ArviZ gets the group
# `base_prior` as well, the same program with its tilt ignored, to see what the tilt does.

# %%
fig, ax = plt.subplots(figsize=(6, 2.8))
ax.fill_between(grid, exact["prior"], color="0.85", label="exact, tilted")
ax.hist(found["HMC"]["z1"].ravel(), 80, (-6, 7), density=True, histtype="step", color="#0072b2", lw=1.5, label="HMC")
base = trees["HMC"].base_prior["z1"].values.ravel()
ax.hist(base, 40, (-6, 7), density=True, histtype="step", color="0.4", label="base")
ax.legend()
plt.show()
assert SMOKE or found["HMC"]["z1"].std() > base.std() + 0.2

# %% [markdown]
# ## 4. NUTS, from the host
#
# A tilted program is still an ordinary Pyro program, so Pyro's own NUTS runs on it. Here on one datum, x = 0.3, beside
# ours on the same posterior.

# %%
pyro.set_rng_seed(0)
began = time.perf_counter()
mcmc = MCMC(NUTS(model), num_samples=50 if SMOKE else 500, warmup_steps=50 if SMOKE else 200, disable_progbar=True)
mcmc.run(torch.tensor([0.3]))
seconds["NUTS of Pyro"] = time.perf_counter() - began
nuts = mcmc.get_samples()["z1"][:, 0].numpy()
posterior = pplebm.sample(program, hmc(), torch.tensor([0.3]), **settings)
ours = posterior["z1"][:, :, 0]
per_second = {
    "NUTS of Pyro": float(az.ess(nuts[None])) / seconds["NUTS of Pyro"],
    "HMC, 40 chains at once": float(az.ess(ours)) / posterior.facts["seconds"],
}
print(f"exact mean {moments['posterior'][0]:.3f}; NUTS {nuts.mean():.2f}; HMC {ours.mean():.3f}")
print("effective draws per second:", {k: round(v) for k, v in per_second.items()})
error = ours.mean(1).std(ddof=1) / np.sqrt(N_CHAINS)
assert SMOKE or abs(ours.mean() - moments["posterior"][0]) < 5 * error
assert SMOKE or per_second["HMC, 40 chains at once"] > per_second["NUTS of Pyro"]

# %% [markdown]
# ## 5. What a biased chain looks like
#
# Like a good one. Here is unadjusted Langevin at a step size that is too large, run as long as HMC was, and what R-hat
# has to say about it.

# %%
biased = pplebm.sample(program, langevin(1.2), **settings)
rows = {"HMC": found["HMC"], "Langevin, s = 1.2": biased}
for name, draws in rows.items():
    z1 = draws["z1"]
    print(f"{name:18s} R-hat {float(az.rhat(z1)):.3f}   sd {z1.std():.3f}   mass right of 0.4 {(z1 > 0.4).mean():.3f}")
exact_sd = np.sqrt(np.trapezoid((grid - moments["prior"][0]) ** 2 * exact["prior"], grid))
print(f"{'exact':18s}               sd {exact_sd:.3f}   mass right of 0.4 {moments['prior'][1]:.3f}")
assert SMOKE or float(az.rhat(biased["z1"])) < 1.02
assert SMOKE or abs(biased["z1"].std() - found["HMC"]["z1"].std()) > 0.05

# %% [markdown]
# R-hat compares chains with each other. All of these chains agree, on the wrong law, and ESS is content as well. The
# ranks give nothing away either. What does is a second sampler: set the chain beside an adjusted one. That is what
# `pplebm diagnose RUN` does for a learned model.

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 2.8))
for ax, (name, draws) in zip(axes, rows.items()):
    order = draws["z1"].ravel().argsort().argsort().reshape(draws["z1"].shape)
    for chain in order[:8]:
        ax.stairs(np.histogram(chain, 10, (0, order.size))[0] * 10 / N_DRAWS, lw=0.8)
    ax.set_title(f"{name}: ranks of 8 chains")
    ax.set_ylim(0, 2.5)
plt.show()

fig, ax = plt.subplots(figsize=(6, 2.8))
ax.fill_between(grid, exact["prior"], color="0.85", label="exact")
ax.hist(
    biased["z1"].ravel(), 80, (-6, 7), density=True, histtype="step", color="#cc3311", lw=1.5, label="Langevin, 1.2"
)
ax.legend()
plt.show()

# %% [markdown]
# ## 6. Modes that a chain cannot leave
#
# Make the tilt four times as strong, and HMC stays where it began. Now R-hat *does* see it, if the chains begin in
# different places. Parallel tempering runs every chain at several strengths of the tilt, and lets them swap.


# %%
def stronger(x):
    with pyro.plate("data", len(x)):
        z2 = pyro.sample("z2", dist.Normal(0.0, 1.0))
        z1 = pyro.sample("z1", dist.Normal(0.8 * z2, 0.9))
        pplebm.tilt("f", 4.0 * f(z1))
        pyro.sample("x", dist.Normal(z1, 1.0), obs=x)


strong = pplebm.Program(stronger, data=torch.zeros(2))
truth = normalised(-0.5 * (grid / sd) ** 2 + 4.0 * f(grid, np.exp))
right = np.trapezoid((grid > 0.4) * truth, grid)
kernels = {
    "HMC": hmc(),
    "tempered": parallel_tempering(hmc(), (0.0, 0.15, 0.35, 0.6, 1.0)),
}
for name, kernel in kernels.items():
    draws = pplebm.sample(strong, kernel, **settings)
    share, by_chain = (draws["z1"] > 0.4).mean(), (draws["z1"] > 0.4).mean(1)
    r_hat = float(az.rhat(draws["z1"]))
    print(
        f"{name:9s} right of 0.4: {share:.2f} (exact {right:.2f}), R-hat {r_hat:.2f}, "
        f"chains that never crossed: {np.isin(by_chain, (0, 1)).mean():.0%}"
    )
    assert SMOKE or (r_hat > 1.05) == (name == "HMC")
assert SMOKE or abs(share - right) < 5 * by_chain.std(ddof=1) / np.sqrt(N_CHAINS)

# %% [markdown]
# ## 7. Predictive draws
#
# Forward simulation ignores a tilt, everywhere. `pplebm.predictive` starts from draws of a chain instead.

# %%
pyro.set_rng_seed(0)
theirs = Predictive(lambda: model(torch.zeros(1)), num_samples=2000, return_sites=["z1"])()["z1"].mean().item()
x = pplebm.predictive(found["HMC"])["x"]
print(
    f"mean of z1 by Pyro's Predictive: {theirs:.2f} (the base); mean of x by ours: {x.mean():.3f}; exact: "
    f"{moments['prior'][0]:.3f}"
)
assert SMOKE or abs(x.mean() - moments["prior"][0]) < 0.1

# %% [markdown]
# ## 8. Everything in one container
#
# Three data, each with its own posterior, own step size, own acceptance; axes named after the plate.

# %%
data = torch.tensor([-2.0, 0.3, 3.0])
tree = pplebm.to_arviz(pplebm.sample(program, hmc(), data, **settings), found["HMC"])
tree

# %%
az.summary(tree.posterior, var_names=["z1"], round_to=2)

# %%
az.plot_forest(tree, var_names=["z1"], combined=True, figsize=(6, 2))
plt.show()

# %% [markdown]
# The log likelihood in the container is that of the data given the latents, by datum. The tilt is a factor of the prior
# and stays out of it.

# %%
likelihood = tree.log_likelihood["x"]
z1 = tree.posterior["z1"].sel(draw=likelihood.draw).values
expected = -0.5 * (data.numpy() - z1) ** 2 - 0.5 * np.log(2 * np.pi)
assert np.allclose(likelihood.values, expected, atol=1e-4)
likelihood.dims

# %% [markdown]
# ## What to take along
#
# - Use `pplebm.sample` with `hmc` for the density, and the short run for what learning made.
# - R-hat finds chains that disagree. It cannot find chains that agree on something false; a second sampler can.
# - Start chains in different places, look at `pplebm.diagnose(draws).verdict`, and temper when modes stay apart.
