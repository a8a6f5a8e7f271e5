"""An upscaler for nano: its U-Net goes on at twice the size, told the small video in the place of depth.

gen1 precompute --data worlds:16000 --model nano --size 256x256 --structure low_resolution --levels two \\
                --out worlds_large
gen1 train      --config configs/nano_upscaler.py --workdir runs/nano_upscaler
gen1 upscale    small.mp4 -o large.mp4 --model runs/nano_upscaler
gen1 edit       car.mp4 -o gold.mp4 --prompt "a golden car" --upscale 2 --upscaler runs/nano_upscaler

launch/nano.sh DIR upscaler runs all of this and makes the model folder; gen1 evaluate
--benchmark upscaling measures it. nano-upscaler, which ships, is 7,191 of its steps.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The rows of depth go on as those of the small video, rather than rows of zeros beside them: they read a picture's
    latents and t_s at the size that features are used to, and nothing is left over that an upscaler never sees. Before
    any training nano's squared error in v on the demo clip is 0.29 so, and 0.33 with rows of zeros (0.19 with depth).

    A clip of 8 frames is 8x64x64x4 latents, four times nano's. Contents are CLIP's of the clip, as in use without
    a prompt; a quarter comes by way of the prior, as with one.
    """
    sources = ("worlds_large",)  # another folder: --config.data.video.sources="('mine',)", and image.sources
    return ConfigDict(
        dict(
            component="unet",
            model="nano",
            data=dict(
                image=dict(sources=sources, buckets=((256, 256),), batch_size=128),
                video=dict(sources=sources, buckets=((256, 256),), batch_size=32, frames=8),
                image_probability=0.125,
                inputs="latents",
                structure=("low_resolution",),
                in_memory=True,
                threads=2,  # more of them only wait for each other
            ),
            stages=(dict(name="upscaler", steps=8_000, structure_levels=(0, 7)),),
            optimizer=dict(learning_rate=3e-4, warmup_steps=500, schedule="cosine", ema_decay=0.999),
            unet=dict(structure_kinds=("low_resolution",), content_dropout=0.1, prior_probability=0.25),
            dtype="bfloat16",
            log_every=50,
            checkpoint=dict(every=2000, keep=2),
            preview=dict(every=2000, prompts=("a clay world", "a jade statue on Mars"), num_inference_steps=20),
        )
    )
