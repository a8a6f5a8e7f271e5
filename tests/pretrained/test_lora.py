import dataclasses
import json
from argparse import ArgumentTypeError

import numpy as np
import pytest
from oracle import randomise
from safetensors.numpy import save_file
from tiny import TINY, save_tiny_model

from gen1_jax.checkpoints.identity import model_hash
from gen1_jax.commands.values import file_and_number
from gen1_jax.models.clip import CLIPTextConfig, TextEncoder
from gen1_jax.models.module import abstract_parameters, flatten, initialise
from gen1_jax.models.unet import SpaceTimeUNet, UNetConfig
from gen1_jax.pretrained.folder import ModelSource, open_model
from gen1_jax.pretrained.hf_text import TEXT_ENCODER
from gen1_jax.pretrained.hf_unet import UNET
from gen1_jax.pretrained.lora import WithLoRA, merge, norm_ratio
from gen1_jax.pretrained.lora_file import LoRAError, lora_of, read_lora
from gen1_jax.pretrained.lora_names import Targets, single_file_names
from gen1_jax.pretrained.tensors import FolderError

WIDTHS, WORDS, RANK, ALPHA, STRENGTH = (8, 16), 12, 3, 2.0, 0.7
SHAPE = dict(block_out_channels=WIDTHS, layers_per_block=1, norm_num_groups=4, cross_attention_dim=WORDS)
LEVELS = (True, False)
TEXT = dict(hidden_size=WORDS, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, vocab_size=60)


