import numpy as np
import pytest
import tensorflow_datasets as tfds
from small_sets import clip, frames_of, make_set

from gen1_jax.data.batch import encode_caption
from gen1_jax.data.codec import encode_video
from gen1_jax.data.dataset import RecordError
from gen1_jax.data.loading import LoadExample
from gen1_jax.data.sources import open_source
from gen1_jax.media import write_image


def loader(source, **settings):
    defaults = {
        "number": 0,
        "indices": np.arange(len(source)),
        "bucket": (32, 48),
        "frames": 3,
        "stride": 1,
        "subject": None,
        "inputs": "pixels",
        "structure": ("depth",),
        "structure_levels": (0, 7),
        "flip_probability": 0.0,
        "random_crop": True,
        "caption_bytes": 64,
        "skip_errors": False,
    }
    settings = {**defaults, **settings}
    return LoadExample(source=source, map_kinds={"depth": ("depth",)}.get(settings["inputs"], ()), **settings)


def load(source, seed=0, element=0, **settings):
    return loader(source, **settings).random_map(element, np.random.default_rng(seed))


class Records(list):
    """A source of records in memory."""

    def locate(self, index):
        return f"memory: record {index}"

    def sizes(self):
        return None


def first_frame(example):
    """Which frame a window starts with: `frames_of` says so in green."""
    return round((float(example["pixels"][0, ..., 1].mean()) - 30) / 25)


def test_windows_start_anywhere_and_step_by_the_stride():
    source = Records([clip(4)])
    starts = set()
    for seed in range(40):
        example = load(source, seed, frames=2, stride=3)
        greens = example["pixels"][..., 1].mean((1, 2))
        assert abs(greens[1] - greens[0] - 75) < 3
        starts.add(first_frame(example))
    assert starts == {0, 1, 2}
    assert {int(load(source, seed)["content_index"]) for seed in range(40)} == {0, 1, 2}


def test_an_image_of_a_clip_is_one_of_its_frames():
    source = Records([clip(4)])
    examples = [load(source, seed, frames=1) for seed in range(60)]
    assert {first_frame(example) for example in examples} == set(range(6))
    assert all(example["content_index"] == 0 and example["pixels"].shape == (1, 32, 48, 3) for example in examples)


@pytest.mark.parametrize("bucket", [(32, 48), (20, 40), (48, 48), (64, 96)])
def test_flipping_and_cropping_move_depth_and_pixels_alike(bucket):
    """Blue and inverse depth are the same affine function of the column, whatever happened to the columns."""
    source = Records([clip(2, depth=True)])
    orientations = set()
    for seed in range(8):
        example = load(source, seed, bucket=bucket, inputs="depth", flip_probability=0.5)
        blue, depth = example["pixels"][..., 2].astype(float), example["maps"]["depth"][..., 0]
        assert blue.shape == depth.shape == (3, *bucket) and depth.dtype == np.float32
        assert np.abs((blue - 20) / 210 - (depth - 0.1) / 0.9).max() < 0.06
        orientations.add(bool(blue[0, 0, 0] < blue[0, 0, -1]))
    assert orientations == {True, False}


def test_the_middle_is_cut_without_random_crops():
    source = Records([clip(2)])
    examples = [load(source, seed, bucket=(32, 24), random_crop=False)["pixels"] for seed in range(4)]
    middle = np.linspace(20, 230, 48)[12:36]
    for pixels in examples:
        assert np.abs(pixels[..., 2] - middle).max() < 8
    lefts = {int(load(source, seed, bucket=(32, 24))["pixels"][0, 0, 0, 2]) for seed in range(10)}
    assert len(lefts) > 3


def test_pictures_of_every_kind(tmp_path):
    rgb = frames_of(1)[0]
    write_image(tmp_path / "a.png", rgb)
    grey = rgb[..., 2]
    records = Records(
        {"image": image}
        for image in (rgb, grey, grey[..., None], tmp_path / "a.png", (tmp_path / "a.png").read_bytes())
    )
    for element in range(5):
        example = load(records, element=element, frames=1)
        assert example["pixels"].shape == (1, 32, 48, 3) and example["record"].tolist() == [0, element]
        assert np.abs(example["pixels"][0, ..., 2].astype(int) - grey).max() <= 1
    assert load(records, frames=1, bucket=(16, 24))["pixels"].shape == (1, 16, 24, 3)
    with pytest.raises(RecordError, match=r"memory: record 0 cannot be used .it is a picture, not a video"):
        load(records)


