"""nano's U-Net: the four stages of arXiv 2302.03011 in miniature, on latents of synthetic worlds.

gen1 render     --clips 20000 --frames 8 --size 128 --out worlds
gen1 precompute --data worlds --model nano --size 128x128 --out worlds_latents
gen1 train      --config configs/nano.py --workdir runs/nano

launch/nano.sh runs this and the recipes of the other networks, in their order.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The stages in the paper's proportions, but for the first: there is no image model to start from."""
    sources = ("worlds_latents",)  # another folder: --config.data.video.sources="('mine',)", and image.sources
    return ConfigDict(
        dict(
            component="unet",
            model="nano",
            from_scratch=True,
            data=dict(
                image=dict(sources=sources, buckets=((128, 128),), batch_size=256),
                video=dict(sources=sources, buckets=((128, 128),), batch_size=64, frames=8),
                image_probability=0.125,
                inputs="latents",
                in_memory=True,
                threads=8,
            ),
            stages=(
                dict(name="images", steps=10_000, image_probability=1.0, structure=False),
                dict(name="videos", steps=10_000, structure=False),
                dict(name="structure", steps=10_000, structure_levels=(0, 0)),
                dict(name="levels", steps=10_000, structure_levels=(0, 7)),
            ),
            optimizer=dict(learning_rate=4e-4, warmup_steps=500, schedule="cosine", final_fraction=0.05),
            unet=dict(content_dropout=0.1),
            dtype="bfloat16",
            log_every=50,
            checkpoint=dict(every=1000, keep=2),
            preview=dict(every=5000, num_inference_steps=25),
        )
    )
