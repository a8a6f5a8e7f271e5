"""How good edits are whose right answer is known, clip by clip; and how good the networks are by themselves."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gen1_jax.evaluation.editor import Editor
from gen1_jax.evaluation.judge import Judge
from gen1_jax.evaluation.kinds import KIND_ERRORS, error_name, exact_kind, measured
from gen1_jax.evaluation.worlds import EditClips
from gen1_jax.measures import (
    depth_errors,
    embedding_distance,
    frame_consistency,
    prompt_consistency,
    psnr,
    retrieval,
    ssim,
    structure_error,
    unit_vectors,
    warp_error,
)

_DEPTH_RANGE = 20.0  # of AbsRel and delta: what is farther than so many times the nearest point is the horizon

Scores = dict[str, Float[np.ndarray, " n"]]
"""One number a clip, by measure."""


class Measure(NamedTuple):
    """What a score says.

    Attributes:
        better: which way, "higher" or "lower".
        values: its range, and its unit where it has one.
        definition: in one line.
    """

    better: str
    values: str
    definition: str

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return {"higher": 1, "lower": -1}[self.better]


MEASURES = {
    "psnr": Measure(
        "higher", "dB, at most 100", "of the pixels to those of the answer: -10 log10 of the mean squared error"
    ),
    "ssim": Measure("higher", "-1 to 1", "structural similarity of the frames to those of the answer"),
    "perceptual": Measure(
        "lower", "0 to 2", "1 - cosine of the CLIP embeddings of a frame and of the answer's, mean over frames"
    ),
    "structure_error": Measure(
        "lower",
        "from 0",
        "mean error of the edit's estimated inverse depth, in mean absolute deviations of the input's true one; scale "
        "and shift of a clip are free, about 1 knows nothing",
    ),
    "warp_error": Measure(
        "lower",
        "0 to 1",
        "mean difference of a pixel and the one that the true motion takes it to; to be read against the answer's own",
    ),
    "frame_consistency": Measure(
        "higher", "-1 to 1", "mean cosine of the CLIP embeddings of consecutive frames (the paper's)"
    ),
    "prompt_consistency": Measure(
        "higher", "-1 to 1", "mean cosine of the CLIP embeddings of frames and prompt (the paper's)"
    ),
    "retrieved": Measure(
        "higher",
        "0 or 1",
        "whether of 64 prompts (of all, if they are fewer) its own is the nearest to its frames' mean embedding",
    ),
}
"""Scores of an edit, see `gen1_jax.measures`."""

KIND_MEASURES = {error_name(kind): Measure("lower", it.values, it.definition) for kind, it in KIND_ERRORS.items()}
"""Scores of edits that follow other structures than depth, of each kind its own."""

PRIOR_MEASURES = {
    "prior_cosine": Measure(
        "higher", "-1 to 1", "cosine of the prior's embedding with the mean of the answer's frames"
    ),
    "prior_retrieved": Measure("higher", "0 or 1", "whether that mean is the nearest of 64 to the prior's embedding"),
}
"""Scores of the prior, of models that have one."""

COMPONENT_MEASURES = {
    "autoencoder_psnr": Measure("higher", "dB, at most 100", "of the answer's frames after the autoencoder"),
    "depth_abs_rel": Measure("lower", "from 0", "mean error of the estimated depth, as a share of the true one"),
    "depth_delta": Measure("higher", "0 to 1", "share of pixels whose estimated depth is within 25% of the true one"),
    "clip_image_to_text": Measure("higher", "0 or 1", "whether the caption of the first frame is the nearest of 64"),
    "clip_text_to_image": Measure("higher", "0 or 1", "whether the first frame of the caption is the nearest of 64"),
    **PRIOR_MEASURES,
}
"""Scores of the networks by themselves, on the answers, which no training has seen."""


class Scorer:
    """Scores edits of an editor's worlds: `MEASURES`, and `COMPONENT_MEASURES` of its networks.

    Args:
        editor: of the model.
        kinds: of structure whose `KIND_MEASURES` are scores, too.
        judge: the CLIP whose embeddings edits are scored by; None for the model's own, towards which they were made.
    """

    def __init__(self, editor: Editor, kinds: tuple[str, ...] = (), judge: Judge | None = None):
        self._kinds = {kind: exact_kind(editor.worlds, kind) for kind in measured(kinds)}
        self.editor, self._worlds = editor, editor.worlds.clips
        self._judge = judge
        self._embed = editor.embed if judge is None else judge.embed_clips
        self._answers = self._embed(self._worlds.answer)
        self._embed_texts = (editor if judge is None else judge).embed_texts
        self._prompts = self._embed_texts(editor.worlds.prompts)
        self._measure = jax.jit(_measure)

    def score(self, clips: EditClips) -> Scores:
        """`MEASURES` of N edits, in the order of the worlds."""
        worlds, embedded = self._worlds, self._embed(clips)
        arrays = (
            clips,
            worlds.answer,
            worlds.flow,
            worlds.ids,
            self.editor.estimate_depth(clips),
            worlds.inverse_depth,
        )
        kinds = {error_name(kind): self._error(kind, clips) for kind in self._kinds}
        return self._batched(self._measure, *arrays) | self.told(embedded) | kinds

    def told(self, embedded: Float[np.ndarray, "n t d"]) -> Scores:
        """What is told of edits by the judge's embeddings of their frames alone."""
        return {
            "perceptual": embedding_distance(embedded, self._answers),
            "frame_consistency": np.array([frame_consistency(clip) for clip in embedded]),
            "prompt_consistency": np.array(
                [prompt_consistency(*pair) for pair in zip(embedded, self._prompts, strict=True)]
            ),
            "retrieved": retrieval(unit_vectors(embedded).mean(1), self._prompts),
        }

    def _error(self, kind: str, clips: EditClips) -> Float[np.ndarray, " n"]:
        """How far off the structure of a kind is."""
        return KIND_ERRORS[kind].error(self.editor.estimate(kind, clips), self._kinds[kind])

    def components(self) -> Scores:
        """`COMPONENT_MEASURES` of each answer, as far as the model has the networks."""
        answer = self._worlds.answer
        rebuilt, estimate = self.editor.through_autoencoder(answer), self.editor.estimate_depth(answer)
        errors = self._batched(_depth_errors, estimate, self._worlds.inverse_depth)
        answers, prompts = self._answers, self._prompts
        if self._judge is not None:  # this is of the model's own
            answers, prompts = self.editor.embed(answer), self.editor.embed_texts(self.editor.worlds.prompts)
        first = answers[:, 0]
        components = {
            "autoencoder_psnr": self._batched(_autoencoder_psnr, rebuilt, answer)["psnr"],
            **errors,
            "clip_image_to_text": retrieval(first, prompts),
            "clip_text_to_image": retrieval(prompts, first),
        }
        if self.editor.pipeline.config.prior is None:
            return components
        mean, prior = unit_vectors(answers).mean(1), self.editor.content[:, 0]
        return components | {
            "prior_cosine": (unit_vectors(prior) * unit_vectors(mean)).sum(-1),
            "prior_retrieved": retrieval(prior, mean),
        }

    def _batched(self, function: Callable[..., dict[str, Any]], *arrays: np.ndarray) -> Scores:
        """A function of clips over all of them, a batch at a time."""
        batches = self.editor.batches()
        parts = [jax.device_get(function(*(array[indices] for array in arrays))) for indices in batches]
        return {name: np.concatenate([part[name] for part in parts])[: len(arrays[0])] for name in parts[0]}


def _measure(clips, answers, flow, ids, estimate, truth) -> dict[str, Any]:
    clips, answers = (x.astype(jnp.float32) / 255 for x in (clips, answers))
    return {
        "psnr": psnr(clips, answers),
        "ssim": ssim(clips, answers),
        "warp_error": warp_error(clips, flow, ids),
        "structure_error": structure_error(estimate, truth),
    }


@jax.jit
def _autoencoder_psnr(clips, answers) -> dict[str, Any]:
    frames = jax.vmap(lambda a, b: psnr(a[:, None] / 255.0, b[:, None] / 255.0))(clips, answers)
    return {"psnr": frames.mean(1)}


@jax.jit
def _depth_errors(estimate, truth) -> dict[str, Any]:
    abs_rel, delta = jax.vmap(lambda a, b: depth_errors(a, b, depth_range=_DEPTH_RANGE))(estimate, truth)
    return {"depth_abs_rel": abs_rel.mean(1), "depth_delta": delta.mean(1)}
