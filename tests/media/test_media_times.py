"""Times and sound of a copy, frame by frame, are those of the source: what an edit does but for the pictures."""

import tempfile
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from media_files import HEIGHT, WIDTH, index_of, picture, pitch
from PIL import Image

from gen1_jax.files import replacing
from gen1_jax.media import MediaError, VideoWriter, check_writable, load_video, open_video, save_video, write_image

MS = Fraction(1, 1000)
TICK = {".mp4": Fraction(1, 48_000), ".mov": Fraction(1, 48_000), ".mkv": MS, ".webm": MS, ".gif": Fraction(1, 100)}
SOUNDS = {
    ".mp4": ("aac", "alac", "libopus"),
    ".mov": ("pcm_s16le", "aac"),
    ".mkv": ("flac", "libopus", "pcm_s24le", "aac"),
    ".webm": ("libopus",),
}
LAYOUTS = {"mono": 1, "stereo": 2, "5.1": 6}


def timed(path, durations, sound=None, layout="mono", offset=Fraction(0), length=None, hole=None, jump=0, hidden=0):
    """A film whose frames last `durations`, seconds; its sound, noise, starts `offset` after the pictures.

    Of it the first `hidden` seconds lie before time 0, where an edit list hides them.
    """
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
            for frame in noise(length or times[-1], LAYOUTS[layout], layout, offset + lead - hidden, hole, jump):
                output.mux(track.encode(frame))
            output.mux(track.encode(None))
    return path


def noise(length, channels, layout, start, hole, jump=0):
    """White noise that is the same in all channels, in frames of 960 samples; none in `hole`, and later by `jump`."""
    count = int(length * 48_000)
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, count).astype(np.float32)
    wave = np.convolve(wave, np.ones(8, np.float32) / 8, "same")  # what codecs keep
    for at in range(0, count, 960):
        if hole and hole[0] <= Fraction(at, 48_000) < hole[1]:
            continue
        piece = np.repeat(wave[None, at : at + 960], channels, axis=0)
        later = jump if hole and Fraction(at, 48_000) >= hole[1] else 0
        frame = av.AudioFrame.from_ndarray(piece, "fltp", layout)
        frame.sample_rate, frame.pts, frame.time_base = (
            48_000,
            round((start + later) * 48_000) + at,
            Fraction(1, 48_000),
        )
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
        packets = (packet for packet in file.demux(stream) if packet.size or packet.dts is None)
        for frame in (frame for packet in packets for frame in packet.decode()):
            time = frame.pts * frame.time_base
            pieces += [(time, out.to_ndarray().reshape(-1, stream.channels)) for out in resampler.resample(frame)]
    start = pieces[0][0]
    line = np.zeros((round((pieces[-1][0] - start) * 48_000) + 48_000, stream.channels), np.float32)
    for time, samples in pieces:
        at = round((time - start) * 48_000)
        line[at : at + len(samples)] = samples
    end = at + len(samples)
    return start - zero, line[:end]


def settling(path):
    """By how much a copy in Matroska may begin later than the sound of a film, seconds.

    The header of Opus says how much it needs to settle, and decoders leave out as much, no more and no less; an edit
    list of mp4 may let a part of it be heard, and Matroska has none.
    """
    with av.open(str(path)) as file:
        head = file.streams.audio[0].codec_context.extradata or b""
    if path.suffix not in (".mp4", ".mov") or not head.startswith(b"OpusHead"):
        return 3 * MS
    return Fraction(int.from_bytes(head[10:12], "little"), 48_000)


def assert_same_sound(source, copy, tick, cut=None, packet=Fraction(1, 40)):
    """Same channels; the same at the same time, to a tick; as long, to a packet, seconds."""
    start, wave = heard(source)
    if cut is not None and cut[1] <= start + Fraction(1, 40):  # it had not begun
        return
    start_of_copy, wave_of_copy = heard(copy)
    assert wave.shape[1] == wave_of_copy.shape[1]
    if cut is not None:
        wave = wave[max(0, round((cut[0] - start) * 48_000)) : round((cut[1] - start) * 48_000)]
        start = max(start, cut[0]) - cut[0]
    packet = packet if cut is None else Fraction(1, 10)
    late = packet if cut is not None else settling(source) if copy.suffix in (".mkv", ".webm") else 3 * MS
    assert -packet <= start_of_copy - start <= late  # before it: what settles an encoder
    assert abs((start_of_copy - start) + Fraction(len(wave_of_copy) - len(wave), 48_000)) <= 2 * packet
    shift = round((start_of_copy - start) * 48_000)
    a, b = wave[max(0, shift) :, 0], wave_of_copy[max(0, -shift) :, 0]
    count = min(len(a), len(b), 24_000)
    correlation = np.fft.irfft(np.fft.rfft(a[:count], 2 * count) * np.conj(np.fft.rfft(b[:count], 2 * count)))
    lag = int(correlation.argmax())
    lag = lag - 2 * count if lag > count else lag
    assert abs(lag) <= float(tick) * 48_000 + 1, f"sound moved by {lag / 48:.1f} ms"


