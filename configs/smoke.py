"""The four stages at their smallest, on clips of any kind: does everything run? About two minutes on two cores.

gen1 render --clips 16 --frames 4 --size 32 --out worlds
gen1 train --config configs/smoke.py --workdir runs/smoke
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Synthetic clips in ./worlds, with the depth that they carry."""
    stream = dict(sources=("worlds",), buckets=((32, 32),), batch_size=8)
    return ConfigDict(
        dict(
            component="unet",
            model="tiny",
            data=dict(image=stream, video=dict(frames=4, **stream), inputs="depth"),
            stages=(
                dict(name="images", steps=4, image_probability=1.0, structure=False),
                dict(name="videos", steps=4, structure=False),
                dict(name="structure", steps=4, structure_levels=(0, 0)),
                dict(name="levels", steps=4, structure_levels=(0, 7)),
            ),
            optimizer=dict(learning_rate=1e-3, warmup_steps=2),
            dtype="float32",
            log_every=2,
            checkpoint=dict(every=4, keep=2),
            preview=dict(every=16, frames=4, num_inference_steps=2),
        )
    )
