"""A public model goes on with clips of your own: its motion modules and its ControlNet learn, Stable Diffusion stays.

gen1 import     --checkpoint model.safetensors --motion v3_sd15_mm.safetensors --controlnet depth=control_depth \
                --depth dpt-large -o base
gen1 prepare    --videos footage/ --captions captions.csv --frames 16 --buckets 512x512 --out clips
gen1 precompute --data clips --model base --size 512x512 --out clips_latents
gen1 train      --config configs/public.py --workdir runs/public
gen1 edit clip.mp4 -o edit.mp4 --prompt "a watercolour" --model runs/public

Contents are the captions of the clips, so let them have some. `gen1 plan` estimates an hour on one H100, and 27 GiB:
gen1 plan --config configs/public.py --config.model=public --topology gpu:h100:1 (a model of that size without weights).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Latents in ./clips_latents. Prediction (epsilon) and noise schedule (linear) are those of the model."""
    stream = dict(sources=("clips_latents",), buckets=((512, 512),))
    return ConfigDict(
        dict(
            component="unet",
            model="base",
            data=dict(
                image=dict(batch_size=32, **stream),
                video=dict(batch_size=8, frames=16, **stream),
                image_probability=0.125,
                inputs="latents",
                structure=("depth",),
            ),
            stages=(dict(name="public", steps=2_000, structure=("depth",)),),
            optimizer=dict(learning_rate=2e-5, warmup_steps=100, schedule="cosine", ema_decay=0.999),
            unet=dict(trained=("motion", "controls.depth"), content_dropout=0.1, structure_dropout=0.1),
            dtype="bfloat16",
            microbatches=dict(image=4, video=8),
            remat=True,
            log_every=20,
            checkpoint=dict(every=500, keep=2),
            preview=dict(every=500, prompts=("a watercolour",), frames=16),
        )
    )
