"""Training on from a public model: captions as content, a control that learns, some of the parameters."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY_PUBLIC

import gen1_jax
from gen1_jax.data.batch import encode_caption
from gen1_jax.errors import UserError
from gen1_jax.evaluation.bench_train import random_latents
from gen1_jax.models.module import Bound, flatten, initialise
from gen1_jax.models.selection import Selection, together
from gen1_jax.parallel.mesh import MeshConfig, make_mesh
from gen1_jax.parallel.sharding import Layout
from gen1_jax.pretrained.tokenizer import CLIPTokenizer
from gen1_jax.training.denoising import DenoisingConfig, DenoisingObjective
from gen1_jax.training.gradients import learning
from gen1_jax.training.optimizer import OptimizerConfig, learning_rates
from gen1_jax.training.step import TrainStep

CAPTIONS = ("a red car", "a dog on snow (at night)")
TRAINED = ("motion", "controls.depth")
KEYS = jax.random.split(jax.random.key(0), 2)


def tokenizer():
    text = (Path(gen1_jax.__file__).parent / "pretrained" / "nano" / "tokenizer.json").read_text()
    return CLIPTokenizer(text, TINY_PUBLIC.text, "nano")


def objective(structure=True, inputs="latents", **settings):
    settings = DenoisingConfig(**{"content_dropout": 0.0, **settings})
    return DenoisingObjective(TINY_PUBLIC, settings, structure=structure, inputs=inputs, tokenizer=tokenizer)


def batch_of(captions=CAPTIONS, kind="video", **changes):
    batch = random_latents(TINY_PUBLIC, kind, 2)
    caption = np.stack([encode_caption(caption, 64) for caption in captions])
    return dataclasses.replace(batch, caption=caption, **changes)


def moved(params, seed=7):
    """No parameter is left at zero: the last layers of controls and motion modules begin there."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(x + 0.1 * rng.normal(size=x.shape), jnp.float32), params)


@pytest.fixture(scope="module")
def params():
    return moved(initialise(TINY_PUBLIC.build("unet", np.float32), 0))


@pytest.fixture(scope="module")
def frozen():
    return {name: moved(initialise(TINY_PUBLIC.build(name, np.float32), 1)) for name in ("text", "depth")}


@pytest.fixture(scope="module")
def told():
    return objective()


@pytest.fixture(scope="module")
def losses_of(params, frozen):
    """losses_of(objective, batch); of the same weights and draws."""
    jitted = functools.cache(lambda objective: jax.jit(objective.loss))
    return lambda objective, batch: np.asarray(jitted(objective)(params, frozen, inputs_of(objective, batch), KEYS)[0])


def inputs_of(objective, batch):
    return jax.tree.map(jnp.asarray, objective.inputs(batch))


def test_content_is_the_caption_and_structure_the_maps(told, losses_of):
    batch = batch_of(structure_level=np.zeros(2, np.int32))
    assert set(told.inputs(batch)) == {"moments", "maps.depth", "structure_level", "token_ids"}
    losses = losses_of(told, batch)
    assert np.isfinite(losses).all()
    mute = losses_of(told, dataclasses.replace(batch, caption=batch_of(("", "")).caption))
    assert (np.abs(losses - mute) > 1e-6).all()
    mirrored = losses_of(told, dataclasses.replace(batch, maps={"depth": batch.maps["depth"][:, :, :, ::-1]}))
    assert (np.abs(losses - mirrored) > 1e-6).all()
    scaled = losses_of(told, dataclasses.replace(batch, maps={"depth": 3 * batch.maps["depth"] + 5}))
    np.testing.assert_allclose(scaled, losses, rtol=1e-5)  # they are normalised in the step


def test_dropped_content_is_the_empty_text_and_dropped_structure_adds_nothing(losses_of):
    dropped = losses_of(objective(content_dropout=1.0, structure_dropout=1.0), batch_of())
    blind = losses_of(objective(structure=False), batch_of(captions=("", "")))
    np.testing.assert_allclose(dropped, blind, rtol=1e-5)


