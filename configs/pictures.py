"""Pictures repair what poor videos spoiled: layers within frames alone learn, from good pictures (arXiv 2401.09047).

gen1 train --config configs/pictures.py --workdir runs/pictures

The model is one that was trained on videos, all of it (configs/own.py, configs/nano.py): space and time are then
coupled so closely that better frames keep their motion. Layers between frames are no part of what is trained, so that
neither weight decay nor moments of the stage before reach them. With configs/pictures.py:lora changes of low rank are
learned instead, which gen1 export --format lora writes as a file of their own.
"""

from ml_collections import ConfigDict


def get_config(how: str = "") -> ConfigDict:
    """Good pictures in ./pictures; after the colon nothing, or lora."""
    config = ConfigDict(
        dict(
            component="unet",
            model="runs/own",
            data=dict(
                image=dict(sources=("pictures",), buckets=((128, 128),), batch_size=64),
                image_probability=1.0,
                inputs="pixels",
            ),
            stages=(dict(name="pictures", steps=2_000, structure_levels=(0, 7)),),
            optimizer=dict(learning_rate=5e-5, warmup_steps=100, schedule="cosine", ema_decay=0.995),
            unet=dict(trained=("spatial",), content_dropout=0.1),
            dtype="bfloat16",
            log_every=50,
            checkpoint=dict(every=500, keep=2),
            preview=dict(every=500, prompt="a clay world"),
        )
    )
    if how == "lora":
        config.unet.update(trained=(), lora=dict(rank=16, targets=("attention", "feed_forward", "convolutions")))
        config.optimizer.update(learning_rate=5e-4)
    elif how:
        raise ValueError(f"after the colon can only be lora, not {how}")
    return config
