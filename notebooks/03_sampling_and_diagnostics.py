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
# `pplebm.sample(program, data=...)` is meant to be left alone: it chooses where chains start, how far they go and in
# which metric. This notebook uses it on a regression whose columns come as they are, asks `pplebm.diagnose` about a
# run that went well and about some that did not, goes on with a finished run, and writes one to disk while it is made.
# The second half is about tilted models: short runs, wrong chains that look right, modes, and draws of a guide.

# %%
import os
import tempfile
import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

SMOKE = os.environ.get("PPLEBM_SMOKE") == "1"  # a quick run that only checks that everything works
warnings.filterwarnings("ignore")  # ArviZ 0.x on its successor, and on Matplotlib

import arviz as az
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS

import pplebm
from pplebm.guides.guide import Guide
from pplebm.kernels.hmc import hmc
from pplebm.kernels.langevin import langevin
from pplebm.kernels.mams import mams
from pplebm.kernels.tempering import parallel_tempering
from pplebm.sampling import chains

torch.set_default_dtype(torch.float64)  # calendar years have seven digits of nothing to say in float32
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## 1. A regression, columns as they come
#
# Blood pressure on calendar year and age, 250 people. Nothing is centered or rescaled and the priors say nothing, so
# intercept and slope of the year have a correlation of nearly -1, and scales a thousand apart. Textbooks would change
# the coordinates first.

# %%
rng = np.random.default_rng(0)
n = 250
people = pd.DataFrame({"year": rng.integers(1990, 2021, n).astype(float), "age": rng.normal(45, 12, n).round()})
people["pressure"] = (-700 + 0.4 * people.year + 0.5 * people.age + rng.normal(0, 9, n)).round(1)


def regression(year, age, pressure=None):
    a = pyro.sample("intercept", dist.Normal(0.0, 1e4))
    b = pyro.sample("b_year", dist.Normal(0.0, 100.0))
    c = pyro.sample("b_age", dist.Normal(0.0, 100.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(100.0))
    with pyro.plate("people", len(year)):
        return pyro.sample("pressure", dist.Normal(a + b * year + c * age, sigma), obs=pressure)


linear = pplebm.Program(regression, data=people)
counts = {"n_chains": 4, "n_draws": 100 if SMOKE else 500, "n_warmup": 100 if SMOKE else 300, "progress": False}
posterior = pplebm.sample(linear, data=people, **counts)
tree = pplebm.to_arviz(posterior)
az.summary(tree.posterior)

# %% [markdown]
# R-hat compares the chains with each other, and is 1 where they agree. The effective sample size (ESS) is the number of
# independent draws that would know the mean, or the tails, as well as these do. With priors that say nothing the
# posterior means are those of least squares:

# %%
columns = np.column_stack([np.ones(n), people.year, people.age])
least_squares = np.linalg.lstsq(columns, people.pressure, rcond=None)[0]
for row, exact in zip(pplebm.diagnose(posterior).rows, least_squares):
    print(f"{row.name:9s} {row.mean:9.4f} ± {row.mcse_mean:.4f}   least squares {exact:9.4f}   R-hat {row.r_hat:.3f}")
    assert SMOKE or (abs(row.mean - exact) < 5 * row.mcse_mean and row.r_hat < 1.01)
corner = np.corrcoef(posterior["intercept"].ravel(), posterior["b_year"].ravel())[0, 1]
print(f"correlation of intercept and b_year {corner:.6f}; condition of the columns {np.linalg.cond(columns):.1e}")
assert SMOKE or corner < -0.999
assert SMOKE or not pplebm.diagnose(posterior).verdict

# %% [markdown]
# ## 2. What a gradient buys
#
# Nearly all time goes into gradients of the log density, so kernels are compared by ESS per gradient. The default,
# `adaptive_hmc`, learns a metric (here a full covariance matrix) and the length of its trajectories while it warms up;
# `mams` does as well and moves at constant speed. `hmc(n_leapfrog=1)` takes one step at a time in a diagonal metric,
# which is what too short a trajectory looks like, even from the good start that it is given here.

# %%
arrived = {site: torch.tensor(a[:, -1]) for site, a in posterior.latents.items()}
found = {
    "adaptive_hmc": posterior,
    "mams": pplebm.sample(linear, mams(), people, **counts),
    "hmc, 1 step": pplebm.sample(linear, hmc(n_leapfrog=1), people, init=arrived, **counts),
}


def worth(draws):
    """The smallest of all effective sample sizes, and the same for every thousand gradients after warm-up."""
    ess = min(min(row.ess_bulk, row.ess_tail) for row in pplebm.diagnose(draws, n_elsewhere=0).rows)
    return ess, 1000 * ess / draws.stats["num_steps"].sum()


table = pd.DataFrame({name: worth(draws) for name, draws in found.items()}, index=["ESS", "ESS / 1000 gradients"]).T
assert SMOKE or table.loc["adaptive_hmc"].iloc[1] > 30 * table.loc["hmc, 1 step"].iloc[1]
table.round(1)

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 2.8), sharey=True)
for ax, name in zip(axes, ("adaptive_hmc", "hmc, 1 step")):
    for chain in found[name]["b_year"]:
        ax.plot(chain, lw=0.8)
    ax.set(title=f"{name}: b_year by chain", xlabel="draw")
