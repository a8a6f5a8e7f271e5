"""`gen1 import`: Hugging Face folders to one model folder."""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from gen1_jax.diffusion import NoiseSchedule
from gen1_jax.errors import UserError
from gen1_jax.models.module import Params, abstract_parameters, initialise
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.folder import save_model
from gen1_jax.pretrained.hf_clip import CLIP, CLIP_TOWERS, clip_config, clip_towers_config, merge_towers
from gen1_jax.pretrained.hf_config import ConfigError
from gen1_jax.pretrained.hf_depth import DEPTH, depth_config
from gen1_jax.pretrained.hf_pipeline import CLASSES, network_folder, trained_content
from gen1_jax.pretrained.hf_prior import PRIOR, prior_config
from gen1_jax.pretrained.hf_unet import UNET, noise_schedule, unet_config
from gen1_jax.pretrained.hf_vae import VAE, vae_config
from gen1_jax.pretrained.layout import Layout
from gen1_jax.pretrained.tensors import (
    FolderError,
    StoredTensor,
    read_json,
    read_text,
    stored_tensors,
    tensor_files,
)
from gen1_jax.pretrained.tokenizer import CLIPTokenizer, read_vocabulary

_SCHEDULER, _MERGES, _TOKENIZER = "scheduler_config.json", "merges.txt", "tokenizer.json"
_LAYOUTS = {"unet": UNET, "vae": VAE, "clip": CLIP, "depth": DEPTH, "prior": PRIOR}
_NEW_LAYERS_SEED = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class HuggingFaceFolders:
    """Where the parts are. Either `clip` or both of `clip_text` and `clip_image`.

    A folder may be the network's own, or that of a pipeline which has one such network.

    Attributes:
        unet: UNet2DConditionModel of Stable Diffusion 1.x or sd-image-variations.
        vae: AutoencoderKL.
        depth: DPTForDepthEstimation.
        clip: CLIPModel.
        clip_text: CLIPTextModelWithProjection.
        clip_image: CLIPVisionModelWithProjection.
        prior: PriorTransformer; without one the model edits from pictures only.
        tokenizer: CLIP's vocabulary; by default the CLIP folder or the folder `tokenizer` beside it.
        scheduler: its configuration tells the prediction type; by default the folder `scheduler` beside the U-Net's.
    """

    unet: Path
    vae: Path
    depth: Path
    clip: Path | None = None
    clip_text: Path | None = None
    clip_image: Path | None = None
    prior: Path | None = None
    tokenizer: Path | None = None
    scheduler: Path | None = None

    def __post_init__(self):
        towers = (self.clip_text is not None) + (self.clip_image is not None)
        if (self.clip is not None) + towers / 2 != 1:
            raise UserError("give either clip (one folder) or both of clip_text and clip_image")


def import_huggingface(
    folders: HuggingFaceFolders, output: str | Path, progress: Callable[[str], None] = lambda component: None
) -> Gen1Config:
    """Write a model folder from public checkpoints; the image U-Net is inflated in time.

    Temporal layers and the rows of structure and t_s are new: the imported model is the image model on each frame
    until they are trained.

    Args:
        folders: the parts.
        output: the model folder, which must not exist.
        progress: called with the name of each network before it is read.

    Returns:
        The configuration of the new model. Where its U-Net has to be trained before it follows its content, that is
        recorded in it (`Gen1Config.caution`), and a warning says so.

    Raises:
        FolderError, ConfigError, LayoutError: a part is missing, is a variant that we do not have, or does not fit.
    """
    folders = _found(folders)
    config = _config(folders)
    tokenizer = _tokenizer_json(_tokenizer_folder(folders))
    CLIPTokenizer(tokenizer, config.text_config, str(_tokenizer_folder(folders)))  # refuses one of another model
    parts = {component: _part(component, folders, config) for component in config.components}

    def read(component: str) -> Params:
        progress(component)
        return parts.pop(component).parameters()  # closes its files, whose pages count as memory

    save_model(output, config, _Lazy(config.components, read), tokenizer)
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Part:
    """A network's checkpoint. Making one compares the headers of its files with the network."""

    module: nnx.Module
    layout: Layout
    tensors: Mapping[str, StoredTensor]
    source: str

    def __post_init__(self):
        self.layout.match(abstract_parameters(self.module), self.tensors, self.source)

    def parameters(self) -> Params:
        initial = initialise(self.module, _NEW_LAYERS_SEED, only=self.layout.is_new)
        return self.layout.fill(initial, self.tensors, self.source)


