"""`gen1 edit` and `gen1 demo`."""

import argparse
from pathlib import Path

from gen1_jax.commands.common import command, report, use_compilation_cache
from gen1_jax.commands.values import frame_rate, moment, size
from gen1_jax.errors import counted


def add_edit(commands) -> None:
    """Declare `gen1 edit`."""
    parser = command(
        commands,
        "edit",
        _edit,
        "keep a video's structure and give it the content of a prompt or a picture",
        'gen1 edit car.mp4 -o snow.mp4 --prompt "a pencil sketch of a car in the snow"',
    )
    parser.add_argument("video", metavar="IN", help="a video, a folder of pictures, or a picture")
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT", help="mp4, mov, mkv, webm, gif, or a folder NAME/"
    )
    parser.add_argument("--prompt", metavar="TEXT", help="the content in words")
    parser.add_argument("--image", metavar="FILE", help="the content as a picture")
    add_settings(parser)
    part = parser.add_argument_group("the part of the video", "TIME: 48 is frames; 2s, 1.5s, 250ms or 1:02.5 is time")
    part.add_argument("--start", type=moment, default=0, metavar="TIME", help="where to begin (0)")
    part.add_argument("--duration", type=moment, metavar="TIME", help="how much of the video to edit (to its end)")
    part.add_argument("--frames", type=int, metavar="N", help="how many frames at most (all)")
    part.add_argument("--stride", type=int, default=1, metavar="N", help="every how many-th frame (1)")
    out = parser.add_argument_group("output")
    out.add_argument(
        "--fps",
        type=frame_rate,
        metavar="N",
        help="frames a second, at the same speed (the video's own); of a folder of pictures, its speed (8)",
    )
    out.add_argument(
        "--size", type=size, metavar="WxH", help="size of the edit, cut to that shape at the sides (the video's own)"
    )
    out.add_argument("--save-structure", metavar="FILE", help="write what the model saw: the blurred depth")
    out.add_argument("--compare", action="store_true", help="write input, structure and edit side by side")
    out.add_argument("--json", action="store_true", help="print a summary as JSON, and no progress")
    parser.add_argument("--mesh", metavar="AXIS=N,...", help="share the sampling, say context=4 (one device)")
    limits = parser.add_argument_group("limits on the input")
    limits.add_argument("--max-pixels", type=int, metavar="N", help="pixels of a frame")
    limits.add_argument("--max-frames", type=int, metavar="N", help="frames read")
    limits.add_argument("--max-bytes", type=int, metavar="N", help="size of the file")


def _edit(args) -> None:
    from gen1_jax.editing.files import EditRequest
    from gen1_jax.media import Limits
    from gen1_jax.parallel.mesh import parse_mesh

    limits = {name: getattr(args, name) for name in ("max_pixels", "max_frames", "max_bytes")}
    request = EditRequest(
        video=args.video,
        output=args.output,
        prompt=args.prompt,
        image=args.image,
        model=args.model,
        settings=settings_of(args),
        start=args.start,
        duration=args.duration,
        frames=args.frames,
        stride=args.stride,
        fps=args.fps,
        size=args.size,
        save_structure=args.save_structure,
        compare=args.compare,
        mesh=None if args.mesh is None else parse_mesh(args.mesh),
        limits=Limits(**{name: value for name, value in limits.items() if value is not None}),
    )
    _run_edit(request, as_json=args.json)


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
    add_settings(parser)
    parser.add_argument("--json", action="store_true", help="print a summary as JSON, and no progress")


def _demo(args) -> None:
    from gen1_jax.editing.files import EditRequest

    clip = Path(__file__).parents[1] / "assets" / "demo.mp4"
    request = EditRequest(
        video=clip, output=args.output, prompt=args.prompt, model=args.model, settings=settings_of(args), compare=True
    )
    _run_edit(request, as_json=args.json)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Declare the model, and the numbers of an edit."""
    group = parser.add_argument_group("the edit")
    group.add_argument(
        "--structure-blur", type=int, default=0, metavar="0..7", help="t_s: detail of the structure given up (0)"
    )
    group.add_argument(
        "--guidance-scale", type=float, metavar="W", help="how strictly the content is followed (the model's own)"
    )
    group.add_argument(
        "--temporal-guidance-scale",
        type=float,
        default=1.0,
        metavar="WT",
        help="above 1 smoother in time, below 1 more hand-drawn (1)",
    )
    group.add_argument("--steps", type=int, metavar="N", help="steps of the sampler (the model's own)")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed gives the same edit (0)")
    group.add_argument("--sampler", default="ddim", help="ddim or dpm++ (ddim)")
    group.add_argument("--model", default="nano", metavar="NAME|DIR", help="nano, a model folder or a workdir (nano)")


def settings_of(args: argparse.Namespace):
    """The `EditSettings` of what `add_settings` declared."""
    from gen1_jax.editing.pipeline import EditSettings

    return EditSettings(
        structure_blur=args.structure_blur,
        guidance_scale=args.guidance_scale,
        temporal_guidance_scale=args.temporal_guidance_scale,
        num_inference_steps=args.steps,
        seed=args.seed,
        sampler=args.sampler,
    )


def _run_edit(request, *, as_json: bool) -> None:
    from gen1_jax.editing.files import edit_file
    from gen1_jax.editing.progress import progress_bars

    use_compilation_cache()
    with progress_bars(enabled=not as_json) as progress:
        summary = edit_file(request, progress)
    frames = counted(summary["frames"], "frame")
    report(summary, as_json, f"{{output}}: {frames} of {{width}}x{{height}} in {{seconds:.1f}} s")