plt.show()

# %% [markdown]
# ## 3. A verdict, and what it rests on
#
# `diagnose` says what is wrong in sentences, each with its figure and what to do. Silence is good news; an R-hat that
# is a bit large by chance, or a few scattered divergences, are no cause of anything.

# %%
for name, draws in found.items():
    told = pplebm.diagnose(draws)
    print(f"{name}: {', '.join(told.causes) or 'nothing is wrong'}", *told.verdict, sep="\n   ")
assert SMOKE or "trajectories" in pplebm.diagnose(found["hmc, 1 step"]).causes

# %% [markdown]
# | cause | what is wrong | remedy |
# |---|---|---|
# | stuck | chains that do not move | smaller steps, another start |
# | start | all or some chains are where no mass is | `init=`, a draw of the best chain |
# | warm-up | chains were still under way when the draws began | `n_warmup=` |
# | modes, elsewhere | chains in different modes; a mode unseen by all | tempering, a model that tells them apart |
# | trajectories, steps | a slow walk; proposals that are nearly all refused | another kernel, longer trajectories |
# | draws | chains are well, and too few | go on with `resume=` |
# | divergences, energy | a funnel, a heavy tail | noncentered coordinates, another parametrisation |
# | rounding | float32 cannot tell the draws apart | float64, or rescaled data |
#
# Chains that never move, or that lag so far behind the others of their datum that their place can have no mass, are
# moved to where another chain is, during warm-up only, and counted: a pooled acceptance rate would hide them. Here none
# was. Most gradients went into warm-up, before the metric was known.

# %%
posterior.facts

# %% [markdown]
# ## 4. Going on, and to disk
#
# A finished run is extended by asking for more draws. There is no second warm-up, and the first draws are those of
# before, bit for bit.

# %%
longer = pplebm.sample(linear, data=people, resume=posterior, **counts | {"n_draws": 2 * counts["n_draws"]})
print(f"ESS {worth(posterior)[0]:.0f}, then {worth(longer)[0]:.0f}")
assert np.array_equal(longer["b_age"][:, : posterior.n_draws], posterior["b_age"])
assert SMOKE or worth(longer)[0] > 1.4 * worth(posterior)[0]

# %% [markdown]
# `out=` puts draws into a netCDF file block by block, so that memory does not grow with their number. ArviZ opens the
# file, also while the run goes on in another process; if that is killed, `resume="draws.nc"` goes on with what is
# there. `rows_at_once=` bounds the other dimension, chains times data that run together.

# %%
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "draws.nc")
    pplebm.sample(linear, data=people, out=path, **counts)
    size, opened = os.path.getsize(path), az.from_netcdf(path)
    print(f"{size / 1e6:.1f} MB; groups", ", ".join(str(group).strip("/") for group in opened.groups() if group != "/"))
    assert np.array_equal(opened.posterior["b_age"].values, posterior["b_age"])
    opened.close()

