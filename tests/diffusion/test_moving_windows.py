"""Windows whose seams move from step to step; those that do not are tested with the sampler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen1_jax.diffusion.windows import blend_weights, shifted_windows, window_starts, windowed
from gen1_jax.models.conditions import Conditions, Signal

STEPS = [np.arange(999, 0, -spacing) for spacing in (20, 33, 34, 40, 160)]  # of runs of 50 to 7 steps


def told(maps):
    return Conditions(content={}, structure={"depth": Signal.of(maps)})


def ramp_of(frames):
    return jnp.linspace(0, 1, frames)[None, :, None, None, None]


@pytest.mark.parametrize(
    ("frames", "window", "overlap"), [(9, 8, 0), (16, 8, 0), (17, 8, 3), (40, 16, 6), (6, 2, 1), (5, 1, 0), (40, 9, 8)]
)
def test_windows_cover_every_frame_with_weights_that_sum_to_one_wherever_they_are_moved(frames, window, overlap):
    unmoved = window_starts(frames, window, overlap)
    shifts = jnp.arange(window - overlap)
    moved = jax.vmap(lambda shift: shifted_windows(frames, window, overlap, shift))(shifts)
    for shift, starts, weights in zip(shifts, *map(np.asarray, moved), strict=True):
        total = np.zeros(frames)
        for start, weight in zip(starts, weights, strict=True):
            assert 0 <= start <= frames - window
            total[start : start + window] += weight
        np.testing.assert_allclose(total, 1, atol=1e-6)
        assert (weights >= 0).all()
        assert len(unmoved) <= len(starts) <= len(unmoved) + 1
        if shift == 0:  # those that do not move
            np.testing.assert_array_equal(starts[: len(unmoved)], unmoved)
            np.testing.assert_allclose(weights[: len(unmoved)], blend_weights(frames, window, overlap), atol=1e-6)
            assert not weights[len(unmoved) :].any()


@pytest.mark.parametrize(("frames", "overlap"), [(6, 0), (23, 2)])
def test_where_frames_are_independent_moved_windows_equal_the_whole(frames, overlap):
    latents = jnp.asarray(np.random.default_rng(0).normal(size=(2, frames, 1, 2, 3)), jnp.float32)
    by_frame = lambda x, t, conditions: jnp.sin(x) + conditions.structure["depth"].maps + t[0] / 1000
    whole = lambda t: by_frame(latents, t, told(latents * ramp_of(frames)))
    moved = jax.jit(lambda t: windowed(by_frame, 5, overlap, True)(latents, t, told(latents * ramp_of(frames))))
    for t in (jnp.array([3, 3]), jnp.array([641, 641]), jnp.array([999, 999])):
        np.testing.assert_allclose(moved(t), whole(t), atol=1e-6)


def test_seams_move_from_step_to_step_in_one_compiled_function():
    begins_at = lambda x, t, conditions: jnp.zeros_like(x) + conditions.structure["depth"].maps[:, :1]
    empty = jnp.zeros((1, 40, 1, 1, 1))
    seams = jax.jit(lambda t: windowed(begins_at, 16, 6, shift=True)(empty, t, told(ramp_of(40)))[0, :, 0, 0, 0])
    for timesteps in STEPS:
        seen = np.stack([seams(jnp.array([t])) for t in timesteps])
        np.testing.assert_array_equal(seams(jnp.array(timesteps[:1])), seen[0])  # the same at the same timestep
        assert (np.abs(np.diff(seen, axis=0)).max(1) > 1e-3).mean() > 0.7  # ten places, drawn: one step in ten repeats
    assert seams._cache_size() == 1


def test_memory_of_activations_does_not_grow_with_the_clip():
    wide = lambda x, t, conditions: (
        jnp.sin(x[..., None] * jnp.arange(64.0)).std(-1) + conditions.structure["depth"].maps
    )

    def temporaries(frames):
        shape = (1, frames, 32, 32, 4)
        apply = lambda x, t: windowed(wide, 8, 2, shift=True)(x, t, told(x))
        lowered = jax.jit(apply).lower(jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32))
        return lowered.compile().memory_analysis().temp_size_in_bytes - 4 * np.prod(shape)  # but for the sum itself

    assert temporaries(80) < 1.1 * temporaries(20) + 4 * 32 * 32 * 4
