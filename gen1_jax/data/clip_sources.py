"""Where `gen1 precompute` has its clips from: the records of a data set, or worlds that are rendered on the way.

RecordClips  DIR       records ──decode──► scaled and cut ─┐
WorldClips   worlds:N  seeds ──render on the device────────┴─► PreparedClip: frames, recorded or host-made maps
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Float32

from gen1_jax.data.codec import cover_size
from gen1_jax.data.dataset import Example, open_dataset
from gen1_jax.data.encoding import PreparedClip
from gen1_jax.data.render import RenderRecipe, Scene, WorldRenderer
from gen1_jax.data.world import World, check_exact, has_maps, recorded_maps, world_maps
from gen1_jax.errors import UserError
from gen1_jax.media.windows import open_windows
from gen1_jax.models.structure import StructureKind

_WORLDS = re.compile(r"worlds:(?P<clips>[1-9]\d*)(@(?P<seed>\d+))?$")
_COMMON = ("id", "caption", "frame_rate", "source", "frames")


@runtime_checkable
class ClipSource(Protocol):
    """Clips by their numbers."""

    def __len__(self) -> int: ...

    def clips(self, indices: Sequence[int]) -> Iterator[Any]:
        """What `prepare` takes, of these clips in order."""
        ...

    def prepare(self, clip: Any) -> PreparedClip:
        """Frames and maps on the host; run by threads."""
        ...

    def describe(self) -> dict[str, Any]:
        """What the recipe of the latents says of them."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What clips are prepared for.

    Attributes:
        size: height and width; None for that of `working_size`.
        working_size: of the model, for a clip of a height and width.
        kinds: of structure.
        recorded: names of those whose maps are exact; others that run on the host are estimated.
    """

    size: tuple[int, int] | None
    working_size: Callable[[int, int], tuple[int, int]]
    kinds: tuple[StructureKind, ...]
    recorded: tuple[str, ...]

    def maps(self, exact: Callable[[StructureKind], np.ndarray], frames: np.ndarray) -> dict[str, np.ndarray]:
        """Maps that the networks are not asked for."""
        found = {}
        for kind in self.kinds:
            if kind.name in self.recorded:
                found[kind.name] = exact(kind)
            elif kind.runs_on_host:
                found[kind.name] = np.asarray(kind.estimate(frames, {}), np.float32)
        return found


class RecordClips:
    """Clips of a data set of `gen1 render` or `gen1 prepare`.

    Args:
        data: its folder.
        split: of it.
        wanted: what of them.
        recipe: a hash of what made the split, see `describe`.

    Raises:
        ValueError: no such set, or records that lack pictures or maps.
    """

    def __init__(self, data: str, split: str, wanted: Wanted, recipe: Callable[[str, str], str]):
        self._records, self._wanted, self._split = open_dataset(data, split), wanted, split
        self._recipe = recipe(data, split)
        features = self._records.features
        if "video" not in features:
            raise UserError(f"{data}: its records have no video; name a data set of gen1 prepare or gen1 render")
        if missing := [kind for kind in wanted.recorded if not has_maps(features, kind)]:
            mend = "use --depth model" if missing[0] == "depth" else f"use gen1 render --maps {missing[0]}"
            raise UserError(f"{data}: its records have no {missing[0]}; {mend}")

    def __len__(self) -> int:
        return len(self._records)

    def clips(self, indices: Sequence[int]) -> Iterator[Example]:
        """Records."""
        return (self._records[index] for index in indices)

    def prepare(self, clip: Example) -> PreparedClip:
        """Frames, and maps, scaled to cover the size and cut evenly."""
        count, size = int(clip["frames"]), self._wanted.size
        with open_windows(clip["video"], frames=count) as video:
            if size is None:
                size = self._wanted.working_size(video.height, video.width)
            cover = cover_size(video.height, video.width, size)
            frames = _centre(video.window(0, count, 1, cover), size)
        maps = self._wanted.maps(lambda kind: _covering(recorded_maps(clip, kind.name), kind, cover, size), frames)
        common = {name: clip[name] for name in _COMMON}
        return PreparedClip({**common, "height": size[0], "width": size[1]}, frames, maps)

    def describe(self) -> dict[str, Any]:
        """The set, by what made it, wherever it lies."""
        return {"recipe": self._recipe, "clips": len(self), "split": self._split}


class WorldClips:
    """Synthetic clips that are rendered when they are asked for: no videos, no records in between.

    Args:
        worlds: what is rendered, at the size that is encoded.
        wanted: what of them.
        batch_size: see `render_dataset`.
    """

    def __init__(self, worlds: RenderRecipe, wanted: Wanted, batch_size: int | None = None):
        self._worlds, self._wanted = worlds, wanted
        self._renderer = WorldRenderer(worlds, batch_size)

    @classmethod
    def parse(cls, data: str, wanted: Wanted, batch_size: int | None, **shape: Any) -> "WorldClips | None":
        """Of "worlds:N" or "worlds:N@SEED" and what else a `RenderRecipe` is told; None if data is no such text.

        Raises:
            ValueError: a kind of structure that worlds do not have is to be exact.
        """
        match = _WORLDS.match(data)
        if match is None:
            return None
        check_exact(wanted.recorded)
        clips, seed = int(match["clips"]), int(match["seed"] or 0)
        return cls(RenderRecipe(clips=clips, seed=seed, maps=wanted.recorded, **shape), wanted, batch_size)

    def __len__(self) -> int:
        return self._worlds.clips

    def clips(self, indices: Sequence[int]) -> Iterator[tuple[Scene, World]]:
        """Rendered clips, a batch ahead on each device."""
        for batch in self._renderer.clips(indices):
            yield from batch

    def prepare(self, clip: tuple[Scene, World]) -> PreparedClip:
        """They are as they are encoded."""
        scene, world = clip
        frames = np.asarray(world.clip.rgb)
        return PreparedClip(scene.about(), frames, self._wanted.maps(lambda kind: world_maps(world, kind.name), frames))

    def describe(self) -> dict[str, Any]:
        """What is rendered; how many are at once changes nothing."""
        said = {name: value for name, value in self._worlds.info().items() if name != "clips_per_shard"}
        return {"recipe": said, "clips": len(self), "split": self._worlds.split}


def _covering(
    maps: Float32[np.ndarray, "t h w k"], kind: StructureKind, cover: tuple[int, int], size: tuple[int, int]
) -> Float32[np.ndarray, "t i j k"]:
    scale = tuple(new / old for new, old in zip(cover, maps.shape[1:3], strict=True))
    method = "nearest" if kind.resampling == "nearest" else "linear"
    scaled = np.asarray(jax.image.resize(maps, (len(maps), *cover, maps.shape[-1]), method))
    return np.asarray(kind.transformed(_centre(scaled, size), scale), np.float32)


def _centre(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    top, left = ((outer - inner) // 2 for outer, inner in zip(frames.shape[1:3], size, strict=True))
    return frames[:, top : top + size[0], left : left + size[1]]
