"""Options that several commands have: the part of a video, limits on it, and what steadies it."""

import argparse

from gen1_jax.commands.values import frame_rate, moment
from gen1_jax.errors import UserError

_FAST = "nano-fast"
UPSCALER = "nano-upscaler"
"""What enlarges where no model is named."""


def add_part(parser: argparse.ArgumentParser) -> None:
    """Declare which frames of the video, and how fast."""
    part = parser.add_argument_group("the part of the video", "TIME: 48 is frames; 2s, 1.5s, 250ms or 1:02.5 is time")
    part.add_argument("--start", type=moment, metavar="TIME", help="where to begin (0)")
    part.add_argument("--duration", type=moment, metavar="TIME", help="how much of the video to take (to its end)")
    part.add_argument("--frames", type=int, metavar="N", help="how many frames at most (all)")
    part.add_argument("--stride", type=int, metavar="N", help="every how many-th frame (1)")
    part.add_argument(
        "--fps",
        type=frame_rate,
        metavar="N",
        help="frames a second, at the same speed (the video's own); of a folder of pictures, its speed (8)",
    )


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Declare what is too large."""
    limits = parser.add_argument_group("limits on the input")
    limits.add_argument("--max-pixels", type=int, metavar="N", help="pixels of a frame")
    limits.add_argument("--max-frames", type=int, metavar="N", help="frames read")
    limits.add_argument("--max-bytes", type=int, metavar="N", help="size of the file")


def limits_of(args: argparse.Namespace):
    """The `Limits` of what `add_limits` declared."""
    from gen1_jax.media import Limits

    limits = {name: getattr(args, name) for name in ("max_pixels", "max_frames", "max_bytes")}
    return Limits(**{name: value for name, value in limits.items() if value is not None})


def add_shift_windows(group) -> None:
    """Declare `EditSettings.shift_windows`; what is not given is None."""
    group.add_argument(
        "--shift-windows",
        action=argparse.BooleanOptionalAction,
        help="move the seams between windows of a long video at every step, for at most one window more a step (yes)",
    )


def add_propagate(group) -> None:
    """Declare `EditSettings.propagate`."""
    group.add_argument(
        "--propagate",
        metavar="N,N,...",
        help="steps, counted from 1, at which frames are mixed along the video's motion: steadier, and a little softer;"
        " few and late ones, as 15,18 of 20 (none)",
    )


def add_deep_cache(group) -> None:
    """Declare `EditSettings.deep_cache`."""
    group.add_argument(
        "--deep-cache",
        type=int,
        metavar="N",
        help="evaluate the whole network at every N-th step alone, at the others its finest level; for videos that the"
        " model sees at once (1)",
    )


def add_enlarging(group) -> None:
    """Declare how a model enlarges; what is not given is None."""
    group.add_argument(
        "--noise-level",
        type=int,
        metavar="0..7",
        help="of what is enlarged, 0 trusts every pixel; with more, artefacts are corrected, and more is made up (1)",
    )
    group.add_argument(
        "--match-colour",
        action=argparse.BooleanOptionalAction,
        help="made small again, the result is what it was made from, as far as --noise-level trusts that (yes)",
    )


def add_fast(parser: argparse.ArgumentParser) -> None:
    """Declare --fast, beside a --model that is None where it is not given."""
    parser.add_argument("--fast", action="store_true", help=f"by {_FAST}, in 4 steps in the place of 20")


def model_of(args: argparse.Namespace) -> str:
    """The model that --model or --fast names, or nano.

    Raises:
        UserError: they name two.
    """
    if args.fast and args.model not in (None, _FAST):
        raise UserError(f"--fast is --model {_FAST}, and --model says {args.model}")
    return args.model or (_FAST if args.fast else "nano")
