"""Each loss against the formula of its paper, written again in plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
from inverse_depth import correlated_pair, lstsq
from oracle import relative_error

from gen1_jax.training.losses import (
    contrastive_logits,
    contrastive_loss,
    gradient_loss,
    kl_divergence,
    scale_shift_invariant_loss,
)
from gen1_jax.training.photometric import PhotometricConfig, _blur, change_light


@jax.jit
def midas_loss(prediction, target):
    return scale_shift_invariant_loss(prediction, target, trim=0.2, gradient_weight=0.5, scales=4)


@jax.jit
def midas_slope(prediction, target):
    return jax.grad(lambda p: midas_loss(p, target).sum())(prediction)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def gradients_of(residual, scales):
    total = 0.0
    for level in range(scales):
        n = 2**level
        height, width = residual.shape[0] // n, residual.shape[1] // n
        r = np.array(
            [[residual[n * i : n * i + n, n * j : n * j + n].mean() for j in range(width)] for i in range(height)]
        )
        total += np.abs(r[1:] - r[:-1]).mean() + np.abs(r[:, 1:] - r[:, :-1]).mean()
    return total


def test_gradient_loss():
    residual = random(2, 16, 24)
    expected = [gradients_of(r.astype(np.float64), 3) for r in residual]
    assert relative_error(gradient_loss(jnp.asarray(residual), 3), expected) < 1e-5
    assert np.array_equal(gradient_loss(jnp.full((1, 8, 8, 3), 7.0), 3), [0])
    assert np.isfinite(gradient_loss(jnp.asarray(random(1, 3, 5, 3)), 8)).all()  # runs out of pixels


def test_kl_divergence_is_torchs():
    import torch
    from torch.distributions import Normal
    from torch.distributions import kl_divergence as torch_kl

    mean, log_variance = random(2, 4, 4, 3), random(2, 4, 4, 3, seed=1)
    theirs = torch_kl(Normal(torch.tensor(mean), torch.tensor(log_variance).mul(0.5).exp()), Normal(0.0, 1.0))
    assert relative_error(kl_divergence(jnp.asarray(mean), jnp.asarray(log_variance)), theirs.mean((1, 2, 3))) < 1e-5


def test_contrastive_loss_is_cross_entropy_both_ways_without_the_excluded():
    import torch

    images, texts, excluded = random(4, 6), random(4, 6, seed=1), np.zeros((4, 4), bool)
    excluded[0, 3] = excluded[3, 0] = True
    a, b = (torch.nn.functional.normalize(torch.tensor(x), dim=-1) for x in (images, texts))
    logits = (a @ b.T * 20).masked_fill(torch.tensor(excluded), -torch.inf)
    both = [torch.nn.functional.cross_entropy(x, torch.arange(4), reduction="none") for x in (logits, logits.T)]
    ours = contrastive_logits(*map(jnp.asarray, (images, texts)), jnp.log(20.0), jnp.asarray(excluded))
    assert relative_error(contrastive_loss(ours), (both[0] + both[1]) / 2) < 1e-5


def test_logit_scale_has_a_limit():
    images, excluded = jnp.asarray(random(3, 6)), jnp.zeros((3, 3), bool)
    diagonal = jnp.diagonal(contrastive_logits(images, images, jnp.float32(9.0), excluded))
    assert np.allclose(diagonal, 100, rtol=1e-5)


def test_depth_loss_is_midas():
    prediction, target = correlated_pair()
    expected = []
    for p, t in zip(prediction.astype(np.float64), target.astype(np.float64), strict=True):
        t = t - np.median(t)
        t = t / np.abs(t).mean()
        residual = lstsq(p, t) - t
        kept = np.sort(np.abs(residual).ravel())[: round(0.8 * residual.size)]
        expected.append(kept.sum() / (2 * residual.size) + 0.5 * gradients_of(residual, 4))
    ours = midas_loss(prediction, target)
    assert relative_error(ours, expected) < 1e-4


def test_depth_loss_knows_neither_scale_nor_shift_but_which_way_is_up():
    prediction, target = correlated_pair()
    right = midas_loss(prediction, target)
    assert np.allclose(right, midas_loss(3 * prediction + 7, target), rtol=1e-3)
    assert np.allclose(right, midas_loss(prediction, 5 * target - 2), rtol=1e-3)
    assert (midas_loss(-prediction, target) > 2 * right).all()
    slope = midas_slope(-prediction, target)
    # a step down the loss turns it the right way up
    assert ((slope * (target - target.mean((1, 2), keepdims=True))).sum((1, 2)) < 0).all()


def test_depth_loss_of_a_wall_is_finite():
    prediction, target = correlated_pair()
    wall = np.full_like(target, 0.3)
    assert np.isfinite(midas_loss(wall, target)).all() and np.isfinite(midas_slope(wall, target)).all()
    assert not midas_loss(prediction, wall).any() and not midas_slope(prediction, wall).any()


def test_light():
    images = jnp.tanh(jnp.asarray(random(3, 8, 12, 3)))
    keys = jax.random.split(jax.random.key(0), 3)
    change = jax.jit(change_light, static_argnums=2)
    still = PhotometricConfig(gamma=0.0, gain=0.0, contrast=0.0, brightness=0.0, saturation=0.0, blur=0.0, noise=0.0)
    assert np.allclose(change(images, keys, still), images, atol=1e-5)

    changed = change(images, keys, PhotometricConfig())
    assert np.isfinite(changed).all() and np.abs(changed).max() <= 1
    assert (np.abs(changed - images).mean((1, 2, 3)) > 0.02).all()
    assert np.allclose(change(images[::-1], keys[::-1], PhotometricConfig())[::-1], changed, atol=1e-6)


def test_blur_is_gaussian():
    import scipy.ndimage  # comes with jax

    images = jnp.tanh(jnp.asarray(random(1, 8, 12, 3)))
    theirs = scipy.ndimage.gaussian_filter(np.asarray(images[0]), (1.0, 1.0, 0), mode="nearest", truncate=8)
    assert np.allclose(_blur(images[0], jnp.float32(1.0))[4, 6], theirs[4, 6], atol=2e-3)
