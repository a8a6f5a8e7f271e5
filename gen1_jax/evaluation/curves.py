"""`gen1 curves`: how trainings went, from their logs: curves in one picture, and a table of steps and hours."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gen1_jax.errors import UserError, counted
from gen1_jax.training.metrics import LOG, read_log

_MEASURES = {"vae": "psnr", "clip": "image_to_text_accuracy", "depth": "delta_1", "prior": "cosine"}
"""What tells more than the loss, by the network that is trained, where the log has it."""


class Training(NamedTuple):
    """One run as its log tells it.

    Attributes:
        name: of the workdir.
        component: that was trained.
        entries: of the log, with a loss.
        seconds: of steps, compilation, checkpoints and previews left out.
    """

    name: str
    component: str
    entries: list[dict[str, Any]]
    seconds: float

    @property
    def summary(self) -> dict[str, Any]:
        """Steps, examples, hours and the last loss."""
        last = self.entries[-1]
        return {
            "run": self.name,
            "component": self.component,
            "steps": last["step"],
            "examples": round(sum(e["examples_per_second"] * s for e, s in _spent(self.entries))),
            "hours": round(self.seconds / 3600, 3),
            "loss": last["loss"],
            **{measure: last[measure] for measure in [_MEASURES.get(self.component)] if measure in last},
        }


def has_entries(workdir: Path) -> bool:
    """Whether a workdir has been trained in; False for a folder in which a run ended before its first entry, too.

    Raises:
        UserError: there is no such folder.
    """
    if not workdir.exists():
        raise UserError(f"{workdir}: no such folder")
    return (workdir / LOG).is_file() and any(entry.get("loss") is not None for entry in read_log(workdir))


def read_training(workdir: Path) -> Training:
    """What a workdir's log says.

    Raises:
        ValueError: it has none, or nothing has been logged yet.
    """
    if not (workdir / LOG).is_file():
        raise UserError(f"{workdir} has no {LOG}: it is not a workdir of gen1 train")
    entries = [entry for entry in read_log(workdir) if entry.get("loss") is not None]
    if not entries:
        raise UserError(f"{workdir / LOG} has no entry yet")
    component = json.loads((workdir / "config.json").read_text())["component"]
    return Training(workdir.name, component, entries, sum(seconds for _, seconds in _spent(entries)))


def _spent(entries: list[dict[str, Any]]) -> list[tuple[dict[str, Any], float]]:
    """Entries with the seconds of the steps since the one before; those without a time have been compiling."""
    steps = itertools.pairwise([0, *(entry["step"] for entry in entries)])
    pairs = zip(entries, steps, strict=True)
    return [(entry, entry["step_seconds"] * (b - a)) for entry, (a, b) in pairs if "step_seconds" in entry]


def plot_trainings(trainings: Sequence[Training], path: Path) -> None:
    """A panel a run: the loss by kind of batch on a logarithmic axis, stages marked, beside it what the loss means."""
    from matplotlib.figure import Figure

    columns = min(3, len(trainings))
    rows = -(-len(trainings) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.9 * rows), layout="constrained", dpi=130)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(trainings) :]:
        axes.remove()
    for axes, training in zip(panels, trainings, strict=False):
        _panel(axes, training)
    figure.savefig(path, format="png")


def _panel(axes: Any, training: Training) -> None:
    kinds = [kind for kind in ("image", "video") if any(f"{kind}/loss" in entry for entry in training.entries)]
    for number, kind in enumerate(kinds):
        steps, losses = _series(training, f"{kind}/loss")
        axes.plot(steps, losses, color=f"C{number}", alpha=0.25, lw=0.8)
        axes.plot(steps, _smooth(losses), color=f"C{number}", lw=1.2, label=f"loss, {kind}s")
    axes.set_yscale("log")
    for before, after in itertools.pairwise(training.entries):
        if before["stage"] != after["stage"]:
            axes.axvline(before["step"], color="grey", lw=0.6, ls=":")
    measure = _MEASURES.get(training.component)
    if measure is not None and any(measure in entry for entry in training.entries):
        beside = axes.twinx()
        beside.plot(*_series(training, measure), color="C2", lw=1, label=measure.replace("_", " "))
        beside.legend(fontsize=7, loc="center right")
    about = training.summary
    name = training.name if training.component in training.name else f"{training.name} ({training.component})"
    axes.set_title(f"{name}: {counted(about['steps'], 'step')}, {60 * about['hours']:.0f} min", fontsize=9)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7, loc="upper right")


def _series(training: Training, name: str) -> tuple[np.ndarray, np.ndarray]:
    points = [(entry["step"], entry[name]) for entry in training.entries if entry.get(name) is not None]
    steps, values = zip(*points, strict=True)
    return np.array(steps), np.array(values)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Running mean over a fortieth of the run, the ends repeated."""
    width = max(1, len(values) // 40)
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")
