"""Content of models that read text: the states of the caption's tokens, as Stable Diffusion has them.

caption ──► token ids ──(sometimes those of the empty text)──► text encoder (frozen) ──► states of all tokens
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key

from gen1_jax.data.batch import Batch
from gen1_jax.data.config import Inputs as InputKind
from gen1_jax.errors import UserError
from gen1_jax.models.module import Bound, Params
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.tokenizer import CLIPTokenizer
from gen1_jax.training.objective import BatchArrays


class TextContent:
    """The content of each example: the states of its caption, or those of the empty text. See `ExampleContent`.

    The empty text is what an edit without a negative prompt is guided away from; examples without a caption have it
    as well. Captions are plain text: brackets in them are not weights of words.

    Args:
        config: of a family with "text".
        tokenizer: gives that of the captions; those that are too long are cut.
        dtype: of the computation.
        inputs: what batches hold; all hold captions.
        prior_probability: 0, for there is no prior.

    Raises:
        UserError: `prior_probability` is not 0.
    """

    frozen = ("text",)

    def __init__(
        self,
        config: Gen1Config,
        tokenizer: Callable[[], CLIPTokenizer],
        dtype: DTypeLike,
        *,
        inputs: InputKind = "latents",
        prior_probability: float = 0.0,
    ):
        if prior_probability:
            raise UserError("unet.prior_probability needs a model with a prior")
        self.tokenizer, self._text = tokenizer(), config.build("text", dtype)
        self._empty = self.tokenizer([""])[0]

    def inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        """Token ids of the captions."""
        return {"token_ids": self.tokenizer(batch.captions)[0]}

    def __call__(
        self, frozen: Mapping[str, Params], inputs: BatchArrays, keys: Key[Array, " b"], drop: Bool[Array, " b"]
    ) -> Float[Array, "b n d"]:
        """States of all tokens, float32, out of reach of gradients; of the empty text where content is dropped."""
        return self._states(frozen, jnp.where(drop[:, None], self._empty, inputs["token_ids"]))

    def null(self, frozen: Mapping[str, Params]) -> dict[str, Float[Array, "1 n d"]]:
        """Those of the empty text."""
        return {"text": self._states(frozen, jnp.asarray(self._empty)[None])}

    def _states(self, frozen: Mapping[str, Params], token_ids: Int[Array, "b n"]) -> Float[Array, "b n d"]:
        text = Bound(self._text, frozen["text"])
        return jax.lax.stop_gradient(text.apply(text.params, token_ids, method="states"))
