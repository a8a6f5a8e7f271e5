"""How far motion modules, ControlNets, adapters and encoders of an exported folder, run by their libraries, are from
ours. torch and the libraries are imported where they are used.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from gen1_jax.exporting.networks import Networks, fixed_normal, relative_difference
from gen1_jax.models.conditions import Conditions, Signal
from gen1_jax.models.module import Bound
from gen1_jax.pretrained.folder import ModelSource
from gen1_jax.pretrained.tensors import read_tensors
from gen1_jax.pretrained.unet_parts import IP_ADAPTER, MOTION_ADAPTER, control_name

Load = Callable[[type, Path], Any]
"""A network of a class from its folder, see `diffusers_parity`."""

_FRAMES, _TOKENS, _TIMESTEP = 3, 5, 417


class UNetParts:
    """What is added to a U-Net beside what its parts give in diffusers.

    Args:
        source: the model.
        unet: ours.
        folder: of all networks.
        load: reads a network.
    """

    def __init__(self, source: ModelSource, unet: Bound, folder: Path, load: Load):
        self._config, self._unet, self._folder, self._load = source.config.unet, unet, folder, load
        self._side = side = 2 * self._config.downscale
        self._latents = fixed_normal(1, _FRAMES, side, side, self._config.latent_channels)
        self._text = fixed_normal(1, _TOKENS, self._config.cross_attention_dim, seed=1)

    def measure(self) -> dict[str, float]:
        """Largest relative differences, by part."""
        from diffusers import UNet2DConditionModel

        parity, config = {}, self._config
        if config.temporal == "animatediff" or config.controls or config.image_adapter:
            theirs = self._load(UNet2DConditionModel, self._folder / "unet")
            if config.temporal == "animatediff":
                parity[MOTION_ADAPTER] = self._motion(theirs)
            parity |= {control_name(control.kind): self._control(theirs, control.kind) for control in config.controls}
            if config.image_adapter:
                parity[IP_ADAPTER] = self._image_adapter(theirs)
        return parity

    def _ours(self, frames: int, **told: Any) -> np.ndarray:
        conditions = Conditions(**{"content": {"text": self._text}} | told)
        return np.asarray(self._unet.denoise(self._latents[:, :frames], jnp.array([_TIMESTEP]), conditions)[0])

    def _motion(self, theirs: Any) -> float:
        import torch
        from diffusers import MotionAdapter, UNetMotionModel

        adapter = self._load(MotionAdapter, self._folder / MOTION_ADAPTER)
        video = normalising_frames(UNetMotionModel.from_unet2d(copy.deepcopy(theirs), adapter).eval())
        clip = torch.tensor(np.moveaxis(self._latents, -1, 1).copy())
        text = torch.tensor(self._text).expand(_FRAMES, -1, -1)
        expected = video(clip, torch.tensor([_TIMESTEP]), text).sample
        return relative_difference(self._ours(_FRAMES), np.moveaxis(expected.numpy(), 1, -1))

    def _control(self, theirs: Any, kind: str) -> float:
        import torch
        from diffusers import ControlNetModel

        control = self._load(ControlNetModel, self._folder / control_name(kind))
        scale = 2 ** (len(control.config.conditioning_embedding_out_channels) - 1)
        picture = np.random.default_rng(2).random((1, 1, scale * self._side, scale * self._side, 3), np.float32)
        latents, text = _channels_first(self._latents[0, :1]), torch.tensor(self._text)
        down, middle = control(latents, _TIMESTEP, text, _channels_first(picture[0]), return_dict=False)
        residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        expected = theirs(latents, _TIMESTEP, text, **residuals).sample
        signal = Signal.of(self._unet.hint(picture, kind=kind))
        return relative_difference(self._ours(1, structure={kind: signal})[0], _channels_last(expected))

    def _image_adapter(self, theirs: Any) -> float:
        """Of the keys and values; the projection to tokens is another network of ours."""
        import torch

        adapted = copy.deepcopy(theirs)
        adapted._load_ip_adapter_weights([_ip_adapter(self._folder)], low_cpu_mem_usage=False)
        width = next(x.shape[-1] for x in adapted.encoder_hid_proj.parameters() if x.ndim == 2)
        tokens = fixed_normal(1, adapted.encoder_hid_proj.num_ip_adapters, _TOKENS, self._config.cross_attention_dim)
        adapted.encoder_hid_proj.forward = lambda embeddings: [torch.tensor(tokens)]
        added = {"image_embeds": [torch.zeros(1, 1, width)]}
        latents, text = _channels_first(self._latents[0, :1]), torch.tensor(self._text)
        expected = adapted(latents, _TIMESTEP, text, added_cond_kwargs=added).sample
        ours = self._ours(1, content={"text": self._text, "image": tokens[0]}, strength={"image": jnp.ones(1)})
        return relative_difference(ours[0], _channels_last(expected))


def measure_text(source: ModelSource, networks: Networks, folder: Path, load: Load, texts: tuple[str, ...]) -> float:
    """Of the states after the last norm."""
    import torch
    from transformers import CLIPTextModel

    ids, _ = source.tokenizer()(texts)
    theirs = load(CLIPTextModel, folder)(torch.tensor(ids).long()).last_hidden_state
    return relative_difference(networks.bound("text").states(jnp.asarray(ids)), theirs)


def measure_image_encoder(source: ModelSource, networks: Networks, folder: Path, load: Load) -> float:
    """Of the embedding of a picture and of the states of its patches."""
    from transformers import CLIPVisionModelWithProjection

    size = source.config.image_encoder.image_size
    pixels, ours = fixed_normal(2, size, size, 3), networks.bound("image_encoder")
    theirs = load(CLIPVisionModelWithProjection, folder)(_channels_first(pixels), output_hidden_states=True)
    pairs = ((ours.embed(pixels), theirs.image_embeds), (ours.states(pixels), theirs.hidden_states[-2]))
    return max(relative_difference(one, other) for one, other in pairs)


def measure_image_tokens(source: ModelSource, networks: Networks, folder: Path, load: Load) -> float:
    """Of the tokens of a picture."""
    import torch
    from diffusers import UNet2DConditionModel

    config = source.config.image_tokens
    unet = load(UNet2DConditionModel, folder / "unet")
    unet._load_ip_adapter_weights([_ip_adapter(folder)], low_cpu_mem_usage=False)
    many = () if config.kind == "base" else (config.tokens if config.kind == "full" else _TOKENS,)
    seen = fixed_normal(1, *many, config.embedding_dim)
    (theirs,) = unet.encoder_hid_proj([torch.tensor(seen)[:, None]])
    return relative_difference(networks.bound("image_tokens")(seen), theirs.reshape(1, -1, theirs.shape[-1]))


def normalising_frames(module: Any) -> Any:
    """diffusers' motion modules with the group norm that they were trained with: over each frame by itself."""
    import torch

    class PerFrame(torch.nn.Module):
        def __init__(self, norm: torch.nn.Module):
            super().__init__()
            self.norm = norm

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            frames = x.transpose(1, 2)
            return self.norm(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).transpose(1, 2)

    for part in module.modules():
        if type(part).__name__ == "AnimateDiffTransformer3D":
            part.norm = PerFrame(part.norm)
    return module


def _ip_adapter(folder: Path) -> dict[str, dict[str, Any]]:
    """As diffusers takes a file of an IP-Adapter."""
    import torch

    state: dict[str, dict[str, Any]] = {"image_proj": {}, "ip_adapter": {}}
    for name, value in read_tensors(folder / IP_ADAPTER).items():
        group, _, rest = name.partition(".")
        state[group][rest] = torch.tensor(value.astype(np.float32))
    return state


def _channels_first(x: np.ndarray) -> Any:
    import torch

    return torch.tensor(np.moveaxis(np.asarray(x), -1, 1).copy())


def _channels_last(x: Any) -> np.ndarray:
    return np.moveaxis(x.numpy(), 1, -1)
