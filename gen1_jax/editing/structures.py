"""What of a clip an edit keeps: maps of each structure that it follows, and the signals that the denoiser gets.

    frames ──estimate──► normalise ──► degrade by t_s ──► maps ──encode (VAE), or hint (control)──► Signal
    ready maps ──────────────────────────────────────────┘

Frames go through networks in chunks of one shape, so neither memory nor compilations grow with their number.
"""

import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from gen1_jax.editing.settings import EditSettings
from gen1_jax.errors import UserError
from gen1_jax.kept import KeptProgram
from gen1_jax.models.conditions import Signal
from gen1_jax.models.module import Bound
from gen1_jax.models.structure import Depth, StructureKind, blur_frames, picture_encoder, told_level
from gen1_jax.pretrained.family import Gen1Config

Frames = UInt8[np.ndarray, "t h w 3"]
Maps = dict[str, Float[np.ndarray, "t H W k"]]
"""Normalised, degraded maps by kind, in the order in which an edit names them."""

Progress = Callable[[str, int, int], None]
"""Called with the stage ("depth", "structure", "compiling", "sampling", "decoding"), units done and units in all."""

CHUNK = 8
"""Frames that a network sees at once."""

_FEWEST = 1e-3  # of the pixels on lines, where there is something to follow; canny has ten times that of sharp frames

_normalise = KeptProgram(lambda kind, maps: kind.normalise(maps), lambda: "normalise", static=[0])
_degrade = KeptProgram(lambda kind, maps, level: kind.degrade(maps, level), lambda: "degrade", static=[0])


@dataclasses.dataclass(frozen=True)
class StructureReader:
    """Maps of clips, and what the denoiser is told of them.

    Attributes:
        config: of the family.
        name: of the model, for messages.
        network: gives a network of the family by its name.
    """

    config: Gen1Config
    name: str
    network: Callable[[str], Bound]

    @property
    def estimable(self) -> tuple[str, ...]:
        """The kinds that the model follows and estimates by itself; of others the maps have to be given."""
        kinds = map(self.config.structure_kind, self.config.unet.kinds)
        return tuple(k.name for k in kinds if k.is_estimated and (k.part is None or k.part in self.config.parts))

    def followed(self, settings: EditSettings) -> Iterator[StructureKind]:
        """The kinds that an edit follows, as its settings want them."""
        for kind in (self.config.structure_kind(use.kind) for use in settings.structures):
            yield dataclasses.replace(kind, steady=settings.steady_depth) if isinstance(kind, Depth) else kind

    def read(
        self,
        frames: Frames,
        settings: EditSettings,
        ready: Mapping[str, Float[np.ndarray, "t H W k"]],
        progress: Progress | None = None,
        estimated: Maps | None = None,
    ) -> Maps:
        """The maps that an edit follows, degraded by its t_s.

        Args:
            frames: of the model's size.
            settings: filled in, see `EditSettings.of`.
            ready: normalised maps by kind, in place of estimates; see `editing.maps.ready_maps`.
            progress: told of the estimates.
            estimated: keeps estimates that t_s does not change, for another call with the same frames.
        """
        check_given(ready, settings)
        estimated = {} if estimated is None else estimated
        level, maps = settings.structure_blur, {}
        for kind in self.followed(settings):
            if kind.name in ready:
                if level and kind.degrades != "maps":
                    warnings.warn(f"structure_blur {level} does nothing to ready maps of {kind.name}", stacklevel=4)
                maps[kind.name] = self.degrade(kind, ready[kind.name], level)
            elif kind.degrades == "frames":
                maps[kind.name] = self.estimate(kind, _blurred(frames, level), progress)
                if level and (maps[kind.name] > 0).mean() < _FEWEST:
                    warnings.warn(f"structure_blur {level} leaves {kind.name} hardly a line: give less", stacklevel=4)
            else:
                if kind.name not in estimated:
                    estimated[kind.name] = self.estimate(kind, frames, progress)
                maps[kind.name] = self.degrade(kind, estimated[kind.name], level)
        return maps

    def estimate(
        self, kind: StructureKind, frames: Frames, progress: Progress | None = None
    ) -> Float[np.ndarray, "t H W k"]:
        """Maps of one kind of frames of the model's size, normalised over the clip to [-1, 1].

        Raises:
            UserError: the model lacks the network that estimates them, or nothing here estimates them.
        """
        networks = self._networks(kind)
        report = reporter(progress, kind.name)
        estimate = lambda chunk: kind.estimate(chunk, networks)
        whole = lambda clip: iter([estimate(clip)]) if kind.runs_on_host else in_chunks(estimate, clip, None)
        pieces = _in_pieces(kind, frames, networks, whole)
        maps = np.concatenate([*_counted(pieces, len(frames), report)])
        return np.asarray(_normalise(kind, maps))

    def stream(
        self, kind: StructureKind, frames: Iterable[UInt8[np.ndarray, "h w 3"]], level: int = 0
    ) -> Iterator[Float[np.ndarray, "_ H W k"]]:
        """What `estimate` makes of frames that come one by one, in pieces and not normalised.

        Args:
            kind: of structure.
            frames: of the model's size.
            level: t_s, for kinds that are estimated from blurred frames.

        Raises:
            UserError: as `estimate`.
        """
        networks = self._networks(kind)
        source = (_blurred(frame[None], level)[0] for frame in frames) if kind.degrades == "frames" else iter(frames)
        estimate = lambda chunk: kind.estimate(chunk, networks)
        if kind.across_frames:  # these are held, others not
            yield np.asarray(estimate(np.stack([*source])))
        else:
            yield from _in_pieces(kind, source, networks, lambda clip: _by_chunk(estimate, clip))

    def _networks(self, kind: StructureKind) -> dict[str, Bound]:
        """The network that estimates a kind, by its name; none if it needs none."""
        if kind.part is not None and kind.part not in self.config.parts:
            raise UserError(
                f"{self.name} has no {kind.part} network to estimate {kind.name} with: give its maps, "
                f"--structure-from {kind.name}=FILE, or import the model with --{kind.part}"
            )
        return {} if kind.part is None else {kind.part: self.network(kind.part)}

    def degrade(
        self, kind: StructureKind, maps: Float[np.ndarray, "t H W k"], level: int
    ) -> Float[np.ndarray, "t H W k"]:
        """Normalised maps, t_s times blurred where that is how detail is taken from them."""
        if kind.degrades != "maps":
            return maps
        degrade = lambda chunk: np.asarray(_degrade(kind, chunk[None], np.array([level], np.int32)))[0]
        return np.concatenate(list(in_chunks(degrade, maps, None)))

    def encode(
        self, maps: Maps, settings: EditSettings, timesteps: np.ndarray, progress: Progress | None = None
    ) -> dict[str, Signal]:
        """What the denoiser is told: latents of maps, or features of hints, each with its weight and span.

        Args:
            maps: see `read`.
            settings: filled in.
            timesteps: of the run.
            progress: told of the frames of each kind.
        """
        return {
            use.kind: Signal(
                self.encoded(self.config.structure_kind(use.kind), maps[use.kind], progress),
                told_level(self.config.structure_kind(use.kind), jnp.array([settings.structure_blur])),
                jnp.array([use.weight], jnp.float32),
                None if (span := use.span(timesteps)) is None else jnp.asarray(span)[None],
            )
            for use in settings.structures
        }

    def encoded(
        self, kind: StructureKind, maps: Float[np.ndarray, "t H W k"], progress: Progress | None = None
    ) -> Float[Array, "1 t i j c"]:
        """Maps of one kind as the denoiser takes them."""
        if kind.name in self.config.unet.structures:
            pictures = picture_encoder(kind, self.network)
            encode = lambda chunk: kind.encode(jnp.asarray(chunk)[None], pictures)[0]
        else:
            unet = self.network("unet")
            encode = lambda chunk: unet.hint(kind.hint(jnp.asarray(chunk)[None]), kind=kind.name)[0]
        latents = in_chunks(encode, maps, reporter(progress, "structure"))
        return jnp.asarray(np.concatenate(list(latents))[None])


