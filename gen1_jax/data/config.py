"""What a stream of batches is made of: plain frozen dataclasses, so that a config file can name every part."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin

import dacite

from gen1_jax.errors import UserError
from gen1_jax.models.structure import MAX_STRUCTURE_LEVEL, structure_kind

Kind = Literal["image", "video"]
KINDS: tuple[Kind, Kind] = ("image", "video")
Bucket = tuple[int, int]
"""Height and width of the pictures of a batch, in pixels."""

T = TypeVar("T")

Inputs = Literal["pixels", "depth", "maps", "latents"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One set of clips or pictures.

    Attributes:
        path: the folder of a TFDS data set; "tfds:NAME" for one in TFDS's own place; a folder, a file or a pattern
            of videos or pictures; or of array_record files whose records are such files. See `open_source`.
        split: for TFDS data sets, parts such as "train[:10%]" included.
        weight: its share of the examples, relative to the other sources; None for all of them: by their sizes.
        stride: every how many-th frame of a video is taken; prepared and rendered clips have been thinned out.
        subject: subject.json of `gen1 customize`; half of the examples are told the mean embedding that it has in place
            of their own, as edits with the adapter are. Of precomputed latents alone.
    """

    path: str
    split: str = "train"
    weight: float | None = None
    stride: int = 1
    subject: str = ""

    def __post_init__(self):
        if self.stride < 1 or (self.weight is not None and self.weight <= 0):
            raise UserError(f"{self.path}: stride {self.stride} and weight {self.weight} must be positive")

    @property
    def drawn(self) -> int | list[Any]:
        """What examples depend on beside their records; without a subject as it was before there were any."""
        return [self.stride, "subject"] if self.subject else self.stride


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """The batches of one kind.

    Attributes:
        sources: where examples come from; videos may be sources of images, a frame at random of each.
        buckets: the sizes of batches; an example goes to the one nearest to its shape, scaled and cropped.
        batch_size: examples of a batch, over all processes.
        frames: of an example; 1 for images.
    """

    sources: tuple[SourceConfig, ...] = ()
    buckets: tuple[Bucket, ...] = ((256, 448),)
    batch_size: int = 8
    frames: int = 1

    def __post_init__(self):
        if self.frames < 1 or self.batch_size < 1 or not self.buckets or min(map(min, self.buckets)) < 1:
            raise UserError(f"{self.frames} frames, batches of {self.batch_size}, buckets {self.buckets}: out of range")
        weighted = {source.weight is None for source in self.sources}
        if len(weighted) > 1:
            raise UserError("either all sources of a stream have a weight, or none")


