"""Training of the prior: from a caption to the CLIP embedding of its picture (arXiv 2204.06125, section 2.2).

caption ──► text tower (frozen) ──────────────────────────────┐
content ──► standardise = x_0 ──► noise to x_t, t at random ──┴─► prior ──► prediction of x_0 ──► squared error
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from gen1_jax.data.batch import Batch
from gen1_jax.diffusion import NoiseSchedule
from gen1_jax.errors import UserError
from gen1_jax.models.module import Bound, Params
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.tokenizer import CLIPTokenizer
from gen1_jax.training.examples import caption_tokens, pick_frames, random_index, require, split_keys
from gen1_jax.training.learned import Learned, WholeNetwork
from gen1_jax.training.losses import cosine
from gen1_jax.training.objective import ALONE, BatchArrays, Context

_STEPS = 1000
_NEARLY_NOISE = 900  # of the 1000 steps; alpha_bar is 0.02 there


@dataclasses.dataclass(frozen=True, kw_only=True)
class PriorTrainingConfig:
    """How the prior is trained.

    Attributes:
        drop_caption: how often the caption is replaced by the empty text, for guidance.
        calibration_batches: batches whose embeddings give `clip_mean` and `clip_std`.
    """

    drop_caption: float = 0.1
    calibration_batches: int = 64

    def __post_init__(self):
        if not 0 <= self.drop_caption <= 1 or self.calibration_batches < 1:
            raise UserError(f"drop_caption or calibration_batches is out of range: {self}")


class PriorObjective:
    """Predict the clean embedding of the content frame from a noisy one and the caption.

    Call `calibrate` once before training: image embeddings are standardised by two parameters of the network that no
    gradient reaches and nothing else may change either, weight decay included (`fixed`).

    Args:
        config: of the family.
        settings: of the loss.
        dtype: of the computation; the loss is float32.
        tokenizer: of CLIP's text tower.

    Attributes:
        fixed: names of the parameters that training leaves alone.

    Raises:
        ValueError: the family has no prior.
    """

    component = "prior"
    learned: Learned = WholeNetwork()
    coupled = False
    frozen: tuple[str, ...] = ("clip",)
    fixed: tuple[str, ...] = ("clip_mean", "clip_std")

    def __init__(
        self,
        config: Gen1Config,
        settings: PriorTrainingConfig = PriorTrainingConfig(),
        *,
        tokenizer: CLIPTokenizer,
        dtype: DTypeLike = jnp.float32,
    ):
        if config.prior is None:
            raise UserError("this family has no prior to train")
        self.settings, self.tokenizer = settings, tokenizer
        self.module, self._clip = config.build(self.component, dtype), config.build("clip", dtype)
        self._empty_text = tokenizer([""])

    def inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        """Token ids and mask of the captions; the precomputed embedding, or else pixels and which frame is the content.

        Raises:
            ValueError: neither an embedding nor pixels.
        """
        return caption_tokens(batch, self.tokenizer) | _content(batch)

    def loss(
        self,
        weights: Params,
        frozen: Mapping[str, Params],
        inputs: BatchArrays,
        keys: Key[Array, " b"],
        context: Context = ALONE,
    ) -> tuple[Float[Array, " b"], dict[str, Float[Array, " b"]]]:
        """The loss of each example, and:

        cosine: of the predicted with the true embedding, both in CLIP's own scale.
        cosine_from_noise: the same where the noisy embedding says little (t from 900), so that the text has to.
        """
        weights = weights | {name: jax.lax.stop_gradient(weights[name]) for name in self.fixed}
        mean, std = (weights[name] for name in self.fixed)
        of_time, of_noise, of_drop = split_keys(keys, 3)
        embedding = self.embed(frozen, inputs)
        x0 = (embedding - mean) / std
        timesteps = random_index(of_time, _STEPS)
        noise = jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:]))(of_noise)
        alpha_bar = jnp.asarray(cosine_alphas_cumprod())[timesteps][:, None]
        noisy = jnp.sqrt(alpha_bar) * x0 + jnp.sqrt(1 - alpha_bar) * noise

        text = self._text(frozen, inputs, of_drop)
        predicted = Bound(self.module, weights).apply(weights, noisy, timesteps, *text)
        similarity = cosine(predicted * std + mean, embedding)
        metrics = {
            "cosine": similarity,
            "cosine_from_noise": jnp.where(timesteps >= _NEARLY_NOISE, similarity, jnp.nan),
        }
        return jnp.square(predicted - x0).mean(-1), metrics

    def calibrate(self, params: Params, frozen: Mapping[str, Params], batches: Iterator[Batch]) -> Params:
        """`params` with the statistics of the embeddings of the first `calibration_batches` of `batches`.

        Every process must be given the same batches, or they would not agree on the parameters.
        """
        embed = jax.jit(self.embed)
        first = itertools.islice(batches, self.settings.calibration_batches)
        embeddings = np.concatenate([np.asarray(embed(frozen, _content(batch))) for batch in first])
        return params | dict(zip(self.fixed, prior_statistics(embeddings), strict=True))

    def embed(self, frozen: Mapping[str, Params], inputs: BatchArrays) -> Float[Array, "b d"]:
        """CLIP's embedding of each content, float32, out of reach of gradients."""
        if "content" in inputs:
            return inputs["content"].astype(jnp.float32)
        pictures = self._clip.preprocess(pick_frames(inputs["pixels"], inputs["content_index"]))
        return jax.lax.stop_gradient(
            Bound(self._clip, frozen["clip"]).apply(frozen["clip"], pictures, method="encode_image")
        )

    def _text(self, frozen: Mapping[str, Params], inputs: BatchArrays, keys: Key[Array, " b"]) -> tuple:
        """Embedding, states and mask of each caption, some replaced by the empty text."""
        dropped = (jax.vmap(jax.random.uniform)(keys) < self.settings.drop_caption)[:, None]
        empty_ids, empty_mask = self._empty_text
        token_ids = jnp.where(dropped, empty_ids, inputs["token_ids"])
        encoded = Bound(self._clip, frozen["clip"]).apply(frozen["clip"], token_ids, method="encode_text_tokens")
        return *jax.lax.stop_gradient(encoded), jnp.where(dropped, empty_mask, inputs["text_mask"])


def prior_statistics(
    embeddings: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, "1 d"], Float[np.ndarray, "1 d"]]:
    """Mean and standard deviation of each element of CLIP's image embeddings: the prior's `clip_mean` and `clip_std`.

    Raises:
        ValueError: fewer than two embeddings.
    """
    if len(embeddings) < 2:
        raise UserError(f"{len(embeddings)} embeddings have no standard deviation")
    x = embeddings.astype(np.float64)
    mean, std = x.mean(0, keepdims=True), x.std(0, keepdims=True)
    return mean.astype(np.float32), np.maximum(std, 1e-6).astype(np.float32)


def cosine_alphas_cumprod() -> Float[np.ndarray, " steps"]:
    """alpha_bar of the prior's 1000 steps, float32: https://arxiv.org/abs/2102.09672, equation 17.

    The schedule that `models.prior.unclip_schedule` goes back along.
    """
    return NoiseSchedule(num_train_timesteps=_STEPS, beta_schedule="squaredcos_cap_v2").alphas_cumprod


def _content(batch: Batch) -> dict[str, np.ndarray]:
    if batch.content is not None:
        return {"content": batch.content}
    require(batch, "pixels")
    return {"pixels": batch.pixels, "content_index": batch.content_index}
