import jax.numpy as jnp
import numpy as np
import pytest
from oracle import relative_error

from gen1_jax.errors import UserError
from gen1_jax.models.hed import HED, HEDConfig
from gen1_jax.models.module import Bound, abstract_parameters, parameter_count
from gen1_jax.models.structure import structure_kind
from gen1_jax.pretrained.hf_hed import HED as NAMES
from gen1_jax.pretrained.hf_hed import hed_config, hed_tensors
from gen1_jax.pretrained.layout import LayoutError
from gen1_jax.pretrained.tensors import FolderError

TINY = HEDConfig(block_out_channels=(4, 6, 6, 8, 8))


def random_tensors(config: HEDConfig) -> dict[str, np.ndarray]:
    """As ControlNetHED.pth names them; sizes that keep the sigmoid from its ends."""
    rng = np.random.default_rng(0)
    tensors, previous = {"norm": rng.uniform(90, 130, (1, 3, 1, 1))}, 3
    for block, (width, layers) in enumerate(zip(config.block_out_channels, config.layers_per_block, strict=True), 1):
        for layer in range(layers):
            tensors[f"block{block}.convs.{layer}.weight"] = rng.normal(
                0, (previous * 5) ** -0.5, (width, previous, 3, 3)
            )
            tensors[f"block{block}.convs.{layer}.bias"] = rng.normal(0, 0.1, width)
            previous = width
        tensors[f"block{block}.projection.weight"] = rng.normal(0, 0.05, (1, width, 1, 1))
        tensors[f"block{block}.projection.bias"] = rng.normal(0, 0.1, 1)
    return {name: value.astype(np.float32) for name, value in tensors.items()}


def edges_by_torch(tensors: dict[str, np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """The arithmetic of ControlNetHED and of what is done with its maps, written again."""
    import torch
    import torch.nn.functional as F

    weights = {name: torch.tensor(value) for name, value in tensors.items()}
    x, maps = torch.tensor(pixels).permute(0, 3, 1, 2) - weights["norm"], []
    for block in range(1, 6):
        x = F.max_pool2d(x, 2, 2) if block > 1 else x
        for layer in range(3):
            if f"block{block}.convs.{layer}.weight" in weights:
                name = f"block{block}.convs.{layer}"
                x = F.relu(F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1))
        name = f"block{block}.projection"
        edges = F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
        maps.append(F.interpolate(edges, pixels.shape[1:3], mode="bilinear", align_corners=False))
    return torch.sigmoid(torch.stack(maps).mean(0))[:, 0].numpy()


@pytest.fixture(scope="module")
def tensors():
    return random_tensors(TINY)


@pytest.fixture(scope="module")
def hed(tensors):
    module = HED(hed_config(tensors, "hed"))
    return Bound(module, NAMES.fill(abstract_parameters(module), tensors, "hed"))


def test_edges_equal_those_of_torch(hed, tensors):
    """Three pictures of an odd size, two at a time."""
    assert hed.config == TINY
    frames = np.random.default_rng(1).integers(0, 256, (3, 38, 53, 3), np.uint8)
    theirs = edges_by_torch(tensors, frames.astype(np.float32))
    assert theirs.std() > 0.1 and theirs.min() > 0.1 and theirs.max() < 0.99
    softedge = structure_kind("softedge")
    ours = softedge.estimate(frames, {"softedge": hed}, frames_per_chunk=2)
    assert ours.shape == (3, 38, 53, 1)
    assert relative_error(ours[..., 0], theirs) <= 1e-4
    np.testing.assert_allclose(softedge.hint(softedge.normalise(ours)[None])[0], np.repeat(ours, 3, -1), atol=1e-6)


def test_full_size_and_its_names():
    params = abstract_parameters(HED(HEDConfig()))
    convolutions = 14_714_688  # of VGG16
    assert parameter_count(params) == convolutions + (64 + 128 + 256 + 512 + 512 + 5) + 3
    names = {NAMES.their_name(path) for path in _paths(params)}
    assert names == random_tensors(HEDConfig(block_out_channels=(1,) * 5)).keys()


def _paths(params):
    from gen1_jax.models.module import flatten

    return flatten(params)


def test_files(tmp_path, tensors):
    from safetensors.numpy import save_file

    save_file(tensors, tmp_path / "ControlNetHED.safetensors")
    assert hed_tensors(tmp_path).keys() == hed_tensors(tmp_path / "ControlNetHED.safetensors").keys() == tensors.keys()
    (tmp_path / "annotators").mkdir()
    for name in ("ControlNetHED.pth", "ZoeD_M12_N.pt"):
        (tmp_path / "annotators" / name).write_bytes(b"a pickle")
    for path in (tmp_path / "annotators", tmp_path / "annotators" / "ControlNetHED.pth"):
        with pytest.raises(FolderError, match=r"HED\.pth is a pickle.*torch\.load.*weights_only=True") as error:
            hed_tensors(path)
        assert "\n" not in str(error.value) and "'ControlNetHED.safetensors'" in str(error.value)
    with pytest.raises(FolderError, match="is not there"):
        hed_tensors(tmp_path / "absent.safetensors")
    with pytest.raises(LayoutError, match="is not ControlNetHED"):
        hed_config({"block1.conv1.weight": np.zeros(1)}, "bsds500")


def test_pictures_must_be_large_enough(hed):
    with pytest.raises(UserError, match="soft edges need 16 pixels"):
        hed.estimate(jnp.zeros((1, 32, 15, 3)))
    with pytest.raises(UserError, match="frames_per_chunk"):
        hed.estimate(jnp.zeros((1, 32, 32, 3)), frames_per_chunk=0)
    with pytest.raises(UserError, match="one entry for each"):
        HEDConfig(layers_per_block=(1,))
