"""Training of the depth network: inverse depth up to scale and shift, of single pictures or of clips.

pixels ──► a frame ──► another light ──► working size ──► network ──► back to size ──┐
depth ───► the same frame ───────────────────────────────────────────────────────────┴─► aligned error + gradients

Of pictures by arXiv 1907.01341; of clips, for the layers between frames, by arXiv 2501.12375.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from gen1_jax.data.batch import Batch
from gen1_jax.errors import UserError
from gen1_jax.measures import depth_errors
from gen1_jax.models.depth import DPTConfig
from gen1_jax.models.module import Bound, Params
from gen1_jax.models.pictures import pixels_to_images
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.training.examples import pick_frames, random_index, require, split_keys
from gen1_jax.training.learned import Learned, selected
from gen1_jax.training.losses import clip_depth_loss, scale_shift_invariant_loss
from gen1_jax.training.objective import ALONE, BatchArrays, Context
from gen1_jax.training.photometric import PhotometricConfig, change_light


@dataclasses.dataclass(frozen=True, kw_only=True)
class MonodepthConfig:
    """How the depth network is trained.

    Attributes:
        trim: share of each picture's pixels, those of the largest error, left out of the absolute error.
        gradient_weight: of gradient matching.
        gradient_scales: at how many resolutions gradients are matched.
        photometric: how the pictures' light is changed; all zeros for not at all.
        depth_range: metrics take what is farther than this many times the nearest point to be just there.
        trained: the parameters that are trained: "motion", the layers between frames, or regular expressions that are
            searched in their names; empty for all. The others stay as they are in `model`.
        temporal_frames: give the network layers between frames, new ones where it has none, that see so many frames at
            once; 0 for those that it has.
        temporal_norm_groups: of such new layers' group normalisations.
        temporal_weight: of how depth changes from frame to frame, in clips.
        still: a change is compared where the true one is below this share of the range of depth.
        flicker: how the light of each frame of a clip is changed by itself, beside `photometric` for all of it.
        padded: how many clips end early, and go on with their last frame, as the last window of an edit does.
    """

    trim: float = 0.2
    gradient_weight: float = 0.5
    gradient_scales: int = 4
    photometric: PhotometricConfig = PhotometricConfig()
    depth_range: float = 20.0
    trained: tuple[str, ...] = ()
    temporal_frames: int = 0
    temporal_norm_groups: int = 8
    temporal_weight: float = 10.0
    still: float = 0.05
    flicker: PhotometricConfig = PhotometricConfig(
        gamma=0.05, gain=0.03, contrast=0.05, brightness=0.02, saturation=0.0, blur=0.5, noise=0.05
    )
    padded: float = 0.25

    def __post_init__(self):
        if not 0 <= self.trim < 1:
            raise UserError(f"trim is {self.trim}, not in 0 ... 1")
        if self.gradient_weight < 0 or self.gradient_scales < 1 or self.depth_range <= 1:
            raise UserError(f"gradient_weight, gradient_scales or depth_range is out of range: {self}")
        if min(self.temporal_frames, self.temporal_weight, self.still) < 0 or not 0 <= self.padded <= 1:
            raise UserError(f"temporal_frames, temporal_weight, still or padded is out of range: {self}")

    def network(self, config: DPTConfig) -> DPTConfig:
        """The network that is trained: that of the model, with layers between frames if they are asked for."""
        if not self.temporal_frames:
            return config
        groups = config.temporal_norm_groups if config.temporal_frames else self.temporal_norm_groups
        return dataclasses.replace(config, temporal_frames=self.temporal_frames, temporal_norm_groups=groups)


class DepthObjective:
    """Estimate the inverse depth of one frame of each clip, drawn by the example's key.

    The frames of a clip are nearly one picture: more clips teach more than more frames, at the same memory.

    Args:
        config: of the family.
        settings: of the loss.
        dtype: of the computation; the loss is float32.
    """

    component = "depth"
    coupled = False
    frozen: tuple[str, ...] = ()

    def __init__(
        self, config: Gen1Config, settings: MonodepthConfig = MonodepthConfig(), *, dtype: DTypeLike = jnp.float32
    ):
        self.settings = settings
        self.module = config.build(self.component, dtype)
        self.learned: Learned = selected(settings.trained, self.module, "depth.trained")

    def inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        """Pixels and depth.

        Raises:
            ValueError: one of them is missing.
        """
        require(batch, "pixels", "depth")
        return {"pixels": batch.pixels, "depth": batch.depth}

    def loss(
        self,
        weights: Params,
        frozen: Mapping[str, Params],
        inputs: BatchArrays,
        keys: Key[Array, " b"],
        context: Context = ALONE,
    ) -> tuple[Float[Array, " b"], dict[str, Float[Array, " b"]]]:
        """The loss of each example, and:

        abs_rel: mean relative error of depth, inverse depth being aligned first; see `measures.depth_errors`.
        delta_1: share of pixels whose depth is within 25%.
        """
        settings = self.settings
        of_frame, of_light = split_keys(keys, 2)
        index = random_index(of_frame, inputs["pixels"].shape[1])
        target = pick_frames(inputs["depth"], index)
        images = change_light(pixels_to_images(pick_frames(inputs["pixels"], index)), of_light, settings.photometric)
        prediction = self.estimate(weights, images)
        loss = scale_shift_invariant_loss(
            prediction,
            target,
            trim=settings.trim,
            gradient_weight=settings.gradient_weight,
            scales=settings.gradient_scales,
        )
        abs_rel, delta_1 = depth_errors(prediction, target, depth_range=settings.depth_range)
        return loss, {"abs_rel": abs_rel, "delta_1": delta_1}

    def estimate(self, params: Params, images: Float[Array, "b h w 3"]) -> Float[Array, "b h w"]:
        """`DPTDepth.estimate` of all pictures at once; its loop over a few of them would only be slow here."""
        batch, height, width, _ = images.shape
        size = self.module.config.working_size(height, width)
        images = jnp.clip(jax.image.resize(images, (batch, *size, 3), "cubic"), -1, 1)
        return jax.image.resize(Bound(self.module, params).apply(params, images), (batch, height, width), "linear")


class ClipDepthObjective(DepthObjective):
    """Estimate the inverse depth of clips, all frames of one together, by the layers between frames.

    Arguments of `DepthObjective`.

    Raises:
        UserError: the network has no such layers, or `trained` names no parameter.
    """

    def __init__(
        self, config: Gen1Config, settings: MonodepthConfig = MonodepthConfig(), *, dtype: DTypeLike = jnp.float32
    ):
        super().__init__(config, settings, dtype=dtype)
        if not config.depth.temporal_frames:
            raise UserError("this depth network has no layers between frames: say depth.temporal_frames")

    def loss(
        self,
        weights: Params,
        frozen: Mapping[str, Params],
        inputs: BatchArrays,
        keys: Key[Array, " b"],
        context: Context = ALONE,
    ) -> tuple[Float[Array, " b"], dict[str, Float[Array, " b"]]]:
        """The loss of each clip, abs_rel and delta_1 as `DepthObjective.loss` has them but with one scale and one shift
        a clip, and:

        changes: the mean error of how depth changes from frame to frame, see `clip_depth_loss`.
        """
        settings = self.settings
        of_frames, of_clip, of_light = split_keys(keys, 3)
        index = self._frames(of_frames, inputs["pixels"].shape[1])
        pixels, target = (jax.vmap(lambda x, i: x[i])(inputs[name], index) for name in ("pixels", "depth"))
        prediction = self.estimate(weights, self._lit(pixels_to_images(pixels), of_clip, of_light))
        loss, changes = clip_depth_loss(
            prediction,
            target,
            trim=settings.trim,
            gradient_weight=settings.gradient_weight,
            scales=settings.gradient_scales,
            temporal_weight=settings.temporal_weight,
            still=settings.still,
        )
        tall = lambda x: rearrange(x, "b t h w -> b (t h) w")
        abs_rel, delta_1 = depth_errors(tall(prediction), tall(target), depth_range=settings.depth_range)
        return loss, {"abs_rel": abs_rel, "delta_1": delta_1, "changes": changes}

    def _frames(self, keys: Key[Array, " b"], count: int) -> Int[Array, "b t"]:
        """Which frames are seen: some clips end early, half of them run backwards."""

        def of_one(key: Key[Array, ""]) -> Int[Array, " t"]:
            of_end, of_length, of_way = jax.random.split(key, 3)
            ends_early = jax.random.bernoulli(of_end, self.settings.padded)
            last = jnp.where(ends_early, jax.random.randint(of_length, (), 0, count), count - 1)
            index = jnp.arange(count)
            index = jnp.where(jax.random.bernoulli(of_way), index, count - 1 - index)
            return index[jnp.minimum(jnp.arange(count), last)]

        return jax.vmap(of_one)(keys)

    def _lit(
        self, clips: Float[Array, "b t h w 3"], of_clip: Key[Array, " b"], of_light: Key[Array, " b"]
    ) -> Float[Array, "b t h w 3"]:
        """Clips in another light, that flickers; noise is of each frame."""
        batch, count = clips.shape[:2]
        frames = rearrange(clips, "b t ... -> (b t) ...")
        steady = dataclasses.replace(self.settings.photometric, noise=0.0)
        frames = change_light(frames, jnp.repeat(of_clip, count), steady)
        frames = change_light(frames, split_keys(of_light, count).T.reshape(-1), self.settings.flicker)
        return rearrange(frames, "(b t) ... -> b t ...", b=batch)

    def estimate(self, params: Params, clips: Float[Array, "b t h w 3"]) -> Float[Array, "b t h w"]:
        """`DPTDepth.estimate_clip` of all clips at once."""
        batch, count, height, width, _ = clips.shape
        size = self.module.config.working_size(height, width)
        clips = jnp.clip(jax.image.resize(clips, (batch, count, *size, 3), "cubic"), -1, 1)
        depth = Bound(self.module, params).apply(params, clips, method="clips")
        return jax.image.resize(depth, (batch, count, height, width), "linear")
