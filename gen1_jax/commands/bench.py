"""`gen1 bench`."""

from pathlib import Path

from gen1_jax.commands.common import (
    OneLineParser,
    command,
    leave_devices_free,
    naming_options,
    report,
    reporting,
    use_compilation_cache,
)
from gen1_jax.commands.customise import add_bench_customise
from gen1_jax.commands.datasets import (
    add_bench_render_arguments,
    add_bench_windows_arguments,
    run_bench_render,
    run_bench_windows,
)
from gen1_jax.commands.options import add_deep_cache
from gen1_jax.errors import UserError, counted

_SIZES = "tiny, nano, full, public, or with a transformer tiny-dit, nano-dit, dit"


def add_bench(commands) -> None:
    """Declare `gen1 bench`."""
    bench = commands.add_parser("bench", help="measure speed and memory", description="Measure speed and memory.")
    subjects = bench.add_subparsers(title="what to measure", metavar="WHAT", required=True, parser_class=OneLineParser)
    parser = command(
        subjects,
        "sample",
        _bench_sample,
        "time the guided sampler on random weights",
        "gen1 bench sample --size full --frames 8 --steps 50 --temporal-guidance-scale 1.5",
    )
    parser.add_argument("--size", default="nano", help=f"{_SIZES} (nano)")
    parser.add_argument("--frames", type=int, metavar="N", help="(the window of the model)")
    parser.add_argument("--height", type=int, metavar="PIXELS", help="(that of the model)")
    parser.add_argument("--width", type=int, metavar="PIXELS", help="(that of the model)")
    parser.add_argument("--steps", type=int, default=50, metavar="N")
    parser.add_argument("--guidance-scale", type=float, default=7.5, metavar="W")
    parser.add_argument("--temporal-guidance-scale", type=float, default=1.5, metavar="WT")
    add_deep_cache(parser)
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="timed runs; the median counts (3)")
    _add_profile(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")

    parser = command(
        subjects,
        "edit",
        _bench_edit,
        "time edits of clips of several lengths on random weights, and their memory",
        "gen1 bench edit --frames 100 1000 10000",
    )
    parser.add_argument("--frames", type=int, nargs="+", default=[100, 1000], metavar="N", help="ascending (100 1000)")
    parser.add_argument("--size", default="tiny", help=f"{_SIZES} (tiny)")
    parser.add_argument("--steps", type=int, default=2, metavar="N", help="of the sampler (2)")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each length")

    parser = command(
        subjects,
        "train",
        _bench_train,
        "time the denoiser's training step on random weights and latents",
        "gen1 bench train --size full --clips 1 4 8 16 --images 64 --remat",
    )
    parser.add_argument("--size", default="nano", help=f"{_SIZES} (nano)")
    parser.add_argument("--clips", type=int, nargs="*", default=[8], metavar="N", help="batches of clips (8)")
    parser.add_argument("--images", type=int, nargs="*", default=[], metavar="N", help="batches of images (none)")
    parser.add_argument("--remat", action="store_true", help="recompute activations in the backward pass")
    parser.add_argument("--mesh", default="", metavar="AXIS=N,...", help="devices along data, fsdp, tensor, context")
    parser.add_argument("--microbatches", type=int, default=1, metavar="N", help="parts of each batch (1)")
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="timed steps (10)")
    _add_profile(parser)
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each batch")

    parser = command(
        subjects,
        "layers",
        _bench_layers,
        "time each kind of layer of a U-Net by itself, forward and backward",
        "gen1 bench layers --size full --clips 8 --profile layers.csv",
    )
    parser.add_argument("--size", default="nano", help="tiny, nano, full or public (nano)")
    parser.add_argument("--clips", type=int, default=8, metavar="N", help="in the batch (8)")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="timed runs (20)")
    _add_profile(parser)
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each layer")

    parser = command(
        subjects,
        "growth",
        _bench_growth,
        "show how time and memory grow with frames, pixels and devices, here or on a chip that is not there",
        "gen1 bench growth --out growth\n  gen1 bench growth --size full --chip h200 --out growth",
    )
    parser.add_argument("--size", help=f"{_SIZES} (full, on a CPU nano)")
    parser.add_argument("--work", default="sample,train", metavar="LIST", help="sample,train")
    parser.add_argument("--frames", type=int, nargs="*", metavar="N", help="(8 16 32 64 128, on a CPU 8 16 32)")
    parser.add_argument(
        "--pixels",
        nargs="*",
        metavar="WxH",
        help="(256x256 384x384 512x512 768x768, on a CPU 64x64 96x96 128x128 192x192)",
    )
    parser.add_argument(
        "--devices", type=int, nargs="*", metavar="N", help="that divide a clip of the sampler, or each train (1 2 4)"
    )
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="clips of training for each device (1)")
    parser.add_argument("--remat", action="store_true", help="recompute activations in the backward pass")
    parser.add_argument("--steps", type=int, default=3, metavar="N", help="timed steps (3)")
    parser.add_argument("--chip", metavar="NAME", help="plan for v5e, h200, ... as gen1 plan does; nothing is timed")
    parser.add_argument("--estimate", action="store_true", help="with --chip: compile nothing, formulas only")
    parser.add_argument("--out", metavar="DIR", help="keep rows there and draw growth.png; run again to go on")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each row")

    add_bench_customise(subjects)

    parser = command(
        subjects,
        "render",
        reporting(run_bench_render),
        "time the renderer of synthetic clips, with and without encoding",
        "gen1 bench render --clips 64 --size 128",
    )
    add_bench_render_arguments(parser)

    parser = command(
        subjects,
        "data",
        reporting(run_bench_windows),
        "time windows of videos in the pipeline, and PyAV alone on the same frames",
        "gen1 bench data --video footage --windows 64",
    )
    add_bench_windows_arguments(parser)


