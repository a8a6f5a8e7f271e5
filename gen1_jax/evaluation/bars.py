"""What a good model of the worlds has to reach, and whether it does."""

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from gen1_jax.diffusion import Guidance
from gen1_jax.editing.keyframes import evaluations
from gen1_jax.editing.settings import parse_structures
from gen1_jax.evaluation.inputs import ANSWER_CARRIED, ANSWER_KNOWN, FIRST_KNOWN, FOLLOWED, KEYFRAMES, WITH_SOURCE
from gen1_jax.evaluation.methods import (
    ANSWER,
    AUTOENCODED,
    CHANGE_DESCRIBED,
    CHANGE_IN_SIGHT,
    CLICKED,
    EDIT,
    FIRST_FRAME,
    MASKED,
    MASKED_BY_CHANGE,
    MASKED_IN_SIGHT,
    SDEDIT_BY_FRAME,
)
from gen1_jax.evaluation.scores import KIND_MEASURES, MEASURES
from gen1_jax.measures import Interval, bootstrap


class Bar(NamedTuple):
    """One line of the verdict: a figure, what was measured, the bar that it has to reach, and whether it does."""

    figure: str
    measured: str
    bar: str
    reached: bool


Results = dict[str, Any]
ClipIndices = slice | list[int] | Int[np.ndarray, " k"]

BETTER = {name: MEASURES[name].sign for name in ("psnr", "ssim", "perceptual")}
"""Measures of nearness to the answer: 1 where higher is better, -1 where lower is."""


def bars(results: Results) -> list[Bar]:
    """The verdict on results as results.json holds them; what was not measured is left out."""
    of_structure = (_over_temporal_guidance, _over_structure, _over_kinds, _followed)
    parts = (*of_structure, _edit, _first_frame_known, _keyframes_first, _masked, _unmasked, _components)
    return [bar for part in parts for bar in part(results)]


def _over_temporal_guidance(results: Results) -> Iterator[Bar]:
    swept = sweep(results, "temporal_guidance_scale")
    wanted = [swept[value] for value in (0.5, 1.0, 1.5) if value in swept]
    if len(wanted) == 3:
        clips = [clip_scores(results, name, "frame_consistency") for name in wanted]
        rises = [bootstrap(after - before) for before, after in itertools.pairwise(clips)]
        measured = " / ".join(f"{np.nanmean(values):.4f}" for values in clips)
        measured += ", rises by " + ", ".join(map(str, rises))
        yield Bar(
            "frame consistency at ω_t 0.5 / 1 / 1.5", measured, "each rise above 0", all(r.low > 0 for r in rises)
        )


def _over_structure(results: Results) -> Iterator[Bar]:
    swept = sweep(results, "structure_blur")
    if len(swept) == 8:
        means = [mean_score(results, swept[level], "structure_error") for level in range(8)]
        rising = all(after >= before for before, after in itertools.pairwise(means))
        measured = " ".join(f"{mean:.3f}" for mean in means)
        yield Bar("structure error at t_s 0 ... 7", measured, "rises", rising)
    if 0 in swept:
        ratio = mean_score(results, swept[0], "structure_error") / mean_score(results, ANSWER, "structure_error")
        yield Bar("structure error at t_s 0, relative to the answer's", f"{ratio:.2f}", "at most 1.5", ratio <= 1.5)


def _over_kinds(results: Results) -> Iterator[Bar]:
    """Of every kind of structure that the edit follows, how much more it is off than that of the answer itself."""
    structure = results["config"]["settings"]["structure"]
    followed = None if structure is None else {f"{use.kind}_error" for use in parse_structures(structure)}
    for name in sorted(KIND_MEASURES if followed is None else followed & KIND_MEASURES.keys()):
        if name in results["methods"][EDIT]["scores"]:
            edit, answer = (mean_score(results, method, name) for method in (EDIT, ANSWER))
            ratio = edit / answer if answer > 0 else np.inf
            measured = f"{ratio:.2f} ({edit:.3g} of {answer:.3g})"
            yield Bar(f"{name.replace('_', ' ')}, relative to the answer's", measured, "at most 1.5", ratio <= 1.5)