def test_a_video_as_an_array():
    records = Records([{"video": frames_of(3)}])
    assert np.array_equal(load(records, frames=6)["pixels"], frames_of(3))


def test_a_long_file_gives_windows_from_everywhere(tmp_path):
    frames = np.stack([np.full((32, 48, 3), 2 * index, np.uint8) for index in range(100)])
    (tmp_path / "long.mp4").write_bytes(encode_video(frames, 10.0))
    source = open_source(str(tmp_path))
    starts = [round(float(load(source, seed, stride=4)["pixels"][0].mean()) / 2) for seed in range(12)]
    assert min(starts) < 40 and max(starts) > 60 and max(starts) <= 100 - 9


def test_captions_are_cut_between_characters():
    assert bytes(encode_caption("naïve", 3)) == b"na\0"
    assert bytes(encode_caption("ï", 4)) == "ï".encode() + b"\0\0"
    example = load(Records([clip(7)]))
    assert bytes(example["caption"]).rstrip(b"\0").decode() == "clip number 7, naïve"


def test_precomputed_latents(tmp_path):
    moments = np.arange(6, dtype=np.float32)[:, None, None, None] * np.ones((6, 4, 6, 8), np.float32)
    structure = moments[None, ..., :4] + 100 * np.arange(8)[:, None, None, None, None]
    content = np.arange(6, dtype=np.float32)[:, None] * np.ones((6, 5), np.float32)
    latents = {"moments": moments, "structure": {"depth": structure}, "content": content}
    source = Records([{**latents, "caption": "x", "height": 32, "width": 48}])
    starts, levels = set(), set()
    for seed in range(30):
        example = load(source, seed, inputs="latents", structure_levels=(2, 5), flip_probability=1.0)
        start, level = example["moments"][0, 0, 0, 0], example["structure_level"]
        starts.add(float(start))
        levels.add(int(level))
        assert np.array_equal(example["moments"][:, 0, 0, 0], start + np.arange(3))
        assert np.array_equal(example["structure"]["depth"][:, 0, 0, 0], 100 * level + start + np.arange(3))
        assert example["content"].shape == (5,) and example["content"][0] == start + example["content_index"]
    assert starts == {0, 1, 2, 3} and levels == {2, 3, 4, 5}
    subject = np.full(5, 9, np.float32)
    told = [load(source, seed, inputs="latents", subject=subject) for seed in range(40)]
    assert 10 <= sum(float(example["content"][0]) == 9 for example in told) <= 30
    with pytest.raises(RecordError, match="no precomputed latents"):
        load(Records([clip(0)]), inputs="latents")
    with pytest.raises(RecordError, match="its latents are of 48x32, those wanted of 32x32"):
        load(source, inputs="latents", bucket=(32, 32))


@pytest.mark.parametrize(
    "record, settings, reason",
    [
        ({**clip(0), "video": clip(0)["video"][:300]}, {}, ""),
        ({**clip(0), "video": b"nothing"}, {}, ""),
        (clip(0), {"stride": 3}, "it has 6 frames, fewer than 3 that are 3 apart"),
        (clip(0), {"inputs": "depth"}, "it has no depth"),
        ({"image": b"\x89PNG nothing"}, {"frames": 1}, ""),
    ],
)
def test_what_cannot_be_used_is_named_or_skipped(record, settings, reason):
    good = clip(5, frames=9, depth=True)
    source = Records([record, good])
    with pytest.raises(RecordError, match=f"^memory: record 0 cannot be used .*{reason}"):
        load(source, **settings)
    example = load(source, skip_errors=True, **settings)
    assert example["record"].tolist() == [0, 1]
    assert len(example["skipped"]) == 1 and example["skipped"][0].startswith("memory: record 0 cannot be used")
    with pytest.raises(RecordError):
        load(Records([record] * 3), skip_errors=True, **settings)


def test_a_damaged_set_is_skipped_over(tmp_path):
    from small_sets import damage

    source = open_source(make_set(tmp_path, 6, shards=2))
    name = damage(tmp_path, shard=0)
    examples = [load(source, element=element, skip_errors=True) for element in range(6)]
    skipped = [message for example in examples for message in example["skipped"]]
    assert len(skipped) == 1 and name in skipped[0]


def test_tfds_pictures():
    with tfds.testing.mock_data(num_examples=3):
        source = open_source("tfds:mnist", "train")
        example = load(source, element=2, frames=1, bucket=(16, 16))
    assert example["pixels"].shape == (1, 16, 16, 3)
