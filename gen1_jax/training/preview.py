"""What a run shows of itself on the way: whoever starts it hands it in, the loop asks for it after a checkpoint."""

import dataclasses
import warnings
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from gen1_jax.checkpoints.workdir import PREVIEWS
from gen1_jax.errors import in_one_line
from gen1_jax.media import VideoWriter
from gen1_jax.models.module import Params
from gen1_jax.training.metrics import MetricsLog


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """A preview.

    Attributes:
        frames: of the clip.
        frame_rate: of it.
        measures: numbers, by the names that they have in the log.
    """

    frames: UInt8[np.ndarray, "t h w 3"]
    frame_rate: Fraction
    measures: Mapping[str, float]


@runtime_checkable
class Preview(Protocol):
    """Makes previews; nothing stays on the devices between two of them."""

    def __call__(self, step: int, ema: Params, *, structures: tuple[str, ...]) -> Shown | None:
        """Called by all processes of a run at once; those but the first return None.

        Args:
            step: of the run.
            ema: the running mean of the weights, float32, divided over the devices as in training.
            structures: the kinds that the network sees in this stage; it is to see zeros for the others.
        """
        ...


def take_preview(
    preview: Preview, step: int, ema: Params, *, structures: tuple[str, ...], workdir: Path, log: MetricsLog
) -> None:
    """Makes previews/STEP.mp4 and its entry of the log. A preview that fails says so, there and in a warning."""
    path = workdir / PREVIEWS / f"{step:07}.mp4"
    try:
        shown = preview(step, ema, structures=structures)
        if shown is None:
            return
        path.parent.mkdir(exist_ok=True)
        height, width = shown.frames.shape[1:3]
        with VideoWriter(path, width=width, height=height, frame_rate=shown.frame_rate) as writer:
            for frame in shown.frames:
                writer.write(frame)
    except Exception as error:  # whatever it is, it is not worth a run
        reason = in_one_line(error, 300)
        warnings.warn(f"the preview of step {step} failed, training goes on: {reason}", stacklevel=2)
        log.write(step, {"preview_error": reason})
        return
    log.write(step, {"preview": path.name, **shown.measures})
    log.write_clip(step, "preview", shown.frames, float(shown.frame_rate))
