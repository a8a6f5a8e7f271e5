"""What an import is given: folders and files by their options, which of them go together, and how one is opened."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gen1_jax.diffusion import NoiseSchedule
from gen1_jax.errors import UserError
from gen1_jax.pretrained.hf_config import ConfigError
from gen1_jax.pretrained.hf_pipeline import CLASSES, network_folder
from gen1_jax.pretrained.hf_unet import noise_schedule
from gen1_jax.pretrained.recognition import check_is
from gen1_jax.pretrained.tensors import (
    FolderError,
    checkpoint_files,
    read_json,
    read_text,
    stored_tensors,
)
from gen1_jax.pretrained.tokenizer import read_vocabulary

SCHEDULER = "scheduler_config.json"
_MERGES, _TOKENIZER = "merges.txt", "tokenizer.json"
_TEXT_ONLY = ("motion", "controlnets", "ip_adapter", "image_encoder", "softedge", "loras")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HuggingFaceFolders:
    """Where the parts are. A folder may be the network's own, or that of a pipeline which has one such network.

    Content is either CLIP's embedding of a picture (`clip`, or both of `clip_text` and `clip_image`, and a `depth`), or
    the states of a text (`text`, or a `checkpoint` that has such an encoder), with what was published for it.

    Attributes:
        unet: UNet2DConditionModel of Stable Diffusion 1.x or sd-image-variations.
        vae: AutoencoderKL; also one in a file of its own, in place of a checkpoint's.
        depth: DPTForDepthEstimation or DepthAnythingForDepthEstimation; also Depth Anything V2 or Video Depth Anything
            in one file.
        clip: CLIPModel.
        clip_text: CLIPTextModelWithProjection.
        clip_image: CLIPVisionModelWithProjection.
        prior: PriorTransformer; without one the model edits from pictures only.
        tokenizer: CLIP's vocabulary; by default the CLIP folder or the folder `tokenizer` beside it, else CLIP's own.
        scheduler: its configuration tells the prediction type; by default the folder `scheduler` beside the U-Net's.
        checkpoint: one file with U-Net, autoencoder and text encoder of a Stable Diffusion 1.x.
        text: CLIPTextModel.
        motion: MotionAdapter, or AnimateDiff's motion modules in one file.
        controlnets: ControlNetModels, or ControlNets in one file each, by the kind of structure.
        ip_adapter: an IP-Adapter in one file.
        image_encoder: CLIPVisionModelWithProjection, which the IP-Adapter reads.
        softedge: ControlNetHED in a file, or a folder of it.
        loras: LoRAs in one file each, and how strong each is.

    Raises:
        UserError: options that exclude each other, or without another that they need, by name.
    """

    unet: Path | None = None
    vae: Path | None = None
    depth: Path | None = None
    clip: Path | None = None
    clip_text: Path | None = None
    clip_image: Path | None = None
    prior: Path | None = None
    tokenizer: Path | None = None
    scheduler: Path | None = None
    checkpoint: Path | None = None
    text: Path | None = None
    motion: Path | None = None
    controlnets: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    ip_adapter: Path | None = None
    image_encoder: Path | None = None
    softedge: Path | None = None
    loras: tuple[tuple[Path, float], ...] = ()

    def __post_init__(self):
        if (self.checkpoint is None) == (self.unet is None):
            raise UserError("give either unet (a folder) or checkpoint (one file with U-Net, VAE and text encoder)")
        if self.vae is None and self.checkpoint is None:
            raise UserError("give a vae, too")
        towers = (self.clip_text is not None) + (self.clip_image is not None)
        if self.reads_text:
            if self.clip is not None or towers or self.prior is not None:
                raise UserError("clip and prior are for content of CLIP's embeddings, text and checkpoint for prompts")
        else:
            if (self.clip is not None) + towers / 2 != 1:
                raise UserError("give either clip (one folder) or both of clip_text and clip_image, or a text encoder")
            if given := [name for name in _TEXT_ONLY if getattr(self, name)]:
                raise UserError(f"{given[0].rstrip('s')} goes with content of text: give text, not clip")
        if self.depth is None and (not self.reads_text or "depth" in self.controlnets):
            raise UserError("give a depth network, too (DPT, Depth Anything), which structure is estimated with")
        if (self.ip_adapter is None) != (self.image_encoder is None):
            raise UserError("ip_adapter and image_encoder go together: the one reads what the other gives")

    @property
    def reads_text(self) -> bool:
        """Whether the model's content is text."""
        return self.checkpoint is not None or self.text is not None


