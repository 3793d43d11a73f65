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
# # Tilts, Langevin, two phases: the whole idea on one page
#
# Three ideas carry this package: a *tilt*, a *Langevin chain*, and a *gradient with two phases*.
# Here all three are written by hand in NumPy, about 80 lines in all, on a model where every answer is known in closed
# form. So nothing has to be taken on trust. At the end the library does the same, and the numbers agree to the last
# digits.
#
# **The model** is a generator with two layers of latents, as you would write it in Pyro:
#
# $$ z_2 \sim N(0, I), \qquad z_1 \mid z_2 \sim N(A z_2 + b,\ \operatorname{diag} s^2), \qquad
#    x \mid z_1 \sim N(W z_1,\ \sigma^2 I). $$
#
# **The tilt** multiplies the prior density by $e^{f}$ and renormalises it. Ours are quadratic, one per layer:
#
# $$ p(z) = \frac1Z \, e^{f_1(z_1) + f_2(z_2)} \; p(z_1 \mid z_2)\, p(z_2), \qquad
#    f_i(z) = -\tfrac12 z^\top Q_i z + c_i^\top z . $$
#
# We write $\tilde p(z) = Z\,p(z)$ and $\tilde p(x, z) = p(x \mid z_1)\,\tilde p(z)$ for the densities without their
# constant. In real models $f$ is a neural net and $Z$ is out of reach. With Gaussians and quadratic tilts the tilted
# prior is Gaussian again, and we can look up the truth whenever we like.

# %%
import os
import warnings

import matplotlib.pyplot as plt
import numpy as np

SMOKE = os.environ.get("PPLEBM_SMOKE") == "1"  # a quick run that only checks that everything works
warnings.filterwarnings("ignore", message="IProgress")  # tqdm's remark on progress bars in notebooks
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
BASE, TILTED, WRONG = "#7f7f7f", "#d95f02", "#7570b3"

rng = np.random.default_rng(0)
SIGMA = 0.5
truth = {
    "W": np.array([[1.0, 0.2], [-0.4, 1.0], [0.6, 0.6]]),
    "A": np.array([[0.9, -0.3], [0.4, 0.7]]), "b": np.array([0.3, -0.2]), "log_s": np.log([0.8, 0.6]),
    "Q1": np.array([[1.0, -0.8], [-0.8, 1.0]]), "c1": np.array([1.4, -1.2]),
    "Q2": np.array([[0.0, 0.6], [0.6, 0.0]]), "c2": np.array([0.4, -0.3]),
}  # fmt: skip

# %% [markdown]
# ## 1. The model by hand
#
# Two log densities, their gradients in $z$, and the closed form. That is all we need to know about the model.
# Latents are a dictionary, one array $(B, d)$ per site: row by row, one chain each.


# %%
def residual(p, z):
    """(z1 - A z2 - b) / s², the quantity that most gradients are made of."""
    return (z["z1"] - z["z2"] @ p["A"].T - p["b"]) * np.exp(-2 * p["log_s"])


def log_prior(p, z):
    """log p̃(z): two Gaussian layers plus two tilts, without -log Z."""
    r = residual(p, z)
    out = -0.5 * (r**2 * np.exp(2 * p["log_s"])).sum(1) - p["log_s"].sum() - 0.5 * (z["z2"] ** 2).sum(1)
    out -= 0.5 * (z["z1"].shape[1] + z["z2"].shape[1]) * np.log(2 * np.pi)
    for i in "12":
        out += -0.5 * ((z["z" + i] @ p["Q" + i]) * z["z" + i]).sum(1) + z["z" + i] @ p["c" + i]
    return out


def log_joint(p, z, x):
    """log p̃(x, z)."""
    e = (x - z["z1"] @ p["W"].T) / SIGMA
    return log_prior(p, z) - 0.5 * (e**2).sum(1) - 0.5 * x.shape[1] * np.log(2 * np.pi * SIGMA**2)


def gradient(p, z, x=None):
    """Gradient in z of log p̃(x, z), or of log p̃(z) without data. Z has no z in it, and drops out."""
    r = residual(p, z)
    g1 = -r - z["z1"] @ p["Q1"] + p["c1"]
    g2 = r @ p["A"] - z["z2"] - z["z2"] @ p["Q2"] + p["c2"]
    if x is not None:
        g1 = g1 + (x - z["z1"] @ p["W"].T) @ p["W"] / SIGMA**2
    return {"z1": g1, "z2": g2}


