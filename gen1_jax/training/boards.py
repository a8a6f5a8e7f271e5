"""Where people watch a run: TensorBoard always, Weights & Biases if they ask for it."""

import functools
import io
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from gen1_jax.files import write_text

WANDB_ID = "wandb_id"
"""File of a workdir with the name that its run has there, so that a run which goes on is the same one."""

_STRIP = 4  # frames of a clip's strip


class Board(Protocol):
    """What shows numbers and clips of a run."""

    def numbers(self, step: int, values: Mapping[str, float | int]) -> None:
        """Of an entry of the log."""
        ...

    def clip(self, step: int, name: str, frames: UInt8[np.ndarray, "t h w 3"], frame_rate: float) -> None:
        """A preview."""
        ...

    def close(self) -> None:
        """The run has ended."""
        ...


OpenBoard = Callable[[Path, int], Board]
"""Opens a board for a workdir, for a run that goes on at a step."""


class TensorBoard:
    """Event files in the workdir. Those of steps that will be done again are forgotten."""

    def __init__(self, workdir: Path, step: int):
        self._library = tensorboard_library()
        self._writer = self._library.SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1 if step else None)

    def numbers(self, step: int, values: Mapping[str, float | int]) -> None:
        """As scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def clip(self, step: int, name: str, frames: UInt8[np.ndarray, "t h w 3"], frame_rate: float) -> None:
        """On the page of images: moving, and as a strip of a few frames, "NAME/frames"."""
        strip = np.concatenate(
            [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, _STRIP).round().astype(int))]
        )
        self._writer.add_image(f"{name}/frames", strip, step, dataformats="HWC")
        height, width = frames.shape[1:3]
        Summary = self._library.proto.summary_pb2.Summary
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=_gif(frames, frame_rate))
        self._writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)
        self._writer.flush()

    def close(self) -> None:
        """Nothing more comes."""
        self._writer.close()


@functools.cache
def tensorboard_library() -> ModuleType:
    """tensorboardX, which imports torch where that is installed, for an annotation: half of the start of a training.

    To be called first while no other thread is at work: for a moment nobody can import torch.
    """
    absent = "torch" not in sys.modules
    if absent:
        sys.modules["torch"] = None  # as Python says that a package is not there
    try:
        import tensorboardX
    finally:
        if absent:
            del sys.modules["torch"]
    return tensorboardX


class WeightsAndBiases:
    """A run of https://wandb.ai, or of its files in the workdir with WANDB_MODE=offline. Needs the package wandb.

    Args:
        project: there.
        name: of the run.
        config: its recipe.
        workdir: of the run.
        step: where it goes on: then it is the same run there. The axis of its curves is the step of the training.
    """

    def __init__(self, project: str, name: str, config: Mapping[str, Any], workdir: Path, step: int):
        import wandb

        file = workdir / WANDB_ID
        if not (step and file.exists()):
            write_text(file, secrets.token_hex(4))
        told = dict(project=project, name=name, config=dict(config), dir=str(workdir))
        self._run = wandb.init(**told, id=file.read_text(encoding="utf-8").strip(), resume="allow")
        self._video = wandb.Video
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def numbers(self, step: int, values: Mapping[str, float | int]) -> None:
        """As metrics."""
        self._run.log({**values, "step": step})

    def clip(self, step: int, name: str, frames: UInt8[np.ndarray, "t h w 3"], frame_rate: float) -> None:
        """As a video."""
        self._run.log({name: self._video(io.BytesIO(_gif(frames, frame_rate)), format="gif"), "step": step})

    def close(self) -> None:
        """Ends the run there."""
        self._run.finish()


def _gif(frames: UInt8[np.ndarray, "t h w 3"], frame_rate: float) -> bytes:
    """What both libraries show; clips of their own need a further package."""
    first, *rest = map(Image.fromarray, frames)
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=rest, duration=max(20, round(1000 / frame_rate)), loop=0)
    return file.getvalue()
