"""Steps that evaluate only a part of a model, with what the whole left at a step before (https://arxiv.org/abs/2312.00858).

    step      0       1        2        3       4        5     ...     every third is whole
    model   whole  in part  in part   whole  in part  in part
              └─cache─┴────────┘        └─cache─┴────────┘

What stands between the loop and the model (guidance, what acts on x_0) is made of a model that knows no cache, and
stays as it is: see `keeping`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32

from gen1_jax.diffusion.guidance import Model
from gen1_jax.diffusion.samplers import Denoiser, Sampler, SamplerState, SamplerTables
from gen1_jax.errors import UserError

CachingModel = Callable[..., tuple[Float[Array, "b t h w c"], Any]]
"""(latents (B T h w C), timesteps (B,), `Conditions`, cache or None) -> prediction (B T h w C), cache.

Without a cache it is evaluated wholly, with one in part; shapes and types of the cache are the same."""

CachingDenoiser = Callable[[Float[Array, " b *dims"], Int32[Array, " b"], Any], tuple[Float[Array, " b *dims"], Any]]
"""(latents (B, ...), timesteps (B,), cache or None) -> prediction (B, ...), cache."""


def check_in_one(frames: int, window: int) -> None:
    """Refuses clips that are not evaluated at once: each window would need a cache of its own.

    Raises:
        UserError: there are more frames than a window has.
    """
    if frames > window:
        raise UserError(f"deep_cache is for clips of at most {window} frames, not {frames}: leave it 1")


def keeping(around: Callable[[Model], Denoiser], model: CachingModel) -> CachingDenoiser:
    """A denoiser that takes and gives the cache of the one evaluation of a model that it is made of.

    Args:
        around: makes a denoiser of a model that knows no cache, which it evaluates once, and in no loop.
        model: whose cache it is.
    """

    def denoise(latents: Float[Array, " b *dims"], timesteps: Int32[Array, " b"], cache: Any) -> tuple[Array, Any]:
        left = []

        def without_cache(*told: Any) -> Float[Array, "b t h w c"]:
            prediction, kept = model(*told, cache)
            left.append(kept)
            return prediction

        prediction = around(without_cache)(latents, timesteps)
        (kept,) = left
        return prediction, kept

    return denoise


def run_cached_steps(
    denoise: CachingDenoiser,
    sampler: Sampler,
    tables: SamplerTables,
    state: SamplerState,
    whole: Bool[Array, " n"] | Bool[np.ndarray, " n"],
    *,
    start: int | Int[Array, ""],
    stop: int | Int[Array, ""],
) -> SamplerState:
    """As `samplers.run_steps`, a run in parts among it; the cache goes on in the state.

    Args:
        denoise: of `tables`' type of prediction.
        sampler: the solver that made `tables`.
        tables: the coefficients of the run.
        state: with a cache, which the first step replaces where it is whole.
        whole: at which steps everything is evaluated; it may be traced.
        start: the first step to take.
        stop: the first step not to take.
    """

    def body(i: Int[Array, ""], state: SamplerState) -> SamplerState:
        latents = state.latents
        timesteps = jnp.full(latents.shape[:1], jnp.asarray(tables.timesteps)[i])
        evaluate = lambda cache: denoise(latents, timesteps, cache)
        prediction, cache = jax.lax.cond(jnp.asarray(whole)[i], lambda _: evaluate(None), evaluate, state.cache)
        return sampler.step(tables, i, state, prediction)._replace(cache=cache)

    return jax.lax.fori_loop(start, stop, body, state)