def gaussian(p, x=None):
    """Closed form: mean and covariance of (z1, z2) under the tilted prior, or given each row of x."""
    S, A, d2 = np.diag(np.exp(-2 * p["log_s"])), p["A"], p["A"].shape[1]
    precision = np.block([[S + p["Q1"], -S @ A], [-A.T @ S, np.eye(d2) + A.T @ S @ A + p["Q2"]]])
    shift = np.concatenate([S @ p["b"] + p["c1"], -A.T @ S @ p["b"] + p["c2"]])
    if x is not None:
        precision[: len(S), : len(S)] += p["W"].T @ p["W"] / SIGMA**2
        shift = shift + np.pad(x @ p["W"] / SIGMA**2, ((0, 0), (0, d2)))
    covariance = np.linalg.inv(precision)
    return shift @ covariance, covariance


def log_evidence(p, x):
    """log p(x), (B,), in closed form: what learning wants to raise."""
    mean, covariance = gaussian(p)
    d1 = p["W"].shape[1]
    marginal = p["W"] @ covariance[:d1, :d1] @ p["W"].T + SIGMA**2 * np.eye(x.shape[1])
    e = x - p["W"] @ mean[:d1]
    return -0.5 * ((e @ np.linalg.inv(marginal)) * e).sum(1) - 0.5 * np.linalg.slogdet(2 * np.pi * marginal)[1]


# %% [markdown]
# **What does the tilt do?** Take it away ($Q_i = 0$, $c_i = 0$) and you have the *base*. Put it back and the prior
# moves, shrinks and turns. $Q_2$ even has a negative eigenvalue: taken alone, $f_2$ *widens* $z_2$ in one direction.
# That is fine as long as the product can still be normalised.

# %%
base = {name: value * (name[0] not in "Qc") for name, value in truth.items()}


def ellipse(ax, mean, covariance, radius=2.0, **style):
    turn = np.linspace(0, 2 * np.pi, 200)
    ring = np.stack([np.cos(turn), np.sin(turn)])
    ax.plot(*(mean[:, None] + radius * np.linalg.cholesky(covariance) @ ring), **style)


def draw(p, n, x=None):
    """Exact draws of (z1, z2), from the closed form."""
    mean, covariance = gaussian(p, x)
    u = mean + rng.normal(size=(n, len(covariance))) @ np.linalg.cholesky(covariance).T
    return {"z1": u[:, :2], "z2": u[:, 2:]}


fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.9))
for ax, site, block in zip(axes, ("z1", "z2"), (slice(0, 2), slice(2, 4))):
    for p, colour, label in ((base, BASE, "base"), (truth, TILTED, "tilted prior")):
        mean, covariance = gaussian(p)
        ax.plot(*draw(p, 400)[site].T, ".", ms=3, alpha=0.35, color=colour)
        ellipse(ax, mean[block], covariance[block, block], color=colour, lw=2.2, label=label)
    ax.set(title=f"layer $z_{site[1]}$", xlabel="first coordinate", xlim=(-3.6, 4), ylim=(-3.6, 4), aspect="equal")
axes[0].set_ylabel("second coordinate")
axes[0].legend(frameon=False, loc="upper left")
fig.suptitle("Exact draws, and the 2σ ellipse of the closed form")
fig.tight_layout()
plt.show()

# %% [markdown]
# ## 2. Langevin in five lines
#
# When $Z$ is out of reach we cannot draw from $p(z)$ directly. But $\nabla_z \log p = \nabla_z \log \tilde p$, so we
# can walk. One step, with step size $s$ and fresh noise $\xi \sim N(0, I)$:
#
# $$ z \leftarrow z + \tfrac12 s^2\, \nabla_z \log \tilde p(z) + s\, \xi . $$


# %%
def langevin(z, gradient, step_size, noises):
    for noise in noises:
        g = gradient(z)
        z = {k: z[k] + 0.5 * step_size**2 * g[k] + step_size * noise[k] for k in z}
    return z


def normal(n):
    return {"z1": rng.normal(size=(n, 2)), "z2": rng.normal(size=(n, 2))}


def chain(p, n, step_size, n_steps, x=None):
    """n chains from N(0, I), towards the tilted prior, or towards the posterior of each row of x."""
    return langevin(normal(n), lambda z: gradient(p, z, x), step_size, (normal(n) for _ in range(n_steps)))


