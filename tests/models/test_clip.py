import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import randomise, relative_error

from gen1_jax.errors import UserError
from gen1_jax.models.clip import (
    MEAN,
    STD,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    TextEncoder,
    preprocess,
)
from gen1_jax.models.module import Bound, abstract_parameters, initialise, parameter_count
from gen1_jax.pretrained.hf_clip import (
    CLIP,
    CLIP_TOWERS,
    clip_config,
    clip_text_config,
    clip_towers_config,
    merge_towers,
)
from gen1_jax.pretrained.hf_config import ConfigError
from gen1_jax.pretrained.hf_text import TEXT_ENCODER
from gen1_jax.pretrained.layout import LayoutError
from gen1_jax.pretrained.tensors import read_json, read_tensors

EOS = 98
TEXT = dict(
    vocab_size=99,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=3,
    max_position_embeddings=12,
    eos_token_id=EOS,
)
VISION = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    image_size=32,
    patch_size=8,
)
TINY = CLIPConfig(text=CLIPTextConfig(**TEXT), vision=CLIPVisionConfig(**VISION), projection_dim=20)
THEIR_TEXT = TEXT | dict(projection_dim=20, bos_token_id=97, pad_token_id=EOS)
THEIR_VISION = VISION | dict(projection_dim=20)

# the end of text in the middle, at the end and first; padded with itself, with zeros and not at all
TOKEN_IDS = np.array(
    [
        [97, 5, 17, EOS, EOS, EOS, EOS, EOS],
        [97, 60, 61, 62, 63, 64, 65, EOS],
        [EOS, 1, 2, 3, 4, 5, 6, 7],
        [97, 44, EOS, 0, 0, 0, 0, 0],
    ],
    np.int32,
)


def torch_clip(text=THEIR_TEXT, vision=THEIR_VISION, projection_dim=20):
    import transformers

    config = transformers.CLIPConfig(
        text_config=transformers.CLIPTextConfig(**text),
        vision_config=transformers.CLIPVisionConfig(**vision),
        projection_dim=projection_dim,
    )
    return randomise(transformers.CLIPModel(config))


def pixels_of(count=2, size=32):
    return jnp.asarray(np.random.default_rng(0).normal(size=(count, size, size, 3)), jnp.float32)


def image_error(model, clip, size=32):
    import torch

    pixels = pixels_of(size=size)
    with torch.no_grad():
        states = model.vision_model(torch.tensor(np.asarray(pixels)).permute(0, 3, 1, 2)).pooler_output
        theirs = model.visual_projection(states)
    return relative_error(clip.encode_image(pixels), theirs.numpy())


def text_errors(model, clip, token_ids=TOKEN_IDS):
    """Relative errors of the embedding and of the tokens' states."""
    import torch

    with torch.no_grad():
        out = model.text_model(torch.tensor(token_ids).long())
        theirs = model.text_projection(out.pooler_output)
    projected, states = clip.encode_text_tokens(jnp.asarray(token_ids))
    return relative_error(projected, theirs.numpy()), relative_error(states, out.last_hidden_state.numpy())


def imported_from(model):
    """Our model with the torch model's weights, straight from memory."""
    module = CLIPModel(clip_config(model.config.to_dict()))
    tensors = {name: value.numpy() for name, value in model.state_dict().items()}
    return Bound(module, CLIP.fill(abstract_parameters(module), tensors, "clip"))


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    model = torch_clip()
    model.save_pretrained(folder)
    module = CLIPModel(clip_config(read_json(folder / "config.json")))
    tensors = read_tensors(folder)
    return model, Bound(module, CLIP.fill(abstract_parameters(module), tensors, "clip")), tensors


def test_imported_model_equals_transformers(imported):
    model, clip, _ = imported
    assert clip.config == TINY
    assert image_error(model, clip) <= 1e-4
    assert max(text_errors(model, clip)) <= 1e-4
    assert float(clip.params["logit_scale"]) == model.logit_scale.item()


def test_summary_is_taken_at_the_first_end_of_text(imported):
    _, clip, _ = imported
    projected, states = clip.encode_text_tokens(jnp.asarray(TOKEN_IDS))
    summary = np.asarray(states)[np.arange(4), [3, 7, 0, 2]]
    np.testing.assert_allclose(clip.encode_text(jnp.asarray(TOKEN_IDS)), projected, rtol=1e-4, atol=1e-5)
    expected = summary @ np.asarray(clip.params["text_projection"]["kernel"])
    np.testing.assert_allclose(projected, expected, rtol=1e-4, atol=1e-5)
    other_padding = TOKEN_IDS.copy()
    other_padding[0, 4:] = 7
    np.testing.assert_allclose(clip.encode_text(jnp.asarray(other_padding))[0], projected[0], rtol=1e-4, atol=1e-5)


