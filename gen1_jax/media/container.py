"""Opening a file with FFmpeg so that it can reach nothing but itself, and telling whether its end is missing."""

import io
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from gen1_jax.media.errors import HEIF, NO_HEIF, AnyPath, Limits, MediaError, blaming, check_size, shown
from gen1_jax.media.truncation import is_cut

# Demuxers that read one file and nothing else: no playlists (hls, dash, concat), image patterns or devices.
_DEMUXERS = (
    "mov,matroska,avi,gif,mpegts,mpeg,flv,asf,ogg,nut,ivf,mxf,rm,dv,yuv4mpegpipe,"
    "h264,hevc,obu,m4v,mpegvideo,mjpeg,"
    "wav,w64,aiff,caf,mp3,flac,aac,ac3,eac3"
)

Content = Path | bytes
"""A file that is there, or what is in one."""


def open_container(path: AnyPath, local: Content, *, probe: bool = True, xmp: bool = False) -> InputContainer:
    """Opens `local` for reading; `path` is the name for messages.

    Args:
        path: the file, as the user named it.
        local: the same, checked.
        probe: whether FFmpeg decodes a frame to learn what a header leaves open; files of our own need none, and
            it takes as long as two frames of a clip of eight.
        xmp: whether its packet of XMP becomes the entry "xmp" of its metadata, in mp4 and mov.

    Raises:
        MediaError: not a media file, cut off, or of a kind that refers to other files.
    """
    options = {"protocol_whitelist": "file", "format_whitelist": _DEMUXERS}
    if not probe:
        options["codec_whitelist"] = "none"
    if xmp:
        options["export_xmp"] = "1"
    with blaming(path, "not a video or picture that can be read, or truncated; export it again"):
        try:
            file = io.BytesIO(local) if isinstance(local, bytes) else str(local.absolute())
            container = av.open(file, options=options, metadata_errors="replace")
        except av.ArgumentError:  # what FFmpeg says of a demuxer that is not on the list
            raise MediaError(
                f"{shown(path)}: playlists, scripts and other files of this kind are not read; name the video itself."
            ) from None
    try:
        if container.metadata.get("major_brand") in HEIF and len(container.streams.video) > 1:
            raise MediaError(f"{shown(path)}: {NO_HEIF}.")  # each tile is a stream
        check_complete(path, local, container)
    except BaseException:
        container.close()
        raise
    return container


def picture_stream(container: InputContainer) -> VideoStream | None:
    """The stream of moving pictures; cover art does not count."""
    streams = container.streams.video
    return next((s for s in streams if not s.disposition & av.stream.Disposition.attached_pic), None)


def origin(path: AnyPath, local: Path) -> Fraction:
    """Seconds on the file's clock that are our time 0: its first picture, or without any the start of its sound.

    The header does not say it: FFmpeg takes the start of another track for that of a track that it has not seen yet.
    """
    with open_container(path, local) as container, blaming(path, "damaged; repair or re-encode it"):
        stream = picture_stream(container)
        if stream is None or stream.codec_context is None:
            stream = next(iter(container.streams), None)
            return Fraction(0) if stream is None else (stream.start_time or 0) * (stream.time_base or 0)
        first = next(container.decode(stream), None)
        return Fraction(0) if first is None or first.pts is None else first.pts * stream.time_base


def check_complete(path: AnyPath, local: Content, container: InputContainer) -> None:
    """Raises MediaError when the end of the file is missing, by its header or by its index of samples."""
    with blaming(path, "cannot be read"), _opened(local) as file:
        size = file.seek(0, io.SEEK_END)
        cut = is_cut(file, size, container.format.name)
    # The samples of each track lie in file order, so the last one is the last in the file.
    indexes = [stream.index_entries for stream in container.streams if stream.type in ("video", "audio")]
    last = max((index[-1].pos + index[-1].size for index in indexes if len(index)), default=0)
    if cut or (container.format.name.startswith("mov,") and last > size):
        raise truncated(path)


def truncated(path: AnyPath) -> MediaError:
    """The error for a file whose end is missing."""
    return MediaError(f"{shown(path)}: the file is truncated (its end is missing); copy or download it again.")


def decodable_stream(
    path: AnyPath, container: InputContainer, limits: Limits, threads: int
) -> tuple[VideoStream, VideoCodecContext]:
    """The stream of moving pictures and its decoder, of `threads` threads, 0 for as many as FFmpeg sees fit.

    Raises:
        MediaError: there is none, or its frames are beyond the limits.
    """
    stream = picture_stream(container)
    if stream is None:
        kind = "only sound" if container.streams.audio else "no pictures"
        raise MediaError(f"{shown(path)}: has {kind} in it; name a video.")
    if stream.codec_context is None:
        raise MediaError(f"{shown(path)}: its codec is unknown or the file is truncated; convert it to H.264.")
    check_size(path, stream.width, stream.height, limits)
    decoder = _decoder(stream)
    decoder.thread_type = "NONE" if threads == 1 else "AUTO"
    decoder.thread_count = threads
    # The decoder's own guard; twice, because it counts whole macroblocks.
    decoder.options = {"max_pixels": str(2 * limits.max_pixels + 2**16)}
    return stream, decoder


def _decoder(stream: VideoStream) -> VideoCodecContext:
    """The stream's own, or where its frames are transparent one that sees it: FFmpeg's for VP8 and VP9 does not."""
    library = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.codec.canonical_name)
    alpha = {name.lower(): value for name, value in stream.metadata.items()}.get("alpha_mode")  # a tag, or an element
    if library is None or alpha != "1":
        return stream.codec_context
    return av.CodecContext.create(library, "r")


def _opened(local: Content) -> io.BufferedIOBase:
    return io.BytesIO(local) if isinstance(local, bytes) else local.open("rb")
