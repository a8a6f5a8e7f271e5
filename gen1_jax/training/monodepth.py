"""Training of the depth network: inverse depth of single pictures, up to scale and shift (arXiv 1907.01341).

pixels ──► a frame ──► another light ──► working size ──► network ──► back to size ──┐
depth ───► the same frame ───────────────────────────────────────────────────────────┴─► aligned error + gradients
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from gen1_jax.data.batch import Batch
from gen1_jax.errors import UserError
from gen1_jax.measures import depth_errors
from gen1_jax.models.module import Bound, Params
from gen1_jax.models.pictures import pixels_to_images
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.training.examples import pick_frames, random_index, require, split_keys
from gen1_jax.training.learned import Learned, WholeNetwork
from gen1_jax.training.losses import scale_shift_invariant_loss
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
    """

    trim: float = 0.2
    gradient_weight: float = 0.5
    gradient_scales: int = 4
    photometric: PhotometricConfig = PhotometricConfig()
    depth_range: float = 20.0

    def __post_init__(self):
        if not 0 <= self.trim < 1:
            raise UserError(f"trim is {self.trim}, not in 0 ... 1")
        if self.gradient_weight < 0 or self.gradient_scales < 1 or self.depth_range <= 1:
            raise UserError(f"gradient_weight, gradient_scales or depth_range is out of range: {self}")


class DepthObjective:
    """Estimate the inverse depth of one frame of each clip, drawn by the example's key.

    The frames of a clip are nearly one picture: more clips teach more than more frames, at the same memory.

    Args:
        config: of the family.
        settings: of the loss.
        dtype: of the computation; the loss is float32.
    """

    component = "depth"
    learned: Learned = WholeNetwork()
    coupled = False
    frozen: tuple[str, ...] = ()

    def __init__(
        self, config: Gen1Config, settings: MonodepthConfig = MonodepthConfig(), *, dtype: DTypeLike = jnp.float32
    ):
        self.settings = settings
        self.module = config.build(self.component, dtype)

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
