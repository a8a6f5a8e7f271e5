"""The denoiser of a Gen-1 model and its guided sampler in PyTorch: all the code that this folder needs, in one file.

Structure and Content-Guided Video Synthesis with Diffusion Models, https://arxiv.org/abs/2302.03011. It needs torch and
safetensors. It works on latents; autoencoder, depth estimator, CLIP and prior are ordinary diffusers and transformers
models, which `gen1 export --format diffusers` writes. Videos are (batch, time, channels, height, width):

    from diffusers import AutoencoderKL
    from modeling_gen1 import Gen1Denoiser, structure_images
    vae = AutoencoderKL.from_pretrained("exported_diffusers/vae").cuda()
    model = Gen1Denoiser.from_pretrained("exported_torch", device="cuda", dtype=torch.bfloat16)

    # depth: (1, T, H, W) inverse depth of the input video, near is large, e.g. of DPTForDepthEstimation
    # content: (1, 1, 768) CLIP embedding of a picture (projected, not normalised), or the prior's of a prompt
    pictures = structure_images(depth, structure_level=2)                        # (1, T, 3, H, W) in [-1, 1]
    structure = vae.encode(pictures[0]).latent_dist.mean * model.scaling_factor  # (T, 4, H / 8, W / 8)
    noise = torch.randn(1, *structure.shape, device="cuda")
    latents = model.sample(noise, content, structure[None], structure_level=2, temporal_guidance_scale=1.2)
    frames = vae.decode(latents[0] / model.scaling_factor).sample                # (T, 3, H, W) in [-1, 1]

A model of several inputs is told of any of them in place of one structure, or of none if it needs none:

    told = {"depth": Signal(structure[None], level=2), "edges": Signal(edges), "known": known_signal(clean, mask)}
    latents = model.sample(noise, content, told)
"""

import dataclasses
import json
import math
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Shape of a `SpaceTimeUNet`."""

    latent_channels: int
    inputs: tuple[tuple[str, int], ...]  # what it sees beside z_t, and channels of each: a structure's and its t_s's
    required: tuple[str, ...]  # inputs that it cannot do without
    structure_level_channels: int  # of the embedding of the structure level t_s
    block_out_channels: tuple[int, ...]  # width of each level, finest first
    attention_levels: tuple[bool, ...]  # which levels have transformers
    layers_per_block: int
    num_attention_heads: int
    cross_attention_dim: int  # of a content token
    norm_num_groups: int
    max_frames: int  # longest clip of one evaluation
    prediction_type: str  # "v_prediction", "epsilon" or "sample"
    structure_level_period: float = 10_000.0  # longest period of the embedding of t_s, over 2 pi


class Signal(NamedTuple):
    """One input of B clips; at weight 0 it is as if it were not there."""

    maps: Tensor  # (B, T, S, h, w) encoded structure, or of "known" what `known_signal` makes of latents
    level: int | Tensor = 0  # t_s, of all clips or (B,); 0 for a kind from which t_s takes no detail
    weight: float | Tensor = 1.0  # how much it counts, for all clips or (B,); what is known is kept at any but 0


def known_signal(latents: Tensor, mask: Tensor) -> Signal:
    """The input "known": latents (B, T, C, h, w) that are given where the mask (B, T, 1, h, w) is 1, and kept there."""
    return Signal(torch.cat([latents * mask, mask.to(latents)], dim=2))


def kept(told: dict[str, Signal], latents: Tensor) -> Tensor:
    """Clean latents with what is known in its place, of what `signals` gives."""
    if "known" not in told:
        return latents
    maps, _, weight = told["known"]
    return torch.where(maps[:, :, -1:] * weight[:, None, None, None, None] > 0, maps[:, :, :-1].to(latents), latents)


def signals(config: UNetConfig, structure, structure_level: int | Tensor, clips: Tensor) -> dict[str, Signal]:
    """The inputs of clips as tensors, of `SpaceTimeUNet.forward`'s. Raises ValueError: one is missing or not known."""
    names = [name for name, _ in config.inputs]
    if isinstance(structure, Tensor):
        structure = {(names or ["structure"])[0]: Signal(structure, structure_level)}
    told: Mapping[str, Signal] = structure or {}
    if missing := [name for name in config.required if name not in told]:
        raise ValueError(f"this model needs structure: {', '.join(missing)}")
    if unknown := [name for name in told if name not in names]:
        raise ValueError(f"this model takes {', '.join(names) or 'no structure'}, but was given {unknown[0]}")
    per_clip = lambda x: torch.as_tensor(x, device=clips.device).expand(len(clips))
    return {name: Signal(maps, *map(per_clip, others)) for name, (maps, *others) in told.items()}


