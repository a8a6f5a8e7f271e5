import hashlib
import logging
import pickle

import jax
import numpy as np
import pytest
from edges import edges_known
from latent_sets import FRAMES, latent_record, make_latents, make_maps, make_set_of_before, maps_of
from small_sets import make_set

from gen1_jax.data.config import DataConfig, SourceConfig, StreamConfig
from gen1_jax.data.dataset import RecordError, open_dataset
from gen1_jax.data.latents import LatentSource, made_structure, structure_contract, write_latents
from gen1_jax.data.mixture import Mixture
from gen1_jax.data.sources import open_source
from gen1_jax.data.walk import render_walk, walk
from gen1_jax.errors import UserError
from gen1_jax.models.structure import structure_kind

COUNT = 16


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    return make_latents(tmp_path_factory.mktemp("latents"), COUNT)


@pytest.fixture(scope="module")
def both_kinds(tmp_path_factory):
    with edges_known():
        return make_latents(tmp_path_factory.mktemp("both"), COUNT, kinds=("depth", "sobel"))


def config(path, frames=2, **settings):
    stream = {"sources": (SourceConfig(path=path),), "buckets": ((32, 48),)}
    return DataConfig(
        video=StreamConfig(**stream, batch_size=4, frames=frames),
        image=StreamConfig(**stream, batch_size=3),
        **{"image_probability": 0.4, "inputs": "latents", "structure_levels": (0, 7), "seed": 3, **settings},
    )


def draw(config, count=8):
    iterator = Mixture(config, process_index=0, process_count=1).iterate()
    batches = [next(iterator) for _ in range(count)]
    iterator.close()
    return batches, iterator.get_state()


def digest(batches):
    found = hashlib.sha256()
    for b in batches:
        for x in (b.moments, b.structure["depth"], b.content, b.structure_level, b.content_index, b.caption, b.record):
            found.update(str((x.shape, x.dtype)).encode() + np.ascontiguousarray(x).tobytes())
    return found.hexdigest()[:16]


@pytest.mark.parametrize("in_memory", [False, True])
def test_batches_of_sets_of_before_are_the_same_bytes(latents, tmp_path, in_memory):
    """Digest and state of the stream were taken before structure had files, and batches kinds, of their own."""
    before = make_set_of_before(tmp_path, COUNT)
    for path in (before, latents):
        batches, state = draw(config(path, in_memory=in_memory))
        assert digest(batches) == "1fd4dae9ece60ea4"
        assert state == {"step": 8, "skipped": 0, "data": "0e3f6713d8bcf49a"}
        Mixture(config(path), process_index=0, process_count=1).iterate().set_state(state)  # such a run goes on


def test_every_record_and_part_of_a_split_finds_its_levels(latents):
    whole = open_source(latents)
    for index in (0, 4, 5, COUNT - 1):
        expected, record = latent_record(index), whole[index]
        assert record["id"] == expected["id"] and isinstance(whole, LatentSource)
        for level in (0, 3, 7):
            np.testing.assert_array_equal(record["structure"]["depth"][level], expected["structure"]["depth"][level])
    part = pickle.loads(pickle.dumps(open_source(latents, "train[7:12]")))
    assert len(part) == 5 and repr(part) == repr(open_dataset(latents, "train[7:12]"))
    np.testing.assert_array_equal(part[2]["structure"]["depth"][6], latent_record(9)["structure"]["depth"][6])


def test_only_the_level_that_is_drawn_is_read(latents, monkeypatch):
    read = []
    level = LatentSource._level
    monkeypatch.setattr(LatentSource, "_level", lambda self, *where: read.append(where) or level(self, *where))
    (batch, *_), _ = draw(config(latents, image_probability=0.0, threads=1, prefetch=1), 1)
    expected = [("depth", int(i), int(t)) for i, t in zip(batch.record[:, 1], batch.structure_level, strict=True)]
    assert read[: len(batch)] == expected
    source = open_source(latents)
    levels = source[2]["structure"]["depth"]
    assert sum(levels[t].nbytes for t in range(8)) / levels[5].nbytes == 8


