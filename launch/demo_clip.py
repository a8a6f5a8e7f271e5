"""Renders the clip that ships for `gen1 demo`: python launch/demo_clip.py OUTPUT.mp4"""

import sys

import jax
import numpy as np

from gen1_jax.media import VideoWriter
from gen1_jax.synthetic import make_content, render, sample_structure

FRAMES, SIZE, FRAME_RATE, SEED = 8, 256, 8, 4


def main(output: str) -> None:
    """A rusty car, a tree and a leather dog that walks on a meadow, seen by a camera that goes around them."""
    structure = sample_structure(SEED, shapes=("car", "tree", "dog"), layout="open ground", camera="orbit")
    content = make_content(("rust", "moss", "leather"), "meadow", "noon", "photograph")
    clip = jax.jit(lambda s, c: render(s, c, frames=FRAMES, size=SIZE, fps=FRAME_RATE))(structure, content)
    with VideoWriter(output, width=SIZE, height=SIZE, frame_rate=FRAME_RATE) as writer:
        for frame in np.asarray(clip.rgb):
            writer.write(frame)


if __name__ == "__main__":
    main(sys.argv[1])