def concatenated(config: UNetConfig, told: dict[str, Signal], latents: Tensor) -> Tensor:
    """z_t and, as further channels, its inputs with the embedding of their t_s; those that are absent are zeros."""
    channels, (batch, length, _, *size) = [latents], latents.shape
    for name, count in config.inputs:
        x = latents.new_zeros(batch, length, count, *size)
        if name in told:
            maps, level, weight = told[name]
            features = 0 if name == "known" else config.structure_level_channels
            level = _sinusoids(level, features, config.structure_level_period)[:, None, :, None, None]
            x = torch.cat([maps.to(x), level.to(x).expand(-1, length, -1, *size)], dim=2)
            x = x * weight.to(x)[:, None, None, None, None]
        channels.append(x)
    return torch.cat(channels, dim=2)


# Inside the network frames are pictures of one batch, (B T) C H W; `frames` is T, or 1 to leave time out.
class TemporalConv(nn.Conv2d):
    """x + conv(x), of kernel (3, 1) over (time, positions)."""

    def forward(self, x: Tensor, frames: int) -> Tensor:
        if frames == 1:
            return x
        clips = x.unflatten(0, (-1, frames)).transpose(1, 2)  # B C T H W
        y = super().forward(clips.flatten(3)).unflatten(3, x.shape[2:])
        return x + y.transpose(1, 2).flatten(0, 1)


class ResnetBlock(nn.Module):
    """Two convolutions, each followed by one over time, around the timestep's embedding."""

    def __init__(self, config: UNetConfig, in_channels: int, out_channels: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(config.norm_num_groups, in_channels, eps=1e-5)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.temporal_conv1 = TemporalConv(out_channels, out_channels, (3, 1), padding=(1, 0))
        self.time_emb_proj = nn.Linear(4 * config.block_out_channels[0], out_channels)
        self.norm2 = nn.GroupNorm(config.norm_num_groups, out_channels, eps=1e-5)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.temporal_conv2 = TemporalConv(out_channels, out_channels, (3, 1), padding=(1, 0))
        self.conv_shortcut = None if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor, frames: int) -> Tensor:
        y = self.temporal_conv1(self.conv1(F.silu(self.norm1(x))), frames)
        y = y + self.time_emb_proj(F.silu(time))[:, :, None, None]
        y = self.temporal_conv2(self.conv2(F.silu(self.norm2(y))), frames)
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nn.Module):
    """Multi-head attention of (B, S, C) to a context (B, K, E)."""

    def __init__(self, features: int, heads: int, context_features: int):
        super().__init__()
        self.heads, self.to_q = heads, nn.Linear(features, features, bias=False)
        self.to_k, self.to_v = (nn.Linear(context_features, features, bias=False) for _ in range(2))
        self.to_out = nn.Sequential(nn.Linear(features, features))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        inputs = self.to_q(x), self.to_k(context), self.to_v(context)
        out = F.scaled_dot_product_attention(*(y.unflatten(2, (self.heads, -1)).transpose(1, 2) for y in inputs))
        return self.to_out(out.transpose(1, 2).flatten(2))


class GEGLU(nn.Module):
    """The first half of the features, times gelu of the second."""

    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return value * F.gelu(gate)


