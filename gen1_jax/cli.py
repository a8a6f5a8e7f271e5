"""`gen1 ...`: arguments in, one clear line out when they are wrong. Heavy imports happen inside commands."""

import argparse
import os
import sys
import warnings
from pathlib import Path

from gen1_jax import __version__

_SUCCESS, _FAILURE, _USAGE, _INTERRUPTED = 0, 1, 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Run a command. Returns its exit code: 0, 2 for wrong input, 130 for Ctrl-C, 1 for a fault of this program."""
    parser = _parser()
    args = parser.parse_args(arguments)
    warnings.showwarning = lambda message, *rest, **more: print(f"gen1: warning: {message}", file=sys.stderr)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        args.command(args)
        return _SUCCESS
    except KeyboardInterrupt:
        print("gen1: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILURE
    except Exception as error:
        if args.debug:
            raise
        wrong_input = isinstance(error, ValueError | OSError)
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"gen1: {text}" if wrong_input else f"gen1: {type(error).__name__}: {text}", file=sys.stderr)
        return _USAGE if wrong_input else _FAILURE


class _OneLineParser(argparse.ArgumentParser):
    """Errors in one line, without the usage."""

    def error(self, message: str):
        self.exit(_USAGE, f"gen1: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(prog="gen1", description="Structure- and content-guided video editing in JAX.")
    parser.add_argument("--version", action="version", version=f"gen1_jax {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_OneLineParser)
    for add in (_add_edit, _add_demo, _add_import, _add_info, _add_bench, _add_prepare, _add_render, _add_data):
        add(commands)
    return parser


def _command(commands, name: str, function, summary: str, example: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=function)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the edit")
    group.add_argument(
        "--structure-blur", type=int, default=0, metavar="0..7", help="t_s: detail of the structure given up (0)"
    )
    group.add_argument(
        "--guidance-scale", type=float, default=7.5, metavar="W", help="how strictly the content is followed (7.5)"
    )
    group.add_argument(
        "--temporal-guidance-scale",
        type=float,
        default=1.0,
        metavar="WT",
        help="above 1 smoother in time, below 1 more hand-drawn (1)",
    )
    group.add_argument("--steps", type=int, default=50, metavar="N", help="steps of the sampler (50)")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed gives the same edit (0)")
    group.add_argument("--sampler", default="ddim", help="ddim or dpm++ (ddim)")
    group.add_argument("--model", default="nano", metavar="NAME|DIR", help="nano, or a model folder (nano)")


def _settings(args):
    from gen1_jax.editing.pipeline import EditSettings

    return EditSettings(
        structure_blur=args.structure_blur,
        guidance_scale=args.guidance_scale,
        temporal_guidance_scale=args.temporal_guidance_scale,
        num_inference_steps=args.steps,
        seed=args.seed,
        sampler=args.sampler,
    )


def _add_edit(commands) -> None:
    parser = _command(
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
    _add_settings(parser)
    part = parser.add_argument_group("the part of the video")
    part.add_argument("--start", type=int, default=0, metavar="N", help="index of the first frame (0)")
    part.add_argument("--frames", type=int, metavar="N", help="how many frames at most (all)")
    part.add_argument("--stride", type=int, default=1, metavar="N", help="every how many-th frame (1)")
    out = parser.add_argument_group("output")
    out.add_argument("--save-structure", metavar="FILE", help="write what the model saw: the blurred depth")
    out.add_argument("--compare", action="store_true", help="write input, structure and edit side by side")
    out.add_argument("--json", action="store_true", help="print a summary as JSON, and no progress")
    limits = parser.add_argument_group("limits on the input")
    limits.add_argument("--max-pixels", type=int, metavar="N", help="pixels of a frame")
    limits.add_argument("--max-frames", type=int, metavar="N", help="frames read")
    limits.add_argument("--max-bytes", type=int, metavar="N", help="size of the file")


def _edit(args) -> None:
    from gen1_jax.editing.files import EditRequest
    from gen1_jax.media import Limits

    limits = {name: getattr(args, name) for name in ("max_pixels", "max_frames", "max_bytes")}
    request = EditRequest(
        video=args.video,
        output=args.output,
        prompt=args.prompt,
        image=args.image,
        model=args.model,
        settings=_settings(args),
        start=args.start,
        frames=args.frames,
        stride=args.stride,
        save_structure=args.save_structure,
        compare=args.compare,
        limits=Limits(**{name: value for name, value in limits.items() if value is not None}),
    )
    _run_edit(request, as_json=args.json)


def _run_edit(request, *, as_json: bool) -> None:
    from gen1_jax.editing.files import edit_file
    from gen1_jax.editing.progress import progress_bars

    _use_compilation_cache()
    with progress_bars(enabled=not as_json) as progress:
        summary = edit_file(request, progress)
    _report(summary, as_json, "{output}: {frames} frames of {width}x{height} in {seconds:.1f} s")


def _add_demo(commands) -> None:
    parser = _command(
        commands,
        "demo",
        _demo,
        "edit the clip that ships with the package: input, structure and edit side by side",
        'gen1 demo --prompt "an ink comic of a golden car at night"',
    )
    parser.add_argument("-o", "--output", default="gen1_demo.mp4", metavar="OUT", help="(gen1_demo.mp4)")
    parser.add_argument("--prompt", default="an oil painting of a copper car in a snowy field at dusk", metavar="TEXT")
    _add_settings(parser)
    parser.set_defaults(steps=20)
    parser.add_argument("--json", action="store_true", help="print a summary as JSON, and no progress")


def _demo(args) -> None:
    from gen1_jax.editing.files import EditRequest

    clip = Path(__file__).parent / "assets" / "demo.mp4"
    request = EditRequest(
        video=clip, output=args.output, prompt=args.prompt, model=args.model, settings=_settings(args), compare=True
    )
    _run_edit(request, as_json=args.json)


def _add_import(commands) -> None:
    parser = _command(
        commands,
        "import",
        _import,
        "make a model folder from public checkpoints in Hugging Face folders",
        "gen1 import --unet sd15/unet --vae sd15/vae --clip clip-vit-l14 --depth dpt-large --prior karlo/prior -o model",
    )
    for name, what, required in (
        ("unet", "UNet2DConditionModel of Stable Diffusion 1.x or sd-image-variations", True),
        ("vae", "AutoencoderKL", True),
        ("depth", "DPTForDepthEstimation", True),
        ("clip", "CLIPModel", False),
        ("clip-text", "instead of --clip: CLIPTextModelWithProjection", False),
        ("clip-image", "instead of --clip: CLIPVisionModelWithProjection", False),
        ("prior", "PriorTransformer; without it the model edits from pictures only", False),
        ("tokenizer", "CLIP's vocab.json and merges.txt (by default beside CLIP)", False),
        ("scheduler", "scheduler_config.json (by default beside the U-Net)", False),
    ):
        parser.add_argument(f"--{name}", type=Path, required=required, metavar="DIR", help=what)
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="the model folder to make")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON, and no progress")


def _import(args) -> None:
    from gen1_jax.pretrained.importing import HuggingFaceFolders, import_huggingface

    names = ("unet", "vae", "depth", "clip", "clip_text", "clip_image", "prior", "tokenizer", "scheduler")
    folders = HuggingFaceFolders(**{name: getattr(args, name) for name in names})
    progress = lambda component: None if args.json else print(f"reading {component}", file=sys.stderr)
    config = import_huggingface(folders, args.output, progress)
    _report({"output": args.output, **config.to_dict()}, args.json, "{output}: a model folder for gen1 edit --model")


def _add_info(commands) -> None:
    parser = _command(
        commands, "info", _info, "show versions, devices, and what a model consists of", "gen1 info --model nano"
    )
    parser.add_argument("--model", default="nano", metavar="NAME|DIR")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _info(args) -> None:
    from gen1_jax.evaluation.info import describe, render

    description = describe(args.model)
    _report(description, args.json, None if args.json else render(description))


def _add_bench(commands) -> None:
    bench = commands.add_parser("bench", help="measure speed and memory", description="Measure speed and memory.")
    subjects = bench.add_subparsers(title="what to measure", metavar="WHAT", required=True, parser_class=_OneLineParser)
    parser = _command(
        subjects,
        "sample",
        _bench_sample,
        "time the guided sampler on random weights",
        "gen1 bench sample --size full --frames 8 --steps 50 --temporal-guidance-scale 1.5",
    )
    parser.add_argument("--size", default="nano", help="nano or full (nano)")
    parser.add_argument("--frames", type=int, default=8, metavar="N")
    parser.add_argument("--height", type=int, metavar="PIXELS", help="(that of the model)")
    parser.add_argument("--width", type=int, metavar="PIXELS", help="(that of the model)")
    parser.add_argument("--steps", type=int, default=50, metavar="N")
    parser.add_argument("--guidance-scale", type=float, default=7.5, metavar="W")
    parser.add_argument("--temporal-guidance-scale", type=float, default=1.5, metavar="WT")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="timed runs; the median counts (3)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser = _command(
        subjects,
        "render",
        _bench_render,
        "time the renderer of synthetic clips, with and without encoding",
        "gen1 bench render --clips 64 --size 128",
    )
    parser.add_argument("--clips", type=int, default=16, metavar="N", help="to render (16)")
    _add_clip_size(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _bench_sample(args) -> None:
    from gen1_jax.evaluation.bench import bench_sample, render_sample

    result = bench_sample(
        size=args.size,
        frames=args.frames,
        height=args.height,
        width=args.width,
        steps=args.steps,
        guidance_scale=args.guidance_scale,
        temporal_guidance_scale=args.temporal_guidance_scale,
        repeats=args.repeats,
    )
    _report(result, args.json, None if args.json else render_sample(result))


def _add_prepare(commands) -> None:
    parser = _command(
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
    how.add_argument("--timeout", type=float, default=1800, metavar="S", help="seconds until a video hangs (1800)")
    how.add_argument("--beam-options", default="", metavar="TEXT", help='such as "--runner=FlinkRunner"')
    how.add_argument("--json", action="store_true", help="print a summary as JSON, and no progress")
    limits = parser.add_argument_group("limits on each video")
    for name, what in (("pixels", "pixels of a frame"), ("frames", "frames read"), ("bytes", "size of the file")):
        limits.add_argument(f"--max-{name}", type=int, metavar="N", help=what)


def _prepare(args) -> None:
    import dataclasses
    import shlex

    from gen1_jax.data.prepare import PrepareOptions
    from gen1_jax.data.prepare_geometry import parse_bucket
    from gen1_jax.data.prepare_run import PrepareRequest, prepare_dataset
    from gen1_jax.data.processes import ProgressLine
    from gen1_jax.media import Limits

    def given(*names: str) -> dict:
        return {name: getattr(args, name) for name in names if getattr(args, name) is not None}

    options = given("frames", "stride", "max_upscale", "black_level", "static_level", "crf")
    if args.buckets:
        options["buckets"] = tuple(parse_bucket(text.strip()) for text in args.buckets.split(","))
    options["limits"] = Limits(**given("max_pixels", "max_frames", "max_bytes"))
    request = PrepareRequest(
        options=PrepareOptions(**options),
        beam_options=tuple(shlex.split(args.beam_options)),
        **given("videos", "out", "captions", "split", "shards", "runner", "workers", "timeout"),
    )
    with ProgressLine("prepare", "videos", enabled=not args.json) as progress:
        summary = prepare_dataset(request, progress)
    _report(dataclasses.asdict(summary) if args.json else {"text": summary.render()}, args.json, "{text}")


def _add_clip_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--frames", type=int, default=8, metavar="N", help="of a clip (8)")
    parser.add_argument("--size", default="128", metavar="S|WxH", help="of a frame, pixels (128)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="clips at once on a device (1 on a CPU)")


def _add_render(commands) -> None:
    parser = _command(
        commands,
        "render",
        _render,
        "render synthetic clips, whose structure and content are known, into a data set",
        "gen1 render --clips 200 --frames 8 --size 128 --out worlds",
    )
    parser.add_argument("--out", metavar="DIR", help="the data set; run again to go on with it")
    parser.add_argument("--clips", type=int, metavar="N", help="how many")
    _add_clip_size(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="sets of different seeds share no clip (0)")
    parser.add_argument("--split", default="train", metavar="NAME", help="train, validation or test (train)")
    parser.add_argument("--flow", action="store_true", help="store optical flow too")
    sheet = parser.add_argument_group("instead of a data set, or beside it")
    sheet.add_argument("--sheet", metavar="FILE.png", help="a picture: a structure a row, a content a column")
    sheet.add_argument("--rows", type=int, default=6, metavar="N", help="(6)")
    sheet.add_argument("--columns", type=int, default=6, metavar="N", help="(6)")
    how = parser.add_argument_group("running")
    how.add_argument("--processes", type=int, default=1, metavar="P", help="of this machine (1)")
    how.add_argument("--process-index", type=int, default=0, metavar="I", help="number of this machine (0)")
    how.add_argument("--process-count", type=int, default=1, metavar="N", help="machines that share the work (1)")
    how.add_argument("--json", action="store_true", help="print a summary as JSON, and no progress")


def _render(args) -> None:
    from gen1_jax.media import check_writable, write_image

    if not (args.sheet or args.out):
        raise ValueError("name --out DIR for a data set, or --sheet FILE.png for a picture")
    if args.out and not args.clips:
        raise ValueError("name how many clips: --clips N")
    if args.sheet:
        check_writable(args.sheet, (".png",))
    _use_compilation_cache()
    if args.out:
        _render_dataset(args)
    if args.sheet:
        from gen1_jax.data.render import render_sheet

        size = _render_recipe(args, clips=1).height
        picture = render_sheet(rows=args.rows, columns=args.columns, size=size, seed=args.seed, split=args.split)
        write_image(args.sheet, picture)
        print(f"{args.sheet}: {args.rows} structures, {args.columns} contents", file=sys.stderr)


def _render_recipe(args, **settings):
    from gen1_jax.data.prepare_geometry import parse_bucket
    from gen1_jax.data.render import RenderRecipe

    height, width = parse_bucket(args.size if "x" in args.size else f"{args.size}x{args.size}")
    return RenderRecipe(frames=args.frames, height=height, width=width, **settings)


def _render_dataset(args) -> None:
    import dataclasses
    from functools import partial

    from gen1_jax.data.processes import ProgressLine, run_job
    from gen1_jax.data.render import render_dataset

    recipe = _render_recipe(args, clips=args.clips, seed=args.seed, split=args.split, flow=args.flow)
    with ProgressLine("render", "frames", recipe.frames, enabled=not args.json) as progress:
        summary = run_job(
            partial(render_dataset, args.out, recipe, batch_size=args.batch_size),
            processes=args.processes,
            process_index=args.process_index,
            process_count=args.process_count,
            progress=progress,
        )
    text = "{directory}: {written} shards of split {split} rendered ({examples} clips), {kept} were there" + (
        "" if summary.complete else "; the split is not whole yet"
    )
    _report(dataclasses.asdict(summary), args.json, text)


def _bench_render(args) -> None:
    from gen1_jax.data.render import bench_render

    result = bench_render(_render_recipe(args, clips=args.clips), batch_size=args.batch_size)
    text = (
        "{device}: {render_frames_per_second:.1f} frames/s of {size} rendered, {record_frames_per_second:.1f} with"
        " encoding; {clips} clips of {frames} frames in batches of {batch_size}, {bytes_per_clip:.0f} bytes a clip;"
        " the first batch took {first_batch_seconds:.1f} s"
    )
    _report(result, args.json, text)


def _add_data(commands) -> None:
    parser = _command(
        commands,
        "data",
        _data,
        "draw batches from the data pipeline alone, and show its speed and a picture of a batch",
        "gen1 data --video clips --image tfds:coco_captions --batches 50 --picture batch.png",
    )
    parser.add_argument("--config", metavar="FILE", help="a training configuration; its `data` is used")
    parser.add_argument("--video", nargs="+", default=[], metavar="DIR", help="sources of clips, see SourceConfig")
    parser.add_argument("--image", nargs="+", default=[], metavar="DIR", help="sources of pictures")
    parser.add_argument("--split", default="train", metavar="NAME", help="(train)")
    parser.add_argument("--frames", type=int, default=8, metavar="N", help="of a clip (8)")
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="every how many-th frame of a video (1)")
    parser.add_argument("--buckets", default="448x256", metavar="WxH,...", help="sizes of batches (448x256)")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="clips (8); images are 8 times as many")
    parser.add_argument("--image-probability", type=float, metavar="P", help="of a batch of images (0.125)")
    parser.add_argument("--inputs", default="pixels", help="pixels, depth (and pixels) or latents (pixels)")
    parser.add_argument("--on-error", default="raise", help="raise or skip (raise)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="loading processes (0)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of each process (2)")
    parser.add_argument("--batches", type=int, default=20, metavar="N", help="to draw (20)")
    parser.add_argument("--picture", metavar="FILE.png", help="write the last batch as a picture")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON, and no progress")


def _data(args) -> None:
    from gen1_jax.data.mixture import Mixture
    from gen1_jax.data.processes import ProgressLine
    from gen1_jax.data.walk import batch_picture, render_walk, walk
    from gen1_jax.media import check_writable, write_image

    if args.picture:
        check_writable(args.picture, (".png",))
    mixture = Mixture(_data_config(args))
    with ProgressLine("draw", "batches", enabled=not args.json) as progress:
        summary, batch = walk(mixture, args.batches, progress)
    if args.picture:
        write_image(args.picture, batch_picture(batch))
    _report(summary if args.json else {"text": render_walk(summary)}, args.json, "{text}")


def _data_config(args):
    from gen1_jax.data.config import DataConfig, load_config
    from gen1_jax.data.prepare_geometry import parse_bucket

    if args.config:
        return load_config(args.config)
    if not (args.video or args.image):
        raise ValueError("name sources: --video DIR, --image DIR, or a --config FILE")
    probability = 0.125 if args.video and args.image else float(bool(args.image))
    common = {"buckets": [parse_bucket(text.strip()) for text in args.buckets.split(",")]}
    sources = lambda paths: [{"path": path, "split": args.split, "stride": args.stride} for path in paths]
    return DataConfig.from_dict(
        {
            "video": {"sources": sources(args.video), "batch_size": args.batch_size, "frames": args.frames, **common},
            "image": {"sources": sources(args.image), "batch_size": args.batch_size * 8, **common},
            "image_probability": probability if args.image_probability is None else args.image_probability,
            **{name: getattr(args, name) for name in ("inputs", "on_error", "workers", "threads")},
        }
    )


def _use_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder, so that a second run starts at once."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gen1_jax" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _report(summary: dict, as_json: bool, text: str | None) -> None:
    import json

    print(json.dumps(summary, indent=2) if as_json or text is None else text.format(**summary))


if __name__ == "__main__":
    sys.exit(main())
