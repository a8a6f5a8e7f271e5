"""Yardstick of `gen1 bench sample --size public`: one guided step of the same networks in diffusers, torch.compile.

    python tests/yardsticks/public_torch.py --mode default --steps 20

UNetMotionModel on the clip with null content and with content (a batch of two), UNet2DConditionModel with the same
weights on its frames, ControlNetModel for each, equation 10, and DDIM's update: random weights, bfloat16,
scaled_dot_product_attention, channels last. Compiled as one function. The hint is evaluated once and not in each step,
and the controls' residuals of the null content may be shared (`--share-null`): both more than diffusers' pipelines do.
"""

import torch
from diffusers import ControlNetModel, UNet2DConditionModel, UNetMotionModel
from torch_timing import DEVICE, DTYPE, arguments, compiled, noise, report, scalar

SIZES = {
    "public": dict(widths=(320, 640, 1280, 1280), layers=2, heads=8, groups=32, content=768),
    "tiny": dict(widths=(32, 64), layers=1, heads=4, groups=8, content=24),
}


def networks(size: str, device: str, dtype: torch.dtype) -> tuple[torch.nn.Module, torch.nn.Module, torch.nn.Module]:
    """The video model, the image model of the same weights, and the control."""
    of = SIZES[size]
    attends = [True] * (len(of["widths"]) - 1) + [False]
    down = ["CrossAttnDownBlock" if attend else "DownBlock" for attend in attends]
    up = ["CrossAttnUpBlock" if attend else "UpBlock" for attend in reversed(attends)]
    shape = dict(
        block_out_channels=of["widths"],
        layers_per_block=of["layers"],
        norm_num_groups=of["groups"],
        cross_attention_dim=of["content"],
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with torch.device(device):
        video = UNetMotionModel(
            **shape,
            down_block_types=[f"{name}Motion" for name in down],
            up_block_types=[f"{name}Motion" for name in up],
            num_attention_heads=of["heads"],
            motion_num_attention_heads=of["heads"],
            use_motion_mid_block=False,
        )
        shape |= dict(attention_head_dim=of["heads"], down_block_types=[f"{name}2D" for name in down])
        image = UNet2DConditionModel(**shape, up_block_types=[f"{name}2D" for name in up])
        control = ControlNetModel(**shape)
    torch.set_default_dtype(before)
    for model in (video, image, control):
        model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    weights = video.state_dict()
    image.load_state_dict({name: weights[name] for name in image.state_dict()}, assign=True)
    return video, image, control


class Known(torch.nn.Module):
    """In the place of a hint's convolutions: what they gave is given."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def guided_step(video, image, control, share_null: bool):
    """(latents (1, 4, F, h, w) float32, t, text (2, n, d) null and content, hint (F, c, h, w), scales) -> latents."""

    def step(latents, t, text, hint, alpha, alpha_next, w, w_t):
        frames = latents.shape[2]
        pictures = latents[0].transpose(0, 1).to(text.dtype).contiguous(memory_format=torch.channels_last)
        by_frame = lambda told: told.repeat_interleave(frames, dim=0)

        def residuals(told):
            rows = len(told)
            return control(
                pictures.repeat(rows, 1, 1, 1),
                t,
                by_frame(told),
                controlnet_cond=hint.repeat(rows, 1, 1, 1),
                return_dict=False,
            )

        down, mid = residuals(text)
        of_null = ([x[:frames] for x in down], mid[:frames]) if share_null else residuals(text[:1])
        added = dict(down_block_additional_residuals=down, mid_block_additional_residual=mid)
        both = video(latents.to(text.dtype).repeat(2, 1, 1, 1, 1), t, by_frame(text), **added, return_dict=False)[0]
        added = dict(down_block_additional_residuals=of_null[0], mid_block_additional_residual=of_null[1])
        alone = image(pictures, t, by_frame(text[:1]), **added, return_dict=False)[0]
        null, told = both.float()
        alone = alone.float().transpose(0, 1)
        epsilon = alone + w_t * (null - alone) + w * (told - null)
        x0 = (latents - (1 - alpha).sqrt() * epsilon) / alpha.sqrt()
        return alpha_next.sqrt() * x0 + (1 - alpha_next).sqrt() * epsilon

    return step


def main() -> None:
    """Prints a line of JSON."""
    parser = arguments(__doc__, frames=16, height=512, width=512)
    parser.add_argument("--size", choices=SIZES, default="public")
    parser.add_argument("--share-null", action="store_true", help="one evaluation of the control for both of null")
    args = parser.parse_args()
    video, image, control = networks(args.size, DEVICE, DTYPE)
    step = compiled(guided_step(video, image, control, args.share_null), args.mode)
    latents = noise(1, 4, args.frames, args.height // 8, args.width // 8, dtype=torch.float32)
    text = noise(2, 77, SIZES[args.size]["content"])
    told = scalar(0.4), scalar(0.42), scalar(7.5), scalar(1.2)
    with torch.inference_mode():
        hint = control.controlnet_cond_embedding(noise(args.frames, 3, args.height, args.width))
    control.controlnet_cond_embedding = Known()
    report(lambda: step(latents, scalar(481), text, hint, *told), args, [video, control])


if __name__ == "__main__":
    main()
