"""The prior, from captions to CLIP's image embeddings, on latents that `gen1 precompute` wrote.

gen1 precompute --data worlds --model nano --size 128x128 --out worlds_latents
gen1 train      --config configs/prior.py --workdir runs/prior

For another model: --config.model=DIR, with latents of that model.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Only captions and embeddings are read."""
    return ConfigDict(
        dict(
            component="prior",
            model="nano",
            from_scratch=True,
            data=dict(
                image=dict(sources=("worlds_latents",), buckets=((128, 128),), batch_size=512),
                image_probability=1.0,
                inputs="latents",
                in_memory=True,
                threads=8,
            ),
            stages=(dict(name="prior", steps=20_000),),
            optimizer=dict(learning_rate=3e-4, warmup_steps=500, schedule="cosine", ema_decay=0.999),
            checkpoint=dict(every=1000, keep=2),
        )
    )
