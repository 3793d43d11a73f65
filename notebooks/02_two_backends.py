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
# # One model, two backends
#
# The program of [your first tilted model](01_first_tilted_model.ipynb) again, this time in NumPyro. You will see that
# it is the same model to twelve digits, what each backend costs, and what a compiled one is good for: thousands of
# chains at once.
#
# You need the extra: `pip install 'pplebm[numpyro]'`.

# %%
import os
import tempfile
import time
import warnings

import matplotlib.pyplot as plt
import numpy as np

SMOKE = os.environ.get("PPLEBM_SMOKE") == "1"  # a quick run that only checks that everything works
warnings.filterwarnings("ignore", message="IProgress")  # tqdm's remark on progress bars in notebooks

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import torch
from flax import nnx
from numpyro.contrib.module import nnx_module

import pplebm
from pplebm.data import load as load_data
from pplebm.kernels.langevin import langevin
from pplebm.numpyro import tilt
from pplebm.sampling import chains

UPDATES = 6 if SMOKE else 300
SETTINGS = {"n_steps_posterior": 5, "n_steps_prior": 5} if SMOKE else {}  # {}: those of the algorithm's page
ROUNDS = 2 if SMOKE else 15
scratch = tempfile.TemporaryDirectory()
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
COLOURS = {"pyro": "#d95f02", "numpyro": "#1b9e77"}

digits = load_data("digits", seed=0)
print(f"{len(digits.train)} digits to learn from, {len(digits.held_out)} held out, each {digits.event_shape}")

# %% [markdown]
# ## 1. The program
#
# Plain NumPyro, plain flax. The line is `tilt("f", ...)`, imported from `pplebm.numpyro`; all else you know. Networks
# of
# flax linen or equinox, or bare `numpyro.param` statements, do as well.

# %%
keys = nnx.Rngs(0)
leaky = lambda a: nnx.leaky_relu(a, 0.2)
decoder = nnx.Sequential(nnx.Linear(16, 128, rngs=keys), leaky, nnx.Linear(128, 64, rngs=keys))
conditional = nnx.Sequential(nnx.Linear(8, 128, rngs=keys), leaky, nnx.Linear(128, 32, rngs=keys))
factor = nnx.Sequential(nnx.Linear(24, 64, rngs=keys), leaky, nnx.Linear(64, 1, rngs=keys))


def model(x):
    g, mix = nnx_module("decoder", decoder), nnx_module("conditional", conditional)
    f = nnx_module("factor", factor)
    with numpyro.plate("data", len(x)):
        z2 = numpyro.sample("z2", dist.Normal(0.0, 1.0).expand([8]).to_event(1))
        mean, scale = jnp.split(mix(z2), 2, axis=-1)
        z1 = numpyro.sample("z1", dist.Normal(mean, nnx.softplus(scale + 0.2) + 0.2).to_event(1))
        tilt("f", f(jnp.concatenate([z1, z2], -1))[..., 0], bound=8.0)
        numpyro.sample("x", dist.Normal(g(z1).reshape(-1, 8, 8), 0.3).to_event(2), obs=x)


program = pplebm.Program(model, data=digits.train[:5], backend="numpyro")
for kind, sites in (("latent", program.latents), ("observed", program.observed), ("tilt", program.tilts)):
    print(f"{kind:9}", ", ".join(f"{s.name} {s.shape}" for s in sites))
assert {s.name for s in program.latents} == {"z1", "z2"} and [s.name for s in program.tilts] == ["f"]
run = pplebm.fit(
    model,
    digits,
    "short_run_mle",
    out=f"{scratch.name}/own",
    backend="numpyro",
    updates=UPDATES,
    hyper=SETTINGS,
    progress=False,
)
print(
    f"{UPDATES} updates in {run.metrics[-1]['seconds']:.0f} s, of which {run.manifest.first_update_seconds:.0f} s "
    f"went into the first: there JAX compiles the whole update"
)

# %% [markdown]
# Pages of the gallery are declared once for both: `pplebm.bind(page, "pyro")` is an ordinary Pyro function,
# `pplebm.bind(page, "numpyro")` an ordinary NumPyro one. From here on we take the page `joint_ebm`.

# %% [markdown]
# ## 2. The same to twelve digits
#
# Both backends start from the same weights, because NumPy draws them. In double precision we compare, datum by datum,
# the log density $\log \tilde p(x, z)$ and its gradients with respect to latents and weights.

