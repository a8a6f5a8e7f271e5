"""Tables of shardings of both sizes, without compiling. `python test_sharding.py` prints the golden."""

import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from gen1_jax.models.module import abstract_parameters, flatten
from gen1_jax.parallel.mesh import AXES
from gen1_jax.parallel.sharding import ENCODER_RULES, UNET_RULES, Layout
from gen1_jax.pretrained.family import FULL, NANO
from gen1_jax.pretrained.sizes import DIT

GOLDEN = Path(__file__).parent / "shardings.txt"
MESHES = {"1": (1, 1, 1, 1), "8x1": (8, 1, 1, 1), "4x2": (4, 2, 1, 1), "2x2x2": (2, 2, 2, 1), "1x8": (1, 8, 1, 1)}
NAMED = (
    "conv_in.kernel",
    "time_embedding.linear_2.kernel",
    "down_blocks.0.resnets.0.conv1.kernel",
    "down_blocks.1.resnets.0.conv1.bias",
    "down_blocks.1.resnets.0.temporal_conv1.conv.kernel",
    "down_blocks.1.attentions.0.spatial.block.attn2.to_k.kernel",
    "down_blocks.1.attentions.0.spatial.block.attn1.to_out.kernel",
    "down_blocks.1.attentions.0.temporal.block.attn1.to_q.kernel",
    "down_blocks.1.attentions.0.temporal.block.ff.proj_in.kernel",
    "down_blocks.1.attentions.0.temporal.block.ff.proj_out.kernel",
    "down_blocks.1.attentions.0.temporal.proj_in.kernel",
    "down_blocks.1.attentions.0.temporal.frame_positions",
    "up_blocks.0.resnets.0.conv1.kernel",
    "conv_out.kernel",
)


def layout(name, **kwargs):
    return Layout(AbstractMesh(MESHES[name], AXES), **kwargs)


def unet(config):
    return abstract_parameters(config.build("unet", np.float32))


def text(spec):
    return "(" + ", ".join(axis or "-" for axis in spec) + ")"


def tables():
    """For people to read in a diff: how much lies how, and where the well-known ones lie."""
    lines = []
    for size, config in (("full", FULL), ("nano", NANO)):
        params = unet(config)
        flat = flatten(params)
        for mesh in MESHES:
            shardings = flatten(layout(mesh).at_rest(params, UNET_RULES))
            arrays, elements = Counter(), Counter()
            for path, leaf in flat.items():
                arrays[text(shardings[path].spec)] += 1
                elements[text(shardings[path].spec)] += leaf.size
            lines += [f"{size}, {mesh}", "     arrays       elements"]
            lines += [f"     {arrays[spec]:6} {elements[spec]:14,}  {spec}" for spec in sorted(arrays)]
            named = NAMED if len(arrays) > 1 else ()
            lines += [f"     {path:62} {flat[path].shape!s:20} {text(shardings[path].spec)}" for path in named]
    return "\n".join(lines) + "\n"


def test_tables_are_as_they_were():
    assert tables() == GOLDEN.read_text()


def per_device(leaf, sharding):
    return math.prod(sharding.shard_shape(leaf.shape))  # raises where a size is not divisible


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("component", [*FULL.components, "dit"])
def test_every_array_of_the_full_size_divides(component, mesh):
    config, component = (DIT, "unet") if component == "dit" else (FULL, component)
    params = abstract_parameters(config.build(component, np.float32))
    rules = UNET_RULES if component == "unet" else ENCODER_RULES
    place = layout(mesh)
    at_rest, gathered = (flatten(f(params, rules)) for f in (place.at_rest, place.gathered))
    flat = flatten(params)
    total = sum(leaf.size for leaf in flat.values())
    resting = sum(per_device(leaf, at_rest[path]) for path, leaf in flat.items())
    assert resting <= 1.01 * total / place.mesh.shape["fsdp"]
    assert not any("fsdp" in sharding.spec for sharding in gathered.values())
    working = sum(per_device(leaf, gathered[path]) for path, leaf in flat.items())
    assert working >= resting
    divided = [path for path, sharding in gathered.items() if "tensor" in sharding.spec]
    assert bool(divided) == (mesh == "2x2x2" and component != "vae")


def test_a_transformer_is_divided_by_heads_hidden_features_and_what_modulates_it():
    specs = flatten(layout("2x2x2").at_rest(unet(DIT), UNET_RULES))
    lies = {path: text(sharding.spec) for path, sharding in specs.items()}
    for attention in ("attn1", "attn2"):
        assert lies[f"layers.blocks.3.{attention}.to_q.kernel"] == "(fsdp, tensor)"
        assert lies[f"layers.blocks.3.{attention}.to_out.kernel"] == "(tensor, fsdp)"
    assert lies["layers.blocks.3.ff.proj_in.kernel"] == "(fsdp, tensor)"
    assert lies["layers.blocks.3.ff.proj_out.kernel"] == "(tensor, fsdp)"
    assert lies["layers.modulation.projection.kernel"] == "(fsdp, tensor)"
    assert lies["conv_in.kernel"] == "(-, -, -, fsdp)" and lies["layers.blocks.3.attn1.norm_q.scale"] == "()"


def test_optimizer_state_lies_with_its_parameters():
    params = unet(NANO)
    state = jax.eval_shape(optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-4)).init, params)
    place = layout("2x2x2")
    of_params = jax.tree.leaves(place.at_rest(params, UNET_RULES))
    adam = place.at_rest(state, UNET_RULES)[1][0]
    assert jax.tree.leaves(adam.mu) == of_params == jax.tree.leaves(adam.nu)
    assert adam.count.spec == PartitionSpec()


def test_odd_sizes_and_small_arrays_are_not_divided():
    place = layout("2x2x2")
    assert place.spec("x.to_q.kernel", (1000, 999), UNET_RULES) == PartitionSpec("fsdp")
    assert place.spec("x.to_q.kernel", (1001, 999), UNET_RULES) == PartitionSpec()
    assert place.spec("x.to_q.kernel", (64, 64), UNET_RULES) == PartitionSpec()
    assert place.spec("x.to_q.kernel", (1000, 1000), UNET_RULES) == PartitionSpec("fsdp", "tensor")
    assert place.spec("x.to_q.kernel", (10, 100, 100), UNET_RULES) == PartitionSpec(None, "fsdp")
    first_wins = (("to_q", (None, None)), *UNET_RULES)
    assert place.spec("x.to_q.kernel", (1000, 1000), first_wins) == PartitionSpec("fsdp")


def test_processes_read_the_rows_of_their_devices():
    def mesh(sizes, processes):
        devices = np.array([SimpleNamespace(process_index=p) for p in processes], object).reshape(sizes)
        place = Layout(AbstractMesh(sizes, AXES))
        place.mesh = SimpleNamespace(devices=devices, shape=place.mesh.shape)
        return place

    halves = mesh((2, 2, 1, 2), [0, 0, 0, 0, 1, 1, 1, 1])
    assert [halves.process_shard(p) for p in (0, 1)] == [(0, 2), (1, 2)]
    one_clip_over_both = mesh((1, 1, 1, 4), [0, 0, 1, 1])
    assert [one_clip_over_both.process_shard(p) for p in (0, 1)] == [(0, 1), (0, 1)]
    with pytest.raises(ValueError, match="unequal parts"):
        mesh((3, 1, 1, 1), [0, 0, 1]).process_shard(0)


if __name__ == "__main__":
    print(tables(), end="")
