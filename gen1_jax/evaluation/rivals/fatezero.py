"""FateZero: maps of attention from the input's inversion are fused into those of the edit, for models that read text.

    caption of the input ─► inversion by the image model ─► where its words are that the prompt has others for: masks
                                        │ latents at t
    prompt ─► the edit ─► self-attention:  inside of the mask its own maps, outside those of the input
                          cross-attention: of words that both have the maps of the input, of others its own

Source: https://arxiv.org/abs/2303.09535, sections 3.2 (fusing) and 3.3 (keys and values of the middle frame). Fused are
maps times values, as sums of products, so that no map is written. Of a content that is one token, an image embedding,
maps of cross-attention are 1 everywhere: no word has a place, and there is nothing to fuse.
"""

import dataclasses
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Bool, Float, Float32, Int

from gen1_jax.diffusion import Sampler, SamplerTables
from gen1_jax.editing.sampling import GuidedSampler
from gen1_jax.evaluation.editor import Editor
from gen1_jax.evaluation.rivals.inversion import Indices, Latents
from gen1_jax.evaluation.rivals.lockstep import Lockstep
from gen1_jax.evaluation.told import Way
from gen1_jax.models.attended import Attending, Looking, attending_by, own_and_middle
from gen1_jax.models.attention import Attention, attention
from gen1_jax.models.conditions import Conditions
from gen1_jax.models.module import Bound, Params
from gen1_jax.models.partition import fold, unfold
from gen1_jax.pretrained.prompts import encode_prompts
from gen1_jax.pretrained.tokenizer import CLIPTokenizer

REPLACED = 0.8
"""The share of the steps, from the first on, in which maps are fused."""

THRESHOLD = 0.3
"""Of a map, relative to its largest value in a frame: above it is where the words are."""


class Words(NamedTuple):
    """What two prompts have in common, of each of B clips; a pytree.

    Attributes:
        shared: 1 where token i of the input's caption is token j of the prompt.
        replaced: 1 of the tokens of the caption that the prompt does not have.
    """

    shared: Float32[np.ndarray, "b n n"]
    replaced: Float32[np.ndarray, "b n"]

    @classmethod
    def of(cls, tokenizer: CLIPTokenizer, captions: Sequence[str], prompts: Sequence[str]) -> "Words":
        """By the longest runs of tokens that are the same."""
        ids, _ = encode_prompts(tokenizer, [*captions, *prompts])
        ids = ids.reshape(len(ids), -1)
        shared = np.zeros((len(captions), *2 * ids.shape[1:]), np.float32)
        for one, before, after in zip(
            shared, ids[: len(captions)].tolist(), ids[len(captions) :].tolist(), strict=True
        ):
            for i, j, size in SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks():
                one[range(i, i + size), range(j, j + size)] = 1
        marks = np.isin(ids[: len(captions)], (tokenizer.start, tokenizer.end))
        return cls(shared, np.where(marks, 0, 1 - shared.sum(2)).astype(np.float32))


class Fusion(NamedTuple):
    """Of one step; a pytree.

    Attributes:
        mask: where the edit has its own maps of self-attention.
        shared: see `Words`.
        applies: whether anything is fused.
    """

    mask: Bool[Array, "b t i j"]
    shared: Float32[np.ndarray, "b n n"]
    applies: bool | Bool[Array, ""]


