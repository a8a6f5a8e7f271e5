"""`gen1 bench customize`: a subject of the test split is learned from pictures, then edits are compared with answers.

one shape, one content of the test split ─► 20 views ─► adapter
other structures, that content ─► edits before and after ─► CLIP distance to the render, and PSNR
the ordinary benchmark ─► PSNR before and after
"""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from gen1_jax import synthetic
from gen1_jax.checkpoints.trained import TrainedModel, open_trained
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import EditSettings
from gen1_jax.errors import counted
from gen1_jax.evaluation.editor import Editor
from gen1_jax.evaluation.told import Way
from gen1_jax.evaluation.worlds import EditClips, Scene, Worlds, scene
from gen1_jax.measures import bootstrap, embedding_distance, psnr
from gen1_jax.models.module import cast_kernels
from gen1_jax.pretrained.folder import ModelSource
from gen1_jax.pretrained.subject import embedding_of
from gen1_jax.training.customise import Captioned, CustomiseOptions, Report, make_data, make_recipe
from gen1_jax.training.loop import train

DISTANCE_BAR, LOSS_BAR = 0.6, 0.2
"""Of the CLIP distance before, at most; and dB that the ordinary benchmark may lose."""

_CASES = {
    "subject": "new structures of its shape, told its mean embedding",
    "picture": "the same, told its first picture",
    "other shapes": "structures of other shapes, told its mean embedding",
}
_SETTINGS = ("rank", "targets", "steps", "batch_size", "learning_rate", "content_dropout", "mirror", "seed")
_VIEWS_FROM = 1 << 24  # seeds of views, far behind those of structures that are edited


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubjectViews:
    """A subject that no training has seen.

    Attributes:
        shape: of its object.
        content: of all its pictures.
        pictures: of it, from structures of its own.
    """

    shape: str
    content: synthetic.Content
    pictures: tuple[Captioned, ...]

    def __str__(self) -> str:
        structure = synthetic.sample_structure(0, shapes=(self.shape,))
        return synthetic.caption(self.content, structure, seed=0, form="short")

    def scene(self, split: str, index: int, seed: int) -> Scene:
        """A structure of its shape, unlike those of its pictures, whose answer has this content; see `Worlds`."""
        drawn = synthetic.clip_seed(split, index, seed)
        structure = synthetic.sample_structure(drawn, shapes=(self.shape,))
        return structure, synthetic.sample_content(drawn, structure, split), self.content

    def scene_of_others(self, split: str, index: int, seed: int) -> Scene:
        """Any structure of a split, whose answer has this content."""
        structure, source, _ = scene(split, index, seed)
        return structure, source, self.content

    @classmethod
    def draw(cls, count: int, size: tuple[int, int], seed: int) -> "SubjectViews":
        """A shape and a content of the test split by a seed, and `count` pictures."""
        shape = synthetic.SHAPE_NAMES[seed % len(synthetic.SHAPE_NAMES)]
        seeds = [synthetic.clip_seed("test", _VIEWS_FROM + 1000 * seed + i) for i in range(count)]
        structures = [synthetic.sample_structure(s, shapes=(shape,)) for s in seeds]
        content = synthetic.sample_content(seeds[0], structures[0], "test")
        render = lambda structure: synthetic.render(structure, content, frames=1, size=size)
        views = [np.asarray(jax.device_get(render(structure).rgb))[0] for structure in structures]
        return cls(shape=shape, content=content, pictures=tuple(Captioned(view, "") for view in views))


class _Case(NamedTuple):
    """Edits of some structures that are told one content."""

    editor: Editor
    content: Float32[np.ndarray, " d"]
    answers: Float32[np.ndarray, "n t d"]


class CustomiseBench:
    """Edits of a model before it is customised, with which those after it are compared.

    One pipeline serves for both, so that everything but the U-Net's weights is the same and is compiled once.

    Args:
        pipeline: the model as it is.
        subject: that it is to learn.
        embedding: the mean one of its pictures.
        clips: structures that are edited, and edits of the ordinary benchmark.
        batch_size: clips edited at once at most.
        report: called with what is done, how much of it, and of how much.
    """

    def __init__(
        self,
        pipeline: Gen1Pipeline,
        subject: SubjectViews,
        embedding: Float32[np.ndarray, " d"],
        *,
        clips: int,
        batch_size: int,
        report: Report = lambda *_: None,
    ):
        self._pipeline, self._report, self._clips = pipeline, report, clips
        config = pipeline.config
        size = dict(frames=config.num_frames, height=config.height, width=config.width)
        self._way = Way(settings=EditSettings().of(config))
        picture = subject.pictures[0].picture
        first = np.asarray(pipeline.clip.encode_image(pipeline.clip.preprocess(picture[None])))[0]
        editors = [
            Editor(pipeline, Worlds(clips, **size, make=make), batch_size=batch_size, content=embedding)
            for make in (subject.scene, subject.scene_of_others)
        ]
        own, others = ((editor, editor.embed(editor.worlds.clips.answer)) for editor in editors)
        self._cases = {
            "subject": _Case(own[0], embedding, own[1]),
            "picture": _Case(own[0], first, own[1]),
            "other shapes": _Case(others[0], embedding, others[1]),
        }
        self._ordinary = Editor(pipeline, Worlds(clips, **size), batch_size=batch_size)
        self._autoencoded = _distance(self._cases["subject"], own[0].through_autoencoder(own[0].worlds.clips.answer))
        self._before = self._measure("before")

    def compare(self, trained: ModelSource) -> dict[str, Any]:
        """What another U-Net makes of it.

        Returns:
            Plain values: of structures of its shape that are told the subject's mean embedding ("subject") or that of
            its first picture ("picture"), and of any structures that are told the former ("other shapes"), the
            distance before and after, their ratio with its interval over clips, and PSNR; and what the ordinary
            benchmark loses.
        """
        unet = self._pipeline.unet
        own = unet.params
        unet.params = jax.device_put(cast_kernels(trained.parameters("unet"), self._pipeline.dtype))
        try:
            after = self._measure("after")
        finally:
            unet.params = own
        found: dict[str, Any] = {}
        for name in self._cases:
            psnrs = [float(measured[f"{name} PSNR"].mean()) for measured in (self._before, after)]
            found[name] = _compared(self._before[name], after[name]) | {"psnr": psnrs}
        lost = bootstrap(self._before["ordinary"] - after["ordinary"])
        psnrs = {"before": float(self._before["ordinary"].mean()), "after": float(after["ordinary"].mean())}
        interval = [float(lost.low), float(lost.high)]
        found["ordinary"] = psnrs | {"lost": float(lost.mean), "interval": interval}
        return found | {"autoencoded answer": float(self._autoencoded.mean())}

    def _measure(self, when: str) -> dict[str, Float32[np.ndarray, " n"]]:
        found = {}
        for name, case in self._cases.items():
            told = lambda done, total, name=name: self._report(f"edits {when}, {name}", done, total)
            case.editor.content = np.tile(case.content, (self._clips, 1, 1))
            edits = case.editor.edit(self._way, told)
            found |= {name: _distance(case, edits), f"{name} PSNR": _psnr(case.editor, edits)}
        told = lambda done, total: self._report(f"edits {when}, ordinary", done, total)
        return found | {"ordinary": _psnr(self._ordinary, self._ordinary.edit(self._way, told))}