# %% [markdown]
# The chain has a price. Nothing corrects its steps, so it settles on a law that is slightly too wide. On a Gaussian the
# price is known exactly. In a direction of precision $\lambda$ the variance becomes
#
# $$ \frac{1/\lambda}{1 - s^2 \lambda / 4}, $$
#
# and from $s^2 \lambda = 4$ on the chain explodes. The stiffest direction decides. Watch it happen:

# %%
mean, covariance = gaussian(truth)
lam, directions = np.linalg.eigh(np.linalg.inv(covariance))
limit = 2 / np.sqrt(lam[-1])


def biased(step_size):
    """Covariance of the chain's own stationary law, in closed form."""
    return directions @ np.diag(1 / lam / (1 - step_size**2 * lam / 4)) @ directions.T


n_chains, n_steps = (300, 100) if SMOKE else (2000, 300)
sizes = (0.2, 0.4, 0.6, 0.7)
ends = {s: chain(truth, n_chains, s, n_steps) for s in sizes}
stiff = {s: (np.hstack([z["z1"], z["z2"]]) @ directions[:, -1]).var() for s, z in ends.items()}

fig, axes = plt.subplots(1, 3, figsize=(11.5, 3.7))
for ax, s in zip(axes, (sizes[0], sizes[-1])):
    ax.plot(*ends[s]["z1"][:800].T, ".", ms=3, alpha=0.35, color="#1b9e77")
    ellipse(ax, mean[:2], covariance[:2, :2], color=TILTED, lw=2.2, label="tilted prior")
    ellipse(ax, mean[:2], biased(s)[:2, :2], color="black", lw=1.2, ls="--", label="predicted for this $s$")
    ax.set(title=f"ends of chains, $s = {s:.2f}$", xlim=(-2.5, 4.7), ylim=(-4, 3.2), aspect="equal")
    ax.set(xlabel="$z_1$, first coordinate", ylabel="$z_1$, second coordinate")
axes[0].legend(frameon=False, loc="upper left", fontsize=8)
grid = np.linspace(0.01, 0.95 * limit, 200)
axes[2].axhline(1 / lam[-1], color=TILTED, lw=2.2, label="truth")
axes[2].plot(grid, 1 / lam[-1] / (1 - grid**2 * lam[-1] / 4), "k--", lw=1.2, label="predicted")
axes[2].plot(list(stiff), list(stiff.values()), "o", color="#1b9e77", label="chains")
axes[2].axvline(limit, color="black", lw=0.8, ls=":")
axes[2].text(limit + 0.02, 0.35, "chains explode", rotation=90, fontsize=8)
axes[2].set(title="variance, stiffest direction", xlabel="step size $s$", xlim=(0, limit + 0.12), ylim=(0, 1))
axes[2].legend(frameon=False, loc="upper left", fontsize=8)
fig.tight_layout()
plt.show()

for s, v in stiff.items():
    predicted = 1 / lam[-1] / (1 - s**2 * lam[-1] / 4)
    print(f"s = {s:.2f}   variance {v:.3f}   predicted {predicted:.3f}   truth {1 / lam[-1]:.3f}")
    assert abs(v / predicted - 1) < 5 * np.sqrt(2 / n_chains)  # five standard errors

# %% [markdown]
# Small steps fall on the closed form, and large ones show exactly the bias they should. A step size is part of what you
# report.
#
# ## 3. Learning: a gradient with two phases
#
# We want $\log p(x) = \log \int \tilde p(x, z)\,dz - \log Z$ to rise. Differentiate both integrals, and both become
# expectations:
#
# $$ \nabla_\theta \log p(x)
#    = \underbrace{E_{z \mid x}\big[\nabla_\theta \log \tilde p(x, z)\big]}_{\text{positive phase}}
#    - \underbrace{E_{z}\big[\nabla_\theta \log \tilde p(z)\big]}_{\text{negative phase}} . $$
#
# The second term is $\nabla_\theta \log Z$. It concerns **every** parameter that enters $\tilde p(z)$. Those of the
# tilt, plainly. But also $A$, $b$ and $s$ of the layer in between. Without a tilt that layer integrates to one
# whatever $A$ is. With a tilt it does not. Only $W$, which is not in the prior, has no negative phase.


