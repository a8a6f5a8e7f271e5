"""What people hand to an edit, and what they get to know of it."""

import re

import numpy as np
import pytest
from PIL import Image

import gen1_jax
from gen1_jax.cli import main
from gen1_jax.editing.inputs import to_frames, to_picture
from gen1_jax.editing.progress import _Lines
from gen1_jax.errors import UserError
from gen1_jax.pretrained.folder import AssembledModel, open_model
from gen1_jax.pretrained.words import read_words, unknown_words, words_of
from gen1_jax.synthetic import captions
from gen1_jax.synthetic.content import sample_content
from gen1_jax.synthetic.sampling import sample_structure

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 12, 16, 3), np.uint8)


def test_every_form_of_a_clip_is_the_same_clip(tmp_path):
    pictures = [Image.fromarray(frame) for frame in FRAMES]
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, picture in enumerate(pictures):
        picture.save(folder / f"{index}.png")
    for form in (FRAMES, list(FRAMES), tuple(pictures), [pictures[0], *FRAMES[1:]], folder, str(folder)):
        np.testing.assert_array_equal(to_frames(form), FRAMES)
    np.testing.assert_array_equal(to_frames(pictures[1]), FRAMES[1:2])
    for form in (FRAMES[0], pictures[0], str(folder / "0.png"), folder / "0.png"):
        np.testing.assert_array_equal(to_picture(form), FRAMES[0])


def test_pictures_of_pil_are_read_as_files_are():
    """Turned upright, and their transparent parts not of the colour that is hidden there."""
    turned = Image.fromarray(FRAMES[0])
    turned.getexif()[0x0112] = 6
    np.testing.assert_array_equal(to_picture(turned), np.rot90(FRAMES[0], -1))
    clear = Image.fromarray(np.concatenate([FRAMES[0], np.zeros((12, 16, 1), np.uint8)], axis=-1))
    assert len(np.unique(to_picture(clear))) == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([], "the path of a video, got list"),
        (None, "got NoneType"),
        (3, "got int"),
        ([FRAMES[0], FRAMES[0][:6]], "one size, got 16x6 and 16x12"),
        ([FRAMES[0].astype(float)], r"a frame must be uint8 \(H, W, 3\), got float64"),
        (FRAMES[..., :1], r"uint8 \(T, H, W, 3\)"),
        ("nowhere.mp4", "nowhere.mp4"),
    ],
)
def test_what_is_no_clip_is_named(wrong, said):
    with pytest.raises(UserError, match=said):
        to_frames(wrong)


def test_the_package_names_what_it_has():
    assert {"load_video", "save_video", "Gen1Pipeline", "EditResult", "diffusion"} <= set(dir(gen1_jax))
    assert all(getattr(gen1_jax, name) is not None for name in gen1_jax.__all__)


def test_a_saved_video_loads_and_has_the_rate_of_another(tmp_path):
    frames = np.repeat(np.arange(0, 240, 40, np.uint8), 32 * 48 * 3).reshape(6, 32, 48, 3)
    gen1_jax.save_video(frames, tmp_path / "five.mkv", 5)
    gen1_jax.save_video(frames[:4], tmp_path / "like.mkv", like=tmp_path / "five.mkv")
    from gen1_jax.media import open_video

    with open_video(tmp_path / "like.mkv") as reader:
        assert reader.info.frame_rate == 5
    assert np.abs(gen1_jax.load_video(tmp_path / "five.mkv").astype(int) - frames).max() < 8
    assert len(gen1_jax.load_video(tmp_path / "five.mkv", start=1, stride=2)) == 3


def test_every_word_of_every_caption_is_known():
    known = read_words(open_model("nano").path)
    assert known == captions.words()
    for seed in range(100):
        structure = sample_structure(seed)
        content = sample_content(seed, structure)
        assert set(words_of(captions.caption(content, structure, seed=seed))) <= known


def test_unknown_words_are_those_of_the_prompt():
    assert unknown_words("Godzilla in the snow, qwerty's Snow 42 naïve", {"in", "the", "snow", "s"}) == [
        "Godzilla",
        "qwerty",
        "naïve",
    ]
    assert unknown_words("Godzilla", None) == []


def test_words_go_with_the_networks_that_read_them():
    nano, other = open_model("nano"), open_model("nano")
    other.words = None
    assert AssembledModel(nano, {"vae": other}).words == nano.words
    assert AssembledModel(nano, {"prior": other}).words is None


def test_a_model_lists_its_words(capsys):
    assert main(["info", "nano", "--words"]) == 0
    assert "watercolour" in capsys.readouterr().out.splitlines()
    assert main(["info", "tiny", "--words"]) == 2
    assert "tiny does not say which words" in capsys.readouterr().err


def test_without_a_terminal_work_tells_of_itself(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    lines = _Lines()
    lines("depth", 8, 8)
    now[0] = 3
    lines("compiling", 0, 1)
    for step in range(1, 21):
        now[0] += 1
        lines("sampling", step, 20)
    said = capsys.readouterr().err.splitlines()
    assert said == ["compile ...", "sample: 5 of 20", "sample: 10 of 20", "sample: 15 of 20", "sample: 20 of 20"]
    assert not re.search(r"[\r\x1b]", "".join(said))
