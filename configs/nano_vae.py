"""nano's autoencoder, on pictures of synthetic worlds and of their structure.

gen1 render --clips 20000 --frames 8 --size 128 --out worlds
gen1 train  --config configs/nano_vae.py --workdir runs/nano_vae

With configs/nano_vae.py:again the decoder of the model goes on alone, so that its latents stay what they are.
"""

from ml_collections import ConfigDict


def get_config(start: str = "") -> ConfigDict:
    """Some of the examples are structure: the same autoencoder encodes both, and structure is easy."""
    config = ConfigDict(
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
    if start == "again":
        config.update(from_scratch=False, vae=dict(decoder_only=True, squared_weight=20.0))
        config.update(stages=(dict(name="again", steps=4_000),), optimizer=dict(learning_rate=3e-4))
    elif start:
        raise ValueError(f"after the colon can only be again, not {start}")
    return config
