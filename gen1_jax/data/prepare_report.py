"""What `gen1 prepare` tells: a line for each video, the quarantine, and the summary."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gen1_jax.data.prepare_listing import VideoEntry
from gen1_jax.data.prepare_spool import Outcome
from gen1_jax.errors import counted
from gen1_jax.files import write_text

QUARANTINE = "quarantine.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareSummary:
    """What came of a run.

    Attributes:
        output: folder of the data set.
        split: the split.
        videos: how many there were.
        prepared: how many of them were prepared by this run; the others had been before.
        quarantined: how many cannot be used; `quarantine.jsonl` says why.
        shots: how many were found.
        clips: records of the split.
        buckets: clips by size.
        rejected: shots and clips left out, by reason.
        size: bytes of all clips.
        seconds: that this run took.
    """

    output: str
    split: str
    videos: int
    prepared: int
    quarantined: int
    shots: int
    clips: int
    buckets: dict[str, int]
    rejected: dict[str, int]
    size: int
    seconds: float

    def render(self) -> str:
        """A few lines for a person."""
        again = self.videos - self.prepared
        lines = [
            f"{self.output}: split {self.split!r}, {counted(self.clips, 'clip')} of {counted(self.videos, 'video')} "
            f"({counted(self.shots, 'shot')}),"
            f" {self.size / 2**20:.1f} MiB, in {self.seconds:.1f} s",
            *([f"  {again} of the videos had been prepared before"] if again else []),
            *(f"  {name:>9}: {counted(count, 'clip')}" for name, count in self.buckets.items()),
            *(f"  left out: {count} {reason}" for reason, count in self.rejected.items()),
        ]
        if self.quarantined:
            lines.append(f"  in quarantine: {counted(self.quarantined, 'video')}, see {Path(self.output, QUARANTINE)}")
        return "\n".join(lines)


def is_reported(out: Path, split: str) -> bool:
    """Whether `write_report` has been here."""
    return _report_path(out, split).exists()


def write_report(out: Path, split: str, entries: Sequence[VideoEntry], outcomes: Sequence[Outcome]) -> None:
    """Writes what became of each video to videos_SPLIT.jsonl, and the bad ones of all splits to quarantine.jsonl."""
    videos = zip(entries, outcomes, strict=True)
    _write(_report_path(out, split), ({"file": e.source, **dataclasses.asdict(o)} for e, o in videos))
    bad = []
    for path in sorted(out.glob("videos_*.jsonl")):
        name = path.stem.removeprefix("videos_")
        bad += [{"split": name, "file": line["file"], "reason": line["error"]} for line in _read(path) if line["error"]]
    _write(out / QUARANTINE, bad)


def summarise(out: Path, split: str, *, prepared: int, seconds: float) -> PrepareSummary:
    """The summary, by what `write_report` wrote."""
    outcomes = [
        Outcome(**{key: value for key, value in line.items() if key != "file"})
        for line in _read(_report_path(out, split))
    ]
    return PrepareSummary(
        output=str(out),
        split=split,
        videos=len(outcomes),
        prepared=prepared,
        quarantined=sum(outcome.error is not None for outcome in outcomes),
        shots=sum(outcome.shots for outcome in outcomes),
        clips=sum(outcome.clips for outcome in outcomes),
        buckets=_total(outcome.buckets for outcome in outcomes),
        rejected=_total(outcome.rejected for outcome in outcomes),
        size=sum(outcome.size for outcome in outcomes),
        seconds=seconds,
    )


def _total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def _report_path(out: Path, split: str) -> Path:
    return out / f"videos_{split}.jsonl"


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _write(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
