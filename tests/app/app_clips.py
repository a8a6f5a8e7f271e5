from pathlib import Path

import numpy as np

import gen1_jax
from gen1_jax.media import VideoWriter

README = (Path(gen1_jax.__file__).parent / "app" / "README.md").read_text()


def write_clip(path, frames=5):
    rng = np.random.default_rng(0)
    with VideoWriter(path, width=48, height=32, frame_rate=12) as writer:
        for _ in range(frames):
            writer.write(rng.integers(0, 256, (32, 48, 3), np.uint8))
    return path
