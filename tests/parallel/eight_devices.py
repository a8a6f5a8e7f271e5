"""Run in a process of its own with eight simulated devices: prints one JSON object of measurements."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gen1_jax.diffusion import Guidance, NoiseSchedule, get_sampler
from gen1_jax.editing.sampling import GuidedSampler
from gen1_jax.evaluation.bench_train import random_latents
from gen1_jax.models.denoiser import build_denoiser
from gen1_jax.models.denoiser_inputs import conditions_of
from gen1_jax.models.dit import DiTConfig
from gen1_jax.models.dit.attention import NormalisedAttention, everywhere
from gen1_jax.models.module import Bound, abstract_parameters, initialise
from gen1_jax.models.partition import partitioned
from gen1_jax.models.unet import UNetConfig
from gen1_jax.models.unet.spatial import TransformerBlock
from gen1_jax.models.unet.temporal import TemporalConv, TemporalTransformer
from gen1_jax.parallel.mesh import MeshConfig, make_mesh
from gen1_jax.parallel.sharding import UNET_RULES, Layout
from gen1_jax.planning.hlo import read_collectives
from gen1_jax.pretrained.family import TINY
from gen1_jax.training.denoising import DenoisingConfig, DenoisingObjective
from gen1_jax.training.optimizer import OptimizerConfig, learning_rates
from gen1_jax.training.step import TrainStep, initial_state

MESHES = (
    MeshConfig(data=8),
    MeshConfig(data=4, fsdp=2),
    MeshConfig(data=2, fsdp=2, tensor=2),
    MeshConfig(data=2, context=4),
)
UNET = UNetConfig(
    block_out_channels=(16,),
    attention_levels=(False,),  # the middle has it; twice as many compile no quicker
    layers_per_block=1,
    num_attention_heads=2,
    cross_attention_dim=16,
    norm_num_groups=4,
    max_frames=4,
)
DIT = DiTConfig(
    width=32, num_layers=1, num_attention_heads=4, feed_forward_dim=32, cross_attention_dim=16, max_frames=4
)
DENOISERS = {"unet": UNET, "dit": DIT, "factorised dit": dataclasses.replace(DIT, attention="factorised")}
BATCH, FRAMES, HEIGHT, WIDTH = 8, 4, 4, 6


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def loss_and_gradients(config, frames, layout):
    """As the trainer has them: weights at rest, gathered, gradients at rest."""
    module = build_denoiser(config)
    unet = Bound(module, None)
    params = jax.tree.map(lambda v: v + 0.1 * normal(v.size, *v.shape), initialise(module, 0))
    shape = (BATCH, frames, HEIGHT, WIDTH, 4)
    batch = dict(
        latents=normal(1, *shape),
        timesteps=np.arange(BATCH) * 100,
        content=normal(2, BATCH, 2, 16),
        structure=normal(3, *shape),
        structure_level=np.arange(BATCH) % 8,
        target=normal(4, *shape),
    )

    def loss(params, batch):
        inputs = {k: v for k, v in batch.items() if k != "target"}
        return jnp.square(unet.apply(params, **inputs) - batch["target"]).mean()

    if layout is None:
        return jax.jit(jax.value_and_grad(loss))(params, batch)
    at_rest, gathered = (f(params, UNET_RULES) for f in (layout.at_rest, layout.gathered))

    def step(params, batch):
        with partitioned(layout.activations()):
            weights = jax.lax.with_sharding_constraint(params, gathered)
            return jax.value_and_grad(loss)(weights, batch)

    step = jax.jit(step, out_shardings=(layout.replicated(), at_rest))
    return step(layout.put(params, at_rest), layout.put_batch(batch))


def sampled(config, layout):
    """Latents of a guided clip, all three branches of equation 10."""
    module = build_denoiser(config)
    params = jax.tree.map(lambda v: v + 0.1 * normal(v.size, *v.shape), initialise(module, 0))
    if layout is not None:
        params = layout.put(params, layout.gathered(params, UNET_RULES))
    sampler = GuidedSampler(
        Bound(module, params),
        NoiseSchedule(),
        get_sampler("ddim"),
        2,
        window=FRAMES,
        overlap=0,
        partition=None if layout is None else layout.activations(),
    )
    shape = (1, FRAMES, HEIGHT, WIDTH, 4)
    conditions = conditions_of(config, normal(2, 1, 2, 16), normal(3, *shape), jnp.array([2]))
    return np.asarray(sampler(shape, 0, conditions, Guidance.of(3, 1.5)))


def difference(ours, reference):
    """Of the loss, and of the worst gradient against its own largest element."""
    worst = 0.0
    for ours_leaf, leaf in zip(*map(jax.tree.leaves, (ours[1], reference[1])), strict=True):
        scale = max(np.abs(leaf).max(), 1e-3)
        worst = max(worst, float(np.abs(np.asarray(ours_leaf) - leaf).max() / scale))
    return abs(float(ours[0] / reference[0]) - 1), worst


class Everywhere(nnx.Module):
    """Attention among the positions of all frames."""

    def __init__(self):
        self.attention = NormalisedAttention(16, 4)

    def __call__(self, x):
        return everywhere(self.attention, x, (0, 1, 1))


def collectives(module, mesh, *shapes, gradient=False):
    """Kinds of the collectives of a layer, in the order of the compiled program."""
    layout = Layout(make_mesh(mesh), smallest=1)
    module.config = None
    layer, abstract = Bound(module, None), abstract_parameters(module)
    struct = lambda shape, sharding: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)
    params = jax.tree.map(lambda a, s: struct(a.shape, s), abstract, layout.gathered(abstract, UNET_RULES))

    def apply(params, *args):
        with partitioned(layout.activations()):
            return layer.apply(params, *args)

    def grad(params, *args):
        return jax.grad(lambda p: jnp.square(apply(p, *args)).mean())(params)

    args = [struct(shape, layout.batch()) for shape in shapes]
    text = jax.jit(grad if gradient else apply).lower(params, *args).compile().as_text()
    return re.findall(r" (all-gather|reduce-scatter|all-reduce|all-to-all|collective-permute)(?:-start)?\(", text)


def summed():
    """What a training step of one part and of two exchanges over data, and how far their gradients are apart."""
    optimizer = OptimizerConfig(warmup_steps=0, epsilon=1e-2)
    # Of a transformer, which compiles in a third of the time.
    family = dataclasses.replace(TINY, unet=DIT, num_frames=2, window_overlap=0)
    layout = Layout(make_mesh(MeshConfig(data=8)), smallest=64)
    exchanged, gradients = {}, {}
    for parts in (1, 2):
        objective = DenoisingObjective(family, DenoisingConfig(content_dropout=0.0))
        step = TrainStep(objective, optimizer, learning_rates(optimizer, [(1, None)]), layout)
        params = jax.tree.map(lambda v: v + 0.05, initialise(objective.module, 0))
        state = jax.jit(lambda p: initial_state(p, optimizer), out_shardings=step.state_shardings)(params)
        inputs = layout.put_batch(objective.inputs(random_latents(family, "video", 16)))
        compiled = step.jitted(parts).lower(state, {}, inputs).compile()
        found = [c for c in read_collectives(compiled.as_text()) if c.bytes > 256]  # not those of metrics
        exchanged[parts] = [(c.kind, c.axes(dict(layout.mesh.shape)), c.count) for c in found]
        gradients[parts] = jax.tree.map(np.asarray, compiled(state, {}, inputs)[0].optimizer[1].mu)
    return {"exchanged": exchanged, "difference": difference((1.0, gradients[2]), (1.0, gradients[1]))[1]}


def loaded(layout):
    """What `put` asked an array in a file for, and how much of it lies on each device."""
    asked = []

    class Stored:
        shape, dtype = (512, 64), np.dtype(np.float32)

        def __getitem__(self, index):
            asked.append([len(range(*part.indices(size))) for part, size in zip(index, self.shape, strict=True)])
            return np.arange(512 * 64, dtype=np.float32).reshape(512, 64)[index]

    tree = {"stored": Stored(), "drawn": lambda: normal(0, 64, 512)}
    at_rest = layout.at_rest({"stored": np.zeros((512, 64)), "drawn": np.zeros((64, 512))}, UNET_RULES)
    arrays = layout.put(tree, at_rest)
    equal = bool(
        (np.asarray(arrays["drawn"]) == normal(0, 64, 512)).all() and arrays["stored"][511, 63] == 512 * 64 - 1
    )
    return {"asked": asked, "equal": bool(equal), "shard": arrays["drawn"].addressable_shards[0].data.shape}


def main():
    jax.config.update("jax_disable_most_optimizations", True)  # of LLVM: collectives come before it
    results = {"numerics": {}}
    for name, config in DENOISERS.items():
        videos, images = MESHES if name == "unet" else MESHES[2:], MESHES[2:]
        if name == "factorised dit":  # what it has beside the other lies between frames
            videos, images = MESHES[3:], ()
        for frames, meshes in ((FRAMES, videos), (1, images)):
            reference = jax.tree.map(np.asarray, loss_and_gradients(config, frames, None)) if meshes else None
            for mesh in meshes:
                found = loss_and_gradients(config, frames, Layout(make_mesh(mesh), smallest=64))
                results["numerics"][f"{name} {mesh} t={frames}"] = difference(found, reference)
    shared = Layout(make_mesh(MESHES[3]), smallest=64)
    results["sampled"] = {}
    for name, config in DENOISERS.items():
        alone, divided = sampled(config, None), sampled(config, shared)
        results["sampled"][name] = float(np.abs(alone - divided).max() / np.abs(alone).max())
    context, tensor = MESHES[3], MESHES[2]
    video = (4, 4, 4, 8, 16)  # two clips a device
    block = lambda: TransformerBlock(16, 2)
    results["collectives"] = {
        "temporal convolution": collectives(TemporalConv(16), context, video),
        "temporal transformer": collectives(TemporalTransformer(UNET, 16), context, video),
        "its gradient": collectives(TemporalTransformer(UNET, 16), context, video, gradient=True),
        "full attention": collectives(Everywhere(), context, (2, 4, 4, 8, 16)),
        "tensor": collectives(block(), tensor, (4, 32, 16)),
    }
    results["summed"] = summed()
    results["loaded"] = loaded(Layout(make_mesh(MeshConfig(data=2, fsdp=4))))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
