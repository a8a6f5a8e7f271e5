"""Runs notebooks and keeps small pictures of what they show: python colabs/store_pictures.py [NAME.ipynb ...]

Each is run from top to bottom, as it stands, in an empty folder. Of its outputs the pictures stay, as JPEGs that take
less than BUDGET bytes together; texts, videos and numbers of cells do not, so that a notebook changes only where it
looks different.
"""

import base64
import io
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

BUDGET = 90_000  # bytes of base64 in a notebook
SIZES = ((640, 75), (640, 60), (560, 60), (480, 60), (480, 45), (400, 45), (320, 45), (320, 30), (240, 30))
"""Widths in pixels and qualities, of which the first that keeps within the budget is taken."""


def main(*names: str) -> None:
    """Run each notebook (all of this folder, without names) and write it back with its pictures."""
    folder = Path(__file__).parent
    for path in [Path(name) for name in names] or sorted(folder.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as place:
            resources = {"metadata": {"path": place}}
            NotebookClient(notebook, timeout=None, resources=resources, record_timing=False).execute()
        kept = keep_pictures(notebook)
        nbformat.write(notebook, path)
        print(f"{path}: {kept} bytes of pictures")


def keep_pictures(notebook: nbformat.NotebookNode) -> int:
    """Replace the outputs of all cells by small pictures, in place; the bytes that they take."""
    shown = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            pictures = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
            shown[cell.id] = [Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB") for picture in pictures]
            cell.outputs, cell.execution_count = [], None
    for size in SIZES:
        small = {name: [jpeg(picture, *size) for picture in pictures] for name, pictures in shown.items()}
        if (total := sum(len(text) for texts in small.values() for text in texts)) <= BUDGET:
            break
    for cell in notebook.cells:
        for text in small.get(cell.id, []):
            cell.outputs.append(nbformat.v4.new_output("display_data", data={"image/jpeg": text}))
    return total


def jpeg(picture: Image.Image, width: int, quality: int) -> str:
    """A picture at most so wide, as base64."""
    picture = picture.copy()
    picture.thumbnail((width, 4 * width))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, optimize=True)
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    main(*sys.argv[1:])
