"""`gen1 evaluate` and `gen1 curves`."""

import argparse
import itertools
import sys
from pathlib import Path

from gen1_jax.commands.clip_benchmarks import CLIP_BENCHMARKS, run_clip_benchmark, with_option
from gen1_jax.commands.common import command, naming_options, report, use_compilation_cache
from gen1_jax.commands.edit import SOME_FAILED, add_settings, settings_of
from gen1_jax.errors import UserError

_OF_FOOTAGE = ("sources", "prompts", "masks", "compare_at", "align", "fit", "lpips", "fvd")
_MOVING_WINDOWS = 2  # a moving figure is so many times as long as what the model sees at once


def add_evaluate(commands) -> None:
    """Declare `gen1 evaluate`."""
    parser = command(
        commands,
        "evaluate",
        _evaluate,
        "score edits of held-out synthetic worlds against the render of the right answer",
        "gen1 evaluate --model nano --benchmark worlds --clips 256 --out benchmark",
    )
    parser.add_argument(
        "--benchmark",
        choices=("worlds", "local", "swap", *CLIP_BENCHMARKS),
        default="worlds",
        help="edits, edits of one object with masks, clips in the content of others and what leaks, the depth network "
        "alone, whether long edits drift, or an upscaler (worlds)",
    )
    lengths = ", ".join(f"{name} ({benchmark.frames})" for name, benchmark in CLIP_BENCHMARKS.items())
    parser.add_argument(
        "--frames", type=int, metavar="N", help=f"of a clip of --benchmark {lengths} or of --videos (128)"
    )
    parser.add_argument("--out", metavar="DIR", help="of the report; run again to go on with it")
    parser.add_argument(
        "--figure",
        metavar="FILE",
        help="edits over their right answers: a .jpg or .png, or moving, a .webp or .gif; with --videos edits beside "
        "their sources, a .jpg or .png",
    )
    parser.add_argument("--clips", type=int, default=256, metavar="N", help="held-out edits (256)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="clips edited at once at most (16)")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="PATTERN", help='methods, as "SDEdit*" and "structure_blur=*" (all)'
    )
    parser.add_argument("--list", action="store_true", help="print the names of the methods, with what each is")
    parser.add_argument(
        "--judge",
        metavar="NAME|DIR",
        help="the CLIP that judges: a folder of one, a model, a workdir (the model's own; of --videos nano-judge)",
    )
    _add_footage(parser)
    add_settings(parser)
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON, and no progress")


def _add_footage(parser: argparse.ArgumentParser) -> None:
    """Declare what scores edits that are there already."""
    group = parser.add_argument_group("anybody's edits of real footage", "instead of a benchmark")
    group.add_argument(
        "--videos", nargs="+", metavar="[NAME=]DIR", help="edits, a folder an editor, named as their sources are"
    )
    group.add_argument("--sources", metavar="DIR", help="the clips that were edited: files, or folders of pictures")
    group.add_argument(
        "--prompts",
        metavar="TABLE",
        help="a CSV with columns source and prompt (and edit, of another file name), or the list of TGVE or IVEBench",
    )
    group.add_argument(
        "--masks", metavar="DIR", help="what was to change, white or in any colour, named as the sources"
    )
    group.add_argument(
        "--compare-at", type=int, metavar="N", help="pixels of the shorter side that all are compared at (256)"
    )
    group.add_argument(
        "--align",
        choices=("start", "spread"),
        help="of sources with more frames: edits are their start, or all of them at another frame rate (start)",
    )
    group.add_argument(
        "--fit", choices=("crop", "stretch"), help="of edits of another shape: the middle of the source, or all (crop)"
    )
    group.add_argument(
        "--lpips",
        action="store_true",
        help="measure LPIPS to the source, too, or of --benchmark upscaling to the exact render (extra evaluate)",
    )
    group.add_argument("--fvd", action="store_true", help="measure FVD to the sources, too (extra evaluate; slow)")


