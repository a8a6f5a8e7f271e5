"""Who judges edits: a CLIP beside the model's own, which is no judge of what was sampled towards its embeddings.

name or folder ──┬─ config.json of transformers' CLIPModel, or a folder with one (clip/) ─┐
                 └─ a model folder of ours, a workdir, "nano" ────────────────────────────┴─► Judge
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float32, UInt8

import gen1_jax.pretrained
from gen1_jax.checkpoints.trained import open_trained
from gen1_jax.data.precompute import fingerprint_of
from gen1_jax.editing.structures import in_chunks
from gen1_jax.errors import UserError
from gen1_jax.models.module import Bound, cast_kernels
from gen1_jax.pretrained.clip_folder import is_clip_folder, read_clip_folder
from gen1_jax.pretrained.tokenizer import CLIPTokenizer

SHIPPED = Path(gen1_jax.pretrained.__file__).parent / "nano_judge"
"""A CLIP of another seed, another width and other worlds than nano's (`launch/nano.sh DIR judge`)."""

NANO_JUDGE = "nano-judge"


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
    """A CLIP that embeds pictures and texts.

    Attributes:
        name: what it is called.
        clip: the network.
        tokenizer: of its text tower.
        alone: whether it is a CLIP and nothing else, rather than a part of a model that edits.
    """

    name: str
    clip: Bound
    tokenizer: CLIPTokenizer
    alone: bool = True

    def embed(self, frames: UInt8[np.ndarray, "t h w 3"]) -> Float32[np.ndarray, "t d"]:
        """The embedding of every picture, a few at a time."""
        encode = lambda chunk: self.clip.encode_image(self.clip.preprocess(chunk))
        return np.concatenate([*in_chunks(encode, frames, None)])

    def embed_clips(self, clips: UInt8[np.ndarray, "n t h w 3"]) -> Float32[np.ndarray, "n t d"]:
        """The same of many clips."""
        return np.stack([self.embed(frames) for frames in clips])

    def embed_texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        """The embedding of every text."""
        return np.asarray(self.clip.encode_text(self.tokenizer(texts)[0]))

    @property
    def fingerprint(self) -> str:
        """A hash of its configuration, weights and vocabulary."""
        vocabulary = hashlib.sha256(self.tokenizer.json.encode()).hexdigest()[:8]
        return f"{fingerprint_of(self.clip.config, self.clip.params)}-{vocabulary}"


def open_judge(name_or_folder: str | Path | None = None) -> Judge:
    """The CLIP of a folder of transformers, of a model folder or of a workdir, by its name, computing in float32.

    Args:
        name_or_folder: None for "nano-judge", the one that ships.

    Raises:
        UserError: there is no such model, or it has no CLIP.
    """
    name_or_folder = NANO_JUDGE if name_or_folder is None else name_or_folder
    folder = SHIPPED if str(name_or_folder) == NANO_JUDGE else Path(name_or_folder)
    if is_clip_folder(folder):
        return Judge(NANO_JUDGE if folder == SHIPPED else folder.resolve().name, *read_clip_folder(folder))
    source = open_trained(name_or_folder)
    if source.config.clip is None:
        raise UserError(f"{name_or_folder} has no CLIP to judge with: name a folder of one with --judge")
    params = jax.device_put(cast_kernels(source.parameters("clip"), np.float32))
    return Judge(source.name, Bound(source.config.build("clip", np.float32), params), source.tokenizer(), alone=False)
