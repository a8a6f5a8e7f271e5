"""The four stages at their smallest, on clips of any kind: does everything run? About two minutes on two cores.

gen1 render --clips 16 --frames 4 --size 32 --out worlds
gen1 train --config configs/smoke.py --workdir runs/smoke
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Synthetic clips in ./worlds with the depth that they carry."""
    config = ConfigDict()
    config.component = "unet"
    config.model = "tiny"
    config.data = ConfigDict(
        dict(
            image=dict(sources=({"path": "worlds"},), buckets=((32, 32),), batch_size=8),
            video=dict(sources=({"path": "worlds"},), buckets=((32, 32),), batch_size=8, frames=4),
            inputs="depth",
        )
    )
    config.stages = (
        dict(name="images", steps=4, image_probability=1.0, structure=False),
        dict(name="videos", steps=4, structure=False),
        dict(name="structure", steps=4, structure_levels=(0, 0)),
        dict(name="levels", steps=4, structure_levels=(0, 7)),
    )
    config.optimizer = ConfigDict(dict(learning_rate=1e-3, warmup_steps=2))
    config.dtype = "float32"
    config.log_every = 2
    config.checkpoint = ConfigDict(dict(every=4, keep=2))
    config.preview = ConfigDict(dict(every=16, frames=4, num_inference_steps=2))
    return config
