"""`gen1 bench customize`: a subject of the test split is learned from pictures, then edits are compared with answers.

one shape, one content of the test split ─► 20 views ─► adapter
other structures, that content ─► edits before and after ─► CLIP distance to the render
the ordinary benchmark ─► PSNR before and after
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from gen1_jax import synthetic
from gen1_jax.checkpoints.trained import TrainedModel, open_trained
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import EditSettings
from gen1_jax.evaluation.editor import Editor, Way
from gen1_jax.evaluation.worlds import EditClips, Scene, Worlds, scene
from gen1_jax.measures import bootstrap, embedding_distance, psnr
from gen1_jax.pretrained.subject import embedding_of
from gen1_jax.training.customise import Captioned, CustomiseOptions, make_data, make_recipe
from gen1_jax.training.loop import train

DISTANCE_BAR, LOSS_BAR = 0.6, 0.2
"""Of the CLIP distance before, at most; and dB that the ordinary benchmark may lose."""

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

    def scene(self, split: str, index: int, seed: int) -> Scene:
        """A structure of a split whose answer has this content; see `Worlds`."""
        structure, source, _ = scene(split, index, seed)
        return structure, source, self.content

    @classmethod
    def draw(cls, count: int, size: tuple[int, int], seed: int) -> "SubjectViews":
        """A shape and a content of the test split by a seed, and `count` pictures."""
        shape = synthetic.SHAPE_NAMES[seed % len(synthetic.SHAPE_NAMES)]
        seeds = [synthetic.clip_seed("test", _VIEWS_FROM + 1000 * seed + i) for i in range(count)]
        structures = [synthetic.sample_structure(s, shapes=(shape,)) for s in seeds]
        content = synthetic.sample_content(seeds[0], structures[0], "test")
        render = lambda structure: synthetic.render(structure, content, frames=1, size=size, one_by_one=True)
        views = [np.asarray(jax.device_get(render(structure).rgb))[0] for structure in structures]
        return cls(shape=shape, content=content, pictures=tuple(Captioned(view, "") for view in views))


def bench_customise(
    options: CustomiseOptions,
    workdir: Path,
    *,
    clips: int = 16,
    views: int = 20,
    batch_size: int = 16,
    report: Callable[[str, int, int], None] = lambda *_: None,
) -> dict[str, Any]:
    """Learns a subject and measures.

    Args:
        options: of the customisation; its seed chooses the subject.
        workdir: of the run; one that is there goes on, or is measured if it is done.
        clips: structures that are edited, and edits of the ordinary benchmark.
        views: pictures of the subject.
        batch_size: clips edited at once at most.
        report: called with what is done, how much of it, and of how much.

    Returns:
        Plain values: for each content ("subject", the mean embedding, and "picture", the first one's) the distance
        before and after, their ratio with its interval over clips; the dB lost; seconds.
    """
    source = open_trained(options.model)
    size = dict(frames=source.config.num_frames, height=source.config.height, width=source.config.width)
    subject = SubjectViews.draw(views, (size["height"], size["width"]), options.seed)
    began = time.perf_counter()
    make_data(workdir, source, options, subject.pictures, None, report)
    prepared = time.perf_counter()
    outcome = train(
        make_recipe(workdir, source, options), workdir, progress=lambda done, total, note: report(note, done, total)
    )
    trained = time.perf_counter()

    models = {"before": Gen1Pipeline(source), "after": Gen1Pipeline(TrainedModel(workdir))}
    asked = Worlds(clips, **size, make=subject.scene)
    contents = {
        "subject": embedding_of(models["after"].source.subjects),
        "picture": np.asarray(models["before"].content._embed_picture(subject.pictures[0].picture))[0],
    }
    way, result = Way(settings=EditSettings().of(source.config)), {}
    for name, content in contents.items():
        distances = {}
        for when, pipeline in models.items():
            report(f"edits with its {name}, {when}", 0, clips)
            editor = Editor(pipeline, asked, batch_size=batch_size, content=content)
            distances[when] = _distance(editor, editor.edit(way))
        result[name] = _compared(distances["before"], distances["after"])
    result["autoencoded answer"] = float(_distance(editor, editor.through_autoencoder(asked.clips.answer)).mean())
    result["ordinary"] = _lost(models, Worlds(clips, **size), way, batch_size, report)
    return {
        "model": source.name,
        "subject": _described(subject),
        "clips": clips,
        "views": views,
        **{
            name: getattr(options, name) for name in ("rank", "targets", "steps", "batch_size", "learning_rate", "seed")
        },
        **result,
        "step_seconds": outcome.metrics.get("step_seconds"),
        "seconds": {"data": round(prepared - began, 1), "training": round(trained - prepared, 1)},
    }


def render_bench(result: dict[str, Any]) -> Iterator[str]:
    """Lines for people."""
    yield f"{result['model']}: {result['subject']}, {result['views']} views; {result['clips']} other structures"
    yield (
        f"rank {result['rank']}, {result['steps']} steps of {result['batch_size']} at {result['learning_rate']:g}: "
        f"{result['seconds']['training']} s, and {result['seconds']['data']} s before it"
    )
    for name in ("subject", "picture"):
        found = result[name]
        low, high = found["interval"]
        verdict = "reached" if found["ratio"] <= DISTANCE_BAR else "missed "
        yield (
            f"{verdict}  CLIP distance to the answer, told its {name}: {found['before']:.4f} before, "
            f"{found['after']:.4f} after, {found['ratio']:.2f} [{low:.2f}, {high:.2f}] (at most {DISTANCE_BAR})"
        )
    yield f"         the answer through the autoencoder: {result['autoencoded answer']:.4f}"
    lost = result["ordinary"]
    verdict = "reached" if lost["lost"] <= LOSS_BAR else "missed "
    yield (
        f"{verdict}  ordinary benchmark: {lost['before']:.2f} dB before, {lost['after']:.2f} after, loses "
        f"{lost['lost']:.2f} [{lost['interval'][0]:.2f}, {lost['interval'][1]:.2f}] dB (at most {LOSS_BAR})"
    )


def _described(subject: SubjectViews) -> str:
    structure = synthetic.sample_structure(0, shapes=(subject.shape,))
    return synthetic.caption(subject.content, structure, seed=0, form="short")


def _distance(editor: Editor, edits: EditClips) -> Float32[np.ndarray, " n"]:
    """1 - cosine of CLIP's embeddings of the frames to those of the answers', mean over frames."""
    return np.asarray(embedding_distance(editor.embed(edits), editor.embed(editor.worlds.clips.answer)))


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


def _lost(
    models: dict[str, Gen1Pipeline], worlds: Worlds, way: Way, batch_size: int, report: Callable[[str, int, int], None]
) -> dict[str, Any]:
    """What the ordinary benchmark loses: edits by prompt alone, of the same noise."""
    found = {}
    for when, pipeline in models.items():
        report(f"ordinary edits, {when}", 0, len(worlds))
        edits = Editor(pipeline, worlds, batch_size=batch_size).edit(way)
        scale = lambda clips: clips.astype(np.float32) / 255
        found[when] = np.asarray(psnr(scale(edits), scale(worlds.clips.answer)))
    lost = bootstrap(found["before"] - found["after"])
    return {
        "before": float(found["before"].mean()),
        "after": float(found["after"].mean()),
        "lost": float(lost.mean),
        "interval": [float(lost.low), float(lost.high)],
    }