def test_gelu_and_the_old_end_of_text_rule_equal_transformers():
    changes = dict(hidden_act="gelu", layer_norm_eps=1e-3, num_hidden_layers=1)
    text = THEIR_TEXT | dict(eos_token_id=2, pad_token_id=0)
    model = torch_clip(text | changes, THEIR_VISION | changes)
    clip = imported_from(model)
    assert (clip.config.text.hidden_act, clip.config.text.layer_norm_eps) == ("gelu", 1e-3)
    token_ids = TOKEN_IDS.copy()
    token_ids[1, 3] = 2  # not the end of text by this rule
    assert max(text_errors(model, clip, token_ids)) <= 1e-4
    assert image_error(model, clip) <= 1e-4


def test_separate_tower_folders_equal_transformers(tmp_path):
    import torch
    import transformers

    text = randomise(transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**THEIR_TEXT)))
    vision = randomise(transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**THEIR_VISION)))
    folders = tmp_path / "text_encoder", tmp_path / "image_encoder"
    for model, folder in zip((text, vision), folders, strict=True):
        model.save_pretrained(folder)
    module = CLIPModel(clip_towers_config(*(read_json(folder / "config.json") for folder in folders)))
    assert module.config == TINY
    tensors = merge_towers(*map(read_tensors, folders))
    clip = Bound(module, CLIP_TOWERS.fill(initialise(module, 0), tensors, "clip"))
    assert float(clip.params["logit_scale"]) == pytest.approx(np.log(1 / 0.07))
    assert CLIP_TOWERS.to_theirs(clip.params).keys() == tensors.keys()

    pixels = pixels_of()
    with torch.no_grad():
        out = text(torch.tensor(TOKEN_IDS).long())
        image = vision(torch.tensor(np.asarray(pixels)).permute(0, 3, 1, 2)).image_embeds
    projected, states = clip.encode_text_tokens(jnp.asarray(TOKEN_IDS))
    assert relative_error(projected, out.text_embeds.numpy()) <= 1e-4
    assert relative_error(states, out.last_hidden_state.numpy()) <= 1e-4
    assert relative_error(clip.encode_image(pixels), image.numpy()) <= 1e-4
    with pytest.raises(LayoutError, match="both hold text_model"):
        merge_towers(tensors, tensors)


def test_layout_is_strict_and_invertible(imported):
    _, clip, tensors = imported
    written = CLIP.to_theirs(clip.params)
    assert written.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(written[name], value, err_msg=name)
        assert written[name].shape == value.shape

    old = tensors | {f"{tower}_model.embeddings.position_ids": np.arange(12)[None] for tower in ("text", "vision")}
    jax.tree.map(np.testing.assert_array_equal, CLIP.fill(clip.params, old, "clip"), clip.params)

    name = "vision_model.pre_layrnorm.bias"
    with pytest.raises(LayoutError, match=r"lacks.*vision_model\.pre_layrnorm\.bias"):
        CLIP.fill(clip.params, {k: v for k, v in tensors.items() if k != name}, "clip")
    with pytest.raises(LayoutError, match=r"does not: text_model\.encoder\.layers\.2\.mlp\.fc1\.bias"):
        CLIP.fill(clip.params, tensors | {"text_model.encoder.layers.2.mlp.fc1.bias": np.zeros(40)}, "clip")
    with pytest.raises(LayoutError, match=r"another shape: vision_model\.pre_layrnorm\.bias is \(5,\)"):
        CLIP.fill(clip.params, tensors | {name: np.zeros(5)}, "clip")
    name = "text_model.embeddings.position_embedding.weight"
    with pytest.raises(LayoutError, match=r"position_embedding\.weight is \(24, 12\)"):  # as many numbers, transposed
        CLIP.fill(clip.params, tensors | {name: tensors[name].T}, "clip")


OPENAI = {  # the keys that openai/clip-vit-large-patch14's config.json is about
    "model_type": "clip",
    "projection_dim": 768,
    "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "eos_token_id": 2},
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
    },
}


