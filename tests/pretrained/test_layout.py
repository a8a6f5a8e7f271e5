import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen1_jax.models.module import flatten, unflatten
from gen1_jax.pretrained.hf_config import ConfigError, require, typed_fields
from gen1_jax.pretrained.hf_unet import UNET
from gen1_jax.pretrained.layout import Layout, LayoutError
from gen1_jax.pretrained.tensors import FolderError, StoredTensor, stored_tensors

LAYOUT = Layout(
    renames=((r"^norm\.", "layer_norm."), (r"^blocks\.(\d+)\.", r"h.\1.")),
    new=(r"^temporal\.",),
    zero_rows=((r"^inputs\.kernel$", 4),),
    transposed=(r"^up\.kernel$",),
    aliases=((r"^old_norm\.", "layer_norm."),),
    ignored=(r"position_ids$",),
)
PARAMETERS = {
    "inputs.kernel": (3, 3, 12, 5),  # convolution with new rows
    "up.kernel": (2, 2, 5, 7),  # transposed convolution
    "blocks.0.kernel": (5, 6),  # matrix
    "blocks.10.kernel": (6, 5),  # 1x1 convolution there
    "norm.scale": (5,),
    "norm.bias": (5,),
    "token.embedding": (9, 4),
    "class_token": (1, 1, 4),
    "positions": (1, 3, 4),
    "temperature": (),
    "temporal.kernel": (3, 3),
}
TENSORS = {
    "inputs.weight": (5, 4, 3, 3),
    "up.weight": (5, 7, 2, 2),
    "h.0.weight": (6, 5),
    "h.10.weight": (5, 6, 1, 1),
    "layer_norm.weight": (5,),
    "layer_norm.bias": (5,),
    "token.weight": (9, 4),
    "class_token": (4,),
    "positions": (3, 4),
    "temperature": (),
}


def arrays(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def abstract():
    shapes = {path: jax.ShapeDtypeStruct(shape, np.float32) for path, shape in PARAMETERS.items()}
    return unflatten(shapes | {"temporal.kernel": np.full((3, 3), 7.0, np.float32)})


def fill(tensors):
    return flatten(LAYOUT.fill(abstract(), tensors, "checkpoint"))


def test_every_kind_of_array_finds_its_place():
    tensors = arrays(TENSORS)
    ours = fill(tensors)
    assert {path: value.shape for path, value in ours.items()} == PARAMETERS
    assert all(value.flags.c_contiguous and value.dtype == np.float32 for value in ours.values())
    np.testing.assert_array_equal(ours["inputs.kernel"][1, 2, :4, 3], tensors["inputs.weight"][3, :, 1, 2])
    assert not ours["inputs.kernel"][:, :, 4:].any()
    np.testing.assert_array_equal(ours["up.kernel"][0, 1], tensors["up.weight"].transpose(2, 3, 0, 1)[0, 1])
    np.testing.assert_array_equal(ours["blocks.0.kernel"], tensors["h.0.weight"].T)
    np.testing.assert_array_equal(ours["blocks.10.kernel"], tensors["h.10.weight"][:, :, 0, 0].T)
    np.testing.assert_array_equal(ours["class_token"][0, 0], tensors["class_token"])
    assert (ours["temporal.kernel"] == 7).all()


def test_writing_is_the_inverse_of_filling():
    tensors = arrays(TENSORS)
    written = LAYOUT.to_theirs(unflatten(fill(tensors)))
    assert written.keys() == tensors.keys()
    again = fill(written)  # all input channels are there now
    for path, value in fill(tensors).items():
        np.testing.assert_array_equal(again[path], value)


@given(st.sampled_from(sorted(TENSORS)), st.lists(st.integers(0, 9), max_size=5))
def test_any_other_shape_is_refused_before_anything_is_read(name, shape):
    allowed = {TENSORS[name], (5, 12, 3, 3) if name == "inputs.weight" else TENSORS[name]}
    allowed |= {(5, 6)} if name == "h.10.weight" else set()
    allowed |= {(6, 5, 1, 1)} if name == "h.0.weight" else set()
    ones = name in ("class_token", "positions", "temperature")
    fits = tuple(shape) in allowed or (ones and [n for n in shape if n != 1] == list(TENSORS[name]))
    tensors = {n: Header(s) for n, s in TENSORS.items()} | {name: Header(tuple(shape))}
    if fits:
        assert LAYOUT.match(abstract(), tensors, "checkpoint").keys() == PARAMETERS.keys() - {"temporal.kernel"}
    else:
        with pytest.raises(LayoutError, match="another shape"):
            LAYOUT.match(abstract(), tensors, "checkpoint")


class Header:
    """A tensor that must not be read."""

    def __init__(self, shape, dtype="float32"):
        self.shape, self.dtype = shape, dtype


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"h.0.weight": None}, r"^checkpoint lacks tensors: h\.0\.weight \(for blocks\.0\.kernel\)$"),
        ({"h.1.weight": Header((5, 6))}, r"^checkpoint has tensors that the network does not: h\.1\.weight$"),
        ({"old_norm.bias": Header((5,))}, r"an old and a new spelling: old_norm\.bias"),
        ({"positions": Header((4, 3))}, r"another shape: positions is \(4, 3\), but positions is \(1, 3, 4\)$"),
        ({"temperature": Header((), "I64")}, r"not floating point: temperature is I64"),
        ({"temperature": Header((), "float8_e4m3fn")}, r"not floating point: temperature is float8"),
    ],
)
def test_what_does_not_fit_is_listed(change, message):
    tensors = {name: Header(shape) for name, shape in TENSORS.items()} | change
    with pytest.raises(LayoutError, match=message):
        LAYOUT.match(abstract(), {name: x for name, x in tensors.items() if x is not None}, "checkpoint")


