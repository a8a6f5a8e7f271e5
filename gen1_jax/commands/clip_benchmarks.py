"""Benchmarks of clips as long as one likes, for `gen1 evaluate`: another is an entry of `CLIP_BENCHMARKS`."""

import argparse
from collections.abc import Callable
from typing import Any, ClassVar

from gen1_jax.commands.common import report, use_compilation_cache
from gen1_jax.commands.edit import settings_of
from gen1_jax.errors import UserError

Told = Callable[[int, int], None]
"""Called with clips done, clips in all."""


class ClipBenchmark:
    """What measures a model on rendered worlds. What it needs beside the model is found before anything is rendered.

    Args:
        args: of the command line.

    Attributes:
        frames: of a clip, unless something else is said.
        options: that it has use for, among those that others do not.

    Raises:
        UserError: something is not there.
    """

    frames: ClassVar[int]
    options: ClassVar[tuple[str, ...]] = ()

    def __init__(self, args: argparse.Namespace):
        self.args = args

    def size(self, pipeline) -> tuple[int, int]:
        """(height, width) of the renders.

        Raises:
            UserError: the model has nothing to measure.
        """
        return pipeline.config.height, pipeline.config.width

    def measure(self, pipeline, worlds, told: Told) -> dict[str, Any]:
        """Scores, one a clip."""
        raise NotImplementedError

    def lines(self, scores: dict[str, Any]) -> list[str]:
        """Scores as a table for people."""
        raise NotImplementedError


class DepthBenchmark(ClipBenchmark):
    """How right and how steady the depth network is."""

    frames = 24

    def size(self, pipeline) -> tuple[int, int]:
        """See `ClipBenchmark`."""
        if pipeline.config.depth is None:
            raise UserError(f"{self.args.model} has no depth network to measure")
        return super().size(pipeline)

    def measure(self, pipeline, worlds, told: Told) -> dict[str, Any]:
        """See `measure_depth`."""
        from gen1_jax.evaluation.depth import measure_depth

        return measure_depth(pipeline, worlds, told)

    def lines(self, scores: dict[str, Any]) -> list[str]:
        """See `ClipBenchmark`."""
        from gen1_jax.evaluation.depth import table

        return table(scores)


class LongBenchmark(ClipBenchmark):
    """Whether long edits drift."""

    frames, options = 128, ("propagate",)

    def measure(self, pipeline, worlds, told: Told) -> dict[str, Any]:
        """See `measure_long`."""
        from gen1_jax.evaluation.long import measure_long

        return measure_long(pipeline, worlds, settings_of(self.args), told)

    def lines(self, scores: dict[str, Any]) -> list[str]:
        """See `ClipBenchmark`."""
        from gen1_jax.evaluation.long import table

        return table(scores)


class UpscalingBenchmark(ClipBenchmark):
    """What an upscaler makes of clips."""

    frames, options = 8, ("propagate", "lpips")

    def __init__(self, args: argparse.Namespace):
        from gen1_jax.evaluation.judge import open_judge
        from gen1_jax.media import IMAGE_SUFFIXES, check_writable
        from gen1_jax.pretrained.measuring import read_measuring

        super().__init__(args)
        if args.figure:
            check_writable(args.figure, tuple(IMAGE_SUFFIXES))
        self._settings, self._judge = settings_of(args), open_judge(args.judge)
        self._lpips = read_measuring("lpips") if args.lpips else None

    def size(self, pipeline) -> tuple[int, int]:
        """See `upscaling_size`."""
        from gen1_jax.evaluation.upscaling import upscaling_size

        return upscaling_size(pipeline)

    def measure(self, pipeline, worlds, told: Told) -> dict[str, Any]:
        """See `measure_upscaling`; writes the figure."""
        from gen1_jax.evaluation.upscaling import measure_upscaling
        from gen1_jax.media import write_image

        scores, rows = measure_upscaling(pipeline, worlds, self._settings, self._judge, self._lpips, told)
        if self.args.figure:
            write_image(self.args.figure, rows.reshape(-1, *rows.shape[2:]))
        return scores

    def lines(self, scores: dict[str, Any]) -> list[str]:
        """See `ClipBenchmark`."""
        from gen1_jax.evaluation.upscaling import table

        return [*table(scores), *filter(None, [self.args.figure])]


CLIP_BENCHMARKS: dict[str, type[ClipBenchmark]] = {
    "depth": DepthBenchmark,
    "long": LongBenchmark,
    "upscaling": UpscalingBenchmark,
}
"""By the name that --benchmark has for them."""


def with_option(option: str) -> list[str]:
    """Names of those that have use for an option."""
    return [name for name, benchmark in CLIP_BENCHMARKS.items() if option in benchmark.options]


def run_clip_benchmark(args: argparse.Namespace) -> None:
    """Renders, measures and reports.

    Raises:
        UserError: too few clips or frames; see `ClipBenchmark`.
    """
    from gen1_jax.data.processes import ProgressLine
    from gen1_jax.editing.pipeline import Gen1Pipeline
    from gen1_jax.evaluation.worlds import Worlds

    kind = CLIP_BENCHMARKS[args.benchmark]
    args.frames = kind.frames if args.frames is None else args.frames
    for name, least in (("clips", 1), ("frames", 2)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} must be at least {least}, got {getattr(args, name)}")
    use_compilation_cache()
    pipeline = Gen1Pipeline.from_pretrained(args.model)
    benchmark = kind(args)
    height, width = benchmark.size(pipeline)
    with ProgressLine("evaluate", "clips", enabled=not args.json) as progress:
        show = lambda done, total: progress(done, total, "rendering", "")
        worlds = Worlds(args.clips, frames=args.frames, height=height, width=width, seed=args.seed, progress=show)
        scores = benchmark.measure(pipeline, worlds, lambda done, total: progress(done, total, args.benchmark, ""))
    report(scores, args.json, "\n".join(benchmark.lines(scores)))