def test_configurations_are_read_as_transformers_reads_them():
    import transformers

    openai = clip_config(OPENAI)
    assert openai == CLIPConfig(text=CLIPTextConfig(eos_token_id=2))
    old = OPENAI | {"text_config_dict": OPENAI["text_config"] | {"hidden_size": 384}, "vision_config_dict": None}
    for config in ({}, {"model_type": "clip"}, OPENAI, old, {"text_config": {"hidden_act": "gelu"}}):
        ours, theirs = clip_config(config), transformers.CLIPConfig(**copy.deepcopy(config))
        for tower, their_tower in ((ours.text, theirs.text_config), (ours.vision, theirs.vision_config)):
            for field in dataclasses.fields(tower):
                assert getattr(tower, field.name) == getattr(their_tower, field.name), field.name
        assert ours.projection_dim == theirs.projection_dim


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"model_type": "siglip"}, "model_type"),
        ({"text_config": {"hidden_act": "gelu_new"}}, "hidden_act"),
        ({"text_config": {"eos_token_id": [1, 2]}}, "eos_token_id"),
        ({"text_config": {"num_attention_heads": 7}}, "num_attention_heads"),
        ({"text_config": {"num_hidden_layers": "12"}}, "num_hidden_layers"),
        ({"text_config": {"layer_norm_eps": float("nan")}}, "layer_norm_eps"),
        ({"vision_config": {"image_size": [224, 336]}}, "image_size"),
        ({"vision_config": {"num_channels": 1}}, "num_channels"),
        ({"vision_config": 3}, "vision_config"),
        ({"projection_dim": None}, "projection_dim"),
    ],
)
def test_unsupported_configurations_are_refused(change, key):
    with pytest.raises(ConfigError, match=key):
        clip_config(OPENAI | change)


def test_towers_must_fit_each_other():
    text, vision = {"model_type": "clip_text_model"}, {"model_type": "clip_vision_model"}
    assert clip_towers_config(text, vision).projection_dim == 512
    with pytest.raises(ConfigError, match="projection_dim"):
        clip_towers_config(text, vision | {"projection_dim": 768})
    with pytest.raises(ConfigError, match="projection_dim"):
        clip_towers_config(text | {"projection_dim": 768}, vision)  # which means 512
    with pytest.raises(ConfigError, match="model_type"):
        clip_towers_config(vision, text)
    whole = clip_towers_config(OPENAI, vision | OPENAI["vision_config"])  # a tower saved with the whole configuration
    assert whole.text.hidden_size == 768


def test_errors_name_the_limit(imported):
    _, clip, _ = imported
    with pytest.raises(ValueError, match="takes 32x32"):
        clip.encode_image(pixels_of(size=24))
    with pytest.raises(ValueError, match="max_position_embeddings"):
        clip.encode_text(jnp.zeros((1, 13), jnp.int32))
    with pytest.raises(ValueError, match="hidden_act"):
        CLIPTextConfig(hidden_act="relu")


def test_bfloat16_compute_stays_near_float32(imported):
    _, clip, _ = imported
    half = Bound(CLIPModel(TINY, dtype=jnp.bfloat16), clip.params)
    for method, x in (("encode_image", pixels_of()), ("encode_text", jnp.asarray(TOKEN_IDS))):
        ours = getattr(half, method)(x)
        assert ours.dtype == jnp.float32
        assert relative_error(ours, getattr(clip, method)(x)) < 0.05


def test_full_size():
    assert parameter_count(abstract_parameters(CLIPModel(CLIPConfig()))) == 427_616_513  # ViT-L/14


@pytest.mark.parametrize(("height", "width"), [(90, 141), (141, 90), (20, 33)])
def test_preprocess_equals_the_image_processor(height, width):
    import transformers

    rng = np.random.default_rng(height)
    images = rng.integers(0, 256, (2, height, width, 3), np.uint8)
    images[1] = np.where(images[1] < 128, 0, 255)  # edges, where the filter overshoots
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    theirs = np.stack(processor(list(images), input_data_format="channels_last")["pixel_values"])
    ours = preprocess(jnp.asarray(images), 32)
    levels = np.abs(np.asarray(ours) - theirs.transpose(0, 2, 3, 1)) * np.array(STD) * 255
    assert levels.max() < 1.01  # PIL's weights are fixed-point: now and then a rounding falls on the other side
    assert (levels > 0.01).mean() < 0.01
    as_float = preprocess(jnp.asarray(images / 127.5 - 1, jnp.float32), 32)
    np.testing.assert_allclose(as_float, ours, atol=1e-5)