@pytest.mark.parametrize("workers", [0, 1])
def test_a_walk_tells_the_bytes_of_the_records_that_it_read(latents, tmp_path, workers):
    """A level is 3 x 4 x 6 x 4 numbers of two bytes; a set of before reads seven that nobody looks at."""
    level = FRAMES * 4 * 6 * 4 * 2
    told = dict(frames=FRAMES, image_probability=0.0, workers=workers)
    now, before = (
        walk(Mixture(config(path, **told), process_index=0, process_count=1), 4)[0]
        for path in (latents, make_set_of_before(tmp_path, COUNT))
    )
    others = before["read_bytes_per_batch"] - now["read_bytes_per_batch"]
    assert 4 * 7 * level <= others < 4 * (7 * level + 100)  # and the name of the feature
    assert now["array_bytes_per_batch"] == before["array_bytes_per_batch"] and "MiB of records" in render_walk(now)
    kept = walk(Mixture(config(latents, in_memory=True, **told), process_index=0, process_count=1), 30)[0]
    assert kept["read_bytes_per_batch"] < now["read_bytes_per_batch"]


def test_several_kinds_come_in_one_batch_and_none_if_none_is_asked_for(both_kinds):
    with edges_known():
        batches, state = draw(config(both_kinds, structure=("depth", "sobel"), workers=0))
        for batch in batches:
            for row, (_, index) in enumerate(batch.record):
                moments = np.asarray(latent_record(index)["moments"], np.float32)
                start = int(np.flatnonzero(moments[:, 0, 0, 0] == batch.moments[row, 0, 0, 0, 0])[0])
                window = slice(start, start + batch.moments.shape[1])
                expected = latent_record(index, ("depth", "sobel"))["structure"]
                for kind in ("depth", "sobel"):
                    of_level = expected[kind][batch.structure_level[row]][window]
                    np.testing.assert_array_equal(batch.structure[kind][row], of_level)
        assert digest(batches) == "1fd4dae9ece60ea4"  # another kind changes nothing about the rest
        assert state["data"] != draw(config(both_kinds), 1)[1]["data"]
    (batch, *_), _ = draw(config(both_kinds, structure=()), 1)
    assert batch.structure == {} and batch.moments is not None


@pytest.mark.parametrize("in_memory", [False, True])
def test_maps_of_a_control_come_as_they_were_estimated(tmp_path, in_memory):
    path = make_maps(tmp_path, COUNT)
    batches, _ = draw(config(path, in_memory=in_memory), 6)
    assert {batch.kind for batch in batches} == {"image", "video"}
    for batch in batches:
        assert batch.content is None and batch.structure == {}
        for row, (_, index) in enumerate(batch.record):
            moments = np.asarray(latent_record(index)["moments"], np.float32)
            start = int(np.flatnonzero(moments[:, 0, 0, 0] == batch.moments[row, 0, 0, 0, 0])[0])
            window = slice(start, start + batch.moments.shape[1])
            np.testing.assert_allclose(batch.maps["depth"][row], maps_of(index)[window], atol=1e-4)
    without, _ = draw(config(path, structure=()), 1)
    assert without[0].maps == {}
    source = pickle.loads(pickle.dumps(open_source(path)))
    assert (source.kinds, source.map_kinds) == (("depth",), ("depth",))
    with pytest.raises(UserError, match="no structure of kind 'sobel', only depth"):
        source.require(("depth", "sobel"))


def test_kinds_that_are_not_there_are_named(latents, tmp_path):
    with edges_known():
        asked = config(latents, structure=("depth", "sobel"))
        with pytest.raises(ValueError, match=r"no structure of kind 'sobel', only depth; run gen1 precompute with"):
            Mixture(asked, process_index=0, process_count=1)
    with pytest.raises(ValueError, match="no structure of kind 'sobel', only canny, depth"):
        config(latents, structure=("sobel",))
    with pytest.raises(ValueError, match="names a kind twice"):
        config(latents, structure=("depth", "depth"))
    assert DataConfig.from_dict({**config(latents).to_dict(), "structure": "depth"}).structure == ("depth",)


