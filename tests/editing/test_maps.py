"""Ready maps: which frames of which file, at which size, and what is refused."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from gen1_jax.editing.maps import ClipGeometry, kind_and_path, ready_maps
from gen1_jax.errors import UserError
from gen1_jax.media import MediaError, Part
from gen1_jax.models.structure import structure_kind

DEPTH, POSE, SEG = map(structure_kind, ("depth", "openpose", "seg"))
LEVELS = np.arange(10, dtype=np.uint8) * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten grey pictures of 16x12, each brighter than the one before."""
    folder = tmp_path_factory.mktemp("maps")
    for index, level in enumerate(LEVELS):
        Image.fromarray(np.full((12, 16, 3), level, np.uint8)).save(folder / f"{index}.png")
    return folder


def levels(maps):
    return np.rint((maps[:, 0, 0, 0] + 1) * 127.5).astype(int).tolist()


def test_maps_for_every_frame(folder):
    whole = ready_maps(folder, DEPTH, 10, (6, 8), ClipGeometry(shape=(120, 160)))
    assert whole.shape == (10, 6, 8, 1) and whole.dtype == np.float32 and levels(whole) == LEVELS.tolist()
    one = ready_maps(folder / "3.png", DEPTH, 4, (6, 8))
    assert levels(one) == [60] * 4
    pictures = [Image.open(folder / f"{i}.png") for i in range(10)]
    np.testing.assert_array_equal(ready_maps(pictures, DEPTH, 10, (6, 8)), whole)
    assert ready_maps(pictures[0], POSE, 3, (6, 8)).shape == (3, 6, 8, 3)


def test_a_longer_file_gives_the_part_that_is_edited(folder):
    at = lambda **part: levels(
        ready_maps(folder, DEPTH, 3, (6, 8), ClipGeometry(part=Part(**part), frame_rate=Fraction(2)))
    )
    assert at(start=4) == [80, 100, 120]
    assert at(start=Fraction(1), stride=2) == [40, 80, 120]  # at two frames a second
    assert at(start=1, rate=Fraction(1)) == [20, 60, 100]
    assert at(frames=3) == [0, 20, 40]
    whole = ready_maps(folder, DEPTH, 10, (6, 8), ClipGeometry(part=Part(start=2, duration=10)))
    assert levels(whole) == LEVELS.tolist()  # as many as the clip: made of the part already
    with pytest.warns(UserWarning, match="more frames of depth than the 3 of the clip"):
        assert at() == [0, 20, 40]
    with pytest.raises(UserError, match="has 1 frame of depth for the 3 of the clip; give as many, or one picture"):
        at(start=9)


def test_too_few_are_refused(folder):
    with pytest.raises(UserError, match=r"maps.*: has 10 frames of depth for the 11 of the clip; give as many"):
        ready_maps(folder, DEPTH, 11, (6, 8))
    with pytest.raises(UserError, match=r"^structure_from openpose: has 2 frames"):
        ready_maps(np.zeros((2, 12, 16, 3), np.uint8), POSE, 3, (6, 8))
    with pytest.raises(MediaError, match="nowhere"):
        ready_maps("nowhere.mp4", POSE, 3, (6, 8))


def test_maps_are_means_of_areas_and_labels_stay_labels():
    stripes = np.zeros((1, 8, 8, 3), np.uint8)
    stripes[:, :, ::2] = 200
    np.testing.assert_allclose(ready_maps(stripes, DEPTH, 1, (4, 4)), 100 / 127.5 - 1, atol=1e-6)
    assert set(np.rint((ready_maps(stripes, SEG, 1, (3, 5)) + 1) * 127.5).ravel()) <= {0, 200}
    large = ready_maps(stripes, DEPTH, 1, (8, 32))
    assert len(np.unique(large)) > 2  # no blocks


def test_maps_are_cropped_as_the_clip_is():
    picture = np.zeros((1, 10, 40, 3), np.uint8)
    picture[:, :, 15:25] = 255
    maps = ready_maps(picture, DEPTH, 1, (10, 10), ClipGeometry(shape=(100, 400), crop=(64, 64)))
    assert (maps == 1).all()
    square = ready_maps(
        picture[:, :, 15:25], DEPTH, 1, (10, 10), ClipGeometry(shape=(100, 400), crop=(64, 64))
    )  # cropped before
    np.testing.assert_array_equal(square, maps)
    with pytest.raises(UserError, match="maps of 10x10 would be squeezed for a clip of 400x100"):
        ready_maps(picture[:, :, 15:25], DEPTH, 1, (10, 40), ClipGeometry(shape=(100, 400)))


def test_grey_kinds_refuse_colours():
    coloured = np.zeros((1, 8, 8, 3), np.uint8)
    coloured[..., 0], coloured[..., 2] = 200, 40
    with pytest.raises(UserError, match="maps are in colours, those of depth are grey: near is white"):
        ready_maps(coloured, DEPTH, 2, (8, 8))
    with pytest.raises(UserError, match="those of canny are grey: white edges on black"):
        ready_maps(coloured, structure_kind("canny"), 2, (8, 8))
    assert ready_maps(coloured, POSE, 2, (8, 8)).shape == (2, 8, 8, 3)


def test_the_kind_is_named_before_the_path(tmp_path, monkeypatch):
    assert kind_and_path("openpose=pose.mp4") == ("openpose", "pose.mp4")
    assert kind_and_path("depth=a=b.mp4") == ("depth", "a=b.mp4")
    assert kind_and_path("depth.mp4") == (None, "depth.mp4")
    assert kind_and_path("./a=b.mp4") == (None, "./a=b.mp4")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "take=2.mp4").touch()
    assert kind_and_path("take=2.mp4") == (None, "take=2.mp4")
    with pytest.raises(UserError, match=r"no structure of kind 'poses', only canny, .*openpose"):
        kind_and_path("poses=pose.mp4")
    with pytest.raises(UserError, match="--structure-from depth=: name a video"):
        kind_and_path("depth=")