FEW = settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.generate])  # shrinking takes minutes

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


@settings(FEW, max_examples=50)
@example((".mp4", [249 * MS, 380 * MS, 146 * MS], "aac", "stereo", 7 * MS, 328 * MS), ".mkv")  # hides half a packet
@example((".mp4", [100 * MS], "libopus", "mono", 4 * MS, 400 * MS), ".mkv")
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


@FEW
@given(st.data())
def test_a_part_has_the_times_and_the_sound_of_that_part(tmp_path_factory, data):
    folder = Path(tempfile.mkdtemp(dir=tmp_path_factory.getbasetemp()))
    kind, suffix = data.draw(st.sampled_from(sorted(SOUNDS))), data.draw(st.sampled_from(sorted(SOUNDS)))
    durations = data.draw(st.lists(st.integers(60, 300).map(lambda ms: ms * MS), min_size=8, max_size=10))
    offset = data.draw(st.integers(-300, 300)) * MS
    source = timed(folder / f"in{kind}", durations, data.draw(st.sampled_from(SOUNDS[kind])), "stereo", offset, 4)
    times = list(accumulate(durations, initial=Fraction(0)))
    first = data.draw(st.integers(1, 3))
    if data.draw(st.booleans()):
        part = {"start": first, "duration": data.draw(st.integers(1, 2))}
        begin, end = times[first], times[first + part["duration"]]
    else:
        part = {"start": times[first] + data.draw(st.integers(0, 40)) * MS, "duration": Fraction(1, 4)}
        begin, end = part["start"], part["start"] + part["duration"]
    copy = copied(source, folder / f"out{suffix}", **part)
    assert abs(sum(seen(copy)[1]) - (end - begin)) <= 2 * MS
    least = Fraction(1, 100)  # what would be shown for less is left out
    assert seen(copy)[0] == [i for i, (a, b) in enumerate(pairwise(times)) if a < end - least and b > begin + least]
    assert_same_sound(source, copy, max(TICK[kind], TICK[suffix]) + MS, (begin, end))


@pytest.mark.parametrize(
    ("kind", "sound", "packet", "suffix"),
    [
        (".mp4", "aac", 1024, ".mkv"),
        (".mov", "aac", 1024, ".mkv"),
        (".mp4", "libopus", 960, ".mkv"),
        (".mp4", "libopus", 960, ".webm"),
        (".mp4", "alac", 4096, ".mkv"),
        (".mp4", "alac", 4096, ".webm"),
        (".mp4", "alac", 4096, ".mov"),
    ],
)
@pytest.mark.parametrize("hidden", [14, 30, 500])
def test_sound_hidden_by_an_edit_list_stays_hidden_and_all_else_is_kept(tmp_path, kind, sound, packet, suffix, hidden):
    """Matroska cannot hide a part of a packet: the one in which the sound begins is heard whole, but none before it."""
    source = timed(tmp_path / f"in{kind}", [300 * MS] * 3, sound, length=Fraction(6, 5), hidden=hidden * MS)
    copy = copied(source, tmp_path / f"out{suffix}")
    assert seen(copy)[1] == pytest.approx([300 * MS] * 3, abs=1.01 * MS)
    assert_same_sound(source, copy, MS, packet=Fraction(packet, 48_000) + MS)


def test_an_array_saved_like_a_video_has_its_times_and_sound(tmp_path):
    durations = [ms * MS for ms in (100, 400, 50, 2000)]
    source = timed(tmp_path / "in.mkv", durations, "libopus", "stereo", 120 * MS, 3)
    save_video(load_video(source), tmp_path / "out.mp4", like=source)
    assert seen(tmp_path / "out.mp4")[1] == durations
    assert_same_sound(source, tmp_path / "out.mp4", MS)
    save_video(load_video(source)[:3], tmp_path / "out.mp4", like=source)  # then evenly spaced, and the sound cut
    assert max(seen(tmp_path / "out.mp4")[1]) < Fraction(1, 2)
    assert len(heard(tmp_path / "out.mp4")[1]) < 1.5 * 48_000


