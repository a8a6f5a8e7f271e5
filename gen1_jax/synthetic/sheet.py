"""A grid of stills: rows are structures, columns are contents, the first column is depth."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gen1_jax.synthetic.content import Content
from gen1_jax.synthetic.renderer import shade_clip, trace_clip
from gen1_jax.synthetic.structure import Structure


def contact_sheet(
    structures: Sequence[Structure],
    contents: Sequence[Sequence[Content]],
    *,
    size: int = 128,
    supersample: int = 2,
    frames: int = 1,
    gap: int = 2,
) -> np.ndarray:
    """Renders a frame of each structure with each of its contents.

    Args:
      structures: one a row.
      frames: frames to render, of which the middle one is shown: more than one shows objects in motion.
      contents: for each structure, the contents of its row, all rows of one length.

    Returns:
      uint8 (rows * (size + gap) + gap, (1 + columns) * (size + gap) + gap, 3), on white; depth is near = bright.
    """
    rows = []
    for structure, row in zip(structures, contents, strict=True):
        geometry = trace_clip(structure, frames=frames, size=size, supersample=supersample)
        inverse = 1.0 / geometry.depth[frames // 2]
        low, high = jnp.min(inverse), jnp.max(inverse)
        grey = jnp.sqrt((inverse - low) / jnp.maximum(high - low, 1e-6)) * 255.0
        tiles = [np.repeat(np.asarray(grey)[..., None], 3, -1).astype(np.uint8)]
        for content in row:
            rgb = shade_clip(structure, content, geometry, size=size, supersample=supersample)
            tiles.append(np.asarray(jax.device_get(rgb[frames // 2])))
        rows.append(np.concatenate([np.pad(t, ((gap, 0), (gap, 0), (0, 0)), constant_values=255) for t in tiles], 1))
    return np.pad(np.concatenate(rows, 0), ((0, gap), (0, gap), (0, 0)), constant_values=255)
