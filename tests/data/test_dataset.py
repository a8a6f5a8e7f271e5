import functools
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from small_sets import clip, damage, make_set

from gen1_jax.data.dataset import CLIP_FEATURES, RecordError, open_dataset, read_recipe, write_dataset

LETTERS = dict.fromkeys("abcdefgh", np.int64)  # enough for protobuf to mix up, if it may
FEATURES = {
    "index": np.int64,
    "data": tfds.features.Tensor(shape=(), dtype=np.bytes_),
    "text": tfds.features.Text(),
    **LETTERS,
}


def numbers(shard, per_shard=4):
    """Records that end in zero bytes, as an mp4 may."""
    for index in range(shard * per_shard, (shard + 1) * per_shard):
        yield {"index": index, "data": bytes([index]) * 50 + b"\0\0", "text": f"nº {index}"} | dict.fromkeys(LETTERS, 5)


write = functools.partial(
    write_dataset, name="numbers", split="train", features=FEATURES, num_shards=5, examples=numbers, info={"a": [1, 2]}
)


def contents(directory):
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(Path(directory).rglob("*")) if p.is_file()}


def test_what_is_written_is_read_by_us_and_by_tfds(tmp_path):
    summary = write(tmp_path)
    assert (summary.written, summary.kept, summary.examples, summary.complete) == (5, 0, 20, True)
    records = open_dataset(tmp_path, "train")
    assert len(records) == 20
    assert records[7] == {"index": 7, "data": b"\7" * 50 + b"\0\0", "text": "nº 7"} | dict.fromkeys(LETTERS, 5)
    assert [records[i]["index"] for i in range(20)] == list(range(20))
    source = tfds.builder_from_directory(str(tmp_path)).as_data_source("train")
    assert len(source) == 20 and source[7]["data"] == records[7]["data"] and source[7]["text"] == "nº 7".encode()
    assert [e["index"] for e in open_dataset(tmp_path, "train[50%:]")] == list(range(10, 20))
    assert read_recipe(tmp_path, "train") == {"a": [1, 2]}
    with pytest.raises(IndexError):
        records[20]


def test_a_source_survives_pickling(tmp_path):
    write(tmp_path)
    records = open_dataset(tmp_path, "train")
    assert pickle.loads(pickle.dumps(records))[3] == records[3]


def test_clips_know_their_sizes(tmp_path):
    make_set(tmp_path, 5, shards=2, sizes=[(32, 48), (48, 32)])
    expected = [[32, 48], [48, 32], [32, 48], [48, 32], [32, 48]]
    assert open_dataset(tmp_path, "train").sizes().tolist() == expected
    assert open_dataset(tmp_path, "train[1:3]").sizes().tolist() == expected[1:3]
    write(tmp_path / "other")
    assert open_dataset(tmp_path / "other", "train").sizes() is None


def test_processes_share_the_shards_and_the_bytes_are_the_same(tmp_path):
    write(tmp_path / "one")
    for index in (2, 0, 1):
        summary = write(tmp_path / "three", process_index=index, process_count=3)
        assert summary.written == len(range(index, 5, 3))
        assert summary.complete == (index == 1)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


def test_splits_share_a_directory(tmp_path):
    write(tmp_path)
    write(tmp_path, split="validation", num_shards=2)
    assert len(open_dataset(tmp_path, "train")) == 20 and len(open_dataset(tmp_path, "validation")) == 8
    assert set(tfds.builder_from_directory(str(tmp_path)).info.splits) == {"train", "validation"}


def test_empty_shards_are_fine(tmp_path):
    write(tmp_path, examples=lambda shard: numbers(shard) if shard == 3 else ())
    assert [e["index"] for e in open_dataset(tmp_path, "train")] == [12, 13, 14, 15]


