"""nano 2: nano's U-Net goes on with many inputs, any subset of which may be given, and what is known of a clip.

gen1 precompute --data worlds:16000 --frames 16 --model nano --size 128x128 --levels two --out worlds_inputs \
                --structure depth,edges,normals,flow,segmentation,pose,source \
                --record edges,normals,flow,segmentation,pose,source
gen1 train      --config configs/nano2.py --workdir runs/nano2
gen1 train      --config configs/nano2.py:long --workdir runs/nano2_long --config.model=runs/nano2

With configs/nano2.py:long it goes on with clips of 16 frames, for the frame positions that the others never reach.
launch/nano.sh DIR nano2 runs all of this, and makes the model folder.
"""

from ml_collections import ConfigDict

STRUCTURE = ("depth", "edges", "normals", "flow", "segmentation", "pose", "source")


def get_config(start: str = "") -> ConfigDict:
    """Structures are dropped each by itself, as in VideoComposer; but in four of ten examples there is one alone, half
    of the time depth: that is how most edits are made, and seven independent draws would hardly ever come to it.

    The source, whose pairs differ in one named thing or in all, is nearly always one of several: it has most to teach.
    """
    sources = ("worlds_inputs",)  # another folder: --config.data.video.sources="('mine',)", and image.sources
    config = ConfigDict(
        dict(
            component="unet",
            model="nano",
            data=dict(
                image=dict(sources=sources, buckets=((128, 128),), batch_size=256),
                video=dict(sources=sources, buckets=((128, 128),), batch_size=64, frames=8),
                image_probability=0.125,
                inputs="latents",
                structure=STRUCTURE,
                in_memory=True,
                threads=2,  # more of them only wait for each other
            ),
            stages=(dict(name="inputs", steps=12_000, structure_levels=(0, 7)),),
            optimizer=dict(learning_rate=3e-4, warmup_steps=500, schedule="cosine", ema_decay=0.999),
            unet=dict(
                inputs=(*STRUCTURE, "known"),
                content_dropout=0.1,
                structure_dropout=0.5,
                source_dropout=0.1,
                all_kept=0.1,
                none_kept=0.1,
                one_kept=0.4,
                known_probability=0.4,
                prior_probability=0.5,
            ),
            dtype="bfloat16",
            log_every=50,
            checkpoint=dict(every=2000, keep=2),
            preview=dict(every=2000, prompts=("a clay world", "a jade statue on Mars"), num_inference_steps=20),
        )
    )
    if start == "long":
        config.data.video.update(frames=16, batch_size=32)
        config.update(stages=(dict(name="long", steps=3_000, structure_levels=(0, 7)),))
        config.optimizer.update(learning_rate=1e-4)
    elif start:
        raise ValueError(f"after the colon can only be long, not {start}")
    return config
