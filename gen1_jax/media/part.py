"""Which frames of a video are wanted, and how long each of them is shown."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any, NamedTuple

from gen1_jax.errors import UserError
from gen1_jax.media.errors import MediaError

_SLACK = Fraction(1, 100)  # clocks of milliseconds round: what is shown for less than this is not asked for


class Shown(NamedTuple):
    """A frame on the screen.

    Args:
        item: the frame, decoded or not.
        time: since when, seconds.
        end: until when, seconds.
    """

    item: Any
    time: Fraction
    end: Fraction


@dataclass(frozen=True, kw_only=True)
class Part:
    """The part of a video that is wanted.

    A start in seconds begins with the frame that is on the screen then, and a duration in seconds is how long the
    frames are shown in all, to the tick. Frames are counted after `stride` or `rate` has chosen them.

    Args:
        start: index of the first frame (int), or seconds (Fraction).
        duration: frames of the video (int) or seconds (Fraction); None to its end.
        frames: how many at most; None for all.
        stride: every how many-th.
        rate: frames a second; those are left out that are not on the screen at one of its ticks. None for all.

    Raises:
        UserError: a number out of its range, or both `stride` and `rate`.
    """

    start: int | Fraction = 0
    duration: int | Fraction | None = None
    frames: int | None = None
    stride: int = 1
    rate: Fraction | None = None

    def __post_init__(self) -> None:
        for name, least in (("start", 0), ("frames", 1), ("stride", 1)):
            if (value := getattr(self, name)) is not None and value < least:
                raise UserError(f"{name} must be at least {least}, not {value}.")
        for name in ("duration", "rate"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise UserError(f"{name} must be positive, not {value}.")
        if self.stride > 1 and self.rate is not None:
            raise UserError("--stride and --fps both choose frames: give one of them.")

    def expected(self, count: int, rate: Fraction) -> int:
        """How many of `count` frames at `rate` frames a second are chosen, if they are evenly spaced."""
        left = count - (self.start if isinstance(self.start, int) else int(self.start * rate))
        if self.duration is not None:
            whole = isinstance(self.duration, int)
            left = min(left, self.duration if whole else max(1, round(self.duration * rate)))
        step = Fraction(self.stride) if self.rate is None else max(Fraction(1), rate / self.rate)
        chosen = max(0, ceil(left / step))
        return chosen if self.frames is None else min(chosen, self.frames)


class Choice:
    """Runs through the frames of a video and hands out those of a `Part`, each with the time from which it is shown.

    Args:
        part: which.
        frames: all, in order.
        step: seconds between two of them, on average.

    Attributes:
        seen: how many frames went by.
        start: of the first one chosen, seconds; None while there is none.
        end: when the last one handed out ceases to be shown, seconds; once the iteration is over.
    """

    def __init__(self, part: Part, frames: Iterable[Shown], step: Fraction) -> None:
        self._part, self._frames = part, frames
        self._slack = min(step / 2, _SLACK)
        self._from_first = self._to_last = False
        self._until: Fraction | None = None
        self.seen = 0
        self.start: Fraction | None = None
        self.end = Fraction(0)

    @property
    def sound(self) -> tuple[Fraction | None, Fraction | None]:
        """The part of the sound that goes with what was chosen, seconds: None where nothing is cut off there.

        So a whole video has all of its sound, also what is heard before the first and after the last frame.
        """
        until = self.end if self._until is None else self._until
        return None if self._from_first else self.start, None if self._to_last else until

    def __iter__(self) -> Iterator[tuple[Any, Fraction]]:
        chosen = 0
        try:
            for shown, wanted in self._by_stride() if self._part.rate is None else self._by_rate():
                if wanted and chosen == self._part.frames:
                    self.end, self._until = shown.time, None
                    return
                self.end = shown.end
                if wanted:
                    chosen += 1
                    yield shown.item, shown.time
        except MediaError:
            if chosen != self._part.frames:  # damage behind the last frame wanted is nobody's concern
                raise

    def _by_stride(self) -> Iterator[tuple[Shown, bool]]:
        for index, shown in enumerate(self._within()):
            yield shown, index % self._part.stride == 0

    def _by_rate(self) -> Iterator[tuple[Shown, bool]]:
        """A frame that is on the screen at a tick of the rate is shown from that tick on."""
        rate, ticks = self._part.rate, 0
        slack = min(self._slack, 1 / rate / 2)
        for shown in self._within():
            tick = self.start + ticks / rate
            if shown.end > tick + slack:
                ticks = ceil((shown.end - slack - self.start) * rate)
                yield shown._replace(time=tick), True
            else:
                yield shown, False

    def _within(self) -> Iterator[Shown]:
        """The frames from start to duration."""
        start, duration = self._part.start, self._part.duration
        first = 0
        for shown in self._frames:
            self.seen += 1
            if self.start is None:
                if self.seen <= start if isinstance(start, int) else shown.end <= start + self._slack:
                    continue
                first = self.seen
                self._from_first = first == 1 and (isinstance(start, int) or shown.time >= start)
                self.start = shown.time if isinstance(start, int) else max(shown.time, start)
                shown = shown._replace(time=self.start)
                if isinstance(duration, Fraction):
                    self._until = self.start + duration
            elif self._until is not None and shown.time >= self._until - self._slack:
                self.end = self._until
                return
            elif isinstance(duration, int) and self.seen - first >= duration:
                return
            yield shown if self._until is None else shown._replace(end=min(shown.end, self._until))
        self._to_last = self._until is None
