"""The split of structure and content: a code of so many bits and no more, a token of the frames that are looked at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY_SPLIT

from gen1_jax.errors import UserError
from gen1_jax.models.module import Bound, initialise
from gen1_jax.models.split import MOST_BITS, Split, SplitConfig, entries_of, round_to_levels


@pytest.fixture(scope="module")
def split():
    config = TINY_SPLIT.split
    return Bound(Split(config), jax.tree.map(jnp.asarray, initialise(Split(config), 0)))


def clips(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_a_codebook_has_as_many_entries_as_its_bits_say():
    for bits in range(1, MOST_BITS + 1):
        config = SplitConfig(grid=8, groups=2, bits=bits)
        assert np.prod(config.levels) == 2**bits and max(config.levels) <= 8
        assert config.bits_per_frame == 8 * 8 * 2 * bits
    levels = SplitConfig(bits=8).levels
    steps = np.stack(np.meshgrid(*(np.arange(count) + 0.5 - count / 2 for count in levels), indexing="ij"), -1)
    numbers = np.arctanh(steps / (np.array(levels) / 2))  # the middle of each step
    rounded = round_to_levels(jnp.asarray(numbers, jnp.float32), levels)
    np.testing.assert_allclose(rounded, steps / (np.array(levels) / 2), atol=1e-6)
    assert sorted(np.unique(entries_of(rounded, levels))) == [*range(256)]
    far = round_to_levels(jnp.full(3, 50.0), levels)
    np.testing.assert_allclose(far, 1 - 1 / np.array(levels), atol=1e-6)


def test_gradients_go_through_the_rounding():
    numbers = jnp.linspace(-2, 2, 9)[:, None]
    slopes = jax.grad(lambda x: round_to_levels(x, (2,)).sum())(numbers)
    np.testing.assert_allclose(slopes, 1 - jnp.tanh(numbers) ** 2, rtol=1e-5)


def test_maps_are_made_of_the_code_alone_and_frame_by_frame(split):
    latents = clips(1, 3, 6, 10, 4)  # of any shape
    code, near = split.encode(latents), split.encode(latents + 1e-5)
    assert code.maps.shape == latents.shape and code.entries.shape == (1, 3, 4, 4, 2)
    assert code.entries.min() >= 0 and code.entries.max() < 2**4 and len(np.unique(code.entries)) > 1
    np.testing.assert_array_equal(near.entries, code.entries)
    np.testing.assert_array_equal(near.maps, code.maps)
    other = split.encode(3 * latents)
    assert np.any(other.entries != code.entries) and np.abs(other.maps - code.maps).max() > 1e-3
    np.testing.assert_allclose(split.encode(latents[:, 1:2]).maps, code.maps[:, 1:2], atol=1e-5)


def test_content_is_of_the_frames_that_are_seen(split):
    latents = clips(2, 3, 4, 6, 4)
    whole = split.content(latents)
    assert whole.shape == (2, 1, TINY_SPLIT.unet.cross_attention_dim)
    first = jnp.asarray([[True, False, False]] * 2)
    np.testing.assert_allclose(split.content(latents, first), split.content(latents[:, :1]), atol=1e-5)
    assert np.abs(split.content(latents, first) - whole).max() > 1e-3
    np.testing.assert_allclose(split.content(latents[:, ::-1]), whole, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"bits": 13}, "split.groups"), ({"grid": 0}, "split.grid is 0"), ({"width": 12}, "split.norm_num_groups")],
)
def test_shapes_that_are_none_are_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        SplitConfig(**wrong)
