"""Random access shows what `open_video` shows, from whatever container, wherever the window lies."""

import os
import shutil
from fractions import Fraction

import av
import numpy as np
import pytest
from media_files import COUNT, UPRIGHT, flat, index_of, make_video, patch_matrix, picture, remux
from PIL import Image
from test_media_reading import KINDS

from gen1_jax.media import Limits, MediaError, VideoWriter, frame_index, open_video
from gen1_jax.media.frame_index import known_size, read_index
from gen1_jax.media.windows import StaleIndex, open_windows

LONG = [picture(i % 10) for i in range(40)]
B_FRAMES = {"g": "12", "bf": "3", "x264-params": "scenecut=0:open-gop=1:b-pyramid=normal"}


def shown(path):
    with open_video(path) as reader:
        return np.stack([frame.rgb for frame in reader])


def window(video, *args, **more):
    with open_windows(video) as reader:
        return reader.window(*args, **more)


@pytest.mark.parametrize("name", KINDS)
def test_windows_of_every_container(tmp_path, name):
    codec, pixel_format, options = KINDS[name]
    path = make_video(tmp_path / name, codec, pixel_format, **options)
    frames = shown(path)
    for video in (path, path.read_bytes()):
        with open_windows(video) as reader:
            assert (reader.frames, reader.height, reader.width) == (COUNT, *frames.shape[1:3])
            for start, count, stride in ((6, 2, 3), (0, COUNT, 1), (9, 1, 1), (3, 2, 2)):
                assert np.array_equal(reader.window(start, count, stride), frames[start::stride][:count])
            assert np.array_equal(reader.window(1, 2, 1, mirrored=True), frames[1:3, :, ::-1])


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv", "long.ts", "long.flv"])
def test_late_windows_are_found_by_key_frames(tmp_path, name):
    path = make_video(tmp_path / name, frames=LONG, options=B_FRAMES)
    frames = shown(path)
    with open_windows(path) as reader:
        assert reader.frames == 40 and len(reader.index.keys) >= 3
        for start in (39, 11, 12, 13, 25, 36, 0, 23):
            count = min(3, 40 - start)
            assert np.array_equal(reader.window(start, count, 1), frames[start : start + count]), start


def test_a_window_does_not_decode_from_the_start(tmp_path, monkeypatch):
    path = make_video(tmp_path / "a.mp4", frames=LONG, options=B_FRAMES)
    with open_windows(path) as reader:
        decoded = []
        monkeypatch.setattr(reader, "_decode", lambda *args, old=reader._decode: map(decoded.append, old(*args)))
        assert reader._fill(np.empty((2, 48, 64, 3), np.uint8), reader.index.times[30:32].tolist(), 0, False) is False
    with open_windows(path) as reader:
        times = reader.index.times
        came = [frame.pts for frame in reader._decode(24, set(times[30:32].tolist()))]
    assert (
        min(came) >= times[20] and len(came) <= 16
    )  # and of those between few: frames that none refers to are skipped


