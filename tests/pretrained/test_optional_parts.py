"""Networks that a model has only when it is asked for: models of before do not speak of them."""

import dataclasses
import json

import pytest
from tiny import TINY, save_tiny_model

from gen1_jax.checkpoints.identity import model_hash
from gen1_jax.errors import UserError
from gen1_jax.models.clip import CLIPTextConfig
from gen1_jax.pretrained.family import FULL, PARTS, Gen1Config
from gen1_jax.pretrained.folder import AssembledModel, open_model

UNET = dataclasses.replace(TINY.unet, content_kind="text", structure_channels=0)
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
