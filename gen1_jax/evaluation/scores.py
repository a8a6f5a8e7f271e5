"""How good edits are whose right answer is known, clip by clip; and how good the networks are by themselves."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gen1_jax.evaluation.editor import Editor
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


class Scorer:
    """Scores edits of an editor's worlds; `gen1_jax.measures` defines each measure, its range and its direction.

    psnr, ssim: to the answer.
    perceptual: `embedding_distance` from the answer in CLIP's space.
    warp_error: along the true flow of the structure.
    structure_error: of the depth network's estimate of the edit against the true depth of the input.
    frame_consistency, prompt_consistency: the paper's.
    retrieved: `retrieval` of the prompt among 64 by the mean embedding of the edit's frames.
    """

    def __init__(self, editor: Editor):
        self.editor, self._worlds = editor, editor.worlds.clips
        self._answers = editor.embed(self._worlds.answer)
        self._prompts = editor.embed_texts(editor.worlds.prompts)
        self._measure = jax.jit(_measure)

    def score(self, clips: EditClips) -> Scores:
        """Scores of N edits, in the order of the worlds."""
        worlds, embedded = self._worlds, self.editor.embed(clips)
        arrays = (
            clips,
            worlds.answer,
            worlds.flow,
            worlds.ids,
            self.editor.estimate_depth(clips),
            worlds.inverse_depth,
        )
        return self._batched(self._measure, *arrays) | {
            "perceptual": embedding_distance(embedded, self._answers),
            "frame_consistency": np.array([frame_consistency(clip) for clip in embedded]),
            "prompt_consistency": np.array(
                [prompt_consistency(*pair) for pair in zip(embedded, self._prompts, strict=True)]
            ),
            "retrieved": retrieval(unit_vectors(embedded).mean(1), self._prompts),
        }

    def components(self) -> Scores:
        """Scores of the networks by themselves, on the answers, which no training has seen either.

        autoencoder_psnr: dB. depth_abs_rel, depth_delta: `measures.depth_errors`. clip_image_to_text,
        clip_text_to_image: retrieval of 64 by the first frame. prior_cosine: of the prior's embedding with the mean
        of the true ones. prior_retrieved: whether that mean is the nearest of 64 to it.
        """
        answer = self._worlds.answer
        rebuilt, estimate = self.editor.through_autoencoder(answer), self.editor.estimate_depth(answer)
        errors = self._batched(_depth_errors, estimate, self._worlds.inverse_depth)
        first, mean, prior = self._answers[:, 0], unit_vectors(self._answers).mean(1), self.editor.content
        return {
            "autoencoder_psnr": self._batched(_autoencoder_psnr, rebuilt, answer)["psnr"],
            **errors,
            "clip_image_to_text": retrieval(first, self._prompts),
            "clip_text_to_image": retrieval(self._prompts, first),
            "prior_cosine": (unit_vectors(prior) * unit_vectors(mean)).sum(-1),
            "prior_retrieved": retrieval(prior, mean),
        }

    def _batched(self, function: Callable[..., dict[str, Any]], *arrays: np.ndarray) -> Scores:
        """A function of clips over all of them, a batch at a time."""
        count, size = len(arrays[0]), self.editor.batch_size
        parts = []
        for start in range(0, count, size):
            indices = np.minimum(np.arange(start, start + size), count - 1)
            parts.append(jax.device_get(function(*(array[indices] for array in arrays))))
        return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}


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
