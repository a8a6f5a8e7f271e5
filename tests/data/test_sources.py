import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from small_sets import clip, frames_of, make_set
from test_dataset import write

from gen1_jax.data.codec import encode_video
from gen1_jax.data.dataset import RecordError, RecordSource
from gen1_jax.data.sources import MediaFiles, MediaRecords, TfdsSource, open_source
from gen1_jax.media import write_image


@pytest.fixture
def footage(tmp_path):
    folder = tmp_path / "footage"
    (folder / "more").mkdir(parents=True)
    (folder / "b.mp4").write_bytes(encode_video(frames_of(1), 8.0))
    (folder / "b.txt").write_text("a red clip\n")
    (folder / "more" / "a.mp4").write_bytes(encode_video(frames_of(2, height=48, width=32), 8.0))
    (folder / ".hidden.mp4").write_bytes(b"")
    write_image(folder / "c.png", frames_of(3)[0])
    (folder / "notes.md").write_text("not media")
    return folder


def test_a_folder_of_media(footage):
    source = open_source(str(footage))
    assert isinstance(source, MediaFiles) and len(source) == 3
    assert [source.locate(i) for i in range(3)] == [
        f"{footage}/b.mp4 (index 0)",
        f"{footage}/c.png (index 1)",
        f"{footage}/more/a.mp4 (index 2)",
    ]
    assert source[0] == {"video": footage / "b.mp4", "caption": "a red clip"}
    assert source[1] == {"image": footage / "c.png", "caption": ""}
    assert source.sizes().tolist() == [[32, 48], [32, 48], [48, 32]]
    assert len(open_source(f"{footage}/*.mp4")) == 1
    assert len(open_source(f"{footage}/b.mp4")) == 1
    assert repr(pickle.loads(pickle.dumps(source))) == repr(source)


def test_array_records_of_media_files(tmp_path, footage):
    path = tmp_path / "media.array_record"
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for name in ("b.mp4", "c.png"):
        writer.write((footage / name).read_bytes())
    writer.close()
    source = open_source(str(path))
    assert isinstance(source, MediaRecords) and len(source) == 2
    assert source[0].keys() == {"video", "caption"} and source[1].keys() == {"image", "caption"}
    assert source[1]["image"] == (footage / "c.png").read_bytes()
    assert source.locate(1) == f"{path}: record 1 (index 1)"
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(RecordError, match=r"media.array_record: record 0 \(index 0\) cannot be read"):
        open_source(str(path))[0]


def test_our_own_data_set(tmp_path):
    source = open_source(make_set(tmp_path, 4), "train")
    assert isinstance(source, RecordSource) and source[2] == pytest.approx(clip(2))


@pytest.mark.parametrize("name, shape", [("mnist", (28, 28, 1)), ("cifar10", (32, 32, 3)), ("caltech101", None)])
def test_data_sets_that_ship_with_tfds(name, shape):
    with tfds.testing.mock_data(num_examples=6):
        source = open_source(f"tfds:{name}", "train")
        assert isinstance(source, TfdsSource) and len(source) == 6
        example = pickle.loads(pickle.dumps(source))[2]
    assert example["caption"] == "" and isinstance(example["image"], np.ndarray)
    sizes = source.sizes()
    assert sizes is None if shape is None else np.array_equal(sizes, np.full((6, 2), shape[:2]))


def test_a_prepared_tfds_set_is_read_by_its_folder(tmp_path):
    class Pictures(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"picture": tfds.features.Image(shape=(None, None, 3)), "caption": tfds.features.Text()}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for index in range(4):
                file = tmp_path / f"{index}.png"  # TFDS encodes arrays by TensorFlow, and takes files as they are
                write_image(file, frames_of(index)[0])
                yield index, {"picture": str(file), "caption": f"picture {index}"}

    builder = Pictures(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    source = pickle.loads(pickle.dumps(open_source(str(builder.data_path), "train")))
    assert isinstance(source, TfdsSource) and len(source) == 4
    assert {source[i]["caption"] for i in range(4)} == {f"picture {i}" for i in range(4)}
    assert {tuple(source[i]["image"][0, 0]) for i in range(4)} == {tuple(frames_of(i)[0, 0, 0]) for i in range(4)}


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(ValueError, match="no data set, video, picture or array_record file there"):
        open_source(str(tmp_path))
    with pytest.raises(ValueError, match="no such TFDS data set"):
        open_source("tfds:no_such_thing")
    write(tmp_path / "numbers")
    with pytest.raises(ValueError, match="no image or video feature, only a, b, c, d, data"):
        open_source(str(tmp_path / "numbers"))
