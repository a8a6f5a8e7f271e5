"""`gen1 data`: the pipeline alone, how fast it is and where its time goes; and a picture of a batch."""

import time
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from gen1_jax.data.batch import Batch
from gen1_jax.data.loading import STEPS
from gen1_jax.data.mixture import LoadStats, Mixture
from gen1_jax.errors import UserError
from gen1_jax.media import text_strip
from gen1_jax.models.structure import structure_kind

_GAP = 4


def walk(
    mixture: Mixture, batches: int, progress: Callable[[int, int], None] | None = None
) -> tuple[dict[str, Any], Batch]:
    """Draws batches and does nothing with them.

    Args:
        mixture: the stream.
        batches: how many, at least 1; one more comes first, to start the workers.
        progress: called with (batches drawn, `batches`).

    Returns:
        A summary: batches, examples, frames and MiB a second; bytes of the arrays of a batch, and of the records read
        for it, as they are without the file's compression (0 of files of videos and pictures); the milliseconds of a
        loading thread or process that an example takes, for each of `STEPS`; the share of the time spent waiting;
        batches of each kind and bucket; records skipped; what there is to tell about the sources. And the last batch.
    """
    if batches < 1:
        raise UserError(f"{batches} batches: need at least 1")
    iterator = mixture.iterate()
    try:
        next(iterator)
        iterator.stats = stats = LoadStats()
        start, frames = time.perf_counter(), 0
        for done in range(batches):
            batch = next(iterator)
            frames += len(batch) * getattr(mixture.config, batch.kind).frames
            if progress:
                progress(done + 1, batches)
        seconds = time.perf_counter() - start
    finally:
        iterator.close()
    summary = {
        "batches_per_second": batches / seconds,
        "examples_per_second": stats.examples / seconds,
        "frames_per_second": frames / seconds,
        "MiB_per_second": stats.nbytes / 2**20 / seconds,
        "array_bytes_per_batch": stats.nbytes / batches,
        "read_bytes_per_batch": stats.read / batches,
        **{f"{step}_ms_per_example": 1000 * stats.seconds[step] / stats.examples for step in STEPS},
        "waiting": stats.seconds["wait"] / seconds,
        "skipped": stats.skipped,
        "notes": list(mixture.notes),
        "drawn": {f"{kind} {w}x{h}": n for (kind, (h, w)), n in sorted(stats.drawn.items())},
    }
    return summary, batch


def render_walk(summary: dict[str, Any]) -> str:
    """The summary of `walk` as text."""
    lines = [
        "{batches_per_second:.2f} batches/s, {examples_per_second:.1f} examples/s,"
        " {frames_per_second:.1f} frames/s, {MiB_per_second:.1f} MiB/s",
        "an example takes "
        + ", ".join(f"{step} {{{step}_ms_per_example:.1f}} ms" for step in STEPS)
        + "; {waiting:.0%} of the time was spent waiting",
        "batches: " + ", ".join(f"{count} of {name}" for name, count in summary["drawn"].items()),
    ]
    if summary["read_bytes_per_batch"]:
        read, arrays = (summary[f"{what}_bytes_per_batch"] / 2**20 for what in ("read", "array"))
        lines.append(f"a batch takes {read:.3f} MiB of records, read, to {arrays:.3f} MiB of arrays")
    if summary["skipped"]:
        lines.append("{skipped} damaged records skipped")
    return "\n".join(["\n".join(lines).format(**summary), *summary["notes"]])


def batch_picture(batch: Batch, *, rows: int = 8) -> UInt8[np.ndarray, "h w 3"]:
    """A batch to look at: an example a row, its frames, its maps if it has any, and its caption; content is framed.

    Raises:
        ValueError: the batch has latents, no pixels.
    """
    if batch.pixels is None:
        raise UserError("a batch of latents has no picture")
    strips = []
    for row in range(min(rows, len(batch))):
        frames = [np.array(frame) for frame in batch.pixels[row]]
        frames[batch.content_index[row]] = _framed(frames[batch.content_index[row]])
        strips.append(_strip(frames))
        for kind, maps in batch.maps.items():
            strips.append(_strip(list(_shown(kind, maps[row]))))
        strips.append(text_strip(batch.captions[row] or "(no caption)", strips[-1].shape[1]))
    return np.concatenate(strips)


def _framed(frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    inner = frame[3:-3, 3:-3]
    framed = np.broadcast_to(np.uint8([255, 160, 0]), frame.shape).copy()
    framed[3:-3, 3:-3] = inner
    return framed


def _shown(kind: str, maps: Float32[np.ndarray, "t h w k"]) -> UInt8[np.ndarray, "t h w 3"]:
    """Maps as a ControlNet would see them."""
    of_kind = structure_kind(kind)
    return np.rint(np.asarray(of_kind.hint(of_kind.normalise(jnp.asarray(maps))[None])[0]) * 255).astype(np.uint8)


def _strip(frames: list[np.ndarray]) -> UInt8[np.ndarray, "h w 3"]:
    return np.concatenate([np.pad(f, ((_GAP, 0), (_GAP, 0), (0, 0)), constant_values=255) for f in frames], 1)
