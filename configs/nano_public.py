"""The U-Net of nano-public, a small model of the kind of public weights: text, motion modules, a ControlNet of depth.

gen1 render     --clips 4000 --frames 8 --size 128 --out worlds
gen1 precompute --data worlds --model nano-public --size 128x128 --out worlds_public
gen1 train      --config configs/nano_public.py --workdir runs/public
gen1 edit clip.mp4 -o edit.mp4 --prompt "a clay world" --model runs/public

launch/nano.sh DIR worlds public runs this. The other networks are nano's.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """All of the U-Net, which begins with nothing: first on pictures, then on pictures and clips."""
    stream = dict(sources=("worlds_public",), buckets=((128, 128),))
    return ConfigDict(
        dict(
            component="unet",
            model="nano-public",
            data=dict(
                image=dict(batch_size=256, **stream),
                video=dict(batch_size=64, frames=8, **stream),
                image_probability=0.125,
                inputs="latents",
                in_memory=True,
                threads=4,
            ),
            stages=(
                dict(name="images", steps=600, image_probability=1.0),
                dict(name="videos", steps=3_000),
            ),
            optimizer=dict(learning_rate=6e-4, warmup_steps=200, schedule="cosine", ema_decay=0.998),
            unet=dict(content_dropout=0.1, structure_dropout=0.1),
            dtype="bfloat16",
            log_every=50,
            checkpoint=dict(every=600, keep=2),
        )
    )