class TransformerBlock(nn.Module):
    """Self-attention, attention to a context (or to itself again), feed-forward; each a pre-norm residual."""

    def __init__(self, features: int, heads: int, context_features: int):
        super().__init__()
        self.norm1, self.attn1 = nn.LayerNorm(features), Attention(features, heads, features)
        self.norm2, self.attn2 = nn.LayerNorm(features), Attention(features, heads, context_features)
        gated = nn.Sequential(OrderedDict(proj=nn.Linear(features, 8 * features), act=GEGLU()))
        net = nn.Sequential(gated, nn.Identity(), nn.Linear(4 * features, features))  # diffusers has a dropout between
        self.norm3, self.ff = nn.LayerNorm(features), nn.Sequential(OrderedDict(net=net))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        y = self.norm1(x)
        x = x + self.attn1(y, y)
        y = self.norm2(x)
        x = x + self.attn2(y, y if context is None else context)
        return x + self.ff(self.norm3(x))


class Transformer(nn.Module):
    """What the spatial and the temporal transformer share: a block, with a norm and projections around it."""

    def __init__(self, config: UNetConfig, channels: int, context_features: int):
        super().__init__()
        self.norm = nn.GroupNorm(config.norm_num_groups, channels, eps=1e-6)
        self.proj_in, self.proj_out = nn.Linear(channels, channels), nn.Linear(channels, channels)
        block = TransformerBlock(channels, config.num_attention_heads, context_features)
        self.transformer_blocks = nn.ModuleList([block])


class TemporalTransformer(Transformer):
    """Attention among the frames at each position, with learnable positions of the frame index."""

    def __init__(self, config: UNetConfig, channels: int):
        super().__init__(config, channels, channels)
        self.frame_positions = nn.Parameter(torch.zeros(config.max_frames, channels))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        if frames == 1:
            return x
        y = self.norm(x).unflatten(0, (-1, frames)).permute(0, 3, 4, 1, 2)  # B H W T C
        z = self.proj_in(y.flatten(0, 2)) + self.frame_positions[:frames]
        z = self.proj_out(self.transformer_blocks[0](z))
        return x + z.unflatten(0, y.shape[:3]).permute(0, 3, 4, 1, 2).flatten(0, 1)


class SpaceTimeTransformer(Transformer):
    """Attention among the positions of each frame and to the content, then the temporal transformer."""

    def __init__(self, config: UNetConfig, channels: int):
        super().__init__(config, channels, config.cross_attention_dim)
        self.temporal = TemporalTransformer(config, channels)

    def forward(self, x: Tensor, content: Tensor, frames: int) -> Tensor:
        y = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))  # (B T) (H W) C
        y = self.proj_out(self.transformer_blocks[0](y, content))
        return self.temporal(x + y.transpose(1, 2).unflatten(2, x.shape[2:]), frames)


class Block(nn.Module):
    """One level: residual blocks of these input widths, and transformers behind the first few of them."""

    def __init__(self, config: UNetConfig, widths: list[int], channels: int, transformers: int):
        super().__init__()
        self.resnets = nn.ModuleList([ResnetBlock(config, width, channels) for width in widths])
        self.attentions = nn.ModuleList([SpaceTimeTransformer(config, channels) for _ in range(transformers)])

    def layer(self, i: int, x: Tensor, time: Tensor, content: Tensor, frames: int) -> Tensor:
        """The i-th residual block, and its transformer if there is one."""
        x = self.resnets[i](x, time, frames)
        return self.attentions[i](x, content, frames) if i < len(self.attentions) else x


