"""What the U-Net learns: to see through noise, told the structure and the content of the clip itself.

    pixels ──autoencoder──► z_0 ──add noise──► z_t ─────────────────────┐
    depth ──normalise──► blur t_s ──autoencoder──► s (zeros before stage 3) ─┼─► U-Net ─► v ─► loss
    a frame ──CLIP──► c (sometimes zeros) ─────────────────────────────┘

arXiv 2302.03011, sections 3.1 to 3.3; `training.contents` has c of this and of other kinds. A ControlNet sees the maps
themselves, as pictures, by features that are learned with it. Everything but the U-Net is frozen; `gen1 precompute` may
have run it before.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key

from gen1_jax.data.batch import Batch
from gen1_jax.data.config import Inputs as InputKind
from gen1_jax.data.config import check_kinds
from gen1_jax.diffusion import WEIGHTINGS, TimestepDensity, denoising_loss, training_target
from gen1_jax.diffusion.distillation import ConsistencyConfig
from gen1_jax.errors import UserError
from gen1_jax.models.conditions import SOURCE, Conditions
from gen1_jax.models.denoiser import build_denoiser
from gen1_jax.models.denoiser_config import KNOWN, DenoiserConfig
from gen1_jax.models.growing import with_inputs, with_structures
from gen1_jax.models.low_rank import LowRankConfig
from gen1_jax.models.module import Bound, Params
from gen1_jax.models.pictures import pixels_to_images
from gen1_jax.models.selection import Selection
from gen1_jax.models.vae import AutoencoderKL
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.sizes import size_named
from gen1_jax.pretrained.tokenizer import CLIPTokenizer
from gen1_jax.training.adapters import learned_of
from gen1_jax.training.contents import CONTENTS, ExampleContent
from gen1_jax.training.examples import of_each_frame
from gen1_jax.training.objective import ALONE, BatchArrays, Context
from gen1_jax.training.signals import StructureSignals

NOISE_BINS = 4
"""The loss is also reported by noise level: timesteps are divided into this many equal ranges."""

_OF_STRUCTURE: dict[InputKind, str | None] = {"pixels": None, "depth": "maps", "maps": "maps", "latents": "structure"}
"""Where batches have each kind of structure; nowhere, if it is estimated in the step. Controls take maps, if any."""

_PROBABILITIES = (
    *("content_dropout", "structure_dropout", "source_dropout", "all_kept", "none_kept"),
    *("one_kept", "known_probability", "prior_probability"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoisingConfig:
    """How the U-Net is trained.

    Attributes:
        size: a size of model (`pretrained.sizes`) whose denoiser is trained in the place of the model's own, such as
            "nano-dit"; None for that of the model. It begins with nothing: `from_scratch`.
        trained: the parameters that are trained: "motion", "controls", "image_adapter", or regular expressions that are
            searched in their names ("controls.depth"); empty for all. The others stay as they are in `model`.
        lora: changes of low rank that are trained instead; the network stays as it is in `model`.
        content_dropout: probability that the content is the null content, for guidance.
        inputs: what the U-Net is given beside the latents from now on, in any subset: kinds of structure, and "known",
            which is latents of the clip itself in some of its frames or regions. Those that `model` has not are added
            (`models.growing.with_inputs`); empty for those of `model` as they are.
        structure_kinds: of structure, that the U-Net is told from now on in the place of its own, as many: it goes on
            with the rows of its first layer that the others had (`models.growing.with_structures`); empty for its own.
        structure_dropout: probability that a structure has no weight, for each kind by itself.
        source_dropout: the same of the kind "source" alone; None for `structure_dropout`.
        all_kept: how often all structures keep their weight nevertheless (0.1 in VideoComposer, arXiv 2306.02018).
        none_kept: how often none does.
        one_kept: how often one does alone: half of the time the first that the U-Net sees, which an edit follows by
            default, else any that it sees.
        known_probability: how often latents of the clip itself are given in places; the loss is that of all places
            alike, since a sampler asks for a prediction there, too, and has its noisy latents to denoise.
        prior_probability: how often the content is what the prior makes of the caption, as an edit by prompt has it,
            instead of CLIP's embedding of a frame; 0 in the paper.
        weighting: of noise levels: "uniform" or "min_snr".
        gamma: where "min_snr" clips.
        timesteps: how often each is drawn; of a density the weighting is uniform, for it is one itself.
        consistency: what is distilled, by the objective "consistency" alone.
    """

    size: str | None = None
    trained: tuple[str, ...] = ()
    lora: LowRankConfig = LowRankConfig()
    content_dropout: float = 0.1
    inputs: tuple[str, ...] = ()
    structure_kinds: tuple[str, ...] = ()
    structure_dropout: float = 0.0
    source_dropout: float | None = None
    all_kept: float = 0.0
    none_kept: float = 0.0
    one_kept: float = 0.0
    known_probability: float = 0.0
    prior_probability: float = 0.0
    weighting: str = "uniform"
    gamma: float = 5.0
    timesteps: TimestepDensity = TimestepDensity()
    consistency: ConsistencyConfig = ConsistencyConfig()

    def __post_init__(self):
        for name in _PROBABILITIES:
            if not 0 <= (value := getattr(self, name) or 0) <= 1:
                raise UserError(f"unet.{name} is {value}, not in [0, 1]")
        if self.all_kept + self.one_kept + self.none_kept > 1:
            raise UserError("unet.all_kept, one_kept and none_kept are more than 1 together")
        if set(self.inputs) - {KNOWN} and not self.structure_dropout:
            raise UserError("unet.inputs are inputs of which any may lack: give unet.structure_dropout, too")
        if self.inputs and self.structure_kinds:
            raise UserError("unet.inputs adds to what the model has, unet.structure_kinds replaces it: give one")
        if self.weighting not in WEIGHTINGS:
            raise UserError(f"unet.weighting is {self.weighting!r}, not one of {', '.join(WEIGHTINGS)}")
        if self.weighting != "uniform" and not self.timesteps.is_uniform:
            raise UserError(f"unet.weighting {self.weighting} and a density in unet.timesteps both weigh: give one")
        try:
            Selection(self.trained)
        except UserError as error:
            raise UserError(f"unet.trained: {error}") from None

    def network(self, config: DenoiserConfig) -> DenoiserConfig:
        """The denoiser that is trained: that of the model, or of `size`, with the inputs that are asked for.

        Raises:
            UserError: there is no such size, or inputs that it has are not asked for, or as many structures as it has
                not.
        """
        config = config if self.size is None else size_named(self.size).unet
        config = with_structures(config, self.structure_kinds) if self.structure_kinds else config
        return with_inputs(config, self.inputs) if self.inputs else config

    def dropout_of(self, kind: str) -> float:
        """The probability that a kind of structure has no weight."""
        return self.source_dropout if kind == SOURCE and self.source_dropout is not None else self.structure_dropout


def chosen_kinds(structure: bool | tuple[str, ...], structures: tuple[str, ...]) -> tuple[str, ...]:
    """Of the kinds of structure that a U-Net takes those that it is to see: all, none, or some by name.

    Raises:
        UserError: one that it does not take.
    """
    chosen = {True: structures, False: ()}.get(structure, structure)
    if unknown := [kind for kind in chosen if kind not in structures]:
        raise UserError(f"this model takes no structure of kind {unknown[0]!r}, only {', '.join(structures) or 'none'}")
    return tuple(kind for kind in structures if kind in chosen)


class _Draw(NamedTuple):
    """What is random about an example."""

    posterior: Float[Array, "b t h w c"]
    noise: Float[Array, "b t h w c"]
    timestep: Int[Array, " b"]
    drop: Bool[Array, " b"]


class Prepared(NamedTuple):
    """Examples before noise is added.

    Attributes:
        latents: clean ones.
        noise: that is to be added.
        timestep: of it.
        conditions: what the U-Net is told.
    """

    latents: Float[Array, "b t h w c"]
    noise: Float[Array, "b t h w c"]
    timestep: Int[Array, " b"]
    conditions: Conditions


class DenoisingObjective:
    """The diffusion loss of one stage. See `Objective`.

    Args:
        config: of the family.
        settings: of the loss.
        dtype: of the computation.
        inputs: what batches hold.
        structure: whether the U-Net sees structure, or the kinds that it sees; zeros stand in for the others, and
            controls of others add nothing.
        remat: recompute activations of the U-Net's blocks.
        pictures_at_once: how many the autoencoder encodes together, over all devices.
        tokenizer: gives that of the captions; needed for content of text and for `prior_probability` alone.

    Raises:
        UserError: `prior_probability` for a family without a prior, `trained` or `lora` names no parameter that can
            learn, or a kind of structure cannot be trained, or one of content is learned by another objective.
    """

    component = "unet"
    coupled = False

    def __init__(
        self,
        config: Gen1Config,
        settings: DenoisingConfig = DenoisingConfig(),
        *,
        dtype: DTypeLike = jnp.float32,
        inputs: InputKind = "latents",
        structure: bool | tuple[str, ...] = True,
        remat: bool = False,
        pictures_at_once: int = 8,
        tokenizer: Callable[[], CLIPTokenizer] | None = None,
    ):
        self.config, self.settings = config, settings
        self.structures = {kind: config.structure_kind(kind) for kind in chosen_kinds(structure, config.unet.kinds)}
        check_kinds(tuple(self.structures))
        if inputs == "pixels" and (host := [name for name, kind in self.structures.items() if kind.runs_on_host]):
            raise UserError(f"structure {host[0]} cannot be estimated in a step: run gen1 precompute, inputs 'latents'")
        self._signals = StructureSignals(config.unet, self.structures, settings)
        self._inputs, self.dtype = inputs, dtype
        self._pictures_at_once = pictures_at_once
        self.module = build_denoiser(config.unet, dtype=dtype, remat=remat)
        self.learned = learned_of(settings.trained, settings.lora, self.module)
        self.content = self._example_content(tokenizer)
        self.frozen = self._frozen_parts()

    def _example_content(self, tokenizer: Callable[[], CLIPTokenizer] | None) -> ExampleContent | None:
        """What tells the U-Net of the content; None if it learns together with it."""
        if (name := self.config.unet.content_kind) not in CONTENTS:
            raise UserError(f"content of kind {name!r} is in no batch: it is learned by the objective {name}")
        return CONTENTS[name](self.config, tokenizer, self.dtype, self._inputs, self.settings.prior_probability)

    def _frozen_parts(self) -> tuple[str, ...]:
        """Components that the loss reads, those that encode batches first."""
        encoders = [] if self._inputs == "latents" else ["vae"]
        if self._inputs == "pixels":
            encoders += [kind.part for kind in self.structures.values() if kind.part is not None]
        return tuple(dict.fromkeys((*encoders, *self.content.frozen)))

    def inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        """The arrays of the batch that the loss reads."""
        clips = "moments" if self._inputs == "latents" else "pixels"
        arrays = {clips: getattr(batch, clips)} | self.content.inputs(batch)
        arrays |= {"structure_level": batch.structure_level} if self.structures else {}
        for name in self.structures:
            if field := _OF_STRUCTURE[self._inputs]:
                field = field if name in self.config.unet.structures else "maps"
                arrays[f"{field}.{name}"] = getattr(batch, field).get(name)
        if missing := [name for name, array in arrays.items() if array is None]:
            raise UserError(f"batches have no {missing[0]}: {_mend(missing[0], self._inputs)}")
        return arrays

    def loss(
        self,
        weights: Params,
        frozen: Mapping[str, Params],
        inputs: BatchArrays,
        keys: Key[Array, " b"],
        context: Context = ALONE,
    ) -> tuple[Float[Array, " b"], dict[str, Float[Array, " b"]]]:
        """The denoising loss of each example, and the same by range of timesteps."""
        given = self.prepare(weights, frozen, inputs, keys, context)
        schedule, prediction_type = self.config.schedule, self.config.unet.prediction_type
        alpha, sigma = schedule.alpha_sigma(given.timestep)
        noisy = schedule.add_noise(given.latents, given.noise, given.timestep)
        losses = denoising_loss(
            self._predict(weights, noisy, given.timestep, given.conditions),
            training_target(prediction_type, given.latents, given.noise, alpha, sigma),
            schedule.alpha_bar(given.timestep),
            prediction_type=prediction_type,
            weighting=self.settings.weighting,
            gamma=self.settings.gamma,
        )
        return losses, self.by_noise(losses, given.timestep)

    def prepare(
        self,
        weights: Params,
        frozen: Mapping[str, Params],
        inputs: BatchArrays,
        keys: Key[Array, " b"],
        context: Context = ALONE,
    ) -> Prepared:
        """What the U-Net is told of the examples of a batch, and what is drawn of them; arguments as for `loss`."""
        networks = {name: Bound(self._build(name, context.groups), params) for name, params in frozen.items()}
        moments = inputs["moments"].astype(jnp.float32) if "moments" in inputs else self._encode(networks, inputs)
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        draw = jax.vmap(lambda key: self._draw(key, mean.shape[1:]))(keys)
        latents = (mean + jnp.exp(0.5 * log_variance) * draw.posterior) * self.config.vae.scaling_factor
        conditions = self._told(weights, networks, frozen, inputs, latents, keys, draw.drop)
        return Prepared(latents, draw.noise, draw.timestep, conditions)

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
        """What the U-Net is told of clips with these latents, clean; nothing of the content where it is dropped."""
        content = self.content(frozen, inputs, keys, drop)
        structure = self._signals(self._denoiser_of(weights), networks, inputs, latents, keys)
        return Conditions(content={self.config.unet.content_kind: content}, structure=structure)

    def _denoiser_of(self, weights: Params) -> Bound:
        return Bound(self.module, weights)

    def _predict(
        self, weights: Params, latents: Float[Array, "b t h w c"], timesteps: Int[Array, " b"], conditions: Conditions
    ) -> Float[Array, "b t h w c"]:
        unet = self._denoiser_of(weights)
        prediction, _ = unet.apply(unet.params, latents, timesteps, conditions, method="denoise")
        return prediction

    def _draw(self, key: Key[Array, ""], shape: tuple[int, ...]) -> _Draw:
        keys = jax.random.split(key, 4)
        return _Draw(
            posterior=jax.random.normal(keys[0], shape),
            noise=jax.random.normal(keys[1], shape),
            timestep=self.settings.timesteps.draw(keys[2], self.config.schedule),
            drop=jax.random.bernoulli(keys[3], self.settings.content_dropout),
        )

    def _build(self, component: str, groups: int) -> nnx.Module:
        if component == "vae":
            at_once = max(1, self._pictures_at_once // groups)
            return AutoencoderKL(self.config.vae, dtype=self.dtype, frames_per_chunk=at_once)
        return self.config.build(component, self.dtype)

    def _encode(self, networks: Mapping[str, Bound], inputs: BatchArrays) -> Float[Array, "b t h w m"]:
        posterior = of_each_frame(networks["vae"], pixels_to_images(inputs["pixels"]), method="encode")
        return jnp.concatenate(posterior, axis=-1)

    def by_noise(self, losses: Float[Array, " b"], timestep: Int[Array, " b"]) -> dict[str, Float[Array, " b"]]:
        """Losses by range of timesteps, NaN in the others."""
        timesteps = self.config.schedule.timesteps
        edges = [timesteps[0] + len(timesteps) * i // NOISE_BINS for i in range(NOISE_BINS + 1)]
        return {
            f"loss_t{low}-{high - 1}": jnp.where((timestep >= low) & (timestep < high), losses, jnp.nan)
            for low, high in itertools.pairwise(edges)
        }


def _mend(missing: str, inputs: InputKind) -> str:
    """What to do about an array that batches lack."""
    if inputs == "latents" and missing.startswith("maps."):
        return "a control takes the maps themselves; run gen1 precompute with this model"
    return f"data.inputs is not {inputs!r}"
