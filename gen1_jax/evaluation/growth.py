"""`gen1 bench growth`: how time and memory grow with frames, pixels and devices: what is looked at, exponents, a plot.

A row has the figures of one step; where it comes from, measured here or planned for elsewhere, it says itself.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gen1_jax.errors import UserError, counted
from gen1_jax.pretrained.family import Gen1Config

Row = dict[str, Any]
Work = Literal["sample", "train"]
Axis = Literal["frames", "pixels", "devices"]

WORKS: tuple[Work, ...] = ("sample", "train")
FIGURES = {"seconds": "time", "tflop": "operations", "temporary_bytes": "temporaries"}
"""What grows, by its name in a row."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One step: of the sampler on a clip, which `devices` divide; or of training, with a clip or more for each device.

    Attributes:
        work: which.
        frames: of a clip.
        height: in pixels.
        width: in pixels.
        devices: how many.
    """

    work: Work
    frames: int
    height: int
    width: int
    devices: int

    def on(self, axis: Axis) -> int:
        """Where it lies on an axis."""
        return self.height * self.width if axis == "pixels" else getattr(self, axis)

    def label(self, axis: Axis) -> str:
        """The same for people."""
        return f"{self.width}x{self.height}" if axis == "pixels" else str(self.on(axis))


def sweeps(
    base: Point, frames: Sequence[int], pixels: Sequence[tuple[int, int]], devices: Sequence[int]
) -> dict[Axis, list[Point]]:
    """The points along each axis, ascending, everything else as in `base`; no axis where there is nothing to compare.

    Args:
        base: where axes meet.
        frames: of clips.
        pixels: heights and widths.
        devices: numbers of them.

    Raises:
        UserError: a number below one.
    """
    if min([*frames, *devices, *itertools.chain(*pixels)], default=1) < 1:
        raise UserError("frames, pixels and devices must be at least 1")
    along: dict[Axis, Iterable[Point]] = {
        "frames": (dataclasses.replace(base, frames=n) for n in frames),
        "pixels": (dataclasses.replace(base, height=h, width=w) for h, w in pixels),
        "devices": (dataclasses.replace(base, devices=n) for n in devices),
    }
    ordered = {axis: sorted(set(points), key=lambda p: (p.on(axis), p.width)) for axis, points in along.items()}
    return {axis: points for axis, points in ordered.items() if len(points) > 1}


class Measurements:
    """Rows by point, kept in a file as they come, so that what was interrupted goes on.

    Args:
        measure: the row of a point, called with its attributes.
        settings: what else rows depend on: plain values. Rows of others in the file are left alone.
        path: of the file, a line of JSON a row; None for none.
    """

    def __init__(self, measure: Callable[..., Row], settings: Mapping[str, Any], path: Path | None = None):
        self._measure, self._settings, self._path = measure, dict(settings), path
        self._rows = {self._key(row): row for row in _stored(path)} if path is not None else {}

    def __getitem__(self, point: Point) -> Row:
        """Measured, unless it has been."""
        row = self._settings | dataclasses.asdict(point)
        key = self._key(row)
        if key not in self._rows:
            row |= self._measure(**dataclasses.asdict(point))
            self._rows[key] = row
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        return self._rows[key]

    def _key(self, row: Row) -> str:
        names = [*self._settings, *(field.name for field in dataclasses.fields(Point))]
        return json.dumps([row.get(name) for name in names])


def _stored(path: Path) -> Iterator[Row]:
    """Rows of a file; a line that was not finished is left out."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def growth(rows: Measurements, axes: Mapping[Axis, Sequence[Point]]) -> Iterator[Row]:
    """Each point along each axis, with the exponents k from its neighbour to it, figure ~ axis^k; then those overall.

    Yields:
        Rows with "axis" and "exponents", by figure, None where there is nothing to compare; after those of an axis one
        with "fit": exponents by least squares over all of its points, and "squared", the part of the operations of the
        last that grows with the square of what it lies on (None with fewer than three points).
    """
    for axis, points in axes.items():
        seen: list[Row] = []
        for point in points:
            row = rows[point] | {"axis": axis, "x": point.on(axis), "label": point.label(axis)}
            exponents = {name: exponent([*seen[-1:], row], name) for name in FIGURES}
            seen.append(row)
            yield row | {"exponents": exponents}
        fit = {name: exponent(seen, name) for name in FIGURES}
        part = None if axis == "devices" else squared(seen)
        yield {"work": seen[0]["work"], "axis": axis, "fit": fit, "squared": part, "label": seen[-1]["label"]}


