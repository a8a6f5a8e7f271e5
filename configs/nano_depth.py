"""nano's depth network, on pictures of synthetic worlds and their true depth.

gen1 render --clips 20000 --frames 8 --size 128 --out worlds
gen1 train  --config configs/nano_depth.py --workdir runs/nano_depth
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The light of the pictures is changed at random, so that real ones are not too strange."""
    return ConfigDict(
        dict(
            component="depth",
            model="nano",
            from_scratch=True,
            data=dict(
                image=dict(sources=("worlds",), buckets=((128, 128),), batch_size=128),
                image_probability=1.0,
                inputs="depth",
                in_memory=True,
                threads=16,
            ),
            stages=(dict(name="depth", steps=6_000),),
            optimizer=dict(learning_rate=5e-4, warmup_steps=300, schedule="cosine", ema_decay=0.999),
            checkpoint=dict(every=1000, keep=2),
        )
    )