def _distance(case: _Case, edits: EditClips) -> Float32[np.ndarray, " n"]:
    """1 - cosine of CLIP's embeddings of frames and of the answers', mean over frames."""
    return np.asarray(embedding_distance(case.editor.embed(edits), case.answers), np.float32)


def _psnr(editor: Editor, edits: EditClips) -> Float32[np.ndarray, " n"]:
    pair = (jnp.asarray(clips, jnp.float32) / 255 for clips in (edits, editor.worlds.clips.answer))
    return np.asarray(psnr(*pair))


def bench_customise(
    options: CustomiseOptions,
    workdir: Path,
    *,
    clips: int = 16,
    views: int = 20,
    batch_size: int = 16,
    report: Report = lambda *_: None,
) -> dict[str, Any]:
    """Learns a subject and measures; see `CustomiseBench.compare`.

    Args:
        options: of the customisation; its seed chooses the subject.
        workdir: of the run; one that is there goes on, or is measured if it is done.
        clips: structures that are edited, and edits of the ordinary benchmark.
        views: pictures of the subject.
        batch_size: clips edited at once at most.
        report: called with what is done, how much of it, and of how much.
    """
    source = open_trained(options.model)
    began = time.perf_counter()
    subject = SubjectViews.draw(views, (source.config.height, source.config.width), options.seed)
    make_data(workdir, source, options, subject.pictures, None, report)
    prepared = time.perf_counter()
    told = lambda done, total, note: report(note, done, total)
    outcome = train(make_recipe(workdir, source, options), workdir, progress=told)
    trained, seconds = TrainedModel(workdir), {"data": prepared - began, "training": time.perf_counter() - prepared}
    embedding = embedding_of(trained.subjects)
    bench = CustomiseBench(Gen1Pipeline(source), subject, embedding, clips=clips, batch_size=batch_size, report=report)
    return {
        "model": source.name,
        "shown": str(subject),
        "clips": clips,
        "views": views,
        **{name: getattr(options, name) for name in _SETTINGS},
        **bench.compare(trained),
        "step_seconds": outcome.metrics.get("step_seconds"),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }


def render_bench(result: dict[str, Any]) -> Iterator[str]:
    """Lines for people."""
    yield f"{result['model']}: {result['shown']}, {result['views']} views; {counted(result['clips'], 'clip')} each"
    yield (
        f"rank {result['rank']}, {counted(result['steps'], 'step')} of {result['batch_size']} "
        f"at {result['learning_rate']:g}: "
        f"{result['seconds']['training']} s, and {result['seconds']['data']} s before it"
    )
    for name, what in _CASES.items():
        found = result[name]
        low, high = found["interval"]
        verdict = "reached" if found["ratio"] <= DISTANCE_BAR else "missed "
        yield (
            f"{verdict}  CLIP distance to the answer, {what}: {found['before']:.4f} before, "
            f"{found['after']:.4f} after, {found['ratio']:.2f} [{low:.2f}, {high:.2f}] (at most {DISTANCE_BAR}); "
            f"PSNR {found['psnr'][0]:.2f} and {found['psnr'][1]:.2f} dB"
        )
    yield f"         the answer through the autoencoder: {result['autoencoded answer']:.4f}"
    lost = result["ordinary"]
    verdict = "reached" if lost["lost"] <= LOSS_BAR else "missed "
    yield (
        f"{verdict}  ordinary benchmark: {lost['before']:.2f} dB before, {lost['after']:.2f} after, loses "
        f"{lost['lost']:.2f} [{lost['interval'][0]:.2f}, {lost['interval'][1]:.2f}] dB (at most {LOSS_BAR})"
    )


def _compared(before: Float32[np.ndarray, " n"], after: Float32[np.ndarray, " n"]) -> dict[str, Any]:
    """Means, and the ratio of means with its interval over resampled clips."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(before), size=(2000, len(before)))
    ratios = after[drawn].mean(1) / before[drawn].mean(1)
    return {
        "before": float(before.mean()),
        "after": float(after.mean()),
        "ratio": float(after.mean() / before.mean()),
        "interval": [float(x) for x in np.quantile(ratios, (0.025, 0.975))],
    }
