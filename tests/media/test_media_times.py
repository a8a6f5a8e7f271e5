"""Times and sound of a copy, frame by frame, are those of the source: what an edit does but for the pictures."""

import tempfile
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media_files import HEIGHT, WIDTH, index_of, picture
from PIL import Image

from gen1_jax.media import VideoWriter, open_video

MS = Fraction(1, 1000)
TICK = {".mp4": Fraction(1, 48_000), ".mov": Fraction(1, 48_000), ".mkv": MS, ".webm": MS, ".gif": Fraction(1, 100)}
SOUNDS = {
    ".mp4": ("aac", "alac", "libopus"),
    ".mov": ("pcm_s16le", "aac"),
    ".mkv": ("flac", "libopus", "pcm_s24le", "aac"),
    ".webm": ("libopus",),
}
LAYOUTS = {"mono": 1, "stereo": 2, "5.1": 6}


def timed(path, durations, sound=None, layout="mono", offset=Fraction(0), length=None, hole=None):
    """A film whose frames last `durations`, seconds; its sound, noise, starts `offset` after the pictures."""
    frames = [picture(i % 10) for i in range(len(durations))]
    times = list(accumulate(durations, initial=Fraction(0)))
    if path.suffix in (".webp", ".png", ".gif"):
        first, *rest = map(Image.fromarray, frames)
        if path.suffix == ".gif":  # Pillow takes frames that are alike for one
            write(path, frames, times[:-1], times[-1])
        else:
            milliseconds = [round(1000 * duration) for duration in durations]
            first.save(path, save_all=True, append_images=rest, duration=milliseconds, lossless=True)
        return path
    lead = max(Fraction(0), -offset)
    options = {"movie_timescale": "48000"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", container_options=options) as output:
        webm = path.suffix == ".webm"
        stream = output.add_stream("libvpx" if webm else "libx264", rate=25, options={} if webm else {"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 48_000)
        track = output.add_stream(sound, rate=48_000, layout=layout) if sound else None
        packets = []
        for rgb, time in zip(frames, times, strict=False):
            frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = round((time + lead) * 48_000), Fraction(1, 48_000)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for packet, duration in zip(packets, durations, strict=True):
            packet.duration = round(duration * 48_000)
            output.mux(packet)
        if track is not None:
            for frame in noise(length or times[-1], LAYOUTS[layout], layout, offset + lead, hole):
                output.mux(track.encode(frame))
            output.mux(track.encode(None))
    return path


def noise(length, channels, layout, start, hole):
    """White noise that is the same in all channels, in frames of 960 samples; none in `hole`."""
    count = int(length * 48_000)
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, count).astype(np.float32)
    wave = np.convolve(wave, np.ones(8, np.float32) / 8, "same")  # what codecs keep
    for at in range(0, count, 960):
        if hole and hole[0] <= Fraction(at, 48_000) < hole[1]:
            continue
        piece = np.repeat(wave[None, at : at + 960], channels, axis=0)
        frame = av.AudioFrame.from_ndarray(piece, "fltp", layout)
        frame.sample_rate, frame.pts, frame.time_base = 48_000, round(start * 48_000) + at, Fraction(1, 48_000)
        yield frame


def write(path, frames, times, end):
    with VideoWriter(path, width=WIDTH, height=HEIGHT, frame_rate=10) as writer:
        for rgb, time in zip(frames, times, strict=True):
            writer.write(rgb, time, end - time)


def copied(source, path, **part):
    """What `gen1 edit` does with times and sound, but with the pictures as they are."""
    with open_video(source, **part) as reader:
        frames = list(reader)
    info = reader.info
    with VideoWriter(
        path, width=info.width, height=info.height, frame_rate=info.frame_rate, audio_from=source, sound=reader.sound
    ) as writer:
        for frame in frames:
            writer.write(frame.rgb, frame.time, reader.end - frame.time)
    return path


def seen(path, **part):
    """Indices of the frames, and how long each is shown, seconds."""
    with open_video(path, **part) as reader:
        frames = list(reader)
    times = [frame.time for frame in frames]
    return [index_of(frame.rgb) for frame in frames], [b - a for a, b in pairwise([*times, reader.end])]


def heard(path):
    """Samples (n, channels) at 48 kHz, and when they begin, seconds after the first picture; None where silent."""
    with av.open(str(path)) as file:
        if not file.streams.audio:
            return None
        zero = next(file.decode(video=0)).pts * file.streams.video[0].time_base
    with av.open(str(path)) as file:
        stream = file.streams.audio[0]
        resampler = av.AudioResampler("flt", stream.layout, 48_000)
        pieces = []
        for frame in file.decode(stream):
            time = frame.pts * frame.time_base
            pieces += [(time, out.to_ndarray().reshape(-1, stream.channels)) for out in resampler.resample(frame)]
    start = pieces[0][0]
    line = np.zeros((round((pieces[-1][0] - start) * 48_000) + 48_000, stream.channels), np.float32)
    for time, samples in pieces:
        at = round((time - start) * 48_000)
        line[at : at + len(samples)] = samples
    end = at + len(samples)
    return start - zero, line[:end]


def assert_same_sound(source, copy, tick, cut=None):
    """Same channels; the same at the same time, to a tick; as long, to a packet."""
    (start, wave), (start_of_copy, wave_of_copy) = heard(source), heard(copy)
    assert wave.shape[1] == wave_of_copy.shape[1]
    if cut is not None:
        wave = wave[max(0, round((cut[0] - start) * 48_000)) : round((cut[1] - start) * 48_000)]
        start = max(start, cut[0]) - cut[0]
    packet = Fraction(1, 40) if cut is None else Fraction(1, 10)
    assert abs(start_of_copy - start) <= packet
    assert abs((start_of_copy - start) + Fraction(len(wave_of_copy) - len(wave), 48_000)) <= 2 * packet
    shift = round((start_of_copy - start) * 48_000)
    a, b = wave[max(0, shift) :, 0], wave_of_copy[max(0, -shift) :, 0]
    count = min(len(a), len(b), 24_000)
    correlation = np.fft.irfft(np.fft.rfft(a[:count], 2 * count) * np.conj(np.fft.rfft(b[:count], 2 * count)))
    lag = int(correlation.argmax())
    lag = lag - 2 * count if lag > count else lag
    assert abs(lag) <= float(tick) * 48_000 + 1, f"sound moved by {lag / 48:.1f} ms"


lasting = st.lists(st.integers(20, 400).map(lambda ms: ms * MS), min_size=1, max_size=5)


@st.composite
def films(draw):
    """(suffix, durations, sound, layout, offset, length)"""
    suffix = draw(st.sampled_from([".mp4", ".mov", ".mkv", ".webm", ".gif", ".webp", ".png"]))
    durations = draw(lasting)
    if suffix not in SOUNDS:
        durations = [round(100 * duration) * Fraction(1, 100) for duration in [20 * MS, *durations]]
        return suffix, durations, None, "mono", Fraction(0), None
    layout = draw(st.sampled_from(sorted(LAYOUTS)))
    sound = draw(st.sampled_from([None, *SOUNDS[suffix]]))
    offset = draw(st.integers(-300, 300)) * MS
    return suffix, durations, sound, layout, offset, draw(st.integers(300, 1200)) * MS


@settings(max_examples=60, deadline=None)
@given(films(), st.sampled_from([".mp4", ".mov", ".mkv", ".webm", ".gif"]))
def test_a_copy_has_the_times_and_the_sound_of_its_source(tmp_path_factory, film, suffix):
    folder = Path(tempfile.mkdtemp(dir=tmp_path_factory.getbasetemp()))
    kind, durations, *sound = film
    source = timed(folder / f"in{kind}", durations, *sound)
    copy = copied(source, folder / f"out{suffix}")
    indices, lasted = seen(source)
    assert lasted == pytest.approx(durations, abs=1.01 * MS)
    assert seen(copy)[0] == indices
    for ours, theirs in zip(accumulate(seen(copy)[1]), accumulate(lasted), strict=True):
        assert abs(ours - theirs) <= TICK[suffix] + Fraction(1, 10**9)
    if sound[0] and suffix != ".gif":
        assert_same_sound(source, copy, max(TICK[kind], TICK[suffix]))
