"""`gen1 render`, `gen1 prepare`, `gen1 precompute`, `gen1 data`: data sets and the batches drawn from them."""

import argparse

from gen1_jax.commands.common import command, report, reporting
from gen1_jax.commands.datasets import add_data_arguments, add_render_arguments, kinds_of, run_data, run_render
from gen1_jax.errors import counted


def add_render(commands) -> None:
    """Declare `gen1 render`."""
    parser = command(
        commands,
        "render",
        reporting(run_render),
        "render synthetic clips whose structure and content are known",
        "gen1 render --clips 1000 --frames 8 --size 128 --out worlds",
    )
    add_render_arguments(parser)


def add_data(commands) -> None:
    """Declare `gen1 data`."""
    parser = command(
        commands,
        "data",
        reporting(run_data),
        "walk through the batches of data sets and tell how fast they come",
        "gen1 data --video worlds clips --buckets 128x128 --batches 50 --picture batch.png",
    )
    add_data_arguments(parser)


def add_precompute(commands) -> None:
    """Declare `gen1 precompute`."""
    parser = command(
        commands,
        "precompute",
        reporting(_precompute),
        "encode clips once for training: latents, structure at every t_s, CLIP embeddings",
        "gen1 precompute --data worlds --model nano --out worlds_latents",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="DIR|worlds:N[@SEED]",
        help="a data set of gen1 render or gen1 prepare; or N synthetic clips, rendered on the way",
    )
    parser.add_argument("--split", default="train", metavar="NAME", help="(train)")
    parser.add_argument("--model", default="nano", metavar="NAME|DIR", help="nano, a model folder or a workdir (nano)")
    parser.add_argument("--out", required=True, metavar="DIR", help="the new data set; run again to go on with it")
    parser.add_argument("--size", metavar="WxH", help="of the pictures encoded (their shape, the model's size)")
    parser.add_argument("--structure", default="depth", metavar="KIND,...", help="kinds of structure (depth)")
    parser.add_argument(
        "--depth", default="model", help="the model's, or that of the record, if it is synthetic (model)"
    )
    parser.add_argument(
        "--record", default="", metavar="KIND,...", help="kinds whose exact maps synthetic clips carry (none)"
    )
    parser.add_argument(
        "--levels", default="all", metavar="all|two", help="t_s that are held; two of each clip, a quarter of it (all)"
    )
    parser.add_argument("--frames", type=int, default=8, metavar="N", help="of clips that are rendered on the way (8)")
    parser.add_argument(
        "--change", metavar="WHAT", help="that such clips and their source differ in: object, place, style, all (drawn)"
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="of these at once on a device (1 on a CPU)")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="of this machine (1)")
    parser.add_argument("--process-index", type=int, default=0, metavar="I", help="number of this machine (0)")
    parser.add_argument("--process-count", type=int, default=1, metavar="N", help="machines that share the work (1)")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON, and no progress")


def _precompute(args: argparse.Namespace) -> tuple[dict, str]:
    import dataclasses
    import time
    import warnings
    from functools import partial

    from gen1_jax.checkpoints.trained import open_trained
    from gen1_jax.data.precompute import PrecomputeRecipe, precompute_dataset
    from gen1_jax.data.prepare_geometry import parse_bucket
    from gen1_jax.data.processes import ProgressLine, run_job

    height, width = parse_bucket(args.size) if args.size else (None, None)
    recipe = PrecomputeRecipe(
        data=args.data,
        split=args.split,
        height=height,
        width=width,
        structure=kinds_of(args.structure),
        depth=args.depth,
        record=kinds_of(args.record),
        levels=args.levels,
        frames=args.frames,
        change=args.change,
    )
    model = open_trained(args.model)
    if model.warning:
        warnings.warn(model.warning, stacklevel=1)
    frames, began = 0, time.perf_counter()
    with ProgressLine("precompute", "frames", enabled=not args.json) as show:

        def progress(done: int, total: int) -> None:
            nonlocal frames
            frames = done
            show(done, total)

        summary = run_job(
            partial(precompute_dataset, args.out, recipe, model, batch_size=args.batch_size),
            processes=args.processes,
            process_index=args.process_index,
            process_count=args.process_count,
            progress=progress,
        )
    seconds = time.perf_counter() - began
    text = (
        f"{summary.directory}: {counted(summary.written, 'shard')} of split {summary.split} written "
        f"({counted(summary.examples, 'clip')}), {summary.kept} {'was' if summary.kept == 1 else 'were'} there; "
        f"{counted(frames, 'frame')} in {seconds:.1f} s, {frames / seconds:.1f} frames/s"
    )
    measured = {"frames": frames, "seconds": seconds, "frames_per_second": frames / seconds}
    return {**dataclasses.asdict(summary), **measured}, text


