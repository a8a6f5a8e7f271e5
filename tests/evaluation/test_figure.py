"""The picture of edits over their right answers."""

import json

import numpy as np

from gen1_jax.cli import main
from gen1_jax.evaluation.figure import _GAP, _SHOWN
from gen1_jax.evaluation.worlds import Worlds
from gen1_jax.media import read_image
from gen1_jax.pretrained.family import TINY

SCENES, EDITS = 2, 3


def test_edits_stand_over_the_answers_that_the_benchmark_scores_them_against(tmp_path, capsys):
    path = tmp_path / "figure.png"
    assert main(["evaluate", "--model", "tiny", "--figure", str(path), "--steps", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    picture = read_image(path)
    height, width = TINY.height, _SHOWN * TINY.width
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
