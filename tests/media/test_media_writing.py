import os
import resource
from fractions import Fraction

import av
import numpy as np
import pytest
from media_files import COUNT, HEIGHT, RATE, WIDTH, heard, index_of, make_video, picture, pitch, tones
from PIL import Image

from gen1_jax.media import VIDEO_SUFFIXES, MediaError, VideoWriter, check_output, check_writable, open_video
from gen1_jax.media.files import PendingOutput

SUFFIXES = [suffix for suffix in VIDEO_SUFFIXES if suffix != "/"]


def write(path, frames=None, times=None, **options):
    frames = [picture(i) for i in range(COUNT)] if frames is None else frames
    height, width, _ = frames[0].shape
    with VideoWriter(path, width=width, height=height, **({"frame_rate": RATE} | options)) as writer:
        for rgb, time in zip(frames, times or [None] * len(frames), strict=True):
            writer.write(rgb, time)
    return path


def read(path):
    with open_video(path) as reader:
        return reader.info, list(reader)


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_gives_the_frames_back(tmp_path, suffix):
    info, frames = read(write(tmp_path / f"out{suffix}"))
    assert listing(tmp_path) == [f"out{suffix}"]
    assert [index_of(frame.rgb) for frame in frames] == list(range(COUNT))
    assert [frame.time for frame in frames] == [Fraction(i, RATE) for i in range(COUNT)]
    assert (info.width, info.height, info.frame_rate, info.duration) == (WIDTH, HEIGHT, RATE, 1)
    for i, frame in enumerate(frames):
        np.testing.assert_allclose(frame.rgb[4::16, 4::16].astype(int), picture(i)[4::16, 4::16], atol=4)


def test_a_folder_of_pngs_is_lossless(tmp_path):
    write(f"{tmp_path}/out/")
    assert listing(tmp_path) == ["out", *(f"out/{i:05d}.png" for i in range(COUNT))]
    for i, frame in enumerate(read(tmp_path / "out")[1]):
        np.testing.assert_array_equal(frame.rgb, picture(i))


def test_h264_is_what_players_expect(tmp_path):
    path = write(tmp_path / "out.mp4", sample_aspect_ratio=Fraction(4, 3))
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, stream.frames) == ("h264", "yuv420p", COUNT)
        tags = (context.color_primaries, context.color_trc, context.colorspace, context.color_range)
        assert tags == (1, 1, 1, 1)  # BT.709, limited range
        assert stream.sample_aspect_ratio == Fraction(4, 3)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays while it loads


def test_colours_are_right_to_a_level(tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128), (30, 200, 90)]
    frames = read(write(tmp_path / "out.mp4", [np.full((48, 64, 3), colour, np.uint8) for colour in colours]))[1]
    for frame, colour in zip(frames, colours, strict=True):
        np.testing.assert_allclose(frame.rgb.mean((0, 1)), colour, atol=1.5)


@pytest.mark.parametrize("size", [(63, 47), (64, 47), (63, 48), (1, 1), (2, 2), (5, 200)])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_odd_and_tiny_sizes(tmp_path, suffix, size):
    width, height = size
    rgb = np.zeros((height, width, 3), np.uint8) + np.linspace(40, 200, height)[:, None, None].astype(np.uint8)
    info, (frame,) = read(write(tmp_path / f"out{suffix}", [rgb]))
    if suffix in (".mp4", ".mov", ".mkv"):  # H.264: one more row and column, copies of the last
        assert (info.width, info.height) == (width + width % 2, height + height % 2)
        np.testing.assert_allclose(frame.rgb[-1].astype(int), frame.rgb[height - 1], atol=4)
    else:
        assert (info.width, info.height) == size
    np.testing.assert_allclose(frame.rgb[:height, :width].astype(int), rgb, atol=6)


UNEVEN = [Fraction(x, 100) for x in (0, 10, 30, 35, 90, 91, 100, 200, 201, 300)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_uneven_times_survive(tmp_path, suffix):
    times = [7 + time for time in UNEVEN]  # the first becomes zero
    if suffix == ".gif":
        times[5] += Fraction(1, 100)  # no GIF shows a frame for less than 1/50 s
        times[8] += Fraction(1, 100)
    info, frames = read(write(tmp_path / f"out{suffix}", times=times))
    assert [frame.time + 7 for frame in frames] == times
    assert info.duration == Fraction(31, 10)  # the last frame is shown for 1/10 s


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30000, 1001), 12.5, 12, 60, Fraction(50, 7)])
def test_frame_rates_are_exact_in_mp4(tmp_path, rate):
    exact = Fraction(rate)
    info, frames = read(write(tmp_path / "out.mp4", frame_rate=rate))
    assert info.frame_rate == exact
    assert [frame.time for frame in frames] == [i / exact for i in range(COUNT)]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize(
    ("container", "sound"),
    [
        (".mp4", "aac"),
        (".ts", "aac"),
        (".mp4", "alac"),
        (".mp4", "ac3"),
        (".ts", "mp2"),
        (".mkv", "libopus"),
        (".mkv", "pcm_s16le"),
        (".mkv", "flac"),
    ],
)
def test_sound_is_carried_and_cut_to_the_frames(tmp_path, suffix, container, sound):
    frames = [picture(i % 10) for i in range(30)]
    source = make_video(tmp_path / f"in{container}", frames=frames, sound=sound)
    with open_video(source, start=10, frames=10) as reader:
        chosen = list(reader)
    out = write(
        tmp_path / f"out{suffix}",
        [frame.rgb for frame in chosen],
        [frame.time for frame in chosen],
        audio_from=source,
    )
    info, frames = read(out)
    assert (info.has_audio, len(frames)) == (True, 10)
    start, samples = heard(out)
    assert 0 <= start < 0.1
    assert abs(start + len(samples) / 48_000 - 1) < 0.1
    for tenth in (2, 5, 7):  # at 1.25 s the source plays 200 * 13 Hz
        at = int((tenth / 10 + 0.03 - start) * 48_000)
        expected = 200 * (1 + 10 + tenth)
        assert abs(pitch(samples[at : at + 1920]) - expected) < 60


