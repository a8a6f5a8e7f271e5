"""What the tests of imports share: sizes of the smallest public networks, and how their folders are written."""

import json
from pathlib import Path

from gen1_jax.pretrained.importing import HuggingFaceFolders

WIDTH, TOKENS = 16, 550
CAPTIONS = [
    "a red cube on a snowy hill at dusk",
    "an oil painting of two cars",
    "the quick brown fox isn't lazy, is it?",
]
SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "trained_betas": None,
}
TEXT = dict(
    hidden_size=WIDTH,
    intermediate_size=24,
    num_hidden_layers=1,
    num_attention_heads=2,
    vocab_size=TOKENS,
    bos_token_id=TOKENS - 2,
    eos_token_id=TOKENS - 1,
    pad_token_id=TOKENS - 1,
    projection_dim=WIDTH,
)
VISION = dict(
    hidden_size=20,
    intermediate_size=24,
    num_hidden_layers=1,
    num_attention_heads=2,
    image_size=16,
    patch_size=8,
    projection_dim=WIDTH,
)
DPT = dict(
    image_size=32,
    patch_size=16,
    hidden_size=16,
    num_hidden_layers=4,
    num_attention_heads=2,
    intermediate_size=24,
    backbone_out_indices=[0, 1, 2, 3],
    neck_hidden_sizes=[4, 6, 8, 10],
    fusion_hidden_size=8,
)


def write_json(path: Path, value) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


def edit_json(path: Path, **changes) -> None:
    write_json(path, json.loads(path.read_text()) | changes)


def arguments(folders: HuggingFaceFolders, output) -> list[str]:
    """What `gen1 import` takes for these folders."""
    given = [(name.replace("_", "-"), path) for name, path in vars(folders).items() if isinstance(path, Path)]
    given += [("controlnet", f"{kind}={path}") for kind, path in folders.controlnets.items()]
    given += [("lora", f"{path}:{strength}") for path, strength in folders.loras]
    return ["import", *(f"--{name}={value}" for name, value in given), "-o", str(output)]
