"""Pictures: read with every hostile case refused, written whole or not at all."""

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageDraw, ImageOps

from gen1_jax.media.colour import to_srgb
from gen1_jax.media.errors import DEFAULT_LIMITS, HEIF, NO_HEIF, AnyPath, Limits, MediaError, blaming, check_size, shown
from gen1_jax.media.files import PendingOutput, check_suffix, existing_path, regular_file
from gen1_jax.media.notes import fitting, picture_options

if TYPE_CHECKING:
    from gen1_jax.media.provenance import Provenance

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""What `write_image` writes."""

READABLE_SUFFIXES = (*IMAGE_SUFFIXES, ".avif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
"""What counts as a picture in a folder of frames."""


def folder_pictures(folder: Path) -> list[Path]:
    """What counts as a picture in a folder, by name."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in READABLE_SUFFIXES)


# Not Pillow's whole list: some of its plugins start programs (EPS) or read other files.
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF", "PPM")
_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange rows and columns
_LINE_HEIGHT, _LETTER_WIDTH, _INDENT = 12, 6, 4  # pixels of the text of `text_strip`


def read_image(path: AnyPath, limits: Limits = DEFAULT_LIMITS) -> UInt8[np.ndarray, "h w 3"]:
    """Reads a picture as sRGB: EXIF rotation and colour profile applied, what is transparent over black, 16 bits to 8.

    Of several pages or frames it is the first. A profile that cannot be read is left out, with a warning.

    Args:
        path: a local file: PNG, JPEG, WebP, AVIF, BMP, TIFF, PPM or GIF.
        limits: refuses larger ones.

    Raises:
        MediaError: not a readable picture, too large, truncated, or no regular file.
    """
    local = regular_file(path, limits)
    what = NO_HEIF if _is_heif(local) else "not a picture that can be read"
    with blaming(path, what), open_image(local, (*FORMATS, "GIF")) as image:
        return decode(path, image, limits)


def _is_heif(local: Path) -> bool:
    with local.open("rb") as file:
        head = file.read(12)
    return head[4:8] == b"ftyp" and head[8:12].decode("latin-1") in HEIF


def read_image_bytes(data: bytes, limits: Limits = DEFAULT_LIMITS) -> UInt8[np.ndarray, "h w 3"]:
    """What `read_image` gives of a file that holds these bytes; messages call it "it"."""
    with blaming("it", "not a picture that can be read"), open_image(io.BytesIO(data), (*FORMATS, "GIF")) as image:
        return decode("it", image, limits)


def is_image(data: bytes) -> bool:
    """Whether a file of these bytes is a picture rather than something for FFmpeg."""
    try:
        open_image(io.BytesIO(data)).close()
    except Image.DecompressionBombError:  # which reading it will refuse
        return True
    except Exception:  # whatever a plugin stumbles over, it is not of its kind
        return False
    return True


def image_size(path: AnyPath) -> tuple[int, int]:
    """Height and width of a picture as `read_image` gives it, by its header.

    Raises:
        MediaError: not a readable picture.
    """
    local = existing_path(path)
    with blaming(path, "not a picture that can be read"), open_image(local, (*FORMATS, "GIF")) as image:
        turned = image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation) in _TURNED
        return (image.width, image.height) if turned else (image.height, image.width)  # Pillow turns TIFF itself


def open_image(local: Path | io.BufferedIOBase, formats: Sequence[str] = FORMATS) -> Image.Image:
    """Opens a picture without decoding it; raises whatever Pillow does, but never warns."""
    with _without_warnings():  # of sizes, say: `Limits` is the judge of those
        return Image.open(local, formats=formats)


def picture_of(image: Image.Image, limits: Limits = DEFAULT_LIMITS) -> UInt8[np.ndarray, "h w 3"]:
    """A picture that is open in Pillow, as `read_image` gives it.

    Raises:
        MediaError: too large, or floats.
    """
    return decode(getattr(image, "filename", None) or "the picture", image, limits)


