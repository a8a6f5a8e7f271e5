"""`gen1 evaluate --benchmark swap`: the structure of one clip with the content of another, against the render of both.

structure i, content a ──► source ──structure──┐
structure j, content b ──► other ───content────┴─► edit    answer: the render of structure i in content b

No words are needed, so that depth and CLIP can be compared with a split that has learned both. Beside that, leakage:
what linear probes read in either half that the other should tell alone.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from gen1_jax import synthetic
from gen1_jax.editing.settings import EditSettings
from gen1_jax.evaluation.bars import Results, mean_score
from gen1_jax.evaluation.editor import Editor
from gen1_jax.evaluation.local_worlds import largest_object
from gen1_jax.evaluation.methods import EDIT, Method, first_methods
from gen1_jax.evaluation.scores import Measure, Scorer, Scores
from gen1_jax.evaluation.told import Way
from gen1_jax.evaluation.worlds import EditClips, Scene, ShownSource, ShownWorlds, Worlds
from gen1_jax.measures.probes import probe_labels, probe_values
from gen1_jax.models.structure import normalise_depth
from gen1_jax.pretrained.family import Gen1Config

OWN_CONTENT, OWN_STRUCTURE, OWN_BOTH = "own content", "own structure", "own structure and content"

_OTHERS = 1 << 24  # structures of the other clips come from seeds far behind those of the edited ones
_PIECES = 8  # along each side of the picture of depth that is predicted

_OF_CONTENT, _OF_STRUCTURE = ("material", "environment", "style"), ("depth", "camera")
_HALVES = {"structure": _OF_STRUCTURE, "content": _OF_CONTENT}
_LABELS = (*_OF_CONTENT, "camera")
_WHAT = {
    "material": "the material of the largest object",
    "environment": "the environment",
    "style": "the style",
    "depth": f"{_PIECES} x {_PIECES} pieces of the first frame's true depth",
    "camera": "how the camera moves",
}

LEAK_MEASURES = {
    f"{half}_tells_{what}": Measure(
        "higher" if what in own else "lower",
        "0 or 1" if what in _LABELS else "at most 1",
        f"{'whether' if what in _LABELS else 'how much of'} {_WHAT[what]} a linear probe finds in the {half}"
        + ("" if what in _LABELS else ", R²"),
    )
    for half, own in _HALVES.items()
    for what in (*_OF_CONTENT, *_OF_STRUCTURE)
}
"""What linear probes find in both halves, clip by clip: much of their own, and of the other's no more than chance."""

PROBE_MEASURES = {
    **LEAK_MEASURES,
    **{
        f"chance_{what}": Measure("lower", "0 or 1", f"whether {_WHAT[what]} is the most frequent one: a blind guess")
        for what in _LABELS
    },
    "entries_used": Measure("higher", "0 to 1", "share of the entries of a split's codebooks that any frame has"),
}
"""Those beside what is found without any representation, and how much of a code is in use."""


class SwapWorlds(Worlds):
    """Edits whose content is shown by another clip. See `Worlds`.

    Attributes:
        others: as many clips, of structures of their own in the contents of the answers.
    """

    def __init__(self, count: int, **options: Any):
        super().__init__(count, **options)
        self.others = Worlds(count, **options | {"make": self._other, "maps": ()})

    def _other(self, split: str, index: int, seed: int) -> Scene:
        structure = synthetic.sample_structure(synthetic.clip_seed(split, index + _OTHERS, seed))
        return structure, self.scenes[index][2], self.scenes[index][2]


class SwapEditor(Editor):
    """Edits that are told what other clips show. See `Editor`."""

    def told_contents(self) -> tuple[Float32[np.ndarray, "n m d"], None]:
        """What the other clips show."""
        return self.shown(self.worlds.others.clips.source), None

    def of_clips(self, clips: EditClips) -> "SwapEditor":
        """An editor of other clips that is told the same."""
        return self.showing(ShownWorlds(ShownSource(clips), self.worlds.prompts))

    @cached_property
    def own_content(self) -> Float32[np.ndarray, "n m d"]:
        """What the answers show themselves."""
        return self.shown(self.worlds.clips.answer)


def swap_methods(settings: EditSettings, config: Gen1Config | None = None) -> list[Method]:
    """What is compared: the swap, and what it would be if either half came from the answer itself."""
    way = Way(settings=settings)
    told = {
        EDIT: ("the structure of the clip with the content of another", {}),
        OWN_CONTENT: ("the same with the content of the answer itself", dict(content=True)),
        OWN_STRUCTURE: (
            "the same with its structure: it gains what structure tells of content",
            dict(structure=True),
        ),
        OWN_BOTH: ("the same with both", dict(structure=True, content=True)),
    }
    edit, *own = (Method(name, None, what, partial(_edited, way=way, **of)) for name, (what, of) in told.items())
    return [edit, *first_methods(settings)[1:], *own]


def _edited(editor: SwapEditor, *, way: Way, structure: bool = False, content: bool = False) -> EditClips:
    """The edits, with structure or content of the answers where that is said."""
    follows = editor.of_clips(editor.worlds.clips.answer) if structure else editor
    with follows.telling(editor.own_content if content else editor.content):
        edits = follows.edit(way)
    if structure:
        editor.evaluations += follows.evaluations
    return edits


