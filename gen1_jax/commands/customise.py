"""`gen1 customize`, and `gen1 bench customize`."""

import argparse
import itertools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gen1_jax.commands.common import command, report, use_compilation_cache
from gen1_jax.errors import UserError

if TYPE_CHECKING:
    from gen1_jax.pretrained.folder import ModelSource
    from gen1_jax.training.customise import Captioned, CustomiseOptions, Pictures

_SUFFIX = ".safetensors"


def add_customise(commands) -> None:
    """Declare `gen1 customize`."""
    parser = command(
        commands,
        "customize",
        _customise,
        "teach a model a subject from 15 to 30 pictures of it",
        "gen1 customize my_dog/ -o dog.safetensors && gen1 edit walk.mp4 -o mine.mp4 --adapter dog.safetensors",
    )
    parser.add_argument("pictures", metavar="PICTURES", help="a folder, a pattern or a video of the subject alone")
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE", help=f"the adapter, {_SUFFIX}; with --full a model folder"
    )
    parser.add_argument(
        "--prompt", metavar="TEXT", help="what the pictures show; a model that reads text knows the subject by this"
    )
    add_options(parser)
    parser.add_argument(
        "--ordinary",
        metavar="DIR|worlds|own",
        help="the other half of each batch: a folder of pictures or videos, rendered worlds (nano's way), or what the"
        " model itself makes (the way of models that read text)",
    )
    parser.add_argument("--spelling", choices=("peft", "kohya"), default="peft", help="of the adapter's names (peft)")
    parser.add_argument("--workdir", metavar="DIR", help="of the run: data, checkpoints, previews (beside the output)")
    parser.add_argument(
        "--preview-every", type=int, default=50, metavar="N", help="steps between samples, 0: none (50)"
    )
    parser.add_argument("--json", action="store_true", help="print a summary as JSON, and no progress")
    parser.set_defaults(start_again=True)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what the command and its benchmark share."""
    parser.add_argument("--model", default="nano", metavar="NAME|DIR", help="nano, a model folder or a workdir (nano)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--rank", type=int, metavar="N", help="of the adapter (8)")
    size.add_argument("--full", action="store_true", help="train all layers within frames instead of an adapter")
    parser.add_argument(
        "--targets", metavar="NAME,...", help="kernels that the adapter changes, as attention,convolutions"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="of the optimizer (150)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="pictures in a step, half of them the subject (16)")
    parser.add_argument("--learning-rate", type=float, metavar="LR", help="its peak (1e-3; with --full 1e-4)")
    parser.add_argument(
        "--content-dropout", type=float, metavar="P", help="how often an example is told no content, for guidance (0)"
    )
    parser.add_argument(
        "--mirror", action="store_true", help="mirror every other crop of the subject, if it has no left and right"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="(0)")


def options_of(args: argparse.Namespace, **more) -> "CustomiseOptions":
    """What `add_options` declared; what was not given keeps its default."""
    from gen1_jax.training.customise import CustomiseOptions

    names = ("rank", "steps", "batch_size", "learning_rate", "content_dropout", "seed")
    given = {name: getattr(args, name) for name in names}
    given["targets"] = None if args.targets is None else tuple(name.strip() for name in args.targets.split(","))
    if args.full:
        given |= {"rank": 0, "learning_rate": args.learning_rate or 1e-4}
    elif args.rank == 0:
        raise UserError("--rank must be at least 1; --full trains the network itself")
    given["mirror"] = args.mirror
    return CustomiseOptions(model=args.model, **more, **{k: value for k, value in given.items() if value is not None})


def _customise(args: argparse.Namespace) -> int:
    from gen1_jax.checkpoints.trained import TrainedModel, open_trained
    from gen1_jax.commands.train import preview_of
    from gen1_jax.data.processes import ProgressLine
    from gen1_jax.training.customise import make_data, make_recipe, pictures_in
    from gen1_jax.training.loop import train

    output = Path(args.output)
    _check_output(output, full=args.full)
    use_compilation_cache()
    source = open_trained(args.model)
    reads_text = source.config.unet.content.reads_text
    if source.config.split is not None:
        raise UserError(f"{args.model} has learned its content from clips: show it a picture, gen1 edit --image")
    if reads_text and not (args.prompt or "").strip():
        raise UserError(f"--prompt is needed: {args.model} reads text, so say what the pictures show")
    pictures = list(pictures_in(args.pictures, args.prompt or ""))
    workdir = Path(args.workdir) if args.workdir else output.with_name(f"{output.name.removesuffix(_SUFFIX)}_run")
    first = None if reads_text else str(workdir / "subject.png")
    options = options_of(args, caption=args.prompt or "", preview_every=args.preview_every, preview_image=first)
    with ProgressLine("customize", "steps", enabled=not args.json) as progress:
        show = lambda what, done, total: progress(done, total, what, "pictures")
        make_data(workdir, source, options, pictures, _ordinary(args.ordinary, source, options, show), show)
        if first is not None:
            _keep(pictures, Path(first))
        config = make_recipe(workdir, source, options)
        outcome = train(config, workdir, preview=preview_of(config), progress=progress, say=progress.say)
    if outcome.exit_code:
        print(f"gen1: told to end; saved at step {outcome.step}, the same command goes on", file=sys.stderr)
        return outcome.exit_code
    _write(TrainedModel(workdir), output, args)
    summary = {"output": str(output), "workdir": str(workdir), "pictures": len(pictures), "steps": outcome.step}
    summary["metrics"] = dict(outcome.metrics)
    use = f"--model {output}" if args.full else f"--adapter {output}"
    report(summary, args.json, f"{output}: for gen1 edit {use}; samples in {workdir}")
    return 0


def _check_output(output: Path, *, full: bool) -> None:
    if full and output.exists():
        raise UserError(f"{output} exists already: choose another name")
    if not full and output.suffix != _SUFFIX:
        raise UserError(f"{output}: an adapter is a {_SUFFIX} file: name it {output.name}{_SUFFIX}")
    if not output.absolute().parent.is_dir():
        raise UserError(f"{output}: there is no folder {output.parent}")


def _keep(pictures: "list[Captioned]", file: Path) -> None:
    """The picture that previews are told of."""
    from gen1_jax.media import write_image

    write_image(file, pictures[0].picture)


def _write(trained, output: Path, args: argparse.Namespace) -> None:
    if not args.full:
        from gen1_jax.exporting.lora_format import write_trained_adapter

        write_trained_adapter(trained, output, args.spelling)
        return
    from gen1_jax.exporting.export import export, origin_of

    export(trained, output, origin=origin_of(trained, ema=True))


def _ordinary(
    asked: str | None, source: "ModelSource", options: "CustomiseOptions", show: Callable
) -> "Pictures | None":
    """Where the ordinary half comes from; None for worlds.

    Raises:
        UserError: nothing fits the model, or there are no such pictures.
    """
    from gen1_jax.synthetic.captions import words
    from gen1_jax.training.customise import ORDINARY, Captioned, pictures_in

    if asked is None:
        known = getattr(source, "words", None)  # of a model that was trained on worlds, no others than theirs
        asked = "own" if source.config.unet.content.reads_text else None
        asked = "worlds" if known is not None and known <= words() else asked
    if asked is None:
        raise UserError(f"--ordinary is needed: name a folder of pictures such as {options.model} was trained on")
    if asked == "worlds":
        return None
    if asked == "own":
        from gen1_jax.editing.own_pictures import own_pictures

        told = lambda *done: show("making ordinary pictures", *done)
        return lambda: itertools.starmap(Captioned, own_pictures(source, ORDINARY, seed=options.seed, report=told))
    return lambda: pictures_in(asked, most=ORDINARY)


def add_bench_customise(subjects) -> None:
    """Declare `gen1 bench customize`."""
    parser = command(
        subjects,
        "customize",
        _bench,
        "teach a model a subject that it has not seen, and compare edits before and after with the exact answers",
        "gen1 bench customize --clips 64 --steps 300 --learning-rate 3e-4",
    )
    add_options(parser)
    parser.add_argument("--clips", type=int, default=16, metavar="N", help="structures that are edited (16)")
    parser.add_argument("--views", type=int, default=20, metavar="N", help="pictures of the subject (20)")
    parser.add_argument("--edits-at-once", type=int, default=16, metavar="N", help="clips edited at once at most (16)")
    parser.add_argument("--workdir", metavar="DIR", help="where to keep the run (nowhere)")
    parser.add_argument("--json", action="store_true", help="print JSON, and no progress")


def _bench(args: argparse.Namespace) -> None:
    from gen1_jax.data.processes import ProgressLine
    from gen1_jax.evaluation.customised import bench_customise, render_bench

    use_compilation_cache()
    with ProgressLine("bench", "", enabled=not args.json) as progress, tempfile.TemporaryDirectory() as temporary:
        result = bench_customise(
            options_of(args),
            Path(args.workdir or temporary),
            clips=args.clips,
            views=args.views,
            batch_size=args.edits_at_once,
            report=lambda what, done, total: progress(done, total, what),
        )
    report(result, args.json, "\n".join(render_bench(result)))
