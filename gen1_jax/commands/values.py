"""Values of options that have a notation of their own: moments, frame rates, sizes, LoRAs."""

import math
import re
from argparse import ArgumentTypeError
from fractions import Fraction
from pathlib import Path

_NTSC = (24, 30, 48, 60, 120)
"""Rates that are written as 23.976, 29.97 and so on, and mean 1000/1001 of these."""


def moment(text: str) -> int | Fraction:
    """Frames (int) or seconds (Fraction): 48 or 48f; 2s, 1.5s, 1/8s, 250ms; 1:02.5 or 1:00:02.5.

    Raises:
        ArgumentTypeError: it is neither.
    """
    if re.fullmatch(r"\d+f?", text):
        return int(text.rstrip("f"))
    if match := re.fullmatch(r"(\d+\.?\d*|\.\d+|\d+/[1-9]\d*)(ms|s)", text):
        return Fraction(match[1]) / (1000 if match[2] == "ms" else 1)
    if match := re.fullmatch(r"(?:(\d+):)?(\d+):(\d{1,2}(?:\.\d*)?)", text):
        hours, minutes, seconds = (Fraction(part or 0) for part in match.groups())
        if seconds < 60 and (match[1] is None or minutes < 60):
            return (60 * hours + minutes) * 60 + seconds
    if re.fullmatch(r"\d+\.\d*|\.\d+", text):
        raise ArgumentTypeError(f"{text} is no whole number of frames; {text}s is a time in seconds")
    raise ArgumentTypeError(f"{text!r} is neither frames (48) nor time (1.5s, 250ms, 1:02.5)")


def frame_rate(text: str) -> Fraction:
    """Frames a second: 24, 12.5, 30000/1001, 29.97.

    Raises:
        ArgumentTypeError: it is none, or not between 0 and 1000.
    """
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ArgumentTypeError(f"{text!r} is no frame rate; write 24, 12.5 or 30000/1001") from None
    if not 0 < rate <= 1000:
        raise ArgumentTypeError(f"{text} frames a second cannot be written; more than 0, at most 1000")
    exact = (Fraction(whole * 1000, 1001) for whole in _NTSC)
    return next((ntsc for ntsc in exact if "." in text and abs(rate - ntsc) < Fraction(4, 1000)), rate)


def interval(text: str) -> tuple[float, float]:
    """(start, end) of "START:END", parts of a run between 0 and 1.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        start, end = map(float, text.split(":"))
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no interval; write START:END, such as 0:0.5") from None
    if not 0 <= start < end <= 1:
        raise ArgumentTypeError(f"{text} does not ascend within 0 ... 1, as 0:0.5 does")
    return start, end


def kind_and_path(text: str) -> tuple[str, Path]:
    """A kind of structure and where its network is: "depth=control_v11f1p_sd15_depth".

    Raises:
        ArgumentTypeError: it is not like that.
    """
    kind, _, path = text.partition("=")
    if not (kind.isidentifier() and path):
        raise ArgumentTypeError(f"{text!r} is not like depth=control_v11f1p_sd15_depth, a kind of structure and a path")
    return kind, Path(path)


def keyframe(text: str) -> tuple[int, Path]:
    """The number of a frame and a picture: "0=painted.png"; -1 is the last.

    Raises:
        ArgumentTypeError: it is not like that.
    """
    index, _, path = text.partition("=")
    if not (re.fullmatch(r"-?\d{1,9}", index) and path):
        raise ArgumentTypeError(f"{text!r} is not like 0=painted.png, the number of a frame and its picture")
    return int(index), Path(path)


def size(text: str) -> tuple[int, int]:
    """(width, height) of "WIDTHxHEIGHT".

    Raises:
        ArgumentTypeError: it is none.
    """
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None or not int(match[1]) or not int(match[2]):
        raise ArgumentTypeError(f"{text!r} is no size; write WIDTHxHEIGHT in pixels, such as 512x288")
    return int(match[1]), int(match[2])


def file_and_number(text: str, default: float | None = 1.0) -> tuple[Path, float | None]:
    """The file and the number of "FILE[:NUMBER]", such as a strength; the default where there is none.

    A colon belongs to the name unless a number follows the last one and no file has the whole name.

    Raises:
        ArgumentTypeError: the strength is not finite.
    """
    file, _, number = text.rpartition(":")
    try:
        strength = float(number)
    except ValueError:
        return Path(text), default
    if not file or Path(text).exists():
        return Path(text), default
    if not math.isfinite(strength):
        raise ArgumentTypeError(f"the strength of {file} is {number}, not a number such as 0.8")
    return Path(file), strength
