"""What a model is told about the clips that it denoises: content, structures, and which of them are mere pictures.

    prompt or picture ─► content {"image": tokens, "text": tokens} ─┐
    depth, edges, ... ─► structure {"depth": Signal, ...} ──────────┴─► Conditions ─► denoiser

A pytree, so that it is an argument of jitted functions; the one place that knows what its axes mean. `diffusion` knows
it by a protocol of its own (`diffusion.guidance.Conditions`).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Of arrays, or of what stands in their place where jax maps over a pytree: shapes, shardings, ...
Maps = Float[Array, "b t h w c"] | Any
PerClip = Int[Array, " b"] | Float[Array, " b"] | Any
Tokens = Float[Array, "b n d"] | Any


SOURCE = "source"
"""The kind of structure that is the video itself which is edited."""


SHARES = "shares"
"""What the shares of contents are called beside maps of structures, where these are told frame by frame."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Signal:
    """One structure of each clip, pixel by pixel.

    Attributes:
        maps: (B, T, h, w, c), as the model takes them: encoded, for Gen-1's depth.
        level: (B,), t_s, the rounds of blur that they went through.
        weight: (B,), how much they count; at 0 they are absent.
        span: (B, 2), the first and the last timestep at which they count, descending; None for all.
    """

    maps: Maps
    level: PerClip
    weight: PerClip
    span: Int[Array, "b 2"] | Any | None = None

    @classmethod
    def of(cls, maps: Maps, level: PerClip | None = None, weight: PerClip | None = None) -> "Signal":
        """Maps at their full weight, and of t_s 0, where these are not given."""
        level = jnp.zeros(len(maps), jnp.int32) if level is None else level
        return cls(maps, level, jnp.ones(len(maps), jnp.float32) if weight is None else weight)

    def at(self, timesteps: Int[Array, " b"]) -> "Signal":
        """The signal at a timestep of each clip: of weight 0 outside the span."""
        if self.span is None:
            return self
        inside = (self.span[:, 0] >= timesteps) & (timesteps >= self.span[:, 1])
        return dataclasses.replace(self, weight=jnp.where(inside, self.weight, 0), span=None)

    @property
    def weighted_maps(self) -> Float[Array, "b t h w c"]:
        """The maps times their weight."""
        return self.maps * self.weight.astype(self.maps.dtype)[:, None, None, None, None]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditions:
    """What B clips are to follow.

    Attributes:
        content: (B, N, D) cross-attention tokens by kind: "image" (CLIP image embeddings), "text" (its text states).
            Each kind has keys and values of its own in the model.
        strength: (B,), how much a kind of content beside the main one counts; 1 for those that it lacks.
        null: (1, N, D) tokens that say nothing, by kind; zeros for the kinds that it lacks.
        structure: by kind ("depth", ...).
        beside: further contents of the same clips, each as `content`; the model is asked with each of them.
        shares: (B, T, 1 + n), how much the prediction by each content counts in each frame, 1 together; the content's
            own comes first. None where there are no others.
        guidance: (B, 2), w and w_t, for a model that has learned them (`DenoiserConfig.guidance_embedded`), to which
            None is 1 and 1, no guidance; None for others.
        still: for each of the rows that belong to one clip, whether the model sees its frames one by one, as pictures.
            Rows of a clip lie beside each other in the batch, pictures first: of (True, False) every other row is
            pictures.
        alike: for each of those rows, the first that is told the same, as pictures or not.
    """

    content: dict[str, Tokens]
    strength: dict[str, PerClip] = dataclasses.field(default_factory=dict)
    null: dict[str, Tokens] = dataclasses.field(default_factory=dict)
    structure: dict[str, Signal] = dataclasses.field(default_factory=dict)
    beside: tuple[dict[str, Tokens], ...] = ()
    shares: Float[Array, "b t n"] | Any | None = None
    guidance: Float[Array, "b 2"] | Any | None = None
    still: tuple[bool, ...] = dataclasses.field(default=(False,), metadata={"static": True})
    alike: tuple[int, ...] = dataclasses.field(default=(0,), metadata={"static": True})

    def without_content(self) -> "Conditions":
        """The same with the null content, for guidance."""
        tokens = {
            kind: jnp.broadcast_to(self.null[kind], x.shape) if kind in self.null else jnp.zeros_like(x)
            for kind, x in self.content.items()
        }
        return dataclasses.replace(self, content=tokens, beside=(), shares=None)

    def each_content(self) -> tuple["Conditions", ...]:
        """The same with each of the contents alone."""
        contents = (self.content, *self.beside)
        return tuple(dataclasses.replace(self, content=content, beside=(), shares=None) for content in contents)

    def mixed(self, predictions: Sequence[Float[Array, "b t h w c"]]) -> Float[Array, "b t h w c"]:
        """One prediction of those by each content, by their shares.

        With it in the place of mu(c), equation 10 has w times the sum of share_i (mu(c_i) - mu(0)): each content leads
        away from none by a scale of its own, as in composable diffusion (https://arxiv.org/abs/2206.01714); together
        the scales make up w.
        """
        if self.shares is None:
            return predictions[0]
        weights = self.shares[..., None, None, None, :]
        return sum(weights[..., i] * x.astype(jnp.float32) for i, x in enumerate(predictions))

    def over(self, frames: int) -> "Conditions":
        """The same with shares of so many frames, where they are of another number: curves over the whole clip."""
        if self.shares is None or (points := self.shares.shape[1]) == frames:
            return self
        at = jnp.linspace(0, points - 1, frames)
        below, part = jnp.floor(at).astype(int), (at % 1)[:, None]
        above = jnp.minimum(below + 1, points - 1)
        return dataclasses.replace(self, shares=self.shares[:, below] * (1 - part) + self.shares[:, above] * part)

    def without_source(self) -> "Conditions":
        """The same where the video that is edited has no weight, for guidance."""
        hidden = {
            name: dataclasses.replace(x, weight=0 * x.weight) for name, x in self.structure.items() if name == SOURCE
        }
        return dataclasses.replace(self, structure=self.structure | hidden)

    def with_guidance(self, guidance_scale: Any, temporal_guidance_scale: Any) -> "Conditions":
        """The same with the scales w and w_t of guidance, each a number or one of each clip."""
        clips = len(next(iter(self.content.values())))
        scales = [jnp.broadcast_to(scale, (clips,)) for scale in (guidance_scale, temporal_guidance_scale)]
        return dataclasses.replace(self, guidance=jnp.stack(scales, axis=-1).astype(jnp.float32))

    def at(self, indices: np.ndarray) -> "Conditions":
        """Of some of the frames, by their numbers."""
        return self._of_frames(lambda x: jnp.take(x, indices, axis=1))

    def frames(self) -> "Conditions":
        """The same for the image model mu_pi: every frame by itself, temporal layers off."""
        return dataclasses.replace(self, still=(True,) * len(self.still))

    def window(self, start: int | Int[Array, ""], size: int) -> "Conditions":
        """Of frames start to start + size - 1; `start` may be traced."""
        return self._of_frames(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, axis=1))

    def tile(self, corner: Int[Array, "2"], size: tuple[int, int]) -> "Conditions":
        """Of rows and columns from a corner (top, left) on, (height, width) of them; the corner may be traced."""
        cut = lambda x: jax.lax.dynamic_slice(x, (0, 0, *corner, 0), (*x.shape[:2], *size, x.shape[4]))
        structure = {kind: dataclasses.replace(x, maps=cut(x.maps)) for kind, x in self.structure.items()}
        return dataclasses.replace(self, structure=structure)

    def _of_frames(self, chosen: Callable[[Array], Array]) -> "Conditions":
        """The same with a part of everything that has frames."""
        structure = {kind: dataclasses.replace(x, maps=chosen(x.maps)) for kind, x in self.structure.items()}
        shares = None if self.shares is None else chosen(self.shares)
        return dataclasses.replace(self, structure=structure, shares=shares)

    def together(self, *others: "Conditions") -> "Conditions":
        """One batch: the rows of each clip beside each other, so that a mesh that divides clips leaves them together.

        Raises:
            ValueError: pictures after videos.
        """
        parts = (self, *others)
        still = tuple(flag for part in parts for flag in part.still)
        if sorted(still, reverse=True) != list(still):
            raise ValueError("conditions of pictures must come before those of videos")

        def beside(*leaves: Array) -> Array:
            rows = [x.reshape(-1, len(part.still), *x.shape[1:]) for x, part in zip(leaves, parts, strict=True)]
            return jnp.concatenate(rows, axis=1).reshape(-1, *leaves[0].shape[1:])

        told = [(part.content, part.strength, part.structure, part.guidance) for part in parts]
        content, strength, structure, guidance = jax.tree.map(beside, *told)
        alike = _alike([jax.tree.leaves(each) for each in told]) if len(still) == len(parts) else range(len(still))
        together = dict(content=content, strength=strength, structure=structure, guidance=guidance)
        return dataclasses.replace(self, **together, still=still, alike=tuple(alike))

    def once(self, function: Callable[..., Any], *arrays: Any) -> Any:
        """What a function of clips gives that has no use for `still`, evaluated once for the rows of a clip `alike`.

        Args:
            function: from trees of arrays whose first axis is the batch to another such.
            arrays: what it takes; the same in rows that are alike.
        """
        first = sorted(set(self.alike))
        if len(first) == len(self.alike):
            return function(*arrays)
        chosen = jax.tree.map(lambda x: _rows(x, len(self.alike), first), arrays)
        where = [first.index(row) for row in self.alike]
        return jax.tree.map(lambda y: _rows(y, len(first), where), function(*chosen))


def _alike(leaves: Sequence[Sequence[Any]]) -> list[int]:
    """For each list of arrays the first that has the very same ones."""
    same = lambda a, b: all(x is y for x, y in zip(a, b, strict=True))
    return [next(i for i, other in enumerate(leaves) if same(other, mine)) for mine in leaves]


def _rows(x: Array, n: int, chosen: Sequence[int]) -> Array:
    """Of a batch with n rows a clip, some rows of each clip."""
    rows = x.reshape(-1, n, *x.shape[1:])
    return jnp.stack([rows[:, i] for i in chosen], axis=1).reshape(-1, *x.shape[1:])