# %%
def gradient_of_parameters(p, z, x=None):
    """Mean over rows of the gradient of log p̃(x, z) in every parameter; of log p̃(z) without data."""
    r, n = residual(p, z), len(z["z1"])
    g = {"A": r.T @ z["z2"] / n, "b": r.mean(0), "log_s": (r**2 * np.exp(2 * p["log_s"])).mean(0) - 1}
    for i in "12":
        g |= {"Q" + i: -0.5 * z["z" + i].T @ z["z" + i] / n, "c" + i: z["z" + i].mean(0)}
    g["W"] = 0 * p["W"] if x is None else (x - z["z1"] @ p["W"].T).T @ z["z1"] / n / SIGMA**2
    return g


def two_phases(p, positive, negative, x):
    """Gradient of the mean log p(x), estimated from samples of both phases."""
    up, down = gradient_of_parameters(p, positive, x), gradient_of_parameters(p, negative)
    return {k: up[k] - down[k] for k in p}


# %% [markdown]
# ### The check that matters
#
# Is that really so for $A$, $b$ and $s$? Here we can ask the truth. We take some parameters, compute $\log p(x)$ in
# closed form, and difference it numerically. Then we compare with the two-phase gradient, and with what you get if you
# forget the negative phase of the layer in between. (That is easy to forget. Its conditional *looks* normalised, and
# on its own it is.)

# %%
n_data = 400
x = draw(truth, n_data)["z1"] @ truth["W"].T + SIGMA * rng.normal(size=(n_data, 3))
here = truth | {"A": np.array([[0.0, 0.5], [0.5, 0.0]]), "b": np.array([-0.4, 0.4]), "log_s": np.log([0.8, 0.8])}

repeats = 20 if SMOKE else 2000
x_many = np.tile(x, (repeats, 1))
positive, negative = draw(here, len(x_many), x_many), draw(here, len(x_many))
two = two_phases(here, positive, negative, x_many)
one = gradient_of_parameters(here, positive, x_many)


def differences(p, name, eps=1e-5):
    """Central differences of the mean log p(x) in every entry of one parameter."""
    out = np.zeros(p[name].shape)
    for i in np.ndindex(out.shape):
        nudge = np.zeros(out.shape)
        nudge[i] = eps
        up, down = (log_evidence(p | {name: p[name] + sign * nudge}, x).mean() for sign in (1, -1))
        out[i] = (up - down) / (2 * eps)
    return out


names, labels = ("A", "b", "log_s"), ["$A_{11}$", "$A_{12}$", "$A_{21}$", "$A_{22}$", "$b_1$", "$b_2$"]
labels += [r"$\log s_1$", r"$\log s_2$"]
exact, with_both, without = (
    np.concatenate([np.ravel(g[k]) for k in names]) for g in ({k: differences(here, k) for k in names}, two, one)
)

fig, ax = plt.subplots(figsize=(9, 3.6))
at = np.arange(len(labels))
ax.bar(at - 0.2, with_both, 0.38, color=TILTED, label="two phases")
ax.bar(at + 0.2, without, 0.38, color=WRONG, label="negative phase forgotten")
ax.hlines(exact, at - 0.45, at + 0.45, color="black", lw=2.5, label="finite differences of log p(x)")
ax.axhline(0, color="black", lw=0.6)
ax.set_xticks(at, labels)
ax.set(title="Gradient of log p(x) in the layer between $z_2$ and $z_1$")
ax.legend(frameon=False, fontsize=9)
fig.tight_layout()
plt.show()

for label, *row in zip(labels, exact, with_both, without):
    print(f"{label.strip('$'):9} differences {row[0]:+.3f}   two phases {row[1]:+.3f}   one phase {row[2]:+.3f}")
flipped = int((np.sign(without) != np.sign(exact)).sum())
print(f"largest error: two phases {abs(with_both - exact).max():.4f}, one phase {abs(without - exact).max():.2f}")
print(f"with one phase, {flipped} of {len(exact)} entries have the wrong sign")
assert abs(with_both - exact).max() < (0.1 if SMOKE else 0.01)
assert abs(without - exact).max() > 0.3 and flipped >= 1

# %% [markdown]
# The orange bars reach the black lines. The purple ones do not, and some point the wrong way.
#
# ### Short-run learning
#
# Now replace exact draws by short chains, fresh from $N(0, I)$ every time, and take plain gradient steps. That is all
# there is to *short-run maximum likelihood*. Left: we know $W$, and learn the whole tilted prior from scratch. The
# dashed line is the best that any Gaussian at all could do on these data. Right: only $A$, $b$, $s$ are learned, and we
# start *at the truth*, with both phases and with one.


