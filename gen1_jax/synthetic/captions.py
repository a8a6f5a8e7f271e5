"""Captions written from content, and read back: `parse(caption(...))` is what was described.

A caption names the objects, because a material needs something to be the material of; of geometry it says no more.
"""

import dataclasses
import re

import numpy as np

from gen1_jax.errors import UserError
from gen1_jax.synthetic import vocabulary
from gen1_jax.synthetic.content import Content, make_content
from gen1_jax.synthetic.environments import ENVIRONMENT_NAMES, LIGHTS
from gen1_jax.synthetic.materials import MATERIAL_NAMES
from gen1_jax.synthetic.structure import Structure
from gen1_jax.synthetic.styles import STYLES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """Content in names: what a caption says, no more and no less."""

    objects: tuple[tuple[str, str], ...]  # (shape, material) in the order of the slots
    environment: str
    light: str
    style: str

    def content(self) -> Content:
        """The content that this describes, for rendering."""
        return make_content(tuple(m for _, m in self.objects), self.environment, self.light, self.style)


def describe(structure: Structure, content: Content) -> Description:
    """The names of what `content` is, for the objects of `structure`."""
    materials = np.asarray(content.materials)
    return Description(
        objects=tuple((shape, MATERIAL_NAMES[materials[i]]) for i, shape in enumerate(structure.names)),
        environment=ENVIRONMENT_NAMES[int(content.environment)],
        light=LIGHTS[int(content.light)],
        style=STYLES[int(content.style)],
    )


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' or noun.startswith('8') else 'a'} {noun}"


def _list(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


class _Words:
    """Chooses phrases with one random stream, so that a seed fixes the caption."""

    def __init__(self, seed: int):
        self.rng = np.random.Generator(np.random.Philox(key=[seed & 0xFFFFFFFFFFFFFFFF, 0xCA]))

    def pick(self, options: tuple[str, ...]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def short_object(self, shape: str, material: str) -> str:
        return _article(f"{self.pick(vocabulary.MATERIALS[material][0])} {self.pick(vocabulary.SHAPES[shape])}")

    def long_object(self, shape: str, material: str) -> str:
        if self.rng.random() < 0.3:
            return self.short_object(shape, material)
        return f"{_article(self.pick(vocabulary.SHAPES[shape]))} {self.pick(vocabulary.MATERIALS[material][1])}"


def caption(content: Content, structure: Structure, *, seed: int = 0, form: str | None = None) -> str:
    """Writes a caption of `content`; `seed` chooses among synonyms and orders, and the form if it is None.

    Raises:
      ValueError: for an unknown form.
    """
    if form not in (None, "short", "long"):
        raise UserError(f"unknown form {form!r}: choose short or long")
    told, words = describe(structure, content), _Words(seed)
    form = form or words.pick(("short", "long"))
    place, light = words.pick(vocabulary.ENVIRONMENTS[told.environment]), words.pick(vocabulary.LIGHTS[told.light])
    before, after = vocabulary.STYLES[told.style]
    leads = words.rng.random() < 0.5
    if form == "short":
        things = _list([words.short_object(*one) for one in told.objects])
        if leads:
            return f"{_article(words.pick(before))} of {things} {place} {light}"
        return f"{things} {place} {light}, {words.pick(after)}"
    things = _list([words.long_object(*one) for one in told.objects])
    it = "It is" if len(told.objects) == 1 else "They are"
    scene = words.pick((f"{it} {place}, {light}.", f"The scene is set {place}, {light}."))
    if leads:
        showing = words.pick(("showing", "that shows", "of"))
        return f"{_article(words.pick(before)).capitalize()} {showing} {things}. {scene}"
    here = words.pick(("There is", "We see", "Imagine"))
    return f"{here} {things}. {scene[:-1]}, {words.pick(after)}."


def _phrases() -> dict[str, tuple[str, str]]:
    """Every phrase in lower case, with its kind and name; a phrase of two names would make captions ambiguous."""
    table: dict[str, tuple[str, str]] = {}
    nested = {"material": vocabulary.MATERIALS, "style": vocabulary.STYLES}
    plain = {"shape": vocabulary.SHAPES, "environment": vocabulary.ENVIRONMENTS, "light": vocabulary.LIGHTS}
    for kind, names in (nested | plain).items():
        for name, phrases in names.items():
            for phrase in (p for group in phrases for p in group) if kind in nested else phrases:
                if table.setdefault(phrase.lower(), (kind, name)) != (kind, name):
                    raise UserError(f"the phrase {phrase!r} means both {table[phrase.lower()]} and {(kind, name)}")
    return table


_TABLE = _phrases()
_BETWEEN = "a an of and it is they are the scene set showing that shows there we see imagine"


def words() -> frozenset[str]:
    """Every word that a caption can have, in lower case, parts of hyphenated ones each by itself; no numbers."""
    return frozenset(re.findall(r"[^\W\d_]+", " ".join((*_TABLE, _BETWEEN))))


# Longest first: "pine tree" before "tree", "in the golden hour" before "golden".
_LEXER = re.compile(r"(?<![\w-])(?:" + "|".join(map(re.escape, sorted(_TABLE, key=len, reverse=True))) + r")(?![\w-])")


def parse(text: str) -> Description:
    """Reads a caption back. Each object is a shape and a material next to each other, in either order.

    Raises:
      ValueError: if an object lacks its material, or environment, light or style is missing or said twice.
    """
    found = [_TABLE[match.group()] for match in _LEXER.finditer(text.lower())]
    things = [item for item in found if item[0] in ("shape", "material")]
    pairs = [dict(things[i : i + 2]) for i in range(0, len(things), 2)]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise UserError(f"cannot match materials with objects in {text!r}")
    single = {}
    for kind in ("environment", "light", "style"):
        names = [name for k, name in found if k == kind]
        if len(names) != 1:
            raise UserError(f"{len(names)} phrases for {kind} in {text!r}: need exactly one")
        single[kind] = names[0]
    return Description(objects=tuple((pair["shape"], pair["material"]) for pair in pairs), **single)
