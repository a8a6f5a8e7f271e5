"""Customisation on a few pictures of a subject (arXiv 2302.03011): half of each batch the subject, half ordinary.

pictures, and crops of them ──► set of clips of one frame ──► latents ──┐
worlds, a folder, or the model's own pictures ────────────► latents ────┴─► the objective of `gen1 train` ─► adapter

The ordinary half keeps what the model knew (DreamBooth's prior preservation, arXiv 2208.12242, is the same thing).
Layers between frames are not trained: pictures do not reach them.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from gen1_jax.checkpoints.config import CheckpointConfig
from gen1_jax.data.codec import cover_size, encode_video
from gen1_jax.data.config import DataConfig, SourceConfig, StreamConfig
from gen1_jax.data.dataset import CLIP_FEATURES, Example, write_dataset
from gen1_jax.data.precompute import PrecomputeRecipe, precompute_dataset
from gen1_jax.data.render import RenderRecipe, render_dataset
from gen1_jax.data.sources import PICTURE_LIMITS, open_source
from gen1_jax.errors import UserError, counted
from gen1_jax.files import write_text
from gen1_jax.media.images import read_image, read_image_bytes
from gen1_jax.media.windows import open_windows
from gen1_jax.models.denoiser_config import DenoiserConfig
from gen1_jax.models.low_rank import LowRankConfig
from gen1_jax.models.structure import MAX_STRUCTURE_LEVEL
from gen1_jax.parallel.hardware import default_dtype
from gen1_jax.pretrained.folder import ModelSource
from gen1_jax.pretrained.subject import SUBJECT, Subject, mean_embedding
from gen1_jax.training.config import PreviewConfig, StageConfig, TrainConfig
from gen1_jax.training.denoising import DenoisingConfig
from gen1_jax.training.optimizer import OptimizerConfig

FEWEST, USUAL = 3, (15, 30)
"""Pictures of a subject: fewer are refused; the paper's number."""

ORDINARY = 128
"""Ordinary pictures at most."""

_VARIANTS = 8  # of each picture of the subject: its middle, and crops
_ZOOM = 1.2  # that crops are made at, at most
_DATA, _SUBJECT, _ORDINARY = "data", "subject", "ordinary"


class Captioned(NamedTuple):
    """A picture and its caption, which is empty where there is none."""

    picture: UInt8[np.ndarray, "h w 3"]
    caption: str


Pictures = Callable[[], Iterator[Captioned]]
"""Makes or reads pictures, when they are needed: a run that goes on has them already."""

Report = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and of how much."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CustomiseOptions:
    """How a subject is learned.

    Attributes:
        model: a model folder, a workdir, or "nano".
        rank: of the adapter; 0 for the whole network within frames.
        targets: kernels that it changes, see `LowRankConfig`.
        steps: of the optimizer.
        batch_size: pictures in a step, half of them the subject's.
        learning_rate: at its peak.
        content_dropout: probability that an example is told no content. Guidance leads away from what such examples
            teach, the subject among them; a short training forgets nothing without them.
        mirror: whether every other crop of the subject is mirrored: for what has no left and right, light and writing
            included.
        caption: of the subject's pictures; a model whose content is text knows it by this.
        preview_every: steps between sample edits; 0 for none.
        preview_image: what these are told of, for a model whose content is a picture.
        seed: of all that is drawn.
    """

    model: str = "nano"
    rank: int = 8
    targets: tuple[str, ...] = ("attention", "feed_forward", "projections", "convolutions")
    steps: int = 150
    batch_size: int = 16
    learning_rate: float = 1e-3
    content_dropout: float = 0.0
    mirror: bool = False
    caption: str = ""
    preview_every: int = 0
    preview_image: str | None = None
    seed: int = 0

    def __post_init__(self):
        if self.steps < 1 or self.rank < 0 or not self.learning_rate > 0:
            raise UserError(f"--steps {self.steps}, --rank {self.rank}: out of range")
        if not 0 <= self.content_dropout <= 1:
            raise UserError(f"--content-dropout is {self.content_dropout:g}, not in [0, 1]")
        if self.batch_size < 2 or self.batch_size % 2:
            raise UserError(f"--batch-size is {self.batch_size}: half of it is the subject, so it must be even")


