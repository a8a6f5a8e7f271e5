"""A training workdir as a model: the EMA weights of its last checkpoint, the frozen networks of what it began from."""

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gen1_jax.checkpoints.workdir import is_workdir, workdir_of
from gen1_jax.data.config import from_plain
from gen1_jax.data.storage import folder, is_remote
from gen1_jax.errors import UserError
from gen1_jax.models.low_rank import LowRankConfig, initial_factors, target_kernels
from gen1_jax.models.module import Params, abstract_parameters
from gen1_jax.models.selection import Selection, together
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.folder import ModelFolder, ModelSource, is_named, open_model
from gen1_jax.pretrained.growing import grown
from gen1_jax.pretrained.lora import merge, merged_when_read
from gen1_jax.pretrained.lora_write import Deltas, deltas_of
from gen1_jax.pretrained.subject import SUBJECT, Subjects, read_subject
from gen1_jax.pretrained.tensors import FolderError
from gen1_jax.pretrained.tokenizer import CLIPTokenizer
from gen1_jax.pretrained.words import READS_WORDS


class TrainedModel:
    """The model that a workdir has come to; see `ModelSource`.

    The frozen networks are those of what the run began from, which may itself be a workdir that has gone on since: a
    warning says so. So are the parameters that a recipe left frozen in the network that it trained (`unet.trained`),
    all of them where it trained an adapter beside it (`unet.lora`).

    Args:
        workdir: of `gen1 train`.
        ema: the running mean of the weights, or the weights themselves.

    Raises:
        FolderError: there is no checkpoint yet, or what the run began from is not where it was.
        CheckpointError: the last one is damaged.
    """

    def __init__(self, workdir: str | os.PathLike[str], *, ema: bool = True):
        self.path, self._ema = folder(workdir), ema
        with self._checkpoints() as checkpoints:
            if not checkpoints.steps:
                raise FolderError(f"{workdir} has no finished checkpoint yet")
            *self._older, self.step = checkpoints.steps
            with _telling_what_helps(self._older):
                self.record = checkpoints.record(self.step)
        self.name = f"{self.path.resolve().name} at step {self.step}"
        self.component: str = self.record["config"]["component"]
        self.components: tuple[str, ...] = tuple(self.record.get("components", [self.component]))
        self.config = Gen1Config.from_dict(self.record["model"])
        if self.component == "unet":  # whatever it had learned before, it has been trained on what it is given
            self.config = dataclasses.replace(self.config, learned_content="unknown")
        self.base = self._open_base()

    def _open_base(self) -> ModelSource:
        began = Origin.from_record(self.record)
        if not began.exists():
            raise FolderError(
                f"{self.path}: was trained on {began.place}, which is not there any more, and takes its frozen "
                f"networks from it: move it back"
            )
        base = open_trained(began.place)
        if isinstance(base, TrainedModel) and began.step not in (None, base.step):
            warnings.warn(
                f"{self.path} was trained on {began.place} at step {began.step}, whose {base.component} is at step "
                f"{base.step} now",
                stacklevel=4,
            )
        return base

    @property
    def warning(self) -> str | None:
        """What the frozen networks warn of."""
        if getattr(self.base, "drawn", None) == (self.component,) and not (self._selection or self._lora.rank):
            return None  # nothing is left of what was drawn
        return self.base.warning and f"{self.name} has a trained {self.component}; as to the rest, {self.base.warning}"

    @property
    def words(self) -> Set[str] | None:
        """That its captions had, see `pretrained.words`; None if nobody knows."""
        lost = self.component in READS_WORDS or not self.config.takes_prompts
        return None if lost else getattr(self.base, "words", None)

    @property
    def subjects(self) -> Subjects:
        """What `gen1 customize` showed it, see `pretrained.subject`, or what it began with."""
        file = self.path / SUBJECT
        own = [(read_subject(file), 1.0)] if file.exists() else []
        return own or getattr(self.base, "subjects", [])

    def parameters(self, component: str) -> Params:
        """The weights of one network, on the host."""
        if component not in self.components:
            return self.base.parameters(component)
        if len(self.components) > 1:
            return self._learned()[component]
        if self._lora.rank:
            return merge(self._untrained.stored(component), [(self.adapter(), 1.0)])
        return together(self._untrained.parameters(component) if self._selection else {}, self._learned())

    def stored(self, component: str) -> Params:
        """The same; those that were trained are on the host."""
        if component not in self.components:
            return self.base.stored(component)
        if len(self.components) > 1:
            return self._learned()[component]
        if self._lora.rank:
            return merged_when_read(self._untrained.stored(component), [(self.adapter(), 1.0)])
        return together(self._untrained.stored(component) if self._selection else {}, self._learned())

    @property
    def _untrained(self) -> ModelSource:
        """What the run began from, with the inputs that it added."""
        return grown(self.base, self.config.unet, self.config.split)

    def adapter(self) -> Deltas:
        """The changes of low rank that were trained (`unet.lora`), by the path of the kernel.

        Raises:
            FolderError: the recipe trained none.
        """
        if not self._lora.rank:
            raise FolderError(f"{self.path} has no adapter: its recipe trains the {self.component} itself")
        return deltas_of(self._learned(), self.config, self._lora.scale)

    @property
    def _lora(self) -> LowRankConfig:
        """The adapter of the recipe; of rank 0 for none."""
        return from_plain(LowRankConfig, self.record["config"].get(self.component, {}).get("lora", {}))

    @property
    def _selection(self) -> Selection | None:
        """Which parameters of the network were trained; None for all."""
        names = self.record["config"].get(self.component, {}).get("trained", ())
        return Selection(names) if names else None

    def _learned(self) -> Params:
        """What was trained; of several networks those of each under its name."""
        networks = {name: abstract_parameters(self.config.build(name, np.float32)) for name in self.components}
        abstract = networks if len(networks) > 1 else networks[self.component]
        if self._lora.rank:
            kernels = target_kernels(self._lora, self.config.unet, abstract)
            abstract = jax.eval_shape(lambda: initial_factors(self._lora, kernels, 0))
        elif self._selection is not None:
            abstract = self._selection.chosen(abstract)
        with self._checkpoints() as checkpoints, _telling_what_helps(self._older):
            return checkpoints.weights(self.step, abstract, ema=self._ema)

    def tokenizer(self) -> CLIPTokenizer:
        """The tokenizer of the text tower."""
        return self.base.tokenizer()

    def _checkpoints(self):
        from gen1_jax.checkpoints.store import Checkpoints  # its library takes seconds to import

        return Checkpoints(self.path)