# %% [markdown]
# ## 5. A tilted target that can be integrated
#
# A tilted prior has no ancestral sampler, so everything rests on chains, the prior as well. Two layers of one dimension
# each; the tilt pulls z1 towards 2 and -1.5, not equally: two modes of unequal weight. z2 can be integrated out by
# hand, since the tilt does not touch it, and z1 on a grid.


# %%
def f(z1, exp=torch.exp):
    return 2.5 * exp(-2.0 * (z1 - 2.0) ** 2) + 2.0 * exp(-2.0 * (z1 + 1.5) ** 2)


def model(x, strength=1.0):
    with pyro.plate("data", len(x)):
        z2 = pyro.sample("z2", dist.Normal(0.0, 1.0))
        z1 = pyro.sample("z1", dist.Normal(0.8 * z2, 0.9))
        pplebm.tilt("f", strength * f(z1))
        pyro.sample("x", dist.Normal(z1, 1.0), obs=x)


grid = np.linspace(-6, 7, 4001)
sd = np.sqrt(0.8**2 + 0.9**2)


def exact(strength=1.0, x=None):
    """Density of z1 on the grid, of the prior or of the posterior of one datum, its mean and the mass right of 0.4."""
    log_density = -0.5 * (grid / sd) ** 2 + strength * f(grid, np.exp) - (0.0 if x is None else 0.5 * (x - grid) ** 2)
    density = np.exp(log_density - log_density.max())
    density /= np.trapezoid(density, grid)
    return density, np.trapezoid(grid * density, grid), np.trapezoid((grid > 0.4) * density, grid)


def error(draws):
    """Standard error of the mean of z1, from the means of the chains, by datum where there is more than one."""
    means = draws["z1"].mean(1)
    return means.std(0, ddof=1) / np.sqrt(len(means))


program = pplebm.Program(model, data=torch.zeros(2))
many = {"n_chains": 8 if SMOKE else 40, "n_draws": 60 if SMOKE else 400, "n_warmup": 60 if SMOKE else 300,
        "seed": 1, "progress": False}  # fmt: skip
prior = pplebm.sample_prior(program, **many)
given = torch.tensor([-2.0, 0.3, 3.0])
posteriors = pplebm.sample(program, data=given, **many)
print(f"prior: {prior['z1'].mean():.3f} ± {error(prior):.3f}, exact {exact()[1]:.3f}")
for i, x in enumerate(given.tolist()):
    mean, off, step = (
        posteriors["z1"][..., i].mean(),
        error(posteriors)[i],
        posteriors.stats["step_size"][..., i].mean(),
    )
    print(f"posterior of x = {x:4.1f}: {mean:.3f} ± {off:.3f}, exact {exact(x=x)[1]:.3f}, step size {step:.2f}")
    assert SMOKE or abs(mean - exact(x=x)[1]) < 5 * off
assert SMOKE or abs(prior["z1"].mean() - exact()[1]) < 5 * error(prior)

# %% [markdown]
# All chains of all data run as one batch, and every datum has a posterior, a step size and a metric of its own. ArviZ
# gets it all in one container, with `base_prior` beside the prior: the same program with its tilt ignored. The
# conditional log likelihood is that of the data given the latents; the tilt is a factor of the prior and stays out
# of it.

# %%
tree = pplebm.to_arviz(posteriors, prior)
likelihood = tree.conditional_log_likelihood["x"]
z1 = tree.posterior["z1"].sel(draw=likelihood.draw).values
assert np.allclose(likelihood.values, -0.5 * (given.numpy() - z1) ** 2 - 0.5 * np.log(2 * np.pi))
fig, ax = plt.subplots(figsize=(6, 2.8))
ax.fill_between(grid, exact()[0], color="0.85", label="exact, tilted")
for values, color, label in (
    (prior["z1"], "#0072b2", "chains"),
    (tree.base_prior["z1"].values, "0.4", "base, tilt ignored"),
):
    ax.hist(values.ravel(), 60, (-6, 7), density=True, histtype="step", color=color, lw=1.5, label=label)
ax.set_xlabel("z1")
ax.legend()
plt.show()
az.summary(tree.posterior, var_names=["z1"], round_to=2)

