"""Compiled-for-anywhere programs (`jax.export`): the denoiser, the guided sampler, the autoencoder both ways.

denoiser.bin  guided_sampler.bin    each takes the weights in unet.safetensors, {name: array}, then its arguments
vae_encode.bin  vae_decode.bin      the same with vae.safetensors
load_stablehlo.py  manifest.json    a loader that needs jax and not this package; names, shapes and dtypes

Shapes are fixed, so that a program has arguments for every input of the U-Net: "structure" for the first, its name for
another. One that the U-Net can do without has a weight, 0 where it is absent, and the loader fills it in.

https://docs.jax.dev/en/latest/export/export.html
"""

import dataclasses
import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from gen1_jax.diffusion import Guidance, default_sampler, get_sampler
from gen1_jax.editing.known import KnownLatents
from gen1_jax.editing.sampling import GuidedSampler, Known
from gen1_jax.exporting.networks import (
    ExportError,
    Networks,
    Written,
    fixed_inputs,
    fixed_normal,
    fixed_pictures,
    in_float32,
    refuse_distilled,
    refuse_split,
    relative_difference,
)
from gen1_jax.models.attention import attention_platform
from gen1_jax.models.conditions import Conditions, Signal
from gen1_jax.models.denoiser_config import KNOWN, DenoiserConfig
from gen1_jax.models.module import Bound, Params, flatten, unflatten
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.folder import FORMAT, ModelSource
from gen1_jax.pretrained.tensors import save_tensors

PLATFORMS = ("cpu", "cuda", "tpu")
_LOADER = "load_stablehlo.py"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StableHLOOptions:
    """What the programs are made for; shapes are fixed in them.

    Attributes:
        frames: of a clip; None for the model's window.
        size: height and width of its frames in pixels; None for the model's.
        steps: of the sampler.
        platforms: that the programs run on, this machine's among them.
    """

    frames: int | None = None
    size: tuple[int, int] | None = None
    steps: int = 50
    platforms: tuple[str, ...] = PLATFORMS

    def __post_init__(self):
        if unknown := [name for name in self.platforms if name not in PLATFORMS]:
            raise ExportError(f"unknown platform {unknown[0]!r}: choose among {', '.join(PLATFORMS)}")
        if not 1 <= self.steps <= 1000:
            raise ExportError(f"steps must be 1 to 1000, got {self.steps}")

    def shape(self, config: Gen1Config) -> tuple[int, int, int]:
        """Frames, height and width.

        Raises:
            ExportError: the model has not as many frame positions, or needs another multiple of pixels.
        """
        frames = config.num_frames if self.frames is None else self.frames
        height, width = self.size or config.working_size(config.height, config.width)
        multiple = config.vae.downscale * config.unet.downscale
        if not 1 <= frames <= config.unet.max_frames:
            raise ExportError(
                f"frames must be 1 to {config.unet.max_frames}, the model's frame positions, got {frames}"
            )
        if min(height, width) < 1 or height % multiple or width % multiple:
            raise ExportError(f"width and height must be multiples of {multiple} for this model, got {width}x{height}")
        return frames, height, width


class _Program(NamedTuple):
    """A function to export.

    Attributes:
        component: whose weights it takes.
        traced: (parameters, named arguments) -> result; this is exported.
        live: (named arguments) -> result, as the rest of the package computes it.
        arguments: an example of each, in their order.
    """

    component: str
    traced: Callable[..., jax.Array]
    live: Callable[..., jax.Array]
    arguments: dict[str, np.ndarray]


def write_stablehlo(source: ModelSource, folder: Path, dtype: np.dtype, options: StableHLOOptions) -> Written:
    """Write programs, weights and loader, and run each program, read back, beside the model.

    Raises:
        ExportError: see `StableHLOOptions`; platforms without that of this machine, which compares; or a U-Net that is
            told scales of guidance, whose samplers draw fresh noise in each step.
    """
    refuse_distilled(source.config.unet, "stablehlo")
    refuse_split(source.config, "stablehlo")
    shape, here = options.shape(source.config), _platform_here()
    if here not in options.platforms:
        raise ExportError(f"platforms must include {here}, on which this machine checks the programs")
    networks, parity, signature = Networks(source, dtype), {}, {}
    lacks = _may_lack(source.config.unet)
    for component, programs in (("unet", _unet_programs), ("vae", _vae_programs)):
        weights = _write_weights(folder, component, networks[component])
        file = folder / f"{component}.safetensors"
        for name, program in programs(source.config, networks.bound(component), shape, options.steps).items():
            artifact = folder / f"{name}.bin"
            artifact.write_bytes(_exported(program, weights, options.platforms))
            result, parity[name] = _compare(program, file, artifact)
            signature[name] = {
                "file": artifact.name,
                "weights": file.name,
                "arguments": [
                    {"name": key, **_aval(x), **({"of": lacks[key]} if key in lacks else {})}
                    for key, x in program.arguments.items()
                ],
                "result": _aval(result),
            }
    shutil.copyfile(Path(__file__).with_name(_LOADER), folder / _LOADER)
    return Written(parity, {"platforms": list(options.platforms), "steps": options.steps, "signature": signature})