# %%
def learn(p, free, n_updates, rate=0.05, one_phase=()):
    p, curve = dict(p), []
    for _ in range(n_updates):
        curve.append(log_evidence(p, x).mean())
        positive, negative = chain(p, n_data, 0.3, 50, x), chain(p, n_data, 0.3, 50)
        g = two_phases(p, positive, negative, x)
        g |= {k: v for k, v in gradient_of_parameters(p, positive, x).items() if k in one_phase}
        p |= {k: p[k] + rate * g[k] for k in free}
    return p, np.array(curve + [log_evidence(p, x).mean()])


n_updates = 30 if SMOKE else 400
scratch = {k: 0 * v for k, v in truth.items()} | {"W": truth["W"]}
learned, curve = learn(scratch, [k for k in truth if k != "W"], n_updates)
_, right = learn(truth, names, n_updates)
_, wrong = learn(truth, names, n_updates, one_phase=names)
ceiling = -0.5 * np.linalg.slogdet(2 * np.pi * np.cov(x.T, bias=True))[1] - 0.5 * x.shape[1]

fig, axes = plt.subplots(1, 2, figsize=(10, 3.6))
axes[0].plot(curve, color=TILTED, lw=2, label="two phases")
axes[0].set(title="the whole prior, from scratch", ylabel="mean log p(x), closed form")
axes[1].plot(right, color=TILTED, lw=2, label="two phases")
axes[1].plot(wrong, color=WRONG, lw=2, label="one phase for $A$, $b$, $s$")
axes[1].set(title="$A$, $b$, $s$, from the truth")
for ax in axes:
    ax.axhline(ceiling, color="black", ls="--", lw=1, label="best Gaussian")
    ax.set_xlabel("update")
    ax.legend(frameon=False, loc="best")
fig.tight_layout()
plt.show()

print(f"from scratch: {curve[0]:.3f} -> {curve[-1]:.3f};  best Gaussian {ceiling:.3f}")
print(f"from truth:   {right[0]:.3f} -> {right[-1]:.3f} with both phases, -> {wrong[-1]:.3f} with one")
assert curve[-1] > curve[0] + 0.3 and abs(right[-1] - right[0]) < 0.02
assert SMOKE or (ceiling - curve[-1] < 0.05 and wrong[-1] < wrong[0] - 0.05)

# %% [markdown]
# With one phase, learning walks *away* from the truth it was given, and settles there in peace. Nothing warns you. With
# both it stays. (Its jitter, and the hundredth of a nat it gives up, are the price of short chains and few samples.)
#
# Two honest remarks.
#
# - If the tilts are learned too, they can make up for the mistake in this small model, because a quadratic tilt can
#   undo what a linear layer does. Do not count on that with neural nets.
# - We kept $W$ fixed for a reason. Start from a small $W$ and learn it too: the quickest way to explain the data is
#   then a wider $z_1$, and the tilt provides it. An exact negative phase would object once the prior gets too wide.
#   Short chains from $N(0, I)$ never get there to see it. Within fifty updates no density is left that could be
#   normalised, at every learning rate we tried, while the chains still look harmless. Then all overflows. This is how
#   tilts run away, and why the library's learners bound and penalise them.

# %% [markdown]
# ## 4. The same with the library
#
# In `pplebm` you write the program and one line `tilt`. The densities, the chains and both phases come from the
# program. Our model is a page of the gallery, and this is all of it:

# %%
import inspect

import torch

import pplebm
from pplebm.kernels import langevin as kernels
from pplebm.objectives.contrast import contrast
from pplebm.sampling import chains

page = pplebm.load("conjugate_tilt")
print(inspect.getsource(page.model))

# %%
# Double precision, so that "the same" can mean the same to twelve digits. It is set back at the end.
torch.set_default_dtype(torch.float64)

program = pplebm.Program(pplebm.bind(page, shape=(3,), d1=2, d2=2, sigma=SIGMA))
ppl = program.ppl
print("latents ", [site.name for site in program.latents])
print("observed", [site.name for site in program.observed])
print("tilts   ", [site.name for site in program.tilts])
print("parameters of the tilts alone:", sorted(program.tilt_params))
print("parameters that enter Z:      ", sorted(program.prior_params))
assert program.prior_params == set(truth) - {"W"}

