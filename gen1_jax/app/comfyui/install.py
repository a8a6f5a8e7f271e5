"""Makes ComfyUI find the nodes: a folder in its custom_nodes that imports them from this package."""

import os
import shutil
from pathlib import Path

from gen1_jax.errors import UserError

FOLDER = "ComfyUI-gen1"
_CODE = '''"""The nodes of gen1_jax, written by gen1 comfyui --install. They are updated with the package."""

from gen1_jax.app.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
'''


def install(comfyui: str | Path) -> Path:
    """Writes the folder, over one of before.

    Args:
        comfyui: ComfyUI's folder, or its custom_nodes.

    Returns:
        The folder, with `example_workflows`, which ComfyUI offers among its templates.

    Raises:
        UserError: there is no custom_nodes, or what is there is none of ours.
    """
    given = Path(comfyui)
    nodes = given if given.name == "custom_nodes" else given / "custom_nodes"
    if not nodes.is_dir():
        raise UserError(f"--install {given}: there is no folder {nodes}: give the folder that ComfyUI's main.py is in")
    folder = nodes / FOLDER
    code = folder / "__init__.py"
    if folder.exists() and not (
        code.is_file() and "gen1 comfyui" in code.read_text(encoding="utf-8", errors="replace")
    ):
        raise UserError(f"--install {given}: {folder} is there and was not written by this command: move it away")
    if not os.access(nodes, os.W_OK):
        raise UserError(f"--install {given}: {nodes} cannot be written")
    folder.mkdir(exist_ok=True)
    examples = folder / "example_workflows"
    shutil.copytree(Path(__file__).with_name("example_workflows"), examples, dirs_exist_ok=True)
    code.write_text(_CODE, encoding="utf-8")
    return folder
