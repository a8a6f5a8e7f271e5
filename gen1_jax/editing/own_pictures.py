"""Pictures that a model makes itself, of many kinds and without structure: what it must not forget.

As DreamBooth's prior preservation has them (arXiv 2208.12242), but of everything rather than of the subject's class.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import UInt8

from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import EditSettings
from gen1_jax.pretrained.folder import ModelSource

_THINGS = (
    *("a person", "a portrait of a woman", "a portrait of a man", "a child playing", "a crowd of people"),
    *("a dog", "a cat", "a horse", "a bird", "a fish", "a car", "a bicycle", "a train", "a boat", "an aeroplane"),
    *(
        "a house",
        "a street",
        "a bridge",
        "a kitchen",
        "a living room",
        "a chair",
        "a table with food",
        "a bowl of fruit",
    ),
    *("a tree", "flowers", "a forest", "a mountain", "the sea", "a desert", "a field of grass", "the night sky"),
    *("a cup of coffee", "a book", "a toy", "a shoe", "a bag", "a clock", "a statue", "a lamp", "a guitar"),
)
_WAYS = ("a photo of {}", "a close-up photo of {}", "{}, in soft light", "a painting of {}", "a drawing of {}")


def prompts(count: int) -> list[str]:
    """So many prompts, each thing in each way before any comes again."""
    pairs = ((way, thing) for way in _WAYS for thing in _THINGS)
    return [way.format(thing) for way, thing in itertools.islice(itertools.cycle(pairs), count)]


def own_pictures(
    source: ModelSource, count: int, *, seed: int = 0, report: Callable[[int, int], None] = lambda *_: None
) -> Iterator[tuple[UInt8[np.ndarray, "h w 3"], str]]:
    """Pictures of the model's size with their prompts.

    Args:
        source: a model that takes prompts.
        count: of the pictures.
        seed: of the first; each has another.
        report: called with how many are made, and `count`.
    """
    pipeline = Gen1Pipeline(source)
    frames = np.zeros((1, source.config.height, source.config.width, 3), np.uint8)
    for number, prompt in enumerate(prompts(count)):
        settings = EditSettings(seed=seed + number).of(source.config)
        latents = pipeline.sample(pipeline.encode_content(prompt, [], settings), {}, settings, frames=frames)
        report(number + 1, count)
        yield next(iter(pipeline.decode(latents))), prompt
