"""Content as an edit by prompt has it: what the prior makes of a caption, where training has a frame's embedding."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from gen1_jax.data.batch import Batch
from gen1_jax.errors import UserError
from gen1_jax.models.module import Bound, Params
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.tokenizer import CLIPTokenizer
from gen1_jax.training.examples import caption_tokens, split_keys
from gen1_jax.training.objective import BatchArrays


class PriorContent:
    """Replaces some contents by the prior's.

    A frame's embedding tells of the clip's own structure, too; the prior's does not, and it is less exact. A U-Net
    that has seen both does not count on more than a prompt gives.

    Args:
        config: of a family with a prior; it says how the prior is sampled.
        probability: that an example's content is replaced. Examples without a caption keep theirs.
        tokenizer: of the captions.
        dtype: of the computation.

    Raises:
        ValueError: the family has no prior.
    """

    frozen = ("clip", "prior")

    def __init__(self, config: Gen1Config, probability: float, tokenizer: CLIPTokenizer, dtype: DTypeLike):
        if config.prior is None:
            raise UserError("unet.prior_probability needs a model with a prior")
        self.config, self.probability, self.tokenizer = config, probability, tokenizer
        self._clip, self._prior = config.build("clip", dtype), config.build("prior", dtype)
        self._empty = tokenizer([""])

    def inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        """Token ids and mask of the captions."""
        return caption_tokens(batch, self.tokenizer)

    def __call__(
        self,
        frozen: Mapping[str, Params],
        inputs: BatchArrays,
        keys: Key[Array, " b"],
        content: Float[Array, "b d"],
    ) -> Float[Array, "b d"]:
        """`content`, some of it replaced, each example by its own key."""
        of_choice, of_noise = split_keys(keys, 2)
        clip, prior = Bound(self._clip, frozen["clip"]), Bound(self._prior, frozen["prior"])
        encode = lambda ids: clip.apply(clip.params, ids, method="encode_text_tokens")
        empty_ids, empty_mask = map(jnp.asarray, self._empty)
        text, empty = (*encode(inputs["token_ids"]), inputs["text_mask"]), (*encode(empty_ids), empty_mask)
        shape = (self.config.prior_num_inference_steps + 1, content.shape[-1])
        noise = jax.vmap(lambda key: jax.random.normal(key, shape), out_axes=1)(of_noise)
        guidance = jnp.float32(self.config.prior_guidance_scale)
        made = prior.apply(prior.params, noise, text, guidance, empty, method="denoise")
        captioned = (inputs["token_ids"] != empty_ids).any(-1)
        chosen = captioned & (jax.vmap(jax.random.uniform)(of_choice) < self.probability)
        return jnp.where(chosen[:, None], made.astype(content.dtype), content)
