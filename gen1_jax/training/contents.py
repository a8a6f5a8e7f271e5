"""What examples are told of their content, by a class for each kind that is there before a U-Net learns.

a frame ──CLIP──► an embedding, sometimes the prior's of the caption; sometimes zeros        (arXiv 2302.03011, 3.1)
the caption ──text encoder──► states, sometimes those of the empty text                      (`TextContent`)
"""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

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
from gen1_jax.training.prior_content import PriorContent

Tokenizer = Callable[[], CLIPTokenizer] | None
"""Gives that of the captions, to those who read them."""


@runtime_checkable
class ExampleContent(Protocol):
    """The content of each example of a batch.

    Attributes:
        frozen: networks whose weights it reads.
    """

    frozen: tuple[str, ...]

    def inputs(self, batch: Batch) -> dict[str, np.ndarray | None]:
        """The arrays of the batch that it reads; None for one that the batch lacks."""
        ...

    def __call__(
        self, frozen: Mapping[str, Params], inputs: BatchArrays, keys: Key[Array, " b"], drop: Bool[Array, " b"]
    ) -> Float[Array, "b n d"]:
        """Tokens, float32, out of reach of gradients; those of no content where it is dropped."""
        ...

    def null(self, frozen: Mapping[str, Params]) -> dict[str, Float[Array, "1 n d"]]:
        """Those of no content, as `Conditions` has them: nothing where they are zeros."""
        ...


class FrameContent:
    """CLIP's embedding of a frame, or sometimes what the prior makes of the caption. See `ExampleContent`.

    Args:
        config: of the family.
        tokenizer: gives that of the captions; needed for the prior alone.
        dtype: of the computation.
        inputs: what batches hold; those of latents have the embedding.
        prior_probability: that the prior stands in for the frame.

    Raises:
        UserError: `prior_probability` for a family without a prior.
    """

    def __init__(
        self, config: Gen1Config, tokenizer: Tokenizer, dtype: DTypeLike, inputs: InputKind, prior_probability: float
    ):
        self._clip, self._array = config.build("clip", dtype), "content" if inputs == "latents" else "content_index"
        self.frozen: tuple[str, ...] = () if inputs == "latents" else ("clip",)
        self._of_captions = None
        if prior_probability:
            self._of_captions = PriorContent(config, prior_probability, tokenizer(), dtype)
            self.frozen = self._of_captions.frozen

    def inputs(self, batch: Batch) -> dict[str, np.ndarray | None]:
        """The embedding, or the number of the frame, and what the prior reads."""
        more = {} if self._of_captions is None else self._of_captions.inputs(batch)
        return {self._array: getattr(batch, self._array)} | more

    def __call__(
        self, frozen: Mapping[str, Params], inputs: BatchArrays, keys: Key[Array, " b"], drop: Bool[Array, " b"]
    ) -> Float[Array, "b 1 d"]:
        """The embedding as one token, zeros where content is dropped."""
        content = inputs["content"] if "content" in inputs else self._of_frame(frozen, inputs)
        if self._of_captions is not None:
            of_captions = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)  # of their own: other draws stay
            content = self._of_captions(frozen, inputs, of_captions, content)
        return jnp.where(drop[:, None], 0, jax.lax.stop_gradient(content).astype(jnp.float32))[:, None]

    def null(self, frozen: Mapping[str, Params]) -> dict[str, Float[Array, "1 n d"]]:
        """Nothing: zeros."""
        return {}

    def _of_frame(self, frozen: Mapping[str, Params], inputs: BatchArrays) -> Float[Array, "b d"]:
        frames = inputs["pixels"][jnp.arange(len(inputs["pixels"])), inputs["content_index"]]
        clip = Bound(self._clip, frozen["clip"])
        return clip.apply(clip.params, clip.module.preprocess(frames), method="encode_image")


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
        self, config: Gen1Config, tokenizer: Tokenizer, dtype: DTypeLike, inputs: InputKind, prior_probability: float
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


CONTENTS: dict[str, Callable[..., ExampleContent]] = {"image": FrameContent, "text": TextContent}
"""By the name of the kind of content; one that learns together with the U-Net is told by an objective of its own."""
