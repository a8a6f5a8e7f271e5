"""A note goes into every kind of file that has a place for it, and nothing else is lost for it."""

import av
import numpy as np
import pytest
from PIL import Image

from gen1_jax.media import VideoWriter, open_video, read_note, write_image

NOTE = '{"prompt": "a \\"naïve\\" 車", "seed": 3}'
FRAME = np.full((32, 48, 3), 90, np.uint8)


def write(path, note=NOTE, **more):
    with VideoWriter(path, width=48, height=32, frame_rate=8, note=note, **more) as writer:
        for _ in range(2):
            writer.write(FRAME)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", "/"])
def test_videos_carry_a_note_beside_their_own_metadata(tmp_path, suffix):
    told = {"title": "T", "comment": "C", "artist": "A"}
    path = write(f"{tmp_path}/out{suffix}", metadata=told)
    assert read_note(path) == NOTE
    if suffix != "/":
        with av.open(path) as container:
            found = {key.lower(): value for key, value in container.metadata.items()}
        assert found["title"] == "T" and found["artist"] == "A" and found["comment"].split("\n")[0] == "C"


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_an_edit_of_an_edit_has_its_own_note_alone(tmp_path, suffix):
    first = write(tmp_path / f"first{suffix}", metadata={"comment": "C"})
    with open_video(first) as reader:
        told = reader.info.metadata
    second = write(tmp_path / f"second{suffix}", note="2", metadata=told)
    silent = write(tmp_path / f"silent{suffix}", note=None, metadata=told)
    assert read_note(second) == "2" and read_note(silent) is None
    with av.open(silent) as container:
        assert {key.lower(): value for key, value in container.metadata.items()}["comment"] == "C"


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
def test_pictures_carry_a_note(tmp_path, suffix):
    write_image(tmp_path / f"a{suffix}", FRAME, note=NOTE.encode("ascii", "xmlcharrefreplace").decode())
    assert read_note(tmp_path / f"a{suffix}") == NOTE.encode("ascii", "xmlcharrefreplace").decode()
    write_image(tmp_path / f"b{suffix}", FRAME)
    assert read_note(tmp_path / f"b{suffix}") is None
    Image.fromarray(FRAME).save(tmp_path / f"c{suffix}")
    assert read_note(tmp_path / f"c{suffix}") is None


@pytest.mark.parametrize("suffix", [".jpg", ".mov", ".png", ".mp4", ".webp", ".webm"])
def test_a_note_is_whole_or_left_out_with_a_warning(tmp_path, suffix):
    """Lengths have 16 bits in JPEG, which cannot be written then, and in QuickTime, which FFmpeg writes cut."""
    long, path = "x" * 66_000, f"{tmp_path}/a{suffix}"
    save = write if suffix in (".mov", ".mp4", ".webm") else lambda path, note: write_image(path, FRAME, note=note)
    if suffix in (".jpg", ".mov"):
        with pytest.warns(UserWarning, match="settings are left out.*--sidecar"):
            save(path, note=long)
        assert read_note(path) is None
    else:
        save(path, note=long)
        assert read_note(path) == long
    save(path, note="x" * 50_000)
    assert read_note(path) == "x" * 50_000


def test_gifs_have_no_place_for_one(tmp_path):
    assert read_note(write(tmp_path / "a.gif")) is None
