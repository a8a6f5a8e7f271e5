"""nano goes on with clips of your own: its U-Net learns how your things look and move, at every t_s.

gen1 prepare    --videos footage/ --captions captions.csv --out clips
gen1 precompute --data clips --model nano --size 128x128 --out clips_latents
gen1 train      --config configs/own.py --workdir runs/own

Contents are frames of the clips. A few clips are learnt by heart: look at previews/, and stop (Ctrl-C) when you like
what you see.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Small batches, for a laptop; latents in ./clips_latents."""
    stream = dict(sources=("clips_latents",), buckets=((128, 128),))
    return ConfigDict(
        dict(
            component="unet",
            model="nano",
            data=dict(
                image=dict(batch_size=32, **stream),
                video=dict(batch_size=8, frames=8, **stream),
                image_probability=0.125,
                inputs="latents",
                in_memory=True,
            ),
            stages=(dict(name="own", steps=500, structure_levels=(0, 7)),),
            optimizer=dict(learning_rate=1e-4, warmup_steps=50, schedule="cosine", ema_decay=0.99),
            unet=dict(content_dropout=0.1),
            dtype="float32",
            log_every=10,
            checkpoint=dict(every=100, keep=2),
            preview=dict(every=100, prompt="a clay world", guidance_scale=2.0, num_inference_steps=20),
        )
    )
