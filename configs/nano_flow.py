"""nano as a rectified flow: its U-Net goes on along the straight path from noise to data.

gen1 precompute --data worlds --model nano --size 128x128 --out worlds_latents
gen1 train      --config configs/nano_flow.py --workdir runs/nano_flow
gen1 edit       car.mp4 -o gold.mp4 --prompt "a golden car" --model runs/nano_flow --sampler midpoint

It begins from nano's weights: the straight path is nano's own process but for the scale of noisy latents and which
timestep has which noise. launch/nano.sh DIR worlds flow runs all of this and makes the model folder; gen1 evaluate
measures it as nano is measured. Any other model, whatever its denoiser, goes on likewise: --config.model=runs/other.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Batches and contents are those of configs/nano.py:again. No shift: latents of 32x32 are small already."""
    sources = ("worlds_latents",)  # another folder: --config.data.video.sources="('mine',)", and image.sources
    return ConfigDict(
        dict(
            component="unet",
            model="nano",
            prediction_type="flow_prediction",
            schedule=dict(use_flow_sigmas=True),  # for large pictures flow_shift=3.0 as well, and unet.timesteps.shift
            data=dict(
                image=dict(sources=sources, buckets=((128, 128),), batch_size=512),
                video=dict(sources=sources, buckets=((128, 128),), batch_size=128, frames=8),
                image_probability=0.125,
                inputs="latents",
                in_memory=True,
                threads=2,  # more of them only wait for each other
            ),
            stages=(dict(name="flow", steps=9_000, structure_levels=(0, 7)),),
            optimizer=dict(learning_rate=5e-4, warmup_steps=300, schedule="cosine", ema_decay=0.999),
            unet=dict(
                content_dropout=0.1,
                prior_probability=0.5,
                timesteps=dict(density="logit_normal", logit_mean=0.0, logit_std=1.0),
            ),
            dtype="bfloat16",
            log_every=50,
            checkpoint=dict(every=2000, keep=2),
            preview=dict(every=2000, prompts=("a clay world", "a jade statue on Mars"), num_inference_steps=20),
        )
    )
