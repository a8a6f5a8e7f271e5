"""Arguments and actions of `gen1 render` and `gen1 data`, and of `gen1 bench` for both.

Heavy imports happen inside actions.

An action returns a summary, for JSON, and a text of it, with the summary's names in braces.
"""

import argparse
import dataclasses
from functools import partial
from typing import Any

from gen1_jax.errors import UserError, counted

Result = tuple[dict[str, Any], str]


def add_render_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `gen1 render`."""
    parser.add_argument("--out", metavar="DIR", help="the data set; run again to go on with it")
    parser.add_argument("--clips", type=int, metavar="N", help="how many")
    _add_clip(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="sets of different seeds share no clip (0)")
    parser.add_argument("--split", default="train", metavar="NAME", help="train, validation or test (train)")
    parser.add_argument("--flow", action="store_true", help="store optical flow too, as --maps flow does")
    parser.add_argument(
        "--maps", default="", metavar="KIND,...", help="exact maps to store: edges, normals, flow, pose, source"
    )
    sheet = parser.add_argument_group("instead of a data set, or beside it")
    sheet.add_argument("--sheet", metavar="FILE.png", help="a picture: a structure a row, a content a column")
    sheet.add_argument("--rows", type=int, default=6, metavar="N", help="(6)")
    sheet.add_argument("--columns", type=int, default=6, metavar="N", help="(6)")
    how = parser.add_argument_group("running")
    how.add_argument("--processes", type=int, default=1, metavar="P", help="of this machine (1)")
    how.add_argument("--process-index", type=int, default=0, metavar="I", help="number of this machine (0)")
    how.add_argument("--process-count", type=int, default=1, metavar="N", help="machines that share the work (1)")
    how.add_argument("--json", action="store_true", help="print a summary as JSON, and no progress")


def run_render(args: argparse.Namespace) -> Result:
    """Renders the data set, the sheet, or both."""
    from gen1_jax.media import check_writable, write_image

    if not (args.sheet or args.out):
        raise UserError("name --out DIR for a data set, or --sheet FILE.png for a picture")
    if args.out and args.clips is None:
        raise UserError("name how many clips: --clips N")
    if args.sheet:
        check_writable(args.sheet, (".png",))
    summary, text = _render_dataset(args) if args.out else ({}, "")
    if args.sheet:
        from gen1_jax.data.render import render_sheet

        size = min(_recipe(args, clips=1).height, _recipe(args, clips=1).width)
        sheet = render_sheet(rows=args.rows, columns=args.columns, size=size, seed=args.seed, split=args.split)
        write_image(args.sheet, sheet)
        summary |= {"sheet": args.sheet, "rows": args.rows, "columns": args.columns}
        text += (
            "\n" * bool(text) + f"{args.sheet}: {counted(args.rows, 'structure')}, {counted(args.columns, 'content')}"
        )
    return summary, text


def _render_dataset(args: argparse.Namespace) -> Result:
    from gen1_jax.data.processes import ProgressLine, run_job
    from gen1_jax.data.render import render_dataset

    recipe = _recipe(args, clips=args.clips, seed=args.seed, split=args.split, flow=args.flow, maps=kinds_of(args.maps))
    with ProgressLine("render", "frames", recipe.frames, enabled=not args.json) as progress:
        summary = run_job(
            partial(render_dataset, args.out, recipe, batch_size=args.batch_size),
            processes=args.processes,
            process_index=args.process_index,
            process_count=args.process_count,
            progress=progress,
        )
    text = (
        f"{summary.directory}: {counted(summary.written, 'shard')} of split {summary.split} rendered "
        f"({counted(summary.examples, 'clip')}), {summary.kept} {'was' if summary.kept == 1 else 'were'} there"
    )
    return dataclasses.asdict(summary), text + ("" if summary.complete else "; others are still missing")


def add_bench_render_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `gen1 bench render`."""
    parser.add_argument("--clips", type=int, default=16, metavar="N", help="to render (16)")
    _add_clip(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_bench_render(args: argparse.Namespace) -> Result:
    """Times the renderer."""
    from gen1_jax.data.render import bench_render

    result = bench_render(_recipe(args, clips=args.clips), batch_size=args.batch_size)
    return result, (
        f"{result['device']}: {result['render_frames_per_second']:.1f} frames/s of {result['size']} rendered,"
        f" {result['record_frames_per_second']:.1f} with encoding\n"
        f"{counted(result['clips'], 'clip')} of {counted(result['frames'], 'frame')}"
        f" in batches of {result['batch_size']}, {result['bytes_per_clip']:.0f} bytes a clip;"
        f" the first batch took {result['first_batch_seconds']:.1f} s"
    )


def _add_clip(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--frames", type=int, default=8, metavar="N", help="of a clip (8)")
    parser.add_argument("--size", default="128", metavar="S|WxH", help="of a frame, pixels (128)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="clips at once on a device (1 on a CPU)")


def _recipe(args: argparse.Namespace, **settings: Any):
    from gen1_jax.data.prepare_geometry import parse_bucket
    from gen1_jax.data.render import RenderRecipe

    height, width = parse_bucket(args.size if "x" in args.size else f"{args.size}x{args.size}")
    return RenderRecipe(frames=args.frames, height=height, width=width, **settings)


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `gen1 data`."""
    parser.add_argument("--config", metavar="FILE", help="a training configuration; its `data` is used")
    what = parser.add_argument_group("without a configuration")
    what.add_argument("--video", nargs="+", default=[], metavar="DIR", help="clips: data sets, folders, tfds:NAME")
    what.add_argument("--image", nargs="+", default=[], metavar="DIR", help="pictures: likewise")
    what.add_argument("--split", default="train", metavar="NAME", help="of the data sets (train)")
    what.add_argument("--frames", type=int, default=8, metavar="N", help="of a clip (8)")
    what.add_argument("--stride", type=int, default=1, metavar="N", help="every how many-th frame of a video (1)")
    what.add_argument("--buckets", default="448x256", metavar="WxH,...", help="sizes of batches (448x256)")
    what.add_argument("--batch-size", type=int, default=8, metavar="N", help="clips of a batch (8)")
    what.add_argument("--image-batch-size", type=int, default=64, metavar="N", help="images of a batch (64)")
    what.add_argument("--image-probability", type=float, metavar="P", help="of a batch of images (0.125)")
    what.add_argument("--inputs", default="pixels", help="pixels, depth or maps (and pixels), or latents (pixels)")
    what.add_argument("--structure", default="depth", metavar="KIND,...", help="of maps and latents (depth)")
    what.add_argument("--on-error", default="raise", help="raise or skip (raise)")
    what.add_argument("--workers", type=int, default=0, metavar="N", help="loading processes (0)")
    what.add_argument("--threads", type=int, default=2, metavar="N", help="of each process (2)")
    parser.add_argument("--batches", type=int, default=20, metavar="N", help="to draw (20)")
    parser.add_argument("--picture", metavar="FILE.png", help="write the last batch as a picture")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON, and no progress")


def run_data(args: argparse.Namespace) -> Result:
    """Walks through batches."""
    from gen1_jax.data.mixture import Mixture
    from gen1_jax.data.processes import ProgressLine
    from gen1_jax.data.walk import batch_picture, render_walk, walk
    from gen1_jax.media import check_writable, write_image

    if args.picture:
        check_writable(args.picture, (".png",))
    mixture = Mixture(_data_config(args), process_index=0, process_count=1)
    with ProgressLine("draw", "batches", enabled=not args.json) as progress:
        summary, batch = walk(mixture, args.batches, progress)
    if args.picture:
        write_image(args.picture, batch_picture(batch))
    return summary, render_walk(summary)


def add_bench_windows_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `gen1 bench data`."""
    parser.add_argument("--video", required=True, metavar="DIR", help="videos: a folder, a data set")
    parser.add_argument("--split", default="train", metavar="NAME", help="of a data set (train)")
    parser.add_argument("--frames", type=int, default=8, metavar="N", help="of a window (8)")
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="every how many-th frame (1)")
    parser.add_argument("--bucket", default="448x256", metavar="WxH", help="size of a batch (448x256)")
    parser.add_argument("--windows", type=int, default=64, metavar="N", help="to read, of all videos in turn (64)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_bench_windows(args: argparse.Namespace) -> Result:
    """Times windows."""
    from gen1_jax.data.bench_windows import bench_windows
    from gen1_jax.data.prepare_geometry import parse_bucket

    if args.windows < 1 or args.frames < 1 or args.stride < 1:
        raise UserError("--windows, --frames and --stride must be at least 1")
    summary = bench_windows(
        args.video,
        split=args.split,
        frames=args.frames,
        stride=args.stride,
        bucket=parse_bucket(args.bucket),
        windows=args.windows,
    )
    return summary, (
        f"{counted(summary['windows'], 'window')} of {counted(summary['frames'], 'frame')} at {summary['size']} "
        f"of {counted(summary['videos'], 'video')}, milliseconds of one core a window:\n"
        f"  the pipeline                   {summary['pipeline_ms']:7.1f}\n"
        f"  PyAV, the same frames as RGB   {summary['pyav_ms']:7.1f}"
        f"   the pipeline keeps {summary['speed']:.0%} of its speed\n"
        f"  PyAV, decoding alone           {summary['pyav_bare_ms']:7.1f}   {summary['speed_bare']:.0%}"
    )


def _data_config(args: argparse.Namespace):
    from gen1_jax.data.config import DataConfig
    from gen1_jax.data.config_file import read_data
    from gen1_jax.data.prepare_geometry import parse_bucket

    if args.config:
        return read_data(args.config)
    if not (args.video or args.image):
        raise UserError("name sources, --video DIR or --image DIR, or a --config FILE")
    buckets = [parse_bucket(text.strip()) for text in args.buckets.split(",")]
    probability = 0.125 if args.video and args.image else float(bool(args.image))

    def stream(paths: list[str], batch_size: int, frames: int) -> dict[str, Any]:
        sources = [{"path": path, "split": args.split, "stride": args.stride} for path in paths]
        return {"sources": sources, "batch_size": batch_size, "frames": frames, "buckets": buckets}

    return DataConfig.from_dict(
        {
            "video": stream(args.video, args.batch_size, args.frames),
            "image": stream(args.image, args.image_batch_size, 1),
            "image_probability": probability if args.image_probability is None else args.image_probability,
            "structure": kinds_of(args.structure),
            **{name: getattr(args, name) for name in ("inputs", "on_error", "workers", "threads")},
        }
    )


def kinds_of(text: str) -> tuple[str, ...]:
    """Names of kinds of structure, as `--structure` has them; they are checked where they are used."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
