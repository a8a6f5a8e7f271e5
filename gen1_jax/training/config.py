"""A training run as data: frozen dataclasses own the fields and their defaults, `configs/*.py` fill them in."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from gen1_jax.checkpoints.config import CheckpointConfig
from gen1_jax.data.config import DataConfig, Kind, check_kinds, from_plain
from gen1_jax.diffusion import NoiseSchedule, default_sampler, samplers_of
from gen1_jax.errors import UserError
from gen1_jax.models.denoiser_config import KNOWN, DenoiserConfig
from gen1_jax.parallel.mesh import MeshConfig
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.training.autoencoder import AutoencoderConfig
from gen1_jax.training.consistency import CONSISTENCY, distilled
from gen1_jax.training.contrastive import ContrastiveConfig
from gen1_jax.training.denoising import DenoisingConfig, chosen_kinds
from gen1_jax.training.monodepth import MonodepthConfig
from gen1_jax.training.optimizer import OptimizerConfig
from gen1_jax.training.prior import PriorTrainingConfig
from gen1_jax.training.split import SPLIT, SplitTrainingConfig

Component = Literal["unet", "vae", "clip", "depth", "prior"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageConfig:
    """A part of a run: which batches are drawn and what the model is told. The model itself is the same in all.

    Attributes:
        name: for logs.
        steps: optimizer steps.
        image_probability: that a batch is one of images; None for that of the data.
        structure: whether the U-Net sees structure, see `TrainConfig.seen_kinds`, or the kinds that it sees; zeros, and
            t_s 0, for the others.
        structure_levels: t_s is drawn uniformly from the first to the last, both included; None for those of the data.
        learning_rate: peak of this stage; None for that of the optimizer.
        ema_decay: of the running mean in this stage; None for that of the optimizer. What ships is the mean at the end:
            a last stage much shorter than 1 / (1 - ema_decay) steps leaves it what came before.
    """

    name: str
    steps: int
    image_probability: float | None = None
    structure: bool | tuple[str, ...] = True
    structure_levels: tuple[int, int] | None = None
    learning_rate: float | None = None
    ema_decay: float | None = None

    def __post_init__(self):
        if self.ema_decay is not None and not 0 <= self.ema_decay <= 1:
            raise UserError(f"stage {self.name}: ema_decay is {self.ema_decay}, not in [0, 1]")
        if self.steps < 1:
            raise UserError(f"stage {self.name}: {self.steps} steps, not at least 1")

    def kinds(self, structures: tuple[str, ...]) -> tuple[str, ...]:
        """What the U-Net sees of the kinds of structure that it takes.

        Raises:
            UserError: one that it does not take.
        """
        try:
            return chosen_kinds(self.structure, structures)
        except UserError as error:
            raise UserError(f"stage {self.name}: {error}") from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class MicrobatchConfig:
    """Into how many parts, one after the other, a batch of each kind is divided to save memory.

    Attributes:
        image: parts of a batch of images.
        video: parts of a batch of clips.
    """

    image: int = 1
    video: int = 1

    def __post_init__(self):
        if min(self.image, self.video) < 1:
            raise UserError(f"microbatches are {self.image} and {self.video}, not at least 1")

    def of(self, kind: Kind) -> int:
        """Parts of a batch of this kind."""
        return self.image if kind == "image" else self.video


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreviewConfig:
    """Fixed edits of one clip, sampled with the EMA weights as training goes on.

    Attributes:
        every: steps between previews; 0 for none.
        video: path of the clip; None for the one that ships.
        image: path of a picture whose content is asked for, instead of prompts.
        prompts: what is asked for otherwise, an edit each.
        prompt: a single one instead of `prompts`.
        frames: of the clip.
        num_inference_steps: of the sampler.
        guidance_scale: w; None for the model's own.
        temporal_guidance_scale: w_t.
    """

    every: int = 0
    video: str | None = None
    image: str | None = None
    prompts: tuple[str, ...] = ("a clay world",)
    prompt: str | None = None
    frames: int = 8
    num_inference_steps: int = 25
    guidance_scale: float | None = None
    temporal_guidance_scale: float = 1.0

    def __post_init__(self):
        if self.every < 0 or min(self.frames, self.num_inference_steps) < 1:
            raise UserError(f"preview.every is negative, or frames or num_inference_steps is not positive: {self}")
        if self.image is None and not (self.asked and all(text.strip() for text in self.asked)):
            raise UserError("preview.prompts is empty, or one of them: say what the edits should look like")

    @property
    def asked(self) -> tuple[str, ...]:
        """The prompts."""
        return self.prompts if self.prompt is None else (self.prompt,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole run.

    Attributes:
        component: the network that is trained; the others of the model are frozen.
        objective: what is learned, by name (`training.objectives.OBJECTIVES`); None for the component's own.
        model: where the architecture, the frozen networks and the initial weights come from: a model folder, a
            training workdir, or "nano"; other sizes ("tiny", "full", "dit", ...) have no weights.
        from_scratch: start from `seed` even if the model has weights.
        data: the batches.
        stages: one after the other.
        optimizer: how weights change.
        unet: what the U-Net learns.
        vae: what the autoencoder learns.
        clip: what CLIP learns.
        depth: what the depth network learns.
        prior: what the prior learns.
        split: the split of structure and content that the objective "split" learns beside the U-Net.
        mesh: how devices are arranged.
        microbatches: gradient accumulation.
        prediction_type: what the U-Net predicts from now on, "v_prediction", "epsilon", "sample" or "flow_prediction";
            None for what the model does. An imported Stable Diffusion predicts epsilon, the paper v.
        schedule: the noise schedule from now on, with `rescale_zero_terminal_snr` or `use_flow_sigmas` for one; None
            for the model's. Where the model's sampler is not for it, edits have the first that is.
        dtype: of the computation; parameters and optimizer are float32.
        remat: recompute activations of the U-Net's blocks instead of keeping them.
        seed: of initial weights and of every draw.
        log_every: steps between entries of the log.
        max_skipped: this many steps without finite gradients in a row end the run.
        checkpoint: what is kept.
        preview: an edit as training goes on.
    """

    component: Component = "unet"
    objective: str | None = None
    model: str = "nano"
    from_scratch: bool = False
    data: DataConfig
    stages: tuple[StageConfig, ...]
    optimizer: OptimizerConfig = OptimizerConfig()
    unet: DenoisingConfig = DenoisingConfig()
    vae: AutoencoderConfig = AutoencoderConfig()
    clip: ContrastiveConfig = ContrastiveConfig()
    depth: MonodepthConfig = MonodepthConfig()
    prior: PriorTrainingConfig = PriorTrainingConfig()
    split: SplitTrainingConfig = SplitTrainingConfig()
    mesh: MeshConfig = MeshConfig()
    microbatches: MicrobatchConfig = MicrobatchConfig()
    prediction_type: Literal["v_prediction", "epsilon", "sample", "flow_prediction"] | None = None
    schedule: NoiseSchedule | None = None
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    remat: bool = False
    seed: int = 0
    log_every: int = 50
    max_skipped: int = 20
    checkpoint: CheckpointConfig = CheckpointConfig()
    preview: PreviewConfig = PreviewConfig()

    def __post_init__(self):
        if not self.stages:
            raise UserError("a run needs at least one stage")
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise UserError(f"stages need names of their own: {', '.join(names)}")
        for stage in range(len(names)):
            self._check_kinds(self.stages[stage], self.stage_data(stage))  # now, not when it comes to that stage
        for name in ("log_every", "max_skipped"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, not at least 1")
        if self.component != "unet" and (self.prediction_type or self.schedule):
            raise UserError(f"prediction_type and schedule are those of the U-Net, but component is {self.component}")
        if self.objective == SPLIT and self.preview.every:
            raise UserError(f"preview.every is for edits by a prompt, which the objective {SPLIT} does not learn")
        if self.vae.decoder_only and self.optimizer.weight_decay:
            raise UserError("vae.decoder_only leaves the encoder as it is: optimizer.weight_decay must be 0")

    def _check_kinds(self, stage: StageConfig, data: DataConfig) -> None:
        """Batches have the structure that a stage names, or, if it names none, that the recipe adds to the model."""
        named, whose = stage.structure, ""
        if isinstance(named, bool):
            asks = named and self.component == "unet"
            added, whose = self.unet.inputs, " (unet.inputs)"
            if self.unet.structure_kinds:
                added, whose = self.unet.structure_kinds, " (unet.structure_kinds)"
            named = tuple(kind for kind in added if asks and kind != KNOWN)
        check_kinds(named)
        if data.inputs != "pixels" and (missing := sorted(set(named) - set(data.held))):
            there = ", ".join(data.held) or "none"
            raise UserError(f"stage {stage.name} sees {missing[0]}{whose}, but batches have {there} (data.structure)")

    def seen_kinds(self, stage: StageConfig, unet: DenoiserConfig) -> tuple[str, ...]:
        """The kinds of structure that the U-Net sees in a stage; none where another component is trained.

        Where the stage names none, it sees those of its controls, those that it cannot do without, those that the
        recipe asks for (`DenoisingConfig.inputs`), and of the others what there is (`DataConfig.has`).

        Args:
            stage: of this run.
            unet: the shape of the network.

        Returns:
            Names, in the order of `DenoiserConfig.kinds`.

        Raises:
            UserError: the stage names one that the U-Net does not take, or is to see structure and there is none of
                what it takes.
        """
        if self.component != "unet":
            return ()
        kinds = stage.kinds(unet.kinds)
        if isinstance(stage.structure, tuple):
            return kinds
        optional = set(unet.structures) - {*unet.required, *self.unet.inputs}
        seen = tuple(kind for kind in kinds if kind not in optional or self.data.has(kind))
        if kinds and not seen:
            raise UserError(
                f"stage {stage.name} would see nothing: the model takes {', '.join(kinds)}, and batches have "
                f"{', '.join(self.data.held) or 'none'} (data.structure); structure=False trains without"
            )
        return seen

    @property
    def total_steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def first_step(self, stage: int) -> int:
        """The step of the run with which a stage begins."""
        return sum(s.steps for s in self.stages[:stage])

    def stage_data(self, stage: int) -> DataConfig:
        """The batches of a stage: other draws in each, so that none repeats the one before."""
        names = ("image_probability", "structure_levels")
        chosen = {name: value for name in names if (value := getattr(self.stages[stage], name)) is not None}
        try:
            return dataclasses.replace(self.data, **chosen, seed=(self.data.seed + 7919 * stage) % 2**32)
        except ValueError as error:
            raise UserError(f"stage {self.stages[stage].name}: {error}") from None

    def family(self, base: Gen1Config) -> Gen1Config:
        """The model that is trained: that of `model`, with the inputs, prediction, noise and networks asked for.

        Raises:
            UserError: they do not go together.
        """
        if self.component == "unet":
            if self.unet.size is not None and not self.from_scratch:
                raise UserError("unet.size: the denoiser of another size begins with nothing: set from_scratch=True")
            base = dataclasses.replace(base, unet=self.unet.network(base.unet))
        base = self._predicting(base)
        if self.objective == CONSISTENCY:
            base = distilled(base, self.unet.consistency)
        if self.objective == SPLIT:
            base = self.split.family(base)
        changes = {} if base.depth is None else {"depth": self.depth.network(base.depth)}
        if self.component == "clip" and base.clip is not None:
            changes["clip"] = self.clip.network(base.clip)
            if changes["clip"] != base.clip and not self.from_scratch:
                raise UserError("clip.hidden_size: a CLIP of another width begins with nothing: set from_scratch=True")
            if changes["clip"].text != base.clip.text:
                changes["prior"] = None  # it reads the states of the model's own
        return dataclasses.replace(base, **changes)

    def _predicting(self, base: Gen1Config) -> Gen1Config:
        """The model with the prediction and the noise schedule asked for, and a sampler for that."""
        kind, schedule = self.prediction_type or base.unet.prediction_type, self.schedule or base.schedule
        sampler = base.sampler if base.sampler in samplers_of(schedule) else default_sampler(schedule)
        unet = dataclasses.replace(base.unet, prediction_type=kind)
        try:
            return dataclasses.replace(base, unet=unet, schedule=schedule, sampler=sampler)
        except ValueError as error:
            raise UserError(f"prediction_type and schedule: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Nested dicts of plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """The inverse of `to_dict`; absent fields keep their defaults.

        Raises:
            ValueError: an unknown field, or a value of the wrong type or out of range, by name.
        """
        return from_plain(cls, values)
