"""The guided denoiser of one edit: three evaluations of the model where three are needed, fewer where not.

        latents ──► [null content, content]  one batch of two ──► mu(0), mu(c) ┐
           │                                                                   ├─ equation 10 ─► prediction
           └──────► frames folded into the batch, temporal layers off ─► mu_pi(0) ┘

The guidance scales are traced, so changing them compiles nothing; a branch whose weight is zero is not evaluated.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int

from gen1_jax.diffusion.guidance import branch_weights
from gen1_jax.diffusion.samplers import Denoiser

Model = Callable[..., Float[Array, "b t h w c"]]
"""(latents (B T h w C), timesteps (B,), content (B N D), structure (B T h w S) or None, level (B,)) -> (B T h w C)."""


def per_frame(model: Model) -> Model:
    """The image model mu_pi: frames folded into the batch, so that temporal layers are bypassed."""

    def apply(latents, timesteps, content, structure, structure_level):
        batch, frames = latents.shape[:2]
        fold = lambda x: None if x is None else rearrange(x, "b t h w c -> (b t) 1 h w c")
        repeat = lambda x: x.repeat(frames, axis=0)
        out = model(fold(latents), repeat(timesteps), repeat(content), fold(structure), repeat(structure_level))
        return rearrange(out, "(b t) 1 h w c -> b t h w c", b=batch)

    return apply


def guided_denoiser(
    video_model: Model,
    image_model: Model,
    *,
    content: Float[Array, "b n d"],
    structure: Float[Array, "b t h w s"] | None,
    structure_level: Int[Array, " b"],
    guidance_scale: Float[Array, ""],
    temporal_guidance_scale: Float[Array, ""],
) -> Denoiser:
    """Temporal-consistency guidance (arXiv 2302.03011, equation 10) around a space-time model.

    Args:
        video_model: mu, the space-time model.
        image_model: mu_pi, usually `per_frame` of the same model.
        content: CLIP image embedding tokens; zeros are the null content.
        structure: encoded structure, None for a model that takes none.
        structure_level: t_s.
        guidance_scale: w, traced. At 0 the conditional branch is not evaluated.
        temporal_guidance_scale: w_t, traced. At 1 the image branch is not evaluated. Of one frame it is
            without effect, since both branches are the image model.
    """
    null_content = jnp.zeros_like(content)

    def video(latents, timesteps, *contents):
        n = len(contents)
        repeat = lambda x: None if x is None else jnp.concatenate([x] * n)
        return jnp.split(
            video_model(
                repeat(latents),
                repeat(timesteps),
                jnp.concatenate(contents),
                repeat(structure),
                repeat(structure_level),
            ),
            n,
        )

    def denoise(latents, timesteps):
        w_t = jnp.where(latents.shape[1] == 1, 1.0, temporal_guidance_scale)
        w_image, w_null, w_content = branch_weights(guidance_scale, w_t)
        zeros = jnp.zeros_like(latents)

        def one(args):  # null content unless only the content has weight
            (out,) = video(*args, jnp.where(w_content != 0, content, null_content))
            return (w_null + w_content) * out

        def both(args):
            null, cond = video(*args, null_content, content)
            return w_null * null + w_content * cond

        def image(args):
            return w_image * image_model(*args, null_content, structure, structure_level)

        args = (latents, timesteps)
        needed = (w_null != 0).astype(int) + (w_content != 0)
        out = jax.lax.switch(needed, [lambda _: zeros, one, both], args)
        if latents.shape[1] == 1:
            return out
        return out + jax.lax.cond(w_image != 0, image, lambda _: zeros, args)

    return denoise
