"""What the U-Net is told of the structure of a clip while it learns, and which of it is left out.

latents or maps of each kind ──► signals ──► some without weight, by chance ──┬─► U-Net
latents of the clip itself ────► given in some frames, or in a region ────────┘
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from gen1_jax.models.conditions import Signal
from gen1_jax.models.denoiser_config import KNOWN, DenoiserConfig
from gen1_jax.models.denoiser_inputs import known_signal
from gen1_jax.models.module import Bound
from gen1_jax.models.partition import by_frame, fold, unfold
from gen1_jax.models.structure import Depth, StructureKind, told_level
from gen1_jax.training.examples import of_each_frame, split_keys
from gen1_jax.training.known_masks import draw_known
from gen1_jax.training.objective import BatchArrays

if TYPE_CHECKING:
    from gen1_jax.training.denoising import DenoisingConfig

_DROPPED, _TOGETHER, _KNOWN, _ONE = 2, 3, 4, 5  # draws of an example, apart from those of noise and content


class StructureSignals:
    """Makes the signals of a batch.

    Args:
        unet: the shape of the network.
        seen: the kinds that it is to see.
        settings: how often it is to do without.
    """

    def __init__(self, unet: DenoiserConfig, seen: Mapping[str, StructureKind], settings: "DenoisingConfig"):
        self.unet, self.seen, self.settings = unet, seen, settings

    def __call__(
        self,
        unet: Bound,
        networks: Mapping[str, Bound],
        inputs: BatchArrays,
        latents: Float[Array, "b t h w c"],
        keys: Key[Array, " b"],
    ) -> dict[str, Signal]:
        """Signals by name.

        Args:
            unet: the network, whose hints learn.
            networks: the frozen ones.
            inputs: of the batch.
            latents: of the clips, clean.
            keys: one an example.
        """
        signals = self._encoded(networks, inputs, latents) | self._hints(unet, networks, inputs)
        signals = self._weighted(signals, keys)
        probability = self.settings.known_probability
        if self.unet.known and probability:
            draw = lambda key: draw_known(jax.random.fold_in(key, _KNOWN), latents.shape[1:-1], probability)
            signals[KNOWN] = known_signal(latents, jax.vmap(draw)(keys))
        return signals

    def _encoded(
        self, networks: Mapping[str, Bound], inputs: BatchArrays, latents: Float[Array, "b t h w c"]
    ) -> dict[str, Signal]:
        """Every kind that the U-Net sees beside the latents; zeros, and t_s 0, for those that it needs and is not to
        see."""
        signals = {name: Signal.of(jnp.zeros_like(latents)) for name in self.unet.required}
        for name, kind in self.seen.items():
            if name not in self.unet.structures:
                continue
            if f"structure.{name}" in inputs:
                encoded = inputs[f"structure.{name}"].astype(jnp.float32)
            else:
                images_to_latents = partial(of_each_frame, networks["vae"], method="images_to_latents")
                encoded = kind.encode(self._degraded(kind, networks, inputs), images_to_latents)
            signals[name] = Signal.of(jax.lax.stop_gradient(encoded), told_level(kind, inputs["structure_level"]))
        return signals

    def _hints(self, unet: Bound, networks: Mapping[str, Bound], inputs: BatchArrays) -> dict[str, Signal]:
        """Features of the maps of each kind that a control follows; these learn, too."""
        signals = {}
        for name, kind in self.seen.items():
            if name in self.unet.structures:
                continue
            pictures = jax.lax.stop_gradient(kind.hint(self._degraded(kind, networks, inputs)))
            features = unet.apply(unet.params, pictures, kind=name, method="hint")
            signals[name] = Signal.of(features, inputs["structure_level"])
        return signals

    def _weighted(self, signals: dict[str, Signal], keys: Key[Array, " b"]) -> dict[str, Signal]:
        """Signals, some of them without weight."""
        if not self.settings.structure_dropout:
            return signals
        kept = self._kept(keys)
        return {
            name: dataclasses.replace(signal, weight=kept[name].astype(jnp.float32)) for name, signal in signals.items()
        }

    def _kept(self, keys: Key[Array, " b"]) -> dict[str, Bool[Array, " b"]]:
        """Which kinds each example has: each by itself, but now and then all, one of those that are seen, or none."""
        settings, kinds, draw = self.settings, self.unet.kinds, jax.vmap(jax.random.uniform)
        folded = lambda number: jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
        together, choice = draw(folded(_TOGETHER)), draw(folded(_ONE))
        all_kept, none_kept = together < settings.all_kept, together >= 1 - settings.none_kept
        one_kept = ~all_kept & (together < settings.all_kept + settings.one_kept)
        seen = [kind for kind in kinds if kind in self.seen]
        chosen = jnp.maximum(jnp.floor((2 * choice - 1) * len(seen)), 0)  # the first half of the time
        kept = {}
        for kind, of_kind in zip(kinds, split_keys(folded(_DROPPED), len(kinds)), strict=True):
            by_itself = (draw(of_kind) >= settings.dropout_of(kind)) | all_kept
            alone = chosen == seen.index(kind) if kind in seen else False
            kept[kind] = jnp.where(one_kept, alone, by_itself) & ~none_kept
        return kept

    def _degraded(
        self, kind: StructureKind, networks: Mapping[str, Bound], inputs: BatchArrays
    ) -> Float[Array, "b t h w k"]:
        """Maps as the model is to see them: normalised over the example, blurred t_s times."""
        return kind.degrade(kind.normalise(self._maps(kind, networks, inputs)), inputs["structure_level"])

    def _maps(
        self, kind: StructureKind, networks: Mapping[str, Bound], inputs: BatchArrays
    ) -> Float[Array, "b t h w k"]:
        if f"maps.{kind.name}" in inputs:
            return inputs[f"maps.{kind.name}"].astype(jnp.float32)
        pixels = inputs["pixels"]
        if isinstance(kind, Depth) and networks[kind.part].config.temporal_frames:
            return kind.estimate_clips(pixels, networks, pixels.shape[0] * pixels.shape[1])
        frames = fold(by_frame(pixels))
        # all at once: a loop over chunks would cut across devices that share the batch
        return unfold(kind.estimate(frames, networks, frames_per_chunk=len(frames)), len(pixels))
