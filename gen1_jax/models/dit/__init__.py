"""A space-time transformer (DiT) in the place of the U-Net, with the same inputs and outputs.

config.py     its shape
dit.py        the network: patches, blocks, the last layer
blocks.py     a block, modulated by the timestep (adaLN-zero), and stacks of them
attention.py  attention within frames, between them, or everywhere
rotary.py     positions over time, rows and columns
"""

from gen1_jax.models.dit.config import DiTConfig
from gen1_jax.models.dit.dit import SpaceTimeDiT

__all__ = ["DiTConfig", "SpaceTimeDiT"]
