"""What ComfyUI shows of a node at work: its progress, a preview, and that it stops when it is told to."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array
from PIL import Image

from gen1_jax.editing.pipeline import Gen1Pipeline

_PREVIEWS, _LARGEST = 10, 512  # in an edit; pixels of the longer side


class NodeReports:
    """Progress of one run of a node. Without ComfyUI around it, nothing is shown.

    Args:
        pipeline: decodes previews.
    """

    def __init__(self, pipeline: Gen1Pipeline):
        self._pipeline = pipeline
        self._bar, self._check = _of_comfyui()

    def progress(self, stage: str, done: int, total: int) -> None:
        """What `pipe.edit` calls; a cancelled run ends here, by an exception of ComfyUI's."""
        self._check()
        if self._bar is not None and stage != "sampling":
            self._bar.update_absolute(done, total)

    def watch(self, done: int, total: int, latents: Array) -> None:
        """Progress of the sampling, now and then with the middle frame of the running latents."""
        self._check()
        if self._bar is None:
            return
        preview = None
        if done < total and done % max(1, total // _PREVIEWS) == 0:
            middle = latents.shape[1] // 2
            frame = next(self._pipeline.decode(latents[:, middle : middle + 1]))
            preview = ("JPEG", Image.fromarray(frame), _LARGEST)
        self._bar.update_absolute(done, total, preview)


def _of_comfyui() -> tuple[Any | None, Callable[[], None]]:
    """Its bar of the node that runs, and what raises if the run is cancelled."""
    try:
        from comfy.model_management import throw_exception_if_processing_interrupted
        from comfy.utils import ProgressBar
    except ImportError:
        return None, lambda: None
    return ProgressBar(1), throw_exception_if_processing_interrupted
