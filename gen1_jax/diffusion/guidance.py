"""Temporal-consistency guidance: equation 10 of Gen-1 (https://arxiv.org/abs/2302.03011)."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from gen1_jax.diffusion.broadcast import PerExample, per_example


def temporal_guidance(
    image_uncond: Float[Array, " b *dims"],
    video_uncond: Float[Array, " b *dims"],
    video_cond: Float[Array, " b *dims"],
    guidance_scale: PerExample,
    temporal_guidance_scale: PerExample,
) -> Float[Array, " b *dims"]:
    """Combines three predictions of one model:

        mu~ = mu_pi(z_t, t, 0, s) + w_t (mu(z_t, t, 0, s) - mu_pi(z_t, t, 0, s))
                                  + w   (mu(z_t, t, c, s) - mu(z_t, t, 0, s))

    The weights sum to one (`branch_weights`), so it may be applied to predictions of any type alike.

    Args:
        image_uncond: mu_pi, every frame by itself (temporal layers off), null content.
        video_uncond: mu, the video model with null content.
        video_cond: mu, the video model with the wanted content.
        guidance_scale: w, a scalar or (B,). 1 is the conditional model, 0 leaves the content out.
        temporal_guidance_scale: w_t, a scalar or (B,). 1 is classifier-free guidance, above 1 leads away
            from the frame-by-frame prediction (smoother in time), below 1 towards it.

    Returns:
        (B, ...), at least float32: guidance magnifies differences that half precision cannot hold.
    """
    w = per_example(guidance_scale, video_cond)
    w_t = per_example(temporal_guidance_scale, video_cond)
    dtype = jnp.promote_types(video_cond.dtype, jnp.float32)
    image_uncond, video_uncond, video_cond = (
        branch.astype(dtype) for branch in (image_uncond, video_uncond, video_cond)
    )
    return image_uncond + w_t * (video_uncond - image_uncond) + w * (video_cond - video_uncond)


def branch_weights(guidance_scale: Any, temporal_guidance_scale: Any) -> tuple[Any, Any, Any]:
    """The same combination as weights (1 - w_t, w_t - w, w) of (image_uncond, video_uncond, video_cond).

    They sum to one. A weight of zero marks a branch that need not be computed: the image branch at
    w_t = 1, the conditional one at w = 0, the unconditional video one at w = w_t.
    """
    w, w_t = guidance_scale, temporal_guidance_scale
    return 1 - w_t, w_t - w, w