def _followed(results: Results) -> Iterator[Bar]:
    """Of each kind that the edit follows in the place of depth, or beside it."""
    for method, entry in results["methods"].items():
        name = f"{str(entry['value']).rpartition('+')[2]}_error"
        if entry["group"] == FOLLOWED and name in entry["scores"]:
            edit, answer = (mean_score(results, each, name) for each in (method, ANSWER))
            ratio = edit / answer if answer > 0 else np.inf
            figure = f"{name.replace('_', ' ')} by {entry['value']}, relative to the answer's"
            yield Bar(figure, f"{ratio:.2f} ({edit:.3g} of {answer:.3g})", "at most 1.5", ratio <= 1.5)


def _edit(results: Results) -> Iterator[Bar]:
    ways = min(64, len(clip_scores(results, EDIT, "retrieved")))
    for name, bar in ((EDIT, 0.70), (ANSWER, 0.90)):
        interval = _interval(results["methods"][name]["scores"]["retrieved"])
        yield Bar(f"prompt retrieval of {ways}, {name}", interval.percent, f"at least {bar:.0%}", interval[0] >= bar)
    for group, bar in ((SDEDIT_BY_FRAME, 0.75), (FIRST_FRAME, 0.80)):
        for measure, what in (("perceptual", "in CLIP's space"), ("psnr", "by PSNR")):
            if rival := best(results, group, measure):
                share = nearer(results, rival, measure)
                figure = f"nearer to the answer than {rival}, {what}"
                yield Bar(figure, share.percent, f"at least {bar:.0%}", share.mean >= bar)


def _first_frame_known(results: Results) -> Iterator[Bar]:
    """A first frame that the model goes on from, against the same frame carried along the true motion."""
    for ours, rival in ((FIRST_KNOWN, FIRST_FRAME), (ANSWER_KNOWN, ANSWER_CARRIED)):
        if {ours, rival} <= results["methods"].keys():
            for measure, what in (("perceptual", "in CLIP's space"), ("psnr", "by PSNR")):
                share = nearer(results, rival, measure, ours=ours)
                yield Bar(f"{ours}, nearer than {rival}, {what}", share.percent, "at least 80%", share.mean >= 0.8)


def _keyframes_first(results: Results) -> Iterator[Bar]:
    """How many evaluations are saved by the longest stride that is not farther from the answer than the edit."""
    names = {e["value"]: name for name, e in results["methods"].items() if e["group"] == KEYFRAMES}
    if not names:
        return
    settings, frames = results["config"]["settings"], results["size"][0]
    scales = (settings[name] for name in ("guidance_scale", "temporal_guidance_scale", "source_guidance_scale"))
    guidance = Guidance.of(*scales, distilled=results.get("guidance_embedded", False))
    guided = settings["num_inference_steps"], guidance, settings.get("guidance_interval") or (0.0, 1.0)
    cost = lambda stride: evaluations(frames, stride, *guided)
    saved, edit = 1.0, clip_scores(results, EDIT, "perceptual")
    for stride, name in names.items():
        farther = bootstrap(clip_scores(results, name, "perceptual") - edit)
        if farther.low <= 0:
            saved = max(saved, cost(1) / cost(stride))
    yield Bar("evaluations saved by keyframes at equal CLIP distance", f"{saved:.2f}", "at least 2.5", saved >= 2.5)


def _masked(results: Results) -> Iterator[Bar]:
    """Masked edits of one object: by its own outline, by a click, and with the clip in sight."""
    for name in (MASKED, CLICKED, MASKED_IN_SIGHT):
        if name not in results["methods"]:
            continue
        outside = _interval(results["methods"][name]["scores"]["outside_psnr"])
        yield Bar(f"{name}: outside", f"{outside[0]:.2f} dB", "exact (100)", outside[0] == 100)
        gain = bootstrap(clip_scores(results, name, "inside_psnr") - clip_scores(results, EDIT, "inside_psnr"))
        yield Bar(f"{name}: inside, over the unmasked edit", f"{gain} dB", "at least 0.5 dB", gain.mean >= 0.5)
        if AUTOENCODED in results["methods"]:
            seam, own = (mean_score(results, method, "seam_error") for method in (name, AUTOENCODED))
            figure = f"{name}: seam error, relative to that of the autoencoded answer"
            yield Bar(figure, f"{seam:.3f} / {own:.3f} = {seam / own:.2f}", "at most 1.1", seam <= 1.1 * own)


