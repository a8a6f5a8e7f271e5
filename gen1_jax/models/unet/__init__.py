"""Gen-1's denoiser: Stable Diffusion's U-Net, extended in time, with structure and content inputs.

config.py      its shape
unet.py        the network: down, middle, up
down_path.py   the way down and the middle, which the network and its controls have alike
blocks.py      a level of each; what a block is told
spatial.py     layers within a frame, which images and videos share
temporal.py    layers between frames, which images pass by
control.py     what structure adds to it (`Injection`)
controlnet.py  the controls inside it
inputs.py      more inputs for a network that has been trained
"""

from gen1_jax.models.unet.config import KNOWN, LEVEL_PERIOD, ControlConfig, UNetConfig
from gen1_jax.models.unet.control import Injection, abstract_conditions, conditions_of, known_signal
from gen1_jax.models.unet.inputs import grow, with_inputs
from gen1_jax.models.unet.unet import SpaceTimeUNet

__all__ = [
    "KNOWN",
    "LEVEL_PERIOD",
    "ControlConfig",
    "Injection",
    "SpaceTimeUNet",
    "UNetConfig",
    "abstract_conditions",
    "conditions_of",
    "grow",
    "known_signal",
    "with_inputs",
]
