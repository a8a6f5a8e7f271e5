"""`ContentKind`: what a model's content is, and what the rest of the package has to know of it.

    prompt, picture, clip ──networks of the family──► tokens of a kind ─► Conditions.content[name] ─► cross-attention

A kind is a line of `CONTENT_KINDS`, for kinds differ by values alone. How tokens are made is told where there are
networks, in a class by the same name: `editing.content` has those for edits, `training.contents` those of batches.
"""

import dataclasses
from typing import Any, Literal

from gen1_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContentKind:
    """One kind of content.

    Attributes:
        name: in configurations (`DenoiserConfig.content_kind`), and as a key of `Conditions.content`.
        what: the tokens are, as a person reads it.
        part: the network of the family that makes them.
        width: the field of that network's configuration that is the width of a token, which the denoiser has to read.
        length: the field that is the number of tokens; None for one.
        beside: further networks without which a family is not whole: for a tokenizer, or to measure with.
        of_prompts: the network that makes it of a prompt, which a family may lack; None if no prompt can be read.
        told_by: what every model with it can be told by.
        is_shown: whether a picture or a clip can show it.
        on_sphere: whether tokens are directions, whose mean is to keep their length.
    """

    name: str
    what: str
    part: str
    width: str
    length: str | None = None
    beside: tuple[str, ...] = ()
    of_prompts: str | None = None
    told_by: Literal["prompt", "picture"] = "picture"
    is_shown: bool = True
    on_sphere: bool = False

    @property
    def reads_text(self) -> bool:
        """Whether tokens are those of a text, with places for each of its words."""
        return self.told_by == "prompt"

    @property
    def networks(self) -> tuple[str, ...]:
        """All networks that may be asked for it."""
        return tuple(dict.fromkeys(filter(None, (self.part, self.of_prompts, *self.beside))))

    def tokens(self, part: Any) -> int:
        """How many tokens there are; of a text that is too long for one run of the encoder as many times more.

        Args:
            part: the configuration of the network that makes them.
        """
        return 1 if self.length is None else getattr(part, self.length)


_IMAGE = ContentKind(
    name="image",
    what="CLIP's image embeddings",
    part="clip",
    width="projection_dim",
    of_prompts="prior",
    on_sphere=True,
)
_TEXT = ContentKind(
    name="text",
    what="the states of a text's tokens",
    part="text",
    width="hidden_size",
    length="max_position_embeddings",
    of_prompts="text",
    told_by="prompt",
    is_shown=False,
)
_SPLIT = ContentKind(name="split", what="its split's", part="split", width="cross_attention_dim", beside=("clip",))

CONTENT_KINDS: dict[str, ContentKind] = {kind.name: kind for kind in (_IMAGE, _TEXT, _SPLIT)}
"""By name: Gen-1's own, Stable Diffusion's, and the one that is learned (`models.split`)."""


def content_kind(name: str) -> ContentKind:
    """The kind of that name.

    Raises:
        UserError: there is none; lists those that there are.
    """
    if name not in CONTENT_KINDS:
        raise UserError(f"there is no content of kind {name!r}, only {', '.join(sorted(CONTENT_KINDS))}")
    return CONTENT_KINDS[name]
