"""nano's CLIP, on pictures of synthetic worlds and their captions.

gen1 render --clips 20000 --frames 8 --size 128 --out worlds
gen1 train  --config configs/nano_clip.py --workdir runs/nano_clip

gen1 render --clips 20000 --seed 1 --frames 2 --size 128 --out worlds_judge
gen1 train  --config configs/nano_clip.py:judge --workdir runs/judge
gen1 export --model runs/judge --format clip --dtype bfloat16 -o nano_judge

With configs/nano_clip.py:judge it is another CLIP, of other worlds, another seed and another width, that has no part in
edits and so may judge them: gen1 evaluate --judge nano_judge. launch/nano.sh DIR judge runs that.
"""

from ml_collections import ConfigDict


def get_config(what: str = "") -> ConfigDict:
    """Large batches: the other examples of a batch are what a caption is told apart from."""
    config = ConfigDict(
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
    if what == "judge":
        config.update(seed=1, clip=dict(hidden_size=160))
        config.data.update(seed=1, image=dict(sources=("worlds_judge",)))
    elif what:
        raise ValueError(f"after the colon can only be judge, not {what}")
    return config