# %% [markdown]
# ## 6. NUTS, from the host
#
# A tilted program is still an ordinary Pyro program, so Pyro's own NUTS runs on it: here on one datum, one chain. The
# model is run once for every gradient, which makes them easy to count.

# %%
n_gradients = 0


def counted(x):
    global n_gradients
    n_gradients += 1
    return model(x)


pyro.set_rng_seed(0)
began = time.perf_counter()
mcmc = MCMC(NUTS(counted), num_samples=50 if SMOKE else 300, warmup_steps=50 if SMOKE else 150, disable_progbar=True)
mcmc.run(given[1:2])
seconds = time.perf_counter() - began
nuts = mcmc.get_samples()["z1"][:, 0].numpy()
ours = pplebm.sample(program, data=given[1:2], **many)
n_ours = ours.stats["num_steps"].sum() + ours.facts["n_gradients_warmup"]
print("ESS of z1 for 1000 gradients, those of warm-up included, and per second")
for name, draws, n_all, passed in (
    ("NUTS of Pyro", nuts[None], n_gradients, seconds),
    (f"pplebm, {many['n_chains']} chains", ours["z1"][..., 0], n_ours, ours.facts["seconds"]),
):
    ess = float(az.ess(draws))
    print(f"{name:18s} {1000 * ess / n_all:6.1f} {ess / passed:8.0f}")
assert SMOKE or ess / passed > float(az.ess(nuts[None])) / seconds

# %% [markdown]
# ## 7. The short run, and what a biased chain looks like
#
# Learning draws its negative samples with a short Langevin run: 30 steps from N(0, I), nothing accepted or rejected.
# Too small a step has hardly left the start; too large a one smears the modes. In between the run is useful, and
# slightly wrong, which is no mistake as long as it is *known*: a model learned with this run is a model of this run.

# %%
fig, axes = plt.subplots(1, 3, figsize=(10, 2.6), sharey=True)
rows = 500 if SMOKE else 20_000
for ax, size in zip(axes, (0.1, 0.4, 1.2)):
    z, _ = chains.short_run(program, 0, program.params, rows, langevin(size), 30, coordinates="noncentered")
    ax.fill_between(grid, exact()[0], color="0.85", label="exact")
    ax.hist(z["z1"].numpy(), 80, (-6, 7), density=True, histtype="step", color="#e08600", lw=1.5, label="30 steps")
    ax.set_title(f"step size {size}, mean {z['z1'].mean():.2f}")
axes[2].legend(bbox_to_anchor=(1.0, 1.0), loc="upper left")
plt.show()

# %% [markdown]
# Now the large step again, run as long as the exact chains above. R-hat is content, more so than with the exact ones,
# since all chains agree, on the wrong law. What tells is a second sampler: set the chain beside an adjusted one. That
# is what `pplebm diagnose RUN` does for a learned model.

# %%
biased = pplebm.sample(program, langevin(1.2), **many)
grid_sd = np.sqrt(np.trapezoid((grid - exact()[1]) ** 2 * exact()[0], grid))
for name, draws in {"adaptive_hmc": prior["z1"], "Langevin, s = 1.2": biased["z1"]}.items():
    print(
        f"{name:18s} R-hat {float(az.rhat(draws)):.3f}   sd {draws.std():.3f}   right of 0.4 {(draws > 0.4).mean():.3f}"
    )
print(f"{'exact':18s}               sd {grid_sd:.3f}   right of 0.4 {exact()[2]:.3f}")
assert SMOKE or (float(az.rhat(biased["z1"])) < 1.02 and abs(biased["z1"].std() - grid_sd) > 0.05)

# %% [markdown]
# ## 8. Modes that a chain cannot leave
#
# Make the tilt four times as strong, and a chain stays in the mode it began in. Chains that began in different places
# disagree, and R-hat sees it. If all begin in one mode they agree, and R-hat is blind: so `diagnose` sends out a few
# short chains from elsewhere. Parallel tempering runs every chain at several strengths of the tilt, and lets them swap.

