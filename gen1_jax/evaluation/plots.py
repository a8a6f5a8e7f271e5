"""The pictures of a benchmark's report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gen1_jax.evaluation.bars import BETTER, Results, sweep
from gen1_jax.evaluation.methods import ANSWER, EDIT, INPUT, SWEEPS

_MARKS = "os^vDP*X"
_COLOURS = ("C0", "C1", "C2", "C4", "C5", "C6", "C7", "C8", "C9")  # C3 is the red of the edit

SETTING_NAMES = {
    "temporal_guidance_scale": "ω_t",
    "structure_blur": "t_s",
    "guidance_scale": "ω",
    "num_inference_steps": "steps",
}
"""How settings are called in the paper."""


def plot_consistency(results: Results, path: Path) -> None:
    """Frame against prompt consistency, as in the paper's figure: the edit over ω_t, and every baseline."""
    figure, axes = _figure()
    swept = sweep(results, "temporal_guidance_scale")
    points = [_point(results, name) for name in swept.values()]
    axes.plot(*zip(*points, strict=True), "o-", color="tab:red", label="edit over ω_t")
    for (x, y), value in zip(points, swept, strict=True):
        axes.annotate(f"{value:g}", (x, y), textcoords="offset points", xytext=(5, 4), fontsize=7, color="tab:red")
    groups = dict.fromkeys(entry["group"] for entry in results["methods"].values())
    others = [group for group in groups if group not in (EDIT, *SWEEPS)]
    for number, group in enumerate(others):
        names = [name for name, entry in results["methods"].items() if entry["group"] == group]
        style = _MARKS[number % len(_MARKS)] + ("-" if len(names) > 1 else "")
        colour = "black" if group in (ANSWER, INPUT) else _COLOURS[number % len(_COLOURS)]
        points = [_point(results, name) for name in names]
        axes.plot(*zip(*points, strict=True), style, color=colour, label=group, lw=0.8, ms=5)
    axes.set_xlabel("frame consistency")
    axes.set_ylabel("prompt consistency")
    axes.legend(fontsize=6)
    figure.savefig(path)


def plot_sweep(results: Results, field: str, measures: Sequence[str], path: Path) -> None:
    """Measures over a setting, with their 95% intervals; the answer's as dashed lines.

    Args:
        results: as in results.json.
        field: of `EditSettings`.
        measures: names of scores, a panel each.
        path: of the picture.
    """
    import matplotlib.pyplot as plt

    swept = sweep(results, field)
    figure, panels = plt.subplots(1, len(measures), figsize=(2.9 * len(measures), 2.5), layout="constrained")
    for axes, measure in zip(panels, measures, strict=True):
        scores = [results["methods"][name]["scores"][measure] for name in swept.values()]
        values, means = list(swept), [score["mean"] for score in scores]
        low, high = zip(*(score["interval"] for score in scores), strict=True)
        axes.plot(values, means, "o-", ms=4)
        axes.fill_between(values, low, high, alpha=0.25)
        if measure not in BETTER:  # of nearness to itself there is nothing to say
            axes.axhline(results["methods"][ANSWER]["scores"][measure]["mean"], color="black", ls="--", lw=0.8)
        axes.set_xlabel(SETTING_NAMES[field])
        axes.set_title(measure.replace("_", " "), fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 4.2), layout="constrained", dpi=130)
    return figure, figure.subplots()


def _point(results: Results, name: str) -> tuple[float, float]:
    scores = results["methods"][name]["scores"]
    return scores["frame_consistency"]["mean"], scores["prompt_consistency"]["mean"]
