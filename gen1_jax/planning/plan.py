"""The plan of a run: what each of its programs needs on every chip, whether it fits, how long the stages take."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from jax.sharding import AbstractMesh

from gen1_jax.data.config import KINDS, Kind
from gen1_jax.errors import UserError
from gen1_jax.parallel.mesh import AXES, make_mesh
from gen1_jax.parallel.sharding import Layout
from gen1_jax.planning.compiled import Measures, compile_program
from gen1_jax.planning.estimate import estimate
from gen1_jax.planning.programs import Program, Programs, Shape
from gen1_jax.planning.roofline import RooflineAssumptions, collective_seconds, predict
from gen1_jax.planning.topology import MissingTpuCompiler, Topology, tpu_devices
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.training.checks import check_batches
from gen1_jax.training.config import TrainConfig

Fit = Literal["microbatches", "batch"]
ProgramKind = Literal["video", "image", "sampler"]
PROGRAMS: tuple[ProgramKind, ...] = ("video", "image", "sampler")

_TRY = ("program", "kind", "batch", "microbatches", "source", "peak_bytes", "hbm_bytes", "fits", "compile_seconds")
_MOST_EXAMPLES = 512
"""Of a part of a batch on one chip: as far as `fit` looks."""


def make_plan(
    config: TrainConfig,
    topology: Topology,
    *,
    programs: Collection[ProgramKind] = PROGRAMS,
    every_shape: bool = False,
    fit: Fit | None = None,
    estimate_only: bool = False,
    assumptions: RooflineAssumptions | None = None,
) -> Iterator[dict[str, Any]]:
    """Compiles each program for the machine, or estimates it where there is no compiler, one after the other.

    Args:
        config: the recipe, with the mesh and the batches to plan for.
        topology: the machine.
        programs: which to plan.
        every_shape: of a kind, compile every bucket with and without structure; else the one with the most
            operations, and the others are taken to last in proportion to theirs.
        fit: look for the fewest microbatches of the given batch that fit, or for the largest batch of as many
            microbatches, multiples of what the mesh divides it into.
        estimate_only: compile nothing: seconds instead of minutes, formulas instead of a compiler.
        assumptions: of the roofline; None for its defaults.

    Yields:
        Plain values, with "row" telling them apart: "machine"; a "try" of each fit; a "program" for each, bytes and
        seconds of one chip; at the end "stages", with the memory of a preview if the recipe has any.

    Raises:
        ValueError: the recipe, the mesh and the machine do not fit each other.
    """
    planner = Planner(config, topology, assumptions or RooflineAssumptions(), estimate_only)
    yield planner.machine()
    done: list[tuple[Shape, dict[str, Any]]] = []
    for kind in [kind for kind in KINDS[::-1] if kind in programs]:
        for shape in planner.shapes(kind, every_shape):
            for row in planner.train(shape, fit):
                yield row
            done.append((shape, row))
    sampler = None
    if "sampler" in programs and config.component == "unet":
        sampler = planner.row(planner.programs.sampler(), {"kind": "sampler"})
        yield sampler
    yield planner.stages(done) | {"preview": planner.preview(sampler)}


class Planner:
    """Makes the rows of `make_plan`, whose arguments these are.

    Args:
        config: the recipe.
        topology: the machine.
        assumptions: of the roofline.
        estimate_only: compile nothing.
        family: see `Programs`.
    """

    def __init__(
        self,
        config: TrainConfig,
        topology: Topology,
        assumptions: RooflineAssumptions,
        estimate_only: bool,
        family: Gen1Config | None = None,
    ) -> None:
        self.config, self.topology, self.assumptions = config, topology, assumptions
        sizes = config.mesh.sizes(topology.chips)
        self.mesh = dict(zip(AXES, sizes, strict=True))
        try:
            layout = Layout(make_mesh(config.mesh, self._devices(estimate_only)))
            self.why_estimated = ""
        except MissingTpuCompiler as error:
            layout = Layout(AbstractMesh(sizes, AXES), platform=topology.chip.platform)
            self.why_estimated = str(error)
        try:
            check_batches(config, self.mesh)
        except UserError as error:
            raise UserError(f"{error}; see --batch, --mesh and --microbatches") from None
        self.programs = Programs(config, layout, family)

    def _devices(self, estimate_only: bool) -> list[Any]:
        if estimate_only:
            raise MissingTpuCompiler("nothing was to be compiled")
        if self.topology.chip.platform != "tpu":
            raise MissingTpuCompiler("the compiler for GPUs needs a GPU")
        return tpu_devices(self.topology)

    def machine(self) -> dict[str, Any]:
        """What all programs share."""
        chip = self.topology.chip
        return {
            "row": "machine",
            "topology": self.topology.name,
            "chips": self.topology.chips,
            "mesh": self.mesh,
            "source": "estimated" if self.why_estimated else "compiled",
            "why_estimated": self.why_estimated,
            "component": self.config.component,
            "parameters": self.programs.parameters,
            "dtype": self.config.dtype,
            "remat": self.config.remat,
            "inputs": self.config.data.inputs,
            "chip": {f.name: getattr(chip, f.name) for f in dataclasses.fields(chip) if f.name != "sources"},
            "assumptions": dataclasses.asdict(self.assumptions),
        }

    def shapes(self, kind: Kind, every: bool) -> list[Shape]:
        """Which shapes of a kind are compiled."""
        mine = dict.fromkeys(s for i in range(len(self.config.stages)) for s in self.programs.stage_shapes(i))
        mine = [shape for shape in mine if shape.kind == kind]
        heaviest = lambda shape: (self.programs.example_flops(shape), shape.structure)
        return mine if every or not mine else [max(mine, key=heaviest)]

    def train(self, shape: Shape, fit: Fit | None) -> Iterator[dict[str, Any]]:
        """The tries of a fit, and the row of a step."""
        batch, parts = getattr(self.config.data, shape.kind).batch_size, self.config.microbatches.of(shape.kind)
        shards = self.programs.layout.batch_shards
        if fit is None:
            yield self._train_row(shape, batch, parts)
            return
        if fit == "microbatches":
            each = batch // shards
            choices = [n for n in range(1, each + 1) if each % n == 0]
            sizes = [(batch, each // n) for n in choices]
        else:
            sizes = [(n * shards * parts, parts) for n in range(1, _MOST_EXAMPLES + 1)]
        good, bad, best = -1, len(sizes), None
        while (index := next_to_try(good, bad, len(sizes))) is not None:
            row = self._train_row(shape, *sizes[index])
            yield {"row": "try"} | {key: row[key] for key in _TRY}
            if row["fits"]:
                good, best = index, row
            else:
                bad = index
        yield best or row

    def _train_row(self, shape: Shape, batch: int, parts: int) -> dict[str, Any]:
        program = self.programs.train(shape, batch, parts)
        return self.row(program, {"kind": shape.kind, "microbatches": parts})

    def row(self, program: Program, more: Mapping[str, Any]) -> dict[str, Any]:
        """Figures of a program, of one chip."""
        chip, chips = self.topology.chip, self.topology.chips
        measures = self._measure(program)
        row = {
            "row": "program",
            "program": program.name,
            "batch": program.batch,
            **more,
            **{f.name: getattr(measures, f.name) for f in dataclasses.fields(measures) if f.name != "collectives"},
            "hbm_bytes": int(chip.hbm_bytes),
            "fits": measures.peak_bytes <= chip.hbm_bytes,
            "model_tflop": program.model_flops / chips / 1e12,
            "tflop": program.flops / program.groups / 1e12,
        }
        if measures.bytes_accessed is None:
            return row
        prediction = predict(
            flops=program.flops / program.groups,
            bytes_accessed=measures.bytes_accessed,
            collectives=measures.collectives,
            topology=self.topology,
            assumptions=self.assumptions,
        )
        row |= dataclasses.asdict(prediction)
        row["mfu"] = program.model_flops / chips / (chip.peak_flops * prediction.step_s)
        row["collectives"] = [
            {
                "kind": c.kind,
                "axes": c.axes(self.mesh),
                "count": c.count,
                "bytes": c.bytes,
                "seconds": c.count * collective_seconds(c, self.topology),
            }
            for c in measures.collectives
        ]
        return row

    def _measure(self, program: Program) -> Measures:
        if not self.why_estimated:
            return compile_program(program)
        return estimate(
            program,
            parameters=self.programs.parameters,
            itemsize=self.programs.dtype.itemsize,
            mesh=self.mesh,
            fused_attention=self.topology.chip.platform == "gpu",
            sums_once=self.programs.layout.sums_once,
        )

    def preview(self, sampler: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Memory of the first chip during a preview; None without previews. Activations are those of the sampler."""
        if not (self.config.preview.every and self.config.component == "unet"):
            return None
        kept, loaded = self.programs.preview_bytes()
        temporary = None if sampler is None else sampler["temporary_bytes"]
        peak, most = kept + loaded + (temporary or 0), int(self.topology.chip.hbm_bytes)
        return {
            "every": self.config.preview.every,
            "kept_bytes": kept,
            "loaded_bytes": loaded,
            "temporary_bytes": temporary,
            "peak_bytes": peak,
            "hbm_bytes": most,
            "fits": peak <= most,
        }

    def stages(self, done: list[tuple[Shape, dict[str, Any]]]) -> dict[str, Any]:
        """Hours of each stage; None where a kind of its batches was not planned or does not fit."""
        stages = []
        for index, stage in enumerate(self.config.stages):
            chances = self.programs.stage_shapes(index)
            seconds = [self._seconds(shape, done) for shape in chances]
            known = None not in seconds
            mean = sum(chance * s for chance, s in zip(chances.values(), seconds, strict=True)) if known else None
            hours = None if mean is None else mean * stage.steps / 3600
            chip_hours = None if hours is None else hours * self.topology.chips
            stages.append(
                {"stage": stage.name, "steps": stage.steps, "step_s": mean, "hours": hours, "chip_hours": chip_hours}
            )
        add = lambda name: None if any(s[name] is None for s in stages) else sum(s[name] for s in stages)
        return {"row": "stages", "stages": stages, "hours": add("hours"), "chip_hours": add("chip_hours")}

    def _seconds(self, shape: Shape, done: list[tuple[Shape, dict[str, Any]]]) -> float | None:
        """Of a step: that of the shape itself, or of the one that stands for its kind, by their operations."""
        stands = [(other, row) for other, row in done if other.kind == shape.kind]
        other, row = next(((o, r) for o, r in stands if o == shape), stands[0] if stands else (shape, {"fits": False}))
        if not row["fits"]:
            return None
        return row["step_s"] * self.programs.example_flops(shape) / self.programs.example_flops(other)


def next_to_try(good: int, bad: int, count: int) -> int | None:
    """Which of `count` sizes, of which the first fit and the others do not, to try next; None when it is settled.

    Args:
        good: the last that is known to fit, -1 if none is.
        bad: the first that is known not to, `count` if none is.
    """
    if bad - good <= 1:
        return None
    return min(max(2 * good + 1, 0), count - 1) if bad == count else (good + bad) // 2
