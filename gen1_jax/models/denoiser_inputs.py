"""What a denoiser of any kind is told: structures as further channels, one of them by itself, and what is wrong."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from gen1_jax.errors import UserError
from gen1_jax.models.conditions import Conditions, Maps, PerClip, Signal, Tokens
from gen1_jax.models.denoiser_config import KNOWN, DenoiserConfig
from gen1_jax.models.layers import timestep_embedding


def input_channels(
    config: DenoiserConfig, conditions: Conditions, latents: Float[Array, "b t h w c"], timesteps: Int[Array, " b"]
) -> tuple[Float[Array, "b t h w k"] | None, tuple[str, ...]]:
    """Channels beside z_t, of each structure and of the embedding of its t_s (arXiv 2302.03011, 3.2).

    The cosines of the embedding of t_s 0 are 1, so that a structure which is given is told from one which is not: all
    channels of that are zero. What is known brings its mask.

    Args:
        config: names the inputs.
        conditions: has all of them, or some, where the model can do without the others.
        latents: of the shape that the channels get.
        timesteps: of each clip.

    Returns:
        The channels of the inputs that are given, in the dtype of the latents, and their names; None if there are none.
    """
    channels, given = [], tuple(name for name in config.inputs if name in conditions.structure)
    for name in given:
        signal = conditions.structure[name].at(timesteps)
        channels.append(signal.weighted_maps.astype(latents.dtype))
        if name != KNOWN:
            level = timestep_embedding(signal.level, config.structure_level_channels, config.structure_level_period)
            level = (level * signal.weight[:, None])[:, None, None, None]
            level = jnp.broadcast_to(level, (*latents.shape[:-1], level.shape[-1]))
            channels.append(level.astype(latents.dtype))
    return jnp.concatenate(channels, axis=-1) if channels else None, given


def check_told(config: DenoiserConfig, frames: int, conditions: Conditions) -> None:
    """A denoiser can be told this.

    Args:
        config: of the denoiser.
        frames: of the clips.
        conditions: what it is told.

    Raises:
        UserError: more frames than it takes, or content or structure of other kinds, or not all that it needs.
    """
    given = set(conditions.structure)
    if frames > config.max_frames:
        raise UserError(f"{frames} frames, but the model has {config.max_frames} frame positions (max_frames)")
    if missing := sorted(set(config.required) - given):
        raise UserError(f"this model needs structure: {', '.join(missing)}")
    if unknown := sorted(given - set(config.kinds) - set(config.inputs)):
        takes = f"only {', '.join(config.kinds)}" if config.kinds else "no structure"
        raise UserError(f"this model takes {takes}, not {', '.join(unknown)}")
    if conditions.guidance is not None and not config.guidance_embedded:
        raise UserError("this model is not told scales of guidance: it was not distilled (guidance_embedded)")
    if config.content_kind not in conditions.content:
        raise UserError(f"this model needs content of kind {config.content_kind!r}")
    if takes_no := sorted(set(conditions.content) - set(config.content_kinds)):
        raise UserError(f"this model takes no content of kind {takes_no[0]!r}")


class CalledWithOneStructure:
    """A denoiser's shortest call. Mixed into networks that have `config` and `denoise`."""

    def __call__(
        self,
        latents: Float[Array, "b t h w c"],
        timesteps: Int[Array, " b"],
        content: Float[Array, "b n d"],
        structure: Float[Array, "b t h w s"] | None = None,
        structure_level: Int[Array, " b"] | None = None,
    ) -> Float[Array, "b t h w c"]:
        """One evaluation of the network with one structure; see `denoise`.

        Args:
            latents: z_t. t = 1 is an image.
            timesteps: diffusion step of each clip, 0 to 999.
            content: CLIP image embedding(s) as cross-attention tokens; zeros are the null content.
            structure: encoded blurred depth, or features of a hint (`hint`); None only if the model needs none.
            structure_level: t_s, rounds of blur of each clip's structure.

        Returns:
            The prediction, float32.

        Raises:
            ValueError: more frames than frame positions, or structure where the model has none, or none where it has.
        """
        conditions = conditions_of(self.config, content, structure, structure_level)
        return self.denoise(latents, timesteps, conditions)[0]


def known_signal(latents: Float[Array, "b t h w c"], mask: Float[Array, "b t h w 1"]) -> Signal:
    """The signal `KNOWN` of latents that are given where the mask is 1; what they are elsewhere does not matter."""
    return Signal.of(jnp.concatenate([latents * mask, mask.astype(latents.dtype)], axis=-1))


def conditions_of(
    config: DenoiserConfig,
    content: Tokens,
    structure: Maps | None = None,
    structure_level: PerClip | None = None,
) -> Conditions:
    """The conditions of a model with one structure.

    Args:
        config: names the kinds.
        content: (B, N, D) tokens.
        structure: (B, T, h, w, c), encoded (of the first kind that it can follow); None for none.
        structure_level: (B,), t_s; 0 if None.
    """
    kind = config.kinds[0] if config.kinds else config.structure_kinds[0]
    signals = {} if structure is None else {kind: Signal.of(structure, structure_level)}
    return Conditions(content={config.content_kind: content}, structure=signals)


def abstract_conditions(config: DenoiserConfig, shape: tuple[int, ...], tokens: int, dtype: DTypeLike) -> Conditions:
    """Shapes of the conditions of an edit that follows every structure that a model can follow.

    Args:
        config: names the kinds.
        shape: (B, T, h, w, C), of the latents.
        tokens: of the content.
        dtype: of the features of hints.
    """
    array, clips = jax.ShapeDtypeStruct, shape[:1]
    maps = {kind: array((*shape[:-1], config.structure_channels), jnp.float32) for kind in config.structures}
    maps |= {KNOWN: array((*shape[:-1], config.inputs[KNOWN]), jnp.float32)} if config.known else {}
    maps |= {control.kind: array((*shape[:-1], config.hint_features), dtype) for control in config.controls}
    level, weight = array(clips, jnp.int32), array(clips, jnp.float32)
    return Conditions(
        content={config.content_kind: array((*clips, tokens, config.cross_attention_dim), jnp.float32)},
        structure={kind: Signal(x, level, weight) for kind, x in maps.items()},
    )
