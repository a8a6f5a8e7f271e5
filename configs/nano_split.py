"""nano with a learned split: a code of few bits a frame in place of depth, a pooled token in place of CLIP.

gen1 precompute --data worlds --model nano --size 128x128 --out worlds_latents
gen1 train      --config configs/nano_split.py --workdir runs/split
gen1 evaluate   --model runs/split --benchmark swap --clips 256 --batch-size 64 --judge nano-judge --out swap_split
gen1 evaluate   --model nano --benchmark swap --clips 256 --batch-size 64 --judge nano-judge --out swap_nano

Edits take a picture or a clip (--image), no prompt. The rate is that of --config.split.grid, .groups and .bits:
512 bits a frame here; launch/split_rates.sh draws the curve. With configs/nano_split.py:pairs the code is made of the
same clip in another content, an oracle of what a split could be (latents with structure "source", as here):

gen1 precompute --data worlds:16000 --frames 8 --model nano --size 128x128 --levels two --out worlds_pairs \
                --structure source --record source --change all

launch/nano.sh DIR worlds split runs the first two lines, and makes the model folder.
"""

from ml_collections import ConfigDict


def get_config(start: str = "") -> ConfigDict:
    """The U-Net goes on from nano's, whose inputs of depth are now those of the code; the split begins with nothing.

    No structure is left out and no content comes from the prior: both are what the split makes of the clip itself.
    """
    sources = ("worlds_latents",)  # another folder: --config.data.video.sources="('mine',)", and image.sources
    config = ConfigDict(
        dict(
            component="unet",
            objective="split",
            model="nano",
            data=dict(
                image=dict(sources=sources, buckets=((128, 128),), batch_size=256),
                video=dict(sources=sources, buckets=((128, 128),), batch_size=64, frames=8),
                image_probability=0.125,
                inputs="latents",
                structure=(),
                in_memory=True,
                threads=2,  # more of them only wait for each other
            ),
            stages=(dict(name="split", steps=9_000),),
            optimizer=dict(learning_rate=5e-4, warmup_steps=300, schedule="cosine", ema_decay=0.999),
            unet=dict(content_dropout=0.1),
            split=dict(grid=8, groups=1, bits=8),
            dtype="bfloat16",
            log_every=50,
            checkpoint=dict(every=2000, keep=2),
        )
    )
    if start == "pairs":
        sources = ("worlds_pairs",)
        config.data.image.sources = config.data.video.sources = sources
        config.data.structure = ("source",)
        config.split.paired = 1.0
    elif start:
        raise ValueError(f"after the colon can only be pairs, not {start}")
    return config
