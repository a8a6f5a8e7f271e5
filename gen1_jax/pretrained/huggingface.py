from gen1_jax.pretrained.hf_config import ConfigError, require, typed_fields
from gen1_jax.pretrained.hf_unet import UNET, unet_config
