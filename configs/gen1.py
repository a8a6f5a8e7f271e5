"""The paper's recipe (arXiv 2302.03011): four stages on images and clips, for 256 chips.

gen1 precompute ...       # your pictures and clips as latents, in ./images and ./videos
gen1 plan --config configs/gen1.py --topology v5e:16x16
gen1 train --config configs/gen1.py --workdir runs/gen1 --config.data.video.sources='({"path": "my/latents"},)'
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Steps, batches, buckets and the share of images are the paper's; what says "ours" it does not state."""
    config = ConfigDict()
    config.component = "unet"
    config.model = "full"  # a folder of `gen1 import` to start from Stable Diffusion, as the paper does
    config.data = ConfigDict(
        dict(
            image=dict(
                sources=({"path": "images"},),  # paper: 240 M pictures
                buckets=((320, 320), (320, 384), (384, 320), (256, 448), (448, 256)),
                batch_size=9216,
            ),
            video=dict(
                sources=({"path": "videos"},),  # paper: 6.4 M clips, every fourth frame
                buckets=((256, 448),),
                batch_size=1152,
                frames=8,
            ),
            image_probability=0.125,
            inputs="latents",  # ours: encoded once by `gen1 precompute`; "pixels" encodes in every step
        )
    )
    config.stages = (
        dict(name="images", steps=15_000, image_probability=1.0, structure=False),
        dict(name="videos", steps=75_000, structure=False),
        dict(name="structure", steps=25_000, structure_levels=(0, 0)),
        # ours: with 0.9999 over 10,000 steps e^-1, or 37%, of what ships would be from before this stage; now e^-5
        dict(name="levels", steps=10_000, structure_levels=(0, 7), ema_decay=0.9995),
    )
    config.optimizer = ConfigDict(dict(learning_rate=1e-4, warmup_steps=1000, ema_decay=0.9999))  # ours: AdamW
    config.dtype = "bfloat16"  # ours
    config.mesh = ConfigDict(dict(data=8, fsdp=16, context=2))  # ours: 1152 clips, nine for every two of 256 chips
    config.microbatches = ConfigDict(dict(image=4, video=9))  # ours, for 16 GB a chip
    config.remat = True  # ours
    config.checkpoint = ConfigDict(dict(every=1000, keep=3, keep_every=10_000))
    config.preview = ConfigDict(dict(every=1000))
    return config
