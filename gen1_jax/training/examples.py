"""What objectives do to the examples of a batch, each by its own key."""

from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from gen1_jax.data.batch import Batch
from gen1_jax.errors import UserError
from gen1_jax.models.module import Bound
from gen1_jax.models.partition import by_frame, fold, unfold
from gen1_jax.pretrained.tokenizer import CLIPTokenizer


def split_keys(keys: Key[Array, " b"], count: int) -> Key[Array, "count b"]:
    """`count` independent keys of each example."""
    return jax.vmap(partial(jax.random.split, num=count), out_axes=1)(keys)


def random_index(keys: Key[Array, " b"], size: int) -> Int[Array, " b"]:
    """A number from 0 to size - 1 for each example, all equally likely."""
    return jax.vmap(lambda key: jax.random.randint(key, (), 0, size))(keys)


def pick_frames(clips: Shaped[Array, " b t *frame"], index: Int[Array, " b"]) -> Shaped[Array, " b *frame"]:
    """One frame of each clip."""
    return clips[:, 0] if clips.shape[1] == 1 else jax.vmap(lambda clip, i: clip[i])(clips, index)


def of_each_frame(network: Bound, images: Float[Array, "b t h w 3"], **how: Any) -> Any:
    """What a network of single pictures gives for the frames of clips, which all devices share."""
    out = network.apply(network.params, fold(by_frame(images)), **how)
    return jax.tree.map(lambda x: unfold(x, len(images)), out)


def caption_tokens(batch: Batch, tokenizer: CLIPTokenizer) -> dict[str, np.ndarray]:
    """Token ids and mask of the captions, as arrays of a batch."""
    token_ids, mask = tokenizer(batch.captions)
    return {"token_ids": token_ids, "text_mask": mask}


def require(batch: Batch, *names: str) -> None:
    """Refuse a batch without arrays that an objective trains on.

    Raises:
        ValueError: naming the first that is missing.
    """
    for name in names:
        if getattr(batch, name) is None:
            inputs = "depth" if name == "depth" else "pixels"
            raise UserError(f"the batches have no {name}, which this objective trains on: set inputs to {inputs!r}")
