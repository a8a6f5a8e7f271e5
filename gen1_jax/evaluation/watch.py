"""How a training goes, in a terminal: `gen1 train --show --workdir DIR`."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from gen1_jax.checkpoints.workdir import PREVIEWS
from gen1_jax.editing.inputs import resize
from gen1_jax.evaluation.curves import Training, read_training
from gen1_jax.media import open_video
from gen1_jax.training.metrics import read_log

_ROWS, _COLUMNS = 8, 72  # of the chart, letters
_BLOCKS = " ▁▂▃▄▅▆▇█"


def overview_of(workdir: Path, *, colours: bool = False) -> tuple[str, bool]:
    """What a person wants to know of a run, and whether it has come to its end.

    Args:
        workdir: of the run.
        colours: draw the last preview, too, in 24-bit colours.

    Raises:
        UserError: it is no workdir, or has no entry yet.
    """
    training = read_training(workdir)
    stages = json.loads((workdir / "config.json").read_text(encoding="utf-8")).get("stages", [])
    total = sum(stage["steps"] for stage in stages)
    last = training.entries[-1]
    names = [stage["name"] for stage in stages]
    number = f" ({names.index(last['stage']) + 1} of {len(names)})" if last["stage"] in names else ""
    lines = [
        f"{training.name}: {training.component}, step {last['step']:,}{f' of {total:,}' if total else ''}, "
        f"stage {last['stage']}{number}{_left(training, total)}",
        ", ".join(_numbers(last)),
        "",
        *chart([entry["step"] for entry in training.entries], [entry["loss"] for entry in training.entries]),
    ]
    previews = [entry for entry in read_log(workdir) if entry.get("preview")]
    if previews:
        measures = [
            f"{name.removeprefix('preview/').replace('_', ' ')} {value:.3f}"
            for name, value in previews[-1].items()
            if name.startswith("preview/") and value is not None
        ]
        path = workdir / PREVIEWS / previews[-1]["preview"]
        lines += ["", f"preview {path}{': ' if measures else ''}{', '.join(measures)}"]
        if colours and path.is_file():
            with open_video(path) as reader:
                frames = [frame.rgb for frame in reader]
            lines += in_letters(frames[len(frames) // 2])
    return "\n".join(lines), bool(total) and last["step"] >= total


def chart(steps: Sequence[int], losses: Sequence[float]) -> list[str]:
    """The loss, on a logarithmic axis, the mean of the entries that fall into a column; lines of text."""
    columns = min(_COLUMNS, len(losses))
    parts = np.array_split(np.maximum(np.asarray(losses, np.float64), 1e-12), columns)
    logs = np.array([math.log(part.mean()) for part in parts])
    low, high = logs.min(), logs.max()
    heights = 1 + (logs - low) / (high - low or 1) * (8 * _ROWS - 1)  # eighths of a letter
    rows = [
        "".join(_BLOCKS[int(np.clip(round(height - 8 * row), 0, 8))] for height in heights)
        for row in reversed(range(_ROWS))
    ]
    labels = {0: f"{math.exp(high):.4g}", _ROWS - 1: f"{math.exp(low):.4g}"}
    edge = max(map(len, labels.values()))
    axis = f"{steps[0]:,}".ljust(max(1, columns - len(f"{steps[-1]:,}"))) + f"{steps[-1]:,}"
    return [
        f"{'loss':>{edge}}",
        *(f"{labels.get(number, ''):>{edge}} │{row}" for number, row in enumerate(rows)),
        f"{'':>{edge}}  {axis}",
    ]


def in_letters(picture: UInt8[np.ndarray, "h w 3"], columns: int = _COLUMNS) -> list[str]:
    """A picture as letters: two pixels each, one above the other."""
    height, width, _ = picture.shape
    rows = max(1, round(columns * height / width / 2))
    small = resize(picture, (2 * rows, columns))
    return [
        "".join(f"\x1b[38;2;{r};{g};{b};48;2;{x};{y};{z}m▀" for (r, g, b), (x, y, z) in zip(*pair, strict=True))
        + "\x1b[0m"
        for pair in zip(small[::2].tolist(), small[1::2].tolist(), strict=True)
    ]


def _numbers(entry: dict) -> list[str]:
    """Of the last entry, those that are there."""
    forms = {
        "loss": "loss {:.4g}",
        "step_seconds": "{:.3g} s a step",
        "examples_per_second": "{:.3g} examples a second",
        "mfu": "utilisation {:.0%}",
    }
    return [form.format(entry[name]) for name, form in forms.items() if entry.get(name) is not None]


def _left(training: Training, total: int) -> str:
    """How long it has taken, and what is left at the pace of the last entry."""
    seconds = training.entries[-1].get("step_seconds")
    left = max(0, total - training.entries[-1]["step"])
    told = f", {_time(training.seconds)} of steps"
    return f"{told}, about {_time(left * seconds)} left" if left and seconds else told


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"
