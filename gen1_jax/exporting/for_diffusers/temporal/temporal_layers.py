"""The layers of a Gen-1 U-Net that look from frame to frame, as a part of a pipeline of diffusers. See pipeline.py."""

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from .modeling_gen1 import SpaceTimeUNet, UNetConfig


class TemporalLayers(ModelMixin, ConfigMixin):
    """Their parameters, by the names that they have in `SpaceTimeUNet`; all others are those of the folder's unet/.

    Args:
        unet: fields of `UNetConfig`.
    """

    @register_to_config
    def __init__(self, unet: dict):
        super().__init__()
        for name, parameter in SpaceTimeUNet(UNetConfig(**unet)).named_parameters():
            *path, last = name.split(".")
            if any(step.startswith("temporal") for step in path):
                module = self
                for step in path:
                    if not hasattr(module, step):
                        module.add_module(step, nn.Module())
                    module = getattr(module, step)
                module.register_parameter(last, parameter)
