"""`gen1 demo`."""

from pathlib import Path

from gen1_jax.commands.common import command, keeping_programs
from gen1_jax.commands.edit import add_settings, run_edit, settings_of
from gen1_jax.commands.options import add_fast, model_of
from gen1_jax.commands.provenance import add_provenance, provenance_options


def add_demo(commands) -> None:
    """Declare `gen1 demo`."""
    parser = command(
        commands,
        "demo",
        _demo,
        "edit the clip that ships with the package: input, structure and edit side by side",
        'gen1 demo --prompt "an ink comic of a golden car at night"',
    )
    parser.add_argument("-o", "--output", default="gen1_demo.mp4", metavar="OUT", help="(gen1_demo.mp4)")
    parser.add_argument("--prompt", default="an oil painting of a copper car in a snowy field at dusk", metavar="TEXT")
    add_fast(parser)
    add_settings(parser)
    parser.set_defaults(model=None)
    add_provenance(parser)
    parser.add_argument("--json", action="store_true", help="print a summary as JSON, and no progress")


def _demo(args) -> None:
    model = model_of(args)
    with keeping_programs(f"demo {model}"):
        _edit_demo(args, model)


def _edit_demo(args, model: str) -> None:
    """Edits the clip that ships with the package, by a model."""
    from gen1_jax.editing.request import EditRequest

    clip = Path(__file__).parents[1] / "assets" / "demo.mp4"
    request = EditRequest(
        video=clip,
        output=args.output,
        prompt=args.prompt,
        negative_prompt=args.negative_prompt,
        loras=tuple(args.lora or []),
        model=model,
        settings=settings_of(args),
        compare=True,
        **provenance_options(args),
    )
    run_edit(request, as_json=args.json)
