"""nano's autoencoder, on pictures of synthetic worlds and of their structure.

gen1 render --clips 20000 --frames 8 --size 128 --out worlds
gen1 train  --config configs/nano_vae.py --workdir runs/nano_vae
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Some of the examples are structure: the same autoencoder encodes both, and structure is easy."""
    return ConfigDict(
        dict(
            component="vae",
            model="nano",
            from_scratch=True,
            data=dict(
                image=dict(sources=("worlds",), buckets=((128, 128),), batch_size=64),
                image_probability=1.0,
                inputs="depth",
                in_memory=True,
                threads=16,
            ),
            stages=(dict(name="vae", steps=8_000),),
            optimizer=dict(learning_rate=5e-4, warmup_steps=300, schedule="cosine", weight_decay=0.0, ema_decay=0.999),
            vae=dict(squared_weight=10.0, gradient_weight=0.1, kl_weight=1e-4, structure_probability=0.2),
            checkpoint=dict(every=1000, keep=2),
        )
    )
