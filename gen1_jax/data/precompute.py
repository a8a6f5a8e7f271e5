"""`gen1 precompute`: clips to what training needs of them, once: latents, structure, CLIP embeddings.

records, or worlds (`clip_sources`) ──► frames, maps ──► networks (`encoding`) ──► write_latents (`latents`)

Maps are normalised over the clip that is stored, and stay so in every window that training draws of it: let clips
have the frames of an example, as `gen1 prepare` and `gen1 render` cut them. Maps of a control are stored as they were
estimated, and normalised in each window.
"""

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from jax.typing import DTypeLike

from gen1_jax.data.clip_sources import ClipSource, RecordClips, Wanted, WorldClips
from gen1_jax.data.config import check_kinds
from gen1_jax.data.dataset import Example, WriteSummary, missing_shards, read_recipe
from gen1_jax.data.encoding import ClipEncoder
from gen1_jax.data.latents import DATASET_NAME, LEVELS, TWO, made_structure, structure_contract, write_latents
from gen1_jax.errors import UserError
from gen1_jax.models.module import Params, flatten
from gen1_jax.models.structure import SPLIT, structure_kind
from gen1_jax.pretrained.folder import ModelSource

_ENCODERS = ("vae", "clip")  # those that the model has, and the parts of it that kinds of structure need
_DECODES = {"vae": ("decoder", "post_quant_conv")}  # what latents do not depend on


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrecomputeRecipe:
    """What is precomputed.

    Attributes:
        data: folder of a data set of clips; or "worlds:N" or "worlds:N@SEED", synthetic clips that are rendered on the
            way, in batches on the device, as `gen1 render` would.
        split: of it.
        height: of the pictures that are encoded, scaled and cropped; None for the clip's own shape at about the
            model's number of pixels.
        width: see height; both or neither.
        structure: kinds of structure, by name.
        depth: "model", the model's own depth network, as an edit sees it; or "record", as if `record` named it.
        record: kinds whose maps are the exact ones that synthetic clips carry; those of the others are estimated, as
            an edit sees them.
        levels: which t_s are held of kinds that it takes detail from: "all" eight, or "two" of each clip, a quarter of
            the bytes: 0, and one more, which one depends on the clip.
        frames: of a clip that is rendered on the way.
        change: what such a clip and its source differ in, see `RenderRecipe`.
        clips_per_shard: clips in one file, the grain of resuming.
    """

    data: str
    split: str = "train"
    height: int | None = None
    width: int | None = None
    structure: tuple[str, ...] = ("depth",)
    depth: Literal["model", "record"] = "model"
    record: tuple[str, ...] = ()
    levels: Literal["all", "two"] = "all"
    frames: int = 8
    change: str | None = None
    clips_per_shard: int = 64

    def __post_init__(self):
        if (self.height is None) != (self.width is None):
            raise UserError("give both of height and width, or neither")
        check_kinds(self.structure)
        if SPLIT in self.structure:
            raise UserError(f"structure {SPLIT} is made of latents in each step: there is nothing to precompute")
        if self.depth not in ("model", "record"):
            raise UserError(f"depth is {self.depth!r}, not model or record")
        if self.depth == "record" and "depth" not in self.structure:
            raise UserError(f"depth is 'record', but structure is {', '.join(self.structure) or 'none'}")
        if unused := [kind for kind in self.record if kind not in self.structure]:
            raise UserError(f"record names {unused[0]}, but structure is {', '.join(self.structure) or 'none'}")
        for kind in self.structure:
            if kind not in self.recorded and not structure_kind(kind).is_estimated:
                raise UserError(
                    f"nothing here estimates {kind}: take that of records of synthetic clips, --record {kind}"
                )
        if self.levels not in ("all", "two"):
            raise UserError(f"levels is {self.levels!r}, not all or two")
        if self.clips_per_shard < 1 or (self.height is not None and min(self.height, self.width) < 8):
            raise UserError(f"{self.width}x{self.height}, {self.clips_per_shard} clips a shard: too small")

    @property
    def recorded(self) -> tuple[str, ...]:
        """Kinds whose maps the records have; those of the others are estimated."""
        return tuple(k for k in self.structure if k in self.record or (k == "depth" and self.depth == "record"))

    @property
    def _said(self) -> tuple[str, ...]:
        """Kinds whose networks the recipe names: those that estimate, and, as ever, that of depth."""
        return tuple(kind for kind in self.structure if kind == "depth" or kind not in self.recorded)

    def contracts(self, model: ModelSource, kinds: Iterable[str]) -> dict[str, dict[str, Any]]:
        """How the maps of some kinds come about."""
        made = {name: "record" if name in self.recorded else "model" for name in kinds}
        return {name: structure_contract(model.config.structure_kind(name), source) for name, source in made.items()}

    def maps(self, model: ModelSource) -> tuple[str, ...]:
        """Kinds whose maps are kept: those that controls of the model follow."""
        unet = model.config.unet
        return tuple(name for name in self.structure if name in unet.kinds and name not in unet.structures)

    def encoded(self, model: ModelSource) -> tuple[str, ...]:
        """Kinds that are encoded: the others."""
        return tuple(name for name in self.structure if name not in self.maps(model))

    def levels_of(self, model: ModelSource) -> dict[str, int]:
        """How many levels of each kind are held; 0 of those whose maps are kept."""
        held = {"all": LEVELS, "two": TWO}[self.levels]
        counts = {name: 1 if structure_kind(name).degrades == "nothing" else held for name in self.structure}
        return counts | dict.fromkeys(self.maps(model), 0)

    def info(self, source: ClipSource, model: ModelSource) -> dict[str, Any]:
        """What the data set's recipe says of where the latents come from."""
        return {
            "description": "latents of clips, precomputed by gen1 precompute",
            "data": source.describe(),
            "size": [self.height, self.width],
            "model": encoder_fingerprints(model, self._said),
        }


