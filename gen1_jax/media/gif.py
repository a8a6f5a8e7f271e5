"""The one number of a GIF that FFmpeg's muxer gets wrong: how long the last frame is shown."""

from pathlib import Path
from typing import BinaryIO

_EXTENSION, _IMAGE, _GRAPHIC_CONTROL = 0x21, 0x2C, 0xF9


def set_last_delay(path: Path, ticks: int) -> None:
    """Writes the delay of the last frame into a finished GIF, 1/100 s; its muxer repeats the one before it.

    Source: the GIF89a specification, sections 18 to 23.
    """
    with path.open("r+b") as file:
        header = file.read(13)
        at = None
        _skip_colours(file, header[10])
        while block := file.read(1):
            if block[0] == _EXTENSION:
                if file.read(1)[0] == _GRAPHIC_CONTROL:
                    at = file.tell() + 2  # behind the size of the block and its flags
            elif block[0] == _IMAGE:
                _skip_colours(file, file.read(9)[8])
                file.read(1)  # the smallest size of a code
            else:  # the end
                break
            while size := file.read(1)[0]:
                file.seek(size, 1)
        if at is not None:
            file.seek(at)
            file.write(min(ticks, 0xFFFF).to_bytes(2, "little"))


def _skip_colours(file: BinaryIO, flags: int) -> None:
    if flags & 0x80:
        file.seek(3 << (flags & 7) + 1, 1)