def _evaluate(args: argparse.Namespace) -> int | None:
    from gen1_jax.media import IMAGE_SUFFIXES, check_writable

    if args.list:
        return _list(args)
    if args.videos:
        return _footage(args)
    needless = [name for name in _OF_FOOTAGE if args.benchmark not in with_option(name)]
    if given := next((name for name in needless if getattr(args, name)), None):
        raise UserError(f"--{given.replace('_', '-')} is for edits that are there already: name them with --videos DIR")
    if args.propagate and args.benchmark not in (propagated := with_option("propagate")):
        raise UserError(f"--propagate is measured by --benchmark {' and '.join(propagated)} alone")
    if args.benchmark in CLIP_BENCHMARKS:
        return run_clip_benchmark(args)
    if not (args.out or args.figure):
        raise UserError("name --out DIR for the report, or --figure FILE.jpg for a picture, FILE.webp for a moving one")
    if args.figure:
        check_writable(args.figure, (*IMAGE_SUFFIXES, ".gif"))
    use_compilation_cache()
    summary, lines = _benchmark(args) if args.out else ({}, [])
    if args.figure:
        prompts = _figure(args)
        summary |= {"figure": args.figure, "prompts": prompts}
        lines += [*itertools.chain(*prompts), args.figure]
    report(summary, args.json, None if args.json else "\n".join(lines))


def _list(args: argparse.Namespace) -> None:
    """The methods that --only chooses from; of those that vary a setting, all but the model's own value of it."""
    from gen1_jax.checkpoints.trained import open_trained
    from gen1_jax.evaluation.benchmark import SUITES
    from gen1_jax.evaluation.methods import chosen

    suite, model = SUITES.get(args.benchmark, SUITES["worlds"]), open_trained(args.model).config
    listed = chosen(suite.methods(settings_of(args).of(model), model), args.only)
    width = max(len(method.name) for method in listed)
    lines = [f"{method.name:{width}}  {method.what}" for method in listed]
    report({m.name: m.what for m in listed}, args.json, "\n".join(lines))


def _footage(args: argparse.Namespace) -> int:
    """Scores edits of real footage, or draws them, or both; exit code 3 if some could not be read."""
    from gen1_jax.evaluation.footage.listing import editors_of
    from gen1_jax.evaluation.footage.pairs import PairOptions
    from gen1_jax.evaluation.footage.results import FootageConfig
    from gen1_jax.evaluation.footage.sheet import draw_sheet
    from gen1_jax.media import check_writable, write_image

    if missing := next((name for name in ("sources", "prompts") if getattr(args, name) is None), None):
        raise UserError(f"name --{missing}, too: of each edit its source and its prompt are needed")
    given = {"size": args.compare_at, "frames": args.frames, "align": args.align, "fit": args.fit}
    with naming_options("frames", size="compare-at"):
        pairs = PairOptions(**{name: value for name, value in given.items() if value is not None})
    config = FootageConfig(
        editors=editors_of(args.videos),
        sources=args.sources,
        prompts=args.prompts,
        masks=args.masks,
        judge=args.judge,
        model=args.model,
        lpips=args.lpips,
        fvd=args.fvd,
        pairs=pairs,
    )
    if args.figure:
        check_writable(args.figure, (".jpg", ".jpeg", ".png"))
    summary, lines = _scores(args, config) if args.out or not args.figure else ({}, [])
    failed = [f"{each['editor']}: {each['name']}: {each['error']}" for each in summary.get("failed", ())]
    if args.figure:
        told = set(failed)
        sheet, prompts = draw_sheet(config, failed.append)
        write_image(args.figure, sheet)
        for line in (line for line in failed if line not in told):
            print(f"gen1: {line}", file=sys.stderr)
        summary |= {"figure": args.figure, "prompts": prompts}
        lines += [*(f"{name}: {prompt}" for name, prompt in prompts.items()), args.figure]
    report(summary, args.json, "\n".join(lines))
    return SOME_FAILED if failed else 0


def _scores(args: argparse.Namespace, config) -> tuple[dict, list[str]]:
    """Scores edits, and writes the report; what it says, and its lines."""
    from gen1_jax.data.processes import ProgressLine
    from gen1_jax.evaluation.footage.report import lines, write_footage_report
    from gen1_jax.evaluation.footage.results import evaluate_footage

    use_compilation_cache()
    out = Path(args.out or "evaluation")
    with ProgressLine("evaluate", "edits", enabled=not args.json) as progress:
        results = evaluate_footage(config, out, progress, progress.say)
    page = str(write_footage_report(results, config, out))
    return {"report": page, **results}, [*lines(results, config), page]