# %%
x = digits.train[:64]
torch.set_default_dtype(torch.float64)
with jax.enable_x64(True):
    both = {b: pplebm.Program(pplebm.bind("joint_ebm", b, shape=(8, 8))) for b in COLOURS}
    z = {k: v.numpy() for k, v in both["pyro"].draw_base(0, 64).items()}
    values, slopes = {}, {}
    for name, p in both.items():
        ppl = p.ppl
        at = {"z": {k: ppl.asarray(v) for k, v in z.items()}, "weights": p.params}
        joint = lambda t, p=p: p.log_joint(t["weights"], t["z"], p.ppl.asarray(x))
        value, gradient = ppl.value_and_grad(joint, at)
        values[name] = ppl.to_numpy(value)
        slopes[name] = {k: ppl.to_numpy(g) for k, g in {**gradient["z"], **gradient["weights"]}.items()}
torch.set_default_dtype(torch.float32)

off = np.abs(values["pyro"] - values["numpyro"]) / np.abs(values["pyro"])
relative = {k: np.abs(g - slopes["numpyro"][k]).max() / np.abs(g).max() for k, g in slopes["pyro"].items()}
print(f"log density of 64 data: largest relative difference {off.max():.1e}")
assert off.max() < 1e-12 and max(relative.values()) < 1e-12
fig, ax = plt.subplots(figsize=(7, 4.2))
ax.barh(list(relative), np.maximum(list(relative.values()), 1e-18), color="#7570b3")
ax.set(xscale="log", xlim=(1e-18, 1), xlabel="largest difference of the gradient, relative to its largest entry")
ax.axvline(np.finfo(float).eps, color="k", lw=1, ls=":")
ax.text(1e-14, len(relative) / 2, "the dotted line is the spacing of double precision", va="center")
ax.tick_params(axis="y", labelsize=7)
plt.tight_layout()
plt.show()

# %% [markdown]
# Every bar ends at the rounding error of double precision. The tests of this package go further: with the same noise
# injected on both sides, two whole learning steps agree to $10^{-10}$, for every page and every algorithm.
#
# ## 3. The same learning
#
# In daily use the two draw different random numbers, so two runs are two runs. They should look like two seeds of one
# method.

# %%
runs = {}
for backend in COLOURS:
    began = time.perf_counter()
    runs[backend] = pplebm.fit(
        "joint_ebm",
        "digits",
        "short_run_mle",
        out=f"{scratch.name}/{backend}",
        backend=backend,
        updates=UPDATES,
        hyper=SETTINGS,
        progress=False,
    )
    first = runs[backend].manifest.first_update_seconds
    print(f"{backend:8} {time.perf_counter() - began:5.1f} s in all, first update {first:.1f} s")

last = {backend: learned.metrics[-1]["log_likelihood"] for backend, learned in runs.items()}
assert abs(last["pyro"] - last["numpyro"]) < (20.0 if SMOKE else 5.0) and (SMOKE or min(last.values()) > -10.0)
fig, axes = plt.subplots(1, 2, figsize=(9, 3.2))
for backend, learned in runs.items():
    rows = learned.metrics
    axes[0].plot(
        [r["update"] for r in rows], [r["log_likelihood"] for r in rows], color=COLOURS[backend], label=backend
    )
    axes[1].plot([r["update"] for r in rows], [r["tilt_gap"] for r in rows], color=COLOURS[backend], label=backend)
axes[0].set(xlabel="update", title="$E \\log p(x \\mid z^+)$, nats")
axes[1].set(xlabel="update", title="tilt gap $E f(z^+) - E f(z^-)$, nats")
axes[0].legend(frameon=False)
plt.tight_layout()
plt.show()

# %% [markdown]
# ## 4. What an update costs
#
# Three ways to run the same update, one after the other in turn, medians: the Pyro program as a graph of torch
# operations
# (what short runs use), one step of the chain compiled by `torch.compile` (what long runs use), and the whole update
# compiled by JAX. `benchmarks/speed.py` does this with more care.

# %%
from pplebm.inference import short_run_mle
from pplebm.learning.algorithm import algorithm_of

ways = {"Pyro, graph": ("pyro", False), "Pyro, compiled": ("pyro", True), "NumPyro": ("numpyro", True)}
if SMOKE:
    del ways["Pyro, compiled"]
calls, first, seconds = {}, {}, {}
for name, (backend, compiled) in ways.items():
    p = pplebm.Program(pplebm.bind("joint_ebm", backend, shape=(8, 8))).with_chains(compiled=compiled)
    algorithm = algorithm_of(short_run_mle, p, SETTINGS)
    batch = p.ppl.asarray(digits.train[: algorithm.hyper.batch_size])
    state, update = algorithm.init(p.ppl.key(0), batch), p.ppl.compiled(algorithm.step)

    def call(p=p, update=update, state=state, batch=batch):
        with p.ppl.threads_for(p.work(len(batch))):
            float(update(p.ppl.key(1), state, batch)[1]["grad_norm"])  # waits for the result

    began = time.perf_counter()
    call()
    calls[name], first[name], seconds[name] = call, time.perf_counter() - began, []
