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
# # Evidence with error bars
#
# A tilted prior is known up to a constant, $p(z) = p_0(z)\, e^{f(z)} / Z$, and so is every likelihood that is built on
# it. That is why models with learned energies are usually compared by pictures. Here we estimate $\log Z$ and
# $\log p(x)$ themselves, in nats, by five methods; see what their errors are worth where the answer is known; put
# bounds on both sides of them where it is not; and then compare a tilted model of handwritten digits with its base and
# with its untilted twin.

# %%
import os
import tempfile
import time
import warnings

import matplotlib.pyplot as plt
import numpy as np

SMOKE = os.environ.get("PPLEBM_SMOKE") == "1"  # a quick run that only checks that everything works
warnings.filterwarnings("ignore")  # ArviZ 0.x on its successor, and on Matplotlib

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import pplebm
import pplebm.numpyro
from pplebm.evidence.estimate import Evidence
from pplebm.runs.evaluate import compared, evaluate, lines

scratch = tempfile.TemporaryDirectory()  # run folders go here, and away with it
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
BASE, TILTED = "#7f7f7f", "#d95f02"


# %% [markdown]
# ## 1. A prior with two modes, where everything is known
#
# One latent, a tilt with two narrow bumps of unequal height, one observation per datum. A grid gives $\log Z$ and
# $\log p(x)$ to eight digits.


# %%
def tilt(z):
    return 3.0 * jnp.exp(-0.5 * ((z - 2.0) / 0.5) ** 2) + 4.5 * jnp.exp(-0.5 * ((z + 1.6) / 0.25) ** 2)


