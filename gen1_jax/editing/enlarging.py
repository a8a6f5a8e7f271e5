"""Around an upscaler: small frames at the size of the result, and results with what the small frames tell.

small ──pixels repeated──► seen by the model ──"low_resolution"──► edit ──cut, colours──► large
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator

import numpy as np
from einops import reduce
from jaxtyping import Float, UInt8

from gen1_jax.errors import UserError
from gen1_jax.models.resampling import bicubic_matrix, gaussian_matrix
from gen1_jax.models.structure import LOW_RESOLUTION
from gen1_jax.pretrained.family import Gen1Config


@dataclasses.dataclass(frozen=True)
class Enlargement:
    """Every pixel repeated: what `LowResolution` sees of such frames is exactly the small ones.

    Attributes:
        scale: how often along each axis.
        multiple: of what height and width are multiples then; what lacks is the border's pixels again.
    """

    scale: int
    multiple: int

    def size_of(self, small: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the frames that come of small ones."""
        step = self.multiple * self.scale // math.gcd(self.multiple, self.scale)
        return tuple(-(-self.scale * side // step) * step for side in small)

    def of(self, frames: UInt8[np.ndarray, "*t h w 3"]) -> UInt8[np.ndarray, "*t H W 3"]:
        """The frames, large."""
        small = frames.shape[-3:-1]
        missing = [(0, large // self.scale - side) for large, side in zip(self.size_of(small), small, strict=True)]
        frames = np.pad(frames, [(0, 0)] * (frames.ndim - 3) + [*missing, (0, 0)], mode="edge")
        return frames.repeat(self.scale, -3).repeat(self.scale, -2)

    def finished(
        self,
        edited: Iterable[UInt8[np.ndarray, "H W 3"]],
        seen: Iterable[UInt8[np.ndarray, "H W 3"]],
        small: tuple[int, int],
        *,
        spoiled: float | None = 0.0,
    ) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """Results without what was added at the borders.

        Args:
            edited: what became of the frames.
            seen: the frames, see `of`.
            small: (height, width) of what they came of.
            spoiled: see `with_colours_of`; None leaves colours as they are.
        """
        height, width = (self.scale * side for side in small)
        for frame, told in zip(edited, seen, strict=True):
            frame, told = frame[:height, :width], told[: height : self.scale, : width : self.scale]
            yield frame if spoiled is None else with_colours_of(told, frame, spoiled)


def spoiled_by(config: Gen1Config, noise_level: int, *, match_colour: bool = True) -> float | None:
    """How finely a result has the colours of its input, see `with_colours_of`: none at all, or as its t_s trusts it."""
    return config.structure_kind(LOW_RESOLUTION).blur[noise_level] if match_colour else None


def with_colours_of(
    small: UInt8[np.ndarray, "h w 3"], large: UInt8[np.ndarray, "H W 3"], spoiled: float
) -> UInt8[np.ndarray, "H W 3"]:
    """A large picture that, made small again, is the small one; what is finer stays as it is.

    Autoencoders and diffusion models shift colours and edges a little. What the small picture tells is known, only what
    its pixels cannot tell is the model's: iterative back-projection, in one round, which https://arxiv.org/abs/2212.00490
    derives as the range and the null space of making small, and StableSR does for coarse colours alone.

    Args:
        small: what is told.
        large: what was made of it.
        spoiled: standard deviation of a Gaussian in pixels of `small`; what is finer than that is not trusted in it.
    """
    scale = large.shape[0] // small.shape[0]
    off = small - reduce(large.astype(np.float32), "(h i) (w j) c -> h w c", "mean", i=scale, j=scale)
    rows, columns = (_enlarging(side, scale, spoiled) for side in small.shape[:2])
    change = np.einsum("ih,hwc,jw->ijc", rows, off, columns, optimize=True)
    return np.clip(np.rint(large + change), 0, 255).astype(np.uint8)


@functools.lru_cache(maxsize=16)
def _enlarging(side: int, scale: int, sigma: float) -> Float[np.ndarray, "n m"]:
    """What is coarse along an axis, at `scale` times its size."""
    return (bicubic_matrix(side, side * scale) @ gaussian_matrix(side, sigma)).astype(np.float32)


def check_upscales(config: Gen1Config, name: str, scale: int) -> None:
    """A model enlarges videos by so much.

    Args:
        config: of the model.
        name: of the model, for messages.
        scale: how many times.

    Raises:
        UserError: it does not.
    """
    if (has := scale_of(config)) is None:
        raise UserError(
            f"{name} does not enlarge videos: name a model that does, such as nano-upscaler (see gen1 upscale)"
        )
    if scale != has:
        raise UserError(f"scale {scale}: {name} enlarges {has} times; its result can be enlarged again")


def scale_of(config: Gen1Config) -> int | None:
    """How many times as large a model makes videos; None for one that does not enlarge them."""
    enlarges = LOW_RESOLUTION in config.unet.structures
    return config.structure_kind(LOW_RESOLUTION).scale if enlarges else None


def tile_of(config: Gen1Config) -> int | None:
    """Height and width of the latents that an upscaler sees at once; None for a model that is none."""
    scale = scale_of(config)
    return None if scale is None else scale * max(config.height, config.width) // config.vae.downscale
