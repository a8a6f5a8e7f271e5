"""More inputs for a network that has been trained: what is new begins as zeros, so that it is the same at first.

conv_in   z_t | depth | edges | ... | known        rows of inputs that it had stay as they are, whatever they are
                        └──────────────┴─ zeros ─► nothing is added until they are trained

Scales of guidance come by a projection of zeros, see `guidance_embedding`. Or an input is told something else from now
on (`with_structures`): the network learns anew what its rows mean, and keeps its shape.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from gen1_jax.errors import UserError
from gen1_jax.models.denoiser_config import KNOWN, DenoiserConfig
from gen1_jax.models.guidance_embedding import GuidanceEmbedding
from gen1_jax.models.module import Params, abstract_parameters, flatten, unflatten

_KERNEL = "conv_in.kernel"  # (height, width, in, out)
_GUIDANCE = "guidance_embedding"


def with_inputs(config: DenoiserConfig, inputs: Sequence[str]) -> DenoiserConfig:
    """The configuration of a network that has these inputs, any of which may be given.

    Args:
        config: of the network as it is.
        inputs: kinds of structure, and "known"; with all that it has.

    Raises:
        UserError: one is named twice, or one that it has is not named.
    """
    if twice := sorted({name for name in inputs if inputs.count(name) > 1}):
        raise UserError(f"unet.inputs names {twice[0]} twice")
    if lost := [name for name in config.inputs if name not in inputs]:
        raise UserError(f"unet.inputs lacks {lost[0]}, which the model has: an input can be added, not taken away")
    structures = [name for name in inputs if name != KNOWN]
    kinds = (*config.structures, *(name for name in structures if name not in config.structures))
    return dataclasses.replace(
        config,
        structure_kinds=kinds or config.structure_kinds,
        structure_channels=config.structure_channels or (config.latent_channels if kinds else 0),
        structure_optional=bool(kinds),
        known=KNOWN in inputs,
    )


def with_structures(config: DenoiserConfig, kinds: Sequence[str]) -> DenoiserConfig:
    """The configuration of a network that is told other structures in the place of its own, by the same rows.

    Args:
        config: of the network as it is.
        kinds: of structure, as many as it has.

    Raises:
        UserError: it has more, or less.
    """
    if len(kinds) != len(config.structures):
        has = ", ".join(config.structures) or "none"
        raise UserError(f"unet.structure_kinds are as many as the model's own ({has}), not {', '.join(kinds)}")
    return dataclasses.replace(config, structure_kinds=tuple(kinds))


def grow(params: Params, before: DenoiserConfig, after: DenoiserConfig) -> Params:
    """Parameters of a network with more inputs that predicts what it did, whatever the new ones are given.

    Args:
        params: arrays, or what gives arrays.
        before: the network that they are of.
        after: see `with_inputs`.

    Raises:
        UserError: it is of another kind.
    """
    if before.kind != after.kind:
        raise UserError(f"the weights of a {before.kind} are not those of a {after.kind}: it begins from scratch")
    flat = flatten(params)
    if after.guidance_embedded and not before.guidance_embedded:
        zeros = abstract_parameters(GuidanceEmbedding(after.timestep_features))
        flat |= {f"{_GUIDANCE}.{name}": np.zeros(x.shape, np.float32) for name, x in flatten(zeros).items()}
        params = unflatten(flat)
    if _KERNEL not in flat or after.in_channels == before.in_channels:
        return params
    kernel = np.asarray(flat[_KERNEL])
    names, counts = zip(*before.inputs.items(), strict=True) if before.inputs else ((), ())
    ends = np.cumsum([before.latent_channels, *counts])
    latents, *pieces, _ = np.split(kernel, ends, axis=2)
    had = dict(zip(names, pieces, strict=True))
    zeros = lambda count: np.zeros((*kernel.shape[:2], count, kernel.shape[3]), kernel.dtype)
    rows = [had.get(name, zeros(count)) for name, count in after.inputs.items()]
    return unflatten(flat | {_KERNEL: np.concatenate([latents, *rows], axis=2)})
