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
# # Amortized inference
#
# A guide is a network that answers for every x at once what a chain answers for one: where is z? Here it is derived
# from the program, learned beside it, and then put on trial: importance weights and their k-hat, coverage against long
# HMC chains of the same posteriors, and chains that start where the guide says.

# %%
import os
import tempfile
import time
import warnings

import matplotlib.pyplot as plt
import numpy as np

SMOKE = os.environ.get("PPLEBM_SMOKE") == "1"  # a quick run that only checks that everything works
warnings.filterwarnings("ignore")  # ArviZ 0.x on its successor, and on Matplotlib

import arviz as az
import torch

import pplebm
from pplebm.data import load
from pplebm.guides.amortized import amortized
from pplebm.objectives.elbo import elbo

STEPS, N_DATA, N_DRAWS, N_WARMUP = (30, 6, 40, 50) if SMOKE else (3000, 40, 1000, 600)
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
torch.manual_seed(0)

# %% [markdown]
# ## 1. A guide from the program
#
# `amortized` reads the latent sites of a program and declares a normal distribution for each, in its unconstrained
# coordinates: bottom-up (`ladder`), top-down with a shared deterministic pass (`top_down`), or each for itself
# (`mean_field`). Nothing about the model is declared twice. What comes back is an ordinary guide, with draws that are
# differentiable maps of normal noise.

# %%
program = pplebm.Program(pplebm.bind("joint_ebm", shape=(8, 8)))
for family in ("mean_field", "ladder", "top_down"):
    guide = amortized(program, family=family)
    z, log_q = guide.draw(0, guide.params, torch.zeros(5, 8, 8))
    numbers = sum(p.numel() for p in guide.params.values())
    print(
        f"{family:10}  {numbers:6,} weights;", ", ".join(f"q({name}) on {tuple(a.shape[1:])}" for name, a in z.items())
    )
assert set(z) == {site.name for site in program.latents} and log_q.shape == (5,)

# %% [markdown]
# ## 2. Why the ELBO of a tilted model needs chains after all
#
# With a tilt, log p(x) >= E_q[log p̃(x, z) - log q(z|x)] - log Z, and log Z moves with every parameter of the prior.
# Leave it out, as variational inference on a plain factor does, and f can only grow. `elbo` therefore asks for draws
# of the tilted prior, and refuses to work without:

# %%
try:
    elbo(program, guide, program.params | guide.params, torch.zeros(5, 8, 8), guide.noise(0, 5))
except pplebm.PplebmError as error:
    refused = str(error)
    print(refused)
assert "negative=" in refused

# %% [markdown]
# The page `variational_joint` puts the two together: the guide for the posterior, short chains for the prior,
# everything learned at once. By default the tilt's own gradient is kept from the guide, because the two easily chase
# each other.

# %%
digits = load("digits", seed=0)
began = time.perf_counter()
run = pplebm.fit(
    "joint_ebm", digits, "variational_joint", out=f"{tempfile.mkdtemp()}/run", updates=STEPS, progress=False
)
print(f"{STEPS} updates in {time.perf_counter() - began:.0f} s")

rows = run.metrics
fig, axes = plt.subplots(1, 3, figsize=(10, 2.6), constrained_layout=True)
for axis, name in zip(axes, ("bound", "tilt_gap", "log_likelihood"), strict=True):
    axis.plot([row["update"] for row in rows], [row[name] for row in rows], lw=1)
    axis.set(title=name.replace("_", " "), xlabel="update")
plt.show()
assert rows[-1]["bound"] > rows[0]["bound"] and not run.manifest.rollbacks

# %% [markdown]
# ## 3. On trial: importance weights
#
# If q were the posterior, log p̃(x, z) - log q(z|x) would be the same number for every draw z. Its spread is what the
# guide gets wrong, and the shape parameter k-hat of the largest weights (Vehtari, Simpson, Gelman, Yao, Gabry, JMLR
# 2024) says whether the weights can repair it: below 0.7 they can.

# %%
learned, params = run.program.with_coordinates("centered"), run.params
guide = run.algorithm.guide
x = torch.as_tensor(digits.held_out[:N_DATA])
n = 200 if SMOKE else 2000
with torch.no_grad():
    log_weights = (
        torch.stack(
            [learned.log_joint(params, z, x) - log_q for z, log_q in (guide.draw(i, params, x) for i in range(n))]
        )
        .numpy()
        .T
    )
