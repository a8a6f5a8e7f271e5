import io
import statistics
import time

import av
import numpy as np
import pytest
from media.media_files import make_video
from PIL import Image
from small_sets import clip, damage, make_set

from gen1_jax.cli import main
from gen1_jax.data.bench_windows import bench_windows
from gen1_jax.data.codec import encode_video
from gen1_jax.data.config import DataConfig, SourceConfig, StreamConfig
from gen1_jax.data.dataset import CLIP_FEATURES, open_dataset, write_dataset
from gen1_jax.data.mixture import Mixture
from gen1_jax.data.walk import batch_picture, render_walk, walk


def mixture(path, *, size=(32, 48), batch_size=2, **settings):
    stream = StreamConfig(sources=(SourceConfig(path=str(path)),), buckets=(size,), batch_size=batch_size, frames=4)
    config = DataConfig(video=stream, image_probability=0.0, **settings)
    return Mixture(config, process_index=0, process_count=1)


def test_a_walk_tells_where_time_goes(tmp_path):
    stream = mixture(make_set(tmp_path, 8, depth=True), inputs="depth", threads=1)
    seen = []
    summary, batch = walk(stream, 5, lambda done, total: seen.append((done, total)))
    assert seen == [(done, 5) for done in range(1, 6)]
    assert summary["frames_per_second"] == pytest.approx(4 * summary["examples_per_second"])
    assert summary["examples_per_second"] == pytest.approx(2 * summary["batches_per_second"])
    assert summary["MiB_per_second"] == pytest.approx(batch.nbytes / 2**20 * summary["batches_per_second"])
    assert summary["drawn"] == {"video 48x32": 5} and 0 < summary["waiting"] <= 1
    assert all(summary[f"{step}_ms_per_example"] > 0 for step in ("read", "decode", "transform", "collate"))
    assert "5 of video 48x32" in render_walk(summary) and "skipped" not in render_walk(summary)
    with pytest.raises(ValueError, match="at least 1"):
        walk(stream, 0)


def test_a_walk_counts_what_is_skipped(tmp_path):
    path = make_set(tmp_path, 4, shards=1)
    damage(tmp_path)
    summary, _ = walk(mixture(path, on_error="skip"), 10)
    assert summary["skipped"] >= 4 and "damaged records skipped" in render_walk(summary)


def test_a_picture_shows_frames_depth_and_captions(tmp_path):
    stream = mixture(make_set(tmp_path, 8, depth=True), inputs="depth", flip_probability=0.0, random_crop=False)
    batch = next(stream.iterate())
    picture = batch_picture(batch)
    assert picture.shape[1] == 4 * (48 + 4) and picture.dtype == np.uint8
    content = int(batch.content_index[0])
    for frame in range(4):
        tile = picture[4:36, 52 * frame + 4 : 52 * frame + 52]
        framed = tile[0, 0].tolist() == [255, 160, 0]
        assert framed == (frame == content)
        assert np.array_equal(tile[3:-3, 3:-3], batch.pixels[0, frame, 3:-3, 3:-3])
    depth = picture[40:72, 4:52, 0].astype(int)
    assert depth[0, 0] == 0 and depth[0, -1] == 255 and (np.diff(depth, axis=1) >= 0).all()
    text = picture[72:84]
    assert text.min() < 80  # something is written there
    assert len(batch_picture(batch, rows=1)) < len(picture)


@pytest.mark.slow
def test_the_pipeline_keeps_85_percent_of_the_speed_of_decoding(tmp_path):
    """Per second of CPU, against PyAV's own loop over the same clips, both with one thread."""
    rng = np.random.default_rng(0)
    texture = Image.fromarray(rng.integers(0, 256, (40, 70, 3), np.uint8)).resize((560, 320), Image.Resampling.BICUBIC)
    texture = np.asarray(texture)

    def examples(shard):
        for index in range(16):
            frames = np.stack([texture[t * 4 + index :, t * 6 + index :][:256, :448] for t in range(8)])
            yield {**clip(index), "video": encode_video(frames, 8.0), "frames": 8, "height": 256, "width": 448}

    write_dataset(
        tmp_path, name="clips", split="train", features=CLIP_FEATURES, num_shards=1, examples=examples, info={}
    )
    source = open_dataset(tmp_path, "train")
    videos = [source[index]["video"] for index in range(len(source))]
    stream = StreamConfig(sources=(SourceConfig(path=str(tmp_path)),), batch_size=8, frames=8)
    loaded = Mixture(DataConfig(video=stream, image_probability=0.0), process_index=0, process_count=1)

    def decode():
        for video in videos:
            with av.open(io.BytesIO(video)) as container:
                container.streams.video[0].thread_type = "NONE"
                for frame in container.decode(video=0):
                    frame.to_ndarray(format="rgb24")

    def load():
        for step in range(2):
            loaded.load(step)

    def seconds(function):
        start = time.process_time()
        function()
        return time.process_time() - start

    pairs = [(seconds(decode), seconds(load)) for _ in range(9)]
    assert statistics.median(raw / own for raw, own in pairs) > 0.85


def walking(path, count):
    """Clips of 640x360 with B-frames, a key frame in each second or only at the start."""
    rng = np.random.default_rng(0)
    texture = Image.fromarray(rng.integers(0, 256, (50, 90, 3), np.uint8)).resize((900, 500), Image.Resampling.BICUBIC)
    frames = [np.asarray(texture)[t % 140 :, 2 * t % 260 :][:360, :640] for t in range(count)]
    for index in range(2):
        make_video(path / f"{index}.mp4", frames=frames, rate=24, options={"bf": "3", "g": "24" if index else "250"})
    return path


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 4])
def test_windows_of_a_folder_keep_85_percent_of_the_speed_of_decoding(tmp_path, stride):
    """Per second of CPU, against PyAV alone on the same windows."""
    path = walking(tmp_path, 120)
    measured = bench_windows(str(path), split="train", frames=8, stride=stride, bucket=(256, 448), windows=16)
    assert measured["speed"] > 0.85


def test_windows_are_timed(tmp_path, capsys):
    make_video(tmp_path / "a.mp4")
    options = ["--frames", "2", "--bucket", "64x48", "--windows", "2"]
    assert main(["bench", "data", "--video", str(tmp_path), *options]) == 0
    assert "2 windows of 2 frames at 64x48 of 1 video" in capsys.readouterr().out
    assert main(["bench", "data", "--video", str(tmp_path), *options, "--stride", "20"]) == 2
    assert "a.mp4 (index 0) cannot be used (it has 10 frames" in capsys.readouterr().err
