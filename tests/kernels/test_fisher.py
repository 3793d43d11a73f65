"""The metric from draws and gradients, against the covariances that it must find."""

from __future__ import annotations

import numpy as np
import pytest

from pplebm.kernels.fisher import fisher_metric, matrix, widest
from pplebm.kernels.metric import Metric


def unit(data, width, rank):
    """The metric that begins."""
    return Metric(np.ones((data, width)), np.tile(np.eye(width, rank), (data, 1, 1)), np.ones((data, rank)))


def covariances(data, width, condition, seed=0):
    """With spectra between 1/condition and 1 along directions at random."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(data, width, width)))[0]
    return (turn * np.geomspace(1.0 / condition, 1.0, width)) @ np.swapaxes(turn, 1, 2)


def found(z, gradient, old, times=1, weight=None):
    for _ in range(times):
        old = fisher_metric(z, gradient, np.ones(z.shape[:2]) if weight is None else weight, old)
    return old


def gradients(covariance, z):
    return -np.einsum("bij,nbj->nbi", np.linalg.inv(covariance), z)


def of_gaussians(covariance, n, seed=1):
    """Points as wide as N(0, covariance) but skewed, and the gradients there."""
    rows = np.random.default_rng(seed).gumbel(size=(n, *covariance.shape[:2])) * 6**0.5 / np.pi
    z = np.einsum("bij,nbj->nbi", np.linalg.cholesky(covariance), rows)
    return z, gradients(covariance, z)


def relative(metric, covariance):
    """Eigenvalues of the inverse of the metric times the covariance: 1 where it is right."""
    return np.linalg.eigvals(np.linalg.solve(matrix(metric), covariance)).real


@pytest.mark.parametrize(("width", "condition"), [(2, 10.0), (10, 1e3), (10, 1e5), (50, 1e5)])
def test_a_dense_metric_is_the_covariance_of_a_gaussian(width, condition):
    covariance = covariances(3, width, condition)
    metric = found(*of_gaussians(covariance, 4 * width), unit(3, width, width), times=5)
    assert np.abs(np.log(relative(metric, covariance))).max() < 5e-3


def test_the_covariance_is_found_wherever_the_points_are():
    """Far from the center and as wide in every direction: gradients say what the points do not."""
    covariance = covariances(3, 4, 100.0)
    z = 5.0 + np.random.default_rng(1).gumbel(size=(4000, 3, 4))
    metric = found(z, gradients(covariance, z), unit(3, 4, 4), times=3)
    assert np.abs(np.log(relative(metric, covariance))).max() < 0.05


def test_few_points_are_enough_to_begin_with():
    """Fewer than latents: the spread that is left is far less than that of the target."""
    covariance = covariances(2, 20, 1e4)
    left = relative(found(*of_gaussians(covariance, 12), unit(2, 20, 20)), covariance)
    assert (left.max(1) / left.min(1) < 500).all()


def test_a_diagonal_metric_is_what_the_divergence_asks_for():
    r"""sqrt(sd(z) / sd(g)) of any law; the standard deviations where the target is Gaussian."""
    rng, scale = np.random.default_rng(0), np.geomspace(1e-3, 1e3, 6)
    z = rng.gumbel(size=(400, 2, 6)) * scale
    metric = found(z, -z / scale**2, unit(2, 6, 0))
    np.testing.assert_allclose(metric.scale, np.tile(scale, (2, 1)), rtol=1e-10)
    g = rng.normal(size=z.shape) / scale**2
    np.testing.assert_allclose(found(z, g, unit(2, 6, 0)).scale, np.sqrt(z.std(0) / g.std(0)), rtol=1e-10)
    assert found(z, g, unit(2, 6, 0)).directions.shape == (2, 6, 0)


@pytest.mark.parametrize(("n", "spread"), [(60, 100.0), (400, 30.0)], ids=["fewer points than latents", "more"])
def test_few_wide_and_stiff_directions_of_many_latents_are_found_by_a_low_rank(n, spread):
    rng, excess = np.random.default_rng(0), np.array([1e4, 1e3, 1e2, 1e-2, 1e-3, 1e-4]) - 1.0
    directions = np.linalg.qr(rng.normal(size=(2, 100, 6)))[0]
    covariance = np.eye(100) + (directions * excess) @ np.swapaxes(directions, 1, 2)
    covariance *= (scale := np.exp(rng.normal(size=100))) * scale[:, None]
    z, gradient = of_gaussians(covariance, n)
    for rank, times, least, most in ((0, 1, 1e6, 1e9), (16, 4, 1.0, spread)):
        left = relative(found(z, gradient, unit(2, 100, rank), times), covariance)
        assert (left.max(1) / left.min(1) > least).all() and (left.max(1) / left.min(1) < most).all()


def test_points_without_weight_have_no_say():
    z, gradient = of_gaussians(covariances(2, 4, 100.0), 50)
    bad = np.random.default_rng(0).normal(size=(20, 2, 4)) * 1e100
    weight = np.concatenate([np.ones((50, 2)), np.zeros((20, 2))])
    for rank in (0, 2, 4):
        alone = found(z, gradient, unit(2, 4, rank))
        both = found(np.concatenate([z, bad]), np.concatenate([gradient, bad]), unit(2, 4, rank), weight=weight)
        for a, b in zip(alone[::2], both[::2]):
            np.testing.assert_allclose(a, b, rtol=1e-10)


@pytest.mark.parametrize("rank", [0, 2, 4])
def test_every_datum_has_a_metric_of_its_own(rank):
    """Of scales from 1e-3 to 1e3 in one batch; no other row changes it."""
    covariance = covariances(4, 4, 50.0) * np.geomspace(1e-6, 1e6, 4)[:, None, None]
    z, gradient = of_gaussians(covariance, 60)
    together = found(z, gradient, unit(4, 4, rank))
    for i in range(4):
        alone = found(z[:, [i]], gradient[:, [i]], unit(1, 4, rank))
        np.testing.assert_allclose(matrix(together)[i], matrix(alone)[0], rtol=1e-6, atol=1e-6 * matrix(alone)[0].max())


@pytest.mark.parametrize("rank", [0, 2, 4])
@pytest.mark.parametrize("sick", ["no weight", "one point", "flat"])
def test_where_there_is_nothing_to_learn_from_the_metric_stays(rank, sick):
    """And that of the other datum is learned."""
    z, gradient = of_gaussians(covariances(2, 4, 100.0), 30)
    old, weight = unit(2, 4, rank)._replace(scale=np.full((2, 4), 0.3)), np.ones((30, 2))
    if sick == "no weight":
        weight[:, 0] = 0.0
    elif sick == "one point":
        z[:, 0], gradient[:, 0] = z[0, 0], gradient[0, 0]
    else:
        gradient[:, 0] = 0.0
    new = found(z, gradient, old, weight=weight)
    for a, b in zip(new, old):
        np.testing.assert_array_equal(a[0], b[0])
        assert np.isfinite(a[1]).all()
    assert (new.scale[1] != 0.3).all()


@pytest.mark.parametrize("rank", [0, 2])
def test_a_latent_whose_gradient_never_changes_keeps_its_scale_and_no_other_does(rank):
    """As in the tail of a Laplace law."""
    z, gradient = of_gaussians(covariances(1, 4, 100.0), 30)
    gradient[:, :, 2] = -3.0
    new = found(z, gradient, unit(1, 4, rank)._replace(scale=np.full((1, 4), 0.3)))
    assert ((new.scale[0] == 0.3) == [False, False, True, False]).all()


def test_the_widest_direction_is_in_units_of_the_metric():
    covariance = covariances(2, 5, 100.0)
    metric = found(*of_gaussians(covariance, 400), unit(2, 5, 5), times=4)
    along = np.random.default_rng(0).normal(size=(2, 5))
    half = np.linalg.cholesky(matrix(metric))
    u = np.random.default_rng(1).normal(size=(6000, 2, 5))
    u += 2.0 * np.random.default_rng(2).normal(size=(6000, 2, 1)) * along / np.linalg.norm(along, axis=1)[:, None]
    z, weight = 7.0 + np.einsum("bij,nbj->nbi", half, u), np.ones((6000, 2))
    np.testing.assert_allclose(widest(z, weight, metric), 5.0**0.5, rtol=0.05)
    weight[3000:], z[3000:] = 0.0, 1e4
    np.testing.assert_allclose(widest(z, weight, metric), 5.0**0.5, rtol=0.07)
