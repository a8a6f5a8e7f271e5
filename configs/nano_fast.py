"""nano in four evaluations: its U-Net learns where its own guided steps lead (consistency distillation).

gen1 precompute --data worlds --model nano --size 128x128 --out worlds_latents
gen1 train      --config configs/nano_fast.py --workdir runs/nano_fast
gen1 edit       car.mp4 -o gold.mp4 --prompt "a golden car" --model runs/nano_fast

One evaluation a step instead of three: both scales of guidance are told to the network, in the ranges below. The way
is in four parts, whose ends it learns; --config.unet.consistency.parts=1 and .teacher_steps=50 are LCM, in one.
launch/nano.sh DIR worlds fast runs all of this, and makes the model folder.

With configs/nano_fast.py:data there is no teacher (consistency training): the examples themselves lead, and edits are
guided as nano's, by equation 10.
"""

from ml_collections import ConfigDict


def get_config(led_by: str = "teacher") -> ConfigDict:
    """The teacher is guided where nano's edits are, in a part of its steps alone, so that w = 4 is best for the student
    (of 1, 2 and 4, on 32 worlds of seed 7); half of the contents come by way of the prior, as in edits.

    A step costs about twice what one of configs/nano.py does. EMA is the target, too, and must not lag behind.
    """
    sources = ("worlds_latents",)  # another folder: --config.data.video.sources="('mine',)", and image.sources
    config = ConfigDict(
        dict(
            component="unet",
            objective="consistency",
            model="nano",
            data=dict(
                image=dict(sources=sources, buckets=((128, 128),), batch_size=256),
                video=dict(sources=sources, buckets=((128, 128),), batch_size=64, frames=8),
                image_probability=0.125,
                inputs="latents",
                in_memory=True,
                threads=2,  # more of them only wait for each other
            ),
            stages=(dict(name="distil", steps=6_000, structure_levels=(0, 7)),),
            optimizer=dict(learning_rate=1e-4, warmup_steps=300, schedule="cosine", ema_decay=0.95),
            unet=dict(
                content_dropout=0.0,  # what is guided away from is the teacher's affair
                prior_probability=0.5,
                consistency=dict(
                    guidance_scales=(1.0, 4.0),
                    temporal_guidance_scales=(0.5, 1.5),
                    plain_temporal=0.5,
                    teacher_interval=(0.1, 0.6),
                    teacher_steps=40,
                    parts=4,
                    guidance_scale=4.0,
                ),
            ),
            dtype="bfloat16",
            log_every=50,
            checkpoint=dict(every=1000, keep=2),
            preview=dict(every=1000, prompts=("a clay world", "a jade statue on Mars"), num_inference_steps=4),
        )
    )
    if led_by == "data":
        consistency = dict(teacher=False, parts=4, teacher_steps=40, first_steps=40)
        config.unet.update(content_dropout=0.1, consistency=consistency)
        config.optimizer.ema_decay = 0.999  # which is not the target
    elif led_by != "teacher":
        raise ValueError(f"after the colon can only be data, not {led_by}")
    return config
