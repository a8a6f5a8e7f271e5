"""A picture of half the size as structure: what an upscaler is told, and how poor it may be.

    frames ──mean of 2x2──► small ──blur, noise, coarse DCT by t_s──► poor ──bicubic──► maps of the frames' size

A denoiser of this kind is a cascade's second model (https://arxiv.org/abs/2106.15282): t_s is how much its input was
spoiled, in training and in use alike, so that above 0 it corrects what the video to be enlarged has of artefacts.

In use the frames are the small ones with every pixel repeated, whose mean over 2x2 is the small one itself: what is
learned from large frames and what is told of small ones come by the same code.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gen1_jax.models.resampling import area_matrix, bicubic_matrix, gaussian_matrix
from gen1_jax.models.structure.pictures import Tile

LOW_RESOLUTION = "low_resolution"
"""Name of the kind."""

_BLOCK = 4  # pixels, as the transforms of H.264


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowResolution(Tile):
    """The frames as they are known at a fraction of their size. See `StructureKind`.

    Attributes:
        scale: how many times smaller.
        blur: by t_s, standard deviation of a Gaussian, in pixels of the small picture.
        noise: by t_s, standard deviation of noise, of pictures in [-1, 1].
        rounding: by t_s, to multiples of what the DCT of blocks of 4x4 pixels is rounded, as codecs do; 0 is not.
    """

    name: str = LOW_RESOLUTION
    looks: str = "the frame, enlarged from a fraction of its size"
    scale: int = 2
    blur: tuple[float, ...] = (0.0, 0.3, 0.45, 0.6, 0.8, 1.0, 1.25, 1.5)
    noise: tuple[float, ...] = (0.0, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3)
    rounding: tuple[float, ...] = (0.0, 0.04, 0.08, 0.12, 0.16, 0.2, 0.3, 0.4)

    @property
    def contract(self) -> Mapping[str, Any]:
        """What a map shows, and what each t_s does to it."""
        spoils = {name: list(getattr(self, name)) for name in ("blur", "noise", "rounding")}
        return {**super().contract, "scale": self.scale, **spoils}

    def degrade(self, maps: Float[Array, "b t H W 3"], level: Int[Array, " b"]) -> Float[Array, "b t H W 3"]:
        """The maps at 1/scale of their size, spoiled by t_s, and bicubic back to their size.

        t_s 0 is the small picture as it is; the noise is drawn by each small frame's own pixels.
        """
        rows, columns = (_Axis.of(n, self) for n in maps.shape[2:4])
        of_clip = lambda table: jnp.asarray(table, jnp.float32)[level][:, None, None, None, None]
        small = _apply(jnp.asarray(rows.down)[level], jnp.asarray(columns.down)[level], maps.astype(jnp.float32))
        small = small + of_clip(self.noise) * _noise_of(small)
        coefficients, step = _apply(rows.transform, columns.transform, small), of_clip(self.rounding)
        rounded = jnp.round(coefficients / jnp.where(step > 0, step, 1)) * step
        spoiled = _apply(rows.transform.T, columns.transform.T, jnp.where(step > 0, rounded, coefficients))
        return jnp.clip(_apply(rows.up, columns.up, spoiled), -1, 1)


@dataclasses.dataclass(frozen=True)
class _Axis:
    """What is done along one axis, as matrices.

    Attributes:
        down: mean, then blur, for each t_s.
        transform: the DCT of blocks, orthonormal; the last block may be shorter.
        up: back to the size.
    """

    down: Float[np.ndarray, "levels m n"]
    transform: Float[np.ndarray, "m m"]
    up: Float[np.ndarray, "n m"]

    @classmethod
    @functools.cache
    def of(cls, size: int, kind: LowResolution) -> "_Axis":
        """Of an axis of so many pixels."""
        small = -(-size // kind.scale)
        down = np.stack([gaussian_matrix(small, sigma) @ area_matrix(size, small) for sigma in kind.blur])
        transform = np.zeros((small, small))
        for start in range(0, small, _BLOCK):
            block = slice(start, min(start + _BLOCK, small))
            transform[block, block] = _dct(block.stop - start)
        return cls(*(x.astype(np.float32) for x in (down, transform, bicubic_matrix(small, size))))


def _dct(size: int) -> Float[np.ndarray, "n n"]:
    """The orthonormal cosine transform (DCT-II), a frequency a row."""
    index = np.arange(size)
    matrix = np.cos(np.pi / size * (index + 0.5) * index[:, None]) * np.sqrt(2 / size)
    matrix[0] /= np.sqrt(2)
    return matrix


def _apply(
    rows: Float[Array, "*b i h"] | Float[np.ndarray, "i h"],
    columns: Float[Array, "*b j w"] | Float[np.ndarray, "j w"],
    pictures: Float[Array, "b t h w c"],
) -> Float[Array, "b t i j c"]:
    """A matrix along each axis of pictures, the same for all clips or one for each."""
    r, c = ("bih" if rows.ndim == 3 else "ih"), ("bjw" if columns.ndim == 3 else "jw")
    return jnp.einsum(f"{r},bthwc,{c}->btijc", rows, pictures, columns, precision="highest")


def _noise_of(small: Float[Array, "b t m n 3"]) -> Float[Array, "b t m n 3"]:
    """Normal noise of each frame, drawn by its own pixels: maps are a function of frames, whatever they come with."""
    seeds = jnp.round(small * 127.5).astype(jnp.int32).sum((2, 3, 4)).astype(jnp.uint32)
    draw = lambda seed: jax.random.normal(jax.random.fold_in(jax.random.key(0), seed), small.shape[2:])
    return jax.vmap(jax.vmap(draw))(seeds)