def bench_growth(
    rows: Measurements,
    config: Gen1Config,
    *,
    works: Sequence[Work] = WORKS,
    frames: Sequence[int],
    pixels: Sequence[tuple[int, int]],
    devices: Sequence[int],
    plot: Path | None = None,
) -> Iterator[Row]:
    """`growth` of each work in turn, from the model's own clip on one device.

    Args:
        rows: where figures come from.
        config: of the model.
        works: what is done.
        frames: of clips.
        pixels: heights and widths.
        devices: numbers of them.
        plot: a picture of what there is by the end, also where that comes early; None for none.

    Raises:
        UserError: numbers below one, sizes that the model cannot halve as often as it has to, or nothing to compare.
    """
    multiple = config.vae.downscale * config.unet.downscale
    if wrong := [(h, w) for h, w in pixels if h % multiple or w % multiple]:
        raise UserError(f"--pixels {wrong[0][1]}x{wrong[0][0]}: sides are multiples of {multiple}")
    told: list[Row] = []
    size = dict(frames=config.num_frames, height=config.height, width=config.width)
    every = [sweeps(Point(work=work, devices=1, **size), frames, pixels, devices) for work in works]
    if not any(every):
        raise UserError("nothing to compare: give at least two of --frames, --pixels or --devices")
    try:
        for axes in every:
            for row in growth(rows, axes):
                told.append(row)
                yield row
    finally:
        if plot is not None and told:
            plot_growth(told, plot)


def exponent(rows: Sequence[Row], figure: str) -> float | None:
    """k of figure ~ x^k by least squares, over rows that have it; None where these are fewer than two."""
    pairs = [(row["x"], row[figure]) for row in rows if row.get(figure)]
    if len({x for x, _ in pairs}) < 2:
        return None
    x, y = np.log(np.array(pairs, float)).T
    return float(np.polyfit(x, y, 1)[0])


def squared(rows: Sequence[Row]) -> float | None:
    """The part of the operations of the last row that grows with x², of operations a + b x + c x²."""
    pairs = [(row["x"], row["tflop"]) for row in rows if row.get("tflop")]
    if len({x for x, _ in pairs}) < 3:
        return None
    x, y = np.array(pairs, float).T
    return float(np.polyfit(x / x[-1], y / y[-1], 2)[0])


def render(row: Row) -> str:
    """A row of `growth` as a person reads it."""
    if "fit" in row:
        fits = [f"{FIGURES[name]} ~ {row['axis']}^{k:.2f}" for name, k in row["fit"].items() if k is not None]
        if row["squared"] is not None:
            fits.append(f"{max(row['squared'], 0):.0%} of the operations at {row['label']} grow with their square")
        return "  " + ", ".join(fits)
    cells = [f"{row['label']:>9}", f"{row.get('windows', ''):>7}"]
    for name, written in {"seconds": _seconds, "tflop": "{:.3g}".format, "temporary_bytes": _memory}.items():
        value, k = row.get(name), row["exponents"][name]
        cells += ["" if value is None else written(value), "" if k is None else f"{k:.2f}"]
    line = "{} {} {:>11} {:>6} {:>9} {:>6} {:>11} {:>6}".format(*cells)
    if row.get("seconds"):
        line += f" {row['tflop'] / row['seconds'] / row['devices']:9.3g}"
    peak = "" if row.get("peak_bytes") is None else f" {_memory(row['peak_bytes']):>10}"
    return f"{line:78}{peak}  {row.get('memory', '')}  {row.get('error', '')}".rstrip()


