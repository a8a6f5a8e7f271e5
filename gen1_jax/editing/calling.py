"""`pipe(...)`: an edit by the names that diffusers' pipelines of videos have for what they are told."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from gen1_jax.editing.inputs import Clip, Picture, is_several, prompts_and_seeds
from gen1_jax.editing.result import EditResult, VideoOutput
from gen1_jax.errors import UserError, counted

if TYPE_CHECKING:
    from gen1_jax.editing.pipeline import Gen1Pipeline

_INSTEAD = {
    "pt": 'take "np": torch.from_numpy(frames).movedim(-1, -3) are the tensors that diffusers gives',
    "latent": "take pipe.sample, which gives latents",
}


def call_pipeline(
    self: "Gen1Pipeline",
    video: Clip,
    prompt: str | Sequence[str | None] | None = None,
    negative_prompt: str | Sequence[str] | None = None,
    image: Picture | Sequence[Picture] | None = None,
    *,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    temporal_guidance_scale: float = 1.0,
    strength: float = 1.0,
    num_videos_per_prompt: int = 1,
    generator: Any = None,
    seed: int | Sequence[int] | np.ndarray | None = None,
    output_type: str = "pil",
    return_dict: bool = True,
    **more: Any,
) -> VideoOutput | tuple:
    """Edits a clip, told as a pipeline of diffusers is; `edit` is the same in this package's own terms.

    Args:
        video: the clip: a path, (T, H, W, 3) of uint8 or of floats from 0 to 1, or a list of pictures.
        prompt: one or several, each of which becomes a video.
        negative_prompt, image, num_inference_steps, guidance_scale, temporal_guidance_scale, strength: see `edit`.
        num_videos_per_prompt: how many videos each prompt becomes; the k-th of each has the seed plus k.
        generator: the source of the seed: a `torch.Generator`, of which the seed is read that it was given; a
            `numpy.random.Generator`, from which one is drawn; or a list of such, one for each video.
        seed: instead of it, of all randomness, or a list, one for each video; 0 without either.
        output_type: "pil" or "np".
        return_dict: False gives the tuple (frames,).
        **more: all else that `edit` takes: structure, structure_blur, mask, known, sampler, progress, …

    Returns:
        The videos: those of the first prompt, then those of the next.

    Raises:
        UserError: see `edit`; an output type that is unknown, or as many seeds as there are not videos.
    """
    if output_type not in ("pil", "np"):
        raise UserError(f"output_type {output_type!r}: {_INSTEAD.get(output_type, 'it is pil or np')}")
    if num_videos_per_prompt < 1:
        raise UserError(f"num_videos_per_prompt must be 1 or more, got {num_videos_per_prompt}")
    if generator is not None and seed is not None:
        raise UserError("generator and seed both say where randomness comes from: give one of them")
    if is_several(negative_prompt):
        raise UserError("negative_prompt is one text for all prompts, not a list")
    prompts = [text for text in prompts_and_seeds(prompt, 0)[0] for _ in range(num_videos_per_prompt)]
    seeds = _seeds(seed if generator is None else generator, len(prompts), num_videos_per_prompt)
    numbers = dict(num_inference_steps=num_inference_steps, guidance_scale=guidance_scale, strength=strength)
    numbers |= dict(temporal_guidance_scale=temporal_guidance_scale, seed=seeds)
    edits = self.edit(video, prompts, image, negative_prompt=negative_prompt, **numbers, **more)
    frames = _pictures(edits) if output_type == "pil" else np.stack([e.frames for e in edits]) / np.float32(255)
    return VideoOutput(frames=frames, edits=edits, seeds=seeds) if return_dict else (frames,)


def _pictures(edits: Sequence[EditResult]) -> list[list[Image.Image]]:
    return [[Image.fromarray(frame) for frame in edit.frames] for edit in edits]


def _seeds(given: Any, videos: int, per_prompt: int) -> list[int]:
    """One for each video."""
    if not is_several(given):
        first = _seed(given)
        return [first + k for _ in range(videos // per_prompt) for k in range(per_prompt)]
    if len(given) != videos:
        raise UserError(f"{counted(len(given), 'seed')} for {counted(videos, 'video')}: give one, or one for each")
    return [_seed(one) for one in given]


def _seed(given: Any) -> int:
    """A seed by any of what people draw random numbers from."""
    if given is None:
        return 0
    if isinstance(given, np.random.Generator):
        return int(given.integers(2**31))
    if hasattr(given, "initial_seed"):  # of torch, which need not be there
        return int(given.initial_seed())
    if isinstance(given, int | np.integer):
        return int(given)
    raise UserError(f"seed or generator must be a whole number or a generator of torch or NumPy, got {given!r:.60}")
