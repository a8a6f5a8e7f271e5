"""Gen-1 in JAX/Flax: structure- and content-guided video-to-video diffusion (arXiv 2302.03011).

pipe = gen1_jax.Gen1Pipeline.from_pretrained("nano")
out = pipe.edit(frames, prompt="a pencil sketch of a car in the snow")
out.frames                                                     # uint8 (T, H, W, 3)
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gen1_jax import diffusion
    from gen1_jax.editing.pipeline import EditResult, Gen1Pipeline

__all__ = ["EditResult", "Gen1Pipeline", "__version__", "diffusion"]

_LAZY = {"Gen1Pipeline": "gen1_jax.editing.pipeline", "EditResult": "gen1_jax.editing.pipeline"}


def __getattr__(name: str):  # importing the package alone takes milliseconds
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name == "diffusion":
        return importlib.import_module("gen1_jax.diffusion")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
