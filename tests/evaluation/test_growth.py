import pytest

from gen1_jax.cli import main
from gen1_jax.evaluation.growth import Measurements, Point, exponent, growth, render, squared, sweeps

BASE = Point(work="train", frames=8, height=64, width=64, devices=1)
SETTINGS = {"source": "measured", "size": "tiny", "batch": 1, "remat": False, "window": 4, "overlap": 2}


def fake(work, frames, height, width, devices):
    """Three parts of the operations of 32 frames in ten are quadratic; what is longer does not fit."""
    row = {"tflop": 70 * frames / 32 + 30 * (frames / 32) ** 2, "temporary_bytes": 2**30 * frames}
    return row | ({"seconds": frames**1.5} if frames <= 32 else {"error": "out of memory"})


def test_exponents_are_those_of_the_figures():
    axes = sweeps(BASE, [32, 8, 16, 64, 8], [(64, 64)], [])
    assert list(axes) == ["frames"] and [point.frames for point in axes["frames"]] == [8, 16, 32, 64]
    *rows, fit = growth(Measurements(fake, SETTINGS), axes)
    assert rows[0]["exponents"] == {"seconds": None, "tflop": None, "temporary_bytes": None}
    assert rows[1]["exponents"]["seconds"] == pytest.approx(1.5)
    assert rows[3]["exponents"]["seconds"] is None and rows[3]["exponents"]["temporary_bytes"] == pytest.approx(1)
    assert fit["fit"]["seconds"] == pytest.approx(1.5) and 1 < fit["fit"]["tflop"] < 2
    assert fit["squared"] == pytest.approx(120 / 260)
    assert "out of memory" in render(rows[3]) and "frames^1.50" in render(fit) and "46%" in render(fit)
    assert squared(rows[:2]) is None and exponent(rows[:1], "tflop") is None


def test_what_was_measured_is_not_measured_again(tmp_path):
    def until(last):
        def measure(**point):
            if point["frames"] > last:
                raise KeyboardInterrupt
            return fake(**point)

        return measure

    path, axes = tmp_path / "growth.jsonl", sweeps(BASE, [8, 16, 32], [], [])
    with pytest.raises(KeyboardInterrupt):
        list(growth(Measurements(until(16), SETTINGS, path), axes))
    with path.open("a") as file:
        file.write('{"work": "tra')  # killed as it wrote
    asked = []
    count = lambda **point: asked.append(point["frames"]) or fake(**point)
    rows = list(growth(Measurements(count, SETTINGS, path), axes))
    assert asked == [32] and rows == list(growth(Measurements(fake, SETTINGS), axes))
    list(growth(Measurements(count, SETTINGS | {"size": "nano"}, path), axes))
    assert asked == [32, 8, 16, 32]


def test_wrong_numbers_are_named_before_anything_is_measured(tmp_path, capsys):
    (tmp_path / "file").touch()
    for options, named in {
        ("--size", "huge"): "huge",
        ("--frames", "0", "8"): "at least 1",
        ("--pixels", "20x20", "32x32"): "multiples",
        ("--devices", "1", "64"): "--devices 64",
        ("--work", "edit"): "edit",
        ("--estimate",): "--chip",
        ("--frames", "8", "--pixels", "--devices"): "nothing to compare",
        ("--out", str(tmp_path / "file")): "is a file",
        ("--steps", "0"): "steps",
    }.items():
        assert main(["bench", "growth", *options]) == 2
        out, err = capsys.readouterr()
        assert named in err and err.count("\n") == 1 and not out
