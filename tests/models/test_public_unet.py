"""Motion modules, controls and an adapter for pictures: what they are to each other, without an oracle."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import relative_error
from test_conditions import normal, trained

from gen1_jax.models.conditions import Conditions, Signal
from gen1_jax.models.module import abstract_parameters, parameter_count
from gen1_jax.models.unet import ControlConfig, SpaceTimeUNet, UNetConfig

CONFIG = UNetConfig(
    structure_channels=0,
    content_kind="text",
    temporal="animatediff",
    motion_mid_block=True,
    image_adapter=True,
    controls=(ControlConfig(kind="depth", hint_channels=(4, 8)), ControlConfig(kind="canny", hint_channels=(4, 8))),
    block_out_channels=(8,),
    attention_levels=(True,),
    layers_per_block=1,
    num_attention_heads=2,
    cross_attention_dim=6,
    norm_num_groups=4,
    max_frames=4,
    prediction_type="epsilon",
)
LATENTS, TIMESTEPS = normal(1, 2, 3, 4, 6, 4), jnp.array([7, 700])


@pytest.fixture(scope="module")
def unet():
    return trained(CONFIG)


def told(unet, **weights):
    signals = {
        kind: Signal.of(unet.hint(jax.nn.sigmoid(normal(3, 2, 3, 8, 12, 3)), kind=kind), weight=weight * jnp.ones(2))
        for kind, weight in weights.items()
    }
    return Conditions(content={"text": normal(4, 2, 5, 6)}, structure=signals)


def run(unet, conditions, latents=LATENTS):
    return unet.denoise(latents, TIMESTEPS, conditions)[0]


def test_an_image_passes_the_motion_modules_by(unet):
    still = run(unet, told(unet).frames())
    for t in range(3):
        image = run(unet, told(unet), LATENTS[:, t : t + 1])
        assert relative_error(still[:, t : t + 1], image) < 1e-5
    assert relative_error(run(unet, told(unet)), still) > 1e-3


def test_frames_have_positions(unet):
    """Two attentions without positions would give a clip backwards the same frames backwards."""
    assert relative_error(run(unet, told(unet), LATENTS[:, ::-1])[:, ::-1], run(unet, told(unet))) > 1e-3


def test_controls_are_optional_and_weights_are_scales_of_what_they_add(unet, monkeypatch):
    base = run(unet, told(unet))
    np.testing.assert_array_equal(run(unet, told(unet, depth=0.0)), base)
    assert relative_error(run(unet, told(unet, depth=1.0)), base) > 1e-3
    both = run(unet, told(unet, depth=0.5, canny=2.0))
    params = jax.tree.map(lambda x: x, unet.params)
    for kind, scale in (("depth", 0.5), ("canny", 2.0)):
        control = dict(params["controls"][kind])
        for name in ("down_zero", "mid_zero"):
            control[name] = jax.tree.map(lambda x, scale=scale: scale * x, control[name])
        params["controls"] = params["controls"] | {kind: control}
    given = told(unet, depth=1.0, canny=1.0)
    monkeypatch.setattr(unet, "params", params)
    scaled = run(unet, given)
    assert relative_error(both, scaled) < 1e-5


def test_a_control_ends_with_its_span(unet):
    """The clips are at timesteps 7 and 700."""
    given = told(unet, depth=1.0)
    early = dataclasses.replace(given.structure["depth"], span=jnp.array([[999, 500], [999, 500]]))
    out = run(unet, dataclasses.replace(given, structure={"depth": early}))
    np.testing.assert_array_equal(out[0], run(unet, told(unet, depth=0.0))[0])
    np.testing.assert_array_equal(out[1], run(unet, given)[1])


def test_a_picture_has_keys_and_values_of_its_own(unet):
    words = told(unet)
    picture = normal(6, 2, 3, 6)
    with_picture = lambda weight: dataclasses.replace(
        words, content=words.content | {"image": picture}, strength={"image": weight * jnp.ones(2)}
    )
    none, half, whole = (run(unet, with_picture(weight)) for weight in (0.0, 0.5, 1.0))
    assert relative_error(none, run(unet, words)) < 1e-6
    assert min(relative_error(half, none), relative_error(whole, half)) > 1e-4
    with pytest.raises(ValueError, match="no content of kind 'sound'"):
        run(unet, dataclasses.replace(words, content=words.content | {"sound": picture}))


def test_branches_with_controls_and_a_picture_are_one_batch(unet):
    words = told(unet, depth=0.7)
    given = dataclasses.replace(
        words,
        content=words.content | {"image": normal(6, 2, 3, 6)},
        null={"text": normal(8, 1, 5, 6), "image": normal(9, 1, 3, 6)},
        strength={"image": jnp.array([0.3, 0.9])},
    )
    null = given.without_content()
    branches = [null.frames(), null, given]
    batch = branches[0].together(*branches[1:])
    assert batch.alike == (0, 0, 2)  # so the controls are evaluated for two of the three
    together = unet.denoise(LATENTS.repeat(3, axis=0), TIMESTEPS.repeat(3), batch)[0]
    for i, branch in enumerate(branches):
        assert relative_error(together[i::3], run(unet, branch)) < 1e-5


def test_parameters_of_the_public_parts_at_full_size():
    """Counts of the published checkpoints."""
    full = UNetConfig(structure_channels=0, content_kind="text", temporal="none")
    count = lambda **fields: parameter_count(abstract_parameters(SpaceTimeUNet(dataclasses.replace(full, **fields))))
    base = count()
    assert base == 859_520_964
    assert count(temporal="animatediff") - base == 417_137_600
    assert count(temporal="animatediff", motion_mid_block=True) - base == 453_209_280
    assert count(controls=(ControlConfig(kind="depth"),)) - base == 361_279_120
    assert count(image_adapter=True) - base == 19_169_280