@pytest.mark.parametrize("suffix", sorted(SOUNDS))
@pytest.mark.parametrize(("kind", "sound"), [(".mkv", "pcm_s16le"), (".mkv", "aac"), (".ts", "mp2")])
def test_a_hole_in_the_sound_is_silence(tmp_path, kind, sound, suffix):
    hole = (Fraction(2, 10), Fraction(6, 10))
    source = timed(tmp_path / f"in{kind}", [Fraction(1)] * 2, sound, "stereo", length=Fraction(3, 2), hole=hole)
    start, wave = heard(copied(source, tmp_path / f"out{suffix}"))
    loud = np.abs(wave[:, 0]).reshape(-1)[: 48_000 * 14 // 10]
    at = lambda seconds: round((seconds - float(start)) * 48_000)
    assert loud[at(0.24) : at(0.56)].max() < 0.01 < loud[at(0.62) : at(0.66)].max()
    assert loud[at(0.14) : at(0.18)].max() > 0.01
    assert len(wave) == pytest.approx(48_000 * 1.5, abs=3000)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_sound_of_packets_that_are_empty_or_state_no_duration(tmp_path, suffix):
    source = timed(tmp_path / "in.nut", [Fraction(1, 2)] * 2, "flac", length=Fraction(8, 10))  # ends with one
    copy = copied(source, tmp_path / f"out{suffix}")
    assert_same_sound(source, copy, TICK[suffix])
    assert len(heard(copy)[1]) == pytest.approx(38_400, abs=100 if suffix == ".mp4" else 1000)


def test_sound_of_a_broken_clock_is_no_endless_silence(tmp_path):
    hole = (Fraction(2, 10), Fraction(6, 10))
    source = timed(tmp_path / "in.ts", [Fraction(1, 2)] * 2, "mp2", "stereo", length=1, hole=hole, jump=Fraction(2000))
    assert len(heard(copied(source, tmp_path / "out.mp4"))[1]) < 48_000
    source = timed(tmp_path / "in.ts", [Fraction(1, 2)] * 2, "mp2", "stereo", Fraction(-2000))
    copy = copied(source, tmp_path / "out.mp4")
    assert sum(seen(copy)[1]) < 2 and heard(copy) is None


@pytest.mark.parametrize(("default", "expected"), [((0, 1), 600), ((1, 0), 300), ((0, 0), 300), ((1, 1), 300)])
def test_the_default_sound_track_is_kept(tmp_path, default, expected):
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w", container_options={"default_mode": "passthrough"}) as output:
        stream = output.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        tracks = [output.add_stream("pcm_s16le", rate=48_000, layout="mono") for _ in default]
        for track, flag in zip(tracks, default, strict=True):
            track.disposition = av.stream.Disposition(flag)
        for i in range(5):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i), "rgb24").reformat(format="yuv420p")))
        output.mux(stream.encode(None))
        for track, hertz in zip(tracks, (300, 600), strict=True):
            sine = (9000 * np.sin(2 * np.pi * hertz * np.arange(24_000) / 48_000)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(sine[None], "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
            output.mux([*track.encode(frame), *track.encode(None)])
    samples = heard(copied(path, tmp_path / "out.mov"))[1]
    assert pitch(samples[4800:-4800, 0]) == pytest.approx(expected, abs=20)


@pytest.mark.parametrize("rate", [60, 120, 24, Fraction(1, 2), Fraction(1000, 7)])
def test_a_gif_is_as_long_as_the_video(tmp_path, rate):
    """A player shows a frame of less than 1/50 s for 1/10 s: none may be as short."""
    rate = Fraction(rate)
    write(tmp_path / "in.mp4", [picture(i % 10) for i in range(30)], [i / rate for i in range(30)], 30 / rate)
    with Image.open(copied(tmp_path / "in.mp4", tmp_path / "out.gif")) as image:
        lasted = []
        for index in range(image.n_frames):
            image.seek(index)
            lasted.append(image.info["duration"])
    assert min(lasted) >= 20
    assert sum(lasted) == pytest.approx(float(30_000 / rate), abs=10)
    assert len(lasted) >= min(30, 30_000 / rate / 35)


def test_a_gif_holds_a_frame_longer_than_its_numbers_go(tmp_path):
    """Two bytes of 1/100 s."""
    write(tmp_path / "a.gif", [picture(0), picture(1)], [Fraction(0), Fraction(800)], Fraction(2200))
    indices, lasted = seen(tmp_path / "a.gif")
    assert indices == [0, 0, 1, 1, 1] and sum(lasted[:2]) == 800 and sum(lasted) == 2200


def test_a_name_as_long_as_names_may_be(tmp_path):
    for suffix in (".mp4", ".gif", ".png", ".webp"):
        path = tmp_path / ("n" * (255 - len(suffix)) + suffix)
        if suffix in (".png", ".webp"):
            write_image(path, picture(0))
        else:
            write(path, [picture(0)], [Fraction(0)], Fraction(1))
        with replacing(path) as beside:
            beside.write_bytes(path.read_bytes())
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
        path.unlink()
        with pytest.raises(MediaError, match="too long"):
            check_writable(tmp_path / ("n" * (256 - len(suffix)) + suffix))


TAGS = {
    "title": "A film",
    "comment": "of mine",
    "my_tag": "kept",
    "com.apple.quicktime.title": "kept",
    "location": "+48.1+011.5/",
    "location-eng": "+48.1+011.5/",
    "com.apple.quicktime.location.ISO6709": "+48.1+011.5+500/",
    "com.apple.quicktime.make": "Apple",
    "com.android.version": "14",
    "make": "Canon",
    "model": "EOS",
    "GPSLatitude": "48.1",
    "camera_serial": "99",
    "SerialNumber": "99",
    "creation_time": "2020-01-01T00:00:00Z",
}


@pytest.mark.parametrize("kind", [".mp4", ".mov", ".mkv", ".webm"])
def test_titles_travel_but_not_places_and_devices(tmp_path, kind):
    recorded, tagged = timed(tmp_path / f"a{kind}", [Fraction(1, 10)] * 2, SOUNDS[kind][-1]), tmp_path / f"b{kind}"
    options = {"movflags": "use_metadata_tags"} if kind in (".mp4", ".mov") else {}
    with av.open(str(recorded)) as file, av.open(str(tagged), "w", container_options=options) as output:
        output.metadata.update(TAGS)
        tracks = [output.add_stream_from_template(stream, opaque=True) for stream in file.streams]
        for track in tracks:
            track.metadata.update(language="fra", title="a track", handler_name="GoPro AVC")
        for packet in file.demux():
            if packet.dts is not None:
                packet.stream = tracks[packet.stream.index]
                output.mux(packet)
    with open_video(tagged) as reader:
        info, frames = reader.info, list(reader)
    out = tmp_path / "out.mkv"
    size = {"width": info.width, "height": info.height}
    tags = {"metadata": info.metadata, "track_metadata": info.track_metadata}
    with VideoWriter(out, **size, frame_rate=10, audio_from=tagged, **tags) as writer:
        writer.write(frames[0].rgb)
    with av.open(str(out)) as file:
        kept = {key.lower() for key in file.metadata}
        assert kept == {"title", "comment", "my_tag", "com.apple.quicktime.title", "encoder"}
        assert file.metadata["title"] == "A film"
        for stream in file.streams:
            assert {**stream.metadata, "DURATION": ""} == {"language": "fra", "title": "a track", "DURATION": ""}


@pytest.mark.parametrize("kind", [".mp4", ".mov", ".mkv"])
def test_titles_that_are_no_text_are_carried_as_far_as_they_are(tmp_path, kind):
    """Old programs wrote the letters of their own code page."""
    path = tmp_path / f"a{kind}"
    with VideoWriter(tmp_path / "a.mp4", width=32, height=32, frame_rate=8) as writer:
        writer.write(np.zeros((32, 32, 3), np.uint8))
    with av.open(str(tmp_path / "a.mp4")) as file, av.open(str(tmp_path / f"b{kind}"), "w") as output:
        output.metadata["title"] = "aTITLE"
        track = output.add_stream_from_template(file.streams.video[0])
        for packet in file.demux():
            if packet.dts is not None:
                packet.stream = track
                output.mux(packet)
    path.write_bytes((tmp_path / f"b{kind}").read_bytes().replace(b"aTITLE", b"a\xcc\xff\xe9 b"))
    with open_video(path) as reader:
        told, frames = reader.info.metadata, list(reader)
    assert told["title"] == "a\ufffd\ufffd\ufffd b" and len(frames) == 1
    with VideoWriter(tmp_path / "out.mkv", width=32, height=32, frame_rate=8, metadata=told) as writer:
        writer.write(frames[0].rgb)
    with open_video(tmp_path / "out.mkv") as reader:
        assert reader.info.metadata["title"] == told["title"]
