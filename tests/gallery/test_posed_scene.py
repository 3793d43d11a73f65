"""Scenes from an angle: rendering, and evidence and pose where the renderer is linear in the latents."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from scipy.ndimage import rotate
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import pplebm

PAGE = pplebm.load("posed_scene")
SIZE = (5, 5)
LINEAR = {"shape_dim": 2, "appearance_dim": 1, "blend": "sum", "depth": 0, "blobs": 3, "blob_width": 0.5, "sigma": 0.4,
          "tilt_bound": 1e7}  # fmt: skip
ANGLES = np.linspace(-np.pi, np.pi, 360, endpoint=False)


@pytest.fixture
def double(ppl, float64):
    """Double precision on the backend under test."""
    import jax

    with jax.enable_x64(True) if ppl.name == "numpyro" else contextlib.nullcontext():
        yield ppl


def program_of(ppl, pose, **hyper):
    """A program at parameters far from where they begin, and these; the same ones whatever the pose is."""
    data = {"x": np.zeros((2, *SIZE))} | ({"direction": np.eye(2)} if pose == "known" else {})
    bound = pplebm.bind("posed_scene", ppl.name, shape={"x": SIZE}, pose=pose, **hyper)
    program = pplebm.Program(bound, data=data)
    rng = np.random.default_rng(2)
    moved = {n: ppl.to_numpy(p) + 0.7 * rng.normal(size=tuple(p.shape)) for n, p in sorted(program.params.items())}
    return program.with_params({n: ppl.asarray(a) for n, a in moved.items()}), moved


def basis(angle):
    """Pixels by blobs, written once more: pixel rows from the top, blobs turned counterclockwise."""
    line = (np.arange(5) - 2.0) * 2 / 5
    pixels = np.array([(a, b) for b in line[::-1] for a in line])
    centers = 0.9 * np.array([(a, b) for b in (2 / 3, 0.0, -2 / 3) for a in (-2 / 3, 0.0, 2 / 3)])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    far = ((pixels[:, None] - centers @ turn.T) ** 2).sum(-1)
    return np.exp(-far / (2 * LINEAR["blob_width"] ** 2))


def law(at, angle):
    """Of x given the angle: shape is N(α, I) and appearance N(β, I) under linear tilts, and x linear in both."""
    b = basis(angle)
    shape, look = at["tilt_shape.weight_0"][0], at["tilt_appearance.weight_0"][0]
    w = np.concatenate([at["opacity.weight_0"], at["brightness.weight_0"]], 1)
    mean = w @ np.concatenate([shape, look]) + at["opacity.bias_0"] + at["brightness.bias_0"]
    return multivariate_normal(b @ mean, b @ w @ w.T @ b.T + LINEAR["sigma"] ** 2 * np.eye(25))


def images(at, n=3):
    """Draws of the model at known angles, and these."""
    angle = np.array([0.3, -1.9, 2.6])[:n]
    return np.stack([law(at, a).rvs(random_state=i).reshape(SIZE) for i, a in enumerate(angle)]), angle


def test_the_evidence_is_that_of_the_closed_form_at_every_angle(double):
    """Within 5 of its errors, log Z as well; half a radian away the evidence is another one."""
    program, at = program_of(double, "known", **LINEAR)
    x, angle = images(at)
    given = {"x": x, "direction": PAGE.as_direction(angle)}
    found = pplebm.log_evidence(program, given, progress=False)
    exact = np.array([law(at, a).logpdf(row.ravel()) for a, row in zip(angle, x, strict=True)])
    assert (np.abs(found.value - exact) < 5.0 * found.error).all() and (found.error < 0.3).all()
    off = np.array([law(at, a + 0.5).logpdf(row.ravel()) for a, row in zip(angle, x, strict=True)])
    assert (np.abs(off - exact) > 10.0 * found.error).all(), "images that do not tell the angle"
    log_z = pplebm.log_z(program, progress=False)
    shape, look = at["tilt_shape.weight_0"][0], at["tilt_appearance.weight_0"][0]
    constant = 0.5 * (shape @ shape + look @ look) + at["tilt_shape.bias_0"][0] + at["tilt_appearance.bias_0"][0]
    assert abs(log_z.value[0] - constant) < 5.0 * log_z.error[0]


def test_the_evidence_of_a_latent_pose_is_its_mean_over_the_circle(double):
    program, at = program_of(double, "latent", **LINEAR)
    x, _ = images(at, 2)
    found = pplebm.log_evidence(program, {"x": x}, method="ais", progress=False)
    by_angle = np.array([[law(at, a).logpdf(row.ravel()) for a in ANGLES] for row in x])
    exact = logsumexp(by_angle, axis=1) - np.log(len(ANGLES))
    assert (np.abs(found.value - exact) < 5.0 * found.error).all() and (found.error < 0.6).all()


def test_the_posterior_of_the_pose_is_that_of_the_grid(double):
    program, at = program_of(double, "latent", **LINEAR)
    x, _ = images(at, 1)
    by_angle = np.array([law(at, a).logpdf(x[0].ravel()) for a in ANGLES])
    chance = np.exp(by_angle - logsumexp(by_angle))
    top = ANGLES[chance.argmax()]
    starts = {"shape": np.zeros(2), "appearance": np.zeros(1), "pose": PAGE.as_direction(top)}
    begin = {name: double.asarray(np.tile(start, (24, 1))) for name, start in starts.items()}
    draws = pplebm.sample(program, data={"x": x}, n_chains=24, n_draws=50, n_warmup=150, seed=1, progress=False,
                          init=begin)  # fmt: skip
    pose = np.asarray(draws["pose"]).reshape(24, -1, 2)
    near = lambda a: np.abs(np.angle(np.exp(1j * (a - top)))) < 1.0  # of the mode that chains began at
    angle = np.arctan2(pose[..., 1], pose[..., 0])
    assert near(angle).mean() > 0.99
    exact = (chance * np.sin(ANGLES - top) * near(ANGLES)).sum() / chance[near(ANGLES)].sum()
    spread = np.sqrt((chance * np.sin(ANGLES - top) ** 2 * near(ANGLES)).sum() / chance[near(ANGLES)].sum())
    by_chain = np.sin(angle - top).mean(1)
    assert abs(by_chain.mean() - exact) < 5.0 * by_chain.std(ddof=1) / 24**0.5
    assert np.sin(angle - top).std() == pytest.approx(spread, rel=0.15)


def test_a_quarter_turn_turns_the_image(ppl):
    """Counterclockwise, as scipy turns an array shown with its rows from the top; for the page's own blend too."""
    hyper = LINEAR | {"blend": "product", "depth": 1}
    program, _ = program_of(ppl, "known", **hyper)
    z = program.draw_base(ppl.key(0), 1)
    z = {k: ppl.asarray(np.repeat(ppl.to_numpy(a), 4, 0)) for k, a in z.items()}
    angle = np.arange(4) * np.pi / 2
    rows = program.data({"x": np.zeros((4, *SIZE)), "direction": PAGE.as_direction(angle)})
    seen = ppl.to_numpy(program.predict(program.params, z, data=rows)["x"])
    for i in range(4):
        np.testing.assert_allclose(seen[i], rotate(seen[0], 90 * i, reshape=False), atol=1e-4)
        np.testing.assert_allclose(seen[i], np.rot90(seen[0], i), atol=1e-4)
    assert np.abs(seen[1] - seen[0]).max() > 0.1
