"""Fixed edits, sampled as training goes on: what the EMA weights make of one clip, and how that measures."""

import dataclasses
import gc
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from gen1_jax.editing.inputs import resize_frames
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.structures import Maps
from gen1_jax.errors import UserError
from gen1_jax.measures import frame_consistency, prompt_consistency
from gen1_jax.media import open_video, read_image, side_by_side
from gen1_jax.models.module import Params, cast_kernels
from gen1_jax.pretrained.folder import ModelSource
from gen1_jax.training.config import PreviewConfig
from gen1_jax.training.learned import Learned, WholeNetwork
from gen1_jax.training.preview import Shown

_WHOLE = WholeNetwork()
_DEMO = Path(__file__).parents[1] / "assets" / "demo.mp4"


class EditPreview:
    """The edits of a `PreviewConfig`, on one device of the first process: a `training.preview.Preview`.

    The clip is read at once, so that a run which cannot be previewed does not begin. All networks are loaded anew for
    each preview and let go after it; what is compiled comes from JAX's cache.

    Args:
        config: what to edit, and how.
        source: gives the frozen networks.
        dtype: of the computation.
        learned: what is trained of the U-Net.

    Raises:
        UserError: the video or the picture cannot be read (`MediaError`), or prompts for a model without a prior.
    """

    def __init__(self, config: PreviewConfig, source: ModelSource, dtype: str, learned: Learned = _WHOLE):
        self.config, self._source, self._dtype = config, source, jnp.dtype(dtype)
        self._learned = learned
        if config.image is None and not source.config.takes_prompts:
            raise UserError(
                f"preview: {source.name} has no prior, so it takes no prompt: name a picture, preview.image"
            )
        self._pictures = [] if config.image is None else [read_image(config.image)]
        with open_video(config.video or _DEMO, frames=config.frames) as reader:
            width, height = reader.info.square_size
            size = source.config.working_size(height, width)
            self._frames = resize_frames((frame.rgb for frame in reader), size)
            self._rate = reader.info.frame_rate

    def __call__(self, step: int, ema: Params, *, structures: tuple[str, ...]) -> Shown | None:
        """The clip, its structure and each edit side by side; measures are means over the edits."""
        mesh = jax.tree.leaves(ema)[0].sharding.mesh
        gather = jax.jit(cast_kernels, static_argnums=1, out_shardings=NamedSharding(mesh, PartitionSpec()))
        dtype = jnp.dtype(jnp.float32) if self._learned.in_float32 else self._dtype
        weights = jax.tree.map(lambda x: x.addressable_data(0), gather(ema, dtype))
        if jax.process_index():
            return None
        try:
            pipeline = _Pipeline(_WithUNet(self._source, weights, self._learned), self._dtype, sees=structures)
            return self._show(pipeline)
        finally:
            del pipeline, weights
            gc.collect()  # a sampler and what it compiles hold each other, and with them the networks

    def _show(self, pipeline: "_Pipeline") -> Shown:
        settings = EditSettings(
            guidance_scale=self.config.guidance_scale,
            temporal_guidance_scale=self.config.temporal_guidance_scale,
            num_inference_steps=self.config.num_inference_steps,
        ).of(pipeline.config)
        maps = pipeline.read_structure(self._frames, settings)
        contents = (None,) if self._pictures else self.config.asked
        edits = [self._edit(pipeline, maps, settings, prompt) for prompt in contents]
        measures: dict[str, list[float]] = {}
        for prompt, edit in zip(contents, edits, strict=True):
            if pipeline.config.clip is None:
                continue
            embeddings = np.asarray(pipeline.clip.encode_image(pipeline.clip.preprocess(edit)))
            measures.setdefault("preview/frame_consistency", []).append(frame_consistency(embeddings))
            if prompt is not None:
                ids, _ = pipeline.tokenizer([prompt])
                text = np.asarray(pipeline.clip.encode_text(ids))[0]
                measures.setdefault("preview/prompt_consistency", []).append(prompt_consistency(embeddings, text))
        views = [self._frames, *pipeline.pictures_of(maps).values(), *edits]
        return Shown(
            frames=np.stack([side_by_side(list(frames)) for frames in zip(*views, strict=True)]),
            frame_rate=self._rate,
            measures={name: float(np.mean(values)) for name, values in measures.items()},
        )

    def _edit(self, pipeline: "_Pipeline", maps: Maps, settings: EditSettings, prompt: str | None) -> np.ndarray:
        content = pipeline.encode_content(prompt, self._pictures, settings)
        return np.stack(list(pipeline.decode(pipeline.sample(content, maps, settings, frames=self._frames))))


class _Pipeline(Gen1Pipeline):
    """A pipeline that can be made blind to structure, as training makes the U-Net: the latents of its maps are zeros,
    and its controls add nothing."""

    def __init__(self, source: ModelSource, dtype: jnp.dtype, *, sees: tuple[str, ...]):
        super().__init__(source, dtype)
        self._sees = sees

    def encode_structure(self, maps, settings, progress=None):
        signals = super().encode_structure(maps, settings, progress)
        seen = {name: signal for name, signal in signals.items() if name in self._sees}
        zeros = {name: signals[name] for name in self.config.unet.required if name not in seen}
        return seen | {name: dataclasses.replace(x, maps=jnp.zeros_like(x.maps)) for name, x in zeros.items()}


class _WithUNet:
    """A model whose U-Net is being trained; what a recipe leaves frozen of it is the model's own.

    Args:
        source: the model.
        learned: what has been learned.
        kind: what that is.
    """

    warning = None

    def __init__(self, source: ModelSource, learned: Params, kind: Learned):
        self.config = dataclasses.replace(source.config, learned_content="unknown")  # it is being trained
        self.name, self._source, self._learned, self._kind = source.name, source, learned, kind

    def parameters(self, component: str) -> Params:
        if component != "unet":
            return self._source.parameters(component)
        base = self._kind.frozen(self._source.stored(component)) if self._kind.uses_base else {}
        on_host = lambda x: x if isinstance(x, jax.Array) else np.asarray(x)
        return jax.tree.map(on_host, self._kind.weights(jax.tree.map(on_host, base), self._learned))

    stored = parameters

    def tokenizer(self):
        return self._source.tokenizer()
