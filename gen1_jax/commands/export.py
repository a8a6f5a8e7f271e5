"""`gen1 export`."""

import argparse

from gen1_jax.commands.common import command, report, use_compilation_cache
from gen1_jax.commands.values import file_and_number, size
from gen1_jax.errors import UserError

_FORMATS = {
    "safetensors": "a model folder for gen1 edit --model",
    "diffusers": "folders for plain diffusers and transformers classes",
    "torch": "U-Net and guided sampler in PyTorch, one readable file",
    "stablehlo": "programs for jax without this package (see load_stablehlo.py there)",
    "clip": "CLIP alone, for transformers' class and gen1 evaluate --judge",
    "lora": "the adapter alone that a workdir has trained, for gen1 edit --adapter, diffusers or kohya",
}
_PROGRAMS = ("frames", "size", "steps", "platforms")


def add_export(commands) -> None:
    """Declare `gen1 export`."""
    parser = command(
        commands,
        "export",
        _export,
        "write a model, or what a training workdir has come to, for this program or for others, and check it",
        "gen1 export --model runs/nano --format diffusers -o nano-diffusers",
    )
    parser.add_argument("--model", required=True, metavar="NAME|DIR", help="nano, a model folder or a workdir")
    parser.add_argument(
        "--parts",
        nargs="+",
        type=_part,
        default=[],
        metavar="NETWORK=DIR",
        help="networks from elsewhere, as vae=runs/vae",
    )
    parser.add_argument(
        "--lora",
        "--adapter",
        dest="loras",
        action="append",
        type=file_and_number,
        default=[],
        metavar="FILE[:S]",
        help="a LoRA or an adapter of gen1 customize, merged into the weights; may be given several times",
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder to make")
    formats = "; ".join(f"{name}: {what}" for name, what in _FORMATS.items())
    parser.add_argument("--format", choices=tuple(_FORMATS), default="safetensors", help=f"{formats} (safetensors)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16", "int8"),
        default="float32",
        help="of every tensor; int8, of a model folder's kernels, the rest in bfloat16 (float32)",
    )
    parser.add_argument("--base", metavar="NAME", help="leave out networks that are those of this model, nano (none)")
    parser.add_argument("--spelling", choices=("peft", "kohya"), default="peft", help="of --format lora (peft)")
    parser.add_argument("--raw", action="store_true", help="of a workdir the weights themselves, not their EMA")
    parser.add_argument("--max-file-size", type=int, metavar="MIB", help="start another file beyond this (none)")
    parser.add_argument("--frames", type=int, metavar="N", help="stablehlo: of a clip (the model's window)")
    parser.add_argument("--size", type=size, metavar="WxH", help="stablehlo: pixels of a frame (the model's)")
    parser.add_argument("--steps", type=int, metavar="N", help="stablehlo: of the sampler (50)")
    parser.add_argument(
        "--platforms", type=_names, metavar="LIST", help="stablehlo: those the programs run on (cpu,cuda,tpu)"
    )
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")


def _export(args) -> None:
    from gen1_jax.checkpoints.trained import open_trained
    from gen1_jax.exporting.export import export, origin_of
    from gen1_jax.exporting.stablehlo_format import StableHLOOptions
    from gen1_jax.pretrained.folder import AssembledModel
    from gen1_jax.pretrained.lora import with_loras

    programs = {name: getattr(args, name) for name in _PROGRAMS if getattr(args, name) is not None}
    if "size" in programs:
        programs["size"] = programs["size"][::-1]  # height first, as of arrays
    if programs and args.format != "stablehlo":
        raise UserError(f"--{next(iter(programs))} is for --format stablehlo, not for {args.format}")
    if args.max_file_size is not None and args.format not in ("safetensors", "diffusers"):
        raise UserError(f"--max-file-size is for --format safetensors and diffusers, not for {args.format}")
    if args.max_file_size is not None and args.max_file_size < 1:
        raise UserError(f"--max-file-size must be at least 1, got {args.max_file_size}")
    use_compilation_cache()
    source = open_trained(args.model, ema=not args.raw)
    if args.parts:
        parts = {name: open_trained(model, ema=not args.raw) for name, model in args.parts}
        source = AssembledModel(source, parts)
    manifest = export(
        with_loras(source, args.loras),
        args.output,
        format=args.format,
        dtype=args.dtype,
        shard_bytes=None if args.max_file_size is None else args.max_file_size * 2**20,
        origin=origin_of(source, ema=not args.raw),
        programs=StableHLOOptions(**programs) if args.format == "stablehlo" else None,
        spelling=args.spelling,
        base=args.base,
    )
    worst = max(manifest["parity"].values())
    text = f"{args.output}: {source.name}, {_FORMATS[args.format]}; differs from the JAX model by {worst:.1g} at most"
    report({"output": args.output, **manifest}, args.json, text)


def _part(text: str) -> tuple[str, str]:
    network, equals, model = text.partition("=")
    if not (network and equals and model):
        raise argparse.ArgumentTypeError(f"{text!r} is not like vae=runs/vae, a network and where it comes from")
    return network, model


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))