def test_old_spellings_and_constants_are_accepted():
    tensors = arrays(TENSORS)
    expected = fill(tensors)
    tensors["old_norm.bias"] = tensors.pop("layer_norm.bias")
    tensors["text.position_ids"] = np.arange(3)
    for path, value in fill(tensors).items():
        np.testing.assert_array_equal(value, expected[path])


def test_long_lists_are_shortened():
    tensors = {f"extra.{i:02}": Header((1,)) for i in range(20)} | {n: Header(s) for n, s in TENSORS.items()}
    with pytest.raises(LayoutError, match=r"extra\.00, .*extra\.07 and 12 more$"):
        LAYOUT.match(abstract(), tensors, "checkpoint")


def test_other_u_nets_of_more_input_channels_are_not_padded():
    """Inpainting has 9: they are not ours, though our kernel has room for them."""
    kernel = {"conv_in": {"kernel": jax.ShapeDtypeStruct((3, 3, 12, 8), np.float32)}}
    for channels in (3, 5, 9):
        with pytest.raises(LayoutError, match=r"conv_in\.weight is"):
            UNET.match(kernel, {"conv_in.weight": Header((8, channels, 3, 3))}, "unet")


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_stored_tensors_are_read_when_they_are_asked_for(tmp_path, dtype):
    import jax.numpy as jnp
    from safetensors.numpy import save_file

    value = np.asarray(jnp.asarray([[1.5, -2.0, np.nan]], "float32")).astype(jnp.dtype(dtype))
    save_file({"a": value, "b": np.array([1, 2])}, tmp_path / "x.safetensors")
    tensors = stored_tensors([tmp_path / "x.safetensors"])
    assert (tensors["a"].shape, tensors["a"].dtype, tensors["b"].dtype) == ((1, 3), dtype, "I64")
    assert all(isinstance(tensor, StoredTensor) for tensor in tensors.values())
    assert np.asarray(tensors["a"]).tobytes() == value.tobytes()
    assert np.asarray(tensors["a"], np.float32).dtype == np.float32


def test_one_tensor_in_two_shards_is_refused(tmp_path):
    from safetensors.numpy import save_file

    files = [tmp_path / "x.safetensors", tmp_path / "y.safetensors"]
    for file in files:
        save_file({"a": np.zeros(3)}, file)
    with pytest.raises(FolderError, match=r"y\.safetensors and x\.safetensors both hold a$"):
        stored_tensors(files)


def test_configurations_name_the_key():
    from gen1_jax.diffusion import NoiseSchedule

    with pytest.raises(ConfigError, match="source: act is 'relu', only 'silu' is supported"):
        require({"act": "relu"}, "source", act="silu")
    require({"sizes": [1, 2]}, "source", sizes=(1, 2), absent=3)
    for key, value in (("beta_start", "x"), ("beta_start", -1), ("num_train_timesteps", 2.5), ("beta_schedule", 1)):
        with pytest.raises(ConfigError, match=f"source: {key} is {value!r}"):
            typed_fields(NoiseSchedule(), {key: value}, "source")
