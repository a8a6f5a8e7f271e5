"""Folders of media as people have them: trained on as `open_video` and `read_image` show them."""

import json
import os
import shutil
import unicodedata
from fractions import Fraction

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from media.media_files import UPRIGHT, flat, index_of, make_video, patch_matrix, picture, remux
from PIL import Image
from test_loading import load

from gen1_jax.cli import main
from gen1_jax.data.config import DataConfig, SourceConfig, StreamConfig
from gen1_jax.data.dataset import RecordError, write_dataset
from gen1_jax.data.mixture import Mixture
from gen1_jax.data.sources import open_source
from gen1_jax.media import VideoWriter, open_video, read_image


def mixture(path, buckets=((48, 64), (64, 48)), batch_size=2, frames=3, **settings):
    stream = StreamConfig(
        sources=(SourceConfig(path=str(path)),), buckets=buckets, batch_size=batch_size, frames=frames
    )
    streams = (
        {"image": stream, "image_probability": 1.0} if frames == 1 else {"video": stream, "image_probability": 0.0}
    )
    return Mixture(DataConfig(**streams, flip_probability=0.0, **settings), process_index=0, process_count=1)


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("matrix", list(UPRIGHT)[:7], ids=str)
def test_phone_clips_are_upright(tmp_path, matrix, in_memory):
    path = patch_matrix(make_video(tmp_path / "phone.mp4"), *matrix)
    with open_video(path) as video:
        frames = np.stack([frame.rgb for frame in video])
    loaded = mixture(tmp_path, in_memory=in_memory)
    (bucket,) = {key[1] for key in loaded.probabilities}
    assert bucket == frames.shape[1:3]
    for clip in loaded.load(0)["arrays"]["pixels"]:
        assert any(np.array_equal(clip, frames[start : start + 3]) for start in range(8))


def test_buckets_are_chosen_by_what_is_displayed(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", width=64, height=64, frame_rate=10, sample_aspect_ratio=Fraction(1, 2)) as out:
        for index in range(4):
            out.write(picture(index, 64, 64))
    assert open_source(str(tmp_path)).sizes().tolist() == [[128, 64]]
    loaded = mixture(tmp_path, buckets=((64, 64), (128, 64)))
    assert set(loaded.probabilities) == {("video", (128, 64))}
    assert loaded.load(0)["arrays"]["pixels"].shape == (2, 3, 128, 64, 3)


def test_colours_of_hd_without_tags(tmp_path):
    flat(tmp_path / "hd.mkv", "ffv1", "yuv420p", (100, 128, 160), size=(1280, 720))
    with open_video(tmp_path / "hd.mkv") as video:
        expected = next(video).rgb[8, 8].astype(int)
    shown = load(open_source(str(tmp_path)), frames=1)["pixels"][0, 8, 8]
    assert np.abs(shown - expected).max() <= 2


def test_windows_over_the_frames_that_decode(tmp_path):
    """A trim without loss, uneven times, sound that is longer: none is skipped."""
    long = make_video(tmp_path / "long.mp4", frames=[picture(i % 10) for i in range(40)], options={"bf": "3"})
    remux(long, tmp_path / "cut.mp4", lambda time: time - Fraction(31, 10))
    remux(make_video(tmp_path / "s.mp4"), tmp_path / "sound.mkv", sound=4)
    make_video(tmp_path / "uneven.mp4", times=[Fraction(i * i, 50) for i in range(10)])
    long.unlink()
    (tmp_path / "s.mp4").unlink()
    source = open_source(str(tmp_path))
    expected = {"cut.mp4": [1, 2, 3, 4, 5, 6, 7, 8, 9], "sound.mkv": list(range(10)), "uneven.mp4": list(range(10))}
    for element, indices in enumerate(expected.values()):
        assert [index_of(rgb) for rgb in load(source, frames=len(indices), element=element)["pixels"]] == indices
        starts = {index_of(load(source, seed, element, frames=2)["pixels"][0]) for seed in range(40)}
        assert starts == set(indices[:-1])


def oriented(path, orientation, size=(24, 16)):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture(3, *size)).save(path, exif=exif, **({"quality": 95} if path.suffix == ".jpg" else {}))
    return path


@pytest.mark.parametrize(
    ("orientation", "suffix"),
    [*((o, ".jpg") for o in range(1, 9)), *((o, s) for o in (3, 6) for s in (".png", ".webp", ".tif", ".avif"))],
)
def test_photos_are_upright_before_they_get_a_bucket(tmp_path, orientation, suffix):
    path = oriented(tmp_path / f"photo{suffix}", orientation)
    upright = read_image(path)
    assert upright.shape[:2] == ((24, 16) if orientation > 4 else (16, 24))
    assert open_source(str(tmp_path)).sizes().tolist() == [list(upright.shape[:2])]
    loaded = mixture(tmp_path, buckets=((16, 24), (24, 16)), frames=1)
    assert np.array_equal(loaded.load(0)["arrays"]["pixels"][0, 0], upright)


def test_records_and_files_of_photos_are_read_alike(tmp_path):
    path = oriented(tmp_path / "a.jpg", 6)
    record = ArrayRecordWriter(str(tmp_path / "m.array_record"), "group_size:1")
    record.write(path.read_bytes())
    record.write(patch_matrix(make_video(tmp_path / "v.mp4"), 0, 1, -1, 0).read_bytes())
    record.write(b"ffconcat version 1.0\nfile v.mp4\n")
    record.close()
    source = open_source(str(tmp_path / "m.array_record"))
    assert np.array_equal(load(source, frames=1, bucket=(24, 16))["pixels"][0], read_image(path))
    assert index_of(load(source, frames=1, element=1, bucket=(64, 48))["pixels"][0]) < 10
    with pytest.raises(RecordError, match=r"record 2 \(index 2\) cannot be used"):
        load(source, frames=1, element=2)
    Image.new("L", (3700, 2600)).save(tmp_path / "large.jpg")  # more than a frame may have, less than phones make
    assert load(open_source(str(tmp_path / "large.jpg")), frames=1)["pixels"].shape == (1, 32, 48, 3)