@dataclasses.dataclass(frozen=True, eq=False)
class Seeking(Looking):
    """Attention as `Looking` has it, and where it finds some words.

    Attributes:
        words: 1 of the tokens that are looked for, else 0.
        found: of each layer that was traced, the weight of these words, mean over heads, (B, T, positions).
    """

    words: Float[Array, "b n"]
    found: list[Float[Array, "b t s"]] = dataclasses.field(default_factory=list)

    def to_content(
        self, layer: Attention, x: Float[Array, "n s c"], tokens: Float[Array, "n m d"], clips: int
    ) -> Float[Array, "n s c"]:
        """See `Attending`."""
        query, key, value = layer.projected(x, tokens)
        wanted = jnp.broadcast_to(self.words[:, None], (clips, len(x) // clips, tokens.shape[1]))
        seen = attention(query, key, jnp.broadcast_to(fold(wanted)[..., None, None].astype(value.dtype), value.shape))
        self.found.append(unfold(seen[..., 0].mean(-1).astype(jnp.float32), clips))
        return layer.output(attention(query, key, value))

    def mask(self, size: tuple[int, int]) -> Bool[Array, "b t i j"]:
        """Where the words are, by the mean of all layers."""
        maps = [_on_grid(x, size) for x in self.found]
        mean = sum(jax.image.resize(x, (*x.shape[:2], *size), "linear") for x in maps) / len(maps)
        return mean > THRESHOLD * jnp.maximum(mean.max((2, 3), keepdims=True), 1e-6)


@dataclasses.dataclass(frozen=True, eq=False)
class Fused(Attending):
    """Attention of one step, of rows of which the first of each clip is the input and the last the edit.

    Attributes:
        rows: of a clip.
        known: of the step.
    """

    rows: int
    known: Fusion

    def to_positions(self, layer: Attention, x: Float[Array, "n s c"], clips: int) -> Float[Array, "n s c"]:
        """See `Attending`."""
        query, key, value = layer.projected(x, Looking(own_and_middle).seen(x, clips))
        rows = self._rows(attention(query, key, value), clips)
        of_input = attention(*(_flat(self._rows(y, clips)[row]) for y, row in ((query, 0), (key, 0), (value, -1))))
        grid = _grid(x.shape[1], self.known.mask.shape[2:])
        mask = jax.image.resize(self.known.mask.astype(jnp.float32), (*self.known.mask.shape[:2], *grid), "nearest")
        own = rearrange(mask > 0.5, "b t i j -> b t (i j) 1 1")
        return self._output(layer, rows, jnp.where(own, rows[-1], of_input.reshape(rows[-1].shape)))

    def to_content(
        self, layer: Attention, x: Float[Array, "n s c"], tokens: Float[Array, "n m d"], clips: int
    ) -> Float[Array, "n s c"]:
        """See `Attending`."""
        projected = [self._rows(y, clips) for y in layer.projected(x, tokens)]
        rows = self._rows(attention(*(fold(rearrange(y, "n b ... -> (b n) ...")) for y in projected)), clips)
        (query, key, _), (own_query, own_key, value) = ([y[row] for y in projected] for row in (0, -1))
        shared = self.known.shared.astype(value.dtype)
        there = jnp.einsum("bij,btjhd->btihd", shared, value)  # values of shared words, at their places in the caption
        others = value * (1 - shared.sum(1))[:, None, :, None, None]
        fused = attention(*map(_flat, (query, key, there))) + attention(*map(_flat, (own_query, own_key, others)))
        return self._output(layer, rows, fused.reshape(rows[-1].shape))

    def _rows(self, y: Array, clips: int) -> Float[Array, "rows b t s heads d"]:
        return rearrange(unfold(y, clips), "(b n) ... -> n b ...", n=self.rows)

    def _output(self, layer: Attention, rows: Array, fused: Array) -> Float[Array, "n s c"]:
        last = jnp.where(self.known.applies, fused, rows[-1])
        rows = jnp.concatenate([rows[:-1], last[None]])
        return layer.output(fold(rearrange(rows, "n b ... -> (b n) ...")))


def fatezero_edit(editor: Editor, way: Way, indices: Indices) -> Latents:
    """The image model from each frame's own inversion, told a caption of the input, with attention as in `Fused`.

    Args:
        editor: of the worlds, by a model whose content is text.
        way: which structures are told, both ways.
        indices: of the worlds.
    """
    sampler, content = editor.sampler(way.settings), editor.pipeline.content
    captions, prompts = ([of[i] for i in indices] for of in (editor.worlds.source_prompts, editor.worlds.prompts))
    words = Words.of(content.tokenizer, captions, prompts)
    states = content.states([*captions, *prompts, ""])
    still = dataclasses.replace(editor.told(way, indices).frames(), null={"text": states[-1:]})
    source, told = (
        dataclasses.replace(still, content={"text": states[first : first + len(indices)]})
        for first in (0, len(indices))
    )
    trajectory, masks = _inverted(editor, sampler.ascending(), source, editor.latents[indices], words)
    last = round(REPLACED * len(masks))
    steps = [Fusion(mask, words.shared, step < last) for step, mask in enumerate(masks)]
    return Lockstep(editor=editor, sampler=sampler, way=way, how=Fused)(source, told, trajectory, steps)


def _inverted(
    editor: Editor,
    ascending: GuidedSampler,
    source: Conditions,
    latents: Float[np.ndarray, "b t h w c"],
    words: Words,
) -> tuple[list[Latents], list[Bool[Array, "b t h w"]]]:
    """As `inversion_trajectory`, and beside latents where the words are that are replaced."""
    passed, masks, latents = [], [], jnp.asarray(latents)
    for step in range(len(ascending.tables.timesteps)):
        run = (ascending.unet.params, latents, source, words.replaced, ascending.padded_tables, step)
        latents, mask = _step_up(ascending.unet, ascending.sampler, *run)
        editor.count(1, latents)
        passed.insert(0, latents)
        masks.insert(0, mask)
    return passed, masks


@partial(jax.jit, static_argnums=(0, 1))
def _step_up(
    unet: Bound,
    solver: Sampler,
    params: Params,
    latents: Array,
    source: Conditions,
    words: Array,
    tables: SamplerTables,
    step: int | Int[Array, ""],
) -> tuple[Latents, Bool[Array, "b t i j"]]:
    seeking = Seeking(own_and_middle, words)
    timesteps = jnp.full(len(latents), jnp.asarray(tables.timesteps)[step])
    with attending_by(seeking):
        prediction, _ = unet.apply(params, latents, timesteps, source, method="denoise")
    after = solver.step(tables, step, solver.init(latents), prediction).latents
    return after, seeking.mask(latents.shape[2:4])


def _grid(positions: int, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the level of a U-Net that has so many positions, each half of the one before."""
    while size[0] * size[1] > positions:
        size = -(-size[0] // 2), -(-size[1] // 2)
    return size


def _on_grid(x: Float[Array, "b t s"], size: tuple[int, int]) -> Float[Array, "b t i j"]:
    return x.reshape(*x.shape[:2], *_grid(x.shape[2], size))


def _flat(y: Array) -> Array:
    return rearrange(y, "b t ... -> (b t) ...")