# Height, width: 320x320, 384x320, 448x256 and the flipped shapes (arXiv 2302.03011 as recalled).
IMAGE_BUCKETS: tuple[Bucket, ...] = ((320, 320), (320, 384), (384, 320), (256, 448), (448, 256))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """A joint stream of images and videos. The defaults are the paper's sizes.

    Attributes:
        image: batches of pictures, T = 1.
        video: batches of clips.
        image_probability: that a batch is one of images.
        structure_levels: t_s of an example is drawn uniformly from the first to the last, both included.
        seed: of everything random.
        inputs: what batches hold: "pixels"; "depth", pixels and the depth that every record must have (synthetic
            clips do); "maps", pixels and the maps of each kind of `structure` that every record must have;
            "latents", what `gen1 precompute` wrote, with the latents of each kind of `structure`.
        structure: kinds of structure that batches of "maps" and "latents" hold, by name; those of "depth" hold depth,
            and beside "pixels" structure is estimated in the step (`has`).
        flip_probability: that an example is mirrored, its structure with it; latents never are.
        random_crop: whether the part of a picture outside the bucket is cut off at random or evenly.
        caption_bytes: room for a caption, in bytes of UTF-8; longer ones are cut.
        on_error: what a damaged record does: "raise" stops, "skip" takes the next one instead and counts it.
        in_memory: keep every example decoded once it was read, for sets that fit in memory; each worker its own.
        workers: processes that load batches; 0 for threads of this one.
        threads: batches loaded at once by each process.
        prefetch: batches that each process keeps ready.
    """

    image: StreamConfig = StreamConfig(buckets=IMAGE_BUCKETS, batch_size=9216)
    video: StreamConfig = StreamConfig(buckets=((256, 448),), batch_size=1152, frames=8)
    image_probability: float = 0.125
    structure_levels: tuple[int, int] = (0, 0)
    seed: int = 0
    inputs: Inputs = "pixels"
    structure: tuple[str, ...] = ("depth",)
    flip_probability: float = 0.5
    random_crop: bool = True
    caption_bytes: int = 256
    on_error: Literal["raise", "skip"] = "raise"
    in_memory: bool = False
    workers: int = 0
    threads: int = 2
    prefetch: int = 2

    def __post_init__(self):
        check_kinds(self.structure)
        low, high = self.structure_levels
        in_order = 0 <= low <= high <= MAX_STRUCTURE_LEVEL
        checks = {
            "image.frames is not 1": self.image.frames == 1,
            "image_probability and flip_probability are not in [0, 1]": 0 <= self.image_probability <= 1
            and 0 <= self.flip_probability <= 1,
            "image_probability is not 0, and image has no sources": self.image_probability == 0 or self.image.sources,
            "image_probability is not 1, and video has no sources": self.image_probability == 1 or self.video.sources,
            f"structure_levels {low} to {high} are not within 0 ... {MAX_STRUCTURE_LEVEL}": in_order,
            "structure flow goes to the next frame: stride must be 1": "flow" not in self.structure
            or self.inputs == "pixels"
            or all(source.stride == 1 for stream in (self.image, self.video) for source in stream.sources),
            "subject is told in place of precomputed content: inputs must be latents": self.inputs == "latents"
            or not any(source.subject for stream in (self.image, self.video) for source in stream.sources),
            "seed is not in [0, 2^32)": 0 <= self.seed < 2**32,
            "workers is negative": self.workers >= 0,
            "threads, prefetch and caption_bytes are not positive": min(self.threads, self.prefetch, self.caption_bytes)
            > 0,
        }
        for problem, holds in checks.items():
            if not holds:
                raise UserError(problem)

    @property
    def streams(self) -> dict[Kind, StreamConfig]:
        """The streams that batches are drawn from, by kind."""
        probabilities = {"image": self.image_probability, "video": 1 - self.image_probability}
        return {kind: getattr(self, kind) for kind in KINDS if probabilities[kind] > 0}

    @property
    def map_kinds(self) -> tuple[str, ...]:
        """Kinds of structure whose maps batches hold, as they are recorded."""
        return {"depth": ("depth",), "maps": self.structure}.get(self.inputs, ())

    @property
    def held(self) -> tuple[str, ...]:
        """Kinds of structure that batches hold, as latents or as maps."""
        return self.structure if self.inputs == "latents" else self.map_kinds

    def has(self, kind: str) -> bool:
        """Whether a kind of structure is there to be seen: batches hold it, or a step can estimate it from pixels.

        Raises:
            UserError: there is no such kind.
        """
        if self.inputs != "pixels":
            return kind in self.held
        return structure_kind(kind).is_estimated and not structure_kind(kind).runs_on_host

    def to_dict(self) -> dict[str, Any]:
        """Nested dicts of plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DataConfig":
        """The inverse of `to_dict`, also for what a ConfigDict's `to_dict` gives; absent fields keep their defaults.

        Raises:
            ValueError: an unknown field, or a value of the wrong type or out of range, by name.
        """
        return from_plain(cls, values)


def check_kinds(names: tuple[str, ...]) -> None:
    """Raises a ValueError for kinds of structure that there are not, that are named twice, or that edits alone know."""
    for name in names:
        if structure_kind(name).degrades == "frames":
            raise UserError(
                f"structure {name} is for edits with a ControlNet: t_s blurs its frames, which training and data do not"
            )
    if len(set(names)) < len(names):
        raise UserError(f"structure names a kind twice: {', '.join(names)}")


_READING = dacite.Config(
    strict=True,
    cast=[tuple],
    type_hooks={
        float: float,
        SourceConfig: lambda value: {"path": value} if isinstance(value, str) else value,
        tuple[str, ...]: lambda value: (value,) if isinstance(value, str) else value,
    },
)


def from_plain(cls: type[T], values: Mapping[str, Any]) -> T:
    """A configuration from nested plain values: whole numbers may stand for floats, a path alone for a source, a name
    alone for a tuple of names.

    Raises:
        ValueError: an unknown field, or a value of the wrong type or out of range, by name.
    """
    try:
        return dacite.from_dict(cls, values, _READING)
    except dacite.WrongTypeError as error:
        chosen = _choices(error.field_type)
        raise UserError(
            f"{error.field_path} is {error.value!r}, not one of {', '.join(map(str, chosen))}" if chosen else str(error)
        ) from None
    except (dacite.DaciteError, TypeError) as error:
        raise UserError(str(error)) from None


def _choices(hint: Any) -> tuple[Any, ...]:
    """What a Literal allows, perhaps beside None; empty for other types."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return tuple(choice for part in get_args(hint) for choice in _choices(part))
