"""Kinds of content: every one answers everything that the rest of the package asks, and so does a model of each."""

import dataclasses
import inspect
import itertools

import jax
import numpy as np
import pytest
from tiny import TINY, TINY_PUBLIC, TINY_SPLIT, save_tiny_model

from gen1_jax import Gen1Pipeline
from gen1_jax.editing.content import ENCODERS, ContentEncoder
from gen1_jax.editing.settings import EditSettings
from gen1_jax.errors import UserError
from gen1_jax.models.content_kind import CONTENT_KINDS, content_kind
from gen1_jax.pretrained.parts import PARTS
from gen1_jax.training.contents import CONTENTS
from gen1_jax.training.denoising import DenoisingObjective
from gen1_jax.training.objectives import OBJECTIVES

FAMILIES = {config.unet.content_kind: config for config in (TINY, TINY_PUBLIC, TINY_SPLIT)}
KINDS = pytest.mark.parametrize("kind", CONTENT_KINDS.values(), ids=CONTENT_KINDS)


@KINDS
def test_a_kind_answers_everything(kind):
    assert content_kind(kind.name) is kind and kind.what and kind.part in kind.networks
    assert set(kind.networks) <= PARTS.keys()
    fields = {field.name for field in dataclasses.fields(PARTS[kind.part].config)}
    assert {kind.width, kind.length or kind.width} <= fields
    assert not inspect.isabstract(ENCODERS[kind.name]) and issubclass(ENCODERS[kind.name], ContentEncoder)
    assert kind.name in CONTENTS or kind.name in OBJECTIVES[kind.name].beside  # learned from batches, or with the U-Net
    assert kind.of_prompts or not kind.reads_text
    assert kind.is_shown or kind.of_prompts, "nothing could tell it"


def test_nothing_else_is_told_of():
    assert ENCODERS.keys() == CONTENT_KINDS.keys() == FAMILIES.keys() and CONTENTS.keys() < CONTENT_KINDS.keys()
    for build in (content_kind, lambda name: dataclasses.replace(TINY.unet, content_kind=name)):
        with pytest.raises(UserError, match="no content of kind 'sound', only image, split, text"):
            build("sound")


def test_what_families_say_of_their_content():
    assert [FAMILIES[name].content_tokens for name in ("image", "text", "split")] == [1, 77, 1]
    assert [FAMILIES[name].takes_prompts for name in ("image", "text", "split")] == [True, True, False]
    assert not dataclasses.replace(TINY, prior=None).takes_prompts
    told_by = [FAMILIES[name].unet.content.told_by for name in ("image", "text", "split")]
    assert told_by == ["picture", "prompt", "picture"]
    with pytest.raises(UserError, match="this model has no clip"):
        dataclasses.replace(TINY_SPLIT, clip=None)
    with pytest.raises(UserError, match=r"unet\.cross_attention_dim is 16, but text\.hidden_size is 8"):
        dataclasses.replace(TINY_PUBLIC, text=dataclasses.replace(TINY_PUBLIC.text, hidden_size=8))


@KINDS
def test_a_model_of_each_kind_is_told_by_what_its_kind_says(kind, tmp_path):
    config = FAMILIES[kind.name]
    pipeline = Gen1Pipeline.from_pretrained(save_tiny_model(tmp_path / kind.name, config))
    clips = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16, 3), np.uint8)
    size = (config.content_tokens, config.unet.cross_attention_dim)
    given = {"prompt": ("a car", []), "picture": (None, [clips[0, 0]])}
    told = pipeline.encode_content(*given[kind.told_by], EditSettings())
    assert told.content[kind.name].shape == (1, *size) and told.content.keys() == {kind.name}
    assert pipeline.content_of(clips[0]).content[kind.name].shape == (1, *size)
    if kind.is_shown:
        assert pipeline.content.shown(clips).shape == (2, *size)
    else:
        with pytest.raises(UserError, match="no clip can show it"):
            pipeline.content.shown(clips)
    if config.takes_prompts:
        tokens, null = pipeline.content.of_prompts(["a car", "a dog", "a cat"], 0, 2)
        assert tokens.shape == (3, *size) and (null is None or null.shape == (1, *size))
        assert all(np.abs(a - b).max() > 0 for a, b in itertools.pairwise(tokens))
    else:
        with pytest.raises(UserError, match="reads no text"):
            pipeline.content.of_prompts(["a car"], 0, 1)


def test_what_is_learned_with_the_unet_is_in_no_batch():
    with pytest.raises(UserError, match="learned by the objective split"):
        jax.eval_shape(lambda: DenoisingObjective(TINY_SPLIT))
