"""The ground as a height field of smooth waves, flat where the objects stand."""

from typing import Any

import jax.numpy as jnp

from gen1_jax.synthetic.noise import smoothstep, wave


def ground_waves(terrain: Any, x: Any, z: Any) -> Any:
    """Height of the ground over its level at (x, z) in metres; zero everywhere if the amplitude is zero.

    Args:
      terrain: a `structure.Terrain` of scalars.
      x, z: arrays of one shape.
    """
    f, (a, b) = terrain.frequency, (terrain.phase[0], terrain.phase[1])
    far = smoothstep(terrain.plateau, 2.6 * terrain.plateau, jnp.sqrt(x * x + z * z))
    hills = 0.5 + 0.3 * wave(f * (x + 0.3 * z) + a) + 0.2 * wave(1.9 * f * (z - 0.4 * x) + b)
    ripple = 0.02 * wave(2.7 * f * (x - z) + b) * wave(3.1 * f * (z + 0.5 * x) + a)
    return terrain.amplitude * (far * hills + ripple)