def check_given(ready: Iterable[str], settings: EditSettings) -> None:
    """Refuses maps of kinds that an edit does not follow.

    Raises:
        UserError: there are such.
    """
    if unused := sorted(set(ready) - {use.kind for use in settings.structures}):
        raise UserError(f"structure_from {unused[0]}: the edit follows {settings.structure or 'no structure'}")


def picture_of_maps(kind: StructureKind, maps: Float[np.ndarray, "t H W k"]) -> UInt8[np.ndarray, "t H W 3"]:
    """Maps as pictures: what a person can look at, and `StructureKind.from_pictures` reads again."""
    if maps.shape[-1] == 1:
        return np.repeat(to_uint8(maps), 3, axis=-1)
    return to_uint8(2 * np.asarray(kind.hint(jnp.asarray(maps)[None])[0]) - 1)


def to_uint8(images: Float[Array, "*shape"] | Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """[-1, 1] to 0 ... 255, rounded and clipped."""
    return np.clip(np.rint((np.asarray(images, np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)


def reporter(progress: Progress | None, stage: str) -> Callable[[int, int], None] | None:
    """`progress` of one stage."""
    return None if progress is None else partial(progress, stage)


def in_chunks(function, array, report: Callable[[int, int], None] | None) -> Iterator[np.ndarray]:
    """function over chunks of the first axis, all of one shape so that it compiles once; results on the host."""
    total = len(array)
    size = min(total, CHUNK)
    for start in range(0, total, size):
        chunk = array[start : start + size]
        missing = size - len(chunk)
        padded = np.pad(chunk, [(0, missing)] + [(0, 0)] * (chunk.ndim - 1), mode="edge") if missing else chunk
        yield np.asarray(function(padded))[: len(chunk)]
        if report is not None:
            report(min(start + size, total), total)


def _counted(
    pieces: Iterator[np.ndarray], total: int, report: Callable[[int, int], None] | None
) -> Iterator[np.ndarray]:
    """The pieces, and how many of all frames they have come to."""
    done = 0
    for piece in pieces:
        yield piece
        done += len(piece)
        if report is not None:
            report(done, total)


def _in_pieces(
    kind: StructureKind,
    frames: Iterable[np.ndarray],
    networks: Mapping[str, Bound],
    alone: Callable[[Any], Iterator[np.ndarray]],
) -> Iterator[np.ndarray]:
    """Maps of one clip as they are estimated, piece by piece; only depth has networks that look beyond a frame."""
    return kind.in_pieces(frames, networks, alone) if isinstance(kind, Depth) else alone(frames)


def _blurred(frames: Frames, level: int) -> Frames:
    """Frames without detail, for kinds that find lines."""
    blur = lambda chunk: blur_frames(chunk, level)
    return np.concatenate(list(in_chunks(blur, frames, None))) if level else frames


def _by_chunk(function, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """`in_chunks` of frames that come one by one, nobody knows how many."""
    while chunk := list(itertools.islice(frames, CHUNK)):
        yield np.asarray(function(np.stack(chunk + chunk[-1:] * (CHUNK - len(chunk)))))[: len(chunk)]
