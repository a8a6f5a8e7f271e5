"""What formats share: networks as they are exported, inputs to compare them by, and the measure of agreement."""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gen1_jax.diffusion import NoiseSchedule
from gen1_jax.errors import UserError
from gen1_jax.models.denoiser_config import KNOWN, DenoiserConfig
from gen1_jax.models.denoiser_inputs import abstract_conditions
from gen1_jax.models.module import Bound, Params, flatten, unflatten
from gen1_jax.models.quantized import is_quantizable, quantise
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.folder import ModelSource

LIMIT = 1e-4
"""Largest relative difference that an export may have."""


class ExportError(UserError):
    """An export that cannot be made, or that does not compute what the model does. One line."""


def refuse_distilled(config: DenoiserConfig, form: str) -> None:
    """Refuses what a format has no place for.

    Raises:
        ExportError: the U-Net is told scales of guidance.
    """
    if config.guidance_embedded:
        raise ExportError(f"the {form} format is of a U-Net that is not told scales of guidance, and this one is")


def refuse_other_kinds(config: DenoiserConfig, form: str) -> None:
    """Refuses denoisers that a format has no names for.

    Raises:
        ExportError: the denoiser is no U-Net.
    """
    if config.kind != "unet":
        raise ExportError(f"the {form} format is of a U-Net, and this model's denoiser is a {config.kind}")


def refuse_flow(schedule: NoiseSchedule, form: str) -> None:
    """Refuses what a format has no sampler for.

    Raises:
        ExportError: the noise schedule is that of rectified flow.
    """
    if schedule.use_flow_sigmas:
        others = "safetensors, diffusers or stablehlo"
        raise ExportError(f"the {form} format has no sampler of rectified flow; take {others}")


def refuse_split(config: Gen1Config, form: str) -> None:
    """Refuses what a format has no network for.

    Raises:
        ExportError: the model follows a learned code.
    """
    if config.split is not None:
        raise ExportError(f"the {form} format has no place for a learned split; take safetensors")


class Written(NamedTuple):
    """What a format's writer reports.

    Attributes:
        parity: largest relative difference against the JAX model, by what was compared.
        details: what else the manifest says.
    """

    parity: dict[str, float]
    details: dict[str, Any] = {}  # noqa: RUF012, nobody writes to it


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """A file of JSON, in a folder that is made for it."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


class Networks(Mapping[str, Params]):
    """The parameters of each network in the dtype of the export, one network at a time in memory.

    Of int8 are the kernels that `is_quantizable` names, which are `Quantized` here; the rest is then of bfloat16.
    Networks named in `without` are left out.
    """

    def __init__(self, source: ModelSource, dtype: np.dtype, without: Collection[str] = ()):
        self._source, self._in_eight_bits = source, dtype == np.int8
        self._names = tuple(name for name in source.config.components if name not in without)
        self._dtype = np.dtype(jnp.bfloat16) if self._in_eight_bits else dtype

    def __getitem__(self, component: str) -> Params:
        exported = {}
        for name, x in flatten(self._source.parameters(component)).items():
            if self._in_eight_bits and is_quantizable(name, x.shape):
                if not np.isfinite(x).all():
                    raise ExportError(f"{component}'s {name} is not finite, which int8 cannot be: its weights are bad")
                exported[name] = quantise(x)
                continue
            with np.errstate(over="ignore"):
                exported[name] = x.astype(self._dtype, copy=False)
            if not np.isfinite(exported[name]).all() and np.isfinite(x).all():
                raise ExportError(
                    f"{component}'s {name} reaches {np.abs(x).max():.3g}, more than {self._dtype.name} holds: "
                    "export it as bfloat16 or float32"
                )
        return unflatten(exported)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def bound(self, component: str) -> Bound:
        """The JAX network with these weights, computing in float32."""
        return Bound(self._source.config.build(component, np.float32), in_float32(self[component]))


def in_float32(params: Params) -> Params:
    """Parameters widened, so that the rounding of an export is no difference to it."""
    return jax.tree.map(lambda x: x.astype(np.float32, copy=False), params)


def relative_difference(ours: Any, theirs: Any) -> float:
    """max|a - b| / max|b| of what `np.asarray` takes; infinite if shapes differ or anything is not finite."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return float("inf")
    difference = np.abs(ours - theirs).max()
    scale = np.abs(theirs).max()
    return float(difference / scale) if scale else float("inf" if difference else 0)


def fixed_normal(*shape: int, seed: int = 0) -> Float[np.ndarray, "*shape"]:
    """Standard normal numbers, the same at any time."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def fixed_inputs(config: DenoiserConfig, latents: tuple[int, ...]) -> dict[str, Float[np.ndarray, "b t h w k"]]:
    """Maps of each input of a U-Net, the same at any time; of what is known, latents where the last channel is 1.

    Args:
        config: of the U-Net; its controls, which are told of features, are no inputs.
        latents: (B, T, h, w, C), their shape.
    """
    told = abstract_conditions(config, latents, 1, np.float32).structure
    maps = {name: fixed_normal(*told[name].maps.shape, seed=seed) for seed, name in enumerate(config.inputs, 1)}
    if KNOWN in maps:
        maps[KNOWN][..., -1:] = maps[KNOWN][..., -1:] > 0
        maps[KNOWN][..., :-1] *= maps[KNOWN][..., -1:]
    return maps


def fixed_pictures(*shape: int) -> Float[np.ndarray, "*shape"]:
    """Uniform numbers in [-1, 1], the same at any time."""
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
