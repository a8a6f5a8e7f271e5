"""`gen1 edit`."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gen1_jax.commands.common import command, keeping_programs, naming_options, report
from gen1_jax.commands.options import (
    UPSCALER,
    add_deep_cache,
    add_enlarging,
    add_limits,
    add_part,
    add_propagate,
    add_shift_windows,
    limits_of,
)
from gen1_jax.commands.provenance import add_provenance, provenance_options
from gen1_jax.commands.recorded import compare_with
from gen1_jax.commands.values import file_and_number, frame_rate, interval, keyframe, moment, size
from gen1_jax.errors import counted

SOME_FAILED = 3
"""Exit code of a queue in which some edits failed."""

_DEFAULTS = {"model": "nano", "seed": 0, "start": 0, "stride": 1}
"""Of what has no other place for its default; that of the other numbers of an edit is in `EditSettings`."""

_OF_OTHER_NAMES = {"num_inference_steps": "steps", "image_scale": "image"}
"""Options of settings that are called otherwise."""


def add_edit(commands) -> None:
    """Declare `gen1 edit`."""
    parser = command(
        commands,
        "edit",
        _edit,
        "keep a video's structure and give it the content of a prompt or a picture",
        'gen1 edit car.mp4 -o snow.mp4 --prompt "a pencil sketch of a car in the snow"',
    )
    parser.add_argument(
        "videos", nargs="+", metavar="IN", help="a video, a folder of pictures, or a picture; several are a queue"
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="mp4, mov, mkv, webm, gif, or a folder NAME/ of PNG files; of several inputs the folder of all edits",
    )
    parser.add_argument("--prompt", metavar="TEXT", help="the content in words")
    parser.add_argument(
        "--image",
        action="append",
        type=lambda text: file_and_number(text, None),
        metavar="FILE[:SCALE]",
        help="the content as a picture, for a model with a split as a clip, too; for a model that reads both beside the"
        " prompt, SCALE (1) is how much it counts, and it may be given several times",
    )
    parser.add_argument(
        "--content",
        action="append",
        metavar="ITEM[:WEIGHT]",
        help="several contents at once, in the place of --prompt and --image: prompt=TEXT or image=FILE, and how much"
        " each counts: a number (1), FROM..TO along the clip, or sound, as loud as the clip is; say it several times",
    )
    add_settings(parser)
    parser.add_argument(
        "--structure-from",
        action="append",
        metavar="[KIND=]FILE|DIR",
        help="ready maps of a structure in place of an estimate: a video, a folder of pictures, or a picture for all"
        " frames; may be given several times",
    )
    parser.add_argument(
        "--keyframe",
        action="append",
        type=keyframe,
        metavar="N=FILE",
        help="frame N of the edit, from 0, as you painted or edited it: it stays, and the others go on from it; may be"
        " given several times, to a model with an input for known frames",
    )
    _add_mask(parser)
    parser.set_defaults(model=None, seed=None)  # what was not given may be recorded
    add_part(parser)
    out = parser.add_argument_group("output")
    out.add_argument(
        "--size", type=size, metavar="WxH", help="size of the edit, cut to that shape at the sides (the video's own)"
    )
    out.add_argument("--upscale", type=int, metavar="N", help="enlarge what the model makes N times, by --upscaler (1)")
    out.add_argument("--upscaler", metavar="NAME|DIR", help=f"the model that does: see gen1 upscale ({UPSCALER})")
    add_enlarging(out)
    out.add_argument("--save-structure", metavar="FILE", help="write what the model saw: the blurred depth")
    out.add_argument("--compare", action="store_true", help="write input, structure and edit side by side")
    out.add_argument("--sidecar", action="store_true", help="write the settings to OUT.json as well as into OUT")
    out.add_argument("--json", action="store_true", help="print a summary as JSON, and no progress")
    add_provenance(parser)
    parser.add_argument(
        "--settings-from",
        metavar="FILE",
        help="settings, prompt and part of an edit before: a file that gen1 edit wrote, or its sidecar",
    )
    parser.add_argument("--mesh", metavar="AXIS=N,...", help="share the sampling, say context=4 (one device)")
    parser.add_argument("--low-memory", action="store_true", help="let every network go when it has done its part")
    add_limits(parser)


def _add_mask(parser: argparse.ArgumentParser) -> None:
    """Declare what of the clip may change."""
    group = parser.add_argument_group("a part of the picture", "outside of the mask the edit is the input, unchanged")
    group.add_argument(
        "--mask",
        metavar="MASK",
        help="what may change, white in FILE (a video, or a picture; FILE@N drawn on frame N and carried along);"
        " near:D or far:D by depth, 0 the farthest to 1, or auto; click:X,Y[@FRAME] the thing there; text:WORDS;"
        " changed[:WORDS] what the prompt changes of what the clip shows",
    )
    group.add_argument("--background", metavar="TEXT", help="what is outside of the mask (far:auto), in words")
    group.add_argument("--save-mask", metavar="FILE", help="write the mask: a video, a folder NAME/, a picture")


def _edit(args) -> int:
    with keeping_programs(f"edit {args.model or _DEFAULTS['model']}"):
        return _edit_all(args)


def _edit_all(args) -> int:
    """Edits one video or several. Returns the exit code."""
    from gen1_jax.editing.record import read_record

    recorded = {} if args.settings_from is None else read_record(args.settings_from)
    if recorded:
        compare_with(recorded, args, _chosen(args, recorded, "model"))
    if len(args.videos) == 1:
        written = {"output": args.output, "save_structure": args.save_structure, "save_mask": args.save_mask}
        run_edit(_request(args, args.videos[0], recorded, **written), as_json=args.json)
        return 0
    return _edit_several(args, recorded)


def _edit_several(args, recorded: Mapping[str, Any]) -> int:
    """A queue: exit code 3 if some of it failed."""
    from gen1_jax.editing.progress import progress_bars
    from gen1_jax.editing.queue import edit_files, outputs_in
    from gen1_jax.errors import UserError, in_one_line

    if not args.output.endswith(("/", os.sep)) and not os.path.isdir(args.output):
        raise UserError(
            f"{args.output}: {counted(len(args.videos), 'video')} need a folder for their edits: name it {args.output}/"
        )
    requests = [{} for _ in args.videos]
    for name in ("output", "save_structure", "save_mask"):
        if (folder := getattr(args, name)) is not None:
            for written, path in zip(requests, outputs_in(folder, args.videos), strict=True):
                written[name] = path
    requests = [_request(args, video, recorded, **each) for video, each in zip(args.videos, requests, strict=True)]
    edits: list[dict] = []
    failures: list[dict] = []

    def done(summary: dict) -> None:
        edits.append(summary)
        if not args.json:
            _tell(summary, False)

    def failed(request, error: Exception) -> None:
        failures.append({"video": str(request.video), "error": in_one_line(error)})
        print(f"gen1: {in_one_line(error)}", file=sys.stderr)

    with progress_bars(enabled=not args.json) as progress:
        edit_files(requests, progress, done, failed)
    summary = {"edits": edits, "failed": failures, "done": len(edits), "all": len(requests)}
    report(summary, args.json, f"{len(edits)} of {counted(len(requests), 'video')} edited")
    return SOME_FAILED if failures else 0


def _request(args, video: str, recorded: Mapping[str, Any], **written: str | Path | None):
    """What the command line says, and where it says nothing a record, of one video and what is written of it."""
    from gen1_jax.editing.contents import ContentUse
    from gen1_jax.editing.maps import kind_and_path
    from gen1_jax.editing.request import EditRequest
    from gen1_jax.parallel.mesh import parse_mesh

    prompt, images, contents = args.prompt, args.image or [], args.content
    if prompt is None and not contents and (not images or recorded.get("image") is not None):
        prompt = recorded.get("prompt")
    if prompt is None and not images:
        contents = contents or recorded.get("contents")
    part, settings = part_of(args, recorded), settings_of(args, recorded)
    with naming_options(*part, "noise_level"):
        return EditRequest(
            video=video,
            **written,
            prompt=prompt,
            mask=_chosen(args, recorded, "mask"),
            background=_chosen(args, recorded, "background"),
            negative_prompt=_chosen(args, recorded, "negative_prompt"),
            image=[path for path, _ in images] or None,
            contents=tuple(map(ContentUse.parse, contents or ())),
            structure_from=tuple(map(kind_and_path, args.structure_from or [])),
            keyframes=tuple(args.keyframe or []),
            loras=tuple(args.lora or []),
            low_memory=args.low_memory,
            model=_chosen(args, recorded, "model"),
            settings=settings,
            compare=args.compare or bool(recorded.get("compare")),
            sidecar=args.sidecar,
            **provenance_options(args),
            mesh=None if args.mesh is None else parse_mesh(args.mesh),
            limits=limits_of(args),
            **part,
            **_enlarging(args, recorded),
        )


def _enlarging(args, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """How much larger, and by which model; of a record, all of it.

    Raises:
        UserError: something is said of an edit that is not enlarged.
    """
    from gen1_jax.errors import UserError

    given = {name: getattr(args, name) for name in ("upscale", "upscaler", "noise_level", "match_colour")}
    chosen = {name: recorded.get(name) if value is None else value for name, value in given.items()}
    for option in ("noise_level", "match_colour"):
        if given[option] is not None and (chosen["upscale"] or 1) == 1:
            raise UserError(f"--{option.replace('_', '-')} is for an edit that is enlarged: say --upscale 2")
    if (args.upscale or 1) > 1:
        chosen["upscaler"] = chosen["upscaler"] or UPSCALER
    return {name: value for name, value in chosen.items() if value is not None}


def part_of(args, recorded: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Which frames, how fast and how large; a record has them in the notation of the command line."""
    read, recorded = {"start": moment, "duration": moment, "fps": frame_rate, "size": size}, recorded or {}
    names = [name for name in ("start", "duration", "frames", "stride", "fps", "size") if hasattr(args, name)]
    part = {name: _chosen(args, recorded, name) for name in names}
    try:
        return {name: read[name](value) if isinstance(value, str) else value for name, value in part.items()}
    except argparse.ArgumentTypeError as error:
        from gen1_jax.errors import UserError

        raise UserError(f"{args.settings_from}: {error}") from None


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Declare the model, and the numbers of an edit."""
    group = parser.add_argument_group("the edit")
    group.add_argument("--structure-blur", type=int, metavar="0..7", help="t_s: detail of the structure given up (0)")
    group.add_argument(
        "--guidance-scale", type=float, metavar="W", help="how strictly the content is followed (the model's own)"
    )
    group.add_argument(
        "--temporal-guidance-scale",
        type=float,
        metavar="WT",
        help="above 1 smoother in time, below 1 more hand-drawn (1)",
    )
    group.add_argument(
        "--source-guidance-scale",
        type=float,
        metavar="WSRC",
        help="how closely the video itself is followed, by a model that sees it (as other structures)",
    )
    group.add_argument(
        "--keyframe-stride",
        type=int,
        metavar="K",
        help="sample every K-th frame first, then cheaply those between, by a model with an input for known frames (1)",
    )
    group.add_argument(
        "--guidance-interval",
        type=interval,
        metavar="A:B",
        help="guidance from A to B of the steps alone, 0 to 1; the others cost one evaluation (the model's own)",
    )
    group.add_argument("--steps", type=int, metavar="N", help="steps of the sampler (the model's own)")
    group.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same edit (0)")
    samplers = "ddim, dpm++, lcm or tcd, of rectified flow euler or midpoint (the model's own)"
    group.add_argument("--sampler", metavar="NAME", help=samplers)
    group.add_argument("--negative-prompt", metavar="TEXT", help="what the edit should not look like")
    group.add_argument(
        "--structure",
        metavar="KIND[=W][@A:B],...",
        help="what is kept and how much, as depth=0.9,canny=0.4; @0:0.5 in the first half of the steps alone (the first"
        " that the model knows)",
    )
    group.add_argument(
        "--strength", type=float, metavar="S", help="0 to 1; below 1 the edit begins with the noised video (1)"
    )
    group.add_argument(
        "--lora",
        action="append",
        type=file_and_number,
        metavar="FILE[:S]",
        help="a LoRA and its strength (1); may be given several times",
    )
    group.add_argument(
        "--adapter",
        action="append",
        dest="lora",
        type=file_and_number,
        metavar="FILE[:S]",
        help="the same of gen1 customize: it shows its subject, too, alone without --prompt and --image, beside"
        " --prompt by its strength",
    )
    group.add_argument(
        "--clip-skip", type=int, metavar="N", help="layer of the text encoder, from the end, 2 as Civitai counts (1)"
    )
    add_shift_windows(group)
    group.add_argument(
        "--shared-noise",
        action=argparse.BooleanOptionalAction,
        help="begin all windows of a long video with the same noise in other orders, which keeps one look (no)",
    )
    group.add_argument(
        "--steady-depth",
        action=argparse.BooleanOptionalAction,
        help="bring the depth of each frame to the scale of the one before (no)",
    )
    group.add_argument(
        "--inverted-noise",
        action=argparse.BooleanOptionalAction,
        help="begin with the noise that leads to the video rather than with that of the seed: steadier, and for each"
        " step one evaluation more (no)",
    )
    add_propagate(group)
    add_deep_cache(group)
    group.add_argument(
        "--blend",
        metavar="HOW",
        help="several contents by their predictions, one evaluation each, or by the mean of their embeddings"
        " (predictions)",
    )
    group.add_argument("--model", metavar="NAME|DIR", help="nano, nano-fast, nano2, a model folder or a workdir (nano)")
    group.add_argument(
        "--mask-feather", type=float, metavar="N", help="pixels over which a masked edit fades in, inwards (2)"
    )
    parser.set_defaults(model=_DEFAULTS["model"], seed=_DEFAULTS["seed"])


def _chosen(args: argparse.Namespace, recorded: Mapping[str, Any], name: str) -> Any:
    """What the command line says, or else a record, or else the default."""
    given = getattr(args, name)
    if given is None:
        given = recorded.get(name)
    return _DEFAULTS.get(name) if given is None else given


def settings_of(args: argparse.Namespace, recorded: Mapping[str, Any] | None = None):
    """The `EditSettings` of what `add_settings` declared, `recorded` ones in place of those that were not given."""
    from gen1_jax.editing.settings import EditSettings

    recorded = recorded or {}
    names = [field.name for field in dataclasses.fields(EditSettings)]
    names = [name for name in names if name not in _OF_OTHER_NAMES]
    steps = args.steps if args.steps is not None else recorded.get("num_inference_steps")
    with naming_options(*names, **_OF_OTHER_NAMES):
        chosen = {name: value for name in names if (value := _chosen(args, recorded, name)) is not None}
        return EditSettings(num_inference_steps=steps, image_scale=_image_scale(args, recorded), **chosen)


def _image_scale(args: argparse.Namespace, recorded: Mapping[str, Any]) -> float:
    """How much the pictures count, which is one number for all of them.

    Raises:
        UserError: several numbers.
    """
    from gen1_jax.errors import UserError

    given = [scale for _, scale in getattr(args, "image", None) or []]
    if given.count(None) == len(given):
        return recorded.get("image_scale") or 1.0
    scales = sorted({1.0 if scale is None else scale for scale in given})
    if len(scales) > 1:
        raise UserError(f"--image: pictures count together, by one scale, not {', '.join(map(str, scales))}")
    return scales[0]


def run_edit(request, *, as_json: bool) -> None:
    """Edits a file, and says how far it is."""
    from gen1_jax.editing.files import edit_file
    from gen1_jax.editing.progress import progress_bars

    names = (*vars(request.settings), "structure_from")
    with naming_options(*names, **_OF_OTHER_NAMES), progress_bars(enabled=not as_json) as progress:
        summary = edit_file(request, progress)
    _tell(summary, as_json)


def _tell(summary: dict, as_json: bool) -> None:
    frames, size = counted(summary["frames"], "frame"), f"{summary['width']}x{summary['height']}"
    report(summary, as_json, f"{summary['output']}: {frames} of {size} in {summary['seconds']:.1f} s")
