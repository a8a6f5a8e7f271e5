"""Long clips in one sweep: what the whole clip gives, with memory that does not grow, from wherever it stopped."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import relative_error
from test_guided_sampling import COUPLED, LinearModel, ModelConfig, conditions, sampler_of

from gen1_jax.diffusion import Guidance, NoiseSchedule, get_sampler
from gen1_jax.diffusion.noise import shared_noise_order
from gen1_jax.diffusion.sweep import Sweep
from gen1_jax.editing.sampling import GuidedSampler
from gen1_jax.editing.sweep import BLOCK, Block, ClipSweep
from gen1_jax.models.conditions import SHARES

FRAMES = 45
SHAPE = (1, FRAMES, 2, 3, 4)
GUIDANCE = Guidance.of(3.0, 1.2)


def blocks_of(told, begin=None):
    """Blocks of a clip that is held, the last one filled up."""
    filled = lambda x: jnp.pad(x, [(0, 0), (0, -FRAMES % BLOCK)] + [(0, 0)] * 3, mode="edge")

    def blocks(first):
        for start in range(first * BLOCK, FRAMES, BLOCK):
            cut = lambda x, start=start: filled(x)[:, start : start + BLOCK]
            maps = {kind: cut(signal.maps) for kind, signal in told.structure.items()}
            yield Block(maps, None if begin is None else cut(begin))

    return blocks


def swept(sampler, **more):
    told = conditions(SHAPE, level=2)
    return ClipSweep(sampler, FRAMES, SHAPE[2:], 3, told, GUIDANCE, **more), told


def all_latents(parts):
    return np.concatenate([latents for latents, _ in parts])[None]


@pytest.mark.parametrize(
    ("name", "overlap", "shift", "interval"),
    [
        ("ddim", 4, False, (0.0, 1.0)),
        ("dpm++", 5, False, (0.2, 0.6)),  # a second-order history, a stride that no block is a multiple of
        ("midpoint", 5, False, (0.0, 0.6)),  # the same of rectified flow
        ("ddim", 4, True, (0.0, 1.0)),
        ("ddim", 0, False, (0.0, 1.0)),
    ],
)
def test_a_sweep_gives_what_the_whole_clip_gives(name, overlap, shift, interval):
    model, schedule = COUPLED, NoiseSchedule(use_flow_sigmas=name == "midpoint")
    if schedule.use_flow_sigmas:
        model = LinearModel()
        model.config = ModelConfig("flow_prediction")
    sampler = GuidedSampler(model, schedule, get_sampler(name, schedule), 5, window=8, overlap=overlap, shift=shift)
    clip, told = swept(sampler, interval=interval)
    parts = all_latents(clip.run(blocks_of(told)))
    noise = jnp.concatenate([clip.noise(block) for block in range(-(-FRAMES // BLOCK))], axis=1)[:, :FRAMES]
    state = sampler.sampler.init(noise + 0)  # it is donated
    for start, stop, guidance in clip._runs:
        state = sampler.run(state, told, guidance, start=start, stop=stop)
    assert parts.shape == SHAPE and relative_error(parts, state.latents) < 1e-5
    assert jnp.abs(noise[:, :8] - noise[:, 8:16]).max() > 1


def test_shares_of_contents_move_with_the_clip():
    told = conditions(SHAPE, level=2)
    shares = jnp.linspace(0, 1, FRAMES)[None, :, None] * jnp.array([1.0, -1.0]) + jnp.array([0.0, 1.0])
    other = jax.tree.map(lambda x: -2 * x, told.content)
    both = dataclasses.replace(told, beside=(other,), shares=shares)
    sampler = sampler_of(COUPLED, overlap=4).with_steps(4)
    bare = dataclasses.replace(both, shares=None)
    clip = ClipSweep(sampler, FRAMES, SHAPE[2:], 3, bare, GUIDANCE)
    padded = jnp.pad(shares, ((0, 0), (0, -FRAMES % BLOCK), (0, 0)), mode="edge")
    blocks = lambda first: (
        block._replace(told=block.told | {SHARES: padded[:, (first + i) * BLOCK :][:, :BLOCK]})
        for i, block in enumerate(blocks_of(told)(first))
    )
    parts = all_latents(clip.run(blocks))
    noise = jnp.concatenate([clip.noise(block) for block in range(-(-FRAMES // BLOCK))], axis=1)[:, :FRAMES]
    state = sampler.run(sampler.sampler.init(noise + 0), both, GUIDANCE)
    assert relative_error(parts, state.latents) < 1e-5
    alone = sampler.run(sampler.sampler.init(noise + 0), told, GUIDANCE)
    assert relative_error(parts, alone.latents) > 1e-3


@pytest.mark.parametrize("name", ["ddim", "lcm"])
def test_a_sweep_goes_on_where_it_was(name):
    clip, told = swept(sampler_of(COUPLED, name, overlap=4).with_steps(4))
    whole = all_latents(clip.run(blocks_of(told)))
    first = []
    for latents, state in itertools.islice(clip.run(blocks_of(told)), 7):
        first.append(latents)
        kept = state._replace(band=jax.tree.map(np.asarray, state.band))
    rest = all_latents(clip.run(blocks_of(told), kept))
    np.testing.assert_array_equal(np.concatenate([*first, *rest]), whole[0])


def test_a_strength_begins_with_the_clip():
    sampler, begin = sampler_of(COUPLED, overlap=4), jnp.ones(SHAPE)
    clip, told = swept(sampler.with_steps(5, 0.6))
    made = [all_latents(clip.run(blocks_of(told, x))) for x in (begin, -begin)]
    assert relative_error(*made) > 1e-2


def test_shared_noise_is_that_of_the_first_window():
    order = shared_noise_order(37, 8, 4, seed=5)
    assert order[:8].tolist() == list(range(8))
    for start in range(8, 36, 4):
        assert sorted(order[start : start + 4]) == sorted(order[start - 8 : start - 4])
    assert (np.diff(order[8:]) != 1).any() and (shared_noise_order(37, 8, 4, seed=6) != order).any()
    sampler = sampler_of(COUPLED, overlap=4)
    clip, _ = swept(sampler, shared_noise=True)
    noise = np.concatenate([clip.noise(block) for block in range(6)], axis=1)[0, :FRAMES]
    np.testing.assert_array_equal(noise, noise[shared_noise_order(FRAMES, 8, 4, seed=3)])
    request = conditions(SHAPE), GUIDANCE
    shared = [sampler(SHAPE, 3, *request, shared_noise=shared) for shared in (True, False)]
    assert relative_error(*shared) > 1e-2
    short = (1, 8, *SHAPE[2:])  # one window: nothing to share
    alike = [sampler(short, 3, conditions(short), GUIDANCE, shared_noise=shared) for shared in (True, False)]
    np.testing.assert_array_equal(*alike)


def test_a_band_does_not_grow_with_the_clip():
    timesteps = np.arange(999, 0, -50, dtype=np.int32)
    assert len({Sweep(timesteps, frames, 8, 4).band for frames in (400, 4_000)}) == 1
    sweep = Sweep(timesteps, 4_000, 8, 4)
    assert sweep.band <= 20 * 4 + 2 * 8 and sweep.finished(sweep.rounds) == 4_000
    assert Sweep(timesteps[:1], 9, 8, 0).rounds == 2
