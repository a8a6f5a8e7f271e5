"""Temporal-consistency guidance: equation 10 of Gen-1 (https://arxiv.org/abs/2302.03011).

    latents ──► [null content, frame by frame | null content | content]   one batch ──► mu_pi(0), mu(0), mu(c)
                                                                                           │ equation 10
    guided prediction ◄────────────────────────────────────────────────────────────────────┘

Where the model sees the source (the video that is edited), the chain may have one more link, mu(source), whose guidance
has a scale of its own, as in InstructPix2Pix (https://arxiv.org/abs/2211.09800): see `Guidance`. A model that was
distilled from guided predictions has learned equation 10: it is told the scales, and evaluated once.

Which of them are evaluated is part of the program, the scales are arguments of it: changing them compiles nothing
unless one becomes, or ceases to be, a number at which an evaluation has no weight.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gen1_jax.diffusion.broadcast import PerExample, per_example
from gen1_jax.diffusion.samplers import Denoiser, steps_within

Branch = Literal["image", "null", "source", "content", "distilled"]
"""mu_pi(0), mu(0) and mu(c) of equation 10; mu(source), without content; and mu(c, w, w_t), all of it in one."""

_BRANCHES: tuple[Branch, ...] = ("image", "null", "content")
_CHAIN: tuple[Branch, ...] = ("image", "null", "source", "content")
_DISTILLED: tuple[Branch, ...] = ("distilled",)
_TOLD_CONTENT: tuple[Branch, ...] = ("content", "distilled")


@runtime_checkable
class Conditions(Protocol):
    """What mathematics asks of the conditions that a model is given. B, the number of clips, may grow."""

    def without_content(self) -> "Conditions":
        """The same with the null content."""
        ...

    def each_content(self) -> "Sequence[Conditions]":
        """The same with each of its contents alone; most have one."""
        ...

    def mixed(self, predictions: Sequence[Float[Array, "b t h w c"]]) -> Float[Array, "b t h w c"]:
        """mu(c), of the predictions by `each_content`."""
        ...

    def without_source(self) -> "Conditions":
        """The same for a model that is not shown the video that is edited."""
        ...

    def with_guidance(self, guidance_scale: PerExample, temporal_guidance_scale: PerExample) -> "Conditions":
        """The same for a model that is told the scales of guidance."""
        ...

    def frames(self) -> "Conditions":
        """The same for the image model: every frame by itself."""
        ...

    def window(self, start: Any, size: int) -> "Conditions":
        """Of some of the frames."""
        ...

    def tile(self, corner: Any, size: tuple[int, int]) -> "Conditions":
        """Of a part of the picture, `size` from a corner (top, left) on."""
        ...

    def together(self, *others: "Conditions") -> "Conditions":
        """One batch in which the n rows of each clip lie beside each other; those of images come first."""
        ...


Model = Callable[..., Float[Array, "b t h w c"]]
"""(latents (B T h w C), timesteps (B,), `Conditions`) -> prediction (B T h w C)."""


def temporal_guidance(
    image_uncond: Float[Array, " b *dims"],
    video_uncond: Float[Array, " b *dims"],
    video_cond: Float[Array, " b *dims"],
    guidance_scale: PerExample,
    temporal_guidance_scale: PerExample,
) -> Float[Array, " b *dims"]:
    """Combines three predictions of one model:

        mu~ = mu_pi(z_t, t, 0, s) + w_t (mu(z_t, t, 0, s) - mu_pi(z_t, t, 0, s))
                                  + w   (mu(z_t, t, c, s) - mu(z_t, t, 0, s))

    The weights sum to one (`branch_weights`), so it may be applied to predictions of any type alike.

    Args:
        image_uncond: mu_pi, every frame by itself (temporal layers off), null content.
        video_uncond: mu, the video model with null content.
        video_cond: mu, the video model with the wanted content.
        guidance_scale: w, a scalar or (B,). 1 is the conditional model, 0 leaves the content out.
        temporal_guidance_scale: w_t, a scalar or (B,). 1 is classifier-free guidance, above 1 leads away
            from the frame-by-frame prediction (smoother in time), below 1 towards it.

    Returns:
        (B, ...), at least float32: guidance magnifies differences that half precision cannot hold.
    """
    w = per_example(guidance_scale, video_cond)
    w_t = per_example(temporal_guidance_scale, video_cond)
    dtype = jnp.promote_types(video_cond.dtype, jnp.float32)
    image_uncond, video_uncond, video_cond = (
        branch.astype(dtype) for branch in (image_uncond, video_uncond, video_cond)
    )
    return image_uncond + w_t * (video_uncond - image_uncond) + w * (video_cond - video_uncond)


def branch_weights(
    guidance_scale: Any, temporal_guidance_scale: Any, source_guidance_scale: Any | None = None
) -> tuple[Any, ...]:
    """The same combination as weights (1 - w_t, w_t - w, w) of (image_uncond, video_uncond, video_cond).

    They sum to one. A weight of zero marks a branch that need not be computed: the image branch at
    w_t = 1, the conditional one at w = 0, the unconditional video one at w = w_t. With the scale of a source they are
    (1 - w_t, w_t - w_src, w_src - w, w), those of `Guidance`.
    """
    scales = (temporal_guidance_scale, source_guidance_scale, guidance_scale)
    w_t, *others = (scale for scale in scales if scale is not None)
    return 1 - w_t, *(before - after for before, after in itertools.pairwise((w_t, *others))), guidance_scale


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Guidance:
    """The scales of an edit, and which branches they need. A pytree whose arrays are the scales.

    With a source scale, content is told to a model that sees the source, and both lead away from one that does not:

        mu~ = equation 10 with mu(source) for mu(c) and w_src for w,  + w (mu(source, c) - mu(source))

    Attributes:
        guidance_scale: w, traced; a number, or one of each clip.
        temporal_guidance_scale: w_t, as w. Of one frame it is without effect, since mu is mu_pi there.
        branches: that are evaluated, in the order of equation 10; at least one. "distilled" stands alone.
        source_guidance_scale: w_src, traced; None for equation 10, in which a source is a structure like others.
    """

    guidance_scale: Float[Array, ""] | Any
    temporal_guidance_scale: Float[Array, ""] | Any
    branches: tuple[Branch, ...] = dataclasses.field(default=_BRANCHES, metadata={"static": True})
    source_guidance_scale: Float[Array, ""] | Any | None = None

    @classmethod
    def of(
        cls,
        guidance_scale: float | int,
        temporal_guidance_scale: float | int,
        source_guidance_scale: float | int | None = None,
        *,
        distilled: bool = False,
    ) -> "Guidance":
        """Those of two numbers, or of three, with the branches that have weight.

        Args:
            guidance_scale: w.
            temporal_guidance_scale: w_t.
            source_guidance_scale: w_src, or None.
            distilled: for a model that is told w and w_t, and takes no w_src.
        """
        if distilled:
            return cls.whole(jnp.float32(guidance_scale), jnp.float32(temporal_guidance_scale), distilled=True)
        weights = branch_weights(guidance_scale, temporal_guidance_scale, source_guidance_scale)
        chain = _BRANCHES if source_guidance_scale is None else _CHAIN
        needed = tuple(branch for branch, weight in zip(chain, weights, strict=True) if weight != 0)
        of_source = None if source_guidance_scale is None else jnp.float32(source_guidance_scale)
        return cls(jnp.float32(guidance_scale), jnp.float32(temporal_guidance_scale), needed, of_source)

    @classmethod
    def whole(cls, guidance_scale: Any, temporal_guidance_scale: Any, *, distilled: bool = False) -> "Guidance":
        """Those of two scales with every branch that a model may need, whatever the scales are; they may be traced."""
        return cls(guidance_scale, temporal_guidance_scale, _DISTILLED if distilled else _BRANCHES)

    @property
    def is_distilled(self) -> bool:
        """Whether it is for a model that is told the scales."""
        return self.branches == _DISTILLED

    @property
    def off(self) -> "Guidance":
        """One evaluation, of the conditional model: w = w_t = 1."""
        return Guidance.of(1.0, 1.0, distilled=self.is_distilled)

    @property
    def chain(self) -> tuple[Branch, ...]:
        """The branches that there are, those without weight among them."""
        return _BRANCHES if self.source_guidance_scale is None else _CHAIN

    def of_images(self) -> "Guidance":
        """The same for clips of one frame, where mu is mu_pi: ordinary guidance, mu(0) in the place of mu_pi(0)."""
        named = dict.fromkeys("null" if branch == "image" else branch for branch in self.branches)
        return dataclasses.replace(self, temporal_guidance_scale=jnp.float32(1), branches=tuple(named))

    def combine(self, predictions: list[Float[Array, " b *dims"]]) -> Float[Array, " b *dims"]:
        """Equation 10, or its longer chain, of the predictions of `branches`.

        A distilled model's prediction is that already. In the place of a branch without weight stands the next that has
        some, or else the last: the terms cancel.
        """
        if self.is_distilled:
            return predictions[0]
        known, last = dict(zip(self.branches, predictions, strict=True)), predictions[-1]
        chain = []
        for branch in reversed(self.chain):
            last = known.get(branch, last)
            chain.insert(0, last)
        w, w_t, w_src = self.guidance_scale, self.temporal_guidance_scale, self.source_guidance_scale
        if w_src is None:
            return temporal_guidance(*chain, w, w_t)
        *three, content = chain
        return temporal_guidance(*three, w_src, w_t) + per_example(w, content) * (content - three[-1])


def guidance_runs(
    guidance: Guidance, steps: int, interval: tuple[float, float] = (0.0, 1.0)
) -> list[tuple[int, int, Guidance]]:
    """A run in parts: w and w_t within the interval, outside it w = w_t = 1, which is one evaluation a step.

    Limited interval guidance (https://arxiv.org/abs/2404.07724): where there is still nothing but noise, guidance does
    harm, and in the last steps nothing. Which branches are evaluated is part of a program, so that each part is a call
    of a program that there is for such scales anyway, rather than a condition in a larger one.

    Args:
        guidance: within the interval.
        steps: of the run, N.
        interval: parts of the run, see `steps_within`.

    Returns:
        (first step, end, guidance), one after another; nothing empty.
    """
    within = steps_within(*interval, steps) or range(0)
    outside = guidance.off
    parts = [(0, within.start, outside), (within.start, within.stop, guidance), (within.stop, steps, outside)]
    return [part for part in parts if part[0] < part[1]]


def branch_conditions(conditions: Conditions, guidance: Guidance) -> dict[Branch, Sequence[Conditions]]:
    """What the model is told in each branch that there may be: of several contents, one after the other.

    Args:
        conditions: of mu(c).
        guidance: whether there is a link of a source, and the scales that a distilled model is told.
    """
    null, contents = conditions.without_content(), conditions.each_content()
    if guidance.is_distilled:
        scales = guidance.guidance_scale, guidance.temporal_guidance_scale
        return {"distilled": [content.with_guidance(*scales) for content in contents]}
    told = {"source": [null], "content": contents}
    if guidance.source_guidance_scale is not None:
        null = null.without_source()
    return told | {"image": [null.frames()], "null": [null]}


def evaluations(conditions: Conditions, guidance: Guidance) -> int:
    """Of the model in one step."""
    told = branch_conditions(conditions, guidance)
    return sum(len(told[branch]) for branch in guidance.branches)


def guided_denoiser(model: Model, conditions: Conditions, guidance: Guidance) -> Denoiser:
    """Temporal-consistency guidance (arXiv 2302.03011, equation 10) around a space-time model.

    All branches are one batch, in which the rows of a clip lie beside each other; the model's temporal layers see
    those of videos alone.

    Args:
        model: mu, and mu_pi where its conditions say `frames`.
        conditions: of B clips.
        guidance: scales and branches.
    """

    def denoise(latents: Float[Array, "b t h w c"], timesteps: Array) -> Float[Array, "b t h w c"]:
        chosen = guidance.of_images() if latents.shape[1] == 1 else guidance
        told = branch_conditions(conditions, chosen)
        asked = [(branch, one) for branch in chosen.branches for one in told[branch]]
        n, (first, *others) = len(asked), [one for _, one in asked]
        rows = model(latents.repeat(n, axis=0), timesteps.repeat(n, axis=0), first.together(*others))
        rows = rows.reshape(-1, n, *rows.shape[1:])
        said = lambda wanted: [rows[:, i] for i, (branch, _) in enumerate(asked) if branch == wanted]
        mixed = lambda branch: conditions.mixed(said(branch)) if branch in _TOLD_CONTENT else said(branch)[0]
        return chosen.combine([mixed(branch) for branch in chosen.branches])

    return denoise
