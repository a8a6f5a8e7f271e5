"""Training of CLIP: a picture and its caption find each other among all of the batch (arXiv 2103.00020)."""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from gen1_jax.data.batch import Batch
from gen1_jax.models.module import Bound, Params
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.tokenizer import CLIPTokenizer
from gen1_jax.training.examples import pick_frames, require
from gen1_jax.training.learned import Learned, WholeNetwork
from gen1_jax.training.losses import contrastive_logits, contrastive_loss
from gen1_jax.training.objective import ALONE, BatchArrays, Context


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """How CLIP is trained.

    Attributes:
        exclude_same_captions: whether a picture whose caption is another's, word for word, is no negative of it.
    """

    exclude_same_captions: bool = True


class ContrastiveObjective:
    """Symmetric InfoNCE between the content frame of each clip and its caption.

    An example without a caption has loss 0 and is nobody's negative. The negatives of an example are what `loss` is
    given beside it: accumulating gradients over parts of a batch leaves each part its own negatives only.

    Args:
        config: of the family.
        settings: of the loss.
        dtype: of the computation; cosines and losses are float32.
        tokenizer: of the text tower.
    """

    component = "clip"
    learned: Learned = WholeNetwork()
    coupled = True
    frozen: tuple[str, ...] = ()

    def __init__(
        self,
        config: Gen1Config,
        settings: ContrastiveConfig = ContrastiveConfig(),
        *,
        tokenizer: CLIPTokenizer,
        dtype: DTypeLike = jnp.float32,
    ):
        self.settings, self.tokenizer = settings, tokenizer
        self.module = config.build(self.component, dtype)

    def inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        """Pixels, which frame is the content, and token ids of the captions.

        Raises:
            ValueError: no pixels.
        """
        require(batch, "pixels")
        captions = batch.captions
        return {
            "pixels": batch.pixels,
            "content_index": batch.content_index,
            "token_ids": self.tokenizer(captions)[0],
            "captioned": np.array([bool(caption.strip()) for caption in captions]),
        }

    def loss(
        self,
        weights: Params,
        frozen: Mapping[str, Params],
        inputs: BatchArrays,
        keys: Key[Array, " b"],
        context: Context = ALONE,
    ) -> tuple[Float[Array, " b"], dict[str, Float[Array, " b"]]]:
        """The loss of each example, and:

        image_to_text_accuracy: 1 if the picture's own caption is the nearest of the batch, else 0.
        text_to_image_accuracy: the other way round.
        logit_scale: what cosines are multiplied by, before its limit of 100.
        """
        network, token_ids, captioned = Bound(self.module, weights), inputs["token_ids"], inputs["captioned"]
        pictures = self.module.preprocess(pick_frames(inputs["pixels"], inputs["content_index"]))
        images = network.apply(weights, pictures, method="encode_image")
        texts = network.apply(weights, token_ids, method="encode_text")

        own = jnp.eye(len(token_ids), dtype=bool)
        excluded = ~(captioned[:, None] & captioned[None])
        if self.settings.exclude_same_captions:
            excluded |= (token_ids[:, None] == token_ids[None]).all(-1)
        logits = contrastive_logits(images, texts, weights["logit_scale"], excluded & ~own)

        def accuracy(axis: int) -> Float[Array, " b"]:
            found = logits.argmax(axis) == jnp.arange(len(token_ids))
            return jnp.where(captioned, found.astype(jnp.float32), jnp.nan)

        metrics = {
            "image_to_text_accuracy": accuracy(1),
            "text_to_image_accuracy": accuracy(0),
            "logit_scale": jnp.full(len(token_ids), jnp.exp(weights["logit_scale"])),
        }
        return jnp.where(captioned, contrastive_loss(logits), 0), metrics
