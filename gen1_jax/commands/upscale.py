"""`gen1 upscale`."""

import argparse

from gen1_jax.commands.common import command, keeping_programs, naming_options
from gen1_jax.commands.edit import part_of, run_edit
from gen1_jax.commands.options import (
    UPSCALER,
    add_enlarging,
    add_limits,
    add_part,
    add_propagate,
    add_shift_windows,
    limits_of,
)
from gen1_jax.commands.provenance import add_provenance, provenance_options


def add_upscale(commands) -> None:
    """Declare `gen1 upscale`."""
    parser = command(
        commands,
        "upscale",
        _upscale,
        "enlarge a video by a model that was trained to",
        "gen1 upscale small.mp4 -o large.mp4",
    )
    parser.add_argument("video", metavar="IN", help="a video, a folder of pictures, or a picture")
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT", help="mp4, mov, mkv, webm, gif, or a folder NAME/ of PNG files"
    )
    parser.add_argument(
        "--model",
        default=UPSCALER,
        metavar="NAME|DIR",
        help=f"a model folder or a workdir of configs/nano_upscaler.py ({UPSCALER})",
    )
    parser.add_argument("--scale", type=int, default=2, metavar="N", help="how many times as high and wide (2)")
    add_enlarging(parser)
    parser.set_defaults(noise_level=1, match_colour=True)
    group = parser.add_argument_group("what is made up")
    group.add_argument("--prompt", metavar="TEXT", help="what the video shows, in words (what CLIP sees in it)")
    group.add_argument("--negative-prompt", metavar="TEXT", help="what the result should not look like")
    group.add_argument(
        "--guidance-scale", type=float, metavar="W", help="above 1 more of the prompt, at twice the cost (1)"
    )
    group.add_argument(
        "--temporal-guidance-scale", type=float, default=1.0, metavar="WT", help="above 1 smoother in time (1)"
    )
    group.add_argument("--steps", type=int, metavar="N", help="steps of the sampler (the model's own)")
    group.add_argument("--sampler", metavar="NAME", help="see gen1 edit (the model's own)")
    add_propagate(group)
    add_shift_windows(group)
    group.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed gives the same result (0)")
    add_part(parser)
    add_provenance(parser)
    parser.add_argument("--sidecar", action="store_true", help="write the settings to OUT.json as well as into OUT")
    parser.add_argument("--low-memory", action="store_true", help="let every network go when it has done its part")
    parser.add_argument("--mesh", metavar="AXIS=N,...", help="share the sampling, say context=4 (one device)")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON, and no progress")
    add_limits(parser)


def _upscale(args: argparse.Namespace) -> None:
    from gen1_jax.editing.request import EditRequest
    from gen1_jax.editing.upscale_clip import upscale_settings
    from gen1_jax.errors import UserError
    from gen1_jax.parallel.mesh import parse_mesh

    if args.scale < 2:
        raise UserError(f"--scale must be at least 2, got {args.scale}")
    of_settings = ("guidance_scale", "temporal_guidance_scale", "seed", "sampler", "propagate", "shift_windows")
    part = part_of(args)
    with naming_options(*of_settings, *part, "noise_level", num_inference_steps="steps"):
        numbers = {name: value for name in of_settings if (value := getattr(args, name)) is not None}
        request = EditRequest(
            video=args.video,
            output=args.output,
            prompt=args.prompt,
            negative_prompt=args.negative_prompt,
            model=args.model,
            settings=upscale_settings(args.noise_level, num_inference_steps=args.steps, **numbers),
            upscale=args.scale,
            match_colour=args.match_colour,
            sidecar=args.sidecar,
            low_memory=args.low_memory,
            mesh=None if args.mesh is None else parse_mesh(args.mesh),
            limits=limits_of(args),
            **part,
            **provenance_options(args),
        )
    with keeping_programs(f"upscale {args.model}"):
        run_edit(request, as_json=args.json)