class Theirs:
    """A U-Net and a text encoder of public classes, the LoRA of all of their layers, and what it makes of them.

    Attributes:
        factors: by the names of networks and of modules, (down, up) of torch's shapes.
        tensors: by network, those of the networks without the LoRA.
        changed: the same with it.
    """

    def __init__(self):
        import diffusers
        import torch
        import transformers

        unet = diffusers.UNet2DConditionModel(
            **SHAPE,
            sample_size=8,
            attention_head_dim=2,
            down_block_types=tuple("CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in LEVELS),
            up_block_types=tuple("CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(LEVELS)),
        )
        text = transformers.CLIPTextModel(transformers.CLIPTextConfig(**TEXT))
        self.factors, self.tensors, self.changed = {}, {}, {}
        generator = torch.Generator().manual_seed(5)
        for network, module in (("unet", unet), ("text", text)):
            state = {name: x.detach().clone() for name, x in randomise(module).state_dict().items()}
            self.tensors[network] = {name: x.numpy().copy() for name, x in state.items()}
            self.factors[network] = {}
            for name, layer in module.named_modules():
                if not isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
                    continue
                weight = state[f"{name}.weight"]
                down = torch.randn(RANK, *weight.shape[1:], generator=generator)
                up = torch.randn(weight.shape[0], RANK, *[1] * (weight.ndim - 2), generator=generator)
                change = (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
                state[f"{name}.weight"] = weight + STRENGTH * ALPHA / RANK * change
                name = name if network == "unet" or name.startswith("text_model.") else f"text_model.{name}"
                self.factors[network][name] = (down.numpy(), up.numpy())
            self.changed[network] = {name: x.numpy() for name, x in state.items()}


@pytest.fixture(scope="module")
def theirs():
    return Theirs()


@pytest.fixture(scope="module")
def networks():
    """Ours, without arrays."""
    unet = UNetConfig(
        **SHAPE, attention_levels=LEVELS, num_attention_heads=2, content_kind="text", structure_channels=0, max_frames=4
    )
    modules = {"unet": SpaceTimeUNet(unet), "text": TextEncoder(CLIPTextConfig(**TEXT, eos_token_id=59))}
    return {name: initialise(module, 0, only=UNET.is_new) for name, module in modules.items()}


def spelt(theirs, name_of, down, up, alpha=None, flat=()):
    """The file of `theirs.factors`: `name_of` gives the name of a module, the others what follows it."""
    tensors = {}
    for network, modules in theirs.factors.items():
        for module, (a, b) in modules.items():
            name = name_of(network, module)
            if name is None:
                continue
            if module.endswith(flat):
                a, b = a.reshape(RANK, -1), b.reshape(-1, RANK)
            tensors |= {name + down: a, name + up: b}
            if alpha is not None:
                tensors[name + alpha] = np.asarray(ALPHA, np.float16)
    return tensors


def kohya(network, module):
    return {"unet": "lora_unet_", "text": "lora_te_"}[network] + module.replace(".", "_")


def kohya_single_file(network, module):
    if network == "text":
        return kohya(network, module)
    return "lora_unet_" + (SINGLE_FILE.get(module) or SINGLE_FILE_INSIDE(module)).replace(".", "_")


SINGLE_FILE = {"conv_in": "input_blocks.0.0", "conv_out": "out.2"}


def SINGLE_FILE_INSIDE(module):
    """By hand, of the network above: two levels of one residual block."""
    for theirs, old in (
        ("time_embedding.linear_1", "time_embed.0"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("down_blocks.0.resnets.0", "input_blocks.1.0"),
        ("down_blocks.0.attentions.0", "input_blocks.1.1"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks.2.0.op"),
        ("down_blocks.1.resnets.0", "input_blocks.3.0"),
        ("mid_block.resnets.0", "middle_block.0"),
        ("mid_block.attentions.0", "middle_block.1"),
        ("mid_block.resnets.1", "middle_block.2"),
        ("up_blocks.0.resnets.0", "output_blocks.0.0"),
        ("up_blocks.0.resnets.1", "output_blocks.1.0"),
        ("up_blocks.0.upsamplers.0.conv", "output_blocks.1.1.conv"),
        ("up_blocks.1.resnets.0", "output_blocks.2.0"),
        ("up_blocks.1.attentions.0", "output_blocks.2.1"),
        ("up_blocks.1.resnets.1", "output_blocks.3.0"),
        ("up_blocks.1.attentions.1", "output_blocks.3.1"),
        (".conv1", ".in_layers.2"),
        (".conv2", ".out_layers.3"),
        (".time_emb_proj", ".emb_layers.1"),
        (".conv_shortcut", ".skip_connection"),
    ):
        module = module.replace(theirs, old)
    return module


def dotted(unet="unet.", text="text_encoder."):
    return lambda network, module: {"unet": unet, "text": text}[network] + module


def bare_text(network, module):
    return "unet." + module if network == "unet" else "text_encoder." + module.removeprefix("text_model.")


PROJECTIONS = (".proj_in", ".proj_out")
SPELLINGS = {
    "kohya": (kohya, ".lora_down.weight", ".lora_up.weight", ".alpha"),
    "kohya, flat projections": (kohya, ".lora_down.weight", ".lora_up.weight", ".alpha", PROJECTIONS),
    "kohya, single file": (kohya_single_file, ".lora_down.weight", ".lora_up.weight", ".alpha"),
    "diffusers": (dotted(), ".lora.down.weight", ".lora.up.weight", ".alpha"),
    "diffusers, linear": (dotted(), ".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight", ".alpha"),
    "peft": (dotted(), ".lora_A.weight", ".lora_B.weight", ".alpha", PROJECTIONS),
    "peft of one network": (
        dotted("base_model.model.", "base_model.model."),
        ".lora_A.weight",
        ".lora_B.weight",
        ".alpha",
    ),
    "peft, named": (
        dotted("unet.base_model.model.", "text_encoder.base_model.model."),
        ".lora_A.default.weight",
        ".lora_B.default.weight",
        ".alpha",
    ),
    "no prefix": (bare_text, ".lora.down.weight", ".lora.up.weight", ".lora.alpha"),
}


def check_merged(theirs, networks, lora):
    for name, layout in (("unet", UNET), ("text", TEXT_ENCODER)):
        base = layout.fill(networks[name], theirs.tensors[name], name)
        ours = flatten(merge(base, [(lora.deltas[name], STRENGTH)]))
        for path, value in flatten(layout.fill(networks[name], theirs.changed[name], name)).items():
            np.testing.assert_allclose(ours[path], value, rtol=1e-5, atol=1e-5, err_msg=path)
            assert ours[path].dtype == value.dtype


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_every_layer(theirs, networks, spelling):
    lora = lora_of(spelt(theirs, *SPELLINGS[spelling]), Targets(networks), f"loras/{spelling}.safetensors")
    assert (lora.name, lora.unmatched, lora.report) == (spelling, (), None)
    assert {name: len(deltas) for name, deltas in lora.deltas.items()} == {
        name: len(modules) for name, modules in theirs.factors.items()
    }
    check_merged(theirs, networks, lora)


def test_old_attention_processors(theirs, networks):
    """diffusers before 2024, and AnimateDiff's adapter of its domain: attention alone, without an alpha."""
    short = {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out.0": "to_out"}
    for prefix in ("unet.", "", "module."):
        tensors = {}
        for module, (down, up) in theirs.factors["unet"].items():
            attention, _, projection = module.rpartition(".attn1.")
            if attention:
                name = f"{prefix}{attention}.attn1.processor.{short[projection]}_lora"
                tensors |= {f"{name}.down.weight": down, f"{name}.up.weight": up}
        lora = lora_of(tensors, Targets(networks), "old")
        assert len(lora.deltas["unet"]) == len(tensors) / 2 == 16 and not lora.unmatched
        assert {delta.scale for delta in lora.deltas["unet"].values()} == {1.0}
        path = "mid_block.attentions.0.spatial.block.attn1.to_out.kernel"
        down, up = theirs.factors["unet"]["mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"]
        np.testing.assert_allclose(lora.deltas["unet"][path].kernel(), (up @ down).T, rtol=1e-5, atol=1e-6)
    down, up = theirs.factors["text"]["text_model.encoder.layers.1.self_attn.out_proj"]
    name = "text_encoder.text_model.encoder.layers.1.self_attn.to_out_lora"
    lora = lora_of({f"{name}.down.weight": down, f"{name}.up.weight": up}, Targets(networks), "old")
    assert list(lora.deltas["text"]) == ["layers.1.attention.to_out.kernel"]


def test_motion_modules():
    """Motion LoRA as AnimateDiff's authors and as diffusers store it."""
    unet = UNetConfig(
        **SHAPE,
        attention_levels=LEVELS,
        num_attention_heads=2,
        content_kind="text",
        structure_channels=0,
        prediction_type="epsilon",
        temporal="animatediff",
        motion_mid_block=True,
    )
    targets = Targets({"unet": abstract_parameters(SpaceTimeUNet(unet))})
    down, up = np.ones((2, 16), np.float32), np.ones((16, 2), np.float32)
    for place, path in (
        ("down_blocks.1.motion_modules.0", "down_blocks.1.motions.0"),
        ("mid_block.motion_modules.0", "mid_block.attentions.0.temporal"),
    ):
        for name in (
            f"{place}.temporal_transformer.transformer_blocks.0.attention_blocks.1.processor.to_out_lora",
            f"unet.{place}.transformer_blocks.0.attn2.processor.to_out_lora",
            f"unet.{place}.transformer_blocks.0.attn2.to_out.0.lora",
        ):
            lora = lora_of({f"{name}.down.weight": down, f"{name}.up.weight": up}, targets, "motion")
            assert list(lora.deltas["unet"]) == [f"{path}.block.attn2.to_out.kernel"] and not lora.unmatched


def test_kohya_names_are_read_as_diffusers_reads_them(theirs, networks):
    import diffusers
    import torch

    file = {name: torch.tensor(x) for name, x in spelt(theirs, *SPELLINGS["kohya"]).items()}
    state, alphas = diffusers.StableDiffusionPipeline.lora_state_dict(dict(file))
    assert set(alphas.values()) == {ALPHA}
    lora = lora_of({name: x.numpy() for name, x in state.items()}, Targets(networks), "converted")
    assert not lora.unmatched
    for deltas in lora.deltas.values():
        for path, delta in deltas.items():
            deltas[path] = dataclasses.replace(delta, scale=ALPHA / RANK)
    check_merged(theirs, networks, lora)


def test_single_file_names_are_those_that_diffusers_converts():
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    names = modules_of_the_full_size()
    file = {single_file_names(name, 2)[0 if "up_blocks.0" in name else -1]: name for name in names}
    leaves = {f"model.diffusion_model.{old}.{leaf}": name for old, name in file.items() for leaf in ("weight", "bias")}
    config = dict(layers_per_block=2, class_embed_type=None, addition_embed_type=None)
    new = convert_ldm_unet_checkpoint(leaves, config)
    assert {name.rpartition(".")[0]: value for name, value in new.items()} == {name: name for name in names}


def modules_of_the_full_size(temporal="none", **changes):
    changes |= dict(structure_channels=0, content_kind="text", prediction_type="epsilon")
    config = UNetConfig(temporal=temporal, **changes)
    parameters = abstract_parameters(SpaceTimeUNet(config))
    return {target.module: target for target in Targets({"unet": parameters}).values()}


LCM = (
    *(f".{name}" for name in ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")),
    *(f".{name}" for name in ("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv")),
    ".time_emb_proj",
)


def test_the_size_of_lcm_lora():
    modules = modules_of_the_full_size()
    assert len({name.replace(".", "_") for name in modules}) == len(modules) == 282
    tensors, rank = {}, 64
    for name, target in modules.items():
        if name.endswith(LCM):
            *kernel, inputs, outputs = target.shape
            shapes = (rank, inputs, *kernel), (outputs, rank, *[1] * len(kernel))
            for factor, shape in zip(("down", "up"), shapes, strict=True):
                tensors[f"{kohya('unet', name)}.lora_{factor}.weight"] = np.broadcast_to(np.float16(0), shape)
            tensors[f"{kohya('unet', name)}.alpha"] = np.asarray(8, np.float16)
    lora = lora_of(tensors, {kohya("unet", name): target for name, target in modules.items()}, "lcm")
    assert len(lora.deltas["unet"]) == 278 and not lora.unmatched
    assert sum(x.size for x in tensors.values() if x.ndim) == 67_252_224
    assert {delta.scale for delta in lora.deltas["unet"].values()} == {1 / 8}


def test_the_sizes_of_motion_loras_and_of_the_domain_adapter():
    modules = modules_of_the_full_size(temporal="animatediff", motion_mid_block=True)
    attention = {name: target.shape for name, target in modules.items() if ".attn" in name}
    motion = [64 * sum(shape) for name, shape in attention.items() if "motion_modules" in name]
    spatial = [128 * sum(shape) for name, shape in attention.items() if "motion_modules" not in name]
    assert (len(motion), sum(motion)) == (168, 19_333_120)
    assert (len(spatial), sum(spatial)) == (128, 25_509_888)


SHAPES = {"lora_down.weight": (2, 16), "lora_up.weight": (16, 2)}
TO_Q = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


def ones(name, **shapes):
    return {f"{name}.{factor}": np.ones(shapes.get(factor[5:7], shape), np.float32) for factor, shape in SHAPES.items()}


REFUSALS = {
    "LoCon": ({f"{TO_Q}.lora_mid.weight": np.ones(2)}, "is LoCon with a Tucker decomposition"),
    "LoHa": ({f"{TO_Q}.hada_w1_a": np.ones(2)}, f"is LoHa, which is not supported, only LoRA is: {TO_Q}.hada_w1_a"),
    "LoKr": ({f"{TO_Q}.lokr_w1": np.ones(2)}, "is LoKr"),
    "DoRA": (ones(TO_Q) | {f"{TO_Q}.dora_scale": np.ones(2)}, "is DoRA"),
    "OFT": ({f"{TO_Q}.oft_blocks": np.ones(2)}, "is OFT"),
    "differences": (ones(TO_Q) | {f"{TO_Q}.diff_b": np.ones(2)}, "is whole differences of weights"),
    "2022": ({"unet:0:down": np.ones(2), "unet:0:up": np.ones(2)}, "is a LoRA of 2022 that numbers its layers"),
    "embedding": ({"emb_params": np.ones(2)}, "is a textual inversion"),
    "checkpoint": ({"model.diffusion_model.out.2.weight": np.ones(2)}, "is a whole checkpoint"),
    "XL": (
        ones(TO_Q, do=(2, 640)) | ones(TO_Q.replace("attn1_to_q", "attn2_to_k"), do=(2, 2048)),
        r"is for another model: .*attn2_to_k changes a weight of \(16, 2048\), which is \(16, 16\) here "
        r"\(2048 is the width of Stable Diffusion XL's text\), and so on, 2 in all; its header says sdxl, lycoris",
    ),
    "no such layer": (
        ones("lora_unet_double_blocks_0"),
        "changes no layer of this model; it names lora_unet_double_bl",
    ),
    "nothing": ({"x": np.ones(2)}, "changes no layer of this model; it names x"),
    "half": ({f"{TO_Q}.lora_up.weight": np.ones((16, 2))}, "attn1_to_q has no down matrix"),
    "twice": (ones(TO_Q) | ones("mid_block.attentions.0.transformer_blocks.0.attn1.to_q"), "there twice"),
    "ranks": (ones(TO_Q, up=(16, 3)), r"shapes \(2, 16\) and \(16, 3\), which do not multiply"),
    "vectors": (ones(TO_Q, up=(16,)), "which do not multiply"),
    "alpha": (ones(TO_Q) | {f"{TO_Q}.alpha": np.array(np.nan)}, "the alpha of .* is nan"),
    "alphas": (ones(TO_Q) | {f"{TO_Q}.alpha": np.ones(2)}, r"the alpha of .* is \[1.0, 1.0\]"),
    "integers": ({name: x.astype(np.int8) for name, x in ones(TO_Q).items()}, "is I8: convert it"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    unet = dataclasses.replace(
        TINY.unet,
        content_kind="text",
        structure_channels=0,
        block_out_channels=(16, 16),
        attention_levels=(False, False),
    )
    config = dataclasses.replace(TINY, unet=unet, clip=None, prior=None, depth=None, text=TINY.clip.text)
    return open_model(save_tiny_model(tmp_path_factory.mktemp("lora") / "words", config))


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_merged_is_refused_by_its_name(model, tmp_path, case):
    tensors, named = REFUSALS[case]
    save_file(tensors, tmp_path / "x.safetensors", {"ss_base_model_version": "sdxl", "ss_network_module": "lycoris"})
    with pytest.raises(LoRAError, match=rf"^\S*/x\.safetensors.*{named}") as refusal:
        WithLoRA(model, [(tmp_path / "x.safetensors", 1)])
    assert "\n" not in str(refusal.value)


def test_files_that_are_none(model, tmp_path):
    (tmp_path / "x.pt").write_bytes(b"never opened")
    (tmp_path / "y.safetensors").write_bytes(b"nonsense")
    for name, named in (
        ("x.pt", r"x\.pt is a pickle"),
        ("y.safetensors", "y.safetensors is not a readable"),
        ("z", "z is not there"),
    ):
        with pytest.raises(FolderError, match=named):
            read_lora(tmp_path / name, Targets.of(model.config))


def test_a_model_with_loras(model, tmp_path):
    """Merged when it is read, in float32 and from half precision; hash, name and words follow."""
    text = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    style = ones(TO_Q) | ones(text, up=(32, 2)) | {f"{TO_Q}.alpha": np.array(4.0)} | ones("lora_unet_nowhere")
    save_file({name: x.astype(np.float16) for name, x in style.items()}, tmp_path / "style.safetensors")
    save_file(ones(TO_Q), tmp_path / "fast.safetensors")
    with pytest.warns(UserWarning, match="^style: 1 of its 3 modules are left out, for this .*: lora_unet_nowhere$"):
        source = WithLoRA(model, [(tmp_path / "style.safetensors", 0.5), (tmp_path / "fast.safetensors", -1)])
    assert isinstance(source, ModelSource) and source.name == "words + style:0.5 + fast:-1"
    assert source.config == model.config and source.tokenizer().json == model.tokenizer().json
    path = "mid_block.attentions.0.spatial.block.attn1.to_q.kernel"
    before, after = (flatten(each.parameters("unet")) for each in (model, source))
    changed = [name for name in before if (before[name] != after[name]).any()]
    assert changed == [path]
    np.testing.assert_allclose(after[path], before[path] + 2 * (0.5 * 4 / 2 - 1 * 1), rtol=1e-6, atol=1e-6)
    fc1 = "layers.0.fc1.kernel"
    np.testing.assert_allclose(
        flatten(source.stored("text"))[fc1][3:5], np.asarray(flatten(model.stored("text"))[fc1])[3:5] + 0.5 * 2
    )
    assert source.stored("vae").keys() == model.stored("vae").keys()
    weight = np.asarray(before[path], np.float64)
    ratio = norm_ratio(model.stored("unet"), {path: source._read[0][0].deltas["unet"][path]}, 0.5)
    assert ratio == pytest.approx(np.linalg.norm(np.full((16, 16), 2.0)) / np.linalg.norm(weight))
    assert source.norm_ratios()[0]["unet"] == pytest.approx(ratio) and source.norm_ratios()[1].keys() == {"unet"}

    again = WithLoRA(model, [(tmp_path / "fast.safetensors", -1)])
    other = WithLoRA(model, [(tmp_path / "fast.safetensors", 1)])
    assert len({model_hash(each) for each in (model, source, again, other)}) == 4
    assert model_hash(again) == model_hash(WithLoRA(model, [(tmp_path / "fast.safetensors", -1.0)]))
    model.words = frozenset({"car"})
    assert (source.words, again.words) == (None, {"car"})


def test_half_precision_stays(model):
    deltas = lora_of(ones(TO_Q), Targets.of(model.config), "x").deltas["unet"]
    (path,) = deltas
    weights = {"mid_block": {"x": 0}}
    params = merge({**weights, path: np.full((16, 16), 0.1, np.float16)}, [(deltas, 0.01)])
    assert params["mid_block"]["x"] == 0
    merged = flatten(params)[path]
    assert merged.dtype == np.float16 and (merged == np.float16(np.float32(np.float16(0.1)) + np.float32(0.02))).all()


@pytest.mark.parametrize("where", ["beside", "inside"])
def test_alpha_of_peft(model, tmp_path, where):
    module = "mid_block.attentions.0.transformer_blocks.0.attn1"
    tensors = {}
    for name in ("to_q", "to_k"):
        tensors |= {f"unet.{module}.{name}.lora_{a}.weight": np.ones(s) for a, s in (("A", (2, 16)), ("B", (16, 2)))}
    adapter = {"r": 2, "lora_alpha": 6, "alpha_pattern": {f"{module}.to_k": 1}}
    if where == "inside":
        metadata = {"lora_adapter_metadata": json.dumps({f"unet.{key}": value for key, value in adapter.items()})}
    else:
        metadata = None
        (tmp_path / "adapter_config.json").write_text(json.dumps(adapter | {"use_rslora": True}))
    save_file(tensors, tmp_path / "adapter_model.safetensors", metadata)
    deltas = read_lora(tmp_path, Targets.of(model.config)).deltas["unet"]
    scales = {path.split(".")[-2]: delta.scale for path, delta in deltas.items()}
    more = 1 if where == "inside" else 2**0.5
    assert scales == pytest.approx({"to_q": 3 * more, "to_k": 0.5 * more})


def test_the_argument(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text, file, strength in (
        ("a.safetensors", "a.safetensors", 1),
        ("a.safetensors:0.8", "a.safetensors", 0.8),
        ("a:-1", "a", -1),
        (r"C:\loras\a.safetensors", r"C:\loras\a.safetensors", 1),
        (r"C:\loras\a.safetensors:.5", r"C:\loras\a.safetensors", 0.5),
        ("ratio 16:9.safetensors", "ratio 16:9.safetensors", 1),
        ("a:b:1.5", "a:b", 1.5),
        ("a:", "a:", 1),
        ("0.5", "0.5", 1),
    ):
        assert (str(file_and_number(text)[0]), file_and_number(text)[1]) == (file, strength), text
    (tmp_path / "16:9").touch()
    assert file_and_number("16:9")[1] == 1 and file_and_number("16:9:2")[1] == 2
    for number in ("nan", "inf"):
        with pytest.raises(ArgumentTypeError, match=f"strength of a is {number}"):
            file_and_number(f"a:{number}")
