"""The adapter that a workdir has trained (`unet.lora`), as one file for `--adapter`, diffusers or kohya's programs."""

from pathlib import Path

from gen1_jax.checkpoints.trained import TrainedModel
from gen1_jax.exporting.networks import ExportError, Written, refuse_other_kinds, relative_difference
from gen1_jax.models.module import flatten
from gen1_jax.pretrained.folder import ModelSource
from gen1_jax.pretrained.lora import WithLoRA
from gen1_jax.pretrained.lora_write import write_lora

ADAPTER = "adapter.safetensors"


def write_adapter(source: ModelSource, folder: Path, spelling: str) -> Written:
    """Write the adapter, and read it back into the model that it was trained on.

    Raises:
        ExportError: the model is no workdir of an adapter, is no U-Net, or was distilled.
    """
    if not isinstance(source, TrainedModel):
        raise ExportError(f"--format lora writes the adapter of a training workdir, and {source.name} is none")
    refuse_other_kinds(source.config.unet, "lora")
    if source.config.unet.guidance_embedded:
        raise ExportError(
            "--format lora: what a distilled U-Net is told of guidance its base has no layer for: export it whole"
        )
    write_trained_adapter(source, folder / ADAPTER, spelling)
    read, trained = (
        flatten(model.stored(source.component)) for model in (WithLoRA(source.base, [(folder / ADAPTER, 1.0)]), source)
    )
    worst = max(relative_difference(read[path], trained[path]) for path in source.adapter())
    return Written({"kernels": worst}, {"spelling": spelling})


def write_trained_adapter(source: TrainedModel, file: Path, spelling: str) -> None:
    """One file of what a workdir has come to, and of the subject that it was shown."""
    subject = next((subject for subject, _ in source.subjects), None)
    about = {"gen1_jax_model": source.base.name, "gen1_jax_step": str(source.step)}
    write_lora(file, {source.component: source.adapter()}, spelling=spelling, subject=subject, metadata=about)