def test_model_preprocesses_to_its_own_size(imported):
    _, clip, _ = imported
    white = jnp.full((1, 40, 70, 3), 255, jnp.uint8)
    pixels = clip.preprocess(white)
    np.testing.assert_allclose(pixels[0, 0, 0], (1 - np.array(MEAN)) / np.array(STD), rtol=1e-5)
    assert pixels.shape == (1, 32, 32, 3)


@pytest.mark.slow
def test_full_size_import_equals_transformers():
    text = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    vision = OPENAI["vision_config"] | dict(image_size=224)
    model = torch_clip(text, vision, projection_dim=768)
    clip = imported_from(model)
    assert clip.config == CLIPConfig()
    token_ids = np.full((2, 77), 49407, np.int32)
    token_ids[0, :9] = [49406, 320, 1125, 539, 320, 2368, 7, 9, 11]
    token_ids[1, :40] = np.arange(40) + 1000
    errors = image_error(model, clip, 224), *text_errors(model, clip, token_ids)
    print("relative errors of image, text, states:", errors)
    assert max(errors) <= 1e-4


def test_a_text_encoder_alone_equals_transformers(tmp_path):
    """Its states after every layer and before the last; under names with the old prefix, and without."""
    import torch
    import transformers

    model = randomise(transformers.CLIPTextModel(transformers.CLIPTextConfig(**THEIR_TEXT)))
    model.save_pretrained(tmp_path)
    module = TextEncoder(clip_text_config(read_json(tmp_path / "config.json")))
    assert module.config == TINY.text
    tensors = read_tensors(tmp_path)
    text = Bound(module, TEXT_ENCODER.fill(abstract_parameters(module), tensors, "text"))
    with torch.no_grad():
        out = model(torch.tensor(TOKEN_IDS).long(), output_hidden_states=True)
        (norm,) = (part for name, part in model.named_modules() if name.endswith("final_layer_norm"))
        skipped = norm(out.hidden_states[-2])
    assert relative_error(text.states(jnp.asarray(TOKEN_IDS)), out.last_hidden_state.numpy()) <= 1e-4
    assert relative_error(text.states(jnp.asarray(TOKEN_IDS), clip_skip=2), skipped.numpy()) <= 1e-4

    bare = {name.removeprefix("text_model."): x for name, x in tensors.items()}
    prefixed = {f"text_model.{name}": x for name, x in bare.items()}
    assert TEXT_ENCODER.to_theirs(text.params).keys() == prefixed.keys()
    more = {"embeddings.position_ids": np.arange(12)[None], "text_projection.weight": np.ones((20, 24))}
    for spelling in (bare | more, prefixed | {f"text_model.{name}": x for name, x in more.items()}):
        jax.tree.map(np.testing.assert_array_equal, TEXT_ENCODER.fill(text.params, spelling, "text"), text.params)
    with pytest.raises(LayoutError, match=r"lacks tensors: text_model\.final_layer_norm\.bias"):
        TEXT_ENCODER.fill(text.params, {k: v for k, v in bare.items() if k != "final_layer_norm.bias"}, "text")
    with pytest.raises(LayoutError, match="in an old and a new spelling"):
        TEXT_ENCODER.fill(text.params, bare | prefixed, "text")
    for skip in (0, 3):
        with pytest.raises(UserError, match=f"clip_skip is {skip}, not in 1 ... 2"):
            text.states(jnp.asarray(TOKEN_IDS), clip_skip=skip)
    with pytest.raises(UserError, match="13 tokens, but this model has 12 positions"):
        text.states(jnp.zeros((1, 13), jnp.int32))


def test_configurations_of_text_encoders_are_read_as_transformers_reads_them():
    import transformers

    stable_diffusion = {"model_type": "clip_text_model", **OPENAI["text_config"]}
    assert clip_text_config(stable_diffusion) == clip_text_config(OPENAI) == CLIPTextConfig(eos_token_id=2)
    for config in ({}, stable_diffusion, {"hidden_act": "gelu", "layer_norm_eps": 1e-6, "vocab_size": 99}):
        ours, theirs = clip_text_config(config), transformers.CLIPTextConfig(**config)
        for field in dataclasses.fields(ours):
            assert getattr(ours, field.name) == getattr(theirs, field.name), field.name
    with pytest.raises(ConfigError, match="model_type"):
        clip_text_config({"model_type": "t5"})
    with pytest.raises(ConfigError, match="num_attention_heads"):
        clip_text_config({"num_attention_heads": 7})


def test_full_size_text_encoder():
    assert parameter_count(abstract_parameters(TextEncoder(CLIPTextConfig()))) == 123_060_480  # Stable Diffusion 1.5's
