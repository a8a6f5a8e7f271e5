"""report.html of a benchmark: verdict, tables, plots and videos, all made again from what the folder holds."""

import html
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gen1_jax.errors import counted
from gen1_jax.evaluation.bars import Results, best, by_motion, mean_score, nearer, sweep
from gen1_jax.evaluation.benchmark import shown_clips
from gen1_jax.evaluation.local import LOCAL_MEASURES
from gen1_jax.evaluation.methods import (
    ANSWER,
    CHANGE_DESCRIBED,
    CHANGE_IN_SIGHT,
    CLICKED,
    DEPTH_BY_FRAME,
    EDIT,
    FIRST_FRAME,
    INPUT,
    MASKED,
    MASKED_BY_CHANGE,
    MASKED_IN_SIGHT,
    SDEDIT_BY_CLIP,
    SDEDIT_BY_FRAME,
)
from gen1_jax.evaluation.pages import definitions, headed, score_cell, table, write_page
from gen1_jax.evaluation.plots import SETTING_NAMES, plot_consistency, plot_sweep
from gen1_jax.evaluation.rivals.listing import ATLAS, BIVDIFF, INVERSION, TOKENFLOW
from gen1_jax.evaluation.scores import COMPONENT_MEASURES, KIND_MEASURES, MEASURES
from gen1_jax.evaluation.swap import OWN_STRUCTURE, PROBE_MEASURES
from gen1_jax.evaluation.verdict import HEADS, Verdict
from gen1_jax.measures import Interval
from gen1_jax.media import VideoWriter, side_by_side

_SWEPT = {
    "temporal_guidance_scale": ("frame_consistency", "prompt_consistency", "warp_error", "perceptual"),
    "structure_blur": ("structure_error", "prompt_consistency", "perceptual", "psnr"),
    "guidance_scale": ("prompt_consistency", "retrieved", "perceptual", "psnr"),
    "num_inference_steps": ("perceptual", "psnr", "structure_error", "frame_consistency"),
}
_OF_NETWORKS = COMPONENT_MEASURES | PROBE_MEASURES
_ALL = MEASURES | KIND_MEASURES | LOCAL_MEASURES | _OF_NETWORKS
_NEARNESS = ("perceptual", "psnr")


def write_report(results: Results, out: Path, rivals: Iterable[Verdict]) -> Path:
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
        table(("figure", "measured", "bar", ""), [_bar_row(bar) for bar in results["bars"]]),
        "<h2>Methods</h2><p>Means and 95% intervals (bootstrap over clips). Evaluations are of "
        "the denoiser, for each frame; seconds are of all clips, with what had to be compiled first.</p>",
        table(
            ("method", *(headed(name, _ALL[name]) for name in _measures(results)), "evaluations", "seconds"),
            [_method_row(*item, _measures(results)) for item in results["methods"].items()],
        ),
        "<h2>Nearer to the answer</h2><p>Share of clips where the edit is nearer than another method at its best, with "
        "Wilson's 95% interval, and by how much on average (paired, bootstrap; positive is better); the structure is "
        "that of the method which is best in CLIP's space. And the share of people who preferred Gen-1's edits of real "
        "clips in the paper, where it compares the two: not the same question.</p>",
        table(("than", *HEADS.values(), "preferred in the paper"), map(_verdict_row, rivals)),
        "<h2>Networks by themselves</h2>",
        table(
            ("", "mean"),
            [(headed(name, _ALL[name]), score_cell(score)) for name, score in results["components"].items()],
        ),
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
    return write_page(out / "report.html", "gen1_jax benchmark", sections)


def _conditions(results: Results) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in results["config"]["settings"].items())
    frames, height, width = results["size"]
    trained = "" if results["trained"] else " Its weights are not trained."
    trained += f" Judged by {results['judge']}." if results.get("judge") else ""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return f"{counted(frames, 'frame')} of {width}x{height}; {settings}; {results['device']}; {versions}.{trained}"


def _bar_row(bar: dict[str, Any]) -> tuple[str, ...]:
    verdict = '<span class="yes">reached</span>' if bar["reached"] else '<span class="no">missed</span>'
    return *(html.escape(bar[name]) for name in ("figure", "measured", "bar")), verdict


def _measures(results: Results) -> list[str]:
    """Names of the measures of edits, in their order."""
    return [name for name in results["measures"] if name not in _OF_NETWORKS]


def _method_row(name: str, entry: dict[str, Any], measures: list[str]) -> tuple[str, ...]:
    spent = f"{entry['evaluations']:.3g}" if "evaluations" in entry else ""  # older results do not say
    scores = (score_cell(entry["scores"][measure]) for measure in measures)
    return html.escape(name), *scores, spent, f"{entry['seconds']:.1f}"


def _definitions(results: Results) -> Iterable[str]:
    """What every measure and every method is."""
    yield "<h2>What is measured</h2>"
    yield definitions({name: _ALL[name] for name in results["measures"]})
    yield "<h2>What is compared</h2>"
    yield table(("method", ""), [(html.escape(n), html.escape(e["what"])) for n, e in results["methods"].items()])


def _verdict_row(verdict: Verdict) -> tuple[str, ...]:
    cells = [f"{_share(share)}<br><small>{verdict.leads[name]}</small>" for name, share in verdict.shares.items()]
    return html.escape(verdict.rival), *cells, html.escape(verdict.preferred)


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
    yield table(head, rows)


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
        yield f"<h2>By {label}</h2>" + table((label, "clips", *measures), rows)


def _videos(results: Results, out: Path) -> Iterable[str]:
    """A video a clip, methods side by side, and a still of all for where no video can play.

    Nothing where the folder came from another machine without its clips, which are most of its bytes.
    """
    wanted = (INPUT, EDIT, ANSWER, *(best(results, group, "perceptual") for group in _SHOWN))
    clips = {name: shown for name in wanted if name and (shown := shown_clips(out, name)) is not None}
    if not clips:
        return
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


_SHOWN = (
    MASKED,
    MASKED_IN_SIGHT,
    CLICKED,
    MASKED_BY_CHANGE,
    CHANGE_DESCRIBED,
    CHANGE_IN_SIGHT,
    DEPTH_BY_FRAME,
    SDEDIT_BY_FRAME,
    SDEDIT_BY_CLIP,
    FIRST_FRAME,
    ATLAS,
    INVERSION,
    BIVDIFF,
    TOKENFLOW,
    OWN_STRUCTURE,
)
