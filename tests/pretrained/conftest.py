import dataclasses
import shutil

import pytest
from hub_files import CAPTIONS, DPT, SCHEDULER, TEXT, TOKENS, VISION, WIDTH, write_json
from oracle import randomise

from gen1_jax import cli
from gen1_jax.pretrained.hf_config import ConfigError
from gen1_jax.pretrained.importing import HuggingFaceFolders
from gen1_jax.pretrained.layout import LayoutError
from gen1_jax.pretrained.tensors import FolderError
from gen1_jax.pretrained.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def torch_family():
    """The smallest complete set of public networks that fit together, with random weights, by component."""
    import diffusers
    import transformers

    vae = diffusers.AutoencoderKL(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=16,
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    clip = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config=transformers.CLIPTextConfig(**TEXT),
            vision_config=transformers.CLIPVisionConfig(**VISION),
            projection_dim=WIDTH,
        )
    )
    depth = transformers.DPTForDepthEstimation(transformers.DPTConfig(**DPT))
    prior = diffusers.PriorTransformer(
        num_attention_heads=2, attention_head_dim=8, num_layers=1, embedding_dim=WIDTH, num_embeddings=77
    )
    family = dict(unet=unet, vae=vae, clip=clip, depth=depth, prior=prior)
    for network in family.values():
        randomise(network)
    depth.head.head[4].bias.data.fill_(1.0)  # the last relu would leave little to compare
    return family


@pytest.fixture(scope="session")
def hub(torch_family, tmp_path_factory):
    """The folders of the family, as a hub has them: sd/{unet,vae,scheduler}, clip, dpt, karlo/prior."""
    root = tmp_path_factory.mktemp("hub")
    folders = dict(unet="sd/unet", vae="sd/vae", clip="clip", depth="dpt", prior="karlo/prior")
    for component, folder in folders.items():
        torch_family[component].save_pretrained(root / folder)
    write_json(root / "sd" / "scheduler" / "scheduler_config.json", SCHEDULER)
    train_tokenizer(CAPTIONS, TOKENS).model.save(str(root / "clip"))
    return HuggingFaceFolders(**{component: root / folder for component, folder in folders.items()})


@pytest.fixture
def folders(hub, tmp_path):
    """A copy of the hub's folders to damage."""
    root = hub.clip.parent
    copy = shutil.copytree(root, tmp_path / "hub")
    given = {name: path for name, path in vars(hub).items() if path}
    return dataclasses.replace(hub, **{name: copy / path.relative_to(root) for name, path in given.items()})


@pytest.fixture
def check_refusal(capsys, monkeypatch):
    """Checks that a call and a command refuse alike: one line that names what is wrong, and exit code 2."""

    def check(call, command: list[str], *named: str) -> None:
        with pytest.raises((FolderError, ConfigError, LayoutError)) as refusal:
            call()
        message = str(refusal.value)
        for name in named:
            assert name in message
        assert "\n" not in message
        monkeypatch.setattr("warnings.showwarning", None)  # restored afterwards, the command sets it
        capsys.readouterr()
        assert cli.main(command) == 2
        out, err = capsys.readouterr()
        assert (out, err) == ("", f"gen1: {' '.join(message.split())}\n")

    return check
