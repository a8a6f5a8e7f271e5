"""report.html of `gen1 evaluate --videos`: tables, editors side by side, what is measured, and what not to conclude."""

import html
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gen1_jax.errors import UserError, counted
from gen1_jax.evaluation.footage.listing import SOURCE, Row, find_rows, read_wanted
from gen1_jax.evaluation.footage.pairs import Frames, read_pair
from gen1_jax.evaluation.footage.results import FootageConfig
from gen1_jax.evaluation.pages import definitions, headed, score_cell, table, write_page
from gen1_jax.media import VideoWriter, side_by_side

SHOWN = 8
"""Clips whose editors are shown side by side."""

_FRAMES, _RATE = 48, 8
_FEWEST = 6  # clips, of which all lie on one side by chance in 3%: a bootstrap of fewer knows too little


def write_footage_report(results: Mapping[str, Any], config: FootageConfig, out: Path) -> Path:
    """Writes report.html and its videos into the folder of an evaluation.

    Args:
        results: as `evaluate_footage` returns them.
        config: that they are of.
        out: the folder.

    Returns:
        report.html.
    """
    title = f"{counted(len(config.editors), 'editor')}, {counted(len(results['clips']), 'edit')} of real footage each"
    sections = [f"<h1>{title}</h1>", f"<p>{html.escape(_conditions(results))}</p>"]
    sections += [
        "<h2>Scores</h2><p>Means and 95% intervals (bootstrap over clips). The line of the sources is what a clip has "
        "that nobody has edited: the best there is of some measures, and no edit at all.</p>",
        table(("editor", "edits", *_heads(config)), _rows(results, config)),
        "<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in results["caveats"]) + "</ul>",
        *_fvd(results),
        *_paired(results, config),
        *_left_out(results),
        "<h2>What is measured</h2>",
        definitions(config.measures),
        *_clips(results, config, out),
    ]
    return write_page(out / "report.html", "gen1_jax: edits of real footage", sections)


def _conditions(results: Mapping[str, Any]) -> str:
    options = results["options"]
    align = {"start": "frame by frame from the start", "spread": "spread over the whole source"}[options["align"]]
    return (
        f"Judge: {results['judge']['name']}; depth: {results['depth']['name']}; motion: OpenCV's DIS. At most "
        f"{counted(options['frames'], 'frame')} of {options['size']} pixels on the shorter side, {align}; "
        f"{results['device']}; " + ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    )


def _heads(config: FootageConfig) -> Iterator[str]:
    for name, measure in config.measures.items():
        yield headed(name, measure)


def _rows(results: Mapping[str, Any], config: FootageConfig) -> Iterator[tuple[str, ...]]:
    for editor, entry in results["editors"].items():
        scores = (score_cell(entry["scores"][name]) for name in config.measures)
        yield html.escape(editor), str(entry["edits"]), *scores


def _fvd(results: Mapping[str, Any]) -> Iterator[str]:
    if "fvd" in results:
        found = results["fvd"]
        distances = found["editors"] | {"two halves of the sources": found["floor"]}
        cell = lambda value: "-" if value is None else f"{value:,.0f}"
        rows = [(html.escape(name), str(each["clips"]), cell(each["fvd"])) for name, each in distances.items()]
        yield f"<h2>FVD ↓ of the first {found['frames']} frames</h2>" + table(("to the sources", "clips", "FVD"), rows)


