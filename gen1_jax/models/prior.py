"""The diffusion prior: from a text's CLIP embedding to an image embedding that fits it (unCLIP, as Karlo).

    text states (b 77 d) ┐
    text embedding (b d) │
    timestep (b)         ├─► 81 tokens ─► causal transformer ─► the last token ─► predicted image embedding (b d)
    noisy embedding (b d)│
    learnt query         ┘

Source: https://arxiv.org/abs/2204.06125, section 2.2; parameters and arithmetic as in diffusers' PriorTransformer and
UnCLIPScheduler, so that kakaobrain/karlo-v1-alpha's prior can be read.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray, Shaped

from gen1_jax.errors import UserError
from gen1_jax.models.layers import EMBEDDING, ONES, ZEROS, Linear, TimestepMLP, parameter
from gen1_jax.models.norms import LayerNorm
from gen1_jax.models.transformer import TransformerLayer

_ADDED_TOKENS = 4  # text embedding, timestep, noisy image embedding, query
_TRAINING_STEPS = 1000
_CLIP_RANGE = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """Shape of a `PriorTransformer`. The defaults are Karlo's; names are diffusers'.

    Attributes:
        num_attention_heads: heads of each layer.
        attention_head_dim: width of a head; a token is num_attention_heads times as wide.
        num_layers: layers of the transformer.
        embedding_dim: width of the image embedding and of the text embedding.
        num_embeddings: number of text tokens.
        text_hidden_size: width of the state of a text token.
    """

    num_attention_heads: int = 32
    attention_head_dim: int = 64
    num_layers: int = 20
    embedding_dim: int = 768
    num_embeddings: int = 77
    text_hidden_size: int = 768

    @property
    def width(self) -> int:
        """Width of a token."""
        return self.num_attention_heads * self.attention_head_dim


class PriorTransformer(nnx.Module):
    """Predicts x0, a clean image embedding, from a noisy one and a text; `sample` runs the whole diffusion.

    Inside, image embeddings are standardised by the parameters `clip_mean` and `clip_std`, each (1, embedding_dim).

    Args:
        config: the shape of the network.
        dtype: dtype of the computation; parameters keep their own, norms and softmax use float32.
    """

    def __init__(self, config: PriorConfig, *, dtype: DTypeLike = jnp.float32):
        self.config, self.dtype = config, jnp.dtype(dtype)
        width, features = config.width, config.embedding_dim
        self.time_embedding = TimestepMLP(width, width)
        self.proj_in = Linear(features, width)
        self.embedding_proj = Linear(features, width)
        self.encoder_hidden_states_proj = Linear(config.text_hidden_size, width)
        self.positional_embedding = parameter((1, config.num_embeddings + _ADDED_TOKENS, width), EMBEDDING)
        self.prd_embedding = parameter((1, 1, width), EMBEDDING)  # the query
        self.layers = nnx.List(
            [TransformerLayer(width, config.num_attention_heads, 4 * width) for _ in range(config.num_layers)]
        )
        self.norm_out = LayerNorm(width)
        self.proj_to_clip_embeddings = Linear(width, features)
        self.clip_mean = parameter((1, features), ZEROS)
        self.clip_std = parameter((1, features), ONES)

    def __call__(
        self,
        embedding: Float[Array, "b d"],
        timesteps: Int[Array, " b"],
        text_embedding: Float[Array, "b d"],
        text_hidden_states: Float[Array, "b n e"],
        text_mask: Bool[Array, "b n"],
    ) -> Float[Array, "b d"]:
        """One evaluation of the network.

        Args:
            embedding: noisy image embedding, standardised.
            timesteps: diffusion step of each, 0 to 999.
            text_embedding: CLIP's projected embedding of each text, not normalised.
            text_hidden_states: the state of each text token after CLIP's final norm; n = `config.num_embeddings`.
            text_mask: True at the text's own tokens, False at padding.

        Returns:
            The predicted clean image embedding, standardised, float32.
        """
        dtype = self.dtype
        added = [
            self.embedding_proj(text_embedding.astype(dtype)),
            self.time_embedding(timesteps).astype(dtype),
            self.proj_in(embedding.astype(dtype)),
            jnp.broadcast_to(self.prd_embedding[...].astype(dtype)[0], (len(timesteps), self.config.width)),
        ]
        text = self.encoder_hidden_states_proj(text_hidden_states.astype(dtype))
        x = jnp.concatenate([text, jnp.stack(added, axis=1)], axis=1)
        x = x + self.positional_embedding[...].astype(dtype)
        mask = jnp.pad(text_mask, ((0, 0), (0, _ADDED_TOKENS)), constant_values=True)[:, None, None]
        for layer in self.layers:
            x = layer(x, mask=mask, is_causal=True)
        return self.proj_to_clip_embeddings(self.norm_out(x[:, -1])).astype(jnp.float32)

    def sample(
        self,
        text_embedding: Float[Array, "b d"],
        text_hidden_states: Float[Array, "b n e"],
        text_mask: Bool[Array, "b n"],
        key: PRNGKeyArray,
        guidance_scale: Num[Array, ""] | float | int = 4.0,
        uncond_text_embedding: Float[Array, "#b d"] | None = None,
        uncond_hidden_states: Float[Array, "#b n e"] | None = None,
        uncond_mask: Bool[Array, "#b n"] | None = None,
        *,
        num_inference_steps: int = 25,
    ) -> Float[Array, "b d"]:
        """Image embeddings that fit the texts, drawn from the prior's distribution.

        Classifier-free guidance contrasts a text with the empty text, encoded like any other (as Karlo does; the
        model was not trained on zeros). Without the three `uncond` inputs there is nothing to contrast with:
        guidance is off, and `guidance_scale` has no effect.

        Args:
            text_embedding: as in `__call__`, like the next two.
            text_hidden_states: see there.
            text_mask: see there.
            key: of all the noise.
            guidance_scale: 1 is no guidance, more fits the text more closely at the price of variety.
            uncond_text_embedding: of the empty text, or of what the image should not be; one, or one a text.
            uncond_hidden_states: its token states.
            uncond_mask: its mask.
            num_inference_steps: evaluations of the network, from 2 to 1000.

        Returns:
            Image embeddings in CLIP's own scale, float32, not normalised.

        Raises:
            ValueError: some but not all of the `uncond` inputs, or an impossible number of steps.
        """
        noise = jax.random.normal(key, (num_inference_steps + 1, *text_embedding.shape))
        uncond = (uncond_text_embedding, uncond_hidden_states, uncond_mask)
        return self.denoise(noise, (text_embedding, text_hidden_states, text_mask), guidance_scale, uncond)

    def denoise(
        self,
        noise: Float[Array, "draws b d"],
        text: tuple,
        guidance_scale: Num[Array, ""] | float | int,
        uncond: tuple,
    ) -> Float[Array, "b d"]:
        """`sample` with its noise given.

        Args:
            noise: standard normal; the first is where diffusion starts, each further one is added by a step (the
                last step adds none and leaves its noise unused).
            text: text_embedding, text_hidden_states, text_mask of `sample`.
            guidance_scale: of `sample`.
            uncond: uncond_text_embedding, uncond_hidden_states, uncond_mask of `sample`.

        Returns:
            Image embeddings in CLIP's own scale, float32.
        """
        given = [x is not None for x in uncond]
        if any(given) and not all(given):
            raise UserError("uncond_text_embedding, uncond_hidden_states and uncond_mask go together")
        if all(given):  # both branches are one batch
            empty = (jnp.broadcast_to(u, x.shape) for u, x in zip(uncond, text, strict=True))
            text = tuple(jnp.concatenate(pair) for pair in zip(empty, text, strict=True))
        branches = 1 + all(given)

        def step(x, inputs):
            row, step_noise = inputs
            timesteps = jnp.full(branches * len(x), row.timestep)
            x0 = self(jnp.tile(x, (branches, 1)), timesteps, *text)
            if branches == 2:
                unconditional, conditional = jnp.split(x0, 2)
                x0 = unconditional + guidance_scale * (conditional - unconditional)
            return unclip_step(row, x0, x, step_noise), None

        x, _ = jax.lax.scan(step, noise[0], (unclip_schedule(len(noise) - 1), noise[1:]))
        return x * self.clip_std[...] + self.clip_mean[...]


class UnCLIPStep(NamedTuple):
    """The numbers of one step, or with a leading axis of all steps: x' = a clip(x0) + b x + sigma noise.

    Attributes:
        timestep: what the network is told, 999 first, 0 last.
        x0_weight: a.
        sample_weight: b.
        noise_scale: sigma; 0 in the last step.
    """

    timestep: Shaped[np.ndarray | Array, "*steps"]
    x0_weight: Shaped[np.ndarray | Array, "*steps"]
    sample_weight: Shaped[np.ndarray | Array, "*steps"]
    noise_scale: Shaped[np.ndarray | Array, "*steps"]


def unclip_schedule(num_inference_steps: int) -> UnCLIPStep:
    """Ancestral sampling on the cosine schedule, in the order in which the steps are taken.

    The posterior of https://arxiv.org/abs/2006.11239, equation 7, between the steps that are visited; the schedule of
    https://arxiv.org/abs/2102.09672, equation 17. In float32 throughout, as UnCLIPScheduler: 1 - abar has three digits
    near step 0 there, and the same three here.

    Raises:
        ValueError: num_inference_steps is not from 2 to 1000.
    """
    if not 2 <= num_inference_steps <= _TRAINING_STEPS:
        raise UserError(f"num_inference_steps is {num_inference_steps}, not from 2 to {_TRAINING_STEPS}")

    def cosine(i: int) -> float:
        return math.cos((i / _TRAINING_STEPS + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = np.array([min(1 - cosine(i + 1) / cosine(i), 0.999) for i in range(_TRAINING_STEPS)], np.float32)
    alphas = 1 - betas
    alphas_cumprod = np.cumprod(alphas.astype(np.float64)).astype(np.float32)

    ratio = (_TRAINING_STEPS - 1) / (num_inference_steps - 1)
    timesteps = (np.arange(num_inference_steps) * ratio).round()[::-1].astype(np.int32)
    previous = np.append(timesteps[1:], -1)
    abar = alphas_cumprod[timesteps]
    abar_previous = np.where(previous < 0, np.float32(1), alphas_cumprod[previous])
    adjacent = previous == timesteps - 1
    beta = np.where(adjacent, betas[timesteps], 1 - abar / abar_previous)
    alpha = np.where(adjacent, alphas[timesteps], 1 - beta)
    variance = (1 - abar_previous) / (1 - abar) * beta
    return UnCLIPStep(
        timestep=timesteps,
        x0_weight=np.sqrt(abar_previous) * beta / (1 - abar),
        sample_weight=np.sqrt(alpha) * (1 - abar_previous) / (1 - abar),
        noise_scale=np.sqrt(variance),
    )


def unclip_step(
    step: UnCLIPStep, x0: Float[Array, "b d"], x: Float[Array, "b d"], noise: Float[Array, "b d"]
) -> Float[Array, "b d"]:
    """One step of the diffusion backwards, from x and the x0 that is predicted for it."""
    x0 = jnp.clip(x0, -_CLIP_RANGE, _CLIP_RANGE)
    return step.x0_weight * x0 + step.sample_weight * x + step.noise_scale * noise
