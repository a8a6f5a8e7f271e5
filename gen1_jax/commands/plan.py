"""`gen1 plan`."""

import argparse

from gen1_jax.commands.common import command, leave_devices_free

_PROGRAMS = ("video", "image", "sampler")


def add_plan(commands) -> None:
    """Declare `gen1 plan`."""
    parser = command(
        commands,
        "plan",
        _plan,
        "compile a recipe for hardware that you do not have: does it fit, how fast, how much communication",
        "gen1 plan --config configs/gen1.py --topology v5e:16x16 --mesh data=8,fsdp=16,context=2",
    )
    parser.usage = "gen1 plan --config FILE --topology NAME [--config.A.B=VALUE ...] [options]"
    parser.add_argument("--config", required=True, metavar="FILE", help="a Python file with get_config(); see configs/")
    parser.add_argument("--topology", required=True, metavar="NAME", help="v5e:16x16, v5p:4x4x8, gpu:h200:64, ...")
    parser.add_argument("--batch", type=_counts, metavar="KIND=N,...", help="examples, as video=1152,image=9216")
    parser.add_argument(
        "--microbatches", type=_counts, metavar="KIND=N,...", help="parts of a batch, as video=9,image=4"
    )
    parser.add_argument("--mesh", metavar="AXIS=N,...", help="devices along data, fsdp, tensor, context")
    parser.add_argument("--remat", action=argparse.BooleanOptionalAction, help="recompute activations (as the recipe)")
    parser.add_argument("--programs", type=_programs, default=_PROGRAMS, metavar="LIST", help=",".join(_PROGRAMS))
    parser.add_argument(
        "--all-shapes", action="store_true", help="compile every bucket, not only a kind's one with the most operations"
    )
    parser.add_argument(
        "--fit",
        nargs="?",
        choices=("microbatches", "batch"),
        const="microbatches",
        help="look for the fewest microbatches that fit, or for the largest batch",
    )
    parser.add_argument("--estimate", action="store_true", help="compile nothing: seconds, but formulas only")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each program")
    parser.set_defaults(overrides=[], takes_overrides=True)


def _plan(args: argparse.Namespace) -> None:
    import dataclasses
    import json

    leave_devices_free()

    from gen1_jax.parallel.mesh import parse_mesh
    from gen1_jax.planning.plan import make_plan
    from gen1_jax.planning.report import render
    from gen1_jax.planning.topology import parse_topology
    from gen1_jax.training.recipe import read_recipe

    topology = parse_topology(args.topology)
    config = read_recipe(args.config, args.overrides)
    changed = {}
    if args.mesh is not None:
        changed["mesh"] = parse_mesh(args.mesh)
    if args.remat is not None:
        changed["remat"] = args.remat
    if args.microbatches:
        changed["microbatches"] = dataclasses.replace(config.microbatches, **args.microbatches)
    if args.batch:
        streams = {k: dataclasses.replace(getattr(config.data, k), batch_size=n) for k, n in args.batch.items()}
        changed["data"] = dataclasses.replace(config.data, **streams)
    config = dataclasses.replace(config, **changed)
    rows = make_plan(
        config,
        topology,
        programs=args.programs,
        every_shape=args.all_shapes,
        fit=args.fit,
        estimate_only=args.estimate,
    )
    for row in rows:
        print(json.dumps(row) if args.json else render(row), flush=True)


def _counts(text: str) -> dict[str, int]:
    """ "video=1152,image=9216"."""
    pairs = [part.partition("=") for part in text.split(",")]
    if any(kind not in ("video", "image") or not n.isdigit() or int(n) < 1 for kind, _, n in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not like video=9,image=4")
    return {kind: int(n) for kind, _, n in pairs}


def _programs(text: str) -> tuple[str, ...]:
    """ "video,image"."""
    names = tuple(text.split(","))
    if wrong := [name for name in names if name not in _PROGRAMS]:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is not one of {', '.join(_PROGRAMS)}")
    return names
