"""`gen1 bench growth --chip`: the rows of a machine that is not there, as `gen1 plan` makes them."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from gen1_jax.data.config import DataConfig, SourceConfig, StreamConfig
from gen1_jax.diffusion.windows import window_count
from gen1_jax.errors import UserError, counted
from gen1_jax.models.module import abstract_parameters, parameter_count
from gen1_jax.parallel.hardware import CHIPS
from gen1_jax.parallel.mesh import MeshConfig
from gen1_jax.planning.plan import Planner
from gen1_jax.planning.programs import Shape
from gen1_jax.planning.roofline import RooflineAssumptions
from gen1_jax.planning.topology import Topology, parse_topology
from gen1_jax.pretrained.sizes import size_named
from gen1_jax.training.config import StageConfig, TrainConfig


class ChipBench:
    """Figures of steps on chips that need not be there; see `evaluation.bench_growth.DeviceBench` for those that are.

    Of a TPU the compiler's, where libtpu is there; else by the formulas of `planning.estimate`. Seconds are always the
    roofline's. The sampler evaluates all three branches.

    Args:
        size: of the model, a key of `SIZES`.
        chip: as in a topology: "v5e", "h200".
        batch: clips of a training step, for each chip.
        remat: whether training recomputes activations of blocks in the backward pass.
        estimate_only: compile nothing.

    Attributes:
        config: of the model.
        counts: of chips that make a slice.
        settings: what rows depend on, besides their point.

    Raises:
        UserError: an unknown size or chip, or a batch below one.
    """

    def __init__(self, size: str, chip: str, *, batch: int = 1, remat: bool = False, estimate_only: bool = False):
        self.config = size_named(size)
        if chip not in CHIPS:
            raise UserError(f"chip is {chip!r}, not one of {', '.join(CHIPS)}")
        if batch < 1:
            raise UserError("batch must be at least 1")
        self._size, self._batch, self._remat = size, batch, remat
        self._chip, self._estimate_only = chip, estimate_only
        self.counts = (1, 4, 8) if CHIPS[chip].torus_dimensions else (1, 2, 4)
        self.settings = {
            "source": "planned",
            "parameters": parameter_count(abstract_parameters(self.config.build("unet", jnp.bfloat16))),
            "window": self.config.num_frames,
            "overlap": self.config.window_overlap,
            "device": chip,
            "jax": jax.__version__,
            "dtype": "bfloat16",
            "size": size,
            "batch": batch,
            "remat": remat,
            "estimate_only": estimate_only,
        }

    def check(self, devices: int) -> None:
        """Raises a UserError where so many chips make no slice."""
        _slice(self._chip, devices)

    def __call__(self, *, work: str, frames: int, height: int, width: int, devices: int) -> dict[str, Any]:
        """The figures of a step on one chip; of one that does not fit "error", and no seconds."""
        topology = _slice(self._chip, devices)
        family = dataclasses.replace(self.config, height=height, width=width)
        if work == "train":
            unet = dataclasses.replace(family.unet, max_frames=max(frames, family.unet.max_frames))
            family = dataclasses.replace(family, unet=unet)
        clips = StreamConfig(
            sources=(SourceConfig(path="planned"),),
            buckets=((height, width),),
            batch_size=self._batch * devices,
            frames=frames,
        )
        mesh = MeshConfig(data=devices) if work == "train" else MeshConfig(data=1, context=devices)
        recipe = TrainConfig(
            model=self._size,
            data=DataConfig(video=clips, image_probability=0.0, inputs="latents"),
            stages=(StageConfig(name="planned", steps=1),),
            mesh=mesh,
            remat=self._remat,
        )
        planner = Planner(recipe, topology, RooflineAssumptions(), self._estimate_only, family)
        if work == "train":
            shape = Shape(kind="video", bucket=(height, width), structure=family.unet.kinds)
            program, parts = planner.programs.train(shape, clips.batch_size, 1), 1
        else:
            program = planner.programs.sampler(frames)
            parts = program.parts
        row = planner.row(program, {})
        figures = {
            "memory": row["source"],
            "tflop": program.model_flops / parts / 1e12,
            "temporary_bytes": row["temporary_bytes"],
            "peak_bytes": row["peak_bytes"],
            "compile_seconds": row["compile_seconds"],
        }
        if work == "sample":
            figures["windows"] = window_count(frames, family.num_frames, family.window_overlap)
        if not row["fits"]:
            return figures | {"error": f"out of memory, there is {row['hbm_bytes'] / 2**30:.1f} GiB"}
        return figures | {"seconds": row["step_s"] / parts, "hbm_gb": row["bytes_accessed"] / parts / 1e9}


def _slice(chip: str, count: int) -> Topology:
    """So many chips, side by side."""
    dimensions = CHIPS[chip].torus_dimensions
    if not dimensions:
        return parse_topology(f"gpu:{chip}:{count}")
    sides = [1] * dimensions if count == 1 else [2, count // 2, 1, 1][:dimensions]
    if math.prod(sides) != count:
        raise UserError(f"there is no slice of {counted(count, 'chip')} of {chip}")
    return parse_topology(f"{chip}:{'x'.join(map(str, sides))}")