def _part(component: str, folders: HuggingFaceFolders, config: Gen1Config) -> _Part:
    towers = component == "clip" and folders.clip is None
    sources = [folders.clip_text, folders.clip_image] if towers else [getattr(folders, component)]
    tensors = [stored_tensors(tensor_files(folder)) for folder in sources]
    return _Part(
        module=config.build(component, np.float32),
        layout=CLIP_TOWERS if towers else _LAYOUTS[component],
        tensors=merge_towers(*tensors) if towers else tensors[0],
        source=" and ".join(map(str, sources)),
    )


def _found(folders: HuggingFaceFolders) -> HuggingFaceFolders:
    """With the folders of networks, tokenizer and scheduler themselves where those of pipelines were named."""
    given = {name: path for name, path in vars(folders).items() if path is not None}
    found = {name: network_folder(path, name) for name, path in given.items() if name in CLASSES}
    for name, files in (("tokenizer", (_MERGES, _TOKENIZER)), ("scheduler", (_SCHEDULER,))):
        if name in given and not any((given[name] / file).is_file() for file in files):
            below = given[name] / name
            found[name] = below if below.is_dir() else given[name]
    return dataclasses.replace(folders, **found)


def _config(folders: HuggingFaceFolders) -> Gen1Config:
    schedule, prediction_type = _schedule(folders)
    if folders.clip is not None:
        clip = _read(folders.clip, clip_config)
    else:
        text, vision = _read(folders.clip_text), _read(folders.clip_image)
        clip = _named(f"{folders.clip_text} and {folders.clip_image}", clip_towers_config, text, vision)
    parts = dict(
        unet=_read(folders.unet, partial(unet_config, prediction_type=prediction_type)),
        vae=_read(folders.vae, vae_config),
        clip=clip,
        depth=_read(folders.depth, depth_config),
        prior=None if folders.prior is None else _read(folders.prior, prior_config),
    )
    try:
        return Gen1Config(
            **parts, schedule=schedule, learned_content=trained_content(folders.unet, _read(folders.unet))
        )
    except ValueError as error:
        raise ConfigError(f"these parts do not fit together: {error}") from None


def _read(folder: Path, parse: Callable[[Mapping], Any] = lambda config: config, name: str = "config.json") -> Any:
    """What `parse` makes of a folder's configuration; its errors name the file."""
    if not folder.is_dir():
        raise FolderError(f"{folder} is not a folder")
    return _named(folder / name, parse, read_json(folder / name))


def _named(source: Path | str, parse: Callable, *configs: Mapping) -> Any:
    try:
        return parse(*configs)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def _schedule(folders: HuggingFaceFolders) -> tuple[NoiseSchedule, str]:
    beside = folders.unet.parent / "scheduler"
    if folders.scheduler is None and not (beside / _SCHEDULER).is_file():
        return NoiseSchedule(), "epsilon"  # Stable Diffusion 1.x
    return _read(folders.scheduler or beside, noise_schedule, _SCHEDULER)


def _tokenizer_folder(folders: HuggingFaceFolders) -> Path:
    if folders.tokenizer is not None:
        return folders.tokenizer
    clip = folders.clip or folders.clip_text
    beside = clip.parent / "tokenizer"
    return beside if beside.is_dir() and not any((clip / name).is_file() for name in (_MERGES, _TOKENIZER)) else clip


def _tokenizer_json(folder: Path) -> str:
    """The contents of a `tokenizer.json` for CLIP's vocabulary in `folder`."""
    if (folder / _MERGES).is_file():
        return read_vocabulary(folder / "vocab.json", folder / _MERGES).to_str()
    if (folder / _TOKENIZER).is_file():
        return read_text(folder / _TOKENIZER)
    raise FolderError(f"{folder} has no vocab.json and merges.txt: name CLIP's folder of them with --tokenizer")
