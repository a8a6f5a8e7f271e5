"""Gen-1's denoiser: Stable Diffusion's U-Net, extended in time, with structure and content inputs.

config.py      its shape
unet.py        the network: down, middle, up
down_path.py   the way down and the middle, which the network and its controls have alike
blocks.py      a level of each; what a block is told
spatial.py     layers within a frame, which images and videos share
temporal.py    layers between frames, which images pass by
control.py     what structure adds to it (`Injection`)
controlnet.py  the controls inside it
"""

from gen1_jax.models.unet.config import ControlConfig, UNetConfig
from gen1_jax.models.unet.control import Injection
from gen1_jax.models.unet.unet import SpaceTimeUNet

__all__ = ["ControlConfig", "Injection", "SpaceTimeUNet", "UNetConfig"]