def test_damage_of_structure_names_the_clip(tmp_path):
    path = make_latents(tmp_path, 4, shards=2)
    (tmp_path / "structure_train" / "depth.array_record-00001-of-00002").unlink()
    record = open_source(path)[3]
    with pytest.raises(RecordError, match=r"-00001-of-00002: record 1 \(index 3 .*its depth at t_s 2 cannot be read"):
        record["structure"]["depth"][2]
    iterator = Mixture(config(path, on_error="skip"), process_index=0, process_count=1).iterate()
    next(iterator)
    iterator.close()
    assert iterator.stats.skipped > 0


def test_an_interrupted_shard_leaves_neither_latents_nor_structure(tmp_path):
    def examples(shard):
        yield latent_record(0)
        if shard:
            raise KeyboardInterrupt

    settings = dict(
        split="train", num_shards=2, structure={"depth": structure_contract(structure_kind("depth"))}, info={}
    )
    with pytest.raises(KeyboardInterrupt):
        write_latents(tmp_path, examples=examples, **settings)
    files = {file.name for file in tmp_path.rglob("*") if file.is_file()}
    assert files == {
        "recipe_train.json",
        "00000-of-00002.npy",
        "latent_clips-train.array_record-00000-of-00002",
        "depth.array_record-00000-of-00002",
    }
    whole = write_latents(tmp_path, examples=lambda shard: [latent_record(shard)], **settings)
    assert whole.complete and (whole.kept, whole.written) == (1, 1) and len(open_source(str(tmp_path))) == 2
    with pytest.raises(AssertionError, match="has 3 levels, not 8"):
        short = {**latent_record(0), "structure": {"depth": latent_record(0)["structure"]["depth"][:3]}}
        write_latents(tmp_path / "short", examples=lambda shard: [short], **settings)


def test_a_set_of_before_is_read_but_not_written_on(tmp_path):
    make_set_of_before(tmp_path, 3)
    with pytest.raises(UserError, match="made with another features; choose another folder"):
        make_latents(tmp_path, 3)
    assert len(open_source(str(tmp_path))) == 3


def test_contracts_of_before_are_those_of_today(tmp_path):
    said = {"polarity": "near is large", "normalisation": "clip minimum and maximum to [-1, 1]"}
    for source in ("model", "record"):
        assert made_structure({"depth": {"source": source, **said}}) == {
            "depth": structure_contract(structure_kind("depth"), source)
        }
    other = {"source": "model", **said, "normalisation": "none"}
    assert made_structure({"depth": other}) == {"depth": other}
    assert structure_contract(structure_kind("depth"))["support"] == "all frames that are encoded together"


def test_windows_shorter_than_the_stored_clip_are_told_of(latents, caplog):
    """Their depth was normalised over more frames than an example has."""

    def told():  # by this package; tensorflow-datasets talks too
        return [record for record in caplog.records if record.name.startswith("gen1_jax.")]

    with caplog.at_level(logging.INFO):
        Mixture(config(latents, frames=FRAMES), process_index=0, process_count=1)
        assert not told()
        Mixture(config(latents, frames=2), process_index=0, process_count=1)
    (record,) = told()
    assert latents in record.message and "3 frames" in record.message and "2" in record.message


def test_recorded_maps_come_in_batches_by_kind(tmp_path):
    """ "depth" is what it was; "maps" are those of the kinds that are named."""
    path = make_set(tmp_path, 6, depth=True)
    batches = {
        inputs: draw(config(path, inputs=inputs, structure=structure), 3)[0]
        for inputs, structure in (("pixels", ("depth",)), ("depth", ("depth",)), ("maps", ("depth",)))
    }
    for plain, depth, maps in zip(*batches.values(), strict=True):
        assert plain.maps == {} and plain.depth is None
        assert maps.maps["depth"].shape == (*maps.pixels.shape[:-1], 1) and maps.depth.dtype == np.float32
        assert jax.tree.all(jax.tree.map(np.array_equal, depth, maps))
    (none, *_), _ = draw(config(path, inputs="maps", structure=()), 1)
    assert none.maps == {}
