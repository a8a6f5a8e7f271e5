"""nano with a transformer: a space-time DiT of nano's size and cost, trained as long as nano's U-Net was.

gen1 precompute --data worlds --model nano --size 128x128 --out worlds_latents
gen1 train      --config configs/nano_dit.py --workdir runs/dit
gen1 train      --config configs/nano_dit.py:again --workdir runs/dit_again --config.model=runs/dit
gen1 evaluate   --model runs/dit_again --clips 256 --batch-size 64

launch/nano.sh DIR worlds dit runs all but the last of this, and makes the model folder.
"""

from ml_collections import ConfigDict


def get_config(start: str = "") -> ConfigDict:
    """Steps and batches are those of nano's U-Net: 17,500 of its first two passes, then 9,000 of larger batches.

    The transformer has 8.7 M parameters and 21.8 GFLOP for a clip, the U-Net 9.4 M and 23.1. Gates begin at zero, and
    the running mean lags behind them: the warm-up is longer than the U-Net's.
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
                dict(name="structure", steps=6_500, structure_levels=(0, 0)),
                dict(name="levels", steps=9_000, structure_levels=(0, 7)),
            ),
            optimizer=dict(learning_rate=5e-4, warmup_steps=1_000, schedule="cosine", ema_decay=0.999),
            unet=dict(size="nano-dit", content_dropout=0.1),
            dtype="bfloat16",
            log_every=50,
            checkpoint=dict(every=2000, keep=2),
            preview=dict(every=2000, prompts=("a clay world", "a jade statue on Mars"), num_inference_steps=20),
        )
    )
    if start == "again":
        config.update(from_scratch=False, model="runs/dit", unet=dict(content_dropout=0.1, prior_probability=0.5))
        del config.unet.size
        config.update(stages=(dict(name="again", steps=9_000, structure_levels=(0, 7)),))
        config.data.update(image=dict(batch_size=512), video=dict(batch_size=128))
    elif start:
        raise ValueError(f"after the colon can only be again, not {start}")
    return config