# %%
strong = pplebm.Program(lambda x: model(x, strength=4.0), data=torch.zeros(2))
right = {"z2": torch.ones(many["n_chains"]), "z1": torch.full((many["n_chains"],), 2.0)}
tempered = parallel_tempering(hmc(4), (0.0, 0.15, 0.35, 0.6, 1.0))
runs = {
    "from everywhere": pplebm.sample_prior(strong, **many),
    "all from z1 = 2": pplebm.sample_prior(strong, init=right, **many),
    "tempered": pplebm.sample_prior(strong, tempered, **many | {"n_draws": 300}),
}
told = {name: pplebm.diagnose(draws) for name, draws in runs.items()}
for name, draws in runs.items():
    share, r_hat = (draws["z1"] > 0.4).mean(), float(az.rhat(draws["z1"]))
    print(f"{name}: right of 0.4 {share:.2f} (exact {exact(4.0)[2]:.2f}), R-hat {r_hat:.2f}")
    print("  ", *told[name].verdict or ["nothing is wrong"], end="\n\n")
by_chain = (runs["tempered"]["z1"] > 0.4).mean(1)
assert SMOKE or abs(by_chain.mean() - exact(4.0)[2]) < 5 * by_chain.std(ddof=1) / np.sqrt(len(by_chain))
assert SMOKE or [told[name].causes for name in runs] == [["modes"], ["elsewhere"], []]

# %% [markdown]
# ## 9. Draws of a guide
#
# A guide, q(z|x), gives independent draws without any chain, of another law than the posterior. R-hat has nothing to
# say about them. Their weights p(x, z)/q(z|x) do: k-hat is the shape of the tail of the weights, and above 0.7 the
# guide misses a part of the posterior that no weighting brings back. Two guides written by hand, one too narrow.


# %%
def guide_of(width):
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z2", dist.Normal(0.4 * x, width))
            pyro.sample("z1", dist.Normal(0.6 * x, width))

    return Guide(program, guide)


drawn = {width: pplebm.sample_guide(program, given, guide_of(width), n_draws=2000) for width in (1.5, 0.4)}
for width, draws in drawn.items():
    weights = np.exp(draws.log_weights - draws.log_weights.max(1, keepdims=True))
    mean = (weights * draws.values["z1"]).sum(1) / weights.sum(1)
    print(
        f"width {width}: k-hat {draws.k_hat.round(2)}, ESS of 2000 {draws.ess.round()}, mean of z1 {mean[0].round(2)}"
    )
    print(*draws.verdict, sep="\n", end="\n" * bool(draws.verdict))
print("exact mean of z1", np.array([exact(x=x)[1] for x in given.tolist()]).round(2))
assert SMOKE or (drawn[1.5].k_hat.max() < 0.7 < drawn[0.4].k_hat.max())

# %%
tree = pplebm.to_arviz(posteriors, guide=drawn[1.5])
print("k_hat" in tree.guide_stats, tree.guide.attrs)
az.summary(tree.guide, var_names=["z1"], kind="stats", round_to=2)

# %% [markdown]
# These are moments of the guide itself: the draws stand in a group of their own, so that nobody takes them for the
# posterior, and the weights are in `guide_stats`.
#
# ## 10. Predictive draws
#
# Forward simulation ignores a tilt, everywhere. `pplebm.predictive` starts from draws of a chain instead.

# %%
pyro.set_rng_seed(0)
forward = pyro.poutine.trace(model).get_trace(torch.zeros(2000)).nodes["z1"]["value"].mean().item()
x = pplebm.predictive(prior)["x"]
print(
    f"mean of z1 by a forward run: {forward:.2f} (the base); mean of x by ours: {x.mean():.3f}; exact {exact()[1]:.3f}"
)
assert SMOKE or abs(x.mean() - exact()[1]) < 0.1

# %% [markdown]
# ## What to take along
#
# - Leave `pplebm.sample` alone first, look at `pplebm.diagnose(draws).verdict`, and do what it says.
# - R-hat finds chains that disagree. It cannot find chains that agree on something false: a second sampler can, and
#   starts from elsewhere can.
# - Too few draws are no reason to begin again: `resume=`.
# - The short run of learning is part of what was learned; the chains here are for the density.
