"""Measures in an embedding space in which pictures and texts can be compared, such as CLIP's. All are cosines."""

import numpy as np
from jaxtyping import Float


def frame_consistency(embeddings: Float[np.ndarray, "t d"]) -> float:
    """Mean cosine of the image embeddings of consecutive frames; 1 for a single frame.

    Higher is smoother, from -1 to 1; a still clip has 1, so it is read beside the motion.

    Source: https://arxiv.org/abs/2302.03011, section 4.3.
    """
    frames = unit_vectors(embeddings)
    return float((frames[1:] * frames[:-1]).sum(-1).mean()) if len(frames) > 1 else 1.0


def prompt_consistency(embeddings: Float[np.ndarray, "t d"], prompt: Float[np.ndarray, " d"]) -> float:
    """Mean cosine of the image embeddings of all frames with the text embedding of the prompt.

    Higher is better, from -1 to 1. CLIP's pictures and texts lie apart: with OpenAI's weights 0.3 is much.

    Source: https://arxiv.org/abs/2302.03011, section 4.3.
    """
    return float((unit_vectors(embeddings) @ unit_vectors(prompt)).mean())


def embedding_distance(
    embeddings: Float[np.ndarray, "n t d"], answers: Float[np.ndarray, "n t d"]
) -> Float[np.ndarray, " n"]:
    """1 - cosine of the image embeddings of a frame and of the frame that it should be, mean over frames.

    Lower is better, from 0 to 2.
    """
    return 1 - (unit_vectors(embeddings) * unit_vectors(answers)).sum(-1).mean(-1)


def retrieval(
    queries: Float[np.ndarray, "n d"], keys: Float[np.ndarray, "n d"], ways: int = 64
) -> Float[np.ndarray, " n"]:
    """1 where the key of a query is the nearest to it by cosine of the `ways` keys around it, else 0.

    The mean is the accuracy of telling an edit's prompt apart from `ways` - 1 others: higher is better, 1 / `ways` is
    chance. Pairs are taken in groups of `ways`; those left over are joined by the ones before them. With fewer pairs
    than `ways` the task is that much easier.
    """
    count = len(queries)
    queries, keys = unit_vectors(queries), unit_vectors(keys)
    found = np.zeros(count)
    for start in range(0, count, ways):
        group = np.arange(max(0, min(start, count - ways)), min(start + ways, count))
        nearest = group[(queries[group] @ keys[group].T).argmax(-1)]
        found[group[group >= start]] = (nearest == group)[group >= start]
    return found


def unit_vectors(vectors: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n d"]:
    """The vectors at length 1; zeros stay."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