def encoder_fingerprints(model: ModelSource, structure: Iterable[str] = ("depth",)) -> dict[str, str]:
    """Hashes of the networks that latents depend on; a decoder may be trained further, and they stay what they are."""
    return {part: fingerprint(model, part, _DECODES.get(part, ())) for part in _parts(model, structure)}


def _parts(model: ModelSource, structure: Iterable[str]) -> tuple[str, ...]:
    """Parts of the model that encode clips and structure of these kinds.

    Raises:
        UserError: it lacks one.
    """
    encoders = [part for part in _ENCODERS if part in model.config.components]
    parts = {part: kind for kind in structure if (part := structure_kind(kind).part) is not None}
    if missing := [part for part in parts if part not in model.config.components]:
        raise UserError(f"{model.name} has no {missing[0]} to estimate structure {parts[missing[0]]} with")
    return tuple(dict.fromkeys((*encoders, *parts)))


def fingerprint(model: ModelSource, component: str, without: Sequence[str] = ()) -> str:
    """A hash of a network's configuration and weights, all but some of its parts."""
    parts = {name: part for name, part in model.parameters(component).items() if name not in without}
    return fingerprint_of(getattr(model.config, component), parts)


def fingerprint_of(config: Any, params: Params) -> str:
    """A hash of a network's configuration, a dataclass, and of its weights."""
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(config), sort_keys=True).encode())
    for name, value in sorted(flatten(params).items()):
        digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()[:16]


def check_latents(directory: str | os.PathLike[str], split: str, model: ModelSource) -> None:
    """Refuse latents that another model or another contract of structure made.

    Raises:
        ValueError: naming what differs.
    """
    info = read_recipe(directory, split)
    structure = made_structure(info) | info.get("maps", {})
    estimated = [kind for kind, contract in structure.items() if contract.get("source", "model") == "model"]
    made, ours = info.get("model", {}), encoder_fingerprints(model, estimated)
    for component in ours:
        if made.get(component) != ours[component]:
            raise UserError(
                f"{directory}: its latents were made by another {component} ({made.get(component)}) than that of"
                f" {model.name} ({ours[component]}); run gen1 precompute with this model"
            )
    for kind, contract in structure.items():
        expected = structure_contract(model.config.structure_kind(kind), contract.get("source", "model"))
        if contract != expected:
            raise UserError(f"{directory}: its {kind} is {contract}, not {expected}; run gen1 precompute again")