def model(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        pplebm.numpyro.tilt("f", tilt(z))
        numpyro.sample("x", dist.Normal(z, 0.5), obs=x)


x = np.array([-3.0, -1.5, 0.0, 0.7, 2.0, 4.0], np.float32)
two_modes = pplebm.Program(model, data=x, backend="numpyro")

grid = np.linspace(-9.0, 9.0, 20_001)
step = grid[1] - grid[0]
base = np.exp(-0.5 * grid**2) / np.sqrt(2.0 * np.pi)
tilted = base * np.exp(np.asarray(tilt(grid)))
exact_log_z = np.log(tilted.sum() * step)
likelihood = np.exp(-0.5 * ((x[:, None] - grid) / 0.5) ** 2) / (0.5 * np.sqrt(2.0 * np.pi))
exact = np.log((likelihood * tilted).sum(1) * step) - exact_log_z

figure, axis = plt.subplots(figsize=(6, 2.4))
axis.plot(grid, base, color=BASE, label="base")
axis.plot(grid, tilted / np.exp(exact_log_z), color=TILTED, label="tilted prior")
axis.plot(x, np.zeros_like(x) - 0.02, "k|", label="data")
axis.set(xlim=(-5, 5), xlabel="z", ylabel="density", yticks=[])
axis.legend(frameon=False)
print(f"log Z = {exact_log_z:.4f}")

# %% [markdown]
# `pplebm.log_z` and `pplebm.log_evidence` take any program. Each of five methods gives a value, a standard error, an
# effective sample size and, where there are weights, a k-hat:
#
# - `ais`, annealed importance sampling. Particles go from the base, whose draws are exact, to the target in small steps
#   of strength; a pilot chooses steps and kernel for every datum. The mean weight has no bias.
# - `smc`, sequential Monte Carlo, which draws particles anew on the way.
# - `thermodynamic` integration over replicas at all strengths, which swap places.
# - `bridge` sampling between chains of both ends.
# - `importance` sampling from a short run, a guide, or a Laplace approximation, as here.
#
# The default, `auto`, takes bridges for posteriors, anneals where a bridge is refused, and anneals priors.

# %%
rows = []
for method in ("auto", "ais", "smc", "thermodynamic", "bridge", "importance"):
    began = time.perf_counter()
    constant = pplebm.log_z(two_modes, method=method, seed=1, progress=False)
    further = {"proposal": "laplace"} if method == "importance" else {}
    evidence = pplebm.log_evidence(two_modes, x, method=method, log_z=constant, seed=2, progress=False, **further)
    rows.append((method, constant, evidence, time.perf_counter() - began))

print(f"{'':14}{'log Z':>8}{'±':>8}   {'mean log p(x)':>14}{'±':>8}{'refused':>9}{'seconds':>9}")
print(f"{'exact':14}{exact_log_z:8.3f}{'':8}   {exact.mean():14.3f}")
for method, constant, evidence, seconds in rows:
    told = f"{constant.value[0]:8.3f}{constant.error[0]:8.3f}   {evidence.mean:14.3f}{evidence.mean_error:8.3f}"
    print(f"{method:14}{told}{(~evidence.is_trusted).sum():9d}{seconds:9.1f}")
    assert abs(constant.value[0] - exact_log_z) < 5 * constant.error[0]
    assert (abs(evidence.value - exact) < 5 * evidence.error)[evidence.is_trusted].all()

# %% [markdown]
# An estimate that cannot be trusted is not a number, and says why. A Laplace approximation knows one mode; where the
# posterior has two, a few weights carry the estimate, and k-hat sees it:

# %%
for datum, reason in enumerate(rows[-1][2].reasons):
    print(f"x = {x[datum]:4.1f}: {reason or 'trusted'}")

# %% [markdown]
# ### What the errors are worth
#
# Thirty repetitions, each with its own seed, log Z given exactly, since its error would be the same for all of them.
# Intervals of 95 % should hold the truth in 95 of 100 cases.

# %%
n_repetitions = 3 if SMOKE else 30
known = Evidence.of("quadrature", [exact_log_z], [0.0])
found = [pplebm.log_evidence(two_modes, x, log_z=known, seed=s, progress=False) for s in range(n_repetitions)]
value, error = np.array([e.value for e in found]), np.array([e.error for e in found])
inside = np.mean([(e.interval(0.95)[0] <= exact) & (exact <= e.interval(0.95)[1]) for e in found])
assert SMOKE or 0.88 < inside < 0.99  # of 180 intervals
figure, axis = plt.subplots(figsize=(6, 2.6))
for i, center in enumerate(exact):
    at = i + np.linspace(-0.3, 0.3, n_repetitions)
    axis.errorbar(at, value[:, i] - center, 1.96 * error[:, i], fmt="o", ms=2, lw=0.8, color=TILTED)
axis.axhline(0.0, color="k", lw=0.8)
axis.set(xticks=range(len(x)), xticklabels=[f"x = {v:g}" for v in x], ylabel="estimate minus exact, nats")
axis.set_title(f"{100 * inside:.0f} % of {n_repetitions * len(x)} intervals hold the truth", fontsize=10)
plt.show()

# %% [markdown]
# ## 2. Where nothing is known: bounds from both sides
#
# Data that the model simulates come with their latents, and these are exact draws of their posteriors. Annealing from
# the base bounds $\log p(x)$ from below in expectation; annealing back from the known latent bounds it from above. The
# truth lies between, and the distance is the most that the method can be off by for data like these.

# %%
bounds = pplebm.bidirectional(two_modes, 16 if SMOKE else 64, seed=3)
for of, truth in (("log_z", exact_log_z), ("log_evidence", None)):
    low, high = bounds.limits(of)
    print(f"{of:13} between {low:.3f} and {high:.3f}" + (f", exact {truth:.3f}" if truth is not None else ""))
    assert low < high and (truth is None or low < truth < high)
simulated = bounds.data["x"]
at = np.exp(-0.5 * ((simulated[:, None] - grid) / 0.5) ** 2) / (0.5 * np.sqrt(2.0 * np.pi))
mean_of_simulated = (np.log((at * tilted).sum(1) * step) - exact_log_z).mean()
print(f"exact mean of the simulated data: {mean_of_simulated:.3f}")
assert low < mean_of_simulated < high

# %% [markdown]
# ## 3. Digits: the tilted model, its base, and its twin
#
# Two layers of latents, both tilted, learned on 8x8 digits; and the same generator without tilts, learned by itself.
# The question that a picture does not answer: how much better does the tilted model explain digits it has not seen?

# %%
settings = {"backend": "numpyro", "seed": 0, "updates": 20 if SMOKE else 1500, "progress": False}
folder = scratch.name
run = pplebm.fit("joint_ebm", "digits", "noise_contrastive", out=f"{folder}/tilted", **settings)
twin = pplebm.fit("joint_ebm", "digits", "noise_contrastive", hyper={"tilted": False}, out=f"{folder}/twin", **settings)

# %%
held_out = run.to_user(run.load().held_out)[: 8 if SMOKE else 100]
table = evaluate(run, held_out, twin, progress=False)
told = [("model", "log p(x)", "±", "± data", "bits/dim", "minus first", "±", "log Z", "±", "refused", "seconds")]
told += lines(table)
for row in told:
    print("  ".join(cell.rjust(12 if i == 0 else 9) for i, cell in enumerate(row)))

# %% [markdown]
# The first error is that of the estimator, the second one that of the mean over digits. What decides between models is
# the *difference* on the same digits, whose error is far smaller than either: most of the variation between digits is
# common to both models. `log p(x)` of the twin and of the base need no $\log Z$; that of the tilted model does, once.

# %%
difference = table[0].evidence.value - table[2].evidence.value
mean, error = compared(table[0].evidence, table[2].evidence)
assert SMOKE or mean > 3 * error  # the tilt is worth its parameters
figure, axis = plt.subplots(figsize=(6, 2.4))
axis.hist(difference, bins=25, color=TILTED)
axis.axvline(0.0, color="k", lw=0.8)
axis.set(xlabel="log p(x), tilted minus twin, nats per digit", ylabel="digits")
axis.set_title(f"mean {mean:+.2f} ± {error:.2f}", fontsize=10)
plt.show()

# %% [markdown]
# Where does it win? Where the base is wrong about where digits live. The likelihood given a good latent is the same;
# the tilted prior says that such latents are common.
#
# Everything that was estimated is kept in the run's folder. The same call gives the same numbers at once, and goes on
# after an interruption; on the command line it is `pplebm evaluate RUN --twin RUN`.

# %%
began = time.perf_counter()
run.log_evidence(held_out, progress=False)
print(f"again: {time.perf_counter() - began:.1f} seconds")
scratch.cleanup()
