"""Gen-1's denoiser: Stable Diffusion's U-Net, extended in time, with structure and content inputs.

config.py    its shape
unet.py      the network: down, middle, up
blocks.py    a level of each; what a block is told
spatial.py   layers within a frame, which images and videos share
temporal.py  layers between frames, which images pass by
control.py   what structure adds to it (`Injection`)
"""

from gen1_jax.models.unet.config import LEVEL_PERIOD, UNetConfig
from gen1_jax.models.unet.control import Injection, conditions_of
from gen1_jax.models.unet.unet import SpaceTimeUNet

__all__ = ["LEVEL_PERIOD", "Injection", "SpaceTimeUNet", "UNetConfig", "conditions_of"]
