"""report.html of a benchmark: verdict, tables, plots and videos, all made again from what the folder holds."""

import html
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gen1_jax.errors import counted
from gen1_jax.evaluation.bars import Results, best, by_motion, mean_score, nearer, sweep
from gen1_jax.evaluation.benchmark import shown_clips
from gen1_jax.evaluation.methods import (
    ANSWER,
    AUTOENCODED,
    DEPTH_BY_FRAME,
    EDIT,
    FIRST_FRAME,
    INPUT,
    SDEDIT_BY_CLIP,
    SDEDIT_BY_FRAME,
    SWEEPS,
)
from gen1_jax.evaluation.plots import SETTING_NAMES, plot_consistency, plot_sweep
from gen1_jax.evaluation.scores import COMPONENT_MEASURES, KIND_MEASURES, MEASURES, Measure
from gen1_jax.measures import Interval
from gen1_jax.media import VideoWriter, side_by_side

_SWEPT = {
    "temporal_guidance_scale": ("frame_consistency", "prompt_consistency", "warp_error", "perceptual"),
    "structure_blur": ("structure_error", "prompt_consistency", "perceptual", "psnr"),
    "guidance_scale": ("prompt_consistency", "retrieved", "perceptual", "psnr"),
    "num_inference_steps": ("perceptual", "psnr", "structure_error", "frame_consistency"),
}
_NEARNESS = ("perceptual", "psnr")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px; }
td, th { padding: .2em .7em; border-bottom: 1px solid #ddd; text-align: right; }
td:first-child, th:first-child { text-align: left; }
small { color: #777; } img, video { max-width: 100%; } .no { color: #b00; } .yes { color: #070; }
"""


def write_report(results: Results, out: Path) -> Path:
    """Writes report.html, its plots and videos into the folder of a benchmark.

    Args:
        results: as in results.json.
        out: the folder.

    Returns:
        report.html.
    """
    picture = lambda name: f'<img src="{name}" alt="{name}">'
    sections = [
        f"<h1>{html.escape(results['model'])}, {counted(len(results['labels']), 'held-out edit')}</h1>",
        f"<p>{html.escape(_conditions(results))}</p>",
        "<h2>Verdict</h2>",
        _table(("figure", "measured", "bar", ""), [_bar_row(bar) for bar in results["bars"]]),
        "<h2>Methods</h2><p>Means and 95% intervals (bootstrap over clips).</p>",
        _table(
            ("method", *map(_headed, _measures(results)), "seconds"),
            [_method_row(*item, _measures(results)) for item in results["methods"].items()],
        ),
        "<h2>Nearer to the answer</h2><p>Share of clips where the edit is nearer than another method at its best.</p>",
        _table(("than", "in CLIP's space", "by PSNR"), _nearer_rows(results)),
        "<h2>Networks by themselves</h2>",
        _table(("", "mean"), [(_headed(name), _score(score)) for name, score in results["components"].items()]),
        "<h2>Frame and prompt consistency</h2>",
    ]
    plot_consistency(results, out / "consistency.png")
    sections.append(picture("consistency.png"))
    for field, measures in _SWEPT.items():
        if len(sweep(results, field)) > 1:
            plot_sweep(results, field, measures, out / f"{field}.png")
            sections += [f"<h2>Over {SETTING_NAMES[field]}</h2>", picture(f"{field}.png")]
    sections += _by_motion(results)
    sections += _by_content(results)
    sections += _definitions(results)
    sections += _videos(results, out)
    page = f"<!doctype html><meta charset=utf-8><title>gen1_jax benchmark</title><style>{_STYLE}</style>"
    path = out / "report.html"
    path.write_text(page + "\n".join(sections) + "\n", encoding="utf-8")
    return path


def _conditions(results: Results) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in results["config"]["settings"].items())
    frames, height, width = results["size"]
    trained = "" if results["trained"] else " Its weights are not trained."
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return f"{counted(frames, 'frame')} of {width}x{height}; {settings}; {results['device']}; {versions}.{trained}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = lambda row, tag: "".join(f"<{tag}>{cell}</{tag}>" for cell in row)
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<table><tr>{cells([name.replace('_', ' ') for name in head], 'th')}</tr>{body}</table>"


def _bar_row(bar: dict[str, Any]) -> tuple[str, ...]:
    verdict = '<span class="yes">reached</span>' if bar["reached"] else '<span class="no">missed</span>'
    return *(html.escape(bar[name]) for name in ("figure", "measured", "bar")), verdict


def _measures(results: Results) -> dict[str, Measure]:
    """Those of edits that there are: of kinds of structure, those that the edit follows."""
    scored = results["methods"][EDIT].get("scores", {})
    return MEASURES | {name: measure for name, measure in KIND_MEASURES.items() if name in scored}


def _method_row(name: str, entry: dict[str, Any], measures: Iterable[str]) -> tuple[str, ...]:
    return html.escape(name), *(_score(entry["scores"][measure]) for measure in measures), f"{entry['seconds']:.1f}"


def _headed(measure: str) -> str:
    """The name of a measure with an arrow that points to where it is better."""
    sign = (MEASURES | KIND_MEASURES | COMPONENT_MEASURES)[measure].sign
    return f"{measure.replace('_', ' ')} {'↑' if sign > 0 else '↓'}"


def _definitions(results: Results) -> Iterable[str]:
    """What every measure and every method is."""
    yield "<h2>What is measured</h2>"
    rows = [
        (_headed(name), measure.better, measure.values, html.escape(measure.definition))
        for name, measure in (_measures(results) | COMPONENT_MEASURES).items()
    ]
    yield _table(("measure", "better", "values", "definition"), rows)
    yield "<h2>What is compared</h2>"
    yield _table(("method", ""), [(html.escape(n), html.escape(e["what"])) for n, e in results["methods"].items()])


def _score(score: dict[str, Any]) -> str:
    if score["mean"] is None:
        return "-"
    low, high = score["interval"]
    return f"{score['mean']:.4g}<br><small>{low:.4g} … {high:.4g}</small>"


def _nearer_rows(results: Results) -> Iterable[tuple[str, ...]]:
    groups = dict.fromkeys(entry["group"] for entry in results["methods"].values())
    for group in groups:
        if group not in (EDIT, ANSWER, *SWEEPS, AUTOENCODED):
            shares = [nearer(results, best(results, group, measure), measure) for measure in _NEARNESS]
            yield html.escape(group), *map(_share, shares)


def _share(share: Interval) -> str:
    return f"{share.mean:.1%} <small>{share.low:.1%} … {share.high:.1%}</small>"


def _by_motion(results: Results) -> Iterable[str]:
    """How the edit fares against the first frame carried along, which has less to lose the less a clip moves."""
    if FIRST_FRAME not in results["methods"]:
        return
    rows = []
    for clips in by_motion(results, min(4, len(results["labels"]))):
        alike, psnr = mean_score(results, ANSWER, "frame_consistency", clips), mean_score(results, EDIT, "psnr", clips)
        shares = [nearer(results, FIRST_FRAME, measure, clips) for measure in _NEARNESS]
        rows.append((f"{alike:.4f}", str(len(clips)), f"{psnr:.2f}", *map(_share, shares)))
    head = ("frame consistency of the answers", "clips", "psnr of the edits", "nearer in CLIP's space", "by PSNR")
    yield f"<h2>By motion, against {FIRST_FRAME}</h2><p>Clips in quarters; what moves most comes first.</p>"
    yield _table(head, rows)


def _by_content(results: Results) -> Iterable[str]:
    """The edit's scores by what the answer is made of."""
    measures = ("psnr", "ssim", "perceptual", "retrieved")
    for label in ("style", "environment", "materials"):
        members = defaultdict(list)
        for index, labels in enumerate(results["labels"]):
            names = labels[label] if isinstance(labels[label], list) else [labels[label]]
            for name in names:
                members[name].append(index)
        rows = []
        for name, indices in sorted(members.items()):
            values = [mean_score(results, EDIT, measure, indices) for measure in measures]
            rows.append((html.escape(name), str(len(indices)), *(f"{value:.3g}" for value in values)))
        yield f"<h2>By {label}</h2>" + _table((label, "clips", *measures), rows)


def _videos(results: Results, out: Path) -> Iterable[str]:
    """A video a clip, methods side by side, and a still of all for where no video can play."""
    wanted = (INPUT, EDIT, ANSWER, *(best(results, group, "perceptual") for group in _RIVALS))
    clips = {name: shown for name in wanted if name and (shown := shown_clips(out, name)) is not None}
    titles = " | ".join(clips)
    yield f"<h2>Clips</h2><p>{html.escape(titles)}</p>"
    (out / "videos").mkdir(exist_ok=True)
    stills = []
    for index in range(len(next(iter(clips.values())))):
        frames = [side_by_side(list(views)) for views in zip(*(clip[index] for clip in clips.values()), strict=True)]
        name = f"videos/{index:02}.mp4"
        height, width, _ = frames[0].shape
        with VideoWriter(out / name, width=width, height=height, frame_rate=results["frame_rate"]) as writer:
            for frame in frames:
                writer.write(frame)
        stills.append(frames[len(frames) // 2])
        prompt = html.escape(results["labels"][index]["prompt"])
        yield f'<p>{prompt}<br><video src="{name}" autoplay loop muted playsinline></video></p>'
    Image.fromarray(np.concatenate(stills)).save(out / "clips.png")


_RIVALS = (DEPTH_BY_FRAME, SDEDIT_BY_FRAME, SDEDIT_BY_CLIP, FIRST_FRAME)
