"""`gen1 bench layers`: what each kind of layer of a U-Net takes by itself, forward and backward, on random weights."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gen1_jax.errors import UserError, counted
from gen1_jax.evaluation.bench import random_parameters
from gen1_jax.evaluation.bench_train import is_out_of_memory, seconds_of
from gen1_jax.evaluation.kernels import traced
from gen1_jax.models.flops import count_flops
from gen1_jax.models.module import Bound, abstract_parameters
from gen1_jax.models.unet.blocks import BlockInputs, ResnetBlock, SpaceTimeTransformer
from gen1_jax.models.unet.config import UNetConfig
from gen1_jax.models.unet.spatial import Content, SpatialTransformer
from gen1_jax.models.unet.unet import SpaceTimeUNet
from gen1_jax.parallel.hardware import default_dtype
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.sizes import size_named


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of a U-Net.

    Attributes:
        name: what it is.
        level: of the U-Net, 0 the finest.
        channels: of its input.
        module: one of them.
    """

    name: str
    level: int
    channels: int
    module: nnx.Module = dataclasses.field(compare=False)


def bench_layers(*, size: str = "nano", clips: int = 8, steps: int = 20, profile: bool = False) -> Iterator[dict]:
    """Time layers of a U-Net, those of one kind, level and width once, finest level first.

    Args:
        size: of the model, a key of `SIZES`.
        clips: how many there are in the batch, of the model's own size and number of frames.
        steps: timed runs.
        profile: tell what each operation takes, a list of `kernels.Operation` by the name "operations".

    Yields:
        Plain values of each, times in seconds: forward alone, and with the gradients of parameters and input.

    Raises:
        ValueError: an unknown size, one without a U-Net, or numbers below one.
    """
    config = size_named(size)
    if min(clips, steps) < 1:
        raise UserError("clips and steps must be at least 1")
    if not isinstance(config.unet, UNetConfig):
        raise UserError(f"size {size} has no U-Net, whose layers these are")
    counts = collections.Counter(layers(config))
    for layer, count in counts.items():
        row = {
            "device": jax.devices()[0].device_kind,
            "jax": jax.__version__,
            "size": size,
            "clips": clips,
            "layer": layer.name,
            "level": layer.level,
            "channels": layer.channels,
            "count": count,
        }
        try:
            yield row | _timed(layer, config, clips, steps, profile)
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error):
                raise
            yield row | {"error": "out of memory"}


def layers(config: Gen1Config) -> list[Layer]:
    """All residual blocks, and spatial and temporal transformers; two are equal that do the same on equal shapes."""
    unet: SpaceTimeUNet = config.build("unet", default_dtype())
    last = len(config.unet.block_out_channels) - 1
    blocks = [(level, block) for level, block in enumerate(unet.down_blocks)]
    blocks += [(last, unet.mid_block)] + [(last - i, block) for i, block in enumerate(unet.up_blocks)]
    found = []
    for level, block in blocks:
        for module in (*block.resnets, *block.attentions, *getattr(block, "motions", ())):
            parts = (module.spatial, module.temporal) if isinstance(module, SpaceTimeTransformer) else (module,)
            found += [_layer(part, level) for part in parts if part is not None]
    return sorted(found, key=lambda layer: layer.level)


def _layer(module: nnx.Module, level: int) -> Layer:
    norm = module.norm1 if isinstance(module, ResnetBlock) else module.norm
    return Layer(type(module).__name__, level, norm.scale.shape[0], module)


def _timed(layer: Layer, config: Gen1Config, clips: int, steps: int, profile: bool) -> dict[str, Any]:
    run, params, x = _prepared(layer, config, clips)

    def both(params, x, direction):
        y, back = jax.vjp(run, params, x)
        return y, back(direction)

    direction = jax.random.normal(jax.random.key(1), jax.eval_shape(run, params, x).shape, x.dtype)
    forward = jax.jit(run).lower(params, x).compile()
    program = jax.jit(both).lower(params, x, direction).compile()
    flops = count_flops(both, params, x, direction)
    go = lambda: program(params, x, direction)
    jax.block_until_ready((forward(params, x), go()))
    row = {"forward_seconds": seconds_of(lambda: forward(params, x), steps), "seconds": seconds_of(go, steps)}
    if profile:
        row["operations"] = traced(go, program)
    return row | {"shape": list(x.shape), "tflop": flops / 1e12, "tflop_per_second": flops / row["seconds"] / 1e12}


def _prepared(layer: Layer, config: Gen1Config, clips: int) -> tuple[Callable, Any, jax.Array]:
    """A layer as a function of parameters and input, and both of them."""
    dtype, unet, module = default_dtype(), config.unet, layer.module
    module.config = unet
    downscale = config.vae.downscale * 2**layer.level
    size = [-(-side // downscale) for side in (config.height, config.width)]
    content = Content(tokens=jnp.ones((clips, config.content_tokens, unet.cross_attention_dim), dtype))
    time = jnp.ones((clips, 4 * unet.block_out_channels[0]), jnp.float32)
    given = {
        ResnetBlock: (BlockInputs(time=time, content=content, still=(False,) * clips),),
        SpatialTransformer: (content,),
    }.get(type(module), ())
    abstract = abstract_parameters(module)
    bound = Bound(module, abstract)
    x = jax.random.normal(jax.random.key(0), (clips, config.num_frames, *size, layer.channels), dtype)
    params = jax.device_put(random_parameters(abstract, dtype))
    return lambda params, x: bound.apply(params, x, *given), params, x


def render_layers(rows: Iterable[dict]) -> Iterator[str]:
    """Lines of a table, each as soon as its row is there; the last is the sum over all layers of the U-Net."""
    timed = []
    for number, row in enumerate(rows):
        if number == 0:
            yield f"{row['size']} U-Net, {counted(row['clips'], 'clip')}, on {row['device']} (jax {row['jax']})"
            yield _line("level", "layer", "channels", "there are", "forward ms", "both ms", "TFLOP/s")
        name = row["level"], row["layer"], row["channels"], row["count"]
        if "error" in row:
            yield f"{_line(*name)} {row['error']}"
            continue
        timed.append(row)
        yield _line(*name, *_milliseconds(row["forward_seconds"], row["seconds"]), f"{row['tflop_per_second']:.1f}")
    if timed:
        forward, both, tflop = (
            sum(row["count"] * row[name] for row in timed) for name in ("forward_seconds", "seconds", "tflop")
        )
        yield _line("", "all", "", "", *_milliseconds(forward, both), f"{tflop / both:.1f}")


def _milliseconds(*seconds: float) -> list[str]:
    return [f"{1000 * s:.3f}" for s in seconds]


def _line(level, layer, *cells) -> str:
    return f"{level!s:>5} {layer:<20}" + "".join(f"{cell!s:>11}" for cell in cells)
