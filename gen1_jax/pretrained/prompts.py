"""Prompts as Stable Diffusion's users write them, in AUTOMATIC1111's notation: words with weights, of any length.

(x) 1.1   ((x)) 1.21   (x:1.3)   [x] 1/1.1   \\( \\) \\[ \\] \\\\ the characters themselves   BREAK the next chunk

    prompt ─► parts with weights ─► tokens ─► chunks of 75, each with start and end ─► text encoder ─► weighted states

Nothing is an error: a closing bracket without an opening one stands for itself, an opening one without a closing one
acts up to the end, as in AUTOMATIC1111's program.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Float32, Int32

from gen1_jax.pretrained.tokenizer import CLIPTokenizer

_STRONGER = 1.1
_LARGEST = 100.0  # more would only overflow
_COMMA_AT_MOST = 20  # tokens before the end of a chunk: where it is cut rather than within what follows the comma

_PIECES = re.compile(
    r"""
    \\ (?P<literal> [()\[\]\\])                        # the character itself
    | : \s* (?P<weight> [+-]?(\d{1,9}\.?\d*|\.\d+)) \s* \)  # the end of (x:1.2)
    | (?P<bracket> [()\[\]])
    | (?P<text> [^\\()\[\]:]+ | .)
    """,
    re.VERBOSE | re.DOTALL,
)
_BREAK = re.compile(r"\bBREAK\b")


@dataclasses.dataclass
class _Piece:
    """A part of a prompt with one weight; `text` is None for a BREAK."""

    text: str | None
    weight: float = 1.0


def encode_prompts(
    tokenizer: CLIPTokenizer, prompts: Sequence[str]
) -> tuple[Int32[np.ndarray, "n k s"], Float32[np.ndarray, "n k s"]]:
    """Token ids and weights of prompts in k chunks of s tokens, as many as the longest of them needs.

    Each chunk is a text of its own: start, at most s - 2 tokens, end of text, padding by it. Shorter prompts have empty
    chunks after theirs; so give the negative prompt together with the others. A full chunk is cut after its last comma
    if that is near. Of a prompt in no notation that fits one chunk, the ids are the tokenizer's and the weights 1.

    Args:
        tokenizer: of the text encoder.
        prompts: in the notation above.
    """
    chunks = [list(_chunks(tokenizer, prompt)) for prompt in prompts]
    shape = len(prompts), max(map(len, chunks), default=1), tokenizer.length
    ids, weights = np.full(shape, tokenizer.end, np.int32), np.ones(shape, np.float32)
    ids[:, :, 0] = tokenizer.start
    for i, rows in enumerate(chunks):
        for j, row in enumerate(rows):
            if row:
                ids[i, j, 1 : len(row) + 1], weights[i, j, 1 : len(row) + 1] = zip(*row, strict=True)
    return ids, weights


def weighted(states: Float[Array, "n k s c"], weights: Float[Array, "n k s"]) -> Float[Array, "n k*s c"]:
    """The states of the chunks of a prompt one after another, each token's times its weight.

    Then those of a chunk are scaled together, so that their mean is what it was. A chunk whose weights are all 1 is
    left as it is, bit for bit.

    Args:
        states: of the text encoder, of each chunk.
        weights: of the tokens, see `encode_prompts`.
    """
    mean = lambda x: x.mean(axis=(2, 3), keepdims=True)
    told = states * weights[..., None].astype(states.dtype)
    after = mean(told)
    told = told * jnp.where(after == 0, 1, mean(states) / jnp.where(after == 0, 1, after))
    plain = (weights == 1).all(axis=2)[..., None, None]
    return rearrange(jnp.where(plain, states, told), "n k s c -> n (k s) c")


def _chunks(tokenizer: CLIPTokenizer, prompt: str) -> Iterator[list[tuple[int, float]]]:
    """The tokens of each chunk, with their weights."""
    most, comma = tokenizer.length - 2, tokenizer.tokens(",")
    chunk: list[tuple[int, float]] = []
    last_comma, is_first = 0, True  # tokens up to the last comma of the chunk, itself included
    for piece in _pieces(prompt):
        if piece.text is None:
            yield chunk
            chunk, last_comma, is_first = [], 0, False
            continue
        for token in tokenizer.tokens(piece.text):
            if len(chunk) == most:
                cut = last_comma if last_comma and most - last_comma < _COMMA_AT_MOST and [token] != comma else most
                yield chunk[:cut]
                chunk, last_comma, is_first = chunk[cut:], 0, False
            chunk.append((token, piece.weight))
            last_comma = len(chunk) if [token] == comma else last_comma
    if chunk or is_first:
        yield chunk


def _pieces(prompt: str) -> Iterator[_Piece]:
    """The parts of a prompt, neighbours of one weight joined."""
    pieces: list[_Piece] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}  # pieces that were there when a bracket opened

    def multiply(start: int, factor: float) -> None:
        for piece in pieces[start:]:
            piece.weight = min(max(piece.weight * factor, -_LARGEST), _LARGEST)

    for match in _PIECES.finditer(prompt):
        bracket = match["bracket"]
        if match["weight"] and opened["("]:
            multiply(opened["("].pop(), float(match["weight"]))
        elif bracket in opened:
            opened[bracket].append(len(pieces))
        elif bracket == ")" and opened["("]:
            multiply(opened["("].pop(), _STRONGER)
        elif bracket == "]" and opened["["]:
            multiply(opened["["].pop(), 1 / _STRONGER)
        elif match["literal"]:
            pieces.append(_Piece(match["literal"]))
        else:
            for i, text in enumerate(_BREAK.split(match[0])):
                pieces += [_Piece(None)] if i else []
                pieces += [_Piece(text)] if text else []
    for start in opened["("]:
        multiply(start, _STRONGER)
    for start in opened["["]:
        multiply(start, 1 / _STRONGER)
    for (is_break, weight), group in itertools.groupby(pieces, lambda piece: (piece.text is None, piece.weight)):
        if is_break:
            yield from group
        else:
            yield _Piece("".join(piece.text for piece in group), weight)
