"""`gen1 import`: Hugging Face folders, and files of other public checkpoints, to one model folder.

content of CLIP's embeddings (`clip`)   here: an image model, inflated in time, to be trained
content of texts (`text`, `checkpoint`) `stable_diffusion`: published motion modules, ControlNets, adapters
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from jax.typing import DTypeLike

from gen1_jax.diffusion import default_sampler
from gen1_jax.models.module import Params
from gen1_jax.pretrained.assembly import Network, Source
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.folder import save_model
from gen1_jax.pretrained.hf_clip import CLIP, CLIP_TOWERS, clip_config, clip_towers_config, merge_towers
from gen1_jax.pretrained.hf_config import ConfigError
from gen1_jax.pretrained.hf_depth import depth_checkpoint
from gen1_jax.pretrained.hf_folders import (
    HuggingFaceFolders,
    found,
    named,
    read_config,
    schedule_of,
    tokenizer_folder,
    tokenizer_json,
)
from gen1_jax.pretrained.hf_pipeline import trained_content
from gen1_jax.pretrained.hf_prior import PRIOR, prior_config
from gen1_jax.pretrained.hf_unet import UNET, unet_config
from gen1_jax.pretrained.hf_vae import VAE, vae_config
from gen1_jax.pretrained.lora import WithLoRA
from gen1_jax.pretrained.stable_diffusion import Draft, text_model
from gen1_jax.pretrained.tensors import stored_tensors, tensor_files

__all__ = ["HuggingFaceFolders", "import_huggingface"]

_SHARD = 2 * 2**30  # bytes of a file, which is in memory twice while it is written
_LAYOUTS = {"unet": UNET, "vae": VAE, "clip": CLIP, "prior": PRIOR}


def import_huggingface(
    folders: HuggingFaceFolders,
    output: str | Path,
    progress: Callable[[str], None] = lambda component: None,
    tell: Callable[[str], None] = lambda line: None,
    *,
    dtype: DTypeLike = np.float32,
) -> Gen1Config:
    """Write a model folder from public checkpoints.

    With content of CLIP's embeddings the image U-Net is inflated in time: temporal layers and the rows of structure and
    t_s are new, and the model is the image model on each frame until they are trained. With content of texts nothing is
    new: layers between frames are published ones, or there are none.

    Args:
        folders: the parts.
        output: the model folder, which must not exist.
        progress: called with the name of each network before it is read.
        tell: called with a line for each choice that the checkpoints led to.
        dtype: float32, bfloat16 or float16, of matrices and kernels in the new folder; norms and biases are float32.

    Returns:
        The configuration of the new model. Where its U-Net has to be trained before it follows its content, that is
        recorded in it (`Gen1Config.caution`), and a warning says so.

    Raises:
        FolderError, ConfigError, LayoutError: a part is missing, is a variant that we do not have, or does not fit.
    """
    folders = found(folders)
    draft = dataclasses.replace(text_model(folders) if folders.reads_text else _image_model(folders), dtype=dtype)
    config, tokenizer = draft.config, draft.tokenizer()
    source = WithLoRA(draft, folders.loras) if folders.loras else draft
    for line in draft.notes:
        tell(line)

    def read(component: str) -> Params:
        progress(component)
        params = source.parameters(component)
        del draft.networks[component]  # closes its files, whose pages count as memory
        return params

    shard_bytes = _SHARD if folders.reads_text else None  # a U-Net with all that is published for it has 8 GB
    save_model(output, config, _Lazy(config.components, read), tokenizer.json, shard_bytes=shard_bytes)
    if config.caution:
        warnings.warn(f"{folders.unet}: {config.caution}", stacklevel=2)
    return config


class _Lazy(Mapping):
    """Parameters of each network, read when asked for, so that one network at a time is in memory."""

    def __init__(self, components: tuple[str, ...], read: Callable[[str], Params]):
        self._components, self._read = components, read

    def __getitem__(self, component: str) -> Params:
        return self._read(component)

    def __iter__(self) -> Iterator[str]:
        return iter(self._components)

    def __len__(self) -> int:
        return len(self._components)


def _image_model(folders: HuggingFaceFolders) -> Draft:
    """Of an image U-Net whose content is CLIP's embeddings."""
    config, vocabulary = _config(folders), tokenizer_folder(folders, folders.clip or folders.clip_text)
    return Draft(
        config=config,
        tokenizer_json=tokenizer_json(vocabulary),
        tokenizer_name=str(vocabulary),
        networks={component: _network(component, folders, config) for component in config.components},
    )


def _network(component: str, folders: HuggingFaceFolders, config: Gen1Config) -> Network:
    if component == "depth":
        checkpoint, _, layout = depth_checkpoint(folders.depth)
        source = Source(layout=layout, tensors=checkpoint.tensors, name=checkpoint.name)
        return Network(module=config.build(component, np.float32), sources=(source,))
    towers = component == "clip" and folders.clip is None
    paths = [folders.clip_text, folders.clip_image] if towers else [getattr(folders, component)]
    tensors = [stored_tensors(tensor_files(folder)) for folder in paths]
    source = Source(
        layout=CLIP_TOWERS if towers else _LAYOUTS[component],
        tensors=merge_towers(*tensors) if towers else tensors[0],
        name=" and ".join(map(str, paths)),
    )
    return Network(module=config.build(component, np.float32), sources=(source,))


def _config(folders: HuggingFaceFolders) -> Gen1Config:
    schedule, prediction_type = schedule_of(folders)
    if folders.clip is not None:
        clip = read_config(folders.clip, clip_config)
    else:
        text, vision = read_config(folders.clip_text), read_config(folders.clip_image)
        clip = named(f"{folders.clip_text} and {folders.clip_image}", clip_towers_config, text, vision)
    parts = dict(
        unet=read_config(folders.unet, partial(unet_config, prediction_type=prediction_type)),
        vae=read_config(folders.vae, vae_config),
        clip=clip,
        depth=depth_checkpoint(folders.depth)[1],
        prior=None if folders.prior is None else read_config(folders.prior, prior_config),
    )
    learned = trained_content(folders.unet, read_config(folders.unet))
    try:
        settings = dict(schedule=schedule, sampler=default_sampler(schedule))
        return Gen1Config(**parts, **settings, learned_content=learned)
    except ValueError as error:
        raise ConfigError(f"these parts do not fit together: {error}") from None
