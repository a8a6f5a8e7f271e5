"""`gen1 evaluate --benchmark upscaling`: small worlds enlarged, beside the exact render at that size.

worlds at twice the size ──mean of 2x2──► small ─┬─► bicubic ───────────┐
          │                                      ├─► upscaler ──────────┼─► scores
          ├──► encoded and decoded ──────────────┼─► with propagation ──┤
          └──► exact ────────────────────────────┴──────────────────────┘
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import reduce
from jaxtyping import UInt8

from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import EditSettings, steps_as_text
from gen1_jax.editing.structures import to_uint8
from gen1_jax.errors import UserError
from gen1_jax.evaluation.judge import Judge
from gen1_jax.evaluation.scores import Measure
from gen1_jax.evaluation.worlds import Worlds
from gen1_jax.measures import bootstrap, embedding_distance, psnr, ssim, warp_error
from gen1_jax.models.pictures import pixels_to_images
from gen1_jax.models.structure import LOW_RESOLUTION

MEASURES = {
    "psnr": Measure("higher", "dB, at most 100", "PSNR to the exact render"),
    "ssim": Measure("higher", "-1 to 1", "structural similarity to it"),
    "lpips": Measure("lower", "from 0", "LPIPS to it"),
    "embedding_distance": Measure("lower", "0 to 2", "1 - cosine of the judge's embeddings of a frame and the exact"),
    "warp_error": Measure("lower", "0 to 1", "colour change along the true motion, which the exact has, too"),
    "consistency": Measure("higher", "dB, at most 100", "PSNR of the result, made small again, to the input"),
}
"""Of each way."""

EXACT, ENCODED, BICUBIC = "exact render", "encoded and decoded", "bicubic"
UPSCALED, PROPAGATED = "upscaler", "upscaler, propagated"

_LATE = (0.75, 0.85, 0.95)  # of the steps: when x_0 is propagated where nothing else is said

Distances = Callable[..., Any]
"""Of pictures in [-1, 1] and others, one for each pair: `models.lpips.LPIPS`."""

Clip = UInt8[np.ndarray, "t h w 3"]


def upscaling_size(pipeline: Gen1Pipeline) -> tuple[int, int]:
    """(height, width) of the exact renders: what a model of this kind makes of pictures of its own size.

    Raises:
        UserError: the model enlarges nothing.
    """
    config = pipeline.config
    if LOW_RESOLUTION not in config.unet.structures:
        raise UserError(f"{pipeline.source.name} does not enlarge videos: name a model of configs/nano_upscaler.py")
    scale = config.structure_kind(LOW_RESOLUTION).scale
    return scale * config.height, scale * config.width


def measure_upscaling(
    pipeline: Gen1Pipeline,
    worlds: Worlds,
    settings: EditSettings,
    judge: Judge,
    lpips: Distances | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> tuple[dict[str, dict[str, list[float]]], UInt8[np.ndarray, "n H W 3"]]:
    """Scores of each way to enlarge: by measure, one a clip.

    Args:
        pipeline: the upscaler.
        worlds: of its `upscaling_size`.
        settings: `structure_blur` is its noise level, `propagate` the steps of the way that does.
        judge: embeds frames.
        lpips: distances of two batches of pictures; None leaves that measure out.
        progress: called with clips done and all.

    Returns:
        The scores, and the middle frame of the first clips: a clip a row, small, then each way.
    """
    scores: dict[str, dict[str, list[float]]] = {}
    rows = []
    for index, exact in enumerate(worlds.clips.source):
        clips, small = _ways(pipeline, exact, settings)
        moved = jnp.asarray(worlds.clips.flow[index])[None], jnp.asarray(worlds.clips.ids[index])[None]
        seen = judge.embed(exact)[None]
        for way, clip in clips.items():
            unit = [jnp.asarray(x, jnp.float32)[None] / 255 for x in (clip, exact, small)]
            found = {name: float(value[0]) for name, value in _of_pixels(*unit, *moved).items()}
            found["embedding_distance"] = float(embedding_distance(judge.embed(clip)[None], seen)[0])
            if lpips is not None:
                found["lpips"] = _lpips(lpips, clip, exact)
            for name, value in found.items():
                scores.setdefault(way, {}).setdefault(name, []).append(value)
        middle = len(exact) // 2
        repeated = small[middle].repeat(exact.shape[1] // small.shape[1], 0).repeat(exact.shape[2] // small.shape[2], 1)
        rows.append(np.concatenate([repeated, *(clip[middle] for clip in clips.values())], axis=1))
        progress(index + 1, len(worlds))
    return scores, np.stack(rows[:6])


def table(scores: Mapping[str, Mapping[str, list[float]]]) -> list[str]:
    """A line for each way, with intervals of 95%."""
    names = [name for name in MEASURES if name in next(iter(scores.values()))]
    lines = [f"{'':22}" + "".join(f"{name:>28}" for name in names)]
    for way, measured in scores.items():
        lines.append(f"{way:22}" + "".join(f"{bootstrap(np.array(measured[name]))!s:>28}" for name in names))
    told = [f"{name}: {(m := MEASURES[name]).definition} ({m.better} is better)" for name in names]
    return [*lines, *told]


def _ways(
    pipeline: Gen1Pipeline, exact: Clip, settings: EditSettings
) -> tuple[dict[str, Clip], UInt8[np.ndarray, "t i j 3"]]:
    """The clip in each way, the exact one last, and what all but that are made from."""
    kind = pipeline.config.structure_kind(LOW_RESOLUTION)
    mean = reduce(exact.astype(np.float32), "t (h i) (w j) c -> t h w c", "mean", i=kind.scale, j=kind.scale)
    small = np.rint(mean).astype(np.uint8)
    repeated = small.repeat(kind.scale, 1).repeat(kind.scale, 2)
    bicubic = to_uint8(pipeline.structures.degrade(kind, np.asarray(pixels_to_images(repeated)), 0))
    numbers = ("guidance_scale", "temporal_guidance_scale", "num_inference_steps", "sampler", "seed")
    how = {name: getattr(settings, name) for name in numbers} | dict(noise_level=settings.structure_blur)
    steps = settings.num_inference_steps or pipeline.config.num_inference_steps
    late = settings.propagate or steps_as_text([max(1, math.ceil(share * steps)) for share in _LATE])
    upscaled = lambda propagate: pipeline.upscale(small, scale=kind.scale, **how, propagate=propagate).frames
    decoded = np.stack([*pipeline.decode(pipeline.encode_frames(exact))])
    ways = {BICUBIC: bicubic, UPSCALED: upscaled(None), PROPAGATED: upscaled(late), ENCODED: decoded, EXACT: exact}
    return ways, small


@jax.jit
def _of_pixels(clip, exact, small, flow, ids) -> dict[str, jax.Array]:
    scale = clip.shape[2] // small.shape[2]
    again = reduce(clip, "b t (h i) (w j) c -> b t h w c", "mean", i=scale, j=scale)
    return {
        "psnr": psnr(clip, exact),
        "ssim": ssim(clip, exact),
        "warp_error": warp_error(clip, flow, ids),
        "consistency": psnr(again, small),
    }


def _lpips(network: Distances, clip: Clip, exact: Clip) -> float:
    return float(np.mean(network(*(pixels_to_images(frames) for frames in (clip, exact)))))
