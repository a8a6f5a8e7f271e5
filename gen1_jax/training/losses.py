"""Losses of the small networks: pure functions of arrays, in float32, one number an example."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gen1_jax.measures import align_inverse_depth, standardise_inverse_depth

_TINY = 1e-8


def gradient_loss(residual: Float[Array, "b h w *c"], scales: int) -> Float[Array, " b"]:
    """Multi-scale gradient matching: how much the difference of two pictures varies between neighbours.

    Sum over `scales` of the mean absolute difference of vertical and of horizontal neighbours; each scale halves the
    one before by 2x2 means. Zero if the pictures differ by a constant alone. https://arxiv.org/abs/1907.01341, eq. 11.

    Args:
        residual: one picture minus the other.
        scales: at least 1; those that would leave fewer than two pixels along a side are left out.
    """
    total, r = jnp.zeros(residual.shape[0]), residual.astype(jnp.float32)
    for _ in range(scales):
        batch, height, width, *channels = r.shape
        if min(height, width) < 2:
            break
        total += _mean(jnp.abs(jnp.diff(r, axis=1))) + _mean(jnp.abs(jnp.diff(r, axis=2)))
        r = r[:, : height // 2 * 2, : width // 2 * 2]
        r = r.reshape(batch, height // 2, 2, width // 2, 2, *channels).mean((2, 4))
    return total


def kl_divergence(mean: Float[Array, " b *dims"], log_variance: Float[Array, " b *dims"]) -> Float[Array, " b"]:
    """KL(N(mean, variance) || N(0, 1)) in nats, averaged over the elements of each example."""
    return _mean(0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance))


def contrastive_logits(
    images: Float[Array, "b d"],
    texts: Float[Array, "b d"],
    logit_scale: Float[Array, ""],
    excluded: Bool[Array, "b b"],
) -> Float[Array, "b b"]:
    """Scaled cosines of every picture (row) with every text (column); -inf where the pair is `excluded`.

    Args:
        images: embeddings of any length.
        texts: likewise.
        logit_scale: the logarithm of the scale; above ln 100 it counts as ln 100 (arXiv 2103.00020, section 2.5).
        excluded: pairs that are no negatives; never the diagonal.
    """
    scale = jnp.exp(jnp.minimum(logit_scale, jnp.log(100.0)))
    logits = jnp.matmul(unit(images), unit(texts).T, precision="highest") * scale
    return jnp.where(excluded, -jnp.inf, logits)


def contrastive_loss(logits: Float[Array, "b b"]) -> Float[Array, " b"]:
    """Symmetric InfoNCE: mean of each pair's cross-entropy among all texts and among all pictures.

    Source: https://arxiv.org/abs/2103.00020, figure 3.
    """
    positive = jnp.diagonal(logits)
    return 0.5 * (jax.nn.logsumexp(logits, axis=1) + jax.nn.logsumexp(logits, axis=0)) - positive


def unit(vectors: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """The vectors at length 1, in float32."""
    x = vectors.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + _TINY**2)


def cosine(a: Float[Array, "b d"], b: Float[Array, "b d"]) -> Float[Array, " b"]:
    """Cosine of the angle between the vectors of each example."""
    return jnp.sum(unit(a) * unit(b), axis=-1)


def scale_shift_invariant_loss(
    prediction: Float[Array, "b h w"],
    target: Float[Array, "b h w"],
    *,
    trim: float,
    gradient_weight: float,
    scales: int,
) -> Float[Array, " b"]:
    """MiDaS's loss of inverse depth, whatever the scale and shift of either side.

    https://arxiv.org/abs/1907.01341: the target is brought to median 0 and mean deviation 1 (eq. 5 and 6), the
    prediction aligned to it, and the loss is the trimmed absolute error (eq. 7) plus gradient matching (eq. 11, 12).

    Args:
        prediction: inverse depth.
        target: inverse depth; where it is constant, the loss is 0.
        trim: the share of pixels, those of the largest error, that count only in gradient matching.
        gradient_weight: alpha of eq. 12.
        scales: of gradient matching.
    """
    target = standardise_inverse_depth(target.astype(jnp.float32))
    residual = align_inverse_depth(prediction.astype(jnp.float32), target) - target
    return _trimmed(residual, trim) + gradient_weight * gradient_loss(residual, scales)


def clip_depth_loss(
    prediction: Float[Array, "b t h w"],
    target: Float[Array, "b t h w"],
    *,
    trim: float,
    gradient_weight: float,
    scales: int,
    temporal_weight: float,
    still: float,
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """`scale_shift_invariant_loss` with one scale and shift a clip, and how depth changes from frame to frame.

    https://arxiv.org/abs/2501.12375: the change between neighbouring frames is compared with the true one, pixel by
    pixel, where the true one is small: there the same surface is seen again. Unlike there, the scale and the shift of
    the first part are the clip's, too: the depth of an edit is normalised once over its clip.

    Args:
        prediction: inverse depth.
        target: inverse depth; where it is constant over a clip, the loss is 0.
        trim, gradient_weight, scales: see `scale_shift_invariant_loss`.
        temporal_weight: of the changes.
        still: which changes are small, as a share of the range of the target in the frame.

    Returns:
        The loss, and the mean error of the changes, in mean absolute deviations of the target.
    """
    tall = lambda x: x.reshape(len(x), -1, x.shape[-1]).astype(jnp.float32)
    true = standardise_inverse_depth(tall(target))
    aligned = align_inverse_depth(tall(prediction), true)
    residual, true = (x.reshape(target.shape) for x in (aligned - true, true))
    frames = residual.reshape(-1, *residual.shape[2:])
    gradients = gradient_loss(frames, scales).reshape(residual.shape[:2]).mean(1)
    low, high = (f(true[:, :-1], axis=(2, 3), keepdims=True) for f in (jnp.min, jnp.max))
    small = jnp.abs(jnp.diff(true, axis=1)) < still * (high - low)
    changes = jnp.sum(jnp.abs(jnp.diff(residual, axis=1)) * small, (1, 2, 3)) / jnp.maximum(small.sum((1, 2, 3)), 1)
    return _trimmed(residual, trim) + gradient_weight * gradients + temporal_weight * changes, changes


def _trimmed(residual: Float[Array, " b *dims"], trim: float) -> Float[Array, " b"]:
    """Half the mean absolute error, without the share of the largest ones."""
    error = jnp.abs(residual).reshape(len(residual), -1)
    pixels = error.shape[1]
    kept = max(1, round((1 - trim) * pixels))
    if kept < pixels:
        largest = jnp.sort(jax.lax.stop_gradient(error), axis=1)[:, kept - 1 : kept]
        error = jnp.where(error <= largest, error, 0)
    return jnp.sum(error, axis=1) / (2 * pixels)


def _mean(x: Float[Array, " b *dims"]) -> Float[Array, " b"]:
    return x.mean(range(1, x.ndim))