def _paired(results: Mapping[str, Any], config: FootageConfig) -> Iterator[str]:
    """A table for every two editors."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for each in results["paired"]:
        found.setdefault((each["editor"], each["than"]), []).append(each)
    if found:
        yield "<h2>Editor against editor</h2><p>Differences on the clips that both have edited, in bold where the "
        yield f"interval is without 0 and of {_FEWEST} clips or more. Which measures matter is for you to say.</p>"
        yield '<div style="display: flex; flex-wrap: wrap; gap: 0 3em">'
    for (one, other), lines in found.items():
        rows = [
            (headed(x["measure"], config.measures[x["measure"]]), _difference(x), f"{x['better']} of {x['clips']}")
            for x in lines
        ]
        title = f"<h3>{html.escape(one)} minus {html.escape(other)}</h3>"
        yield f"<div>{title}{table(('', 'difference', 'better on'), rows)}</div>"
    if found:
        yield "</div>"


def _difference(line: Mapping[str, Any]) -> str:
    low, high = line["interval"]
    text = f"{line['difference']:+.4g}"
    text = f"<b>{text}</b>" if (low > 0 or high < 0) and line["clips"] >= _FEWEST else text
    return f"{text} <small>{low:+.4g} … {high:+.4g}</small>"


def _left_out(results: Mapping[str, Any]) -> Iterator[str]:
    """Edits that are not there or cannot be read; figures of editors that lack some are of other clips."""
    for what, entries in (("Missing", results["missing"]), ("Could not be scored", results["failed"])):
        if entries:
            lines = (f"{e['editor']}: {e['name']}{': ' + e['error'] if 'error' in e else ''}" for e in entries)
            yield f"<h2>{what}</h2><ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"


def _clips(results: Mapping[str, Any], config: FootageConfig, out: Path) -> Iterator[str]:
    """The source and all editors side by side, and what each edit scored."""
    failed = {(each["editor"], each["name"]) for each in results["failed"]}
    rows = find_rows(read_wanted(config.prompts), config.sources, config.editors, config.masks)
    yield "<h2>Clips</h2>"
    (out / "videos").mkdir(exist_ok=True)
    for index, row in enumerate(rows[:SHOWN]):
        editors = [name for name in row.edits if (name, row.name) not in failed]
        if not editors or (SOURCE, row.name) in failed:
            continue
        name = f"videos/{index:03}.mp4"
        try:
            _write_video(out / name, row, editors, config)
        except UserError:  # it was readable when it was scored, or the report is drawn again without it
            continue
        titles = " | ".join([SOURCE, *editors])
        yield f"<h3>{html.escape(row.name)}: {html.escape(row.prompt)}</h3><p>{html.escape(titles)}"
        yield f'<br><video src="{name}" autoplay loop muted playsinline></video></p>'
        yield table(("", *_heads(config)), _scores_of(results, config, index, (SOURCE, *editors)))


def _scores_of(
    results: Mapping[str, Any], config: FootageConfig, index: int, editors: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    for editor in editors:
        scores = results["editors"][editor]["scores"]
        yield html.escape(editor), *(_plain(scores[name]["clips"][index]) for name in config.measures)


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _write_video(path: Path, row: Row, editors: list[str], config: FootageConfig) -> None:
    views: list[Frames] = []
    for editor in editors:
        pair = read_pair(row.edits[editor], row.source, None, config.pairs)
        views += [pair.edit] if views else [pair.source, pair.edit]
    count = min(_FRAMES, *map(len, views))
    frames = [side_by_side([view[t] for view in views]) for t in range(count)]
    height, width, _ = frames[0].shape
    with VideoWriter(path, width=width, height=height, frame_rate=_RATE) as writer:
        for frame in frames:
            writer.write(np.ascontiguousarray(frame))


def lines(results: Mapping[str, Any], config: FootageConfig) -> Iterator[str]:
    """A short table for the terminal: an editor a column."""
    editors = list(results["editors"])
    width = max(12, *map(len, editors))
    yield f"{'':20}" + "".join(f"{name:>{width + 2}}" for name in editors)
    for name, measure in config.measures.items():
        means = [results["editors"][editor]["scores"][name]["mean"] for editor in editors]
        arrow = "↑" if measure.sign > 0 else "↓"
        yield f"{name:18} {arrow}" + "".join(f"{_plain(mean):>{width + 2}}" for mean in means)
    if "fvd" in results:
        found = results["fvd"]["editors"]
        cells = [_plain(found[e]["fvd"]) if e in found else "" for e in editors]
        clips = max(e["clips"] for e in found.values())
        yield f"{'fvd':18} ↓" + "".join(f"{cell:>{width + 2}}" for cell in cells) + f"   ({counted(clips, 'clip')})"
    edits = [results["editors"][editor]["edits"] for editor in editors]
    yield f"{'edits':20}" + "".join(f"{count:>{width + 2}}" for count in edits)
    for what, key in (("not there", "missing"), ("not readable", "failed")):
        if entries := results[key]:
            first = f"{entries[0]['editor']}: {entries[0]['name']}"
            yield f"{counted(len(entries), 'edit')} {what}, the first {first}"
    yield from (f"note: {text}" for text in results["caveats"])
