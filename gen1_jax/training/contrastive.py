"""Training of CLIP: a picture and its caption find each other among all of the batch (arXiv 2103.00020)."""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from gen1_jax.data.batch import Batch
from gen1_jax.errors import UserError
from gen1_jax.models.clip import CLIPConfig, TowerConfig
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
        hidden_size: width of both towers of a CLIP of another width than the model's, which begins with nothing and
            fits no prior of it; 0 for the model's own. Heads stay as wide, and feed-forwards as many times wider.
    """

    exclude_same_captions: bool = True
    hidden_size: int = 0

    def __post_init__(self):
        if self.hidden_size < 0:
            raise UserError(f"clip.hidden_size is {self.hidden_size}, below 0")

    def network(self, config: CLIPConfig) -> CLIPConfig:
        """The network that is trained: that of the model, of another width if it is asked for.

        Raises:
            UserError: a width that its heads do not divide.
        """
        return dataclasses.replace(config, text=self._tower(config.text), vision=self._tower(config.vision))

    def _tower(self, tower: TowerConfig) -> TowerConfig:
        width, head = self.hidden_size or tower.hidden_size, tower.hidden_size // tower.num_attention_heads
        if width % head:
            raise UserError(f"clip.hidden_size is {width}, no multiple of {head}, the width of a head")
        return dataclasses.replace(
            tower,
            hidden_size=width,
            num_attention_heads=width // head,
            intermediate_size=tower.intermediate_size * width // tower.hidden_size,
        )


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
