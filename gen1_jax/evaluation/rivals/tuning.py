"""Tune-A-Video: a few weights are tuned on the one clip that is edited, from whose inverted noise they sample.

Source: https://arxiv.org/abs/2212.11565, section 4 (sparse causal attention; queries and layers between frames are
tuned, keys and values are not; structure by DDIM inversion).
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from gen1_jax.diffusion import NoiseSchedule, denoising_loss, training_target
from gen1_jax.evaluation.editor import Editor
from gen1_jax.evaluation.rivals.inversion import Indices, Latents
from gen1_jax.evaluation.runs import guided_parts
from gen1_jax.evaluation.told import Way
from gen1_jax.models.attended import attending_to, first_and_previous
from gen1_jax.models.conditions import Conditions
from gen1_jax.models.module import Bound, Params, cast_kernels
from gen1_jax.models.quantized import widened
from gen1_jax.models.selection import Selection, together

TUNED = Selection((r"\.attn[12]\.to_q\.", r"(^|\.)(motions|temporal)\..*attn[12]\."))
"""Queries of all attention, and all of the attention between frames."""

STEPS, LEARNING_RATE = 100, 1e-4
"""Of Adam on every clip; there 500 steps of 3e-5, on a network of a hundred times as many weights."""

EVALUATIONS = 3
"""Of a step of tuning, which computes gradients: one there, and two of its cost on the way back."""


def tuned_edit(editor: Editor, way: Way, indices: Indices) -> Latents:
    """DDIM with the new content by weights that were tuned on each clip, from the noise that they invert it to.

    Args:
        editor: of the worlds.
        way: which structures are told: in tuning, up and down.
        indices: of the worlds.
    """
    sampler = editor.sampler(way.settings, first_and_previous)
    unet, told, latents = sampler.unet, editor.told(way, indices), jnp.asarray(editor.latents[indices])
    source, fixed = editor.told_input(told, indices), TUNED.others(unet.params)
    drawn = jax.vmap(partial(jax.random.fold_in, jax.random.key(way.settings.seed)))(jnp.asarray(indices))
    learned = tuned(unet, editor.pipeline.config.schedule, source, latents, drawn, steps=STEPS)
    editor.count(EVALUATIONS * STEPS, latents)
    edits = []
    for clip in range(len(indices)):
        one = itemgetter(slice(clip, clip + 1))
        params = _whole(fixed, jax.tree.map(itemgetter(clip), learned))
        of_clip = sampler.with_weights(Bound(unet.module, params))
        noise = editor.inverted(of_clip, _each(source, one), one(latents))
        edits.append(editor.run(of_clip, _each(told, one), noise, guided_parts(way.settings, sampler)))
    return jnp.concatenate(edits)


def tuned(
    unet: Bound,
    schedule: NoiseSchedule,
    told: Conditions,
    latents: Float[Array, "b t i j c"],
    keys: Key[Array, " b"],
    *,
    steps: int,
    learning_rate: float = LEARNING_RATE,
) -> Params:
    """The weights of `TUNED` after some steps on each clip by itself, every leaf (B, ...), float32.

    Args:
        unet: the network, whose frames look at the first and the one before.
        schedule: of the timesteps, which are drawn uniformly.
        told: what the clips show.
        latents: clean ones.
        keys: of noise and timesteps; those of a clip are its own, whatever the batch.
        steps: of Adam.
        learning_rate: of Adam.
    """
    begin = jax.tree.map(
        lambda x: jnp.broadcast_to(x.astype(jnp.float32), (len(latents), *x.shape)),
        widened(TUNED.chosen(unet.params)),
    )
    told = dataclasses.replace(_each(told, lambda x: x[:, None]), null={})
    fixed = TUNED.others(unet.params)
    return _tuned(unet, schedule, steps, learning_rate, fixed, begin, told, latents[:, None], keys)


@partial(jax.jit, static_argnums=(0, 1))
def _tuned(
    unet: Bound,
    schedule: NoiseSchedule,
    steps: int | Array,
    learning_rate: float | Array,
    fixed: Params,
    learned: Params,
    told: Conditions,
    latents: Array,
    keys: Array,
) -> Params:
    """Weights of clips, each a batch of one, after the steps; what is fixed is of all."""
    optimizer = optax.adam(learning_rate)

    def loss(learned: Params, told: Conditions, latents: Array, key: Array) -> Array:
        of_time, of_noise = jax.random.split(key)
        timestep = jax.random.randint(of_time, (1,), schedule.timesteps.start, schedule.timesteps.stop)
        noise = jax.random.normal(of_noise, latents.shape)
        noisy, kind = schedule.add_noise(latents, noise, timestep), unet.config.prediction_type
        target = training_target(kind, latents, noise, *schedule.alpha_sigma(timestep))
        with attending_to(first_and_previous):
            prediction, _ = unet.apply(_whole(fixed, learned), noisy, timestep, told, method="denoise")
        (error,) = denoising_loss(prediction, target, schedule.alpha_bar(timestep), prediction_type=kind)
        return error

    def clip(learned: Params, told: Conditions, latents: Array, key: Array) -> Params:
        def step(i, state):
            learned, moments = state
            gradients = jax.grad(loss)(learned, told, latents, jax.random.fold_in(key, i))
            updates, moments = optimizer.update(gradients, moments)
            return optax.apply_updates(learned, updates), moments

        return jax.lax.fori_loop(0, steps, step, (learned, optimizer.init(learned)))[0]

    return jax.vmap(clip)(learned, told, latents, keys)


def _whole(fixed: Params, learned: Params) -> Params:
    """The network's weights: kernels that are learned, which rest in float32, in the dtype of the others."""
    dtype = next(x.dtype for x in jax.tree.leaves(fixed) if x.ndim > 1)
    return together(fixed, cast_kernels(learned, dtype))


def _each(told: Conditions, take: Callable[[Array], Array]) -> Conditions:
    """What is told of clips, by what is taken of arrays whose first axis is clips."""
    of_clips = dict(content=told.content, strength=told.strength, structure=told.structure)
    return dataclasses.replace(told, **jax.tree.map(take, of_clips))
