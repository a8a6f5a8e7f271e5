"""One example, from a source's record to the arrays of a batch: read, decode a window, scale, crop, mirror."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grain
import numpy as np
from jaxtyping import Float32, Int64, UInt8
from PIL import Image

from gen1_jax.data.batch import encode_caption
from gen1_jax.data.codec import cover_size
from gen1_jax.data.config import Bucket, Inputs
from gen1_jax.data.dataset import Example, RecordError
from gen1_jax.data.sources import PICTURE_LIMITS, TRAINING_LIMITS, Source
from gen1_jax.data.world import recorded_maps
from gen1_jax.errors import UserError, counted
from gen1_jax.media.images import decode as decode_image
from gen1_jax.media.images import read_image, read_image_bytes
from gen1_jax.media.windows import StaleIndex, open_windows
from gen1_jax.models.structure import StructureKind, structure_kind
from gen1_jax.models.structure.kind import Resampling

STEPS = ("read", "decode", "transform", "collate")
"""What the seconds of loading are spent on. An example has those of all but the last, which belongs to its batch."""

_TRIES = 20  # records in a row that may be damaged before skipping gives up


class Window(NamedTuple):
    """Which frames of a clip, and which part of each."""

    start: int
    frames: int
    stride: int
    size: tuple[int, int]  # height and width to scale to, covering the bucket
    crop: tuple[slice, slice]
    mirrored: bool

    def fit(self, frames: np.ndarray, resampling: Resampling = "area") -> np.ndarray:
        """Frames (T, H, W, ...) of the whole clip to those of the window, of `size`, mirrored if the window is."""
        chosen = _scale(frames[self.start :: self.stride][: self.frames], self.size, resampling)
        return chosen[:, :, ::-1] if self.mirrored else chosen

    def cut(self, frames: np.ndarray) -> np.ndarray:
        """What is left of fitting frames in the bucket."""
        rows, columns = self.crop
        return frames[:, rows, columns]

    def of_maps(self, maps: Float32[np.ndarray, "T H W k"], kind: StructureKind) -> Float32[np.ndarray, "t h w k"]:
        """Maps of a kind of the whole clip to what the window shows of them."""
        scale = tuple(new / old for new, old in zip(self.size, maps.shape[1:3], strict=True))
        planes = [self.cut(self.fit(maps[..., k], kind.resampling)) for k in range(maps.shape[-1])]
        return np.asarray(kind.transformed(np.stack(planes, axis=-1), scale, self.mirrored), np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadExample(grain.transforms.RandomMap):
    """Position in `indices` ──► arrays; everything random is drawn from the generator that Grain gives.

    Attributes:
        source: of the examples.
        number: of the source in its stream.
        indices: the examples of this bucket.
        bucket: height and width.
        frames: of an example.
        stride: from frame to frame.
        subject: an embedding that half of the examples are told in place of their own, or None.
        inputs: see `DataConfig`, and so the rest.
        map_kinds: see there.
        structure: kinds.
        structure_levels: the first and the last t_s.
        flip_probability: of mirroring.
        random_crop: or central.
        caption_bytes: length of the caption.
        skip_errors: whether a damaged record is replaced by the next one.
    """

    source: Source
    number: int
    indices: Int64[np.ndarray, " n"]
    bucket: Bucket
    frames: int
    stride: int
    subject: Float32[np.ndarray, " d"] | None
    inputs: Inputs
    map_kinds: tuple[str, ...]
    structure: tuple[str, ...]
    structure_levels: tuple[int, int]
    flip_probability: float
    random_crop: bool
    caption_bytes: int
    skip_errors: bool

    def random_map(self, element: int, rng: np.random.Generator) -> dict[str, Any]:
        """The example, with "seconds" for each of `STEPS` but the last, and "skipped", messages of damaged records.

        Raises:
            RecordError: the record is damaged; names its file and index.
        """
        skipped = []
        for attempt in range(_TRIES):
            index = int(self.indices[(element + attempt) % len(self.indices)])
            try:
                return {**self._load(index, rng), "skipped": skipped}
            except Exception as error:  # decoders meet damaged bytes with any exception there is
                told = error if isinstance(error, RecordError) else RecordError(self._blame(index, error))
                if not self.skip_errors or attempt == _TRIES - 1:
                    raise told from error
                skipped.append(str(told))
        raise AssertionError

    def _blame(self, index: int, error: Exception) -> str:
        reason, place = " ".join(str(error).split()) or type(error).__name__, self.source.locate(index)
        for name in (place.removesuffix(f" (index {index})"), "it"):  # which has been said
            reason = reason.removeprefix(f"{name}: ")
        return f"{place} cannot be used ({reason})"

    def _load(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        times = [time.perf_counter()]
        record = self.source[index]
        if self.inputs == "latents":
            arrays = self._latents(record, rng)  # which reads the structure of the t_s that it draws
            times += [time.perf_counter()] * 2  # there is nothing to decode
        else:
            times.append(time.perf_counter())
            frames, window = self._pictures(record, rng)
            times.append(time.perf_counter())
            arrays = {"pixels": window.cut(frames)}
            if self.map_kinds:
                kinds = map(structure_kind, self.map_kinds)
                arrays["maps"] = {kind.name: window.of_maps(recorded_maps(record, kind.name), kind) for kind in kinds}
            arrays |= self._choices(rng)
        arrays |= {
            "caption": encode_caption(record.get("caption", ""), self.caption_bytes),
            "record": np.array([self.number, index], np.int32),
        }
        times.append(time.perf_counter())
        return {**arrays, "seconds": np.diff(times)}

    def _choices(self, rng: np.random.Generator) -> dict[str, np.int32]:
        """What else is drawn for an example."""
        low, high = self.structure_levels
        return {
            "content_index": np.int32(rng.integers(self.frames)),
            "structure_level": np.int32(rng.integers(low, high + 1)),
        }

    def _pictures(self, record: Example, rng: np.random.Generator) -> tuple[UInt8[np.ndarray, "t h w 3"], Window]:
        """The frames of a window drawn at random, as its `fit` leaves them, and the window."""
        if "image" in record:
            if self.frames > 1:
                raise UserError("it is a picture, not a video")
            image = _image(record["image"])
            window = self.draw_window(1, *image.shape[:2], rng)
            return window.fit(image[None]), window
        video = record["video"]
        if isinstance(video, np.ndarray):
            window = self.draw_window(len(video), *video.shape[1:3], rng)
            return window.fit(video), window
        folder, drawn = getattr(self.source, "index_folder", None), rng.bit_generator.state
        with open_windows(video, limits=TRAINING_LIMITS, folder=folder, frames=record.get("frames")) as file:
            while True:
                window = self.draw_window(file.frames, file.height, file.width, rng)
                try:
                    return file.window(*window[:4], window.mirrored), window
                except StaleIndex:  # as a run draws that has the right index from the start
                    file.recount()
                    rng.bit_generator.state = drawn

    def draw_window(self, frames: int, height: int, width: int, rng: np.random.Generator) -> Window:
        """A window of a clip of so many frames of this size, drawn at random.

        Raises:
            UserError: there are too few frames.
        """
        span = (self.frames - 1) * self.stride + 1
        if frames < span:
            raise UserError(f"it has {counted(frames, 'frame')}, fewer than {self.frames} that are {self.stride} apart")
        size = cover_size(height, width, self.bucket)
        rest = [outer - inner for outer, inner in zip(size, self.bucket, strict=True)]
        at = [int(rng.integers(r + 1)) if self.random_crop else r // 2 for r in rest]
        return Window(
            start=int(rng.integers(frames - span + 1)),
            frames=self.frames,
            stride=self.stride,
            size=size,
            crop=(slice(at[0], at[0] + self.bucket[0]), slice(at[1], at[1] + self.bucket[1])),
            mirrored=bool(rng.random() < self.flip_probability),
        )

    def _latents(self, record: Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A window of what was precomputed; what is frozen in latents cannot be cropped or mirrored."""
        if "moments" not in record:
            raise UserError("it has no precomputed latents")
        if (record["height"], record["width"]) != self.bucket:
            height, width = self.bucket
            raise UserError(
                f"its latents are of {record['width']}x{record['height']}, those wanted of {width}x{height}"
            )
        frames, span = len(record["moments"]), (self.frames - 1) * self.stride + 1
        if frames < span:
            raise UserError(f"it has {counted(frames, 'frame')}, fewer than {self.frames} that are {self.stride} apart")
        start = int(rng.integers(frames - span + 1))
        chosen = slice(start, start + span, self.stride)
        choices = self._choices(rng)
        choices["structure_level"] = level = self._held(choices["structure_level"], record.get("levels"))
        encoded, maps = record["structure"], record.get("maps", {})
        arrays = {
            "moments": record["moments"][chosen],
            "structure": {kind: encoded[kind][int(level)][chosen] for kind in self.structure if kind not in maps},
            "maps": {kind: maps[kind][chosen] for kind in self.structure if kind in maps},
        }
        if "content" in record:
            arrays["content"] = content = record["content"][chosen][choices["content_index"]]
            if self.subject is not None and rng.random() < 0.5:
                arrays["content"] = self.subject.astype(content.dtype)
        return arrays | choices

    def _held(self, level: np.int32, levels: tuple[int, ...] | None) -> np.int32:
        """The t_s that was drawn, or, where the record has two alone, the larger of these that may be drawn."""
        if levels is None or level in levels:
            return level
        low, high = self.structure_levels
        inside = [held for held in levels if low <= held <= high]
        if not inside:
            raise UserError(f"its latents have t_s {levels[0]} and {levels[1]} alone: let structure_levels begin at 0")
        return np.int32(max(inside))


def _image(image: bytes | Path | UInt8[np.ndarray, "h w *c"]) -> UInt8[np.ndarray, "h w 3"]:
    if isinstance(image, Path):
        return read_image(image, PICTURE_LIMITS)
    if isinstance(image, bytes):
        return read_image_bytes(image, PICTURE_LIMITS)
    if image.ndim == 3 and image.shape[2] == 3:
        return image
    with Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image) as opened:
        return decode_image("it", opened, PICTURE_LIMITS)


def _scale(frames: np.ndarray, size: Sequence[int], resampling: Resampling = "area") -> np.ndarray:
    """(T, H, W) or (T, H, W, 3) to `size`; smoothed where it becomes smaller, but not if it is of labels."""
    if frames.shape[1:3] == tuple(size):
        return frames
    resample = Image.Resampling.BICUBIC if frames.dtype == np.uint8 else Image.Resampling.BILINEAR
    resample = Image.Resampling.NEAREST if resampling == "nearest" else resample
    return np.stack([np.asarray(Image.fromarray(frame).resize((size[1], size[0]), resample)) for frame in frames])
