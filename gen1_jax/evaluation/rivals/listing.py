"""Rivals as methods of the benchmark: their names and settings, in words what each is, and what edits by it."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial

from gen1_jax.diffusion import FLOW_SAMPLERS
from gen1_jax.editing.settings import EditSettings
from gen1_jax.evaluation.editor import Editor
from gen1_jax.evaluation.inputs import Fields
from gen1_jax.evaluation.rivals.atlas import atlas_edit
from gen1_jax.evaluation.rivals.by_inversion import (
    bivdiff_edit,
    cross_frame_edit,
    edit_by_friendly_noise,
    inverted_edit,
)
from gen1_jax.evaluation.rivals.fatezero import fatezero_edit
from gen1_jax.evaluation.rivals.inversion import Indices, Latents
from gen1_jax.evaluation.rivals.tokenflow import tokenflow_edit
from gen1_jax.evaluation.rivals.tuning import tuned_edit
from gen1_jax.evaluation.told import Way
from gen1_jax.evaluation.worlds import EditClips
from gen1_jax.models.attended import first_and_previous, first_frame
from gen1_jax.models.structure import structure_kind
from gen1_jax.pretrained.family import Gen1Config

INVERSION, FRIENDLY, TUNED, BIVDIFF = "DDIM inversion", "edit friendly noise", "Tune-A-Video", "BIVDiff"
TOKENFLOW, FATEZERO = "TokenFlow", "FateZero"
ATLAS, ATLAS_TRUE = "layered atlas", "layered atlas true masks"
WITH_DEPTH = " with depth"

FRIENDLY_STRENGTHS = (0.4, 0.64, 1.0)
"""Shares of the steps that are taken; the paper takes 64 of 100."""

CROSS_FRAME = {
    "EVE attention": (first_frame, "the first"),
    "Pix2Video attention": (first_and_previous, "the first and of the one before"),
}
"""At which frames those of the image model look, by method; and in words."""

KEY_INTERVALS = (2, 4)
"""Frames of which TokenFlow edits one as a key frame; there 8, of clips of 40 to 200."""

MIXING = (0.0, 0.25, 1.0)
"""Share of the image model's inversion in BIVDiff's; there 1 for a ControlNet, 0.25 for Prompt-to-Prompt."""


def rivals(settings: EditSettings) -> Iterator[Fields]:
    """Those that every model can be asked for.

    Args:
        settings: of the edit, filled in; rivals have its steps, guidance and structure, and DDIM's sampler, or Euler's
            of rectified flow, which has none that draws noise.
    """
    draws_noise, settings = settings.sampler not in FLOW_SAMPLERS, _inverted_by(settings)
    for sees_structure in (False, True):
        way, suffix = Way(settings=settings, sees_structure=sees_structure), WITH_DEPTH * sees_structure
        told = ", told the depth both ways" if sees_structure else ""
        what = f"the input is led up to noise by DDIM, then down again, told the new content{told}"
        yield INVERSION + suffix, None, what, _sampling(inverted_edit, way)
        for strength in FRIENDLY_STRENGTHS * draws_noise:
            what = f"DDPM by the noise that leads to the input at each of the last {strength:.0%} of the steps{told}"
            part = dataclasses.replace(way, strength=strength)
            yield FRIENDLY + suffix, strength, what, _sampling(edit_by_friendly_noise, part)
        what = f"the same as {INVERSION} by weights that were tuned on each clip{told}"
        yield TUNED + suffix, None, what, _sampling(tuned_edit, way)
    way = Way(settings=settings)
    if all(structure_kind(use.kind).is_estimated for use in settings.structures):
        layers = {ATLAS: "what moves otherwise than most, and the rest", ATLAS_TRUE: "all objects, and the rest"}
        for group, of in layers.items():
            what = f"two pictures, of {of}, are fitted to the clip, edited and laid under its frames"
            yield group, None, what, partial(atlas_edit, way=way, true_masks=group == ATLAS_TRUE)
    for group, (where, read) in CROSS_FRAME.items():
        what = f"the image model, told the depth, from inverted noise; every frame has keys and values of {read}"
        yield group, None, what, _sampling(partial(cross_frame_edit, where=where), way)
    for interval in KEY_INTERVALS:
        what = (
            f"the image model, told the depth, from inverted noise; one frame in {interval} is edited with all such, "
        )
        what += "the others have what attention gives these where the input is most alike"
        yield TOKENFLOW, interval, what, _sampling(partial(tokenflow_edit, interval=interval), way)
    for mixing in MIXING:
        what = (
            f"frames edited one by one, led up to noise by the image model ({mixing:.0%}) and the video model, and down"
        )
        yield BIVDIFF, mixing, f"{what} by the video model", _sampling(partial(bivdiff_edit, mixing=mixing), way)


def text_rivals(settings: EditSettings, config: Gen1Config) -> Iterator[Fields]:
    """Those that only models which read text can be asked for: they need a place of each word.

    Args:
        settings: see `rivals`.
        config: of the model.
    """
    if not config.unet.content.reads_text:
        return
    for sees_structure in (False, True):
        way = Way(settings=_inverted_by(settings), sees_structure=sees_structure)
        what = "the image model from inverted noise, told a caption of the input; maps of attention from there are kept"
        what += ", of self-attention where no word of the caption changes, of cross-attention of the words that stay"
        told = "; told the depth both ways" if sees_structure else ""
        yield FATEZERO + WITH_DEPTH * sees_structure, None, what + told, _sampling(fatezero_edit, way)


def _inverted_by(settings: EditSettings) -> EditSettings:
    """The same by the sampler of first order, whose steps can be taken back."""
    return dataclasses.replace(settings, sampler="euler" if settings.sampler in FLOW_SAMPLERS else "ddim")


def _sampling(sample: Callable[[Editor, Way, Indices], Latents], way: Way) -> Callable[[Editor], EditClips]:
    return lambda editor: editor.decoded(lambda indices: sample(editor, way, indices))