def test_videos_as_bytes_of_a_data_set(tmp_path):
    """Of others: nothing but the bytes is known."""
    phone = patch_matrix(make_video(tmp_path / "v.mp4", options={"bf": "2"}), 0, 1, -1, 0)
    features = {"video": tfds.features.Tensor(shape=(), dtype=np.bytes_), "caption": tfds.features.Text()}
    records = [{"video": phone.read_bytes(), "caption": "a phone"}]
    write_dataset(
        tmp_path / "set",
        **{"name": "others", "split": "train", "features": features, "num_shards": 1, "info": {}},
        examples=lambda shard: records,
    )
    source = open_source(str(tmp_path / "set"))
    with open_video(phone) as video:
        frames = np.stack([frame.rgb for frame in video])
    assert np.array_equal(load(source, frames=10, bucket=(64, 48))["pixels"], frames)


@pytest.mark.parametrize(
    "script",
    ["ffconcat version 1.0\nfile b.ts\n", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nb.ts\n#EXT-X-ENDLIST\n"],
)
def test_a_script_in_a_folder_reads_no_neighbour(tmp_path, script):
    make_video(tmp_path / "b.ts")
    (tmp_path / "a.mp4").write_text(script)
    source = open_source(str(tmp_path))
    with pytest.raises(RecordError) as caught:
        load(source, element=0)
    assert str(caught.value).startswith(f"{tmp_path}/a.mp4 (index 0) cannot be used (") and "\n" not in str(
        caught.value
    )
    assert str(caught.value).count("a.mp4") == 1 and "--" not in str(caught.value)
    assert len(load(source, element=0, skip_errors=True)["skipped"]) == 1


@pytest.fixture
def footage(tmp_path):
    """What a folder of a person holds."""
    folder = tmp_path / "footage"
    for name in (".thumbnails", "sub/.ipynb_checkpoints", "__MACOSX", "dir.png"):
        (folder / name).mkdir(parents=True)
    clip = make_video(tmp_path / "clip.mp4")
    name = unicodedata.normalize("NFD", "café.mp4")
    for place in (name, ".thumbnails/x.mp4", "sub/.ipynb_checkpoints/b.mp4", "__MACOSX/b.mp4", "sub/b.mp4", "._b.mp4"):
        shutil.copy(clip, folder / place)
    make_video(folder / "c.mpg", "mpeg2video", rate=25)
    Image.fromarray(picture(0)).save(folder / "dir.png" / "photo.png")
    (folder / "again").symlink_to(folder / "sub")
    (folder / "captions.csv").write_bytes("file, caption\ncafé.mp4, a café\nsub\\b.mp4,b\nx.mp4,x\n".encode("utf-16"))
    (folder / "c.txt").write_bytes("un café".encode("cp1252"))
    return folder


def test_a_folder_of_a_person(footage):
    source = open_source(str(footage))
    examples = [source[index] for index in range(len(source))]
    found = {os.path.relpath(next(iter(e.values())), footage): e["caption"] for e in examples}
    cafe = unicodedata.normalize("NFD", "café.mp4")
    assert found == {cafe: "a café", "sub/b.mp4": "b", "c.mpg": "un café", "dir.png/photo.png": ""}
    loaded = mixture(footage, batch_size=3)  # videos alone
    assert {int(i) for _, i in loaded.load(0)["arrays"]["record"]} == {
        source._files.index(str(footage / n)) for n in found if "png" not in n
    }
    told = "\n".join(loaded.notes)
    for part in ("hidden: 3 (", ".thumbnails", "of the system: 1 (__MACOSX)", "by another name: 1 (again)"):
        assert part in told
    assert "captions: 3 with, 1 without" in told and "match no file: x.mp4" in told


def test_the_same_windows_with_and_without_an_index_on_disk(footage):
    loaded = mixture(footage, batch_size=3)
    first = [loaded.load(step)["arrays"]["pixels"] for step in range(3)]
    assert len(list((footage / ".gen1_index").iterdir())) == 3
    again = mixture(footage, batch_size=3)
    assert repr(again._fingerprint) == repr(loaded._fingerprint)
    assert all(np.array_equal(again.load(step)["arrays"]["pixels"], first[step]) for step in range(3))


def test_gen1_data_tells_what_it_left_out(footage, capsys):
    options = ["--batch-size", "3", "--buckets", "64x48", "--frames", "3", "--batches", "1"]
    assert main(["data", "--video", str(footage), *options]) == 0
    shown = capsys.readouterr().out
    assert f"{footage}: left out, hidden: 3 (" in shown and "captions: 3 with, 1 without" in shown
    assert main(["data", "--video", str(footage), *options, "--json"]) == 0
    assert any("match no file" in note for note in json.loads(capsys.readouterr().out)["notes"])
    (footage.parent / "none").mkdir()
    shutil.move(footage / ".thumbnails", footage.parent / "none" / ".thumbnails")
    assert main(["data", "--video", str(footage.parent / "none"), *options]) == 2
    assert "hidden: 1 (.thumbnails)" in capsys.readouterr().err