class SwapScorer(Scorer):
    """`MEASURES` of swaps; of both halves of the model `PROBE_MEASURES`."""

    def components(self) -> Scores:
        """See `Scorer.components`; each clip's probes are the mean of those of its source, its answer and the other."""
        return super().components() | self._probes()

    def _probes(self) -> Scores:
        editor, count = self.editor, len(self.editor.worlds)
        if count < 2:  # there is nothing to learn from
            return {name: np.full(count, np.nan) for name in PROBE_MEASURES}
        worlds, others = editor.worlds, editor.worlds.others
        clips = (worlds.clips.source, worlds.clips.answer, others.clips.source)
        told = [(s, a) for s, a, _ in worlds.scenes], [(s, b) for s, _, b in worlds.scenes]
        labels = _labels([*told[0], *told[1], *((s, b) for s, b, _ in others.scenes)])
        inverse_depth = np.concatenate([w.clips.inverse_depth[:, :1] for w in (worlds, worlds, others)])
        depth = np.asarray(_pieces(jnp.asarray(inverse_depth))).reshape(len(inverse_depth), -1)
        halves = {
            "structure": np.concatenate([self._structure(each) for each in clips]),
            "content": np.concatenate([editor.shown(each).reshape(count, -1) for each in clips]),
        }
        groups, scores = np.tile(np.arange(count), len(clips)), {}
        for half, features in halves.items():
            for what in _WHAT:
                if what in labels:
                    scores[f"{half}_tells_{what}"], chance = probe_labels(features, labels[what], groups)
                    scores[f"chance_{what}"] = chance
                else:
                    scores[f"{half}_tells_{what}"] = probe_values(features, depth, groups)
        by_clip = {name: values.reshape(len(clips), count).mean(0) for name, values in scores.items()}
        return by_clip | {"entries_used": np.full(count, self._entries_used(clips))}

    def _structure(self, clips: EditClips) -> Float[np.ndarray, "n d"]:
        """What the denoiser is told of the structure of the first and the last frame."""
        follows = self.editor.of_clips(clips)
        way, maps = Way(settings=EditSettings().of(follows.pipeline.config)), []
        for indices in follows.batches():
            signals = follows.told(way, indices).structure.values()
            maps.append(np.concatenate([_flat(signal.maps[:, [0, -1]]) for signal in signals], axis=-1))
        return np.concatenate(maps)[: len(clips)]

    def _entries_used(self, clips: Sequence[EditClips]) -> float:
        """Of the codebooks of a split, the share that is in use in any frame of the clips; NaN without a split."""
        split = self.editor.pipeline.config.split
        if split is None:
            return float("nan")
        found = np.zeros((split.groups, 2**split.bits), bool)
        for each in clips:
            latents = self.editor.of_clips(each).latents
            for indices in self.editor.batches():
                code = self.editor.pipeline.network("split").encode(jnp.asarray(latents[indices]))
                for group in range(split.groups):
                    found[group, np.unique(code.entries[..., group])] = True
        return float(found.mean())


@jax.jit
def _pieces(inverse_depth: Float[Array, "n 1 h w"]) -> Float[Array, "n 1 i j"]:
    return jax.image.resize(normalise_depth(inverse_depth), (len(inverse_depth), 1, _PIECES, _PIECES), "linear")


def _flat(maps: Float[Array, "b t h w c"]) -> Float[np.ndarray, "b d"]:
    return np.asarray(maps, np.float32).reshape(len(maps), -1)


def _labels(scenes: Sequence[tuple[synthetic.Structure, synthetic.Content]]) -> dict[str, Int[np.ndarray, " n"]]:
    """What is known of each clip, by name, as numbers."""
    found = {
        "material": [content.materials[largest_object(structure)] for structure, content in scenes],
        "environment": [content.environment for _, content in scenes],
        "style": [content.style for _, content in scenes],
        "camera": [structure.camera_kind for structure, _ in scenes],
    }
    return {name: np.array(values, int) for name, values in found.items()}


def rates(several: Sequence[Results]) -> Iterator[str]:
    """A table over bits a frame, for a terminal: a model a line, first those without a split.

    Args:
        several: as in results.json, each of a swap benchmark.
    """
    rows = [("model", "bits a frame", "psnr", "perceptual", "gain of own structure", "leak of style", "entries used")]
    for results in sorted(several, key=lambda results: results.get("bits_per_frame") or 0):
        swap, own = (mean_score(results, name, "psnr") for name in (EDIT, OWN_STRUCTURE))
        leak, chance, used = (
            results["components"][name]["mean"] for name in ("structure_tells_style", "chance_style", "entries_used")
        )
        bits = results.get("bits_per_frame")
        leaks = "" if leak is None else f"{leak:.3f} (chance {chance:.3f})"
        scores = (f"{swap:.2f}", f"{mean_score(results, EDIT, 'perceptual'):.3f}", f"{own - swap:+.2f}", leaks)
        rows.append((results["model"], str(bits or "-"), *scores, "-" if used is None else f"{used:.3f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def lines(results: Results) -> Iterator[str]:
    """What a swap benchmark has found, for a terminal.

    Args:
        results: as in results.json.
    """
    for name in results["methods"]:
        psnr, distance = (mean_score(results, name, measure) for measure in ("psnr", "perceptual"))
        yield f"{name:32}  {psnr:6.2f} dB  {distance:.3f} in CLIP's space"
    components = results["components"]
    mean = lambda name: "" if components.get(name, {}).get("mean") is None else f"{components[name]['mean']:.3f}"
    yield f"{'a linear probe finds':32}  " + "  ".join(f"{what:>11}" for what in _WHAT)
    for half in _HALVES:
        yield f"{f'  in the {half}':32}  " + "  ".join(f"{mean(f'{half}_tells_{what}'):>11}" for what in _WHAT)
    yield f"{'  by chance':32}  " + "  ".join(f"{mean(f'chance_{what}'):>11}" for what in _WHAT)
    if mean("entries_used"):
        yield f"{'entries of the codebooks in use':32}  {mean('entries_used')}"
