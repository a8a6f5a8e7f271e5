"""Other editors' algorithms with the weights of the model that is measured: each a function of an `Editor`.

What begins at the input inverts it, told what the input shows, and samples back, told what is asked for.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Array, Float, Int

from gen1_jax.diffusion import Guidance, ddim_inversion, guidance_runs
from gen1_jax.editing.sampling import GuidedSampler
from gen1_jax.editing.settings import EditSettings
from gen1_jax.evaluation.editor import Editor, Way
from gen1_jax.evaluation.inputs import Fields
from gen1_jax.models.conditions import Conditions

INVERSION = "DDIM inversion"
_WITH_DEPTH = " with depth"

Latents = Float[Array, "b t i j c"]
Indices = Int[np.ndarray, " b"]


def rivals(settings: EditSettings) -> Iterator[Fields]:
    """Those that every model can be asked for.

    Args:
        settings: of the edit, filled in; rivals have its steps, guidance and structure, and DDIM's sampler.
    """
    settings = dataclasses.replace(settings, sampler="ddim")
    for sees_structure in (False, True):
        way, suffix = Way(settings=settings, sees_structure=sees_structure), _WITH_DEPTH * sees_structure
        told = ", told the depth both ways" if sees_structure else ""
        what = f"the input is led up to noise by DDIM, then down again, told the new content{told}"
        yield INVERSION + suffix, None, what, _sampling(inverted_edit, way)


def inverted_edit(editor: Editor, way: Way, indices: Indices) -> Latents:
    """DDIM inversion (https://arxiv.org/abs/2010.02502, section 5.4), then DDIM with the new content."""
    noise = inverted(editor, way, editor.told(way, indices, editor.source_content), editor.latents[indices])
    return guided(editor, way, editor.told(way, indices), noise)


def inverted(editor: Editor, way: Way, told: Conditions, latents: Latents | Float[np.ndarray, "b t i j c"]) -> Latents:
    """The noise that DDIM takes to these latents, told this, without guidance: with w above 1 inversion diverges."""
    down = _sampler(editor, way)
    ascending = ddim_inversion(down.schedule, down.tables.timesteps, down.unet.config.prediction_type)
    parts = [(0, len(ascending.timesteps), Guidance.of(1.0, 1.0))]
    return editor.run(down.with_tables(ascending), told, latents, parts)


def guided(editor: Editor, way: Way, told: Conditions, noise: Latents) -> Latents:
    """Sampled from the noise with the guidance of the edit."""
    sampler = _sampler(editor, way)
    return editor.run(sampler, told, noise, _guidance(way, sampler))


def _sampler(editor: Editor, way: Way) -> GuidedSampler:
    return editor.pipeline.sampler(way.settings)


def _guidance(way: Way, sampler: GuidedSampler) -> list[tuple[int, int, Guidance]]:
    return guidance_runs(way.settings.guidance, len(sampler.tables.timesteps), way.settings.guidance_interval)


def _sampling(sample: Callable[[Editor, Way, Indices], Latents], way: Way) -> Callable[[Editor], np.ndarray]:
    return lambda editor: editor.decoded(lambda indices: sample(editor, way, indices))
