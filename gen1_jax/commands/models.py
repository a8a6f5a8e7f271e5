"""`gen1 import` and `gen1 info`."""

import sys
from collections.abc import Iterator
from pathlib import Path

from gen1_jax.commands.common import command, report


def add_import(commands) -> None:
    """Declare `gen1 import`."""
    parser = command(
        commands,
        "import",
        _import,
        "make a model folder from public checkpoints in Hugging Face folders",
        "gen1 import --unet sd15/unet --vae sd15/vae --clip clip-l14 --depth dpt-large --prior karlo/prior -o model",
    )
    for name, what, required in (
        ("unet", "UNet2DConditionModel of Stable Diffusion 1.x or sd-image-variations, or its pipeline", True),
        ("vae", "AutoencoderKL, or a pipeline that has one", True),
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
        help="nano, a model folder or a workdir (nano); or what gen1 edit wrote, for the settings in it",
    )
    parser.add_argument("--model", metavar="NAME|DIR", help="the same")
    parser.add_argument("--words", action="store_true", help="list the words that its captions had, and no more")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _is_edit(path: Path) -> bool:
    """Whether it is what `gen1 edit` writes, a folder of pictures among that, rather than a model or a workdir."""
    folder = path.is_dir() and not (path / "config.json").exists() and next(path.glob("*.png"), None) is not None
    return path.is_file() or folder


def _told(record: dict) -> Iterator[tuple[str, object]]:
    """What a record says, without what it leaves open."""
    for name, value in record.items():
        if name == "versions":
            yield from value.items()
        elif value is not None and name != "record":
            yield name, value


def _info(args) -> None:
    from gen1_jax.editing.record import read_record
    from gen1_jax.evaluation.info import describe, known_words, render

    model = args.what or args.model or "nano"
    if _is_edit(Path(model)):
        record = read_record(model)
        report(record, args.json, "\n".join(f"{name:24}{value}" for name, value in _told(record)))
        return
    if args.words:
        words = known_words(model)
        report({"model": model, "words": words}, args.json, "\n".join(words))
        return
    description = describe(model)
    report(description, args.json, render(description))
