import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from small_sets import frames_of

from gen1_jax.data.codec import (
    cover_size,
    decode_depth,
    decode_maps,
    encode_depth,
    encode_maps,
    encode_video,
    inverse_depth,
)
from gen1_jax.media import VideoWriter
from gen1_jax.media.windows import open_windows


def window(video, *args, **more):
    with open_windows(video) as file:
        return file.window(*args, **more)


def close(a, b, tolerance=4):
    return np.abs(a.astype(int) - b).max() <= tolerance


@settings(max_examples=40, deadline=None)
@given(
    arrays.arrays(
        np.float32, arrays.array_shapes(min_dims=3, max_dims=3, max_side=9), elements=st.floats(0.125, 100, width=32)
    )
)
def test_depth_comes_back_to_16_bits(depth):
    data, limits = encode_depth(depth)
    inverse = inverse_depth(data, depth.shape, limits)
    assert np.abs(inverse - 1 / depth.astype(np.float64)).max() <= 0.51 / 65535 * (limits[1] - limits[0]) + 1e-6
    codes = decode_depth(data, depth.shape)
    assert codes.min() == 0 and codes.max() == (65535 if limits[1] > limits[0] else 0)


@settings(max_examples=40, deadline=None)
@given(
    arrays.arrays(
        np.float32, arrays.array_shapes(min_dims=4, max_dims=4, max_side=6), elements=st.floats(-100, 100, width=32)
    )
)
def test_maps_come_back_to_16_bits(maps):
    found = decode_maps(encode_maps(maps), maps.shape[:3])
    assert found.shape == maps.shape and found.dtype == np.float32
    assert np.abs(found - maps.astype(np.float64)).max() <= 0.51 / 65535 * np.ptp(maps.astype(np.float64)) + 1e-5


def test_damaged_depth_is_an_error():
    data, _ = encode_depth(np.linspace(1, 2, 60, dtype=np.float32).reshape(3, 4, 5))
    with pytest.raises(ValueError, match="damaged"):
        decode_depth(data[:10] + b"x" + data[11:], (3, 4, 5))
    maps = encode_maps(np.linspace(1, 2, 60, dtype=np.float32).reshape(3, 4, 5, 1))
    with pytest.raises(ValueError, match="damaged"):
        decode_maps(maps[:26] + b"x" + maps[27:], (3, 4, 5))
    with pytest.raises(ValueError):
        decode_depth(data, (3, 4, 6))


def test_a_plane_costs_next_to_nothing():
    rows, columns = np.mgrid[:128, :128]
    depth = (1 / (0.1 + 0.001 * rows + 0.002 * columns)).astype(np.float32)
    assert len(encode_depth(np.broadcast_to(depth, (8, 128, 128)).copy())[0]) < 0.12 * 8 * 128 * 128 * 2


@pytest.mark.parametrize("pixel_format, tolerance", [("yuv420p", 10), ("yuv444p", 4)])
def test_video_comes_back(pixel_format, tolerance):
    frames = frames_of(3)
    video = encode_video(frames, 8.0, pixel_format=pixel_format, crf=1)
    with open_windows(video) as file:
        assert (file.frames, file.height, file.width, file.frame_rate) == (6, 32, 48, 8.0)
        assert close(file.window(0, 6, 1), frames, tolerance)
        assert file.window(0, 6, 1)[:, :, ::-1].tolist() == file.window(0, 6, 1, mirrored=True).tolist()
    assert encode_video(frames, 8.0, pixel_format=pixel_format, crf=1) == video
    assert close(window(video, 1, 2, 3), frames[1::3], tolerance + 6)
    assert close(window(video, 0, 6, 1, mirrored=True), frames[:, :, ::-1], tolerance)
    assert close(window(video, 2, 1, 1, size=(16, 24)), frames[2:3, ::2, ::2], 12)


def test_windows_beyond_the_end_are_errors():
    video = encode_video(frames_of(0), 8.0)
    with pytest.raises(ValueError, match="ends after 2 of 3 frames from frame 4"):
        window(video, 4, 3, 1)


def test_bytes_and_files_give_the_same(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(encode_video(frames_of(5), 8.0))
    assert np.array_equal(window(path, 0, 6, 1), window(path.read_bytes(), 0, 6, 1))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_a_late_window_is_found_by_seeking(tmp_path, suffix):
    path = tmp_path / f"long{suffix}"
    frames = [np.full((32, 32, 3), 20 + 37 * index % 200, np.uint8) for index in range(120)]
    with VideoWriter(path, width=32, height=32, frame_rate=10) as writer:
        for frame in frames:
            writer.write(frame)
    with open_windows(path) as file:
        count = file.frames
    assert abs(count - 120) <= 1
    for start in (30, 63, 111):
        shown = window(path, start, 4, 2)
        assert close(shown, np.stack(frames[start : start + 8 : 2]), 9)


def test_a_file_without_pictures_is_an_error(tmp_path):
    with pytest.raises((OSError, ValueError)):
        open_windows(b"no video at all" * 10)


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(1, 500), st.integers(1, 500))
def test_covering_sizes_cover_as_little_as_can_be(height, width, rows, columns):
    covering = cover_size(height, width, (rows, columns))
    assert covering[0] >= rows and covering[1] >= columns
    assert covering[0] == rows or covering[1] == columns
    if min(covering) > 20:
        assert abs(np.log(covering[0] / covering[1] * width / height)) < 0.1