def found(folders: HuggingFaceFolders) -> HuggingFaceFolders:
    """With the folders of networks, tokenizer and scheduler themselves where those of pipelines were named."""
    given = {name: path for name, path in vars(folders).items() if isinstance(path, Path)}
    changes = {
        name: network_folder(path, name) for name, path in given.items() if name in CLASSES and _is_folder(name, path)
    }
    for name, files in (("tokenizer", (_MERGES, _TOKENIZER)), ("scheduler", (SCHEDULER,))):
        if name in given and not any((given[name] / file).is_file() for file in files):
            below = given[name] / name
            changes[name] = below if below.is_dir() else given[name]
    return dataclasses.replace(folders, **changes)


def _is_folder(name: str, path: Path) -> bool:
    """Whether this is to be a folder: some networks may be one file instead."""
    if name == "depth" and path.is_dir() and not any(path.rglob("config.json")):
        return False
    return name not in ("vae", "motion", "depth") or not path.is_file()


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A network's checkpoint, of whose tensors none is read.

    Attributes:
        name: what it is called in an error.
        config: as its library writes it, from its folder or from the shapes of its tensors.
        tensors: by the library's names.
    """

    name: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Any]

    def read(self, parse: Callable[[Mapping], Any]) -> Any:
        """What `parse` makes of the configuration; its errors name the checkpoint."""
        return named(self.name, parse, self.config)


def opened(
    path: Path,
    part: str,
    option: str,
    spelling: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda tensors: tensors,
    shape: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> Checkpoint:
    """A network's folder, or its file.

    Args:
        path: of either.
        part: of `hf_pipeline.CLASSES`.
        option: of `recognition.KINDS`.
        spelling: puts tensors of a file under the library's names.
        shape: the configuration that tensors under these names show; None if it has to be a folder.

    Raises:
        FolderError, ConfigError: it is not there, damaged, or another network.
    """
    folder = None if path.is_file() and shape is not None else network_folder(path, part)
    tensors = stored_tensors(checkpoint_files(folder or path))
    check_is(option, folder or path, tensors)
    tensors = spelling(tensors)
    if folder is None:
        return Checkpoint(str(path), shape(tensors), tensors)
    return Checkpoint(str(folder), read_json(folder / "config.json"), tensors)


def read_config(
    folder: Path, parse: Callable[[Mapping], Any] = lambda config: config, name: str = "config.json"
) -> Any:
    """What `parse` makes of a folder's configuration; its errors name the file."""
    if not folder.is_dir():
        raise FolderError(f"{folder} is not a folder")
    return named(folder / name, parse, read_json(folder / name))


def named(source: Path | str, parse: Callable, *args: Any) -> Any:
    """`parse(*args)`, whose errors about configurations begin with the source."""
    try:
        return parse(*args)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def schedule_of(folders: HuggingFaceFolders) -> tuple[NoiseSchedule, str]:
    """The noise schedule of the base and what it predicts; Stable Diffusion 1.x's where nothing tells."""
    beside = None if folders.unet is None else folders.unet.parent / "scheduler"
    if folders.scheduler is None and (beside is None or not (beside / SCHEDULER).is_file()):
        return NoiseSchedule(), "epsilon"
    return read_config(folders.scheduler or beside, noise_schedule, SCHEDULER)


def tokenizer_folder(folders: HuggingFaceFolders, encoder: Path | None) -> Path | None:
    """The folder of CLIP's vocabulary: the one that was named, the text encoder's own, or `tokenizer` beside it.

    Args:
        folders: that were given.
        encoder: the text encoder's; None if it has none.
    """
    if folders.tokenizer is not None or encoder is None:
        return folders.tokenizer
    beside, has_it = encoder.parent / "tokenizer", any((encoder / name).is_file() for name in (_MERGES, _TOKENIZER))
    return beside if beside.is_dir() and not has_it else encoder


def tokenizer_json(folder: Path) -> str:
    """The contents of a `tokenizer.json` for CLIP's vocabulary in `folder`."""
    if (folder / _MERGES).is_file():
        return read_vocabulary(folder / "vocab.json", folder / _MERGES).to_str()
    if (folder / _TOKENIZER).is_file():
        return read_text(folder / _TOKENIZER)
    raise FolderError(f"{folder} has no vocab.json and merges.txt: name CLIP's folder of them with --tokenizer")