def _unmasked(results: Results) -> Iterator[Bar]:
    """Edits of one object for which nobody says where it is: by what they change, and of those with the source in
    sight the one that leaves most of the rest alone."""
    measured = {n: e for n, e in results["methods"].items() if "outside_psnr" in e["scores"]}
    names = [name for name in (MASKED_BY_CHANGE, CHANGE_DESCRIBED, CHANGE_IN_SIGHT) if name in measured]
    seeing = [name for name, entry in measured.items() if entry["group"] == WITH_SOURCE]
    outside = partial(mean_score, results, measure="outside_psnr")
    for name in names + sorted(seeing, key=outside)[-1:]:
        yield Bar(f"{name}: outside, no mask given", f"{outside(name):.2f} dB", "at least 27 dB", outside(name) >= 27)
        for measure, what in (("named", "retrieved by its prompt"), ("changed", "nearer than what was there, by PSNR")):
            share = _interval(measured[name]["scores"][measure])
            yield Bar(f"{name}: the named change is {what}", share.percent, "at least 80%", share[0] >= 0.8)


def best(results: Results, group: str, measure: str) -> str | None:
    """Of the methods of a group the one that is nearest to the answer on average; None if none was measured."""
    members = [name for name, entry in results["methods"].items() if entry["group"] == group]
    return max(members, key=lambda name: BETTER[measure] * mean_score(results, name, measure), default=None)


def nearer(results: Results, rival: str, measure: str, among: ClipIndices = slice(None), ours: str = EDIT) -> Interval:
    """The share of clips, of those `among` all, whose edit is nearer to the answer than that of a rival."""
    one, other = (clip_scores(results, name, measure)[among] for name in (ours, rival))
    return bootstrap((BETTER[measure] * (one - other) > 0).astype(float))


def by_motion(results: Results, parts: int) -> list[Int[np.ndarray, " k"]]:
    """The clips in parts of one size, those first whose exact answers change most from frame to frame."""
    return np.array_split(np.argsort(clip_scores(results, ANSWER, "frame_consistency"), kind="stable"), parts)


def mean_score(results: Results, method: str, measure: str, among: ClipIndices = slice(None)) -> float:
    """The mean score of a method over the clips, of those `among` all."""
    return float(np.nanmean(clip_scores(results, method, measure)[among]))


def _components(results: Results) -> Iterator[Bar]:
    for name, what, bar in (
        ("autoencoder_psnr", "autoencoder", 30.0),
        ("depth_delta", "depth: pixels within 25%", 0.90),
        ("clip_image_to_text", "CLIP: caption of a picture, of 64", 0.85),
        ("clip_text_to_image", "CLIP: picture of a caption, of 64", 0.85),
    ):
        interval = _interval(results["components"][name])
        share = bar <= 1
        measured = interval.percent if share else f"{interval[0]:.2f} [{interval[1]:.2f}, {interval[2]:.2f}] dB"
        yield Bar(what, measured, f"at least {bar:.0%}" if share else f"at least {bar:g} dB", interval[0] >= bar)


def sweep(results: Results, field: str) -> dict[Any, str]:
    """The methods of a sweep by the value of its setting, in order, the edit itself among them."""
    found = {entry["value"]: name for name, entry in results["methods"].items() if entry["group"] == field}
    found[results["config"]["settings"][field]] = EDIT
    return {value: found[value] for value in sorted(found)}


def clip_scores(results: Results, method: str, measure: str) -> Float[np.ndarray, " n"]:
    """A score of each clip; NaN where it was not measured."""
    values = results["methods"][method]["scores"][measure]["clips"]
    return np.array([np.nan if value is None else value for value in values])


def _interval(score: dict[str, Any]) -> Interval:
    return Interval(*(float("nan") if value is None else value for value in (score["mean"], *score["interval"])))
