"""`pipe(...)`, as people call pipelines of diffusers."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import gen1_jax
from gen1_jax.editing.inputs import prompts_and_seeds, to_frames, to_picture
from gen1_jax.editing.networks import dtype_of
from gen1_jax.errors import UserError

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 20, 28, 3), np.uint8)
STEPS = dict(num_inference_steps=2)


@pytest.fixture(scope="module")
def pipe(tiny_model):
    return gen1_jax.Gen1Pipeline.from_pretrained(tiny_model)


def test_calling_edits(pipe):
    edits = [pipe.edit(FRAMES, prompt="a golden car", seed=seed, **STEPS).frames for seed in (4, 5)]
    out = pipe(list(map(Image.fromarray, FRAMES)), "a golden car", num_videos_per_prompt=2, seed=4, **STEPS)
    assert out.seeds == [4, 5] and [len(video) for video in out.frames] == [3, 3]
    assert isinstance(out.frames[0][0], Image.Image)
    for frames, edit in zip(out.frames, edits, strict=True):
        np.testing.assert_array_equal(np.stack(frames), edit)
    (numbers,) = pipe(
        FRAMES / 255, ["a golden car"], generator=[SeededOfTorch(5)], output_type="np", return_dict=False, **STEPS
    )
    assert numbers.dtype == np.float32 and numbers.shape == (1, *FRAMES.shape)
    np.testing.assert_array_equal(np.rint(numbers[0] * 255), edits[1])


class SeededOfTorch:
    """What is asked of a `torch.Generator`."""

    def __init__(self, seed):
        self.initial_seed = lambda: seed


def test_several_prompts_and_pictures(pipe):
    same = np.random.default_rng(7)
    out = pipe(FRAMES, ["a cat", "a dog"], generator=np.random.default_rng(7), num_videos_per_prompt=2, **STEPS)
    first = int(same.integers(2**31))
    assert out.seeds == [first, first + 1] * 2
    one = pipe.edit(FRAMES, prompt="a dog", seed=first + 1, **STEPS)
    np.testing.assert_array_equal(out.edits[3].frames, one.frames)
    assert (out.edits[2].frames != one.frames).mean() > 0.5
    picture = pipe(FRAMES, image=Image.fromarray(FRAMES[0]), temporal_guidance_scale=1.2, **STEPS)
    expected = pipe.edit(FRAMES, image=FRAMES[0], temporal_guidance_scale=1.2, **STEPS)
    np.testing.assert_array_equal(picture.edits[0].frames, expected.frames)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"output_type": "pt"}, "torch.from_numpy"),
        ({"output_type": "gif"}, "pil or np"),
        ({"num_videos_per_prompt": 0}, "num_videos_per_prompt must be 1"),
        ({"seed": 1, "generator": 2}, "give one of them"),
        ({"seed": [1, 2]}, "2 seeds for 1 video"),
        ({"generator": "cpu"}, "generator of torch or NumPy"),
        ({"negative_prompt": ["a", "b"]}, "one text"),
        ({"prompt": []}, "empty list"),
    ],
)
def test_what_a_call_refuses(pipe, wrong, said):
    with pytest.raises(UserError, match=said):
        pipe(FRAMES, **({"prompt": "a cat"} | wrong))
    with pytest.raises(TypeError, match="heigth"):
        pipe(FRAMES, "a cat", heigth=3)


def test_prompts_meet_seeds():
    assert prompts_and_seeds("a", 3) == (["a"], [3])
    assert prompts_and_seeds("a", [1, 2]) == (["a", "a"], [1, 2])
    assert prompts_and_seeds(("a", "b"), 3) == (["a", "b"], [3, 3])
    assert prompts_and_seeds(["a", "b"], np.array([1, 2])) == (["a", "b"], [1, 2])
    with pytest.raises(UserError, match="3 values for 2 prompts"):
        prompts_and_seeds(["a", "b"], [1, 2, 3])
    with pytest.raises(UserError, match="0 values"):
        prompts_and_seeds("a", [])


def test_a_pipeline_changes_its_type_and_back(pipe):
    before = pipe.edit(FRAMES, prompt="a cat", **STEPS).frames
    assert pipe.to("bf16") is pipe and pipe.dtype == jnp.bfloat16
    assert pipe.unet.params["conv_in"]["kernel"].dtype == jnp.bfloat16
    assert pipe.to("float32").unet.params["conv_in"]["kernel"].dtype == jnp.float32
    network = pipe.unet
    assert pipe.to(jnp.float32).unet is network
    np.testing.assert_array_equal(pipe.edit(FRAMES, prompt="a cat", **STEPS).frames, before)


def test_types_by_their_names():
    named = {"bf16": jnp.bfloat16, "torch.float16": jnp.float16, np.float32: jnp.float32, jnp.bfloat16: jnp.bfloat16}
    assert all(dtype_of(name) == dtype for name, dtype in named.items())
    for wrong in ("cuda", "int8", np.float64):
        with pytest.raises(UserError, match="not one of bfloat16, float16, float32"):
            dtype_of(wrong)


def test_floats_and_pictures_are_read_and_written(tmp_path):
    half = FRAMES.astype(np.float32) / 255
    np.testing.assert_array_equal(to_frames(half), FRAMES)
    np.testing.assert_array_equal(to_picture(half[0].astype(np.float64)), FRAMES[0])
    for number, frames in enumerate((FRAMES, half, list(map(Image.fromarray, FRAMES)))):
        gen1_jax.save_video(frames, f"{tmp_path}/{number}/")
        np.testing.assert_array_equal(gen1_jax.load_video(tmp_path / str(number)), FRAMES)
    with pytest.raises(UserError, match="no frames to write"):
        gen1_jax.save_video([], tmp_path / "none.mp4")
    with pytest.raises(UserError, match="floats are 0 to 1"):
        to_frames(half * 255)
