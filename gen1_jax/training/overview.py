"""What a run says of itself before its first step: devices, parameters, recipe, where it begins."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax

from gen1_jax.models.denoiser_config import DenoiserConfig
from gen1_jax.models.module import Params
from gen1_jax.parallel.sharding import Layout
from gen1_jax.training.config import TrainConfig
from gen1_jax.training.fields import REQUIRED, recipe_fields


def overview(
    config: TrainConfig,
    layout: Layout,
    learned: Params,
    frozen: Mapping[str, Params],
    begins: str,
    unet: DenoiserConfig,
) -> Iterator[str]:
    """Lines for people.

    Args:
        config: the recipe.
        layout: where arrays lie.
        learned: the parameters that are trained, arrays or their shapes.
        frozen: those of the networks that are not, by component.
        begins: where the run begins, in words.
        unet: of the model that is trained.
    """
    devices, processes = layout.mesh.devices.flat, jax.process_count()
    axes = ", ".join(f"{axis}={size}" for axis, size in layout.mesh.shape.items())
    among = f" of {processes} processes" if processes > 1 else ""
    yield f"devices     {len(devices)} x {devices[0].device_kind}{among}, mesh {axes}"
    yield f"run         {begins}"
    arrays = len(jax.tree.leaves(learned))
    yield f"parameters  {config.component}: {_size(learned)} in {arrays} arrays, computed in {config.dtype}"
    width = max(map(len, learned))
    for name, block in learned.items():
        yield f"              {name:{width}}  {_size(block):>10}"
    if frozen:
        yield "frozen      " + ", ".join(f"{name}: {_size(params)}" for name, params in frozen.items())
    if unseen := _unseen(config, unet):
        yield f"not seen    {', '.join(unseen)}: the model does without, and data.structure does not name them"
    given = [field for field in recipe_fields(config) if field.value != field.default]
    yield "recipe      what differs from the defaults:"
    for field in given:
        usual = "" if field.default == REQUIRED else f"  (default: {_short(field.default)})"
        yield f"              {field.name} = {_short(field.value)}{usual}"


def _unseen(config: TrainConfig, unet: DenoiserConfig) -> tuple[str, ...]:
    """Kinds of structure that are left out where a stage is to see structure, whichever there is."""
    stage = next((stage for stage in config.stages if stage.structure is True), None)
    if stage is None or config.component != "unet":
        return ()
    seen = config.seen_kinds(stage, unet)
    return tuple(kind for kind in unet.kinds if kind not in seen)


def _size(params: Any) -> str:
    """Numbers in a network, a block of it, or one array."""
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    fitting = ((unit, size) for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if count >= size)
    return next((f"{count / size:.2f} {unit}" for unit, size in fitting), f"{count}")


def _short(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