def _unet_programs(config: Gen1Config, unet: Bound, shape: tuple[int, int, int], steps: int) -> dict[str, _Program]:
    frames, height, width = shape
    rows, columns = height // config.vae.downscale, width // config.vae.downscale
    shape_of_latents = (1, frames, rows, columns, config.unet.latent_channels)
    sampler = GuidedSampler(
        unet,
        config.schedule,
        get_sampler(default_sampler(config.schedule), config.schedule),
        steps,
        window=config.num_frames,
        overlap=config.window_overlap,
    )

    def request(guidance_scale, temporal_guidance_scale, **given):
        scales = jnp.asarray(guidance_scale), jnp.asarray(temporal_guidance_scale)
        return _conditions(config.unet, **given), Guidance.whole(*scales)  # all branches: scales are arguments

    def keeping(run: Callable[[Known | None], jax.Array], given) -> jax.Array:
        """The result of a run that keeps what is known; its last step leaves a trace of noise there."""
        if KNOWN not in given:
            return run(None)
        known = KnownLatents(*jnp.split(jnp.asarray(given[KNOWN]), [config.unet.latent_channels], axis=-1))
        return known.on(run(known.kept()))

    def sample(params: Params, seed, **given):
        state, told = sampler.start(seed, shape_of_latents), request(**given)
        run = lambda known: sampler.advance(params, state, *told, sampler.padded_tables, 0, steps, known).latents
        return keeping(run, given)

    def sample_live(seed, **given):
        return keeping(lambda known: sampler(shape_of_latents, int(seed), *request(**given), known=known), given)

    def denoise(params: Params, latents, timesteps, **given):
        return unet.apply(params, latents, timesteps, _conditions(config.unet, **given), method="denoise")[0]

    given = {"content": fixed_normal(1, 1, config.unet.cross_attention_dim, seed=2)}
    given |= _inputs(config.unet, shape_of_latents)
    noisy = {"latents": fixed_normal(*shape_of_latents), "timesteps": np.array([500], np.int32)}
    scales = {"guidance_scale": np.float32(7.5), "temporal_guidance_scale": np.float32(1.5)}
    return {
        "denoiser": _Program("unet", denoise, functools.partial(jax.jit(denoise), unet.params), noisy | given),
        "guided_sampler": _Program("unet", sample, sample_live, {"seed": np.uint32(0)} | given | scales),
    }


def _argument(config: DenoiserConfig, name: str) -> str:
    """What the maps of an input are called."""
    return "structure" if name in config.structures[:1] else name


def _inputs(config: DenoiserConfig, latents: tuple[int, ...]) -> dict[str, np.ndarray]:
    """An example of each argument that tells of inputs of the U-Net, in their order."""
    given = {}
    for name, maps in fixed_inputs(config, latents).items():
        argument = _argument(config, name)
        given[argument] = maps
        if name == KNOWN:  # it has no t_s, and a mask that is 0 rather than a weight
            continue
        given[f"{argument}_level"] = np.array([2], np.int32)
        if name not in config.required:
            given[f"{argument}_weight"] = np.ones(1, np.float32)
    return given


def _may_lack(config: DenoiserConfig) -> dict[str, str]:
    """Arguments that the loader fills in if they are not given, and the maps that they belong to."""
    names = {name: _argument(config, name) for name in config.inputs if name not in config.required}
    ends = lambda name: ("",) if name == KNOWN else ("", "_level", "_weight")
    return {f"{maps}{end}": maps for name, maps in names.items() for end in ends(name)}


def _conditions(config: DenoiserConfig, content: Any, **given: Any) -> Conditions:
    """What the U-Net is told by arguments of a program."""
    structure = {}
    for name in config.inputs:
        argument = _argument(config, name)
        more = (given.get(f"{argument}_{field}") for field in ("level", "weight"))
        structure[name] = Signal.of(given[argument], *more)
    return Conditions(content={config.content_kind: content}, structure=structure)


def _vae_programs(config: Gen1Config, vae: Bound, shape: tuple[int, int, int], steps: int) -> dict[str, _Program]:
    """Between pictures in [-1, 1] and the U-Net's latents."""
    frames, height, width = shape
    scale, channels = config.vae.downscale, config.vae.latent_channels

    def program(method: str, arguments: dict[str, np.ndarray]) -> _Program:
        traced = lambda params, **given: vae.apply(params, *given.values(), method=method)
        return _Program("vae", traced, lambda **given: getattr(vae, method)(*given.values()), arguments)

    images = fixed_pictures(frames, height, width, config.vae.in_channels)
    latents = fixed_normal(frames, height // scale, width // scale, channels)
    return {
        "vae_encode": program("images_to_latents", {"images": images}),
        "vae_decode": program("latents_to_images", {"latents": latents}),
    }


def _write_weights(folder: Path, component: str, params: Params) -> dict[str, jax.ShapeDtypeStruct]:
    """Their names and shapes; the arrays, gigabytes at full size, are not held while programs are made."""
    flat = flatten(params)
    save_tensors(folder, component, flat, layout=FORMAT)
    return {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in flat.items()}


def _exported(program: _Program, weights: dict[str, jax.ShapeDtypeStruct], platforms: tuple[str, ...]) -> bytes:
    def run(weights, *arguments):
        params = in_float32(unflatten(weights))
        return program.traced(params, **dict(zip(program.arguments, arguments, strict=True)))

    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (weights, *program.arguments.values()))
    with attention_platform("cpu"):  # an implementation that all platforms have
        return bytes(jax.export.export(jax.jit(run), platforms=platforms)(*shapes).serialize())


def _compare(program: _Program, weights: Path, artifact: Path) -> tuple[np.ndarray, float]:
    """The result of a program and weights as they are read back, and how far it is from the model's.

    The weights read back are gone before the model runs: at full size they are gigabytes.
    """
    exported = jax.export.deserialize(bytearray(artifact.read_bytes()))
    result = np.asarray(jax.jit(exported.call)(load_file(weights), *program.arguments.values()))
    return result, relative_difference(result, program.live(**program.arguments))


def _platform_here() -> str:
    platform = jax.default_backend()
    return "cuda" if platform == "gpu" else platform


def _aval(x: Any) -> dict[str, Any]:
    return {"shape": list(x.shape), "dtype": np.dtype(x.dtype).name}