# %% [markdown]
# It found by itself that everything but $W$ enters $Z$. Now we put our numbers in, and compare: densities, gradients,
# the closed form, and forty Langevin steps with the same noise. Noise comes from keys, so we can hand the library's own
# noise to the NumPy chain.

# %%
params = {name: ppl.asarray(value) for name, value in here.items()}
assert set(params) == set(program.params)
x_torch = ppl.asarray(x)


def to_numpy(tree):
    return {name: ppl.to_numpy(a) for name, a in tree.items()}


def compare(what, ours, theirs, tolerance=1e-10):
    ours, theirs = (v if isinstance(v, dict) else {"": v} for v in (ours, theirs))
    gap = max(np.abs(ours[k] - np.asarray(theirs[k])).max() for k in ours)
    print(f"{what:34} largest difference {gap:.1e}")
    assert set(ours) == set(theirs) and gap < tolerance


z = normal(n_data)
z_torch = {name: ppl.asarray(a) for name, a in z.items()}
compare("log p̃(x, z)", log_joint(here, z, x), program.log_joint(params, z_torch, x_torch))
compare("log p̃(z)", log_prior(here, z), program.log_prior(params, z_torch))
_, g = ppl.value_and_grad(lambda z: program.log_joint(params, z, x_torch), z_torch)
compare("gradient in z", gradient(here, z, x), to_numpy(g))

hyper = page.Hyper(d1=2, d2=2, sigma=SIGMA)
log_z = page.closed_form(here, hyper).log_constant
evidence = np.array([page.closed_form(here, hyper, row).log_constant - log_z for row in x])
compare("log p(x), closed form", log_evidence(here, x), evidence)
print(f"and log Z = {log_z:.4f}")


# %%
def both_chains(p, params, key, x=None, step_size=0.3, n_steps=40):
    """The library's chain and the NumPy chain, from the same start with the same noise."""
    k_start, k_run = ppl.split(key)
    start = ppl.normal_like(k_start, z_torch)

    if x is None:
        log_density = lambda z: program.log_prior(params, z)
    else:
        log_density = lambda z: program.log_joint(params, z, ppl.asarray(x))
    state = kernels.init(ppl, start)
    state, _ = chains.run(ppl, k_run, state, log_density, kernels.langevin(step_size), n_steps)

    noises = [to_numpy(ppl.normal_like(k, start)) for k in ppl.split(k_run, n_steps)]
    ours = langevin(to_numpy(start), lambda z: gradient(p, z, x), step_size, noises)
    return ours, state.z


ours, theirs = both_chains(here, params, ppl.key(1))
compare("40 steps towards the tilted prior", ours, to_numpy(theirs))
ours, theirs = both_chains(here, params, ppl.key(2), x)
compare("40 steps towards the posterior", ours, to_numpy(theirs))

# %% [markdown]
# Last, two learning updates. `contrast` is a scalar whose gradient is *minus* the two-phase gradient at given samples.
# So the library steps down where we step up.


# %%
def library_gradient(params, positive, negative):
    loss = lambda params: contrast(program, params, x_torch, positive, negative)
    return ppl.value_and_grad(loss, params, has_aux=True)[1]


p, rate = dict(here), 0.05
for update in (1, 2):
    k_positive, k_negative = ppl.split(ppl.key(10 + update))
    positive, positive_torch = both_chains(p, params, k_positive, x)
    negative, negative_torch = both_chains(p, params, k_negative)

    g = two_phases(p, positive, negative, x)
    p = {k: p[k] + rate * g[k] for k in p}

    g_torch = library_gradient(params, positive_torch, negative_torch)
    params = {k: params[k] - rate * g_torch[k] for k in params}
    compare(f"parameters after update {update}", p, to_numpy(params))

print(f"log p(x): {log_evidence(here, x).mean():.4f} -> {log_evidence(p, x).mean():.4f}")
assert log_evidence(p, x).mean() > log_evidence(here, x).mean()
torch.set_default_dtype(torch.float32)  # as it was

# %% [markdown]
# **What to take along**
#
# - A tilt multiplies the prior by $e^f$. What it changes is not only $f$: every parameter of the prior now enters $Z$.
# - Langevin needs only $\nabla \log \tilde p$. Its step size is a choice with a known price.
# - The gradient has two phases, for *all* prior parameters. Forget one and learning goes wrong in silence.
#
# Next: [your first tilted model](01_first_tilted_model.ipynb), with neural nets, on handwritten digits.
