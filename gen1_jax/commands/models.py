"""`gen1 import` and `gen1 info`."""

import sys
from pathlib import Path

from gen1_jax.commands.common import command, report, use_compilation_cache
from gen1_jax.commands.provenance import info_of_file
from gen1_jax.commands.values import file_and_number, kind_and_path
from gen1_jax.errors import UserError


def add_import(commands) -> None:
    """Declare `gen1 import`."""
    parser = command(
        commands,
        "import",
        _import,
        "make a model folder from public checkpoints",
        "gen1 import --checkpoint dreamshaper.safetensors --motion animatediff-motion-adapter-v1-5-3 \\\n"
        "    --controlnet depth=control_v11f1p_sd15_depth --depth dpt-large -o model\n"
        "  gen1 import --unet sd15/unet --vae sd15/vae --clip clip-l14 --depth dpt-large --prior karlo/prior -o model",
    )
    for name, metavar, what in _PARTS:
        parser.add_argument(f"--{name}", type=Path, metavar=metavar, help=what)
    parser.add_argument(
        "--controlnet",
        type=kind_and_path,
        action="append",
        default=[],
        metavar="KIND=DIR|FILE",
        help="a ControlNet, by the structure that it follows (depth=..., canny=...); may be given several times",
    )
    parser.add_argument(
        "--lora",
        type=file_and_number,
        action="append",
        default=[],
        metavar="FILE[:STRENGTH]",
        help="a LoRA, added to the weights for good; may be given several times",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of matrices and kernels in the folder (float32); half of it for one of half the size",
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="the model folder to make")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON, and no progress")


_PARTS = (
    ("checkpoint", "FILE", "Stable Diffusion 1.x or a fine-tune as one .safetensors: U-Net, VAE, text encoder"),
    ("unet", "DIR", "instead: UNet2DConditionModel of Stable Diffusion 1.x or sd-image-variations, or its pipeline"),
    ("vae", "DIR|FILE", "AutoencoderKL, or a pipeline that has one; counts before that of --checkpoint"),
    ("text", "DIR", "CLIPTextModel, for prompts as Stable Diffusion reads them"),
    ("motion", "DIR|FILE", "AnimateDiff's motion modules v3, v2 or AnimateLCM (MotionAdapter, or their own names)"),
    ("ip-adapter", "FILE", "an IP-Adapter of Stable Diffusion 1.5, for pictures as content"),
    ("image-encoder", "DIR", "CLIPVisionModelWithProjection, which the IP-Adapter reads (ViT-H)"),
    ("softedge", "DIR|FILE", "ControlNetHED, which edges of --controlnet softedge are found with"),
    ("depth", "FILE|DIR", "DPT, Depth Anything V2 or Video Depth Anything, which depth is estimated with"),
    ("clip", "DIR", "instead of --text: CLIPModel, whose embeddings are the content of a model to train"),
    ("clip-text", "DIR", "instead of --clip: CLIPTextModelWithProjection"),
    ("clip-image", "DIR", "instead of --clip: CLIPVisionModelWithProjection"),
    ("prior", "DIR", "PriorTransformer of --clip; without it the model edits from pictures only"),
    ("tokenizer", "DIR", "CLIP's vocab.json and merges.txt (by default beside the text encoder)"),
    ("scheduler", "DIR", "scheduler_config.json (by default beside the U-Net)"),
)


def _import(args) -> None:
    from gen1_jax.pretrained.importing import HuggingFaceFolders, import_huggingface

    kinds = [kind for kind, _ in args.controlnet]
    if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
        raise UserError(f"--controlnet {twice[0]} is given twice")
    names = [name.replace("-", "_") for name, *_ in _PARTS]
    folders = HuggingFaceFolders(
        **{name: getattr(args, name) for name in names}, controlnets=dict(args.controlnet), loras=tuple(args.lora)
    )
    say = lambda line: None if args.json else print(line, file=sys.stderr)
    config = import_huggingface(
        folders, args.output, lambda component: say(f"reading {component}"), say, dtype=args.dtype
    )
    report(
        {"output": args.output, **config.to_dict()}, args.json, f"{args.output}: a model folder for gen1 edit --model"
    )


def add_info(commands) -> None:
    """Declare `gen1 info`."""
    parser = command(
        commands, "info", _info, "show versions, devices, and what a model consists of", "gen1 info nano --words"
    )
    parser.add_argument(
        "what",
        nargs="?",
        metavar="NAME|DIR|FILE",
        help="nano, a model folder or a workdir (nano); or a video or picture: who signed it, and the settings in it",
    )
    parser.add_argument("--model", metavar="NAME|DIR", help="the same")
    parser.add_argument("--words", action="store_true", help="list the words that its captions had, and no more")
    parser.add_argument("--trust", metavar="CERT.pem", help="of a file: certificates that vouch for who signed it")
    parser.add_argument("--json", action="store_true", help="print JSON")
    checks = parser.add_argument_group(
        "whether its weights are right",
        "--check adds noise to a clip and measures how well the model finds it: told what is true of the clip, and\n"
        "then one thing at a time that is wrong or missing. Of wrongly read weights it finds no more than a guess;\n"
        "a condition that it does not read makes no difference; wrong layers between frames make it worse. It tells\n"
        "whether weights are read as they should be, not how good edits are, and damage of layers that hardly count\n"
        "may go unseen. A model of little training, or a clip unlike those that it knows, may look suspicious, too.",
    )
    checks.add_argument("--check", action="store_true", help="check it (16 frames of 512x512: for a GPU or a TPU)")
    checks.add_argument("--clip", metavar="FILE", help="with another clip, in which things move (the one that ships)")
    checks.add_argument("--prompt", metavar="TEXT", help="what is to be seen in --clip")


def _is_edit(path: Path) -> bool:
    """Whether it is what `gen1 edit` writes, a folder of pictures among that, rather than a model or a workdir."""
    folder = path.is_dir() and not (path / "config.json").exists() and next(path.glob("*.png"), None) is not None
    return path.is_file() or folder


def _info(args) -> None:
    from gen1_jax.evaluation.info import describe, known_words, render

    model = args.what or args.model or "nano"
    if args.check:
        _check(args, model)
        return
    if args.clip or args.prompt:
        raise UserError("--clip and --prompt are for --check")
    if _is_edit(Path(model)):
        info_of_file(model, args.trust, as_json=args.json)
        return
    if args.trust:
        raise UserError("--trust is for a file that somebody has signed")
    if args.words:
        words = known_words(model)
        report({"model": model, "words": words}, args.json, "\n".join(words))
        return
    description = describe(model)
    report(description, args.json, render(description))


def _check(args, model: str) -> None:
    from gen1_jax.editing.inputs import resize_frames
    from gen1_jax.editing.pipeline import Gen1Pipeline
    from gen1_jax.editing.progress import progress_bars
    from gen1_jax.evaluation import check
    from gen1_jax.media import open_video

    use_compilation_cache()
    pipeline = Gen1Pipeline.from_pretrained(model)
    prompt = args.prompt if args.clip or args.prompt else check.PROMPT
    if prompt is None and not pipeline.config.unet.content.is_shown:
        raise UserError("--clip needs --prompt: say what is to be seen in it")
    with open_video(args.clip or check.CLIP, frames=pipeline.config.num_frames) as reader:
        size = pipeline.config.working_size(*reader.info.square_size[::-1])
        frames = resize_frames((frame.rgb for frame in reader), size)
    with progress_bars(enabled=not args.json) as progress:
        checked = check.check(pipeline, frames, prompt, progress=progress)
    report(checked.to_dict(), args.json, check.render(checked))