def test_what_the_u_net_reads_is_what_an_edit_tells_it(told, frozen):
    """The states of the tokenizer's ids: brackets of a caption are text, no weights."""
    ids, empty = (tokenizer()(texts)[0] for texts in (CAPTIONS, ("",)))
    states = told.content(frozen, {"token_ids": jnp.asarray(ids)}, KEYS, jnp.array([False, True]))
    text = Bound(TINY_PUBLIC.build("text", np.float32), frozen["text"])
    np.testing.assert_allclose(states, text.states(np.stack([ids[0], empty[0]])), atol=1e-5)


def test_raw_pictures_give_the_maps_in_the_step(frozen):
    size = (TINY_PUBLIC.height, TINY_PUBLIC.width)
    pixels = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 4, *size, 3)), jnp.uint8)
    raw, recorded = (objective(inputs=inputs) for inputs in ("pixels", "depth"))
    assert raw.frozen == ("vae", "depth", "text") and recorded.frozen == ("vae", "text")
    depth = Bound(TINY_PUBLIC.build("depth", np.float32), frozen["depth"])
    maps = raw._signals._maps(raw.structures["depth"], {"depth": depth}, {"pixels": pixels})
    frames = pixels.reshape(-1, *size, 3) / 127.5 - 1
    np.testing.assert_allclose(maps.reshape(-1, *size), depth.estimate(frames), rtol=1e-4, atol=1e-4)
    given = recorded.inputs(batch_of(pixels=np.asarray(pixels), moments=None, maps={"depth": np.asarray(maps)}))
    assert set(given) == {"pixels", "maps.depth", "structure_level", "token_ids"}


def test_the_chosen_parameters_are_trained_and_no_others(params, frozen):
    optimizer = OptimizerConfig()
    some, layout = objective(trained=TRAINED), Layout(make_mesh(MeshConfig(), jax.devices()[:1]))
    step = TrainStep(some, optimizer, learning_rates(optimizer, [(10, None)]), layout)
    assert step.frozen == ("text", "unet")
    base, learned = step.frozen_part("unet", params), some.learned.initial(params, 0)
    paths = flatten(learned).keys()
    assert paths | flatten(base).keys() == flatten(params).keys() and not paths & flatten(base).keys()
    assert paths == flatten(step.abstract_state.ema).keys()
    assert all(".motions." in path or path.startswith("controls.depth.") for path in paths)
    weights = some.learned.weights(base, learned)
    assert jax.tree.structure(weights) == jax.tree.structure(params)
    assert all(a is b for a, b in zip(jax.tree.leaves(weights), jax.tree.leaves(params), strict=True))

    given = {"text": frozen["text"], "unet": base}
    for kind, reached in (("video", paths), ("image", {path for path in paths if path.startswith("controls.")})):
        inputs = inputs_of(some, batch_of(kind=kind))
        learns, _ = learning(jax.jit(step.gradients), learned, given, inputs, KEYS)
        assert {path for path, yes in flatten(learns).items() if yes} == reached  # the hint's layers among them


def test_names_of_parameters_are_checked():
    with pytest.raises(UserError, match=r"unet.trained: 'motoin' is in no name of a parameter"):
        objective(trained=("motoin",))
    with pytest.raises(UserError, match=r"unet.trained: '\(' is neither one of motion, .*, spatial nor"):
        DenoisingConfig(trained=("(",))
    chosen = Selection(("attn2", "controls"))
    assert chosen("mid_block.attentions.0.spatial.block.attn2.to_q.kernel") and chosen("controls.depth.conv_in.bias")
    assert not chosen("down_blocks.0.motions.0.norm.scale") and not chosen("conv_in.kernel")
    assert together({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}


def test_sets_without_maps_and_kinds_for_edits_alone_are_refused():
    with pytest.raises(UserError, match=r"no maps.depth: a control takes the maps themselves; run gen1 precompute"):
        objective().inputs(batch_of(maps={}))
    lines = dataclasses.replace(TINY_PUBLIC.unet.controls[0], kind="canny")
    config = dataclasses.replace(TINY_PUBLIC, unet=dataclasses.replace(TINY_PUBLIC.unet, controls=(lines,)))
    with pytest.raises(UserError, match="structure canny is for edits"):
        DenoisingObjective(config, tokenizer=tokenizer)
    assert not DenoisingObjective(config, tokenizer=tokenizer, structure=False).structures