def add_prepare(commands) -> None:
    """Declare `gen1 prepare`."""
    parser = command(
        commands,
        "prepare",
        _prepare,
        "cut videos into a data set of training clips",
        "gen1 prepare --videos footage --captions captions.csv --out clips",
    )
    parser.add_argument(
        "--videos",
        required=True,
        metavar="DIR|GLOB|CSV",
        help="a folder, a pattern in quotes, or a CSV file with a column 'file'",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the data set; run again to go on with it")
    parser.add_argument(
        "--captions",
        metavar="CSV",
        help="columns 'file' and 'caption' (those of --videos CSV, else VIDEO.txt beside VIDEO.mp4)",
    )
    parser.add_argument("--split", default="train", metavar="NAME", help="of the data set (train)")
    parser.add_argument("--shards", type=int, metavar="N", help="files of the split (one in 256 MiB)")
    parser.add_argument(
        "--include-opted-out",
        action="store_true",
        help="take videos, too, whose owners forbid training in C2PA, IPTC or XMP (they are left out, and counted)",
    )
    clips = parser.add_argument_group("clips")
    clips.add_argument("--frames", type=int, metavar="N", help="of a clip (8)")
    clips.add_argument("--stride", type=int, metavar="N", help="every how many-th frame is taken (4)")
    clips.add_argument("--buckets", metavar="WxH,...", help="sizes of clips (448x256,384x320,320x320,320x384,256x448)")
    clips.add_argument("--max-upscale", type=float, metavar="X", help="magnified more, a picture is too small (2)")
    clips.add_argument("--black-level", type=float, metavar="0..255", help="frames below it are black (12)")
    clips.add_argument("--static-level", type=float, metavar="0..255", help="clips that change less are static (0.3)")
    clips.add_argument("--crf", type=int, metavar="0..51", help="H.264 quality, 0 is lossless (17)")
    how = parser.add_argument_group("running")
    how.add_argument("--runner", default="local", help="local processes, or an Apache Beam pipeline: beam (local)")
    how.add_argument("--workers", type=int, metavar="N", help="local processes (one a core)")
    how.add_argument("--timeout", type=float, default=1800, metavar="S", help="seconds that a frame may take (1800)")
    how.add_argument("--beam-options", default="", metavar="TEXT", help='such as "--runner=FlinkRunner"')
    how.add_argument("--json", action="store_true", help="print a summary as JSON, and no progress")
    limits = parser.add_argument_group("limits on each video")
    limits.add_argument("--max-pixels", type=int, metavar="N", help="pixels of a frame")
    limits.add_argument("--max-frames", type=int, metavar="N", help="frames of a video (any number)")
    limits.add_argument("--max-bytes", type=int, metavar="N", help="size of the file")


def _prepare(args) -> None:
    import dataclasses
    import shlex

    from gen1_jax.data.prepare import PrepareOptions
    from gen1_jax.data.prepare_geometry import parse_bucket
    from gen1_jax.data.prepare_listing import list_videos
    from gen1_jax.data.prepare_run import PrepareRequest, prepare_dataset
    from gen1_jax.data.processes import ProgressLine

    def given(*names: str) -> dict:
        return {name: getattr(args, name) for name in names if getattr(args, name) is not None}

    options = given("frames", "stride", "max_upscale", "black_level", "static_level", "crf")
    if args.buckets:
        options["buckets"] = tuple(parse_bucket(text.strip()) for text in args.buckets.split(","))
    limits = given("max_pixels", "max_frames", "max_bytes")
    options["include_opted_out"] = args.include_opted_out
    options["limits"] = dataclasses.replace(PrepareOptions().limits, **limits)
    request = PrepareRequest(
        options=PrepareOptions(**options),
        beam_options=tuple(shlex.split(args.beam_options)),
        **given("videos", "out", "captions", "split", "shards", "runner", "workers", "timeout"),
    )
    videos = list_videos(request.videos, request.captions)
    with ProgressLine("prepare", "videos", enabled=not args.json) as progress:
        summary = prepare_dataset(request, progress, videos=videos)
    text = "\n  ".join([summary.render(), *videos.notes()])
    found = {"files_left_out": dict(videos.left_out), "captions": dataclasses.asdict(videos.captions)}
    report({**dataclasses.asdict(summary), **found}, args.json, text)
