"""What a U-Net and a split learn together: to see through noise by a code and a token that both of them agree on.

    z_0 of the clip, or of the same clip in another content ──split──► code ─► maps ──┐
    z_0 of some frames of the clip, mirrored or not ──────────split──► content ───────┴─► U-Net ─► v ─► loss

The loss is the denoising loss alone (arXiv 2509.08376 does so, too): gradients go through the U-Net into the split.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from gen1_jax.data.batch import Batch
from gen1_jax.errors import UserError
from gen1_jax.models.conditions import SOURCE, Conditions, Signal
from gen1_jax.models.module import Bound, Joint, Params
from gen1_jax.models.split import SplitConfig
from gen1_jax.models.structure import SPLIT
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.training.denoising import DenoisingConfig, DenoisingObjective
from gen1_jax.training.objective import BatchArrays

_FRAMES, _MIRRORED, _PAIRED = 8, 9, 10  # draws of an example, apart from those of other objectives

_NOT_HERE = ("inputs", "trained", "prior_probability", "structure_dropout", "known_probability")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitTrainingConfig:
    """The split that is learned, and from what.

    Attributes:
        grid: g, cells of the code along each side of a frame; a frame has g² N b bits.
        groups: N, of each cell.
        bits: b, of each group.
        width: channels of the split's layers.
        paired: how often the code is that of the same clip in another content (structure "source" of the data), so that
            it learns to leave content out; 1 is an oracle, for nobody has such pairs of real footage.
        mirrored: how often the content is looked at mirrored, left for right, so that it says less of where things are.
    """

    grid: int = 8
    groups: int = 1
    bits: int = 8
    width: int = 96
    paired: float = 0.0
    mirrored: float = 0.5

    def __post_init__(self):
        for name in ("paired", "mirrored"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise UserError(f"split.{name} is {value}, not in [0, 1]")

    def family(self, base: Gen1Config) -> Gen1Config:
        """The family with this split in the place of its structures and of what made its content.

        Args:
            base: whose CLIP and depth network stay, to measure with.

        Raises:
            UserError: its U-Net has controls, or it has a split of another shape.
        """
        unet = base.unet
        if unet.controls:
            raise UserError(f"objective {SPLIT}: a U-Net with controls follows more than a code")
        shape = dict(grid=self.grid, groups=self.groups, bits=self.bits, width=self.width)
        split = SplitConfig(
            **shape, latent_channels=base.vae.latent_channels, cross_attention_dim=unet.cross_attention_dim
        )
        if base.split not in (None, split):
            raise UserError("split: the model has a split of another shape; begin from the model that had none (model)")
        unet = dataclasses.replace(
            unet,
            structure_kinds=(SPLIT,),
            structure_channels=base.vae.latent_channels,
            structure_optional=False,
            known=False,
            content_kind=SPLIT,
        )
        return dataclasses.replace(base, unet=unet, split=split, prior=None, learned_content="unknown")


class SplitObjective(DenoisingObjective):
    """The denoising loss of a U-Net and a split. See `Objective`; what is learned has each of them under its name.

    Args:
        config: a family with a split.
        settings: of the loss.
        split: of the split.
        options: as of `DenoisingObjective`.

    Raises:
        UserError: as there, or settings of the loss that are for other structures and contents.
    """

    def __init__(self, config: Gen1Config, settings: DenoisingConfig, split: SplitTrainingConfig, **options: Any):
        given = [name for name in _NOT_HERE if getattr(settings, name)] + ["lora"] * bool(settings.lora.rank)
        if given:
            raise UserError(f"unet.{given[0]} is not for the objective {SPLIT}: all of the U-Net learns, by one code")
        super().__init__(config, settings, **options)
        if split.paired and self._inputs != "latents":
            raise UserError("split.paired needs latents of pairs: run gen1 precompute --structure source, too")
        self.split = split
        self._unet, self._split = self.module, config.build(SPLIT, self.dtype)
        self.module = Joint(unet=self._unet, split=self._split)

    def _example_content(self, tokenizer: Any) -> None:
        """Nothing: it is learned."""

    def _frozen_parts(self) -> tuple[str, ...]:
        return () if self._inputs == "latents" else ("vae",)

    def inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        """The latents or pixels of the batch, and those of the pairs."""
        arrays = {"moments": batch.moments} if self._inputs == "latents" else {"pixels": batch.pixels}
        if self.split.paired and self.structures:
            arrays[SOURCE] = batch.structure.get(SOURCE)
        if missing := [name for name, array in arrays.items() if array is None]:
            mend = f"data.inputs is not {self._inputs!r}" if missing[0] != SOURCE else "name it in data.structure"
            raise UserError(f"batches have no {missing[0]}: {mend}")
        return arrays

    def _denoiser_of(self, weights: Params) -> Bound:
        return Bound(self._unet, weights["unet"])

    def _told(
        self,
        weights: Params,
        networks: Mapping[str, Bound],
        frozen: Mapping[str, Params],
        inputs: BatchArrays,
        latents: Float[Array, "b t h w c"],
        keys: Key[Array, " b"],
        drop: Bool[Array, " b"],
    ) -> Conditions:
        split = Bound(self._split, weights[SPLIT])
        uniform = lambda number: jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, number), (2,)))(keys)
        chance = lambda number: uniform(number)[:, :1, None, None, None]
        shown = jnp.where(chance(_MIRRORED) < self.split.mirrored, latents[..., ::-1, :], latents)
        content = split.apply(split.params, shown, _some_frames(uniform(_FRAMES), latents.shape[1]), method="content")
        maps = jnp.zeros_like(latents)
        if self.structures:
            followed = latents
            if SOURCE in inputs:
                pair = inputs[SOURCE].astype(latents.dtype)
                followed = jnp.where(chance(_PAIRED) < self.split.paired, pair, latents)
            maps = split.apply(split.params, followed, method="encode").maps
        content = jnp.where(drop[:, None, None], 0, content)
        return Conditions(content={SPLIT: content}, structure={SPLIT: Signal.of(maps)})


def _some_frames(draws: Float[Array, "b 2"], count: int) -> Bool[Array, "b t"]:
    """Of each clip neighbouring frames, of any number from one to all: an edit is shown a picture, or a clip."""
    size = 1 + jnp.floor(draws[:, :1] * count)
    start = jnp.floor(draws[:, 1:] * (count - size + 1))
    frames = jnp.arange(count)
    return (frames >= start) & (frames < start + size)
