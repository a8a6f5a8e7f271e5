"""What may go wrong with a media file, and how much of one is read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gen1_jax.errors import UserError

AnyPath = str | os.PathLike[str]


class MediaError(UserError):
    """A file cannot be read or written. The message is one line: the file, what is wrong, the mend."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that is read of a file that nobody has vouched for.

    Args:
        max_pixels: pixels in one frame.
        max_frames: frames handed out in one reading.
        max_bytes: size of the file, or of all pictures of a folder together.
        options: whether the command has options --max-... that set these, so that messages name them.
    """

    max_pixels: int = 4096 * 2304
    max_frames: int = 20_000
    max_bytes: int = 4 * 2**30
    options: bool = True

    def raised_by(self, option: str) -> str:
        """The end of a message about a limit: that an option raises it, where there is one."""
        return f" or raise {option}" if self.options else ""


DEFAULT_LIMITS = Limits()


HEIF = ("heic", "heix", "heim", "heis", "mif1")
"""Brands of pictures of phones that neither Pillow nor PyAV puts together from their tiles (ISO/IEC 23008-12)."""

NO_HEIF = "a HEIC picture, which is not read; save it as JPEG or PNG"


def shown(path: AnyPath) -> str:
    """The path for a one-line message: quoted when it holds line breaks or other unprintable characters."""
    text = os.fspath(path)
    return text if text.isprintable() and text else repr(text)


def check_size(path: AnyPath, width: int, height: int, limits: Limits) -> None:
    """Raises MediaError unless a frame of `width` x `height` is a picture within `limits`."""
    if width <= 0 or height <= 0:
        raise MediaError(f"{shown(path)}: its frames have no size ({width}x{height}); re-export it.")
    if width * height > limits.max_pixels:
        raise MediaError(
            f"{shown(path)}: frames of {width}x{height} have more than {limits.max_pixels} pixels;"
            f" scale it down{limits.raised_by('--max-pixels')}."
        )


@contextmanager
def blaming(path: AnyPath, what: str) -> Iterator[None]:
    """Turns every exception inside into a MediaError "PATH: WHAT (reason)".

    Decoders meet hostile bytes with any exception there is (`struct.error`, `SyntaxError`, `KeyError`,
    `DecompressionBombError`, FFmpeg's own), so all of them count as the file's fault.
    """
    try:
        yield
    except MediaError:
        raise
    except Exception as error:
        raise MediaError(f"{shown(path)}: {what} ({_reason(error)}).") from error


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    line = " ".join(text.split()).rstrip(".")
    return "".join(c if c.isprintable() else "?" for c in line)[:200]
