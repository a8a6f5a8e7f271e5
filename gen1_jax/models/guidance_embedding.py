"""Scales of guidance as inputs of a network, beside the timestep.

w, w_t ──► a sinusoid each ──► projection, at first of zeros ──► + sinusoid of the timestep ──► MLP
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from gen1_jax.models.conditions import Conditions
from gen1_jax.models.layers import ZEROS, Linear, TimestepMLP, timestep_embedding

_FEATURES = 256  # of each sinusoid
_STEPS = 1000.0  # a scale of 1 lies as far from 0 as the last timestep of the diffusion from the first


class GuidanceEmbedding(nnx.Module):
    """What w and w_t add to the sinusoid of the timestep, float32; nothing before it is trained.

    As `time_cond_proj_dim` of diffusers, which knows w alone. Source: https://arxiv.org/abs/2310.04378, appendix.

    Args:
        features: width of the sinusoid of the timestep.
    """

    def __init__(self, features: int):
        self.projection = Linear(2 * _FEATURES, features, bias=False, init=ZEROS)

    def __call__(self, scales: Float[Array, "b 2"]) -> Float[Array, "b d"]:
        sinusoids = timestep_embedding(_STEPS * scales.astype(jnp.float32), _FEATURES)
        return self.projection(sinusoids.reshape(len(scales), -1))


def guided_time(
    time_embedding: TimestepMLP,
    guidance_embedding: GuidanceEmbedding | None,
    timesteps: Int[Array, " b"],
    conditions: Conditions,
) -> Float[Array, "b e"]:
    """The embedding of the timestep, and of the scales of guidance in a network that is told them.

    Args:
        time_embedding: of the network.
        guidance_embedding: of the network; None of one that is told no scales.
        timesteps: of each clip.
        conditions: with the scales; 1 and 1 where they have none.
    """
    if guidance_embedding is None:
        return time_embedding(timesteps)
    scales = jnp.ones((len(timesteps), 2)) if conditions.guidance is None else conditions.guidance
    return time_embedding(timesteps, guidance_embedding(scales))
