"""Low-rank changes of kernels (LoRA, arXiv 2106.09685): which kernels, and kernel + scale * down @ up.

A convolution's kernel (kh, kw, in, out) is the matrix (kh kw in, out), as in LoCon and PEFT.
"""

import dataclasses
import re
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gen1_jax.errors import UserError
from gen1_jax.models.denoiser_config import DenoiserConfig
from gen1_jax.models.module import Params, flatten, unflatten
from gen1_jax.models.selection import GROUPS

_BLOCK = r"(\.spatial\.block|^layers\.blocks\.\d+)"  # within frames: of a U-Net, of a transformer

TARGETS = {
    "attention": _BLOCK + r"\.attn[12]\.to_(q|k|v|out)\.kernel$",
    "feed_forward": _BLOCK + r"\.ff\.proj_(in|out)\.kernel$",
    "projections": r"\.spatial\.proj_(in|out)\.kernel$",
    "motion": GROUPS["motion"],
    "convolutions": r"^(down|mid|up)_block\w*\.(\w+\.)*(conv1|conv2|conv_shortcut|downsample|upsample)\.kernel$",
}
"""Kernels by names of their own, each a regular expression that is searched in dotted paths."""

_OF_ONE_TOKEN = re.compile(_BLOCK + r"\.attn2\.to_[qk]\.kernel$")
_RANKS = (2, 4)  # axes of the kernels that can be changed


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowRankConfig:
    """What a low-rank adapter changes.

    Attributes:
        rank: of each change; 0 for none, the network itself is trained.
        targets: which kernels: "attention", "feed_forward", "projections", "convolutions", or regular expressions that
            are searched in the names of those of layers within frames; or "motion", the layers between frames.
        scale: of the change: alpha / rank.
    """

    rank: int = 0
    targets: tuple[str, ...] = ("attention",)
    scale: float = 1.0

    def __post_init__(self):
        if self.rank < 0 or not self.scale > 0:
            raise UserError(f"lora.rank is {self.rank}, lora.scale {self.scale}: out of range")
        if self.rank and not self.targets:
            raise UserError("lora.targets is empty: name attention, or others")
        for name in self.targets:
            try:
                _within_frames(name)
            except re.error as error:
                known = ", ".join(TARGETS)
                raise UserError(
                    f"lora.targets: {name!r} is none of {known}, nor a regular expression ({error})"
                ) from None


def target_kernels(config: LowRankConfig, unet: DenoiserConfig, params: Params) -> dict[str, tuple[int, ...]]:
    """Shapes of the kernels that are changed, by path; those that no gradient can reach are never among them.

    With one token of content cross-attention has one key, its softmax is 1, and queries and keys change nothing.

    Args:
        config: of the adapter.
        unet: of the network.
        params: of the network, abstract or not.

    Raises:
        UserError: a name that is in no kernel, or only in such as learn nothing.
    """
    shapes = {path: tuple(x.shape) for path, x in flatten(params).items() if path.endswith(".kernel")}
    kernels = {path: shape for path, shape in shapes.items() if len(shape) in _RANKS}
    one = unet.content.length is None
    alive = {p: shape for p, shape in kernels.items() if not (one and _OF_ONE_TOKEN.search(p))}
    chosen: dict[str, tuple[int, ...]] = {}
    for name in config.targets:
        pattern = _within_frames(name)
        if not any(map(pattern.search, kernels)):
            raise UserError(f"lora.targets: {name!r} is in no name of a kernel of this network")
        found = {path: shape for path, shape in alive.items() if pattern.search(path)}
        if not found:
            raise UserError(
                f"lora.targets: {name!r} names only queries and keys of attention to one token of content, which no "
                "gradient reaches: name attn2.to_v and attn2.to_out"
            )
        chosen |= found
    return dict(sorted(chosen.items()))


def _within_frames(name: str) -> re.Pattern[str]:
    """What a target means: never a layer between frames, unless it is these that it names."""
    pattern = TARGETS.get(name, name)
    return re.compile(pattern if name == "motion" else f"(?={GROUPS['spatial']})(?=.*(?:{pattern}))")


def initial_factors(config: LowRankConfig, kernels: dict[str, tuple[int, ...]], seed: int) -> Params:
    """{path of a kernel: {"down": (n, rank), "up": (rank, out)}}: down is Gaussian, up 0, so that nothing changes yet.

    Each depends on the seed and its own path alone.
    """
    factors = {}
    for path, (*inputs, outputs) in kernels.items():
        size = int(np.prod(inputs))
        rng = np.random.default_rng([seed, zlib.crc32(path.encode())])
        factors[f"{path}.down"] = rng.standard_normal((size, config.rank), np.float32) / np.float32(size**0.5)
        factors[f"{path}.up"] = np.zeros((config.rank, outputs), np.float32)
    return unflatten(factors)


def changed(params: Params, factors: Params, scale: float) -> Params:
    """The network with the changes: each sum is float32, and then of the kernel's dtype.

    Differentiable in `factors`.
    """
    flat, pairs = flatten(params), flatten(factors)
    for path in {name.rpartition(".")[0] for name in pairs}:
        flat[path] = _sum(flat[path], pairs[f"{path}.down"], pairs[f"{path}.up"], scale)
    return unflatten(flat)


def _sum(kernel: Any, down: Any, up: Any, scale: float) -> Array:
    down, up = (jnp.asarray(factor, jnp.float32) for factor in (down, up))
    change = jnp.matmul(down, up, precision=jax.lax.Precision.HIGHEST).reshape(kernel.shape)
    return (jnp.asarray(kernel).astype(jnp.float32) + scale * change).astype(kernel.dtype)
