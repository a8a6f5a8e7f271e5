"""A Gen-1 model as a pipeline of diffusers: a video in, a video of another content and the same structure out.

    import torch
    from diffusers import DiffusionPipeline
    from diffusers.utils import export_to_video, load_video

    folder = "exported_diffusers"
    pipe = DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True).to("cuda")
    out = pipe(load_video("car.mp4"), prompt="a golden car in the snow", temporal_guidance_scale=1.2)
    export_to_video(out.frames[0], "gold.mp4", fps=8)

Structure and Content-Guided Video Synthesis with Diffusion Models, https://arxiv.org/abs/2302.03011. It needs torch,
diffusers and transformers. Networks stay where `to` puts them: hooks that offload them do not see this U-Net run.
"""

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

from .temporal.modeling_gen1 import (
    Gen1Denoiser,
    Signal,
    SpaceTimeUNet,
    UNetConfig,
    blur,
    kept,
    known_signal,
    signals,
    structure_images,
    x0_coefficients,
)

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CHUNK = 8  # frames that go through a network of pictures together


class Gen1Output(BaseOutput):
    """The videos: a list of lists of pictures, an array (B, T, H, W, 3) of 0 to 1, or latents (B, T, C, h, w)."""

    frames: list | np.ndarray | Tensor


class Gen1VideoPipeline(DiffusionPipeline):
    """The parts of the folder. `unet` is the model of single frames, to which `temporal` adds the layers between them.

    `prior` and its scheduler turn prompts into what `clip` makes of pictures; without them there are no prompts.
    `depth` estimates the structure; without it, `depth` is to be given to a call. `structures` is what pictures of each
    kind of structure are: their channels, how they are resampled, and what t_s takes detail from ("maps" or not).
    """

    _optional_components = ["depth", "prior", "prior_scheduler"]  # noqa: RUF012, diffusers only reads it

    def __init__(
        self, unet, temporal, vae, scheduler, clip, tokenizer, depth=None, prior=None, prior_scheduler=None,
        height=256, width=448, num_frames=8, window_overlap=4, guidance_scale=7.5, num_inference_steps=50,
        prior_guidance_scale=4.0, prior_num_inference_steps=25, depth_quantiles=(0.0, 1.0), structures=None,
    ):  # fmt: skip
        super().__init__()
        networks = dict(unet=unet, temporal=temporal, vae=vae, clip=clip, depth=depth, prior=prior)
        self.register_modules(**networks, scheduler=scheduler, prior_scheduler=prior_scheduler, tokenizer=tokenizer)
        self.register_to_config(
            height=height, width=width, num_frames=num_frames, window_overlap=window_overlap,
            guidance_scale=guidance_scale, num_inference_steps=num_inference_steps, depth_quantiles=depth_quantiles,
            prior_guidance_scale=prior_guidance_scale, prior_num_inference_steps=prior_num_inference_steps,
            structures=structures,  # the folder has it; an argument without default would be a network to diffusers
        )  # fmt: skip

    @torch.no_grad()
    def __call__(
        self, video, prompt: str | None = None, image=None, *, structure_blur: int = 0, guidance_scale=None,
        temporal_guidance_scale=1.0, num_inference_steps=None, generator=None, latents: Tensor | None = None,
        depth: Tensor | None = None, image_embeds: Tensor | None = None, output_type="pil", return_dict=True,
        structure_maps: dict | None = None, known: dict | None = None, source_guidance_scale=None,
    ):  # fmt: skip
        """Edit a video.

        Args:
            video: pictures of PIL, or an array (T, H, W, 3) of uint8 or of floats from 0 to 1.
            prompt: what the result should look like; or
            image: a picture of PIL that shows it; or
            image_embeds: (1, 1, D), what CLIP would make of such a picture: projected, not normalised.
            structure_blur: t_s, 0 to 7, how much detail of the structure is given up.
            guidance_scale: w, how strongly the content is followed; by default the model's own.
            temporal_guidance_scale: w_t; above 1 smoother in time, below 1 more hand-drawn.
            num_inference_steps: by default the model's own.
            generator: of all randomness.
            latents: (1, T, C, h, w), the noise to begin with.
            depth: (1, T, h, w), inverse depth in place of an estimate, of the size that `working_size` gives; then
                `structure_maps` has none.
            output_type: "pil", "np" or "latent".
            structure_maps: by kind, the structures that are followed, of those of the folder's model: pictures of maps
                for the frames, or one for all, as `gen1 edit --save-structure` writes them; None for "depth" that is
                estimated and for "source", which is the video itself. By default those that the model needs, or else
                the first that it takes.
            known: by the numbers of frames, pictures of the result that are kept, for a model that goes on from them;
                they are not carried along the video's motion, as `gen1 edit --keyframe` does first.
            source_guidance_scale: how strongly the source is followed, which then is by default; None: like others.

        Raises:
            ValueError: what is given does not go together, is not of the video, or is not what the model takes.
        """
        frames, device = pictures(video), self._execution_device
        size = self.working_size(*frames[0].size[::-1])
        seen = torch.stack([pixels(resized(frame, size)) for frame in frames]).to(device)  # T 3 h w
        if image_embeds is None:
            image_embeds = self.embed_image(image) if prompt is None else self.embed_prompt(prompt, generator)
        wanted = self.followed(structure_maps, depth, source_guidance_scale)
        told = {kind: self.signal(kind, maps, seen, structure_blur, depth) for kind, maps in wanted.items()}
        if known:
            told["known"] = self.known(known, seen)
        if latents is None:
            halvings = len(self.vae.config.block_out_channels) - 1
            shape = 1, len(seen), self.unet.config.out_channels, *(side >> halvings for side in size)
            latents = randn_tensor(shape, generator=generator, device=device)
        w = self.config.guidance_scale if guidance_scale is None else guidance_scale
        self.scheduler.set_timesteps(num_inference_steps or self.config.num_inference_steps, device=device)
        denoiser = self.denoiser()
        told = signals(denoiser.unet.config, told, 0, latents)
        for t in self.progress_bar(self.scheduler.timesteps):
            args = latents.float(), int(t), image_embeds, told
            output = denoiser.guided(*args, w, temporal_guidance_scale, source_guidance_scale)
            if known:  # the output that means what is known
                level = float(self.scheduler.alphas_cumprod[int(t)])
                a, b = x0_coefficients(denoiser.unet.config.prediction_type, level)
                x0 = a * latents + b * output
                output = output + (kept(told, x0) - x0) / b
            latents = self.scheduler.step(output, t, latents).prev_sample
        latents = kept(told, latents)  # the last step leaves a trace of noise
        result = latents if output_type == "latent" else self.decode(latents, frames[0].size[::-1], output_type)
        return Gen1Output(frames=result) if return_dict else (result,)

    def followed(self, structure_maps: dict | None, depth: Tensor | None, source_guidance_scale) -> dict:
        """The maps of each kind that is followed, None where they are made here; see `__call__`."""
        if structure_maps is None:
            unet = self.temporal.config.unet
            kinds = [*(unet["required"] or [name for name, _ in unet["inputs"][:1]])]
            sees_source = source_guidance_scale is not None and "source" in self.config.structures
            structure_maps = dict.fromkeys([*kinds, "source"] if sees_source else kinds)  # once each
        if source_guidance_scale is not None and "source" not in structure_maps:
            raise ValueError(
                "source_guidance_scale is for an edit that follows the source: give it in structure_maps, if this "
                "model takes it"
            )
        if depth is None:
            return structure_maps
        if structure_maps.get("depth") is not None:
            raise ValueError("depth is given twice: as depth and in structure_maps")
        return {**structure_maps, "depth": None}

    def denoiser(self) -> Gen1Denoiser:
        """The whole U-Net, of the tensors of its two parts, with the guidance of equation 10."""
        with torch.device("meta"):
            network = SpaceTimeUNet(UNetConfig(**self.temporal.config.unet))
        stored = {
            **self.unet.state_dict(),
            **self.temporal.state_dict(),
        }  # projections may be there as 1x1 convolutions
        stored = {name: stored[name].view(tensor.shape) for name, tensor in network.state_dict().items()}
        network.load_state_dict(stored, assign=True)
        network.requires_grad_(False)
        windows = dict(num_frames=self.config.num_frames, window_overlap=self.config.window_overlap)
        return Gen1Denoiser(network, levels=[], scaling_factor=self.vae.config.scaling_factor, **windows)

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """The size at which a video is seen: its shape, about the model's number of pixels."""
        config, levels = self.config, len(self.vae.config.block_out_channels) + len(self.unet.config.block_out_channels)
        multiple, scale = 2 ** (levels - 2), (config.height * config.width / (height * width)) ** 0.5
        return tuple(max(1, round(side * scale / multiple)) * multiple for side in (height, width))

    def estimate_depth(self, seen: Tensor) -> Tensor:
        """Inverse depth (T, h, w) of pictures (T, 3, h, w) in [-1, 1], any scale and shift."""
        if self.depth is None:
            raise ValueError("this model does not estimate depth: give depth=(1, T, h, w)")
        (height, width), config = seen.shape[2:], self.depth.config
        scale = min(config.image_size / height, config.image_size / width, key=lambda s: abs(1 - s))
        patch, multiple = config.patch_size, round(config.patch_size / min(1, config.reassemble_factors[-1]))
        size = [max(1, round(scale * side / multiple)) * multiple for side in (height, width)]

        def estimate(x):
            x = F.interpolate(x, size=size, mode="bicubic", antialias=True).clamp(-1, 1).to(self.depth.dtype)
            states = self.depth.dpt(x, output_hidden_states=True).hidden_states[1:]
            kept = [states[index] for index in config.backbone_out_indices]  # forward takes square pictures only
            found = self.depth.head(self.depth.neck(kept, size[0] // patch, size[1] // patch)).float()
            return F.interpolate(found[:, None], size=(height, width), mode="bilinear", antialias=True)[:, 0]

        return torch.cat([estimate(x) for x in seen.split(CHUNK)])

    def signal(self, kind: str, maps, seen: Tensor, structure_blur: int, depth: Tensor | None = None) -> Signal:
        """What the U-Net is told of one kind of structure of pictures (T, 3, h, w); see `__call__`.

        Raises:
            ValueError: the model does not follow it, nothing here estimates it, or maps are not of the frames.
        """
        if kind not in self.config.structures:
            raise ValueError(f"this model follows {', '.join(self.config.structures)}, not {kind}")
        about = self.config.structures[kind]
        if maps is not None:
            x = self.read_maps(maps, seen, about["channels"], about["resampling"])
        elif kind == "depth":
            depth = self.estimate_depth(seen)[None] if depth is None else depth.to(seen.device)
            x = structure_images(depth, 0, self.config.depth_quantiles)
        elif kind == "source":
            x = seen[None]
        else:
            raise ValueError(f"nothing here estimates {kind}: give structure_maps={{{kind!r}: pictures}}")
        x = blur(x, structure_blur) if about["degrades"] == "maps" else x
        return Signal(self.encode(x[0])[None], 0 if about["degrades"] == "nothing" else structure_blur)

    def read_maps(self, maps, seen: Tensor, channels: int, resampling: str) -> Tensor:
        """Pictures of maps as what is encoded, (1, T, 3, h, w) in [-1, 1].

        Raises:
            ValueError: they are neither one nor as many as there are frames.
        """
        found, size = pictures([maps] if isinstance(maps, Image.Image) else maps), seen.shape[2:]
        found = found * len(seen) if len(found) == 1 else found
        if len(found) != len(seen):
            raise ValueError(f"{len(found)} pictures of maps for {len(seen)} frames")

        def fitted(picture):
            shrinks = size[0] <= picture.height and size[1] <= picture.width
            smooth = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
            return resized(picture, size, Image.Resampling.NEAREST if resampling == "nearest" else smooth)

        x = torch.stack([pixels(fitted(picture)) for picture in found]).to(seen)
        if channels == 1:
            x = x.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        elif channels == 2:  # blue is in the middle
            x = torch.cat([x[:, :2], torch.zeros_like(x[:, :1])], dim=1)
        return x[None]

    def known(self, given: dict, seen: Tensor) -> Signal:
        """What the U-Net is told of pictures by the numbers of their frames.

        Raises:
            ValueError: the clip has no such frame.
        """
        numbers = [*given]
        if wrong := [number for number in numbers if not -len(seen) <= number < len(seen)]:
            raise ValueError(f"known frame {wrong[0]}: the clip has {len(seen)}, counted from 0")
        found = [pixels(resized(picture, seen.shape[2:])) for picture in pictures([*given.values()])]
        latents = self.encode(torch.stack(found).to(seen.device))
        clip, mask = (latents.new_zeros(len(seen), count, *latents.shape[2:]) for count in (latents.shape[1], 1))
        clip[numbers], mask[numbers] = latents, 1
        return known_signal(clip[None], mask[None])

    def encode(self, x: Tensor) -> Tensor:
        """Latents (T, C, h, w), float32, of pictures (T, 3, H, W) in [-1, 1]."""
        means = [self.vae.encode(part).latent_dist.mean for part in x.to(self.vae.dtype).split(CHUNK)]
        return torch.cat(means).float() * self.vae.config.scaling_factor

    def embed_image(self, image: Image.Image | None) -> Tensor:
        """CLIP's embedding (1, 1, D) of a picture."""
        if image is None:
            raise ValueError("give a prompt, an image or image_embeds")
        side = self.clip.config.vision_config.image_size
        (image,) = pictures([image])
        scale = side / min(image.size)
        image = resized(image, [max(side, round(length * scale)) for length in image.size[::-1]])
        shorter = min(image.size)
        width, height = (side * length // shorter for length in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - side) // 2, (height - side) // 2
        x = (pixels(image.crop((left, top, left + side, top + side))) + 1) / 2
        mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
        x = ((x - mean) / std)[None].to(self._execution_device, self.clip.dtype)
        return self.clip.visual_projection(self.clip.vision_model(x).pooler_output)[:, None].float()

    def embed_prompt(self, prompt: str, generator=None) -> Tensor:
        """What the prior makes of a prompt: a picture's embedding (1, 1, D)."""
        if self.prior is None:
            raise ValueError("this model has no prior, so it cannot take a prompt: give an image")
        device, length = self._execution_device, self.clip.config.text_config.max_position_embeddings
        texts = dict(padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        tokens = self.tokenizer(["", prompt], **texts).to(device)  # both branches of guidance are one batch
        text = self.clip.text_model(tokens.input_ids)
        width = self.prior.config.embedding_dim
        states = F.pad(text.last_hidden_state, (0, width - text.last_hidden_state.shape[2]))
        told = self.clip.text_projection(text.pooler_output), states, tokens.attention_mask.bool()
        x = randn_tensor((1, width), generator=generator, device=device, dtype=states.dtype)
        self.prior_scheduler.set_timesteps(self.config.prior_num_inference_steps, device=device)
        steps = self.prior_scheduler.timesteps
        for t, before in zip(steps, [*steps[1:], None], strict=True):
            null, given = self.prior(torch.cat([x, x]), t, *told).predicted_image_embedding.chunk(2)
            x0 = null + self.config.prior_guidance_scale * (given - null)
            more = dict(prev_timestep=before, generator=generator)
            x = self.prior_scheduler.step(x0, t, x, **more).prev_sample.to(states.dtype)
        return self.prior.post_process_latents(x)[:, None].float()

    def decode(self, latents: Tensor, size: tuple[int, int], output_type: str):
        """The videos of latents, at (height, width)."""
        x = (latents[0] / self.vae.config.scaling_factor).to(self.vae.dtype)
        x = torch.cat([self.vae.decode(part).sample.float() for part in x.split(CHUNK)])
        x = ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).movedim(1, -1).cpu().numpy()
        videos = [[resized(Image.fromarray(frame), size) for frame in x]]
        return videos if output_type == "pil" else np.stack([np.stack(video) for video in videos]) / np.float32(255)


def pictures(video) -> list[Image.Image]:
    """The frames of a video."""
    if not len(video):
        raise ValueError("the video has no frames")
    bytes_of = lambda x: x if x.dtype == np.uint8 else np.rint(x * 255).astype(np.uint8)
    return [x.convert("RGB") if isinstance(x, Image.Image) else Image.fromarray(bytes_of(x)) for x in video]


def resized(picture: Image.Image, size, filter=Image.Resampling.LANCZOS) -> Image.Image:
    """A picture at (height, width)."""
    return picture.resize((size[1], size[0]), filter)


def pixels(picture: Image.Image) -> Tensor:
    """(3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.asarray(picture, np.float32) / 127.5 - 1).movedim(-1, 0)