def _figure(args: argparse.Namespace) -> list[list[str]]:
    """Draws it; the prompts from left to right, a scene a row."""
    from gen1_jax.data.processes import ProgressLine
    from gen1_jax.editing.pipeline import Gen1Pipeline
    from gen1_jax.evaluation.figure import draw_figure
    from gen1_jax.evaluation.worlds import FRAME_RATE
    from gen1_jax.media import ANIMATION_SUFFIXES, write_animation, write_image

    moves = Path(args.figure).suffix.lower() in ANIMATION_SUFFIXES
    with ProgressLine("figure", "edits", enabled=not args.json) as progress:
        pipeline = Gen1Pipeline.from_pretrained(args.model)
        frames = _MOVING_WINDOWS * pipeline.config.num_frames if moves else None
        figure = draw_figure(pipeline, settings_of(args), frames=frames, seed=args.seed, progress=progress)
    if moves:
        write_animation(args.figure, figure.moving(), FRAME_RATE)
    else:
        write_image(args.figure, figure.still())
    return figure.prompts


def _benchmark(args: argparse.Namespace) -> tuple[dict, list[str]]:
    """Measures, and writes the report; the verdict, and its lines."""
    from gen1_jax.checkpoints.trained import open_trained
    from gen1_jax.data.processes import ProgressLine
    from gen1_jax.evaluation.benchmark import BenchmarkConfig, run_benchmark
    from gen1_jax.evaluation.report import write_report
    from gen1_jax.evaluation.swap import lines as swap_lines
    from gen1_jax.evaluation.verdict import lines as table_of
    from gen1_jax.evaluation.verdict import verdicts

    config = BenchmarkConfig(
        benchmark=args.benchmark,
        clips=args.clips,
        seed=args.seed,
        batch_size=args.batch_size,
        settings=settings_of(args),
        only=tuple(args.only),
        judge=args.judge,
    )
    out = Path(args.out)
    with ProgressLine("evaluate", "methods", enabled=not args.json) as progress:
        units = {"rendering": "clips"}
        show = lambda what, done, total: progress(done, total, what, units.get(what, ""))
        results = run_benchmark(open_trained(args.model), config, out, show)
    found = [*verdicts(results)]
    verdict = {"report": str(write_report(results, out, found)), "bars": results["bars"]}
    verdict["rivals"] = [each.to_dict() for each in found]
    lines = [
        f"{'reached' if bar['reached'] else 'missed '}  {bar['figure']}: {bar['measured']} ({bar['bar']})"
        for bar in verdict["bars"]
    ]
    swapped = swap_lines(results) if args.benchmark == "swap" else ()
    return verdict, [*lines, *table_of(found), *swapped, verdict["report"]]


def add_curves(commands) -> None:
    """Declare `gen1 curves`."""
    parser = command(
        commands,
        "curves",
        _curves,
        "draw how trainings went, from the logs of their workdirs",
        "gen1 curves runs/vae runs/unet -o training.png",
    )
    parser.add_argument("workdirs", nargs="+", type=Path, metavar="WORKDIR", help="of gen1 train")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="a .png")
    parser.add_argument("--json", action="store_true", help="print steps, hours and losses as JSON")


def _curves(args: argparse.Namespace) -> None:
    from gen1_jax.evaluation.curves import has_entries, plot_trainings, read_training
    from gen1_jax.media import check_writable

    check_writable(args.output, (".png",))
    trainings = []
    for workdir in args.workdirs:
        if len(args.workdirs) > 1 and not has_entries(workdir):
            print(f"gen1: {workdir} is left out: nothing has been logged there yet", file=sys.stderr)
        else:
            trainings.append(read_training(workdir))
    if not trainings:
        raise UserError("nothing has been logged yet in any of these workdirs")
    plot_trainings(trainings, Path(args.output))
    rows = [training.summary for training in trainings]
    lines = ["  ".join(f"{name} {value}" for name, value in row.items()) for row in rows]
    report({"picture": args.output, "runs": rows}, args.json, "\n".join([*lines, args.output]))
