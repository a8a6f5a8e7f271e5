"""nano's CLIP, on pictures of synthetic worlds and their captions.

gen1 render --clips 20000 --frames 8 --size 128 --out worlds
gen1 train  --config configs/nano_clip.py --workdir runs/nano_clip
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Large batches: the other examples of a batch are what a caption is told apart from."""
    return ConfigDict(
        dict(
            component="clip",
            model="nano",
            from_scratch=True,
            data=dict(
                image=dict(sources=("worlds",), buckets=((128, 128),), batch_size=512),
                image_probability=1.0,
                inputs="pixels",
                in_memory=True,
                threads=16,
                flip_probability=0.0,
            ),
            stages=(dict(name="clip", steps=2_000),),
            optimizer=dict(learning_rate=1e-3, warmup_steps=300, schedule="cosine", weight_decay=0.1, ema_decay=0.999),
            checkpoint=dict(every=1000, keep=2),
        )
    )