@contextlib.contextmanager
def _telling_what_helps(older: Sequence[int]) -> Iterator[None]:
    """Adds to what is said of a checkpoint that is damaged, as one is that was copied while it was written."""
    try:
        yield
    except UserError as error:
        instead = f", or move it away, and that of step {older[-1]} is taken" if older else ""
        raise type(error)(f"{error}; copy it again{instead}") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """What a run began from, as its checkpoints record it.

    Attributes:
        place: the model as the recipe names it; a folder or an address by its absolute path.
        step: that a workdir had come to; None for other models, and in checkpoints that do not say.
        frozen: checksums of the frozen networks that have been used, cast to the dtype of the computation.
    """

    place: str
    step: int | None = None
    frozen: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, model: str, source: ModelSource) -> "Origin":
        """That of a run which begins now from `source`, which the recipe calls `model`."""
        is_folder = isinstance(source, TrainedModel | ModelFolder) and source.path == Path(model)
        place = os.path.abspath(model) if is_folder and not is_remote(model) else model
        return cls(place=place, step=source.step if isinstance(source, TrainedModel) else None)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Origin":
        """That of a checkpoint; the first ones hold the model's name alone."""
        return cls(**record["origin"]) if "origin" in record else cls(place=record["config"]["model"])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    def exists(self) -> bool:
        """Whether it is still there."""
        return is_named(self.place) or is_remote(self.place) or os.path.isdir(self.place)

    def with_frozen(self, component: str, checksum: str, now: ModelSource) -> "Origin":
        """With the checksum of a frozen network that is used from now on.

        Args:
            component: the network.
            checksum: of its weights as the run computes with them.
            now: where they come from.

        Raises:
            UserError: the run has used another; names what the run began from, and what is there now.
        """
        if self.frozen.get(component, checksum) != checksum:
            then = self.place if self.step is None else f"{self.place} at step {self.step}"
            raise UserError(
                f"this run began with the {component} of {then}, and that of {now.name} is another: put it back, or "
                f"begin another workdir"
            )
        return dataclasses.replace(self, frozen={**self.frozen, component: checksum})


def open_trained(name_or_folder: str | os.PathLike[str], *, ema: bool = True) -> ModelSource:
    """A training workdir (its EMA weights, or the raw ones), a model folder, or a model by its name.

    Raises:
        FolderError, LayoutError, CheckpointError: there is no such model, or it is damaged.
    """
    if is_workdir(name_or_folder):
        return TrainedModel(name_or_folder, ema=ema)
    if (whole := workdir_of(name_or_folder)) is not None:
        raise FolderError(f"{name_or_folder} is a part of the workdir {whole}: name that, and its last step is taken")
    return open_model(name_or_folder)


def with_latent_scale(config: Gen1Config, metrics: Mapping[str, Any]) -> Gen1Config:
    """The family with the scale that gives latents of a newly trained autoencoder unit variance."""
    if not metrics.get("latent_std"):
        return config
    return dataclasses.replace(
        config, vae=dataclasses.replace(config.vae, scaling_factor=1 / float(metrics["latent_std"]))
    )