def _bench_sample(args) -> None:
    from gen1_jax.evaluation.bench import bench_sample, render_sample
    from gen1_jax.evaluation.kernels import render_kinds, write_operations

    with naming_options("deep_cache"):
        result = bench_sample(
            size=args.size,
            frames=args.frames,
            height=args.height,
            width=args.width,
            steps=args.steps,
            guidance_scale=args.guidance_scale,
            temporal_guidance_scale=args.temporal_guidance_scale,
            deep_cache=1 if args.deep_cache is None else args.deep_cache,
            repeats=args.repeats,
            profile=_begun(args),
        )
    operations = result.pop("operations", [])
    report(result, args.json, None if args.json else "\n".join((render_sample(result), *render_kinds(operations))))
    if args.profile:
        write_operations(args.profile, {"sample": operations})


def _add_profile(parser) -> None:
    parser.add_argument(
        "--profile",
        type=Path,
        metavar="FILE.csv",
        help="write what each operation does, its kind and what it takes",
    )


def _begun(args) -> bool:
    """Whether a profile is asked for, which can then be written; from here on compiled programs are kept.

    As in training: on GPUs two compiles of one program choose different kernels.
    """
    from gen1_jax.media import check_writable

    use_compilation_cache()
    if args.profile is not None:
        check_writable(args.profile, (".csv",))
    return args.profile is not None


def _bench_edit(args) -> None:
    import json

    from gen1_jax.evaluation.bench_edit import bench_edit

    for row in bench_edit(args.frames, size=args.size, steps=args.steps):
        line = f"{counted(row['frames'], 'frame')}: {row['seconds']} s, at most {row['peak_mib']} MiB so far"
        print(json.dumps(row) if args.json else line, flush=True)


def _bench_train(args) -> None:
    import json

    from gen1_jax.evaluation.bench_train import bench_train, render_row, render_table
    from gen1_jax.evaluation.kernels import render_kinds, write_operations
    from gen1_jax.parallel.mesh import parse_mesh

    rows = bench_train(
        size=args.size,
        clips=args.clips,
        images=args.images,
        remat=args.remat,
        mesh=parse_mesh(args.mesh),
        microbatches=args.microbatches,
        steps=args.steps,
        profile=_begun(args),
    )
    seen = {}
    for number, row in enumerate(rows):
        seen[f"{row['batch']} {row['kind']}"] = operations = row.pop("operations", [])
        if args.json:
            print(json.dumps(row), flush=True)
        else:
            print(*[render_row(row) if number else render_table(row), *render_kinds(operations)], sep="\n", flush=True)
        if args.profile:
            write_operations(args.profile, seen)


def _bench_layers(args) -> None:
    import json

    from gen1_jax.evaluation.bench_layers import bench_layers, render_layers
    from gen1_jax.evaluation.kernels import write_operations

    rows, seen = bench_layers(size=args.size, clips=args.clips, steps=args.steps, profile=_begun(args)), {}

    def kept():
        for row in rows:
            seen[f"{row['layer']} {row['channels']} at level {row['level']}"] = row.pop("operations", [])
            if args.profile:
                write_operations(args.profile, seen)
            yield row

    for line in map(json.dumps, kept()) if args.json else render_layers(kept()):
        print(line, flush=True)


def _bench_growth(args) -> None:
    import json

    if args.chip:
        leave_devices_free()
    elif args.estimate:
        raise UserError("--estimate is for a --chip that is not there")

    import jax

    from gen1_jax.data.prepare_geometry import parse_bucket
    from gen1_jax.evaluation import growth

    works = args.work.split(",")
    if wrong := [work for work in works if work not in growth.WORKS]:
        raise UserError(f"--work {wrong[0]!r} is not one of {', '.join(growth.WORKS)}")
    small = jax.default_backend() == "cpu" and not args.chip
    frames, pixels = ([8, 16, 32], [64, 96, 128, 192]) if small else ([8, 16, 32, 64, 128], [256, 384, 512, 768])
    pixels = [(side, side) for side in pixels] if args.pixels is None else list(map(parse_bucket, args.pixels))
    size = args.size or ("nano" if small else "full")
    if args.chip:
        from gen1_jax.planning.growth import ChipBench

        bench = ChipBench(size, args.chip, batch=args.batch, remat=args.remat, estimate_only=args.estimate)
    else:
        from gen1_jax.evaluation.bench_growth import DeviceBench

        use_compilation_cache()  # a row that is timed again is the same program
        bench = DeviceBench(size, batch=args.batch, steps=args.steps, remat=args.remat)
    devices = bench.counts if args.devices is None else args.devices
    for count in devices:
        bench.check(count)
    out = Path(args.out) if args.out else None
    if out is not None:
        if out.exists() and not out.is_dir():
            raise UserError(f"--out {out}: is a file, not a folder")
        out.mkdir(parents=True, exist_ok=True)
    rows = growth.bench_growth(
        growth.Measurements(bench, bench.settings, out and out / "growth.jsonl"),
        bench.config,
        works=works,
        frames=frames if args.frames is None else args.frames,
        pixels=pixels,
        devices=devices,
        plot=out and out / "growth.png",
    )
    shown = None
    for row in rows:
        if args.json:
            print(json.dumps(row), flush=True)
            continue
        if shown is None:
            print(growth.render_settings(bench.settings), flush=True)
        if shown != (row["work"], row["axis"]):
            shown = row["work"], row["axis"]
            print("\n" + growth.render_head(row), flush=True)
        print(growth.render(row), flush=True)
