"""A fixed edit, sampled as training goes on: what the EMA weights make of one clip, and how it measures."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gen1_jax.editing.pipeline import Gen1Pipeline, resize
from gen1_jax.measures import frame_consistency, prompt_consistency
from gen1_jax.media import VideoWriter, open_video, read_image, side_by_side
from gen1_jax.models.module import Params, cast_kernels
from gen1_jax.parallel.sharding import Layout
from gen1_jax.pretrained.folder import ModelSource
from gen1_jax.training.config import TrainConfig

FOLDER = "previews"
_DEMO = Path(__file__).parents[1] / "assets" / "demo.mp4"


class Preview:
    """The edit of `TrainConfig.preview`, on one device of the first process.

    Args:
        config: of the run.
        workdir: previews/STEP.mp4 is written there: input, structure, edit.
        source: gives the frozen networks.
    """

    def __init__(self, config: TrainConfig, workdir: Path, source: ModelSource):
        self.config, self.folder, self._source = config.preview, workdir / FOLDER, source
        self._dtype = jnp.dtype(config.dtype)
        self._pipeline: Gen1Pipeline | None = None

    def __call__(self, step: int, ema: Params, layout: Layout) -> dict[str, Any]:
        """Samples, writes the file and measures. All processes call it; those but the first return nothing."""
        gather = jax.jit(lambda p: cast_kernels(p, self._dtype), out_shardings=layout.replicated())
        weights = jax.tree.map(lambda x: x.addressable_data(0), gather(ema))
        if jax.process_index():
            return {}
        if self._pipeline is None:
            self._pipeline = Gen1Pipeline(_WithUNet(self._source, weights), self._dtype)
            self._frames, self._rate = self._read()
        self._pipeline.unet.params = weights
        return self._edit(self._pipeline, step)

    def _edit(self, pipeline: Gen1Pipeline, step: int) -> dict[str, Any]:
        config = self.config
        picture = None if config.image is None else read_image(config.image)
        out = pipeline.edit(
            self._frames,
            prompt=config.prompt if picture is None else None,
            image=picture,
            guidance_scale=config.guidance_scale,
            temporal_guidance_scale=config.temporal_guidance_scale,
            num_inference_steps=config.num_inference_steps,
        )
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"{step:07}.mp4"
        views = [
            side_by_side([before, np.repeat(depth[..., None], 3, axis=-1), after])
            for before, depth, after in zip(self._frames, out.structure, out.frames, strict=True)
        ]
        with VideoWriter(path, width=views[0].shape[1], height=views[0].shape[0], frame_rate=self._rate) as writer:
            for view in views:
                writer.write(view)
        pixels = pipeline.clip.preprocess(out.frames)
        embeddings = np.asarray(pipeline.clip.encode_image(pixels))
        entry = {"preview": path.name, "preview/frame_consistency": frame_consistency(embeddings)}
        if picture is None:
            ids, _ = pipeline.tokenizer([config.prompt])
            text = np.asarray(pipeline.clip.encode_text(ids))[0]
            entry["preview/prompt_consistency"] = prompt_consistency(embeddings, text)
        return entry

    def _read(self) -> tuple[np.ndarray, Any]:
        with open_video(self.config.video or _DEMO, frames=self.config.frames) as reader:
            size = self._source.config.working_size(reader.info.height, reader.info.width)
            return np.stack([resize(frame.rgb, size) for frame in reader]), reader.info.frame_rate


class _WithUNet:
    """A model whose U-Net's weights are at hand."""

    warning = None

    def __init__(self, source: ModelSource, unet: Params):
        self.config, self.name, self._source, self._unet = source.config, source.name, source, unet

    def parameters(self, component: str) -> Params:
        return self._unet if component == "unet" else self._source.parameters(component)

    stored = parameters

    def tokenizer(self):
        return self._source.tokenizer()
