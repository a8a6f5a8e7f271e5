"""Gen-1 in JAX/Flax: structure- and content-guided video-to-video diffusion (arXiv 2302.03011).

pipe = gen1_jax.Gen1Pipeline.from_pretrained("nano")
out = pipe.edit("car.mp4", prompt="a pencil sketch of a wooden car in the snow at dusk")
gen1_jax.save_video(out.frames, "sketch.mp4", like="car.mp4")  # uint8 (T, H, W, 3)
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gen1_jax import diffusion
    from gen1_jax.editing.pipeline import Gen1Pipeline
    from gen1_jax.editing.result import EditResult
    from gen1_jax.media import load_video, save_video

__all__ = ["EditResult", "Gen1Pipeline", "__version__", "diffusion", "load_video", "save_video"]

_LAZY = {
    "EditResult": "gen1_jax.editing.result",
    "Gen1Pipeline": "gen1_jax.editing.pipeline",
    "load_video": "gen1_jax.media",
    "save_video": "gen1_jax.media",
}


def __getattr__(name: str):  # importing the package alone takes milliseconds
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name == "diffusion":
        return importlib.import_module("gen1_jax.diffusion")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
