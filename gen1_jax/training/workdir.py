"""A training workdir: its files, on disk or in a bucket; and as a model, the EMA weights of its last checkpoint."""

import dataclasses
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gen1_jax.data.storage import folder
from gen1_jax.models.module import Params, abstract_parameters
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.folder import ModelSource, open_model
from gen1_jax.pretrained.tensors import FolderError
from gen1_jax.pretrained.tokenizer import CLIPTokenizer

CHECKPOINTS = "checkpoints"
"""Folder of a workdir."""


class WorkFiles:
    """All files of a workdir but checkpoints: log, TensorBoard, previews, recipe; a context manager.

    Where the workdir is in a bucket, which cannot append, they are written to a temporary folder and copied to the
    bucket whenever `upload` is called and at the end.

    Args:
        workdir: of the run.
        continued: names of the files that this process goes on writing, if they are there.

    Attributes:
        folder: where they are written.
    """

    def __init__(self, workdir: str | os.PathLike[str], continued: tuple[str, ...] = ()):
        self._workdir = folder(workdir)
        self._temporary: tempfile.TemporaryDirectory | None = None
        self._uploaded: dict[Path, tuple[int, int]] = {}
        self._workdir.mkdir(parents=True, exist_ok=True)
        if isinstance(self._workdir, Path):
            self.folder = self._workdir
            return
        self._temporary = tempfile.TemporaryDirectory(prefix="gen1_")
        self.folder = Path(self._temporary.name)
        for name in continued:
            if (self._workdir / name).exists():
                (self.folder / name).write_bytes((self._workdir / name).read_bytes())

    def __enter__(self) -> "WorkFiles":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.upload()
        finally:
            if self._temporary is not None:
                self._temporary.cleanup()

    def upload(self) -> None:
        """Copies what is new or has changed to the bucket, if there is one."""
        if self._temporary is None:
            return
        for file in sorted(file for file in self.folder.rglob("*") if file.is_file()):
            state = (file.stat().st_mtime_ns, file.stat().st_size)
            if self._uploaded.get(file) != state:
                there = self._workdir / file.relative_to(self.folder)
                there.parent.mkdir(parents=True, exist_ok=True)
                there.write_bytes(file.read_bytes())
                self._uploaded[file] = state


class TrainedModel:
    """The model that a workdir has come to; see `ModelSource`.

    Args:
        workdir: of `gen1 train`.
        ema: the running mean of the weights, or the weights themselves.

    Raises:
        FolderError: there is no checkpoint yet.
        CheckpointError: the last one is damaged.
    """

    def __init__(self, workdir: str | os.PathLike[str], *, ema: bool = True):
        self.path, self._ema = folder(workdir), ema
        with self._checkpoints() as checkpoints:
            if not checkpoints.steps:
                raise FolderError(f"{workdir} has no finished checkpoint yet")
            self.step = checkpoints.steps[-1]
            self.record = checkpoints.record(self.step)
        self.name = f"{self.path.resolve().name} at step {self.step}"
        self.component: str = self.record["config"]["component"]
        self.config = Gen1Config.from_dict(self.record["model"])
        self.base = open_trained(self.record["config"]["model"])

    @property
    def warning(self) -> str | None:
        """What the frozen networks warn of."""
        return self.base.warning and f"{self.name} has a trained {self.component}; as to the rest, {self.base.warning}"

    def parameters(self, component: str) -> Params:
        """The weights of one network, on the host."""
        if component != self.component:
            return self.base.parameters(component)
        abstract = abstract_parameters(self.config.build(component, np.float32))
        with self._checkpoints() as checkpoints:
            return checkpoints.weights(self.step, abstract, ema=self._ema)

    def stored(self, component: str) -> Params:
        """The same; those of the trained network are on the host."""
        return self.parameters(component) if component == self.component else self.base.stored(component)

    def tokenizer(self) -> CLIPTokenizer:
        """The tokenizer of the text tower."""
        return self.base.tokenizer()

    def _checkpoints(self):
        from gen1_jax.training.checkpoint import Checkpoints  # its library takes seconds to import

        return Checkpoints(self.path)


def is_workdir(path: str | os.PathLike[str]) -> bool:
    """Whether `gen1 train` has been at work there."""
    return (folder(path) / CHECKPOINTS).is_dir()


def open_trained(name_or_folder: str | os.PathLike[str], *, ema: bool = True) -> ModelSource:
    """A training workdir (its EMA weights, or the raw ones), a model folder, or a model by its name.

    Raises:
        FolderError, LayoutError, CheckpointError: there is no such model, or it is damaged.
    """
    return TrainedModel(name_or_folder, ema=ema) if is_workdir(name_or_folder) else open_model(name_or_folder)


def with_latent_scale(config: Gen1Config, metrics: Mapping[str, Any]) -> Gen1Config:
    """The family with the scale that gives latents of a newly trained autoencoder unit variance."""
    if not metrics.get("latent_std"):
        return config
    return dataclasses.replace(
        config, vae=dataclasses.replace(config.vae, scaling_factor=1 / float(metrics["latent_std"]))
    )
