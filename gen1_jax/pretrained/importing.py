"""`gen1 import`: Hugging Face folders to one model folder."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from gen1_jax.diffusion import NoiseSchedule
from gen1_jax.models.module import Params, initialise
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.folder import save_model
from gen1_jax.pretrained.hf_clip import CLIP, CLIP_TOWERS, clip_config, clip_towers_config, merge_towers
from gen1_jax.pretrained.hf_config import ConfigError
from gen1_jax.pretrained.hf_depth import DEPTH, depth_config
from gen1_jax.pretrained.hf_prior import PRIOR, prior_config
from gen1_jax.pretrained.hf_unet import UNET, noise_schedule, unet_config
from gen1_jax.pretrained.hf_vae import VAE, vae_config
from gen1_jax.pretrained.layout import Layout
from gen1_jax.pretrained.tensors import FolderError, read_json, read_tensors, tensor_files

_NEW_LAYERS_SEED = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class HuggingFaceFolders:
    """Where the parts are. Either `clip` or both of `clip_text` and `clip_image`.

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
            raise ValueError("give either clip (one folder) or both of clip_text and clip_image")


class _Import(Mapping):
    """Parameters of each network, read when asked for, so that one network at a time is in memory."""

    def __init__(self, readers: Mapping[str, Callable[[], Params]]):
        self._readers = readers

    def __getitem__(self, component: str) -> Params:
        return self._readers[component]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


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
        The configuration of the new model.

    Raises:
        FolderError, ConfigError, LayoutError: a part is missing, is a variant that we do not have, or does not fit.
    """
    schedule, prediction_type = _schedule(folders)
    config = _config(folders, prediction_type, schedule)
    towers = folders.clip is None
    layouts = {"unet": UNET, "vae": VAE, "clip": CLIP_TOWERS if towers else CLIP, "depth": DEPTH, "prior": PRIOR}
    clip_folders = [folders.clip_text, folders.clip_image] if towers else [folders.clip]
    sources = {c: clip_folders if c == "clip" else [getattr(folders, c)] for c in config.components}
    for folder in itertools.chain.from_iterable(sources.values()):
        tensor_files(folder)  # refuses pickles and missing files before any work
    tokenizer = tokenizer_json(_tokenizer_folder(folders))

    def reader(component: str, layout: Layout) -> Callable[[], Params]:
        def read() -> Params:
            progress(component)
            initial = initialise(config.build(component, np.float32), _NEW_LAYERS_SEED, only=layout.is_new)
            tensors = [read_tensors(source) for source in sources[component]]
            merged = merge_towers(*tensors) if len(tensors) == 2 else tensors[0]
            return layout.fill(initial, merged, str(sources[component][0]))

        return read

    save_model(output, config, _Import({c: reader(c, layouts[c]) for c in config.components}), tokenizer)
    return config


def tokenizer_json(folder: Path) -> str:
    """The contents of a `tokenizer.json` for CLIP's vocabulary in `folder` (vocab.json and merges.txt).

    Raises:
        FolderError: there is none.
    """
    from transformers import CLIPTokenizer

    try:
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            tokenizer = CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
        elif (folder / "tokenizer.json").is_file():
            tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        else:
            raise FolderError(f"{folder} has no vocab.json and merges.txt: name CLIP's folder of them with --tokenizer")
        return tokenizer.backend_tokenizer.to_str()
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, FolderError):
            raise
        raise FolderError(f"{folder} holds no CLIP tokenizer that can be read: {error}") from None


def _config(folders: HuggingFaceFolders, prediction_type: str, schedule: NoiseSchedule) -> Gen1Config:
    read = lambda folder: read_json(folder / "config.json") if folder.is_dir() else _no_folder(folder)
    clip = (
        clip_config(read(folders.clip))
        if folders.clip is not None
        else clip_towers_config(read(folders.clip_text), read(folders.clip_image))
    )
    try:
        return Gen1Config(
            unet=unet_config(read(folders.unet), prediction_type=prediction_type),
            vae=vae_config(read(folders.vae)),
            clip=clip,
            depth=depth_config(read(folders.depth)),
            prior=None if folders.prior is None else prior_config(read(folders.prior)),
            schedule=schedule,
        )
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"these parts do not fit together: {error}") from None


def _no_folder(folder: Path):
    raise FolderError(f"{folder} is not a folder")


def _schedule(folders: HuggingFaceFolders) -> tuple[NoiseSchedule, str]:
    folder = folders.scheduler or folders.unet.parent / "scheduler"
    if folders.scheduler is None and not folder.is_dir():
        return NoiseSchedule(), "epsilon"  # Stable Diffusion 1.x
    return noise_schedule(read_json(folder / "scheduler_config.json"))


def _tokenizer_folder(folders: HuggingFaceFolders) -> Path:
    if folders.tokenizer is not None:
        return folders.tokenizer
    clip = folders.clip or folders.clip_text
    beside = clip.parent / "tokenizer"
    return beside if not (clip / "merges.txt").is_file() and beside.is_dir() else clip