@pytest.mark.parametrize("matrix", UPRIGHT, ids=str)
def test_rotation_and_mirroring(tmp_path, matrix):
    path = patch_matrix(make_video(tmp_path / "phone.mp4"), *matrix)
    frames = shown(path)
    with open_windows(path) as reader:
        assert (reader.height, reader.width) == frames.shape[1:3] == known_size(path, path, Limits())
        assert np.array_equal(reader.window(2, 3, 2), frames[2:7:2])
        size = tuple(side // 2 for side in frames.shape[1:3])
        small = reader.window(4, 1, 1, size)[0].astype(int)
    expected = frames[4].astype(int).reshape(size[0], 2, size[1], 2, 3).mean((1, 3))
    assert np.median(np.abs(small - expected)) <= 2 and index_of(small) == index_of(frames[4])


@pytest.mark.parametrize(("aspect", "size"), [(Fraction(4, 3), (48, 85)), (Fraction(1, 2), (96, 64))])
def test_pixels_become_square(tmp_path, aspect, size):
    with VideoWriter(tmp_path / "a.mp4", width=64, height=48, frame_rate=10, sample_aspect_ratio=aspect) as out:
        for index in range(3):
            out.write(picture(index))
    path = tmp_path / "a.mp4"
    with open_windows(path) as reader:
        assert (reader.height, reader.width) == size == known_size(path, path, Limits())
        assert [index_of(rgb) for rgb in reader.window(0, 3, 1)] == [0, 1, 2]
        assert reader.window(0, 1, 1).shape[1:3] == size
    patch_matrix(path, 0, 1, -1, 0)
    with open_windows(path) as reader:
        assert (reader.height, reader.width) == size[::-1]


@pytest.mark.parametrize("size", [(1280, 16), (96, 64)])
@pytest.mark.parametrize("matrix", [2, 1, 6])
def test_colours_are_those_of_open_video(tmp_path, size, matrix):
    """Untagged ones are BT.709 from HD on, scaled or not."""
    path = flat(tmp_path / "flat.mkv", "ffv1", "yuv420p", (100, 128, 160), size=size, matrix=matrix)
    expected = shown(path)[0, 8, 8].astype(int)
    assert np.abs(window(path, 0, 1, 1)[0, 8, 8] - expected).max() == 0
    assert np.abs(window(path, 0, 1, 1, (8, 20))[0, 4, 4] - expected).max() <= 2


@pytest.mark.parametrize("codec", ["libvpx-vp9", "libvpx"])
def test_transparent_frames_lie_over_black(tmp_path, codec):
    """Also where the tag is in capitals, as FFmpeg's own files have it."""
    path = tmp_path / "clear.webm"
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=10, options={"g": "4", "auto-alt-ref": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuva420p"
        stream.metadata["alpha_mode"] = "1"
        for index in range(COUNT):
            rgba = np.dstack([picture(index), np.full((48, 64), 128, np.uint8)])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, "rgba").reformat(format="yuva420p")))
        out.mux(stream.encode(None))
    frames = shown(path)
    assert np.abs(frames[5].astype(int) - picture(5) // 2)[4:20, 4:28].max() < 12
    with open_windows(path) as reader:
        for start in (0, 7, 3):
            assert np.array_equal(reader.window(start, 3, 1), frames[start : start + 3])


def test_edit_lists_hide_frames(tmp_path):
    path = make_video(tmp_path / "whole.mp4", frames=LONG, options=B_FRAMES)
    cut = remux(path, tmp_path / "cut.mp4", lambda time: time - Fraction(35, 100))
    with av.open(str(cut)) as file:
        assert file.streams.video[0].frames == 40  # as the header says
    frames = shown(cut)
    with open_windows(cut) as reader:
        assert reader.frames == len(frames) == 36
        for start in (0, 7, 33):
            assert np.array_equal(reader.window(start, 3, 1), frames[start : start + 3])
        with pytest.raises(MediaError, match="ends after 2 of 3 frames from frame 34 on"):
            reader.window(34, 3, 1)


@pytest.mark.parametrize("name", ["uneven.mp4", "uneven.mkv"])
def test_uneven_times(tmp_path, name):
    """By its average rate, window and frames would lie far apart."""
    times = [Fraction(i * i, 100) for i in range(40)]
    path = make_video(tmp_path / name, frames=LONG, times=times, options={"g": "8"})
    frames = shown(path)
    with open_windows(path) as reader:
        assert reader.frames == 40
        for start in (0, 17, 35):
            assert np.array_equal(reader.window(start, 3, 2), frames[start : start + 5 : 2])


def test_frames_that_change_size_are_scaled_to_the_first(tmp_path):
    options = {"bf": "0", "x264-params": "aud=1"}
    parts = [make_video(tmp_path / "a.h264", options=options)]
    parts.append(make_video(tmp_path / "b.h264", options=options, frames=[picture(i, 128, 96) for i in range(COUNT)]))
    path = tmp_path / "both.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with open_windows(path) as reader:
        assert reader.frames == 2 * COUNT
        for start in (8, 15):
            assert np.array_equal(reader.window(start, 4, 1), shown(path)[start : start + 4])


@pytest.mark.parametrize("name", ["long_sound.mkv", "long_sound.webm"])
def test_sound_that_is_longer_than_the_pictures(tmp_path, name):
    codec, kind = {"mkv": ("libx264", "mp4"), "webm": ("libvpx-vp9", "webm")}[name.split(".")[1]]
    path = remux(make_video(tmp_path / f"silent.{kind}", codec), tmp_path / name, sound=4)
    with open_windows(path) as reader:
        assert reader.frames == COUNT
        assert [index_of(rgb) for rgb in reader.window(8, 2, 1)] == [8, 9]


def test_an_index_is_kept_while_the_file_stays_the_same(tmp_path, monkeypatch):
    path, folder = make_video(tmp_path / "a.mp4"), tmp_path / ".gen1_index"
    first = read_index(path, path, Limits(), folder)
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr(frame_index, "_memory", frame_index._Memory())
    monkeypatch.setattr(frame_index, "_indexed", None)
    again = read_index(path, path, Limits(), folder)
    assert np.array_equal(again.times, first.times) and again.displayed_size == first.displayed_size
    monkeypatch.undo()
    make_video(path, frames=LONG)
    assert len(read_index(path, path, Limits(), folder).times) == 40
    (entry,) = folder.iterdir()
    entry.write_bytes(b"nonsense")
    monkeypatch.setattr(frame_index, "_memory", frame_index._Memory())
    assert len(read_index(path, path, Limits(), folder).times) == 40
    shutil.rmtree(folder)
    os.chmod(tmp_path, 0o555)  # read-only, also for those who could write
    try:
        os.utime(path)
        assert len(read_index(path, path, Limits(), folder).times) == 40 and not folder.exists()
    finally:
        os.chmod(tmp_path, 0o755)


def test_a_wrong_index_is_noticed_and_made_anew(tmp_path, monkeypatch):
    """As packets that give no frame would make it."""
    path = make_video(tmp_path / "a.mp4", frames=LONG, options={"g": "10", "bf": "0"})
    with open_windows(path) as reader:
        times = reader.index.times
    false = np.sort(np.append(times, times[30] + 1))
    index = frame_index.FrameIndex(64, 48, Fraction(1), false, np.array([0]))
    monkeypatch.setattr(frame_index, "_indexed", lambda *_: index)
    monkeypatch.setattr(frame_index, "_memory", frame_index._Memory())
    with open_windows(path) as reader:
        assert reader.frames == 41 and reader.window(5, 2, 1).shape[0] == 2
        with pytest.raises(StaleIndex):
            reader.window(30, 3, 1)
        reader.recount()
        assert reader.frames == 40 and np.array_equal(reader.window(30, 3, 1), shown(path)[30:33])


def test_a_clip_of_our_own_needs_no_index(tmp_path, monkeypatch):
    path = make_video(tmp_path / "a.mp4", options={"bf": "0"})
    data = path.read_bytes()
    monkeypatch.setattr("gen1_jax.media.windows.read_index", None)
    with open_windows(data, frames=COUNT) as reader:
        assert [index_of(rgb) for rgb in reader.window(3, 3, 2)] == [3, 5, 7]
    monkeypatch.undo()
    with open_windows(patch_matrix(path, 0, 1, -1, 0).read_bytes(), frames=COUNT) as reader:
        assert reader.whole().shape == (COUNT, 64, 48, 3)  # it was none of ours, after all


def test_a_picture_that_is_called_a_video(tmp_path):
    Image.fromarray(picture(0)).save(tmp_path / "a.mp4", "PNG")
    with pytest.raises(MediaError, match=r"a\.mp4: is a picture, not a video"):
        open_windows(tmp_path / "a.mp4")


SCRIPTS = {
    "concat.mp4": "ffconcat version 1.0\nfile secret.ts\n",
    "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n",
    "words.mkv": "These are words. " * 99,
    "empty.mp4": "",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_refers_to_other_files_is_refused(tmp_path, name):
    make_video(tmp_path / "secret.ts")
    path = tmp_path / name
    path.write_text(SCRIPTS[name])
    for video in (path, path.read_bytes()):
        with pytest.raises(MediaError):
            open_windows(video)


def test_limits_name_options_only_where_there_are_some(tmp_path):
    path = make_video(tmp_path / "a.mp4")
    with pytest.raises(MediaError, match=r"a\.mp4: frames of 64x48 .* raise --max-pixels"):
        open_windows(path, limits=Limits(max_pixels=999))
    with pytest.raises(MediaError, match=r"scale it down\.$"):
        open_windows(path, limits=Limits(max_pixels=999, options=False))
    with pytest.raises(MediaError, match=r"cut it\.$"):
        open_windows(path, limits=Limits(max_bytes=9, options=False))


def test_damage_is_told_where_it_lies(tmp_path):
    path = make_video(tmp_path / "a.mp4", frames=LONG, options={"g": "10", "bf": "0"})
    with av.open(str(path)) as file:
        packets = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    at, size = packets[25]
    data[at + 5 : at + size] = bytes(size - 5)
    path.write_bytes(data)
    with open_windows(path) as reader:
        assert reader.window(2, 4, 1).shape[0] == reader.window(32, 4, 1).shape[0] == 4
        with pytest.raises(MediaError, match="damaged"):
            try:
                reader.window(24, 4, 1)
            except StaleIndex:
                reader.recount()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match="truncated"):
        open_windows(path)
