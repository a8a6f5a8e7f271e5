"""nano's prior, from captions of synthetic worlds to CLIP's embeddings of their pictures.

gen1 render --clips 20000 --frames 8 --size 128 --out worlds
gen1 train  --config configs/nano_clip.py --workdir runs/nano_clip
gen1 train  --config configs/nano_prior.py --config.model=runs/nano_clip --workdir runs/nano_prior

Pictures instead of latents, so that it can be trained beside the autoencoder that makes the latents.
With configs/nano_prior.py:again the prior of the model goes on.
"""

from ml_collections import ConfigDict


def get_config(start: str = "") -> ConfigDict:
    """CLIP embeds the pictures as training goes on."""
    config = ConfigDict(
        dict(
            component="prior",
            model="nano",
            from_scratch=True,
            data=dict(
                image=dict(sources=("worlds",), buckets=((128, 128),), batch_size=256),
                image_probability=1.0,
                inputs="pixels",
                in_memory=True,
                threads=16,
                flip_probability=0.0,
            ),
            stages=(dict(name="prior", steps=3_000),),
            optimizer=dict(learning_rate=5e-4, warmup_steps=300, schedule="cosine", ema_decay=0.999),
            checkpoint=dict(every=1000, keep=2),
        )
    )
    if start == "again":
        config.update(from_scratch=False, stages=(dict(name="again", steps=4_000),))
    elif start:
        raise ValueError(f"after the colon can only be again, not {start}")
    return config
