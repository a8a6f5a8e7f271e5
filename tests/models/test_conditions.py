"""What a model is told, and what a denoiser makes of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import relative_error

from gen1_jax.models.conditions import Conditions, Signal
from gen1_jax.models.denoiser import Denoiser, build_denoiser
from gen1_jax.models.denoiser_config import LEVEL_PERIOD
from gen1_jax.models.denoiser_inputs import conditions_of
from gen1_jax.models.layers import timestep_embedding
from gen1_jax.models.module import Bound, initialise
from gen1_jax.models.unet import Injection, SpaceTimeUNet, UNetConfig

CONFIG = UNetConfig(
    block_out_channels=(8,),
    attention_levels=(True,),
    layers_per_block=1,
    num_attention_heads=2,
    cross_attention_dim=6,
    norm_num_groups=4,
    max_frames=4,
)
SHAPE = (2, 3, 4, 6, 4)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def trained(config=CONFIG, cls=SpaceTimeUNet):
    """A network none of whose layers is zero."""
    module = cls(config)
    params = initialise(module, 0)
    return Bound(module, jax.tree.map(lambda x: x + 0.1 * np.asarray(normal(x.size, *x.shape)), params))


@pytest.fixture(scope="module")
def unet():
    return trained()


def told(batch=2, frames=3, seed=2, config=CONFIG):
    structure = normal(seed, batch, frames, *SHAPE[2:])
    return conditions_of(config, normal(seed + 1, batch, 1, 6), structure, jnp.arange(batch))


def of_clip(x, i):
    """Row i of everything."""
    return jax.tree.map(lambda leaf: leaf[i : i + 1], x)


LATENTS, TIMESTEPS = normal(1, *SHAPE), jnp.array([7, 700])


def test_a_clip_seen_frame_by_frame_is_that_many_images(unet):
    still, _ = unet.denoise(LATENTS, TIMESTEPS, told().frames())
    for t in range(SHAPE[1]):
        image, _ = unet.denoise(LATENTS[:, t : t + 1], TIMESTEPS, told().window(t, 1))
        assert relative_error(still[:, t : t + 1], image) < 1e-5
    video, _ = unet.denoise(LATENTS, TIMESTEPS, told())
    assert jnp.abs(video - still).max() > 1e-3


def test_branches_in_one_batch_are_the_branches_one_by_one(unet):
    """Rows of a clip lie beside each other: those of the first clip, then those of the second."""
    branches = [told().without_content().frames(), told().without_content(), told()]
    batch = branches[0].together(*branches[1:])
    assert batch.still == (True, False, False)
    together, _ = unet.denoise(LATENTS.repeat(3, axis=0), TIMESTEPS.repeat(3), batch)
    for i, branch in enumerate(branches):
        alone, _ = unet.denoise(LATENTS, TIMESTEPS, branch)
        assert relative_error(together[i::3], alone) < 1e-5


def test_what_rows_that_are_told_the_same_have_in_common_is_evaluated_once():
    null = told().without_content()
    batch = null.frames().together(null, told())
    assert batch.alike == (0, 0, 2)
    sizes = []

    def doubled(x):
        sizes.append(len(x))
        return {"y": 2 * x}

    rows = jnp.arange(6) + jnp.array([0, -1, 0] * 2)  # of two clips; the first two of each are alike
    assert (batch.once(doubled, rows)["y"] == 2 * rows).all()
    assert sizes == [4]
    assert told().once(doubled, jnp.arange(2))["y"].tolist() == [0, 2]


def test_images_come_first():
    with pytest.raises(ValueError, match="before"):
        told().together(told().frames())


def test_the_null_content_is_zero_unless_it_is_given():
    given = told()
    assert (given.without_content().content["image"] == 0).all()
    words = Conditions(content={"text": normal(1, 2, 5, 6)}, null={"text": normal(2, 1, 5, 6)})
    np.testing.assert_array_equal(words.without_content().content["text"][1], words.null["text"][0])


def test_a_window_cuts_structure_and_nothing_else():
    given = told(frames=4)
    cut = jax.jit(lambda start: given.window(start, 2))(jnp.int32(1))
    np.testing.assert_array_equal(cut.structure["depth"].maps, given.structure["depth"].maps[:, 1:3])
    np.testing.assert_array_equal(cut.content["image"], given.content["image"])


def test_frames_can_be_chosen_and_a_source_hidden():
    source = Signal.of(normal(5, 2, 3, 4, 4, 4), weight=jnp.array([1.0, 0.5]))
    conditions = dataclasses.replace(told(), structure=told().structure | {"source": source})
    chosen = conditions.at(np.array([0, 2]))
    np.testing.assert_array_equal(chosen.structure["source"].maps, source.maps[:, [0, 2]])
    hidden = conditions.without_source()
    assert not hidden.structure["source"].weight.any() and hidden.structure["depth"].weight.all()
    assert told().without_source().structure.keys() == {"depth"}


def test_the_five_arguments_and_conditions_say_the_same(unet):
    given = told()
    depth = given.structure["depth"]
    plain = unet(LATENTS, TIMESTEPS, given.content["image"], depth.maps, depth.level)
    np.testing.assert_array_equal(plain, unet.denoise(LATENTS, TIMESTEPS, given)[0])


def test_a_structure_without_weight_is_absent(unet):
    depth = told().structure["depth"]
    silent = dataclasses.replace(told(), structure={"depth": dataclasses.replace(depth, weight=jnp.zeros(2))})
    other = Signal(5 * depth.maps, depth.level + 1, jnp.zeros(2))
    changed = dataclasses.replace(silent, structure={"depth": other})
    one, two = (unet.denoise(LATENTS, TIMESTEPS, x)[0] for x in (silent, changed))
    np.testing.assert_array_equal(one, two)
    assert jnp.abs(one - unet.denoise(LATENTS, TIMESTEPS, told())[0]).max() > 1e-3


def test_a_further_structure_that_was_not_learned_changes_nothing(unet):
    """New rows of conv_in come after those that exist, and start at zero."""
    two = dataclasses.replace(CONFIG, structure_kinds=("depth", "canny"))
    rows = SpaceTimeUNet(two).conv_in.kernel.shape[2] - CONFIG.in_channels
    kernel = jnp.pad(unet.params["conv_in"]["kernel"], ((0, 0), (0, 0), (0, rows), (0, 0)))
    params = unet.params | {"conv_in": unet.params["conv_in"] | {"kernel": kernel}}
    edges = Signal.of(normal(9, *SHAPE), jnp.array([0, 5]))
    given = dataclasses.replace(told(), structure=told().structure | {"canny": edges})
    out, _ = Bound(SpaceTimeUNet(two), params).denoise(LATENTS, TIMESTEPS, given)
    assert relative_error(out, unet.denoise(LATENTS, TIMESTEPS, told())[0]) < 1e-5


def test_what_a_model_is_not_told_or_does_not_take_is_named(unet):
    with pytest.raises(ValueError, match="needs structure: depth"):
        unet.denoise(LATENTS, TIMESTEPS, dataclasses.replace(told(), structure={}))
    with pytest.raises(ValueError, match="takes only depth, not pose"):
        unet.denoise(
            LATENTS,
            TIMESTEPS,
            dataclasses.replace(told(), structure=told().structure | {"pose": told().structure["depth"]}),
        )
    with pytest.raises(ValueError, match="content of kind 'image'"):
        unet.denoise(LATENTS, TIMESTEPS, dataclasses.replace(told(), content={"text": normal(1, 2, 1, 6)}))


class Controlled(SpaceTimeUNet):
    """Adds to the skip connections and the middle, as a ControlNet does."""

    scale = 0.0

    def inject(self, latents, timesteps, conditions, content, **finest):
        first = super().inject(latents, timesteps, conditions, content, **finest)
        added = self.scale * jnp.ones((*latents.shape[:4], 8))
        return Injection(first=first.first, skips=(added, added), middle=added)


class Louder(Controlled):
    scale = 0.5


def test_an_injection_reaches_skips_and_middle(unet):
    plain, _ = unet.denoise(LATENTS, TIMESTEPS, told())
    silent, _ = trained(cls=Controlled).denoise(LATENTS, TIMESTEPS, told())
    loud, _ = trained(cls=Louder).denoise(LATENTS, TIMESTEPS, told())
    assert relative_error(silent, plain) < 1e-6
    assert jnp.abs(loud - plain).max() > 1e-2


def test_denoisers_are_built_by_kind():
    assert isinstance(build_denoiser(CONFIG, dtype=jnp.float32), Denoiser)


def test_levels_of_structure_lie_apart_in_new_models_and_as_they_did_in_old_ones():
    levels, period = jnp.arange(8), UNetConfig.structure_level_period

    def nearest(embedding):
        distance = jnp.linalg.norm(embedding[:, None] - embedding[None], axis=-1)
        return float((distance + 10 * jnp.eye(8)).min())

    old, new = (timestep_embedding(levels, 4, p).astype(jnp.bfloat16) for p in (period, LEVEL_PERIOD))
    np.testing.assert_array_equal(old, timestep_embedding(levels, 4).astype(jnp.bfloat16))
    assert nearest(old) < 0.3 and nearest(new) > 0.9
    assert all(len(set(channel.tolist())) == 8 for channel in new.T)  # none is dead
