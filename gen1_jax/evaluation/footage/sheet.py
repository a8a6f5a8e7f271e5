"""`gen1 evaluate --videos --figure`: a contact sheet, an edit that was asked for a row.

sources │ editor 1 │ editor 2
name: prompt
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from gen1_jax.errors import Failure, UserError, in_one_line
from gen1_jax.evaluation.footage.listing import SOURCE, find_rows, read_wanted
from gen1_jax.evaluation.footage.pairs import read_pair
from gen1_jax.evaluation.footage.results import FootageConfig
from gen1_jax.media import side_by_side, text_strip

_GAP = 4  # white pixels between rows

Picture = UInt8[np.ndarray, "_ _ 3"]


def draw_sheet(
    config: FootageConfig, warn: Callable[[str], None] = lambda line: None
) -> tuple[UInt8[np.ndarray, "h w 3"], dict[str, str]]:
    """The middle frame of every edit beside that of its source, whole, in squares of `config.pairs.size` pixels.

    Columns are headed by the folder of the sources and by the editors. An edit that is not there or cannot be read is a
    white square; a row of such alone is left out.

    Args:
        config: which edits.
        warn: told of edits that cannot be read, a line each.

    Returns:
        The sheet, and the prompts from top to bottom by the names of their edits.

    Raises:
        UserError: table and folders do not fit.
        Failure: no edit can be read.
    """
    size, faults = config.pairs.size, []
    blank = np.full((size, size, 3), 255, np.uint8)
    heads = (Path(config.sources).resolve().name, *config.editors)
    lines, prompts = [_heads(heads, size)], {}
    for row in find_rows(read_wanted(config.prompts), config.sources, config.editors):
        squares: dict[str, Picture] = {}
        for editor, path in row.edits.items():
            try:
                source, edit = _middle_frames(path, row.source, config)
            except UserError as error:
                faults.append(f"{editor}: {row.name}: {in_one_line(error)}")
                warn(faults[-1])
                continue
            squares |= {SOURCE: squares.get(SOURCE, source), editor: edit}
        if squares:
            line = side_by_side([squares.get(name, blank) for name in (SOURCE, *config.editors)], _GAP)
            prompts[row.name] = row.prompt
            lines += [line, text_strip(f"{row.name}: {row.prompt}", line.shape[1])]
    if not prompts:
        raise Failure(f"none of the edits can be read; the first: {faults[0]}")
    return np.concatenate(lines), prompts


def _middle_frames(edit: Path, source: Path, config: FootageConfig) -> tuple[Picture, Picture]:
    """Of the source and of the edit."""
    pair = read_pair(edit, source, None, config.pairs)
    middle, square = len(pair.edit) // 2, (config.pairs.size,) * 2
    shown = lambda frame: np.asarray(ImageOps.pad(Image.fromarray(frame), square, color="white"))
    return shown(pair.source[middle]), shown(pair.edit[middle])


def _heads(names: tuple[str, ...], width: int) -> Picture:
    """Names of columns."""
    strips = [text_strip(name, width) for name in names]
    height = max(map(len, strips))
    return side_by_side([np.pad(s, ((0, height - len(s)), (0, 0), (0, 0)), constant_values=255) for s in strips], _GAP)
