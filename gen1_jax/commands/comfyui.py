"""`gen1 comfyui`."""

import argparse

from gen1_jax.commands.common import command


def add_comfyui(commands) -> None:
    """Declare `gen1 comfyui`."""
    parser = command(
        commands,
        "comfyui",
        _comfyui,
        "add the nodes of this package to a ComfyUI that runs in the same Python",
        "gen1 comfyui --install ~/ComfyUI",
    )
    parser.add_argument("--install", required=True, metavar="DIR", help="ComfyUI's folder, or its custom_nodes")


def _comfyui(args: argparse.Namespace) -> None:
    from gen1_jax.app.comfyui.install import install

    folder = install(args.install)
    print(f"{folder}: start ComfyUI again; its templates have workflows of {folder.name}")