_, k_hat = az.psislw(log_weights)
print(f"k-hat over {N_DATA} held-out digits: median {np.median(k_hat):.2f}, above 0.7: {(k_hat > 0.7).mean():.0%}")
print(f"spread of the log weights: {log_weights.std(1).mean():.1f} nats")
assert np.isfinite(k_hat).all() and k_hat.shape == (N_DATA,)

# %% [markdown]
# ## 4. On trial: coverage against HMC
#
# Long HMC chains of the same posteriors, all digits and chains in one batch. The guide's central 90 % interval of
# every latent number should hold 90 % of these draws. A mean-field family cannot see that numbers are correlated, and
# minimising KL(q | p) makes it too narrow, not too wide.

# %%
noise = run.program.with_coordinates("noncentered").with_chains(compiled=not SMOKE)
posterior = pplebm.sample(noise, data=x, params=params, n_chains=4, n_draws=N_DRAWS, n_warmup=N_WARMUP, progress=False)
worst = max(
    float(az.rhat(posterior[s][:, :, i].reshape(4, N_DRAWS, -1)[:, :, j]))
    for s in ("z1", "z2")
    for i in range(min(N_DATA, 5))
    for j in range(posterior[s].shape[-1])
)
print(f"largest R-hat of five of the posteriors: {worst:.3f}, divergent draws: {posterior.n_divergent}")

draws = {name: [] for name in ("z1", "z2")}
with torch.no_grad():
    for i in range(400):
        for name, a in guide.draw(1000 + i, params, x)[0].items():
            draws[name].append(a.numpy())
fig, axes = plt.subplots(1, 2, figsize=(8, 3), constrained_layout=True)
coverage, ratio = {}, {}
for axis, name in zip(axes, ("z1", "z2"), strict=True):
    low, high = np.quantile(np.stack(draws[name]), [0.05, 0.95], axis=0)
    inside = (posterior[name] > low) & (posterior[name] < high)
    coverage[name] = inside.mean((0, 1))
    ratio[name] = np.stack(draws[name]).std(0) / posterior[name].std((0, 1))
    axis.hist(coverage[name].ravel(), bins=np.linspace(0, 1, 21), color="0.5")
    axis.axvline(0.9, color="C3")
    axis.set(title=f"{name}: HMC draws in the guide's 90 % interval", xlabel="share", yticks=[])
    print(
        f"{name}: coverage {coverage[name].mean():.2f} of a nominal 0.90; "
        f"sd of the guide over that of HMC {ratio[name].mean():.2f}"
    )
plt.show()
assert all(0.0 < c.mean() < 1.0 for c in coverage.values())
if not SMOKE:
    assert worst < 1.1 and coverage["z1"].mean() < 0.95

# %% [markdown]
# ## 5. Put to use: chains that start at the guide
#
# A guide need not be right to be useful: chains of the exact posterior that start at its draws have no way to go. The
# log density along the first steps tells, beside chains that start at draws of the base.

# %%
from pplebm.kernels.mala import mala
from pplebm.sampling.chains import advance

with torch.no_grad():
    at_guide = learned.move(params, guide.draw(7, params, x)[0], "noncentered")
at_base = run.program.with_coordinates("noncentered").draw_base(8, len(x), params)
kernel, traces = mala(0.05), {}
for name, start in (("from the guide", at_guide), ("from the base", at_base)):
    moving = run.program.with_coordinates("noncentered")
    state = kernel.init(moving.ppl, start, moving.log_density(params, x))
    traces[name] = advance(moving, 1, state, params, x, kernel, 30 if SMOKE else 300)[1].log_density.mean(1).numpy()
    plt.plot(traces[name], label=name)
plt.gca().set(xlabel="step of MALA", ylabel="log density, mean over digits", xscale="symlog")
plt.legend()
plt.show()
assert traces["from the guide"][0] > traces["from the base"][0]

# %% [markdown]
# The page `dual_mcmc` closes the circle: chains start at the guide, and the guide learns from where they end.