def precompute_dataset(
    directory: str | os.PathLike[str],
    recipe: PrecomputeRecipe,
    model: ModelSource,
    *,
    dtype: DTypeLike | None = None,
    batch_size: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> WriteSummary:
    """Encode this process's share of a data set, on all of its devices, leaving out the shards that are there.

    Args:
        directory: of the new data set; see `write_dataset`.
        recipe: what to precompute.
        model: its autoencoder, depth network and CLIP do it.
        dtype: of the computation, by default bfloat16 on accelerators, float32 on CPUs; results are bfloat16.
        batch_size: worlds rendered at once, see `render_dataset`.
        process_index: which of the processes that write into this directory this one is.
        process_count: how many there are.
        progress: called with (frames encoded, frames of this process, as far as is known).

    Raises:
        ValueError: no such clips, records without pictures or maps, or a directory made by another recipe.
    """
    source = _source(recipe, model, batch_size)
    estimated = [kind for kind in recipe.structure if kind not in recipe.recorded]
    encoder = ClipEncoder(model, _parts(model, estimated), recipe.levels_of(model), dtype)
    shards = max(1, -(-len(source) // recipe.clips_per_shard))
    share = (process_index, process_count)
    missing = missing_shards(directory, DATASET_NAME, recipe.split, shards, *share)
    clips = {s: range(s * recipe.clips_per_shard, min((s + 1) * recipe.clips_per_shard, len(source))) for s in missing}
    wanted = [index for shard in missing for index in clips[shard]]
    encoded = encoder.encode_all(source.clips(wanted), source.prepare)
    done = 0

    def examples(shard: int) -> Iterator[Example]:
        nonlocal done
        for example in itertools.islice(encoded, len(clips[shard])):
            yield example
            done += 1
            if progress is not None:
                progress(done * example["frames"], len(wanted) * example["frames"])

    return write_latents(
        directory,
        split=recipe.split,
        num_shards=shards,
        examples=examples,
        structure=recipe.contracts(model, recipe.encoded(model)),
        maps=recipe.contracts(model, recipe.maps(model)),
        levels=recipe.levels_of(model),
        has_content="clip" in model.config.components,
        process_index=process_index,
        process_count=process_count,
        info=recipe.info(source, model),
    )


def _source(recipe: PrecomputeRecipe, model: ModelSource, batch_size: int | None) -> ClipSource:
    """The clips that a recipe names."""
    config = model.config
    kinds = tuple(map(config.structure_kind, recipe.structure))
    size = None if recipe.height is None else (recipe.height, recipe.width)
    wanted = Wanted(size=size, working_size=config.working_size, kinds=kinds, recorded=recipe.recorded)
    rendered = (config.height, config.width) if size is None else size
    shape = dict(split=recipe.split, frames=recipe.frames, height=rendered[0], width=rendered[1], change=recipe.change)
    worlds = WorldClips.parse(recipe.data, wanted, batch_size, **shape)
    if worlds is None and recipe.change is not None:
        raise UserError(f"--change is of clips that are rendered on the way (worlds:N), not of {recipe.data}")
    return worlds or RecordClips(recipe.data, recipe.split, wanted, _recipe_of)


def _recipe_of(directory: str, split: str) -> str:
    """A hash of what made a split; of its name where nothing is known."""
    try:
        made = json.dumps(read_recipe(directory, split.split("[")[0]), sort_keys=True)
    except ValueError:
        made = os.path.basename(os.path.normpath(directory))
    return hashlib.sha256(made.encode()).hexdigest()[:16]
