"""nano's U-Net: the four stages of arXiv 2302.03011 in miniature, on latents of synthetic worlds.

gen1 render     --clips 20000 --frames 8 --size 128 --out worlds
gen1 precompute --data worlds --model nano --size 128x128 --out worlds_latents
gen1 train      --config configs/nano.py --workdir runs/nano

With configs/nano.py:again the U-Net of the model goes on.

launch/nano.sh runs this and the recipes of the other networks, in their order.
"""

from ml_collections import ConfigDict


def get_config(start: str = "") -> ConfigDict:
    """Short stages without structure, for there is no image model to keep; edits use what the others learn.

    Going on, larger batches cost little more time, and half of the contents come by way of the prior, as in edits.
    """
    sources = ("worlds_latents",)  # another folder: --config.data.video.sources="('mine',)", and image.sources
    config = ConfigDict(
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
                threads=2,  # more of them only wait for each other
            ),
            stages=(
                dict(name="images", steps=1_000, image_probability=1.0, structure=False),
                dict(name="videos", steps=1_000, structure=False),
                dict(name="structure", steps=5_000, structure_levels=(0, 0)),
                dict(name="levels", steps=5_000, structure_levels=(0, 7)),
            ),
            optimizer=dict(learning_rate=5e-4, warmup_steps=300, schedule="cosine", ema_decay=0.999),
            unet=dict(content_dropout=0.1),
            dtype="bfloat16",
            log_every=50,
            checkpoint=dict(every=2000, keep=2),
            preview=dict(every=2000, prompts=("a clay world", "a jade statue on Mars"), num_inference_steps=20),
        )
    )
    if start == "again":
        config.update(from_scratch=False, unet=dict(prior_probability=0.5))
        config.update(stages=(dict(name="again", steps=9_000, structure_levels=(0, 7)),))
        config.data.update(image=dict(batch_size=512), video=dict(batch_size=128))
    elif start:
        raise ValueError(f"after the colon can only be again, not {start}")
    return config
