"""Random light, colour and sharpness of pictures, so that a network trained on rendered worlds knows others too."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gen1_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotometricConfig:
    """How far pictures are changed; all zeros leave them as they are. Each amount is drawn evenly for each picture.

    Attributes:
        gamma: largest exponent as a power of e, and of 1/e: 0.4 is from 0.67 to 1.5.
        gain: the same of the factor on each colour channel, which is the colour of the light.
        contrast: the same of the factor on the distance from the picture's mean.
        brightness: largest amount added or taken away, of a range of 1.
        saturation: largest share of colour that is replaced by grey.
        blur: largest standard deviation of a Gaussian blur, in pixels.
        noise: largest standard deviation of Gaussian noise, of a range of 1.
    """

    gamma: float = 0.4
    gain: float = 0.2
    contrast: float = 0.3
    brightness: float = 0.15
    saturation: float = 1.0
    blur: float = 1.0
    noise: float = 0.05

    def __post_init__(self):
        if min(dataclasses.astuple(self)) < 0 or self.saturation > 1:
            raise UserError(f"amounts are not negative, and saturation is at most 1: {self}")


def change_light(
    images: Float[Array, "b h w 3"], keys: Key[Array, " b"], config: PhotometricConfig
) -> Float[Array, "b h w 3"]:
    """The pictures in another light, through another lens: a function of each one's key.

    Args:
        images: in [-1, 1]; the result is, too.
        keys: one a picture.
        config: how much.
    """
    return jax.vmap(lambda image, key: _change(image, key, config))(images, keys)


def _change(image: Float[Array, "h w 3"], key: Key[Array, ""], config: PhotometricConfig) -> Float[Array, "h w 3"]:
    of_gamma, of_gain, of_contrast, of_brightness, of_grey, of_blur, of_noise, of_sigma = jax.random.split(key, 8)
    symmetric = lambda k, limit, shape=(): jax.random.uniform(k, shape, minval=-limit, maxval=limit)
    x = (jnp.clip(image, -1, 1) + 1) / 2
    x = x ** jnp.exp(symmetric(of_gamma, config.gamma)) * jnp.exp(symmetric(of_gain, config.gain, (3,)))
    x = (x - x.mean()) * jnp.exp(symmetric(of_contrast, config.contrast)) + x.mean()
    x = x + symmetric(of_brightness, config.brightness)
    x = x + config.saturation * jax.random.uniform(of_grey) * (x.mean(-1, keepdims=True) - x)
    x = _blur(x, config.blur * jax.random.uniform(of_blur))
    x = x + config.noise * jax.random.uniform(of_sigma) * jax.random.normal(of_noise, x.shape)
    return jnp.clip(x, 0, 1) * 2 - 1


def _blur(x: Float[Array, "h w 3"], sigma: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Gaussian blur as one product along each axis; weights beyond the border go to the rest."""
    sigma = jnp.maximum(sigma, 0.1)  # at 0.1 neighbours have weight e^-50

    def weights(size: int) -> Float[Array, "n n"]:
        position = jnp.arange(size) / sigma
        return jax.nn.softmax(-0.5 * jnp.square(position[:, None] - position[None]), axis=-1)

    return jnp.einsum("ih,hwc,jw->ijc", weights(x.shape[0]), x, weights(x.shape[1]))
