"""The words that a model has learned: its text tower answers any prompt, but knows nothing of others."""

import re
from collections.abc import Set
from pathlib import Path

from gen1_jax.files import write_text

WORDS = "words.txt"
"""Of a model folder, one a line; without it, any word may be known."""

READS_WORDS = ("clip", "prior", "text")
"""Networks that learn from captions: a model in which one of them was trained further has words of its own."""

_WORD = re.compile(r"[^\W\d_]+")


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case, parts of hyphenated ones each by itself."""
    return _WORD.findall(text.lower())


def unknown_words(prompt: str, known: Set[str] | None) -> list[str]:
    """Those of a prompt that a model has never seen, as they are written there; none if it does not say what it knows.

    Args:
        prompt: a text.
        known: words in lower case.
    """
    if known is None:
        return []
    return list(dict.fromkeys(word for word in _WORD.findall(prompt) if word.lower() not in known))


def read_words(folder: Path) -> frozenset[str] | None:
    """The words of a model folder, or None."""
    path = folder / WORDS
    return frozenset(path.read_text(encoding="utf-8").split()) if path.is_file() else None


def write_words(folder: Path, words: Set[str]) -> None:
    """One a line."""
    write_text(folder / WORDS, "".join(f"{word}\n" for word in sorted(words)))
