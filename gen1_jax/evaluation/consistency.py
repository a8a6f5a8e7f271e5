"""The paper's two measures of an edit, cosines of CLIP embeddings (arXiv 2302.03011, section 4.3)."""

import numpy as np
from jaxtyping import Float


def frame_consistency(embeddings: Float[np.ndarray, "t d"]) -> float:
    """Mean cosine of the image embeddings of consecutive frames; 1 for a single frame."""
    frames = unit(embeddings)
    return float((frames[1:] * frames[:-1]).sum(-1).mean()) if len(frames) > 1 else 1.0


def prompt_consistency(embeddings: Float[np.ndarray, "t d"], prompt: Float[np.ndarray, " d"]) -> float:
    """Mean cosine of the image embeddings of all frames with the text embedding of the prompt."""
    return float((unit(embeddings) @ unit(prompt)).mean())


def unit(x: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n d"]:
    """The vectors at length 1; zeros stay."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