def make_data(
    workdir: Path,
    source: ModelSource,
    options: CustomiseOptions,
    subject: Sequence[Captioned],
    ordinary: Pictures | None,
    report: Report = lambda *_: None,
) -> None:
    """Both halves as latents in WORKDIR/data, and WORKDIR/subject.json; what is there already is left as it is.

    Args:
        workdir: of the run.
        source: the model; its networks encode.
        options: of the run.
        subject: its pictures.
        ordinary: gives the other half; None for rendered worlds, which nano was trained on.
        report: called as it goes.

    Raises:
        UserError: too few pictures, or others than the run began with.
    """
    if len(subject) < FEWEST:
        raise UserError(f"{counted(len(subject), 'picture')}: give {USUAL[0]} to {USUAL[1]}, at least {FEWEST}")
    workdir.mkdir(parents=True, exist_ok=True)
    data, size = workdir / _DATA, (source.config.height, source.config.width)
    digest = hashlib.sha256(b"".join(x.picture.tobytes() + x.caption.encode() for x in subject)).hexdigest()[:16]
    crops = lambda: itertools.chain.from_iterable(_crops(x, i, size, options) for i, x in enumerate(subject))
    made = {"crops": "sharp", "mirror": options.mirror, "seed": options.seed}  # those of before were enlarged
    _write(data / "subject_pictures", crops, {"pictures": digest, "size": size, **made})
    if ordinary is None:
        recipe = RenderRecipe(clips=ORDINARY, frames=1, height=size[0], width=size[1], seed=0)
        render_dataset(data / "ordinary_pictures", recipe, progress=lambda *n: report("rendering ordinary worlds", *n))
    else:
        fitted = lambda: (Captioned(_fitted(x.picture, size), x.caption) for x in ordinary())
        _write(data / "ordinary_pictures", fitted, {"size": size})
    for name in (_SUBJECT, _ORDINARY):
        recipe = PrecomputeRecipe(
            data=str(data / f"{name}_pictures"),
            height=size[0],
            width=size[1],
            structure=_seen(source.config.unet),
        )
        said = f"encoding {name} pictures"
        precompute_dataset(data / name, recipe, source, progress=lambda *n: report(said, *n))  # noqa: B023
    write_text(workdir / SUBJECT, _subject(data / _SUBJECT, source, options).to_text())


def _seen(unet: DenoiserConfig) -> tuple[str, ...]:
    """What is seen of a picture beside its content: what an edit follows by default, but no control.

    Of a picture that it sees as source a model would learn nothing.
    """
    return tuple(kind for kind in unet.default_kinds if kind in unet.structures)


def make_recipe(workdir: Path, source: ModelSource, options: CustomiseOptions) -> TrainConfig:
    """What `gen1 train` is to do with them."""
    unet, size = source.config.unet, (source.config.height, source.config.width)
    of_text = unet.content.reads_text
    halves = (
        SourceConfig(
            path=str(workdir / _DATA / _SUBJECT), weight=0.5, subject="" if of_text else str(workdir / SUBJECT)
        ),
        SourceConfig(path=str(workdir / _DATA / _ORDINARY), weight=0.5),
    )
    lora = LowRankConfig(rank=options.rank, targets=options.targets)
    learned = {"lora": lora} if options.rank else {"trained": ("spatial",)}
    told = {"image": options.preview_image} if options.preview_image else {"prompt": options.caption or "a picture"}
    return TrainConfig(
        model=options.model,
        data=DataConfig(
            image=StreamConfig(sources=halves, buckets=(size,), batch_size=options.batch_size),
            image_probability=1.0,
            inputs="latents",
            structure=_seen(unet),
            in_memory=True,
            seed=options.seed,
        ),
        stages=(
            StageConfig(
                name="subject",
                steps=options.steps,
                structure=_seen(unet),  # controls stay out of it: the image model learns the subject
                structure_levels=(0, MAX_STRUCTURE_LEVEL) if unet.structures else None,
            ),
        ),
        optimizer=OptimizerConfig(
            learning_rate=options.learning_rate,
            warmup_steps=min(20, options.steps),
            schedule="cosine",
            ema_decay=0.98,
        ),
        unet=DenoisingConfig(content_dropout=options.content_dropout, **learned),
        dtype="bfloat16" if default_dtype() == jnp.bfloat16 else "float32",
        seed=options.seed,
        log_every=10,
        checkpoint=CheckpointConfig(every=50, keep=1),
        preview=PreviewConfig(
            every=options.preview_every, frames=4, num_inference_steps=source.config.num_inference_steps, **told
        ),
    )


