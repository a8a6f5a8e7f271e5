"""Workdirs and data sets in a bucket, for which a folder stands in where etils and TensorStore ask for one."""

import os
import shutil
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import jax
import pytest
from etils.epath import backend, gpath
from orbax.checkpoint._src.path import gcs_utils
from training_runs import checkpoint_steps, log

from gen1_jax.checkpoints.trained import open_trained
from gen1_jax.cli import main
from gen1_jax.data import dataset
from gen1_jax.data.dataset import open_dataset, write_dataset
from gen1_jax.data.sources import open_source


class FolderForBucket(backend._OsPathBackend):
    """gs://NAME/... as FOLDER/...; appends and renames of folders fail, as they do there."""

    def __init__(self, folder):
        self.folder = folder

    def local(self, path):
        return os.fspath(path).replace("gs:/", str(self.folder), 1).replace("//", "/")

    def open(self, path, mode):
        assert "a" not in mode and "+" not in mode, f"{path}: a bucket cannot append"
        return super().open(self.local(path), mode)

    def glob(self, path):
        return [path.replace(str(self.folder), "gs:/", 1) for path in super().glob(self.local(path))]

    def rename(self, path, dst):
        raise AssertionError(f"{path}: a bucket has no folders to rename")


def _local(name):
    def call(self, path, *rest, **named):
        return getattr(backend._OsPathBackend, name)(self, self.local(path), *rest, **named)

    return call


for _name in ("exists", "isdir", "listdir", "makedirs", "mkdir", "rmtree", "remove", "stat"):
    setattr(FolderForBucket, _name, _local(_name))


@pytest.fixture
def buckets(tmp_path, monkeypatch):
    """A folder: gs://NAME/... lies at NAME/... in it."""
    stand_in = FolderForBucket(tmp_path / "buckets")
    (stand_in.folder / "bucket").mkdir(parents=True)
    gcsfs = ModuleType("gcsfs")
    gcsfs.__spec__ = ModuleSpec("gcsfs", None)
    monkeypatch.setitem(sys.modules, "gcsfs", gcsfs)
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", stand_in)
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    in_folder = lambda path: {"driver": "file", "path": stand_in.local(path)}
    monkeypatch.setattr(gcs_utils, "get_kvstore_for_gcs", in_folder)  # TensorStore has a client of its own
    monkeypatch.setattr(gcs_utils, "is_hierarchical_namespace_enabled", lambda path: False)
    return stand_in.folder


def test_a_run_lives_in_a_bucket_goes_on_there_and_is_a_model(recipe, buckets, capsys):
    command = ["train", "--debug", "--config", str(recipe), "--workdir", "gs://bucket/run", "--stage=1"]
    command += ["--config.stages[0].steps=4"]
    before = set(os.listdir())
    assert main(command) == 0
    workdir = buckets / "bucket" / "run"
    assert checkpoint_steps(workdir)[-1] == 4 and (workdir / "config.json").exists()
    assert [entry["step"] for entry in log(workdir)] == list(range(1, 5))
    events = set((workdir / "tensorboard").iterdir())
    assert len(events) == 1

    for step in (3, 4):
        shutil.rmtree(workdir / "checkpoints" / str(step))
    assert main(command) == 0
    assert [entry["step"] for entry in log(workdir)] == list(range(1, 5))
    assert set((workdir / "tensorboard").iterdir()) > events
    assert set(os.listdir()) == before

    model = open_trained("gs://bucket/run")
    assert model.step == 4 and jax.tree.leaves(model.parameters("prior"))


def test_a_data_set_is_read_from_a_bucket(buckets, monkeypatch, tmp_path):
    asked = []

    def records(parts):  # array_record has a client of its own
        asked.extend(part.filename for part in parts)
        local = [part.replace(filename=part.filename.replace("gs:/", str(buckets), 1)) for part in parts]
        return original(local)

    original = dataset.ArrayRecordDataSource
    monkeypatch.setattr(dataset, "ArrayRecordDataSource", records)
    features = {"id": dataset.CLIP_FEATURES["id"], "video": dataset.CLIP_FEATURES["video"]}
    features |= {name: dataset.CLIP_FEATURES[name] for name in ("height", "width")}
    examples = lambda shard: ({"id": f"{shard}{i}", "video": b"x", "height": 2, "width": i} for i in range(3))
    kind = dict(name="clips", split="train", features=features, num_shards=2, info={})
    write_dataset(tmp_path / "clips", **kind, examples=examples)
    shutil.copytree(tmp_path / "clips", buckets / "bucket" / "clips")

    source = open_source("gs://bucket/clips")
    assert [source[i]["id"] for i in range(6)] == ["00", "01", "02", "10", "11", "12"]
    assert all(path.startswith("gs://bucket/clips/clips-train.array_record-0000") for path in asked)
    assert source.sizes().tolist() == [[2, i] for _ in range(2) for i in range(3)]
    next((buckets / "bucket" / "clips").glob("*.array_record-00001*")).unlink()
    with pytest.raises(ValueError, match="has 1 of 2 shards"):
        open_dataset("gs://bucket/clips", "train")
    with pytest.raises(ValueError, match=r"^gs://bucket/nothing: no data set there"):
        open_source("gs://bucket/nothing")


@pytest.mark.parametrize("command", ["train", "prepare", "model"])
def test_what_a_bucket_cannot_do_is_one_clear_line(command, recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    videos = tmp_path / "a.mp4"
    videos.write_bytes(b"no video")
    lines = {
        "train": (["train", "--config", str(recipe), "--workdir", "s3://bucket/run"], "mount the s3:// bucket"),
        "prepare": (["prepare", "--videos", str(videos), "--out", "gs://bucket/x"], "copy the folder to the bucket"),
        "model": (["info", "--model", "s3://bucket/run"], "mount the s3:// bucket"),
    }
    arguments, mend = lines[command]
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gen1: {arguments[-1]}: ") and mend in line
    assert os.listdir(tmp_path) == ["a.mp4"]