def pixels_of(picture: Image.Image | np.ndarray) -> np.ndarray:
    """Bytes of a picture or of a clip: of one of Pillow, and of floats from 0 to 1; any other array is left as it is.

    Raises:
        MediaError: see `picture_of`.
    """
    if isinstance(picture, Image.Image):
        return picture_of(picture)
    floats = np.issubdtype(picture.dtype, np.floating) and picture.size
    if floats and picture.min() >= 0 and picture.max() <= 1:
        return np.rint(picture * 255.0).astype(np.uint8)
    return picture


def decode(path: AnyPath, image: Image.Image, limits: Limits) -> UInt8[np.ndarray, "h w 3"]:
    """The current frame of an opened picture, as `read_image` gives it."""
    check_size(path, image.width, image.height, limits)  # before a pixel is decoded
    with _without_warnings():
        upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith(("I", "F")):
        return _eight_bits(path, np.asarray(upright))
    upright = to_srgb(path, upright)
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", layer.size, "black"), layer)
    return np.array(upright.convert("RGB"))


@contextmanager
def _without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _eight_bits(path: AnyPath, grey: np.ndarray) -> np.ndarray:
    """Pillow's own conversion of 16-bit grey clips at 255 instead of scaling."""
    if not np.issubdtype(grey.dtype, np.integer):
        raise MediaError(f"{shown(path)}: a picture of floats has no known white; save it with 8 or 16 bits.")
    scaled = np.clip(grey.astype(np.int64), 0, 65535) / 257
    return np.repeat(np.rint(scaled).astype(np.uint8)[..., None], 3, axis=-1)


def write_image(
    path: AnyPath,
    rgb: UInt8[np.ndarray, "h w 3"],
    overwrite: bool = True,
    note: str | None = None,
    provenance: "Provenance | None" = None,
) -> None:
    """Writes a PNG, JPEG (quality 95) or WebP (lossless) by suffix, beside the target and then renamed.

    Args:
        path: the output.
        rgb: sRGB.
        overwrite: whether an existing file may be replaced.
        note: a text that `read_note` finds in the file again, see `notes`.
        provenance: what its manifest says.

    Raises:
        ValueError: another suffix.
        MediaError: it cannot be written there.
    """
    suffix = check_suffix(path, IMAGE_SUFFIXES)
    with PendingOutput(path, overwrite) as output, blaming(path, "cannot be written"):
        save(output.path, rgb, suffix, fitting(path, suffix, note))
        if provenance is not None:
            provenance.sign(output.path, path)


def save(path: Path, rgb: np.ndarray, suffix: str, note: str | None = None) -> None:
    """Writes straight to `path`, in the format of `suffix`."""
    formats = {".png": {"format": "PNG"}, ".webp": {"format": "WEBP", "lossless": True}}
    options = formats.get(suffix, {"format": "JPEG", "quality": 95})
    Image.fromarray(rgb).save(path, **options, **picture_options(suffix, note))


def side_by_side(frames_list: Sequence[UInt8[np.ndarray, "_ _ 3"]], gap: int = 4) -> UInt8[np.ndarray, "h w 3"]:
    """Puts pictures in one row, all as high as the first (Lanczos), white strips of `gap` pixels between.

    Raises:
        ValueError: no picture given.
    """
    if not frames_list:
        raise ValueError("side_by_side needs at least one picture.")
    height = frames_list[0].shape[0]
    strip = np.full((height, gap, 3), 255, np.uint8)
    row = [piece for rgb in frames_list for piece in (strip, _to_height(rgb, height))]
    return np.concatenate(row[1:], axis=1)


def _to_height(rgb: np.ndarray, height: int) -> np.ndarray:
    if rgb.shape[0] == height:
        return rgb
    width = max(1, round(rgb.shape[1] * height / rgb.shape[0]))
    return np.array(Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS))


def text_strip(text: str, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """A line or more of small text on white, `width` pixels wide; letters outside of Latin-1 are question marks."""
    lines = textwrap.wrap(text.encode("latin-1", "replace").decode("latin-1"), max(8, width // _LETTER_WIDTH))
    image = Image.new("RGB", (width, _LINE_HEIGHT * len(lines) + _INDENT), "white")
    ImageDraw.Draw(image).multiline_text((_INDENT, 0), "\n".join(lines), fill="black", spacing=1)
    return np.asarray(image)
