"""How loud a clip is while each of its frames is shown."""

from fractions import Fraction

import av
import numpy as np
import pytest
from media_files import make_video

from gen1_jax.media import loudness, open_video


def test_a_clip_is_as_loud_as_its_sound_in_each_frame(tmp_path):
    path = tmp_path / "rising.mkv"
    with av.open(str(path), "w") as file:
        pictures, sound = file.add_stream("ffv1", rate=10), file.add_stream("flac", rate=48_000, layout="mono")
        pictures.width = pictures.height = 16
        pictures.pix_fmt = "yuv420p"
        for index in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), index, np.uint8))
            file.mux(pictures.encode(frame))
        t = np.arange(48_000) / 48_000
        wave = np.sin(2 * np.pi * 440 * t) * np.floor(t * 10) / 10  # silent, then louder by a tenth with each frame
        for at in range(0, len(wave), 1200):
            piece = (wave[None, at : at + 1200] * 32_000).astype(np.int16)
            heard = av.AudioFrame.from_ndarray(piece, "s16", "mono")
            heard.sample_rate, heard.pts, heard.time_base = 48_000, at, Fraction(1, 48_000)
            file.mux(sound.encode(heard))
        file.mux(pictures.encode(None))
        file.mux(sound.encode(None))
    with open_video(path, start=2, frames=6) as reader:
        times = [frame.time for frame in reader]
    found = loudness(path, times, times[-1] + Fraction(1, 10))
    np.testing.assert_allclose(found, np.arange(2, 8) / 7, atol=0.02)


@pytest.mark.parametrize("name", ["silent.mp4", "folder"])
def test_what_has_no_sound_has_no_loudness(tmp_path, name):
    path = tmp_path / name
    path.mkdir() if name == "folder" else make_video(path)
    assert loudness(path, [Fraction(0)], Fraction(1)) is None