def test_sound_starts_with_the_pictures_of_a_stream_that_starts_late(tmp_path):
    times = [3 + Fraction(i, 10) for i in range(COUNT)]
    source = make_video(tmp_path / "in.ts", times=times, sound="mp2")  # the sound starts at 0, pictures at 3 s
    out = write(tmp_path / "out.mp4", times=[Fraction(i, 10) for i in range(COUNT)], audio_from=source)
    assert not read(out)[0].has_audio  # it was over when the pictures began


def test_sound_without_times_starts_at_the_beginning(tmp_path):
    source = make_video(tmp_path / "in.mp4", sound="aac")
    start, samples = heard(write(tmp_path / "out.mp4", audio_from=source))
    assert start == 0 and abs(len(samples) / 48_000 - 1) < 0.05
    _, original = heard(source)
    np.testing.assert_allclose(samples[:40_000], original[:40_000], atol=1e-6)  # the very packets


def test_sound_shorter_than_the_pictures_and_sound_from_a_song(tmp_path):
    with av.open(str(tmp_path / "song.wav"), "w") as output:
        track = output.add_stream("pcm_s16le", rate=44_100, layout="stereo")
        for chunk in tones(0.5):
            output.mux(track.encode(chunk))
        output.mux(track.encode(None))
    out = write(tmp_path / "out.mp4", audio_from=tmp_path / "song.wav")
    with av.open(str(out)) as file:
        assert (file.streams.audio[0].codec_context.name, file.streams.audio[0].rate) == ("aac", 44_100)
    assert abs(len(heard(out)[1]) / 48_000 - 0.5) < 0.05


def test_sources_without_sound_give_none(tmp_path):
    Image.fromarray(picture(0)).save(tmp_path / "still.png")
    for source in (tmp_path / "still.png", tmp_path, make_video(tmp_path / "silent.mp4")):
        assert not read(write(tmp_path / "out.mp4", audio_from=source))[0].has_audio
    loud = make_video(tmp_path / "loud.mp4", sound="aac")
    assert not read(write(tmp_path / "out.gif", audio_from=loud))[0].has_audio
    write(f"{tmp_path}/frames/", audio_from=loud)


def test_a_bad_sound_file_is_refused_before_any_work(tmp_path):
    (tmp_path / "bad.mp4").write_text("nothing of the kind")
    for source in (tmp_path / "bad.mp4", tmp_path / "gone.mp4", "http://example.org/a.mp3"):
        with pytest.raises(MediaError, match=os.path.basename(str(source))):
            write(tmp_path / "out.mp4", audio_from=source)
    assert listing(tmp_path) == ["bad.mp4"]


