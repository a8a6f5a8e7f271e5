"""Several contents of one edit, each with a weight that may change along the clip.

prompt=a clay world:2      twice as much as one without a number
image=statue.jpg:1..0      less and less, to nothing at the end of the clip
prompt=a lava world:sound  as loud as the clip is
"""

import dataclasses
import os
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from PIL import Image

from gen1_jax.editing.inputs import Picture, is_several
from gen1_jax.errors import UserError
from gen1_jax.media import Limits, loudness, read_image
from gen1_jax.models.conditions import Conditions, Tokens
from gen1_jax.models.content_kind import content_kind

SOUND = "sound"
"""The weight that is the loudness of the clip."""

ANY_SOUND = np.ones(2, np.float32)
"""Stands for a loudness that is not known yet, which changes along the clip."""

Weight = float | int | str | Sequence[float | int]
"""A number; several, which are a curve along the clip from its first frame to its last; or "sound"."""

Content = str | Picture | tuple[str | Picture, Weight]
"""A prompt (text), a picture (a `Path`, one of PIL, an array), or a pair of either and its weight."""

_WEIGHT = re.compile(r"(?P<item>.*):(?P<weight>sound|[-+\d.eE]+)$", re.DOTALL)
_ITEM = re.compile(r"(?P<kind>prompt|image)=(?P<value>.*)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class ContentUse:
    """One of the contents of an edit.

    Attributes:
        prompt: in words, or None.
        image: shown, or None.
        weight: points of a curve along the clip, relative to the other contents; "sound" is the clip's loudness.
    """

    prompt: str | None = None
    image: Any = None
    weight: tuple[float, ...] | str = (1.0,)

    def __post_init__(self):
        if (self.prompt is None) == (self.image is None):
            raise UserError("a content is either a prompt or an image")
        if self.prompt is not None and not self.prompt.strip():
            raise UserError("a content has an empty prompt: say what the result should look like")
        if isinstance(self.weight, str):
            if self.weight != SOUND:
                raise UserError(f"the weight of a content is a number, a curve or {SOUND}, not {self.weight!r}")
        elif not self.weight or not all(np.isfinite(x) and 0 <= x <= 1000 for x in self.weight):
            raise UserError(f"the weight of a content must be 0 to 1000, got {_shown(self.weight)}")

    @classmethod
    def of(cls, content: "Content | ContentUse | Any") -> "ContentUse":
        """What `pipe.edit` takes as one.

        Raises:
            UserError: it is nothing of the kind.
        """
        if isinstance(content, cls):
            return content
        value, weight = content if isinstance(content, tuple) and len(content) == 2 else (content, 1.0)
        try:
            numbers = weight if is_several(weight) else [weight]
            points = weight if isinstance(weight, str) else tuple(map(float, numbers))
        except (TypeError, ValueError):
            raise UserError(f"the weight of a content is a number, a curve or {SOUND}, not {weight!r:.60}") from None
        if isinstance(value, str):
            return cls(prompt=value, weight=points)
        if isinstance(value, os.PathLike | Image.Image | np.ndarray):
            return cls(image=value, weight=points)
        raise UserError(f"a content is a prompt, a picture, or a pair of either and its weight, not {value!r:.60}")

    @classmethod
    def parse(cls, text: str) -> "ContentUse":
        """One in the notation of the command line.

        Raises:
            UserError: it is not of that form.
        """
        match = _WEIGHT.fullmatch(text)
        item, weight = (text, "1") if match is None else (match["item"], match["weight"])
        if (found := _ITEM.fullmatch(item)) is None or not found["value"]:
            raise UserError(
                f"content {text!r}: say prompt=TEXT or image=FILE, and :WEIGHT, :FROM..TO or :{SOUND} after it"
            )
        return cls(**{found["kind"]: found["value"]}, weight=parse_weight(weight, f"content {text!r}"))

    def read(self, limits: Limits) -> "ContentUse":
        """The same with the picture of a file in the place of its path.

        Raises:
            MediaError: it cannot be read, or is beyond the limits.
        """
        return self if self.image is None else dataclasses.replace(self, image=read_image(self.image, limits))

    def without_folder(self) -> "ContentUse":
        """The same with a picture's name in the place of its path."""
        return self if self.image is None else dataclasses.replace(self, image=Path(self.image).name)

    def __str__(self) -> str:
        item = f"image={self.image}" if self.prompt is None else f"prompt={self.prompt}"
        return item if self.weight == (1.0,) and not _WEIGHT.fullmatch(item) else f"{item}:{_shown(self.weight)}"


def parse_weight(text: str, of_what: str) -> tuple[float, ...] | str:
    """The weight of a content in the notation of the command line: 2, 1..0 or sound.

    Raises:
        UserError: it is none; the line begins with `of_what`.
    """
    try:
        return text if text == SOUND else tuple(map(float, text.split("..")))
    except ValueError:
        raise UserError(f"{of_what}: {text!r} is neither a number, FROM..TO nor {SOUND}") from None


def contents_given(contents: Sequence[Content | ContentUse] | Any | None) -> tuple[ContentUse, ...]:
    """The contents of an edit; none where it has a prompt or a picture instead."""
    if contents is None:
        return ()
    if not is_several(contents) or not len(contents):
        raise UserError("contents is a list of prompts and pictures")
    return tuple(map(ContentUse.of, contents))


def shares_of(uses: Sequence[ContentUse], heard: Float[np.ndarray, " t"] | None = None) -> Float[np.ndarray, "1 k n"]:
    """The part that each content has at each of some points, spread evenly from the first frame of a clip to its last.

    Args:
        uses: of the edit.
        heard: loudness of each frame, 0 to 1, for those that follow it; None for none.

    Returns:
        Of each point 1 together; one point where nothing changes.

    Raises:
        UserError: somewhere none of them has any weight, or one follows a sound that there is not.
    """
    if heard is None and any(use.weight == SOUND for use in uses):
        raise UserError(f"a content has the weight {SOUND}, but there is no sound to follow")
    curves = [np.asarray(heard if use.weight == SOUND else use.weight, np.float32) for use in uses]
    bends = [len(curve) - 1 for curve in curves if len(curve) > 1]
    at = np.linspace(0, 1, int(np.lcm.reduce(bends)) + 1 if bends else 1)  # all points of all curves
    weights = np.stack([np.interp(at, np.linspace(0, 1, len(x)), x) for x in curves])
    total = weights.sum(0)
    if (total <= 0).any():
        raise UserError("contents: somewhere in the clip none of them has any weight; give one that is above 0 there")
    return (weights / total).T[None].astype(np.float32)


def following_sound(
    told: Conditions | None,
    uses: Sequence[ContentUse],
    path: str | os.PathLike,
    times: Sequence[Fraction],
    end: Fraction,
) -> Conditions | None:
    """The same with the loudness of a file in its shares, if one of the contents follows it.

    Args:
        told: from `joined`; anything else where there are no uses.
        uses: its contents.
        path: of the file.
        times: of the frames, seconds.
        end: of the last of them.

    Raises:
        UserError: the file has no sound, or where it is silent no content has any weight.
    """
    if all(use.weight != SOUND for use in uses):
        return told
    if (heard := loudness(path, times, end)) is None:
        raise UserError(f"{path}: a content has the weight {SOUND}, but there is no sound in it")
    return dataclasses.replace(told, shares=jnp.asarray(shares_of(uses, heard)))


def joined(
    contents: Sequence[Conditions], shares: Float[np.ndarray, "b k n"], *, as_embeddings: bool = False
) -> Conditions:
    """Several contents as one: each with a prediction of its own, or mixed before the model sees them.

    Embeddings of pictures keep their length, so that a mean of two of them lies between them on a sphere.

    Args:
        contents: encoded, with the null content of each, which is the same.
        shares: of each, from `shares_of`; contents that are mixed beforehand have those of the first clip in all.
        as_embeddings: whether they are mixed beforehand: one evaluation a step instead of one for each content.

    Raises:
        UserError: shares that change along the clip, of contents that are mixed beforehand.
    """
    null = {kind: tokens for told in contents for kind, tokens in told.null.items()}
    strength = {kind: weight for told in contents for kind, weight in told.strength.items()}
    kinds = {kind: tokens for told in contents for kind, tokens in told.content.items()}
    missing = {kind: jnp.broadcast_to(null[kind], x.shape) if kind in null else 0 * x for kind, x in kinds.items()}
    first, *others = (missing | told.content for told in contents)
    if not as_embeddings:
        return Conditions(content=first, null=null, strength=strength, beside=tuple(others), shares=jnp.asarray(shares))
    if shares.shape[1] > 1:
        raise UserError("blend: embeddings are mixed for the whole clip; weights that change need predictions")
    mixed = {kind: _mean([told[kind] for told in (first, *others)], shares[0, 0], kind) for kind in kinds}
    return Conditions(content=mixed, null=null, strength=strength)


def _mean(tokens: Sequence[Tokens], shares: Float[np.ndarray, " n"], kind: str) -> Tokens:
    length = lambda x: jnp.linalg.norm(x, axis=-1, keepdims=True)
    average = lambda arrays: sum(float(share) * x for share, x in zip(shares, arrays, strict=True))
    mean = average(tokens)
    if not content_kind(kind).on_sphere:
        return mean
    return mean * average([length(x) for x in tokens]) / jnp.maximum(length(mean), 1e-6)


def _shown(weight: tuple[float, ...] | str) -> str:
    return weight if isinstance(weight, str) else "..".join(f"{x:g}" for x in weight)
