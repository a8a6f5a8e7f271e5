"""The picture of edits over their right answers."""

import json

import numpy as np

from gen1_jax.cli import main
from gen1_jax.evaluation.figure import _GAP, _STILLS, Figure
from gen1_jax.evaluation.worlds import FRAME_RATE, Worlds
from gen1_jax.media import open_video, read_image
from gen1_jax.pretrained.family import TINY

SCENES, EDITS = 2, 3


def test_edits_stand_over_the_answers_that_the_benchmark_scores_them_against(tmp_path, capsys):
    path = tmp_path / "figure.png"
    assert main(["evaluate", "--model", "tiny", "--figure", str(path), "--steps", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    picture = read_image(path)
    height, width = TINY.height, _STILLS * TINY.width
    step = width + _GAP
    assert picture.shape == ((2 * SCENES) * height + 2 * _GAP * (SCENES - 1), (EDITS + 1) * step - _GAP, 3)

    worlds = Worlds(SCENES, frames=TINY.num_frames, height=TINY.height, width=TINY.width)
    assert [prompts[0] for prompts in told["prompts"]] == list(worlds.prompts)
    for scene in range(SCENES):
        top = scene * (2 * height + 2 * _GAP)
        first = TINY.width
        assert np.array_equal(picture[top : top + height, :first], worlds.clips.source[scene, 0])
        answer = picture[top + height : top + 2 * height, step : step + first]
        assert np.array_equal(answer, worlds.clips.answer[scene, 0])
        assert not np.array_equal(picture[top : top + height, step : step + first], answer)


def test_wrong_input_is_one_line(tmp_path, capsys):
    for arguments, message in (
        ([], "name --out DIR for the report, or --figure FILE.jpg for a picture"),
        (["--figure", str(tmp_path / "figure.bmp")], ".png"),
        (["--figure", str(tmp_path / "absent" / "figure.png")], "absent"),
    ):
        assert main(["evaluate", "--model", "tiny", *arguments]) == 2
        (line,) = [x for x in capsys.readouterr().err.splitlines() if "warning" not in x]
        assert line.startswith("gen1: ") and message in line


def test_a_moving_figure_runs_all_clips_side_by_side(tmp_path, monkeypatch, capsys):
    """Two scenes of 2 + 2 clips; the command asks for twice the frames that the model sees at once."""
    rng = np.random.default_rng(0)
    asked = {}

    def draw(pipeline, settings, *, frames, seed, progress):
        asked["frames"] = frames
        return Figure(list(rng.integers(0, 256, (4, 2, frames, 6, 8, 3), np.uint8)), [["a"], ["b"]])

    monkeypatch.setattr("gen1_jax.evaluation.figure.draw_figure", draw)
    for name in ("figure.webp", "figure.gif"):
        path = tmp_path / name
        assert main(["evaluate", "--model", "tiny", "--figure", str(path), "--json"]) == 0
        with open_video(path) as reader:
            shown = list(reader)
            assert len(shown) == asked["frames"] == 2 * TINY.num_frames
            assert abs(float(shown[-1].time) - (len(shown) - 1) / FRAME_RATE) < 0.011  # a GIF's clock ticks 100 times
        assert shown[0].rgb.shape == (4 * 6 + 2 * _GAP, 2 * 8 + _GAP, 3)

    figure = draw(None, None, frames=3, seed=0, progress=None)
    moving = figure.moving()
    second_of_scene_2 = moving[:, 18 + 2 * _GAP :, 8 + _GAP :]
    assert np.array_equal(second_of_scene_2, figure.rows[3][1])
    assert (moving[:, 12 : 12 + 2 * _GAP] == 255).all() and (moving[:, :, 8 : 8 + _GAP] == 255).all()
    assert np.array_equal(figure.still()[:6, :24].reshape(6, 3, 8, 3).swapaxes(0, 1), figure.rows[0][0])