class SpaceTimeUNet(nn.Module):
    """Predicts v (or epsilon, or x0: `config.prediction_type`) for every frame of a noisy latent clip."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config, widths, layers = config, config.block_out_channels, config.layers_per_block
        first, time, last = widths[0], 4 * widths[0], len(widths) - 1
        resampler = lambda width, stride: nn.ModuleDict({"conv": nn.Conv2d(width, width, 3, stride, padding=1)})
        self.conv_in = nn.Conv2d(config.latent_channels + sum(n for _, n in config.inputs), first, 3, padding=1)
        mlp = OrderedDict(linear_1=nn.Linear(first, time), act=nn.SiLU(), linear_2=nn.Linear(time, time))
        self.time_embedding = nn.Sequential(mlp)
        self.down_blocks, self.up_blocks, skips, width = nn.ModuleList(), nn.ModuleList(), [first], first
        for level in range(len(widths)):
            inputs, width = [width] + [widths[level]] * (layers - 1), widths[level]
            block = Block(config, inputs, width, layers * config.attention_levels[level])
            block.downsamplers = nn.ModuleList([resampler(width, 2)] if level < last else [])
            self.down_blocks.append(block)
            skips += [width] * (layers + len(block.downsamplers))
        self.mid_block = Block(config, [width, width], width, 1)
        for level in reversed(range(len(widths))):
            inputs, width = [width] + [widths[level]] * layers, widths[level]
            inputs = [channels + skips.pop() for channels in inputs]
            block = Block(config, inputs, width, len(inputs) * config.attention_levels[level])
            block.upsamplers = nn.ModuleList([resampler(width, 1)] if level > 0 else [])
            self.up_blocks.append(block)
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, first, eps=1e-5)
        self.conv_out = nn.Conv2d(first, config.latent_channels, 3, padding=1)

    def forward(self, latents, timesteps, content, structure=None, structure_level=0, *, temporal=True) -> Tensor:
        """One evaluation: (B, T, C, h, w), float32.

        Args:
            latents: (B, T, C, h, w) z_t. T = 1 is an image.
            timesteps: (B,) diffusion steps, 0 to 999.
            content: (B, N, D) CLIP image embeddings as tokens; zeros are the null content.
            structure: `Signal`s by input, {"depth": ..., ...}; or (B, T, S, h, w) encoded structure, the first input.
            structure_level: (B,) t_s of a structure that is no `Signal`.
            temporal: False is the image model: every frame by itself, temporal layers off.
        """
        config, (batch, length), dtype = self.config, latents.shape[:2], self.conv_in.weight.dtype
        if temporal and length > config.max_frames:
            raise ValueError(f"{length} frames, but the model has {config.max_frames} frame positions (max_frames)")
        x = concatenated(config, signals(config, structure, structure_level, latents), latents)
        frames = length if temporal else 1
        time = self.time_embedding(_sinusoids(timesteps, config.block_out_channels[0]).to(dtype))
        context = (*(y.repeat_interleave(length, 0) for y in (time, content.to(dtype))), frames)

        skips = [x := self.conv_in(x.flatten(0, 1).to(dtype))]
        for block in self.down_blocks:
            for i in range(len(block.resnets)):
                x = block.layer(i, x, *context)
                skips.append(x)
            for downsampler in block.downsamplers:
                x = downsampler["conv"](x)
                skips.append(x)
        for i in range(2):
            x = self.mid_block.layer(i, x, *context)
        for block in self.up_blocks:
            for i in range(len(block.resnets)):
                x = block.layer(i, torch.cat([x, skips.pop()], dim=1), *context)
            for upsampler in block.upsamplers:
                height, width = skips[-1].shape[2:]  # an odd size was rounded up when it was halved
                x = upsampler["conv"](F.interpolate(x, scale_factor=2.0, mode="nearest")[..., :height, :width])
        return self.conv_out(F.silu(self.conv_norm_out(x))).float().unflatten(0, (batch, length))


def _sinusoids(steps: Tensor, features: int, period: float = 10_000.0) -> Tensor:
    """(B,) whole numbers to (B, features): cosines, then sines."""
    half = features // 2
    frequencies = torch.exp(-math.log(period) * torch.arange(half, device=steps.device) / half)
    angles = steps[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def alphas_cumprod(
    *, num_train_timesteps: int, beta_start: float, beta_end: float, beta_schedule: str, rescale_zero_terminal_snr: bool
) -> list[float]:
    """alpha_bar of every timestep; x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise. Arguments as in diffusers."""
    linspace = lambda start, stop, n: torch.linspace(start, stop, n, dtype=torch.float64)
    if beta_schedule == "linear":
        betas = linspace(beta_start, beta_end, num_train_timesteps)
    elif beta_schedule == "scaled_linear":
        betas = linspace(beta_start**0.5, beta_end**0.5, num_train_timesteps) ** 2
    else:  # squaredcos_cap_v2
        level = torch.cos((linspace(0, 1, num_train_timesteps + 1) + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = (1 - level[1:] / level[:-1]).clamp(max=0.999)
    root = torch.cumprod(1 - betas, 0).sqrt()
    if rescale_zero_terminal_snr:  # https://arxiv.org/abs/2305.08891, algorithm 1
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return root.square().tolist()


def x0_coefficients(prediction_type: str, level: float) -> list[float]:
    """a and b of x0 = a x + b output at a level of `alphas_cumprod`."""
    alpha, sigma = level**0.5, (1 - level) ** 0.5
    return {"v_prediction": [alpha, -sigma], "sample": [0.0, 1.0]}.get(prediction_type) or [1 / alpha, -sigma / alpha]


def solver_steps(
    levels: list[float], count: int, prediction_type: str, sampler: str, set_alpha_to_one: bool = False
) -> list[tuple[int, list[float]]]:
    """The timestep of each step of a run, and the coefficients a ... e of it, for `levels` of `alphas_cumprod`.

    x0 = a x + b output,  next x = c x + d x0 + e (x0 - x0 of the step before), since either solver is linear: "ddim"
    (https://arxiv.org/abs/2010.02502) or "dpm++", DPM-Solver++(2M) (https://arxiv.org/abs/2211.01095). "ddim" ends at
    the level of timestep 0, or at clean data if `set_alpha_to_one`; "dpm++" always ends there.
    """
    if sampler not in ("ddim", "dpm++"):
        raise ValueError(f"unknown sampler {sampler!r}; choose one of: ddim, dpm++")
    total, second_order = len(levels), sampler == "dpm++"
    if not 1 <= count <= total:
        raise ValueError(f"num_inference_steps must be between 1 and {total}, got {count}")
    if levels[-1] == 0:  # zero terminal SNR: from the last timestep
        interval = (total - total / count) - total  # in this order, so that ties round as numpy.arange's do
        timesteps = [round(total + i * interval) - 1 for i in range(count)]
    elif second_order:  # evenly to the clean end, which is not evaluated
        timesteps = [round(i * ((total - 1) / count)) for i in range(count, 0, -1)]
    else:
        timesteps = [min(i * (total // count) + 1, total - 1) for i in reversed(range(count))]
    if prediction_type == "epsilon" and any(levels[t] == 0 for t in timesteps):
        raise ValueError("prediction_type epsilon cannot be sampled at zero terminal SNR")
    now = [max(levels[t], 2.0**-24) if second_order else levels[t] for t in timesteps]
    then = [*now[1:], 1.0 if second_order or set_alpha_to_one else levels[0]]
    log_snr = [math.log(level / (1 - level)) / 2 for level in now] if second_order else []

    steps = []
    for i, (timestep, level, target) in enumerate(zip(timesteps, now, then, strict=True)):
        alpha, sigma = level**0.5, (1 - level) ** 0.5
        kept = (1 - target) ** 0.5 / sigma  # the noise in x is (x - alpha x0) / sigma
        towards, change = target**0.5 - alpha * kept, 0.0
        if second_order and 0 < i < count - 1:  # the last step is infinitely long
            before, length = log_snr[i] - log_snr[i - 1], log_snr[i + 1] - log_snr[i]
            change = towards * length / before / 2 if before > 0 else 0.0
        steps.append((timestep, [*x0_coefficients(prediction_type, level), kept, towards, change]))
    return steps


def blend_windows(frames: int, window: int, overlap: int) -> list[tuple[int, Tensor]]:
    """First frame of each window and its weight in each of its frames: ramps over the overlaps, in total one."""
    starts = [*range(0, frames - window, window - overlap), frames - window]
    index, total = torch.arange(window), torch.zeros(frames)
    ramp = (torch.minimum(index, index.flip(0)) + 1).clamp(max=overlap + 1).float()
    for start in starts:
        total[start : start + window] += ramp
    return [(start, ramp / total[start : start + window]) for start in starts]


@dataclasses.dataclass
class Gen1Denoiser:
    """The network with all that sampling needs to know."""

    unet: SpaceTimeUNet
    levels: list[float]  # `alphas_cumprod` of its training
    scaling_factor: float  # the network's latents are the autoencoder's times this
    num_frames: int  # longest clip of one evaluation; longer ones are blended from windows of this many frames
    window_overlap: int  # frames that neighbouring windows share
    set_alpha_to_one: bool = False  # whether "ddim" ends at clean data

    @classmethod
    def from_pretrained(cls, folder: str | Path, device="cpu", dtype: torch.dtype = torch.float32) -> "Gen1Denoiser":
        """The model in a folder that holds config.json and unet.safetensors, to compute in `dtype`."""
        values = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        with torch.device("meta"):
            unet = SpaceTimeUNet(UNetConfig(**values.pop("unet")))
        unet.load_state_dict(load_file(Path(folder) / "unet.safetensors", device=str(device)), assign=True)
        unet.to(dtype).requires_grad_(False)
        schedule = values.pop("schedule")
        clean = schedule.pop("set_alpha_to_one", False)
        return cls(unet=unet, levels=alphas_cumprod(**schedule), set_alpha_to_one=clean, **values)

    def sample(self, *args, **kwargs) -> Tensor:
        """Latents without noise, (B, T, C, h, w) float32; arguments and errors are those of `steps`."""
        return deque(self.steps(*args, **kwargs), maxlen=1).pop()

    @torch.no_grad()
    def steps(
        self, noise: Tensor, content: Tensor, structure: Mapping[str, Signal] | Tensor | None = None,
        structure_level: int | Tensor = 0, *, guidance_scale=7.5, temporal_guidance_scale=1.0,
        source_guidance_scale=None, num_inference_steps=50, sampler="ddim",
    ) -> Iterator[Tensor]:  # fmt: skip
        """The latents after each step, for progress and previews. Raises as `signals`, `guided` and `solver_steps`.

        Args:
            noise: (B, T, C, h, w) standard normal, where sampling starts.
            content: (B, N, D) CLIP image embeddings as tokens.
            structure: `Signal`s by input; or (B, T, S, h, w), of the first one. Latents are times `scaling_factor`.
            structure_level: t_s, 0 to 7, of all clips or (B,), of a structure that is no `Signal`.
            guidance_scale: w, how strongly the content is followed.
            temporal_guidance_scale: w_t; above 1 smoother in time than the model by itself, below 1 less so.
            source_guidance_scale: w_src, how strongly the input "source", the video itself, is; None: as the others.
            num_inference_steps: evaluations of the guided network, by the sampler "ddim" or "dpm++".
        """
        told = signals(self.unet.config, structure, structure_level, noise)
        latents, before, scales = noise.float(), None, (guidance_scale, temporal_guidance_scale, source_guidance_scale)
        solver = self.levels, num_inference_steps, self.unet.config.prediction_type, sampler, self.set_alpha_to_one
        for step, (timestep, (a, b, c, d, e)) in enumerate(solver_steps(*solver), 1):
            x0 = kept(told, a * latents + b * self.guided(latents, timestep, content, told, *scales))
            latents = c * latents + d * x0 + e * (0 if before is None else x0 - before)
            before = x0
            yield latents if step < num_inference_steps else kept(told, latents)  # the last leaves a trace of noise

    def guided(self, latents, timestep: int, content, told: dict[str, Signal], w, w_t, w_src=None) -> Tensor:
        """Equation 10 of the paper, of what `signals` gives; a branch of weight zero is not evaluated.

        image(null) + w_t (video(null) - image(null)) + w (video(content) - video(null)); with w_src these do not see
        the source, and w_src (video(source) - video(null)) + w (video(source, content) - video(source)) is the end.
        Raises ValueError: w_src without a source.
        """
        w_t = 1.0 if latents.shape[1] == 1 else w_t  # of one frame both models are one
        null, out, blind = torch.zeros_like(content), torch.zeros_like(latents), told
        if w_src is None:
            w_src = w
        elif "source" in told:
            blind = {**told, "source": told["source"]._replace(weight=torch.zeros_like(told["source"].weight))}
        else:
            raise ValueError("source_guidance_scale is for a run that is told of its source")
        chain = (w_t - w_src, null, blind), (w_src - w, null, told), (w, content, told)
        if branches := [branch for branch in chain if branch[0] != 0]:
            weights, contents, seen = zip(*branches, strict=True)
            seen = {name: Signal(*map(torch.cat, zip(*(x[name] for x in seen), strict=True))) for name in told}
            outputs = self._windowed(torch.cat([latents] * len(branches)), timestep, torch.cat(contents), seen)
            out = sum(weight * y for weight, y in zip(weights, outputs.chunk(len(branches)), strict=True))
        if w_t != 1:
            out = out + (1 - w_t) * self._windowed(latents, timestep, null, blind, temporal=False)
        return out

    def _windowed(self, latents, timestep: int, content, told: dict[str, Signal], *, temporal: bool = True) -> Tensor:
        """The network on a clip of any length."""
        frames, window = latents.shape[1], self.num_frames
        timesteps = torch.full(latents.shape[:1], timestep, device=latents.device)
        if frames <= window:
            return self.unet(latents, timesteps, content, told, temporal=temporal)
        out = torch.zeros_like(latents)
        for start, weights in blend_windows(frames, window, self.window_overlap if temporal else 0):
            cut = slice(start, start + window)
            part = {name: signal._replace(maps=signal.maps[:, cut]) for name, signal in told.items()}
            y = self.unet(latents[:, cut], timesteps, content, part, temporal=temporal)
            out[:, cut] += y * weights.to(y)[:, None, None, None]
        return out


def structure_images(depth: Tensor, structure_level: int, quantiles: tuple[float, float] = (0.0, 1.0)) -> Tensor:
    """What the autoencoder encodes as structure, (B, T, 3, H, W): depth scaled to [-1, 1] over the clip, and blurred.

    `depth` is inverse depth (B, T, H, W), near is large, of any scale and shift. `structure_level` is t_s, 0 to 7
    rounds of blur and halving: more of them leave more of the shapes to the content. `quantiles` of the depth become -1
    and 1: config["depth_quantiles"] of the model.
    """
    flat = depth.float().flatten(1)
    ends = flat.aminmax(dim=1) if tuple(quantiles) == (0, 1) else flat.quantile(flat.new_tensor(quantiles), dim=1)
    low, high = (end[:, None, None, None] for end in ends)
    x = torch.where(high > low, (depth.clamp(low, high) - low) / (high - low) * 2 - 1, 0)
    return blur(x[:, :, None], structure_level).expand(-1, -1, 3, -1, -1)


def blur(maps: Tensor, structure_level: int) -> Tensor:
    """(B, T, C, H, W) with less detail: t_s rounds of blur and halving, then back to the size."""
    x, binomial = maps.flatten(0, 2)[:, None], maps.new_tensor([1, 4, 6, 4, 1]) / 16
    for _ in range(structure_level):
        x = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), binomial.outer(binomial)[None, None])
        x = F.interpolate(x, size=[(n + 1) // 2 for n in x.shape[2:]], mode="bilinear")
    return F.interpolate(x, size=maps.shape[3:], mode="bilinear").view(maps.shape)
