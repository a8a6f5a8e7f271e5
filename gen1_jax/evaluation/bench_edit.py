"""`gen1 bench edit`: time and memory of edits of files over the length of the clip, on random weights."""

import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from gen1_jax.editing.files import edit_file
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.request import EditRequest
from gen1_jax.editing.settings import EditSettings
from gen1_jax.errors import UserError
from gen1_jax.media import VideoWriter
from gen1_jax.pretrained.folder import open_model
from gen1_jax.pretrained.sizes import size_named


def bench_edit(
    frames: Sequence[int], *, size: str = "tiny", steps: int = 2, pixels: int = 64
) -> Iterator[dict[str, Any]]:
    """Edits a moving pattern of each number of frames.

    Memory is that of the process at its highest so far: give short clips first. It does not fall again, so that what is
    the same in each row is what no clip needs more of.

    Args:
        frames: of the clips.
        size: of the model, a key of `SIZES`; weights are random.
        steps: of the sampler.
        pixels: height and width of the clips.

    Yields:
        Plain values for each: frames, seconds, peak memory in MiB.

    Raises:
        UserError: an unknown size, or a number below one.
    """
    size_named(size)  # refuses a name that there is not
    if min([steps, pixels, *frames]) < 1:
        raise UserError("frames, steps and pixels must be at least 1")
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Gen1Pipeline(open_model(size))
        for count in frames:
            video, settings = Path(folder) / f"{count}.mp4", EditSettings(num_inference_steps=steps)
            _write_pattern(video, count, pixels)
            request = EditRequest(
                video=video, output=Path(folder) / "edit.mp4", prompt="a car", model=size, settings=settings
            )
            began = time.perf_counter()
            edit_file(request, pipeline=pipeline)
            seconds = round(time.perf_counter() - began, 1)
            yield {"frames": count, "seconds": seconds, "peak_mib": round(_peak_bytes() / 2**20)}


def _write_pattern(path: Path, frames: int, pixels: int) -> None:
    rows = np.arange(pixels)
    with VideoWriter(path, width=pixels, height=pixels, frame_rate=Fraction(25)) as writer:
        for number in range(frames):
            wave = 127 + 127 * np.sin((rows[:, None] + rows[None] + number) / 9)
            writer.write(np.repeat(wave.astype(np.uint8)[..., None], 3, axis=-1))


def _peak_bytes() -> int:
    """Of this process; Linux counts kibibytes, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