@pytest.mark.parametrize("name", [*(f"out{suffix}" for suffix in SUFFIXES), "out/"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_after_an_exception(tmp_path, name, error):
    loud = make_video(tmp_path / "loud.mp4", sound="aac")
    if name != "out/":
        (tmp_path / name).write_text("the old one")
    before = listing(tmp_path)
    options = {"width": 64, "height": 48, "frame_rate": 10, "audio_from": loud}
    with pytest.raises(error), VideoWriter(f"{tmp_path}/{name}", **options) as writer:
        for i in range(5):
            writer.write(picture(i))
        assert listing(tmp_path) != before
        raise error
    assert listing(tmp_path) == before
    if name != "out/":
        assert (tmp_path / name).read_text() == "the old one"


@pytest.mark.parametrize("name", [*(f"out{suffix}" for suffix in SUFFIXES), "out/"])
def test_a_full_disk_leaves_nothing(tmp_path, name):
    """A limit on file sizes stands in for it; a byte too few must be noticed as well."""
    noise = np.random.default_rng(0).integers(0, 255, (3, 96, 128, 3), np.uint8)
    path = f"{tmp_path}/{name}"
    write(path, list(noise))
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    size = max(file.stat().st_size for file in files)
    [file.unlink() for file in files]
    if name == "out/":
        (tmp_path / "out").rmdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (size - 1, size - 60, size // 2, 100):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            with pytest.raises(MediaError, match=r"out.*too large"):
                write(path, list(noise))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert listing(tmp_path) == []


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix != ".gif"])
def test_frames_closer_than_the_clock_are_all_kept(tmp_path, suffix):
    times = [Fraction(i, 10**6) for i in range(COUNT)]
    frames = read(write(tmp_path / f"out{suffix}", times=times))[1]
    assert [index_of(frame.rgb) for frame in frames] == list(range(COUNT))


def test_what_the_encoder_refuses_it_refuses_before_any_work(tmp_path):
    with pytest.raises(MediaError, match=r"a\.mp4.*cannot be written"):
        VideoWriter(tmp_path / "a.mp4", width=100_000, height=2, frame_rate=10)
    assert listing(tmp_path) == []


def test_an_unfinished_output_is_removed(tmp_path):
    with pytest.raises(KeyboardInterrupt), PendingOutput(tmp_path / "a.png") as output:
        output.path.write_text("half")
        raise KeyboardInterrupt
    assert listing(tmp_path) == []


def test_a_frame_that_failed_is_not_left_out(tmp_path, monkeypatch):
    writer = VideoWriter(tmp_path / "a.mp4", width=64, height=48, frame_rate=10)
    writer.write(picture(0))
    monkeypatch.setattr(type(writer._encoder), "add", lambda *_: 1 / 0)
    with pytest.raises(MediaError, match=r"a\.mp4.*division"):
        writer.write(picture(1))
    assert listing(tmp_path) == []
    with pytest.raises(ValueError, match="closed"):
        writer.write(picture(2))


def test_wrong_frames_are_refused(tmp_path):
    with pytest.raises(ValueError, match="48x64x3"):
        write(tmp_path / "a.mp4", [picture(0), picture(0, 32, 32)])
    with pytest.raises(ValueError, match="not after"):
        write(tmp_path / "a.mp4", [picture(0), picture(1)], [Fraction(1), Fraction(1)])
    with pytest.raises(MediaError, match="no frames"):
        VideoWriter(tmp_path / "a.mp4", width=64, height=48, frame_rate=10).close()
    for wrong in ({"width": 0}, {"height": -1}, {"frame_rate": 0}, {"frame_rate": float("nan")}, {"frame_rate": 1e9}):
        with pytest.raises(ValueError, match=r"a\.mp4"):
            VideoWriter(tmp_path / "a.mp4", **({"width": 64, "height": 48, "frame_rate": 10} | wrong))
    assert listing(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").touch()
    (tmp_path / "old.mp4").touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    before = listing(tmp_path)
    for path, words in {
        "none/a.mp4": "does not exist",
        "old.mp4/a.mp4": "does not exist",
        "full/": "empty folder",
        "full": "empty folder",
        "pipe.mp4": "regular file",
    }.items():
        with pytest.raises(MediaError, match=words):
            check_writable(f"{tmp_path}/{path}")
        with pytest.raises(MediaError, match=words):
            write(f"{tmp_path}/{path}")
    with pytest.raises(MediaError, match="exists already"):
        write(tmp_path / "old.mp4", overwrite=False)
    with pytest.raises(MediaError, match="local files"):
        check_writable("http://example.org/a.mp4")
    with pytest.raises(MediaError, match=r"/proc/a\.mp4"):  # a folder where not even root may write
        check_writable("/proc/a.mp4")
    for name in ("a.txt", "a", "a.mp4.bak", ".mp4"):
        with pytest.raises(ValueError, match=r"\.mp4, \.mov, \.mkv, \.webm, \.gif, a folder"):
            check_writable(tmp_path / name, VIDEO_SUFFIXES)
        with pytest.raises(ValueError, match=r"\.webm"):
            write(tmp_path / name)
    check_writable(tmp_path / "new.mp4", VIDEO_SUFFIXES)
    check_writable(f"{tmp_path}/new/", VIDEO_SUFFIXES)
    assert listing(tmp_path) == before


def test_an_output_that_is_an_input_is_refused(tmp_path):
    source = make_video(tmp_path / "a.mp4")
    (tmp_path / "link.mp4").symlink_to(source)
    os.link(source, tmp_path / "hard.mp4")
    for name in ("a.mp4", "link.mp4", "hard.mp4"):
        with pytest.raises(ValueError, match=f"{name}.*also an input"):
            check_output(tmp_path / name, [tmp_path / "gone.mp4", source])
    check_output(tmp_path / "new.mp4", [source])


def test_links_and_modes_of_the_target(tmp_path):
    (tmp_path / "real.mp4").touch()
    (tmp_path / "link.mp4").symlink_to("real.mp4")
    write(tmp_path / "link.mp4")
    assert (tmp_path / "link.mp4").is_symlink()
    assert read(tmp_path / "real.mp4")[0].frame_count == COUNT
    (tmp_path / "plain").touch()  # the usual permissions, not those of a private temporary file
    assert (tmp_path / "real.mp4").stat().st_mode == (tmp_path / "plain").stat().st_mode
