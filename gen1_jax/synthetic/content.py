"""What a clip is made of: materials, environment, light and style; and which combinations a split may use."""

import dataclasses

import jax
import numpy as np

from gen1_jax.errors import UserError
from gen1_jax.synthetic.environments import ENVIRONMENT_NAMES, ENVIRONMENTS, LIGHTS
from gen1_jax.synthetic.materials import MATERIAL_NAMES
from gen1_jax.synthetic.structure import MAX_OBJECTS, Leaf, Structure
from gen1_jax.synthetic.styles import STYLES

SPLITS = ("train", "validation", "test")
SEEDS_PER_SPLIT = 1 << 30
_PHOTOGRAPHS = 0.35  # share of clips in the first style
_HELD_OUT_PERCENT = 10  # of all (material, environment, style) combinations, for validation and test each


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Content:
    """The look of one clip; a pytree of int32 arrays, indices into the lists of names."""

    materials: Leaf  # (5,): one a slot, also for empty ones, into MATERIAL_NAMES
    environment: Leaf  # ()
    light: Leaf  # ()
    style: Leaf  # ()


def make_content(materials: tuple[str, ...], environment: str, light: str, style: str) -> Content:
    """Content from names; slots beyond `materials` repeat the last one.

    Raises:
      ValueError: for a name that is not in its list, or no or too many materials.
    """
    if not 1 <= len(materials) <= MAX_OBJECTS:
        raise UserError(f"{len(materials)} materials: a clip has 1 to {MAX_OBJECTS} objects")
    padded = (*materials, *(materials[-1:] * (MAX_OBJECTS - len(materials))))
    return Content(
        materials=np.array([_index(MATERIAL_NAMES, name, "material") for name in padded], np.int32),
        environment=np.int32(_index(ENVIRONMENT_NAMES, environment, "environment")),
        light=np.int32(_index(LIGHTS, light, "light")),
        style=np.int32(_index(STYLES, style, "style")),
    )


def _index(names: tuple[str, ...], name: str, what: str) -> int:
    if name not in names:
        raise UserError(f"unknown {what} {name!r}: choose one of {', '.join(names)}")
    return names.index(name)


def split_of(material: int, environment: int, style: int) -> str:
    """The only split in which this combination of indices occurs: a fixed hash, the same everywhere and always."""
    bits = (material * 0x9E3779B1 + environment * 0x85EBCA77 + style * 0xC2B2AE3D + 0x27D4EB2F) & 0xFFFFFFFF
    for shift, factor in ((15, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = ((bits ^ (bits >> shift)) * factor) & 0xFFFFFFFF
    percent = (bits >> 16) % 100
    if percent < _HELD_OUT_PERCENT:
        return "validation"
    return "test" if percent < 2 * _HELD_OUT_PERCENT else "train"


def clip_seed(split: str, index: int, seed: int = 0) -> int:
    """The seed of clip `index` of a split: ranges of 2^30 seeds a split and 3 * 2^30 a data set `seed`, never shared.

    Raises:
      ValueError: for an unknown split, or an index outside [0, 2^30), or a negative seed.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    if not 0 <= index < SEEDS_PER_SPLIT or seed < 0:
        raise UserError(f"clip {index} of seed {seed}: the index must lie in [0, 2^30) and the seed be positive")
    return (seed * len(SPLITS) + SPLITS.index(split)) * SEEDS_PER_SPLIT + index


def sample_content(seed: int, structure: Structure, split: str = "train") -> Content:
    """Draws content for `structure` whose every (material, environment, style) belongs to `split`.

    The structure only says how many objects there are; each gets a material of its own.

    Raises:
      ValueError: for an unknown split.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    rng = np.random.Generator(np.random.Philox(key=[seed & 0xFFFFFFFFFFFFFFFF, 0xC0]))
    count = len(structure.names)
    while True:
        environment = int(rng.integers(len(ENVIRONMENT_NAMES)))
        style = 0 if rng.random() < _PHOTOGRAPHS else int(rng.integers(1, len(STYLES)))
        allowed = [m for m in range(len(MATERIAL_NAMES)) if split_of(m, environment, style) == split]
        if allowed:
            break
    chosen = rng.choice(allowed, count, replace=len(allowed) < count)
    lights = ENVIRONMENTS[ENVIRONMENT_NAMES[environment]].lights
    light = lights[int(rng.integers(len(lights)))]
    names = tuple(MATERIAL_NAMES[m] for m in chosen)
    return make_content(names, ENVIRONMENT_NAMES[environment], light, STYLES[style])
