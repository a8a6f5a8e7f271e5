"""nano's depth network, on worlds and their true depth: of pictures, and then, with :video, its layers between frames.

gen1 render --clips 20000 --frames 8 --size 128 --out worlds
gen1 train  --config configs/nano_depth.py --workdir runs/nano_depth

gen1 render --clips 4000 --frames 16 --size 128 --out worlds_long
gen1 train  --config configs/nano_depth.py:video --workdir runs/nano_depth_video
"""

from ml_collections import ConfigDict


def get_config(what: str = "") -> ConfigDict:
    """The light of the pictures is changed at random, so that real ones are not too strange."""
    config = ConfigDict(
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
    if what == "video":  # the network of pictures stays as it is
        video = dict(sources=("worlds_long",), buckets=((128, 128),), batch_size=16, frames=16)
        config.update(objective="clip_depth", from_scratch=False, stages=(dict(name="video", steps=6_000),))
        config.update(depth=dict(trained=("motion",), temporal_frames=16))
        config.data.update(video=video, image_probability=0.0)
        del config.data.image
    elif what:
        raise ValueError(f"after the colon can only be video, not {what}")
    return config