def test_writing_continues_after_a_failure(tmp_path):
    asked = []

    def failing(shard):
        asked.append(shard)
        yield from numbers(shard)
        if shard == 2 and asked.count(2) == 1:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write(tmp_path, examples=failing)
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(ValueError, match="2 of 5 shards"):
        open_dataset(tmp_path, "train")
    seen = []
    summary = write(tmp_path, examples=failing, progress=lambda done, total: seen.append((done, total)))
    assert asked == [0, 1, 2, 2, 3, 4] and (summary.written, summary.kept) == (3, 2)
    assert seen == [(2, 5), (3, 5), (4, 5), (5, 5)]
    write(tmp_path / "clean")
    for name, data in contents(tmp_path / "clean").items():
        assert (tmp_path / name).read_bytes() == data
    assert write(tmp_path, examples=failing).written == 0


def test_killed_at_any_moment_only_whole_shards_remain(tmp_path):
    """Also: the bytes do not depend on the hash seed of the process, which protobuf's maps do."""
    code = f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_dataset
        def slow(shard):
            for record in test_dataset.numbers(shard):
                print(record["index"], flush=True)
                time.sleep(0.02)
                yield record
        test_dataset.write(sys.argv[1], examples=slow)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "killed")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    while process.stdout.readline() != "9\n":  # in the middle of the third shard
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list((tmp_path / "killed").glob("numbers-*"))) == 2
    assert write(tmp_path / "killed").written == 3
    write(tmp_path / "clean")
    assert contents(tmp_path / "killed") == contents(tmp_path / "clean")


def test_another_recipe_is_refused(tmp_path):
    write(tmp_path)
    with pytest.raises(ValueError, match=r"'train' was made with another a: \[1, 2\], not 3"):
        write(tmp_path, info={"a": 3})
    with pytest.raises(ValueError, match="num_shards: 5, not 6"):
        write(tmp_path, num_shards=6)
    with pytest.raises(ValueError, match="another features"):
        write(tmp_path, split="test", features={"index": np.int32})
    with pytest.raises(ValueError, match="small letters"):
        write(tmp_path, name="My Data")
    with pytest.raises(ValueError, match="out of range"):
        write(tmp_path, process_index=2, process_count=2)


@pytest.mark.parametrize("at", [0.2, 0.5, 0.9])
def test_a_damaged_record_names_its_file_and_index(tmp_path, at):
    make_set(tmp_path, 12, shards=3)
    name = damage(tmp_path, shard=1, at=at)
    records, broken = open_dataset(tmp_path, "train"), []
    for index in range(len(records)):
        try:
            assert records[index]["id"] == f"clip_{index}"
        except RecordError as error:
            broken.append(index)
            assert name in str(error) and f"record {index - 4} (index {index} of split 'train')" in str(error)
    assert len(broken) == 1 and 4 <= broken[0] < 8


def test_a_cut_shard_is_an_error_that_names_it(tmp_path):
    make_set(tmp_path, 12, shards=3)
    (path,) = tmp_path.glob("*-00002-of-00003")
    path.write_bytes(path.read_bytes()[:70000])
    with pytest.raises(RecordError, match=r"00002-of-00003: record 1 \(index 9"):
        open_dataset(tmp_path, "train")[9]
    (tmp_path / "dataset_info.json").unlink()
    with pytest.raises(ValueError, match="00002-of-00003: is damaged"):
        make_set(tmp_path, 12, shards=3)


def test_what_is_not_there_is_said(tmp_path):
    write(tmp_path)
    with pytest.raises(ValueError, match="has no split 'test'"):
        open_dataset(tmp_path, "test")
    with pytest.raises(ValueError, match="has no split 'test'"):
        read_recipe(tmp_path, "test")
    with pytest.raises(ValueError, match="is not a TFDS data set"):
        open_dataset(tmp_path / "nothing", "train")


def test_every_clip_record_is_complete():
    assert clip(3).keys() == CLIP_FEATURES.keys()


def test_no_tensorflow():
    assert "tensorflow" not in sys.modules
