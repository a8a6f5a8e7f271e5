"""What a run would compute, as programs over shapes: neither weights nor data nor the hardware are needed.

recipe ─► shapes of batches, and how likely each is in each stage
       ─► the real `TrainStep` of each, and the guided sampler of the trained U-Net ─► lowered for the machine
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.extend import core

from gen1_jax.checkpoints.trained import open_trained
from gen1_jax.data.batch import Batch
from gen1_jax.data.config import Bucket, Kind
from gen1_jax.diffusion import Guidance, SamplerTables, default_sampler, get_sampler
from gen1_jax.editing.sampling import GuidedSampler
from gen1_jax.models.attention import attention_platform
from gen1_jax.models.conditions import Conditions
from gen1_jax.models.denoiser_inputs import abstract_conditions
from gen1_jax.models.flops import count_flops
from gen1_jax.models.module import Bound, Params, abstract_parameters, cast_kernels, parameter_count
from gen1_jax.models.partition import partitioned
from gen1_jax.models.structure import structure_kind
from gen1_jax.parallel.mesh import MeshConfig, make_mesh
from gen1_jax.parallel.sharding import UNET_RULES, Layout, rules_of
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.training.config import StageConfig, TrainConfig
from gen1_jax.training.objectives import make_objective
from gen1_jax.training.optimizer import learning_rates
from gen1_jax.training.step import TrainStep

SAMPLER_STEPS = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """What decides what a step compiles to, but for the size of the batch.

    Attributes:
        kind: of the batch.
        bucket: height and width, in pixels.
        structure: kinds that the U-Net sees.
    """

    kind: Kind
    bucket: Bucket
    structure: tuple[str, ...]

    def __str__(self) -> str:
        height, width = self.bucket
        return f"{self.kind} {height}x{width}" + ("" if self.structure else ", no structure")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """What the chips run again and again: a training step, or the sampling of a batch of clips.

    Attributes:
        name: for people.
        batch: examples, over all chips.
        parts: how often, one after the other, the loop in it runs: microbatches, or steps of the sampler.
        groups: parts of an execution of the loop that chips do beside each other, each its own.
        model_flops: operations that the mathematics asks for, over all chips.
        flops: operations that are done, recomputation included, over all chips.
        arguments: abstract arrays, each with its sharding.
        forward: makes the jaxpr of a forward pass of one example on one device; weights are its first arguments.
        keeps: whether the forward pass keeps arrays for a backward pass.
        lower: gives `jax.stages.Lowered` for the machine.
    """

    name: str
    batch: int
    parts: int
    groups: int
    model_flops: int
    flops: int
    arguments: tuple[Any, ...]
    forward: Callable[[], core.ClosedJaxpr]
    keeps: bool
    lower: Callable[[], Any]

    @property
    def argument_bytes(self) -> int:
        """Bytes of the arguments at rest on one chip."""
        return _bytes_at_rest(self.arguments)


class Programs:
    """The programs of a recipe on a mesh.

    Args:
        config: the recipe.
        layout: of compile-only devices; of an abstract mesh if nothing is to be lowered.
        family: in the place of the model's own, with other sizes; None for that.

    Raises:
        ValueError: there is no such model, or it has no such network.
    """

    def __init__(self, config: TrainConfig, layout: Layout, family: Gen1Config | None = None):
        self.config, self.layout = config, layout
        self.dtype = jnp.dtype(config.dtype)
        self._source = open_trained(config.model)
        self.family = config.family(self._source.config) if family is None else family
        self._alone = Layout(make_mesh(MeshConfig(data=1), jax.devices("cpu")[:1]))
        self._steps: dict[tuple[tuple[str, ...], Layout, bool], TrainStep] = {}
        self._counts: dict[tuple[Shape, bool], int] = {}
        self._forwards: dict[Shape, core.ClosedJaxpr] = {}
        self.parameters = parameter_count(self._step((), self._alone, False).abstract_state.params)

    def stage_shapes(self, index: int) -> dict[Shape, float]:
        """Shapes of the batches of a stage and how likely each is; buckets of a kind are taken as equally likely."""
        stage, data = self.config.stages[index], self.config.stage_data(index)
        chance = {"image": data.image_probability, "video": 1 - data.image_probability}
        structure = self.config.seen_kinds(stage, self.family.unet)
        return {
            Shape(kind=kind, bucket=bucket, structure=structure): chance[kind] / len(stream.buckets)
            for kind, stream in data.streams.items()
            for bucket in stream.buckets
        }

    def example_flops(self, shape: Shape, *, remat: bool = False) -> int:
        """Operations of a training step for one example; with `remat`, those of recomputation too."""
        kinds = shape.structure
        if self.config.component == "unet" and self.config.data.inputs == "latents":
            unet = self.family.unet  # zeros cost as much as structure that is at hand, controls nothing
            kinds = tuple(kind for kind in unet.kinds if kind in (*unet.required, *kinds))
        shape = Shape(kind=shape.kind, bucket=tuple(sorted(shape.bucket)), structure=kinds)
        if (shape, remat) not in self._counts:
            step = self._step(shape.structure, self._alone, remat)
            frozen, inputs = self._frozen(step), _abstract(step.objective.inputs(self._batch(shape, 1)))
            self._counts[shape, remat] = count_flops(
                step.gradients, step.abstract_state.params, frozen, inputs, _keys(), step.abstract_context
            )
        return self._counts[shape, remat]

    def groups(self, shape: Shape, size: int) -> int:
        """Into how many parts, one a chip unless chips share layers or do the same, `size` examples are divided."""
        sizes, shards = self.layout.mesh.shape, self.layout.batch_shards
        context, frames = sizes["context"], self._frames(shape.kind)
        divisible = frames % context == 0 if frames > 1 else size % (shards * context) == 0
        return shards * sizes["tensor"] * (context if divisible else 1)

    def train(self, shape: Shape, batch: int, microbatches: int) -> Program:
        """The training step for a batch."""
        remat, layout = self.config.remat, self.layout
        step = self._step(shape.structure, layout, remat)
        arguments = (
            _placed(step.abstract_state, step.state_shardings),
            self._frozen(step, layout),
            _abstract(step.objective.inputs(self._batch(shape, batch)), layout.batch()),
        )

        def lower():
            with attention_platform("tpu"):
                return step.jitted(microbatches).trace(*arguments).lower(lowering_platforms=("tpu",))

        return Program(
            name=str(shape),
            batch=batch,
            parts=microbatches,
            groups=self.groups(shape, batch // microbatches),
            model_flops=batch * self.example_flops(shape),
            flops=batch * self.example_flops(shape, remat=remat),
            arguments=arguments,
            forward=lambda: self._forward(shape),
            keeps=True,
            lower=lower,
        )

    def sampler(self, frames: int | None = None) -> Program:
        """The guided sampler with all three branches, weights gathered, a clip for each part of a batch.

        Args:
            frames: of a clip; the window of the model if None. More are windows one after another.
        """
        family, layout, clips = self.family, self.layout, self.layout.batch_shards
        module = family.build("unet", self.dtype)
        weights = _cast(abstract_parameters(module), self.dtype)
        solver = get_sampler(default_sampler(family.schedule), family.schedule)
        window = dict(window=family.num_frames, overlap=family.window_overlap)
        sampler = GuidedSampler(Bound(module, weights), family.schedule, solver, SAMPLER_STEPS, **window)
        place = lambda x: _abstract(x, layout.batch() if x.ndim and len(x) == clips else layout.replicated())
        frames = frames or family.num_frames
        request = jax.tree.map(place, self._request(sampler, clips, frames))
        arguments = (_placed(weights, layout.gathered(weights, UNET_RULES)), *request)

        def lower():
            with attention_platform("tpu"), partitioned(layout.activations()):
                traced = sampler.advance.trace(*arguments, 0, SAMPLER_STEPS)
                return traced.lower(lowering_platforms=("tpu",))

        one_step = lambda *args: sampler.advance(*args, 0, 1)
        alone = (weights, *self._request(sampler, 1, frames))
        flops = clips * SAMPLER_STEPS * count_flops(one_step, *alone)
        shape = Shape(kind="video", bucket=(family.height, family.width), structure=family.unet.structures)
        return Program(
            name=f"sampler, {SAMPLER_STEPS} steps",
            batch=clips,
            parts=SAMPLER_STEPS,
            groups=self.groups(shape, clips),
            model_flops=flops,
            flops=flops,
            arguments=arguments,
            forward=lambda: jax.make_jaxpr(one_step)(*alone),
            keeps=False,
            lower=lower,
        )

    def preview_bytes(self) -> tuple[int, int]:
        """Of the first chip during a preview, activations aside: what training keeps there, and what is loaded.

        Training keeps its state and the frozen networks of all stages at rest. A preview loads all networks whole,
        cast, and the U-Net comes from the running mean, which each chip gathers.
        """
        unet, stages = self.family.unet, self.config.stages
        seen = {kind for stage in stages for kind in self.config.seen_kinds(stage, unet)}
        step = self._step(tuple(kind for kind in unet.kinds if kind in seen), self.layout, self.config.remat)
        kept = (_placed(step.abstract_state, step.state_shardings), self._frozen(step, self.layout))
        modules = {name: self.family.build(name, self.dtype) for name in self.family.components}
        loaded = {name: _cast(abstract_parameters(module), self.dtype) for name, module in modules.items()}
        return _bytes_at_rest(kept), sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(loaded))

    def _forward(self, shape: Shape) -> core.ClosedJaxpr:
        """The loss of one example, made once a shape."""
        if shape not in self._forwards:
            step = self._step(shape.structure, self._alone, self.config.remat)
            learned, frozen = _cast(step.abstract_state.params, self.dtype), self._frozen(step)
            inputs = _abstract(step.objective.inputs(self._batch(shape, 1)))
            self._forwards[shape] = jax.make_jaxpr(step.loss)(learned, frozen, inputs, _keys(), step.abstract_context)
        return self._forwards[shape]

    def _request(
        self, sampler: GuidedSampler, clips: int, frames: int
    ) -> tuple[Any, Conditions, Guidance, SamplerTables]:
        """Abstract state, conditions, guidance with all three branches, and tables of the sampler."""
        family, unet, array = self.family, self.family.unet, jax.ShapeDtypeStruct
        size = self._latent_size((family.height, family.width))
        shape = (clips, frames, *size, unet.latent_channels)
        state = jax.eval_shape(lambda seed: sampler.start(seed, shape), array((), jnp.uint32))
        conditions = abstract_conditions(unet, shape, family.content_tokens, self.dtype)
        scale = array((), jnp.float32)
        tables = jax.tree.map(lambda x: array(x.shape, x.dtype), sampler.padded_tables)
        return state, conditions, Guidance.whole(scale, scale, distilled=unet.guidance_embedded), tables

    def _step(self, structure: tuple[str, ...], layout: Layout, remat: bool) -> TrainStep:
        if (structure, layout, remat) not in self._steps:
            self._steps[structure, layout, remat] = self._make_step(structure, layout, remat)
        return self._steps[structure, layout, remat]

    def _make_step(self, structure: tuple[str, ...], layout: Layout, remat: bool) -> TrainStep:
        config = dataclasses.replace(self.config, remat=remat)
        stage = StageConfig(name="planned", steps=1, structure=structure)
        objective = make_objective(config, stage, self.family, self._source.tokenizer, layout.mesh.size)
        rates = learning_rates(config.optimizer, [(s.steps, s.learning_rate) for s in config.stages])
        return TrainStep(objective, config.optimizer, rates, layout, dtype=self.dtype, seed=config.seed)

    def _frozen(self, step: TrainStep, layout: Layout | None = None) -> dict[str, Params]:
        """The frozen weights that a step reads, placed if there is a layout."""
        whole = {name: abstract_parameters(self.family.build(name, self.dtype)) for name in step.frozen}
        weights = {name: _cast(step.frozen_part(name, params), self.dtype) for name, params in whole.items()}
        if layout is None:
            return weights
        return {name: _placed(params, layout.at_rest(params, rules_of(name))) for name, params in weights.items()}

    def _frames(self, kind: Kind) -> int:
        return getattr(self.config.data, kind).frames

    def _latent_size(self, bucket: Bucket) -> tuple[int, int]:
        return tuple(side // self.family.vae.downscale for side in bucket)

    def _batch(self, shape: Shape, size: int) -> Batch:
        """A batch of one number, however large."""
        data, frames, channels = self.config.data, self._frames(shape.kind), self.family.unet.latent_channels
        arrays = {name: _full((size,), np.int32) for name in ("content_index", "structure_level")}
        if data.inputs == "latents":
            clip = (frames, *self._latent_size(shape.bucket))
            arrays |= dict(
                moments=_full((size, *clip, 2 * channels), ml_dtypes.bfloat16),
                structure={k: _full((size, *clip, channels), ml_dtypes.bfloat16) for k in data.structure},
            )
            arrays["maps"] = {k: self._maps(shape, size, k) for k in data.structure}
            if self.family.clip is not None:
                arrays["content"] = _full((size, self.family.clip.projection_dim), ml_dtypes.bfloat16)
        else:
            arrays["pixels"] = _full((size, frames, *shape.bucket, 3), np.uint8)
            arrays["maps"] = {kind: self._maps(shape, size, kind) for kind in data.map_kinds}
        caption = _full((size, data.caption_bytes), np.uint8)
        record = _full((size, 2), np.int32)
        return Batch(**arrays, caption=caption, record=record, kind=shape.kind, bucket=shape.bucket)

    def _maps(self, shape: Shape, size: int, kind: str) -> np.ndarray:
        return _full((size, self._frames(shape.kind), *shape.bucket, structure_kind(kind).channels), np.float32)


def _full(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros that take no memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def _abstract(tree: Any, sharding: Any = None) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def _placed(tree: Any, shardings: Any) -> Any:
    return jax.tree.map(_abstract, tree, shardings)


def _cast(abstract: Params, dtype: Any) -> Params:
    return jax.eval_shape(lambda params: cast_kernels(params, dtype), abstract)


def _keys() -> Any:
    return jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))


def _bytes_at_rest(tree: Any) -> int:
    """Of one chip."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * _itemsize(x.dtype) for x in jax.tree.leaves(tree))


def _itemsize(dtype: Any) -> int:
    """Bytes of an element; PRNG keys are two 32-bit words."""
    return 8 if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) else dtype.itemsize
