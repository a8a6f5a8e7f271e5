"""Colour profiles of pictures: Display P3 of a phone, Adobe RGB of a camera, CMYK of a printer, all to sRGB."""

import io
import warnings
from functools import lru_cache

from PIL import Image, ImageCms

from gen1_jax.media.errors import AnyPath, shown

_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
"""The mode of a picture, by the colour space that its profile (ICC.1:2022, table 19) is about."""
_OF_MODE = {"L": {"1", "L", "LA", "La", "P"}, "CMYK": {"CMYK"}, "LAB": {"LAB"}}
"""Modes that may be brought to it; RGB is there for all but inks."""


def to_srgb(path: AnyPath, image: Image.Image) -> Image.Image:
    """The picture in sRGB by the profile that it carries; as it is without one, or with a warning by a bad one.

    Args:
        path: its name, for the warning.
        image: of 8 bits a channel; what is transparent stays so.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    try:
        return _converted(image, profile)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, KeyError):
        message = "its colour profile cannot be used; its colours are taken for sRGB"
        warnings.warn(f"{shown(path)}: {message}", stacklevel=2)
        return image


def _converted(image: Image.Image, profile: bytes) -> Image.Image:
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    mode, transform = _transform(profile)
    if transform is None:
        return image
    if (image.mode == "CMYK") != (mode == "CMYK") or image.mode not in _OF_MODE.get(mode, {image.mode}):
        raise TypeError(f"a profile for {mode} in a picture of {image.mode}")
    if alpha is not None:
        image = image.convert("RGBA").convert("RGB")
    image = ImageCms.applyTransform(image.convert(mode), transform)
    if alpha is not None:
        image.putalpha(alpha)
    return image


@lru_cache(maxsize=8)  # the pictures of a folder share theirs
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """The mode of pictures with this profile, and how they become RGB; None if they are sRGB already."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    mode = _MODES[source.profile.xcolor_space.strip()]
    if mode == "RGB" and ImageCms.getProfileDescription(source).startswith("sRGB"):
        return mode, None
    target = ImageCms.createProfile("sRGB")
    intent = ImageCms.getDefaultIntent(source)
    return mode, ImageCms.buildTransform(source, target, mode, "RGB", renderingIntent=intent)
