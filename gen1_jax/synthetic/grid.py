"""The samples of a frame in square tiles: near rays see few parts, and each tile only tests those."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

TILE = 32  # samples along each side of a tile


@dataclasses.dataclass(frozen=True)
class Grid:
    """`supersample`^2 samples for each of height x width pixels, padded to whole tiles. All of it is static."""

    height: int
    width: int
    supersample: int

    @property
    def tiles(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return -(-self.height * self.supersample // TILE), -(-self.width * self.supersample // TILE)

    @property
    def shorter(self) -> int:
        """The shorter side in pixels, over which the camera's field of view is measured."""
        return min(self.height, self.width)

    def origins(self) -> jax.Array:
        """First sample of every tile: int32 (tiles, 2), row and column."""
        rows, columns = self.tiles
        row, column = jnp.arange(rows * columns) // columns, jnp.arange(rows * columns) % columns
        return jnp.stack([row, column], -1) * TILE

    def pixels(self, origin: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Pixel coordinates x, y of a tile's samples, flat; multiples of `supersample` are pixel centres."""
        index = jnp.arange(TILE * TILE)
        row, column = origin[0] + index // TILE, origin[1] + index % TILE
        return column / jnp.float32(self.supersample), row / jnp.float32(self.supersample)

    def image(self, field: jax.Array) -> jax.Array:
        """Tiles (tiles, TILE * TILE) to an image of samples (height * supersample, width * supersample)."""
        rows, columns = self.tiles
        image = field.reshape(rows, columns, TILE, TILE).swapaxes(1, 2).reshape(rows * TILE, columns * TILE)
        return image[: self.height * self.supersample, : self.width * self.supersample]

    def centres(self, field: jax.Array) -> jax.Array:
        """The samples at pixel centres: (tiles, TILE * TILE) to (height, width)."""
        return self.image(field)[:: self.supersample, :: self.supersample]


def over(function: Callable[[Any], Any], inputs: Any, one_by_one: bool) -> Any:
    """Maps over the leading axis: one by one where data should stay in a CPU's caches, else all at once."""
    return jax.lax.map(function, inputs) if one_by_one else jax.vmap(function)(inputs)
