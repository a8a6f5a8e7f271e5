"""What the third notebook downloads when it is small, with random weights of the smallest size, as they lie on the hub.

`python tests/colabs/public_hub.py DIR` writes them for `colabs/store_pictures.py`.
"""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "pretrained")]

CLIP_TOKENS = 49408  # a single file comes without a tokenizer, so it is CLIP's own
REPOSITORIES = {  # of networks that are folders: where each lies
    "motion": "wangfuyun/AnimateLCM",
    "tile": "lllyasviel/control_v11f1p_sd15_depth",
    "encoder": "h94/IP-Adapter/models/image_encoder",
}
FILES = {  # by the names of `save_files`
    "sd": "Comfy-Org/stable-diffusion-v1-5-archive/v1-5-pruned-emaonly-fp16.safetensors",
    "ip": "h94/IP-Adapter/models/ip-adapter-plus_sd15.safetensors",
    "lora": "wangfuyun/AnimateLCM/AnimateLCM_sd15_t2v_lora.safetensors",
}


def write_hub(hub: Path) -> None:
    """Fills a folder."""
    import transformers
    from hub_files import DPT
    from oracle import randomise
    from sd_files import save_files, sd_networks

    networks = sd_networks(tokens=CLIP_TOKENS)
    for name, repository in REPOSITORIES.items():
        half = {"variant": "fp16"} if name == "tile" else {}
        getattr(networks, name).save_pretrained(hub / repository, **half)
    depth = transformers.DPTForDepthEstimation(transformers.DPTConfig(**DPT))
    randomise(depth, 0)
    depth.save_pretrained(hub / "Intel" / "dpt-large")
    files = hub / "files"
    files.mkdir()
    save_files(networks, files)
    for name, place in FILES.items():
        (hub / place).parent.mkdir(parents=True, exist_ok=True)
        (files / f"{name}.safetensors").rename(hub / place)


if __name__ == "__main__":
    write_hub(Path(sys.argv[1]))
