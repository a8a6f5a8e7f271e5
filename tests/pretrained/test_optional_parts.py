"""Networks that a model has only when it is asked for: models of before do not speak of them."""

import dataclasses
import json

import numpy as np
import pytest
from tiny import TINY, save_tiny_model

from gen1_jax.checkpoints.identity import model_hash
from gen1_jax.errors import UserError
from gen1_jax.models.clip import CLIPTextConfig
from gen1_jax.models.hed import HEDConfig
from gen1_jax.models.image_encoder import ImageEncoderConfig
from gen1_jax.models.image_tokens import ImageTokensConfig
from gen1_jax.models.module import initialise
from gen1_jax.pretrained.family import FULL, Gen1Config
from gen1_jax.pretrained.folder import AssembledModel, open_model
from gen1_jax.pretrained.parts import PARTS

UNET = dataclasses.replace(TINY.unet, content_kind="text", structure_channels=0)
TINY_TOWER = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
WORDS = dataclasses.replace(TINY, unet=UNET, clip=None, prior=None, text=TINY.clip.text)


def test_models_without_them_are_what_they_were():
    assert FULL.components == ("unet", "vae", "clip", "depth", "prior")
    assert list(FULL.to_dict())[:6] == [*FULL.components, "schedule"]
    assert all(PARTS[name].optional for name in PARTS.keys() - set(FULL.components))
    assert FULL.text is None and FULL.text_config == FULL.clip.text
    assert model_hash(open_model("nano")) == "858f112cb15a8cbb"  # as records of edits have it


def test_a_model_of_words(tmp_path):
    assert WORDS.components == ("unet", "vae", "depth", "text")
    plain = json.loads(json.dumps(WORDS.to_dict()))
    assert plain["clip"] is None and plain["text"]["hidden_size"] == 16
    assert Gen1Config.from_dict(plain) == WORDS
    assert Gen1Config.from_dict(TINY.to_dict() | {"text": None}) == TINY
    source = open_model(save_tiny_model(tmp_path / "words", WORDS))
    assert source.tokenizer().length == 77 and source.config.text_config == TINY.clip.text
    assert AssembledModel(source, {"text": source}).tokenizer().json == source.tokenizer().json


def test_parts_must_fit():
    wide = dataclasses.replace(TINY.clip.text, hidden_size=24)
    long = dataclasses.replace(TINY.clip.text, max_position_embeddings=99)
    for changes, named in (
        (dict(text=None), "this model has no text"),
        (dict(text=wide), "unet.cross_attention_dim is 16, but text.hidden_size is 24"),
        (dict(clip=TINY.clip, text=long), "text.max_position_embeddings is 99, but clip.text.max_position_emb"),
        (dict(clip=TINY.clip, text=CLIPTextConfig(hidden_size=16, num_attention_heads=2)), "text.vocab_size is 49408"),
    ):
        with pytest.raises(UserError, match=named):
            dataclasses.replace(WORDS, **changes)


def test_pictures_need_an_encoder_and_tokens_that_fit(tmp_path):
    encoder = ImageEncoderConfig(**TINY_TOWER, image_size=16, patch_size=8, projection_dim=12)
    tokens = ImageTokensConfig(kind="base", tokens=4, embedding_dim=12, cross_attention_dim=16)
    unet = dataclasses.replace(UNET, image_adapter=True)
    model = dataclasses.replace(WORDS, unet=unet, depth=None, image_encoder=encoder, image_tokens=tokens)
    model = dataclasses.replace(model, softedge=HEDConfig(block_out_channels=(4, 4), layers_per_block=(1, 1)))
    assert model.components == ("unet", "vae", "text", "image_encoder", "image_tokens", "softedge")
    source = open_model(save_tiny_model(tmp_path / "pictures", model))
    assert source.config == model
    for part in ("image_encoder", "image_tokens", "softedge"):
        assert source.parameters(part).keys() == initialise(model.build(part, np.float32), 0).keys()
    plus, full = (dataclasses.replace(tokens, kind=kind) for kind in ("plus", "full"))
    for changes, named in (
        (dict(image_encoder=None), "this model has no image_encoder"),
        (dict(image_tokens=None), "this model has no image_tokens"),
        (dict(image_tokens=plus), "image_tokens.embedding_dim is 12, but image_encoder.hidden_size is 16"),
        (dict(image_tokens=dataclasses.replace(tokens, cross_attention_dim=8)), "cross_attention_dim is 8, but unet"),
        (dict(image_tokens=dataclasses.replace(full, embedding_dim=16)), "tokens is 4, but image_encoder.tokens is 5"),
    ):
        with pytest.raises(UserError, match=named):
            dataclasses.replace(model, **changes)