def pictures_in(where: str, caption: str = "", most: int | None = None) -> Iterator[Captioned]:
    """The pictures of a folder, a pattern, a file or a data set, of videos a frame each, with their captions.

    Args:
        where: see `open_source`.
        caption: of those that have none of their own.
        most: at most so many, evenly from all.

    Raises:
        UserError: there are none, or one cannot be read.
    """
    source = open_source(where)
    count = len(source)
    chosen = range(count) if most is None or count <= most else np.linspace(0, count - 1, most).astype(int).tolist()
    for index in chosen:
        example = source[index]
        yield Captioned(_picture(example, source.locate(index)), example.get("caption") or caption)


def _picture(example: Example, place: str) -> UInt8[np.ndarray, "h w 3"]:
    if (image := example.get("image")) is not None:
        if isinstance(image, Path):
            return read_image(image, PICTURE_LIMITS)
        return read_image_bytes(image, PICTURE_LIMITS) if isinstance(image, bytes) else image
    if "video" not in example:
        raise UserError(f"{place}: it is neither a picture nor a video")
    if isinstance(video := example["video"], np.ndarray):
        return video[len(video) // 2]
    with open_windows(video, frames=example.get("frames")) as file:
        return file.window(file.frames // 2, 1, 1, (file.height, file.width))[0]


def _crops(subject: Captioned, number: int, size: tuple[int, int], options: CustomiseOptions) -> Iterator[Captioned]:
    """The middle of a picture, then parts of it, some of them closer; none is enlarged for being closer.

    Blurred or mirrored, a picture can be of another look: to nano's CLIP a pencil drawing and its mirror image, whose
    strokes lean the other way, have a cosine of 0.5.
    """
    yield Captioned(_fitted(subject.picture, size), subject.caption)
    rng = np.random.default_rng([options.seed, number])
    rest = min(side / inner for side, inner in zip(subject.picture.shape, size, strict=False))  # what is to spare
    for variant in range(1, _VARIANTS):
        zoom = rng.uniform(1, max(1, min(_ZOOM, rest)))
        cover = cover_size(*subject.picture.shape[:2], tuple(round(side * zoom) for side in size))
        at = [rng.integers(outer - inner + 1) for outer, inner in zip(cover, size, strict=True)]
        part = _scaled(subject.picture, cover)[at[0] : at[0] + size[0], at[1] : at[1] + size[1]]
        yield Captioned(part[:, ::-1] if options.mirror and variant % 2 else part, subject.caption)


def _fitted(picture: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "i j 3"]:
    """The middle of a picture, of the size."""
    cover = cover_size(*picture.shape[:2], size)
    top, left = ((outer - inner) // 2 for outer, inner in zip(cover, size, strict=True))
    return _scaled(picture, cover)[top : top + size[0], left : left + size[1]]


def _scaled(picture: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "i j 3"]:
    return np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BICUBIC))


def _write(directory: Path, pictures: Callable[[], Iterator[Captioned]], info: dict) -> None:
    """A data set of clips of one frame."""

    def examples(shard: int) -> Iterator[Example]:
        for number, (picture, caption) in enumerate(pictures()):
            height, width, _ = picture.shape
            video = encode_video(np.ascontiguousarray(picture)[None], 1.0, pixel_format="yuv444p", crf=4)
            about = dict(frame_rate=1.0, source="a picture", frames=1, height=height, width=width)
            yield dict(id=f"{number:05}", video=video, caption=caption, **about)

    try:
        write_dataset(
            directory,
            name="pictures",
            split="train",
            features=CLIP_FEATURES,
            num_shards=1,
            examples=examples,
            info=info,
        )
    except UserError as error:
        raise UserError(
            f"{error}; these are other pictures than the run began with: choose another --workdir"
        ) from None


def _subject(latents: Path, source: ModelSource, options: CustomiseOptions) -> Subject:
    """What an edit is told of it: the mean embedding of its pictures as they are, not of crops, or their caption."""
    if source.config.unet.content.reads_text:
        return Subject(caption=options.caption or None)
    records = open_source(str(latents))
    embeddings = [np.asarray(records[i]["content"][0], np.float32) for i in range(0, len(records), _VARIANTS)]
    return Subject(mean_embedding(np.stack(embeddings)), options.caption or None)
