"""`pipe.edit(...)`: an edit of a clip that is held in memory. `editing.files` and `editing.long` edit files."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gen1_jax.editing.contents import SOUND, Content, ContentUse, contents_given
from gen1_jax.editing.inputs import Clip, Picture, is_several, prompts_and_seeds, resize_frames, to_frames, to_pictures
from gen1_jax.editing.known import KnownFrames, read_known
from gen1_jax.editing.maps import ClipGeometry, ready_maps
from gen1_jax.editing.masks import GivenMask, of_edit, read_mask
from gen1_jax.editing.masks.regions import composited_regions, contents_of, regions_of, sample_regions
from gen1_jax.editing.result import EditResult
from gen1_jax.editing.sampling import Watch
from gen1_jax.editing.settings import EditSettings, steps_as_text, structures_as_text
from gen1_jax.editing.structures import Progress
from gen1_jax.errors import UserError

if TYPE_CHECKING:
    from gen1_jax.editing.pipeline import Gen1Pipeline


def edit_clip(
    self: "Gen1Pipeline",
    frames: Clip,
    prompt: str | Sequence[str | None] | None = None,
    image: Picture | Sequence[Picture] | None = None,
    structure_blur: int = 0,
    guidance_scale: float | None = None,
    temporal_guidance_scale: float = 1.0,
    num_inference_steps: int | None = None,
    seed: int | Sequence[int] | np.ndarray = 0,
    sampler: str | None = None,
    progress: Progress | None = None,
    *,
    guidance_interval: tuple[float, float] | None = None,
    negative_prompt: str | None = None,
    structure: str | Mapping[str, float] | None = None,
    structure_from: Mapping[str, Clip] | None = None,
    strength: float = 1.0,
    clip_skip: int = 1,
    image_scale: float = 1.0,
    shift_windows: bool = EditSettings.shift_windows,
    mask: GivenMask | None = None,
    mask_feather: float | int = EditSettings.mask_feather,
    background: str | None = None,
    shared_noise: bool = False,
    steady_depth: bool = False,
    known: KnownFrames | None = None,
    keyframe_stride: int = 1,
    source_guidance_scale: float | None = None,
    contents: Sequence[Content | ContentUse] | None = None,
    blend: str = EditSettings.blend,
    inverted_noise: bool = False,
    propagate: Sequence[int] | str | None = None,
    deep_cache: int = 1,
    watch: Watch | None = None,
) -> EditResult | list[EditResult]:
    """Keep the structure of a clip and give it the content of a prompt or of a picture.

    Args:
        frames: uint8 RGB (T, H, W, 3), any size and number; or a list of arrays (H, W, 3) or pictures of PIL; or
            the path of a video, a folder of pictures or a picture. One frame is an image.
        prompt: what the result should look like, or a list of such; needs a model with a prior or a text encoder.
        image: a picture (H, W, 3), one of PIL, or the path of one, instead of a prompt; for a model with an adapter
            for pictures beside it, and several.
        structure_blur: t_s, 0 to 7.
        guidance_scale: w, by default the model's own: 7.5 at full size, 1.5 for "lcm" and "tcd".
        temporal_guidance_scale: w_t.
        num_inference_steps: steps of the sampler, by default the model's own: 50 at full size, 6 for "lcm", "tcd".
        seed: of all randomness, or a list of such, one for each prompt; of a list one prompt is edited by each.
        sampler: "ddim", "dpm++", "lcm" or "tcd", for a model of rectified flow "euler" or "midpoint"; by default the
            model's own.
        progress: called with (stage, done, total).
        guidance_interval: (start, end) of the part of the steps, 0 to 1, in which there is guidance; outside it
            w = w_t = 1, which costs one evaluation a step. By default the model's own, mostly (0, 1).
        negative_prompt: what the result should not look like.
        structure: which kinds of structure are followed and how much, {"depth": 0.9, "canny": 0.5},
            "depth=0.9,canny=0.5" or "depth"; by default the first that the model knows.
        structure_from: ready maps of a kind, as pictures, in place of an estimate: one a frame, or one for all.
        strength: how much of the way from noise is sampled, in (0, 1]; below 1 colours of the input are kept.
        clip_skip: layer of the text encoder that is read, counted from the end.
        image_scale: how much a picture counts beside the prompt.
        shift_windows: whether the seams of a long clip's windows move from step to step, for at most one window more.
        mask: what may change, see `editing.masks`: the notation of `--mask`, a picture, or an array (H, W) or
            (T, H, W) of bool, uint8 or 0 to 1. Outside of it the frames stay as they are.
        mask_feather: pixels over which the edit fades in, from the mask's border inwards.
        background: what all outside of the mask should look like; what has neither prompt nor image stays. Without
            a mask the background is what is far.
        shared_noise: whether a long clip's windows begin with the same noise, in other orders.
        steady_depth: whether depth that is estimated frame by frame is brought to one scale from frame to frame.
        known: pictures by the number of their frame, {0: "painted.png"}, that the edit keeps and carries on; or
            frames and a mask (T, H, W), 1 where they count. For a model that has an input for them.
        keyframe_stride: every how many-th frame is sampled first, at full cost; the others are filled in between.
        source_guidance_scale: w_src, how closely the video itself is followed, by a model that sees it ("source").
        contents: several prompts and pictures in the place of `prompt` and `image`, or pairs of one and its weight: a
            number, or several, which are a curve along the clip: [("a clay world", (1, 0)), ("a lava world", (0, 1))].
        blend: "predictions" guides towards each of them by its part of w, with an evaluation for each; "embeddings"
            takes their mean.
        inverted_noise: whether the edit begins with the noise that leads to the input rather than with random noise:
            it is steadier and costs an evaluation a step more; the seed is left what the prior draws.
        propagate: steps of the sampler, counted from 1, after which frames are mixed with their neighbours along the
            clip's motion, see `editing.motion`; few and late ones.
        deep_cache: every how many-th step evaluates the whole network, the others its finest level alone; for clips
            that the model sees at once.
        watch: called after each step with how many are done, how many there are, and the running latents.

    Returns:
        The edited frames, of the shape of the input, and the structure that was seen; a list of such for a list of
        prompts or of seeds. Structure and mask are those of the first, but for a mask that is found by the prompt.

    Raises:
        ValueError: neither prompt nor image or too much of it, no frames, or a setting out of range.
    """
    prompts, seeds = prompts_and_seeds(prompt, seed)
    settings = EditSettings(
        structure=structures_as_text(structure),
        structure_blur=structure_blur,
        guidance_scale=guidance_scale,
        temporal_guidance_scale=temporal_guidance_scale,
        guidance_interval=guidance_interval,
        num_inference_steps=num_inference_steps,
        seed=seeds[0],
        sampler=sampler,
        strength=strength,
        clip_skip=clip_skip,
        image_scale=image_scale,
        shift_windows=shift_windows,
        mask_feather=mask_feather,
        shared_noise=shared_noise,
        steady_depth=steady_depth,
        keyframe_stride=keyframe_stride,
        source_guidance_scale=source_guidance_scale,
        blend=blend,
        inverted_noise=inverted_noise,
        propagate=steps_as_text(propagate),
        deep_cache=deep_cache,
    ).of(self.config)
    each = [dataclasses.replace(settings, seed=one) for one in seeds]
    pictures, clip, uses = to_pictures(image), to_frames(frames), contents_given(contents)
    settings.check_frames(len(clip), self.config.num_frames)
    if uses and (pictures or prompts[0] is not None):
        raise UserError("contents stand in the place of prompt and image: give either")
    if any(use.weight == SOUND for use in uses):
        raise UserError(f"the weight {SOUND} is for gen1 edit; give the loudness of each frame as a list of numbers")
    encoded = [
        contents_of(self, text, pictures, own, negative_prompt, background, uses)
        for text, own in zip(prompts, each, strict=True)
    ]
    size = clip.shape[1:3]
    small = resize_frames(clip, self.config.working_size(*size))
    geometry = ClipGeometry(shape=size)
    ready = {
        kind: ready_maps(maps, self.config.structure_kind(kind), len(small), small.shape[1:3], geometry)
        for kind, maps in (structure_from or {}).items()
    }
    estimated = {kind: x for kind, x in ready.items() if kind == "depth"}
    maps = self.read_structure(small, settings, ready, progress, estimated)
    find = partial(read_mask, self, mask, background, small, maps, settings, geometry, progress, estimated)
    masked = None if of_edit(mask) else find()
    given = read_known(self, known, len(small), small.shape[1:3])
    results = []
    for (content, behind), own in zip(encoded, each, strict=True):
        masked = find(content) if of_edit(mask) else masked
        regions = regions_of(content, behind, masked)
        latents = sample_regions(self, regions, maps, own, progress, watch, frames=small, given=given)
        edits = [self.decode(one, progress) for one in latents]
        edited = composited_regions(iter(clip), regions, edits, size, settings.mask_feather)
        seen = None if masked is None else masked.at(size)
        results.append(EditResult(frames=np.stack(list(edited)), structures=self.pictures_of(maps), mask=seen))
    return results if is_several(prompt) or is_several(seed) else results[0]
