"""What an adapter that was made by `gen1 customize` shows: its subject, told in the adapter or beside a model.

A model whose content is CLIP's embedding of a picture is told of it by the mean embedding of the training pictures, a
model whose content is text by the caption that they had.
"""

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from gen1_jax.errors import UserError
from gen1_jax.pretrained.tensors import read_text

SUBJECT = "subject.json"
"""Of a model folder or a workdir; the text of `Subject.to_text`."""

IN_HEADER = "gen1_jax_subject"
"""The same in the header of an adapter's file."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A subject.

    Attributes:
        embedding: of CLIP, not normalised, for models that read such; or None.
        caption: of the training pictures, or None.
    """

    embedding: Float[np.ndarray, " d"] | None = None
    caption: str | None = None

    def to_text(self) -> str:
        """JSON."""
        embedding = None if self.embedding is None else [float(x) for x in self.embedding]
        return json.dumps({"caption": self.caption, "embedding": embedding})

    @classmethod
    def from_text(cls, text: str, source: str) -> "Subject":
        """The inverse of `to_text`.

        Raises:
            UserError: it is none; names `source`.
        """
        try:
            values = json.loads(text)
            caption, embedding = values.get("caption"), values.get("embedding")
            embedding = None if embedding is None else np.array(embedding, np.float32)
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise UserError(f"{source}: what it says of its subject is damaged") from None
        is_vector = embedding is None or (embedding.ndim == 1 and np.isfinite(embedding).all() and embedding.any())
        if not is_vector or not isinstance(caption, str | None):
            raise UserError(f"{source}: what it says of its subject is damaged")
        return cls(embedding, caption)


def read_subject(file: Path) -> Subject:
    """A `Subject` from a file that holds its text.

    Raises:
        UserError: it cannot be read or is damaged.
    """
    return Subject.from_text(read_text(file), str(file))


def embedding_in(file: str | os.PathLike[str]) -> Float[np.ndarray, " d"]:
    """The embedding that such a file has.

    Raises:
        UserError: it cannot be read or is damaged, or has none.
    """
    embedding = read_subject(Path(file)).embedding
    if embedding is None:
        raise UserError(f"{file}: it has no embedding of its subject")
    return embedding


Subjects = Sequence[tuple[Subject, float]]
"""Subjects, and how much each counts: the strengths of their adapters."""


def mean_embedding(embeddings: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " d"]:
    """The mean of embeddings, as long as they are on average: a mean of different directions is shorter."""
    mean = embeddings.astype(np.float64).mean(0)
    return (mean * np.linalg.norm(embeddings, axis=-1).mean() / np.linalg.norm(mean)).astype(np.float32)


def embedding_of(subjects: Subjects, prompt: Float[np.ndarray, " d"] | None = None) -> Float[np.ndarray, " d"] | None:
    """The content that subjects make, alone or beside a prompt's; None if none of them has an embedding.

    It has the direction of the sum of all directions, the prompt's counted once and each subject's by its strength,
    and the prompt's length, or the subjects' mean length.
    """
    told = [(subject.embedding, weight) for subject, weight in subjects if subject.embedding is not None and weight]
    if not told:
        return None
    vectors = [np.asarray(vector, np.float64) for vector, _ in told]
    weights, lengths = [weight for _, weight in told], [float(np.linalg.norm(vector)) for vector in vectors]
    length = math.fsum(lengths) / len(lengths)
    if prompt is not None:
        vectors, weights = [*vectors, np.asarray(prompt, np.float64)], [*weights, 1.0]
        length = float(np.linalg.norm(vectors[-1]))
        lengths.append(length)
    total = sum(w * vector / norm for vector, w, norm in zip(vectors, weights, lengths, strict=True))
    return (total * (length / max(float(np.linalg.norm(total)), 1e-12))).astype(np.float32)


def caption_of(subjects: Subjects) -> str | None:
    """The captions of subjects, one after the other; None if none of them has one."""
    captions = [subject.caption for subject, weight in subjects if subject.caption and weight]
    return ", ".join(dict.fromkeys(captions)) or None