for _ in range(ROUNDS):
    for name, call in calls.items():
        began = time.perf_counter()
        call()
        seconds[name].append(time.perf_counter() - began)

slowest = np.array(seconds["Pyro, graph"])
for name, s in seconds.items():
    print(
        f"{name:15} {1e3 * np.median(s):6.1f} ms an update, {np.median(slowest / s):4.1f} times the graph's speed; "
        f"first update {first[name]:4.1f} s"
    )

# %% [markdown]
# Compiling pays for itself in a long run only, which is why `fit` compiles on the Pyro side from 200 updates on
# (`compiled=`, `--compile`), while NumPyro always compiles.
#
# ## 5. Many chains
#
# Chains are a batch, and a batch is cheap. We run prior chains of the model that was just learned in NumPyro, in one
# call each, and look at the time per chain.

# %%
learned = runs["numpyro"]
params, ppl = learned.params, learned.program.ppl
moving = learned.program.with_coordinates("noncentered")
kernel = langevin(0.4)
counts = [1, 64] if SMOKE else [1, 16, 64, 256, 1024, 4096]
per_chain = []
for n in counts:
    draw = ppl.compiled(lambda key, params, n=n: chains.short_run(learned.program, key, params, n, kernel, 30)[0])
    times = []
    for i in range(6):  # the first compiles
        began = time.perf_counter()
        many = jax.block_until_ready(draw(ppl.key(i), params))
        times.append(time.perf_counter() - began)
    per_chain.append(np.median(times[1:]) / n * 1e6)

fig, axes = plt.subplots(1, 2, figsize=(9, 3.2))
axes[0].loglog(counts, per_chain, "o-", color=COLOURS["numpyro"])
axes[0].set(xlabel="chains at once", ylabel="microseconds per chain of 30 steps", title="time per chain")
f = ppl.to_numpy(learned.program.log_tilt(params, many))
base = ppl.to_numpy(learned.program.log_tilt(params, learned.program.draw_base(ppl.key(2), counts[-1], params)))
bins = np.linspace(min(f.min(), base.min()), max(f.max(), base.max()), 40)
axes[1].hist(base, bins, density=True, color="#7f7f7f", alpha=0.5, label="base")
axes[1].hist(f, bins, density=True, histtype="step", lw=2, color=COLOURS["numpyro"], label="tilted prior, 30 steps")
axes[1].set(xlabel="tilt f, nats", title=f"{counts[-1]} chains")
axes[1].legend(frameon=False)
plt.tight_layout()
plt.show()
print(f"a chain alone takes {per_chain[0]:.0f} microseconds; of {counts[-1]} at once, each takes {per_chain[-1]:.0f}")
assert f.mean() > base.mean() or SMOKE  # the tilt has moved the prior

# %% [markdown]
# With several devices (GPUs, or host devices of a CPU) the chains spread over them under JAX's own mesh: give the
# batch a
# sharding over an axis called `data`, and enter `jax.set_mesh`.
#
# ## 6. From one to the other
#
# A run of a page opens in the other language. Weights, hyperparameters and the scaling of the data carry over. Random
# numbers do not: the same seed gives other draws.

# %%
crossed = pplebm.open_run(runs["pyro"].path, backend="numpyro")
shown = digits.scaling.to_user(digits.held_out[:8])
pictures = {
    "held-out digits": shown,
    "reconstructed by the Pyro run": runs["pyro"].reconstruct(shown),
    "the same run, opened in NumPyro": crossed.reconstruct(shown),
}
error = {title: np.mean((images - shown) ** 2) for title, images in pictures.items()}
assert SMOKE or error["the same run, opened in NumPyro"] < 1.5 * error["reconstructed by the Pyro run"]
fig, axes = plt.subplots(3, 8, figsize=(8, 3.4))
for row, (title, images) in zip(axes, pictures.items(), strict=True):
    for ax, image in zip(row, images, strict=True):
        ax.imshow(image, cmap="gray_r", vmin=0, vmax=16)
        ax.axis("off")
    row[0].set_title(title, loc="left", fontsize=9)
plt.tight_layout()
plt.show()

# %% [markdown]
# ## What to take along
#
# - Write in the language you know. The density, its gradients and the learning are the same.
# - NumPyro is the faster one for long runs and for many chains; it compiles whole updates, in seconds.
# - Pyro needs no compilation to begin, takes any torch module, and steps through a debugger.
# - Runs of gallery pages cross over; programs of your own stay in their language.

# %%
scratch.cleanup()
