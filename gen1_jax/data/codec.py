"""How clips are kept in records, pictures as H.264 and depth in 16 bits; `media.windows` reads them."""

import io
import zlib
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from einops import rearrange
from jaxtyping import Float32, Float64, UInt8, UInt16

from gen1_jax.errors import UserError
from gen1_jax.media.frames import encode_frame

_TOP = 65535  # of 16 bits


def encode_video(
    frames: UInt8[np.ndarray, "t h w 3"], frame_rate: float, *, pixel_format: str = "yuv420p", crf: int = 17
) -> bytes:
    """An mp4 file (H.264, BT.709), the same bytes every time: one thread, no dates.

    Args:
        frames: of any size; an odd one needs "yuv444p".
        frame_rate: frames a second.
        pixel_format: "yuv420p", or "yuv444p", which keeps the colour of every pixel; small pictures need it.
        crf: quality of x264, 0 (lossless) to 51.
    """
    file = io.BytesIO()
    rate = Fraction(frame_rate).limit_denominator(1001)
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        # without B-frames and macroblock trees, for with them the same pictures now and then give other bytes
        options = {"crf": str(crf), "preset": "medium", "threads": "1", "bf": "0", "mbtree": "0"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        context = stream.codec_context
        context.thread_count = 1
        context.color_range, context.colorspace = ColorRange.MPEG, Colorspace.ITU709
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        for index, rgb in enumerate(frames):
            frame = encode_frame(rgb, pixel_format)
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def cover_size(height: int, width: int, bucket: tuple[int, int]) -> tuple[int, int]:
    """The smallest (height, width) of the same shape, rounded to pixels, that covers `bucket`."""
    scale = max(bucket[0] / height, bucket[1] / width)
    return max(bucket[0], round(height * scale)), max(bucket[1], round(width * scale))


def encode_depth(depth: Float32[np.ndarray, "t h w"]) -> tuple[bytes, tuple[float, float]]:
    """Inverse depth in 16 bits between its least and largest value over the clip, and these two, in 1/metre.

    Args:
        depth: along the optical axis, positive.
    """
    inverse = 1 / depth.astype(np.float64)
    low, high = float(inverse.min()), float(inverse.max())
    return _compressed(_quantised(inverse, low, high)), (low, high)


def encode_maps(maps: Float32[np.ndarray, "t h w k"]) -> bytes:
    """Maps of a structure in 16 bits between their least and largest value over the clip."""
    planes = rearrange(maps.astype(np.float64), "t h w k -> (t k) h w")
    limits = np.array([planes.min(), planes.max()], "<f8")
    return limits.tobytes() + _compressed(_quantised(planes, *limits), level=1)  # many are made, few are kept long


def decode_maps(data: bytes, shape: Sequence[int]) -> Float32[np.ndarray, "t h w k"]:
    """What `encode_maps` encoded.

    Args:
        data: of `encode_maps`.
        shape: frames, height and width.

    Raises:
        ValueError: the data is not of this shape.
    """
    limits = np.frombuffer(data[:16], "<f8")
    planes = _decompressed(data[16:], (-1, *shape[1:]), "maps")
    values = limits[0] + planes * ((limits[1] - limits[0]) / _TOP)
    return rearrange(values.astype(np.float32), "(t k) h w -> t h w k", t=shape[0])


def _quantised(values: Float64[np.ndarray, "t h w"], low: float, high: float) -> UInt16[np.ndarray, "t h w"]:
    return np.round((values - low) * (_TOP / max(high - low, 1e-12))).astype(np.uint16)


def _compressed(quantised: UInt16[np.ndarray, "t h w"], level: int = -1) -> bytes:
    """Inverse depth of a plane is affine in the pixel: its second difference is nearly nothing, and compresses well."""
    rough = np.diff(np.diff(quantised, axis=1, prepend=np.uint16(0)), axis=2, prepend=np.uint16(0))
    folded = (rough << 1) ^ -(rough >> 15)  # small negative numbers, too, become small
    return zlib.compress(np.stack([folded >> 8, folded & 0xFF]).astype(np.uint8).tobytes(), level)


def _decompressed(data: bytes, shape: Sequence[int], what: str) -> UInt16[np.ndarray, "t h w"]:
    try:
        high, low = np.frombuffer(zlib.decompress(data), np.uint8).reshape(2, *shape).astype(np.uint16)
    except zlib.error as error:
        raise UserError(f"its {what} is damaged ({error})") from None
    folded = high << 8 | low
    rough = (folded >> 1) ^ -(folded & 1)
    return np.cumsum(np.cumsum(rough, axis=2, dtype=np.uint16), axis=1, dtype=np.uint16)


def decode_depth(data: bytes, shape: Sequence[int]) -> UInt16[np.ndarray, "t h w"]:
    """What `encode_depth` compressed: inverse depth, 65535 is the nearest point of the clip.

    Raises:
        ValueError: the data is not of this shape.
    """
    return _decompressed(data, shape, "depth")


def inverse_depth(
    data: bytes, shape: Sequence[int], limits: tuple[float, float] | Float32[np.ndarray, "2"]
) -> Float32[np.ndarray, "t h w"]:
    """Inverse depth in 1/metre from what `encode_depth` returned."""
    low, high = limits
    return (low + decode_depth(data, shape) * ((high - low) / _TOP)).astype(np.float32)
