"""`gen1 train`."""

import argparse
import contextlib
import importlib.util
import json
import os
import sys
import textwrap
import time
from functools import partial
from typing import TYPE_CHECKING

from gen1_jax.commands.common import USAGE, command, report, use_compilation_cache
from gen1_jax.errors import UserError

if TYPE_CHECKING:
    from gen1_jax.evaluation.preview import EditPreview
    from gen1_jax.training.boards import OpenBoard
    from gen1_jax.training.config import TrainConfig


_CLEAR, _REFRESH = "\x1b[H\x1b[2J", 5.0  # a terminal; seconds between two looks


def add_train(commands) -> None:
    """Declare `gen1 train`."""
    parser = command(
        commands,
        "train",
        _train,
        "train a network by a recipe, or go on where it stopped",
        "gen1 train --config configs/nano.py --workdir runs/nano --config.optimizer.learning_rate=3e-4",
    )
    parser.usage = (
        "gen1 train --config FILE --workdir DIR [--config.A.B=VALUE ...] [options]\n"
        "       gen1 train --show [--config FILE | --workdir DIR]"
    )
    parser.add_argument("--config", metavar="FILE", help="a Python file with get_config(); see configs/")
    parser.add_argument("--workdir", metavar="DIR", help="where checkpoints, logs and previews go")
    parser.add_argument(
        "--show",
        action="store_true",
        help="train nothing: with --workdir alone show how its run goes, until it ends; else list every field of the "
        "recipe that --config names, or of any",
    )
    parser.add_argument("--stage", type=int, metavar="N", help="end after stage N, counted from 1 (all stages)")
    parser.add_argument("--wandb", metavar="PROJECT", help="show it in a project of Weights & Biases, too")
    parser.add_argument("--profile", action="store_true", help="write a profiler trace of a few steps to DIR/profile")
    parser.add_argument(
        "--allow-older", action="store_true", help="if the newest checkpoint is damaged, go on from the one before"
    )
    parser.add_argument(
        "--allow-change",
        nargs="+",
        default=[],
        metavar="FIELD",
        help="go on although these fields of the recipe differ from those that the run was begun with",
    )
    group = parser.add_argument_group("several processes (TPU pods, Slurm, Open MPI and Kubernetes need none of these)")
    group.add_argument("--coordinator-address", metavar="HOST:PORT")
    group.add_argument("--num-processes", type=int, metavar="N")
    group.add_argument("--process-id", type=int, metavar="N")
    group.add_argument("--join-timeout", type=float, default=600.0, metavar="S", help="wait for others (600)")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, and no progress")
    parser.set_defaults(overrides=[], takes_overrides=True, start_again=True)


def _train(args: argparse.Namespace) -> int:
    if args.show:
        return _watch(args) if args.workdir and not args.config else _show(args)
    if missing := [f"--{name}" for name in ("config", "workdir") if getattr(args, name) is None]:
        raise UserError(f"the following arguments are required: {', '.join(missing)} (see gen1 train --help)")
    import jax

    _join(args)

    from gen1_jax.data.processes import ProgressLine
    from gen1_jax.parallel.distributed import leave
    from gen1_jax.training.loop import train
    from gen1_jax.training.recipe import read_recipe

    use_compilation_cache()
    config = read_recipe(args.config, args.overrides)
    if args.stage is not None and not 1 <= args.stage <= len(config.stages):
        raise UserError(f"--stage is {args.stage}, but {args.config} has stages 1 to {len(config.stages)}")
    boards = boards_of(args.wandb, args.workdir, config)
    preview = preview_of(config)
    speaks = jax.process_index() == 0  # for all
    with ProgressLine("training", "steps", enabled=speaks and not args.json) as progress:
        outcome = train(
            config,
            args.workdir,
            last_stage=None if args.stage is None else args.stage - 1,
            allow_older=args.allow_older,
            allow_change=args.allow_change,
            profile=args.profile,
            preview=preview,
            boards=boards,
            progress=progress,
            say=progress.say,
        )
    summary = {
        "workdir": args.workdir,
        "step": outcome.step,
        "total": config.total_steps,
        "finished": outcome.exit_code == 0,
        "metrics": dict(outcome.metrics),
    }
    text = f"{args.workdir}: step {outcome.step} of {config.total_steps}"
    if outcome.exit_code:
        print(f"gen1: told to end; saved at step {outcome.step}, the same command goes on", file=sys.stderr)
    if speaks:
        report(summary, args.json, text)
    leave()
    return outcome.exit_code


def _watch(args: argparse.Namespace) -> int:
    """How a run goes; in a terminal again and again."""
    from pathlib import Path

    from gen1_jax.evaluation.curves import read_training
    from gen1_jax.evaluation.watch import overview_of

    workdir, lasting = Path(args.workdir), sys.stdout.isatty() and not args.json
    if args.json:
        report(read_training(workdir).summary, True, None)
        return 0
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            text, ended = overview_of(workdir, colours=lasting)
            print(f"{_CLEAR if lasting else ''}{text}", flush=True)
            if ended or not lasting:
                break
            time.sleep(_REFRESH)
    return 0


def _show(args: argparse.Namespace) -> int:
    """Every field with its value, its default and its meaning."""
    from gen1_jax.training.fields import REQUIRED, recipe_fields
    from gen1_jax.training.recipe import read_recipe

    fields = list(recipe_fields(read_recipe(args.config, args.overrides) if args.config else None))
    if args.json:
        print(json.dumps([field._asdict() for field in fields], indent=2))
        return 0
    for field in fields:
        usual = f"  ({REQUIRED})" if field.default == REQUIRED else f"  (default: {field.default!r})"
        same = field.value == field.default and field.default != REQUIRED
        value = "" if field.value == REQUIRED else f" = {field.value!r}"
        print(f"{field.name}{value}{'' if same else usual}")
        print(textwrap.fill(field.meaning, 100, initial_indent="    ", subsequent_indent="    "))
    return 0


def boards_of(project: str | None, workdir: str, config: "TrainConfig") -> list["OpenBoard"]:
    """Where a run is shown beside TensorBoard."""
    if project is None:
        return []
    if importlib.util.find_spec("wandb") is None:
        raise UserError('--wandb needs wandb: pip install "gen1-jax[wandb]"')
    from gen1_jax.training.boards import WeightsAndBiases

    return [partial(WeightsAndBiases, project, os.path.basename(workdir.rstrip("/")), config.to_dict())]


def preview_of(config: "TrainConfig") -> "EditPreview | None":
    """What the recipe asks for, its clip read already."""
    if config.component != "unet" or not config.preview.every:
        return None
    from gen1_jax.checkpoints.trained import open_trained
    from gen1_jax.evaluation.preview import EditPreview
    from gen1_jax.models.denoiser import build_denoiser
    from gen1_jax.pretrained.growing import grown
    from gen1_jax.training.adapters import learned_of

    base = open_trained(config.model)
    family = config.family(base.config)
    source = grown(base, family.unet, family.split)
    learned = learned_of(config.unet.trained, config.unet.lora, build_denoiser(source.config.unet))
    return EditPreview(config.preview, source, config.dtype, learned)


def _join(args: argparse.Namespace) -> None:
    """Meet the other processes of this run."""
    from gen1_jax.parallel.distributed import initialise

    def say(line: str) -> None:
        print(f"gen1: {line}", file=sys.stderr, flush=True)

    try:
        initialise(args.coordinator_address, args.num_processes, args.process_id, timeout=args.join_timeout, say=say)
    except TimeoutError as error:
        say(str(error))
        os._exit(USAGE)  # nothing is open yet, and JAX's threads would say much more than this line
