"""The benchmarks of `gen1 evaluate` that render clips of any length."""

import json

import pytest

from gen1_jax.cli import main
from gen1_jax.commands.clip_benchmarks import CLIP_BENCHMARKS, ClipBenchmark
from gen1_jax.errors import UserError
from gen1_jax.evaluation import worlds

RENDERED = []


class Other(ClipBenchmark):
    """A benchmark that nobody knew of."""

    frames, options = 5, ("lpips",)

    def size(self, pipeline):
        if self.args.judge:
            raise UserError("there is no judge")
        height, width = super().size(pipeline)
        return height, 2 * width

    def measure(self, pipeline, worlds, told):
        told(1, 1)
        return {"measured": [worlds["frames"], worlds["width"] / worlds["height"]]}

    def lines(self, scores):
        return ["a table", *map(str, scores["measured"])]


@pytest.fixture
def evaluate(monkeypatch, tiny_model):
    RENDERED.clear()
    monkeypatch.setitem(CLIP_BENCHMARKS, "other", Other)
    monkeypatch.setattr(worlds, "Worlds", lambda clips, progress, **size: RENDERED.append(size) or size)
    return lambda *options: main(["evaluate", "--benchmark", "other", "--model", str(tiny_model), *options])


def test_another_is_an_entry(evaluate, capsys):
    assert evaluate("--clips", "1", "--json", "--lpips") == 0
    assert json.loads(capsys.readouterr().out) == {"measured": [5, 2]}
    assert evaluate("--clips", "1", "--frames", "3") == 0
    assert capsys.readouterr().out.splitlines()[-3:] == ["a table", "3", "2.0"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--frames", "1"], "--frames must be at least 2, got 1"),
        (["--clips", "0"], "--clips must be at least 1, got 0"),
        (["--judge", "none"], "there is no judge"),
        (["--fvd"], "--fvd is for edits that are there already"),
        (["--propagate", "2"], "--propagate is measured by --benchmark long and upscaling alone"),
    ],
)
def test_what_is_wrong_is_a_line_before_anything_is_rendered(evaluate, capsys, options, line):
    assert evaluate(*options) == 2
    assert line in capsys.readouterr().err and not RENDERED
