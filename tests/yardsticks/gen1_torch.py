"""Yardstick of `gen1 bench sample`: one guided step of the same network in PyTorch, torch.compile.

    python tests/yardsticks/gen1_torch.py --size full --mode reduce-overhead

The network is what `gen1 export --format torch` writes (`modeling_gen1.py`), with random weights: in a step the null
content and the content are one batch of the video model, the image model is evaluated by itself, then equation 10 and
DDIM's update. bfloat16, scaled_dot_product_attention, channels last, compiled as one function; `reduce-overhead` and
`max-autotune` are with CUDA graphs.
"""

import torch
from torch_timing import DEVICE, DTYPE, arguments, compiled, noise, report, scalar

from gen1_jax.exporting import modeling_gen1 as modeling
from gen1_jax.exporting.torch_format import unet_fields
from gen1_jax.pretrained.sizes import SIZES

ALPHA, ALPHA_NEXT = 0.4, 0.42


def main() -> None:
    """Prints a line of JSON."""
    parser = arguments(__doc__, frames=8, height=256, width=448)
    parser.add_argument("--size", choices=("tiny", "nano", "full"), default="full")
    parser.add_argument("--guidance-scale", type=float, default=7.5)
    parser.add_argument("--temporal-guidance-scale", type=float, default=1.5)
    args = parser.parse_args()
    config = SIZES[args.size].unet
    with torch.device(DEVICE):
        unet = modeling.SpaceTimeUNet(modeling.UNetConfig(**unet_fields(config))).to(DTYPE)
    unet.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    denoiser = modeling.Gen1Denoiser(unet=unet, levels=[], scaling_factor=1.0, num_frames=args.frames, window_overlap=0)
    clip = 1, args.frames, config.latent_channels, args.height // 8, args.width // 8
    told = modeling.signals(
        unet.config, noise(*clip[:2], config.structure_channels, *clip[3:]), 0, torch.empty(clip, device=DEVICE)
    )
    scales = args.guidance_scale, args.temporal_guidance_scale

    def step(latents, t, content, alpha, alpha_next):
        v = denoiser.guided(latents, t, content, told, *scales)
        x0 = alpha.sqrt() * latents - (1 - alpha).sqrt() * v
        epsilon = (latents - alpha.sqrt() * x0) / (1 - alpha).sqrt()
        return alpha_next.sqrt() * x0 + (1 - alpha_next).sqrt() * epsilon

    step = compiled(step, args.mode)
    given = noise(*clip, dtype=torch.float32), 481, noise(1, 1, config.cross_attention_dim), scalar(ALPHA)
    report(lambda: step(*given, scalar(ALPHA_NEXT)), args, [unet])


if __name__ == "__main__":
    main()
