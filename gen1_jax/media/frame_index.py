"""Which frames of a video are there to be seen, and where decoding may begin: what random access needs to know.

 packets ──times of those that are shown──► as the first frames decoded? ──yes──► FrameIndex ◄──► FOLDER/.gen1_index/
                                                        └──no──► every frame decoded ──┘

Headers do not tell: edit lists hide frames, sound lasts longer than pictures, rates vary. Reading packets without
decoding them takes a hundredth of the time of decoding and is right for nearly all files; where it is not, a window
notices (`WindowReader`), and the frames are counted by decoding them.
"""

import contextlib
import dataclasses
import hashlib
import os
import threading
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Discard
from jaxtyping import Int64

from gen1_jax.files import replacing
from gen1_jax.media.container import Content, decodable_stream, open_container
from gen1_jax.media.errors import AnyPath, Limits, blaming, check_size
from gen1_jax.media.frames import RgbDecoder, pixel_aspect
from gen1_jax.media.movie import MovieSource

_VERSION = 1  # of what is stored
_PROBED = 8  # frames decoded to see whether packets tell the truth
_ONE_PACKET_A_FRAME = {"h264", "hevc", "av1", "vp9", "mpeg2video", "mjpeg", "prores", "dnxhd", "ffv1"}
_CLOCKED = ("mov,", "matroska,", "mpegts")  # containers whose packets say when they are shown
_NO_KEYS = {"gif", "apng"}  # codecs whose frames hang on all before them
_KEPT = 512  # indices in memory
_THREADS = 4  # that count frames by decoding


@dataclasses.dataclass(frozen=True)
class FrameIndex:
    """The frames of a video.

    Args:
        width: of an upright frame, pixels.
        height: of an upright frame, pixels.
        sample_aspect_ratio: width over height of a pixel, upright.
        times: when each frame is shown, in ticks of its stream, in order.
        keys: numbers of frames at which decoding may begin; none if only at the first.
        clocked: whether a frame is known by its time; else by counting from the first one.
    """

    width: int
    height: int
    sample_aspect_ratio: Fraction
    times: Int64[np.ndarray, " n"]
    keys: Int64[np.ndarray, " k"]
    clocked: bool = True

    @property
    def displayed_size(self) -> tuple[int, int]:
        """Height and width in square pixels: the longer side of a pixel counts as one or more."""
        return displayed_size(self.width, self.height, self.sample_aspect_ratio)

    def key_before(self, frame: int) -> int:
        """The last frame up to `frame` at which decoding may begin."""
        at = int(np.searchsorted(self.keys, frame, side="right")) - 1
        return int(self.keys[at]) if at >= 0 else 0