def render_head(row: Row) -> str:
    """What the rows of a work along an axis share, and the head of their table."""
    axis = row["axis"]
    fixed = [f"{row['width']}x{row['height']}"] if axis != "pixels" else []
    fixed += [counted(row["frames"], "frame")] if axis != "frames" else []
    fixed += [counted(row["devices"], "device")] if axis != "devices" else []
    if row["work"] == "sample":
        step = f"a step of the sampler, windows of {counted(row['window'], 'frame')} that share {row['overlap']}"
    else:
        step = f"a training step, {counted(row['batch'], 'clip')} a device, remat {'on' if row['remat'] else 'off'}"
    return (
        f"{step}: {', '.join(fixed)}\n"
        f"{axis:>9} {'windows':>7} {'a step':>11} {'k':>6} {'TFLOP':>9} {'k':>6} {'temporaries':>11} {'k':>6} "
        f"{'TFLOP/s':>9} {'peak':>10}"
    )


def render_settings(settings: Mapping[str, Any]) -> str:
    """What all rows share."""
    how = {
        "measured": "timed here; operations counted, memory as the compiler tells it",
        "planned": "nothing is run: operations counted, seconds by a roofline, memory compiled or estimated as it says",
    }
    return (
        f"{settings['size']} U-Net, {settings['parameters']:,} parameters, {settings['dtype']}, {settings['device']} "
        f"(jax {settings['jax']})\n{how[settings['source']]}; k: figure ~ axis^k from the row before"
    )


def _memory(value: int) -> str:
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.1f} MiB"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 10 else f"{1000 * value:.1f} ms"


def plot_growth(rows: Sequence[Row], path: Path) -> None:
    """A row of panels an axis, a panel a figure, both scales logarithmic; dashed is what would be linear.

    Args:
        rows: of `growth`; what does not fit has its memory, and no time.
        path: of the picture, a PNG.
    """
    from matplotlib.figure import Figure

    points = [row for row in rows if "fit" not in row]
    axes = list(dict.fromkeys(row["axis"] for row in points))
    sheet = Figure(figsize=(3.4 * len(FIGURES), 2.7 * len(axes)), layout="constrained", dpi=130)
    panels = sheet.subplots(len(axes), len(FIGURES), squeeze=False)
    for (axis, figure), panel in zip(itertools.product(axes, FIGURES), panels.ravel(), strict=True):
        for work in WORKS:
            mine = [row for row in points if (row["axis"], row["work"]) == (axis, work) and row.get(figure)]
            if mine:
                _line(panel, mine, figure, f"C{WORKS.index(work)}")
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xlabel(axis, fontsize=8)
        panel.set_title({"seconds": "seconds a step", "tflop": "TFLOP", "temporary_bytes": "GiB"}[figure], fontsize=8)
        panel.tick_params(labelsize=7, which="both")
        places = {row["x"]: row["label"] for row in points if row["axis"] == axis}
        panel.set_xticks(list(places), list(places.values()))
        if panel.lines:
            panel.legend(fontsize=6)
    sheet.savefig(path, format="png")


def _line(panel: Any, rows: Sequence[Row], figure: str, colour: str) -> None:
    scale = 2**30 if figure == "temporary_bytes" else 1
    x, y = [row["x"] for row in rows], [row[figure] / scale for row in rows]
    k = exponent(rows, figure)
    panel.plot(x, y, "o-", color=colour, ms=3, lw=1, label=rows[0]["work"] + ("" if k is None else f", k = {k:.2f}"))
    if rows[0]["axis"] != "devices":
        panel.plot([x[0], x[-1]], [y[0], y[0] * x[-1] / x[0]], "--", color=colour, lw=0.6, alpha=0.6)
    assert all(map(math.isfinite, y))
