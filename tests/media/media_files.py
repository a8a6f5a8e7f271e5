"""Tiny media made with PyAV: every frame shows its own index and which way is up."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

WIDTH, HEIGHT, COUNT, RATE = 64, 48, 10, 10
RED, GREEN, BLUE = (200, 30, 30), (30, 180, 40), (40, 40, 210)


def picture(index: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Red, green / blue, grey: the level of the grey is the index."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rows, columns = height // 2, width // 2
    rgb[:rows, :columns], rgb[:rows, columns:], rgb[rows:, :columns] = RED, GREEN, BLUE
    rgb[rows:, columns:] = 40 + 20 * index
    return rgb


def index_of(rgb: np.ndarray) -> int:
    """The index of an upright `picture`."""
    return round((float(rgb[rgb.shape[0] * 3 // 4, rgb.shape[1] * 3 // 4].mean()) - 40) / 20)


def make_video(
    path: Path,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    *,
    container: str | None = None,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    frames: list[np.ndarray] | None = None,
    rate: int = RATE,
    times: list[Fraction] | None = None,
    sound: str | None = None,
) -> Path:
    """Encodes `frames` (default: ten) at `times` (default: `rate` a second), with a sine where `sound` is a codec."""
    frames = [picture(i) for i in range(COUNT)] if frames is None else frames
    if path.suffix == ".gif":  # by Pillow, whose palettes hold our few colours exactly
        first, *rest = [Image.fromarray(rgb) for rgb in frames]
        first.save(path, save_all=True, append_images=rest, duration=1000 // rate)
        return path
    with av.open(str(path), "w", format=container, container_options=muxer or {}) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 90_000)
        track = output.add_stream(sound, rate=48_000, layout="mono") if sound else None
        for index, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=pixel_format)
            if times is not None:
                frame.pts, frame.time_base = round(times[index] * 90_000), Fraction(1, 90_000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if track is not None:
            for chunk in tones(len(frames) / rate):
                output.mux(track.encode(chunk))
            output.mux(track.encode(None))
    return path


def tones(seconds: float) -> list[av.AudioFrame]:
    """A new pitch every tenth of a second: 200 Hz, 400 Hz, 600 Hz ..., so that a cut can be located."""
    t = np.arange(int(48_000 * seconds)) / 48_000
    wave = (0.4 * np.sin(2 * np.pi * 200 * (1 + np.floor(t * 10)) * t)).astype(np.float32)
    frames = []
    for at in range(0, len(wave), 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, at : at + 1024], "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, at, Fraction(1, 48_000)
        frames.append(frame)
    return frames


def heard(path: Path) -> tuple[Fraction, np.ndarray]:
    """The start of a file's sound, seconds, and its samples at 48 kHz, mono."""
    with av.open(str(path)) as file:
        stream = file.streams.audio[0]
        resampler = av.AudioResampler("fltp", "mono", 48_000)
        frames = list(file.decode(stream))
        start = frames[0].pts * frames[0].time_base
        samples = [out.to_ndarray()[0] for frame in [*frames, None] for out in resampler.resample(frame)]
    return start, np.concatenate(samples)


def pitch(samples: np.ndarray) -> float:
    """The loudest frequency, Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * 48_000 / len(samples))


DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
"""Red, green and blue as XYZ under D50."""


def colour_profile(primaries=DISPLAY_P3, space: bytes = b"RGB ", gamma: float = 2.2) -> bytes:
    """A profile of three primaries and a power, or of a power alone, as ICC.1:2022 sections 7 to 10 lay it out."""

    def xyz(values) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    white, curve = (0.9642, 1, 0.8249), b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = (
        b"mluc\0\0\0\0" + struct.pack(">II", 1, 12) + b"enUS" + struct.pack(">II", 8, 28) + "test".encode("utf-16-be")
    )
    tags = {b"desc": text, b"cprt": text, b"wtpt": xyz(white)}
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        tags |= {name: xyz(values) for name, values in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data
    size = 128 + len(table) + len(body)
    head = (
        struct.pack(">I4sI4s4s4s12x4s28x", size, b"test", 0x04400000, b"mntr", space, b"XYZ ", b"acsp") + xyz(white)[8:]
    )
    return head.ljust(128, b"\0") + table + body


def patch_matrix(path, a, b, c, d):
    """Writes the display matrix of the QuickTime specification: x' = a x + c y, y' = b x + d y."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    fixed = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in fixed)
    path.write_bytes(data)
    return path


UPRIGHT = {
    (1, 0, 0, 1): lambda rgb: rgb,
    (0, 1, -1, 0): lambda rgb: np.rot90(rgb, -1),  # a phone held upright: clockwise
    (-1, 0, 0, -1): lambda rgb: np.rot90(rgb, 2),
    (0, -1, 1, 0): lambda rgb: np.rot90(rgb, 1),
    (-1, 0, 0, 1): lambda rgb: rgb[:, ::-1],
    (1, 0, 0, -1): lambda rgb: rgb[::-1],
    (0, 1, 1, 0): lambda rgb: rgb.swapaxes(0, 1),
    (0, 0, 0, 0): lambda rgb: rgb,  # nonsense
}


def flat(path, codec, pixel_format, values, *, matrix=2, color_range=0, transfer=2, size=(96, 64)):
    """A one-frame video whose planes hold constant values."""
    width, height = size
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, color_range
        stream.codec_context.color_trc = transfer
        frame = av.VideoFrame(width, height, pixel_format)
        frame.colorspace, frame.color_range = matrix, color_range
        for plane, value in zip(frame.planes, values, strict=True):
            dtype = np.uint16 if "10" in pixel_format else np.uint8
            plane.update(np.full(plane.buffer_size // dtype().itemsize, value, dtype).tobytes())
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def remux(source, target, hold=lambda time: time, sound=0):
    """The packets of a file in another, at other times, and `sound` seconds of a sine."""
    with av.open(str(source)) as file, av.open(str(target), "w") as output:
        track = output.add_stream_from_template(file.streams.video[0])
        other = output.add_stream("libopus", rate=48_000, layout="mono") if sound else None
        for packet in file.demux(video=0):
            if packet.dts is not None:
                packet.pts = round(hold(packet.pts * packet.time_base) / packet.time_base)
                packet.dts = round(hold(packet.dts * packet.time_base) / packet.time_base)
                packet.stream = track
                output.mux(packet)
        for chunk in tones(sound) if sound else []:
            output.mux(other.encode(chunk))
        if sound:
            output.mux(other.encode(None))
    return target