def displayed_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Height and width in square pixels of frames whose pixels have this width over height."""
    if aspect >= 1:
        return height, round(width * aspect)
    return round(height / aspect), width


def read_index(
    path: AnyPath, local: Content, limits: Limits, folder: Path | None = None, *, count: bool = False
) -> FrameIndex:
    """The index of a video, from memory or from `folder` if it is there and the file is still the same.

    Args:
        path: the file, for messages.
        local: the same, checked; or its bytes, whose index is kept in memory alone.
        limits: refuses larger frames.
        folder: where indices are kept; None for nowhere. One that cannot be written to does no harm.
        count: decode all frames, whatever is known.

    Raises:
        MediaError: no video that can be decoded, truncated, or beyond a limit; damaged, if its frames are counted.
    """
    stamp, key = _stamp(local), _key(local)
    index = None if count else _memory.get(key) or _load(_entry(folder, local), stamp)
    if index is None:
        index = _counted(path, local, limits) if count else _indexed(path, local, limits)
        _save(_entry(folder, local), stamp, index)
    _memory.put(key, index)
    return index


def known_size(path: AnyPath, local: Path, limits: Limits, folder: Path | None = None) -> tuple[int, int]:
    """Height and width of a video in square pixels, by its index if there is one, else by its first frame.

    Raises:
        MediaError: no video that can be decoded, truncated, or beyond a limit.
    """
    index = _memory.get(_key(local)) or _load(_entry(folder, local), _stamp(local))
    if index is not None:
        return index.displayed_size
    movie = MovieSource(path, local, limits, threads=1)
    movie.close()
    return displayed_size(movie.info.width, movie.info.height, movie.info.sample_aspect_ratio)


def _indexed(path: AnyPath, local: Content, limits: Limits) -> FrameIndex:
    """By packets, if they are to be believed."""
    container = open_container(path, local)
    try:
        stream, decoder = decodable_stream(path, container, limits, threads=1)
        codec = stream.codec_context.codec.canonical_name
        if codec not in _ONE_PACKET_A_FRAME or not container.format.name.startswith(_CLOCKED):
            return _counted(path, local, limits)
        for other in container.streams:
            if other.index != stream.index:
                other.discard = Discard.all
        shows, keys, decoded = [], [], []
        with blaming(path, "damaged; repair or re-encode it"):
            for packet in container.demux(stream):
                if len(decoded) < _PROBED:
                    decoded += decoder.decode(packet)  # the last packet is empty and flushes the decoder
                if packet.size and not packet.is_discard:
                    shows.append(packet.pts)
                    if packet.is_keyframe:
                        keys.append(packet.pts)
        first = decoded[0] if decoded else None
        if first is None or None in shows or len(set(shows)) < len(shows):
            return _counted(path, local, limits)
        times = np.sort(np.array(shows, np.int64))
        seen = [frame.pts for frame in decoded[:_PROBED]]
        if seen != times[: len(seen)].tolist() or any(frame.is_corrupt for frame in decoded):
            return _counted(path, local, limits)
        return _index(path, first, stream.sample_aspect_ratio, times, np.searchsorted(times, sorted(keys)), limits)
    finally:
        container.close()


def _counted(path: AnyPath, local: Content, limits: Limits) -> FrameIndex:
    """By decoding all of them."""
    movie = MovieSource(path, local, limits, threads=_THREADS)
    try:
        times, keys = [], []
        for frame, *_ in movie:
            if frame.key_frame and movie.codec not in _NO_KEYS:
                keys.append(len(times))
            times.append(frame.pts)
        info = movie.info
        clocked = None not in times and all(np.diff(times) > 0)
        return FrameIndex(
            info.width,
            info.height,
            info.sample_aspect_ratio,
            np.array(times if clocked else range(len(times)), np.int64),
            np.array(keys if clocked else [], np.int64),
            bool(clocked),
        )
    finally:
        movie.close()


def _index(
    path: AnyPath,
    first: av.VideoFrame,
    aspect: Fraction | None,
    times: Int64[np.ndarray, " n"],
    keys: Int64[np.ndarray, " k"],
    limits: Limits,
) -> FrameIndex:
    check_size(path, first.width, first.height, limits)
    decoder = RgbDecoder(first)
    return FrameIndex(*decoder.size, pixel_aspect(aspect, decoder.turned), times, keys.astype(np.int64))


def _stamp(local: Content) -> tuple[int, ...]:
    """What tells that a file is still the same."""
    if isinstance(local, bytes):
        return _VERSION, len(local), 0
    status = local.stat()
    return _VERSION, status.st_size, status.st_mtime_ns


def _key(local: Content) -> tuple:
    """What is known in memory by."""
    if isinstance(local, bytes):
        return hashlib.blake2b(local, digest_size=16).digest(), _stamp(local)
    return os.path.abspath(local), _stamp(local)


def _entry(folder: Path | None, local: Content) -> Path | None:
    """The file of an index: by the path within the set, so that it stays right where the set is moved."""
    if folder is None or isinstance(local, bytes):
        return None
    name = os.path.relpath(os.path.abspath(local), os.path.abspath(folder.parent))
    return folder / f"{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}.npz"


def _load(entry: Path | None, stamp: tuple[int, ...]) -> FrameIndex | None:
    if entry is None:
        return None
    try:
        with np.load(entry, allow_pickle=False) as kept:
            if tuple(kept["stamp"].tolist()) != stamp:
                return None
            width, height, above, below, clocked = kept["size"].tolist()
            return FrameIndex(width, height, Fraction(above, below), kept["times"], kept["keys"], bool(clocked))
    except Exception:  # it is not there, or whatever a damaged file makes NumPy raise
        return None


def _save(entry: Path | None, stamp: tuple[int, ...], index: FrameIndex) -> None:
    if entry is None:
        return
    aspect = index.sample_aspect_ratio
    size = np.array([index.width, index.height, aspect.numerator, aspect.denominator, index.clocked], np.int64)
    with _writing, contextlib.suppress(OSError):
        if not entry.parent.parent.stat().st_mode & 0o222:  # read-only by intent, also for root, who could write
            return
        entry.parent.mkdir(exist_ok=True)
        with replacing(entry) as part:
            np.savez(part, stamp=np.array(stamp, np.int64), size=size, times=index.times, keys=index.keys)


class _Memory:
    """The indices used last; threads may ask at once."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple, FrameIndex] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple) -> FrameIndex | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: tuple, index: FrameIndex) -> None:
        with self._lock:
            self._kept[key] = index
            self._kept.move_to_end(key)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)


_memory = _Memory()
_writing = threading.Lock()
