import dataclasses
import logging
import sys
from collections import Counter
from pathlib import Path

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from latent_sets import make_latents
from small_sets import damage, make_set

from gen1_jax.data.batch import Batch
from gen1_jax.data.config import DataConfig, SourceConfig, StreamConfig
from gen1_jax.data.config_file import read_data
from gen1_jax.data.dataset import RecordError
from gen1_jax.data.mixture import Mixture, Schedule
from gen1_jax.errors import UserError
from gen1_jax.training.recipe import read_recipe

COUNT = 16
BUCKETS = ((32, 48), (48, 32))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """16 clips of one size."""
    return make_set(tmp_path_factory.mktemp("clips"), COUNT)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """24 clips, two thirds wide, one third tall."""
    return make_set(tmp_path_factory.mktemp("mixed"), 24, sizes=[(32, 48), (48, 32), (32, 48)])


def video(path, batch_size=8, **settings):
    stream = StreamConfig(sources=(SourceConfig(path=path),), buckets=((32, 48),), batch_size=batch_size, frames=2)
    return DataConfig(video=stream, image_probability=0.0, **settings)


def joint(clips, mixed, **settings):
    return DataConfig(
        video=StreamConfig(sources=(SourceConfig(path=mixed),), buckets=BUCKETS, batch_size=4, frames=3),
        image=StreamConfig(sources=(SourceConfig(path=clips),), buckets=((16, 24), (24, 24)), batch_size=8),
        **{"image_probability": 0.3, "seed": 5, **settings},
    )


def mixture(config, index=0, count=1):
    return Mixture(config, process_index=index, process_count=count)


def take(iterator, count):
    batches = [next(iterator) for _ in range(count)]
    iterator.close()
    return batches


def same(one, other):
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


@pytest.mark.parametrize("inputs", ["pixels", "depth", "latents"])
def test_in_memory_batches_are_the_same_and_nothing_is_read_twice(tmp_path, inputs, monkeypatch):
    path = make_latents(tmp_path, COUNT) if inputs == "latents" else make_set(tmp_path, COUNT, depth=True)
    streams = dict(image=dataclasses.replace(video(path, 4).video, frames=1), video=video(path, 4).video)
    config = DataConfig(**streams, image_probability=0.5, inputs=inputs)
    kept, expected = mixture(dataclasses.replace(config, in_memory=True)), mixture(config)
    assert all(same(kept.load(step)["arrays"], expected.load(step)["arrays"]) for step in range(20))
    assert kept.iterate(3).get_state() == expected.iterate(3).get_state()
    monkeypatch.setattr("gen1_jax.data.dataset.RecordSource.__getitem__", None)
    assert same(kept.load(5)["arrays"], kept.load(5)["arrays"])


@pytest.mark.parametrize("processes, small", [(1, True), (2, True), (4, True), (8, True), (4, False)])
def test_an_epoch_has_every_example_once(clips, processes, small, monkeypatch):
    """Also by Grain's own shuffle, which large sets get."""
    monkeypatch.setattr("gen1_jax.data.mixture._GRAIN_SHUFFLES", 2**16 if small else 1)
    config = video(clips)
    seen = []
    for index in range(processes):
        loaded = mixture(config, index, processes)
        for epoch in range(2):
            for step in range(2 * epoch, 2 * epoch + 2):  # 16 examples are two batches
                records = loaded.load(step)["arrays"]["record"]
                assert len(records) == 8 // processes
                seen += [(epoch, int(record)) for _, record in records]
    assert Counter(seen) == {(epoch, record): 1 for epoch in range(2) for record in range(COUNT)}


def test_the_global_batch_does_not_depend_on_the_number_of_processes(clips):
    config = video(clips)
    for step in (0, 3):
        whole = mixture(config).load(step)["arrays"]
        halves = [mixture(config, index, 2).load(step)["arrays"] for index in range(2)]
        for key, value in whole.items():
            assert np.array_equal(value, np.concatenate([half[key] for half in halves])), key


def test_epochs_and_seeds_shuffle_differently(clips):
    orders = []
    for seed in (0, 1):
        loaded = mixture(video(clips, seed=seed))
        for epoch in range(2):
            halves = [loaded.load(2 * epoch + half)["arrays"]["record"][:, 1] for half in range(2)]
            orders.append(tuple(np.concatenate(halves).tolist()))
    assert len(set(orders)) == 4 and tuple(range(COUNT)) not in orders


def test_every_example_goes_to_the_bucket_of_its_shape(mixed, clips):
    loaded = mixture(joint(clips, mixed))
    for batch in take(loaded.iterate(), 20):
        if batch.kind == "video":
            tall = batch.record[:, 1] % 3 == 1
            assert tall.all() if batch.bucket == (48, 32) else not tall.any()
        frames = 3 if batch.kind == "video" else 1
        assert batch.pixels.shape == (len(batch), frames, *batch.bucket, 3) and batch.pixels.dtype == np.uint8
        assert len(batch) == (4 if batch.kind == "video" else 8)


def test_kinds_and_buckets_come_as_often_as_they_should(mixed, clips):
    loaded = mixture(joint(clips, mixed))
    expected = {
        ("video", (32, 48)): 0.7 * 2 / 3,
        ("video", (48, 32)): 0.7 / 3,
        ("image", (16, 24)): 0.3,  # the shape of all clips, and so nothing is left for the square
    }
    assert loaded.probabilities == pytest.approx(expected)
    draws = [loaded.draw(step) for step in range(6000)]
    drawn = Counter((draw.kind, draw.bucket) for draw in draws)
    for key, probability in expected.items():
        error = 4 * (probability * (1 - probability) / 6000) ** 0.5
        assert abs(drawn[key] / 6000 - probability) < error
    counts = Counter()
    for draw in draws:
        assert draw.count == counts[draw.kind, draw.bucket]
        counts[draw.kind, draw.bucket] += 1


def test_all_processes_draw_alike_in_any_order(mixed, clips):
    hosts = [mixture(joint(clips, mixed), index, 4) for index in range(4)]
    far = hosts[0].draw(100_000)
    assert [host.draw(step) for host in hosts for step in range(50)] == [hosts[0].draw(s) for s in range(50)] * 4
    assert {host.draw(100_000) for host in hosts} == {far}


def test_the_default_is_one_image_batch_in_eight():
    assert DataConfig.__dataclass_fields__["image_probability"].default == 0.125
    schedule = Schedule({("image", (1, 1)): 0.125, ("video", (1, 1)): 0.875}, seed=0)
    images = sum(schedule[step].kind == "image" for step in range(20_000))
    assert abs(images / 20_000 - 0.125) < 0.01


def test_weights_decide_between_sources(clips, mixed):
    sources = (SourceConfig(path=clips, weight=3.0), SourceConfig(path=mixed, weight=1.0))
    stream = StreamConfig(sources=sources, buckets=((32, 48),), batch_size=8, frames=1)
    loaded = mixture(DataConfig(video=stream, image_probability=0.0))
    numbers = np.concatenate([loaded.load(step)["arrays"]["record"][:, 0] for step in range(16)])
    assert abs((numbers == 0).mean() - 0.75) < 0.03
    own = [r for step in range(16) for n, r in loaded.load(step)["arrays"]["record"].tolist() if n == 0]
    assert Counter(own[: len(own) // COUNT * COUNT]) == dict.fromkeys(range(COUNT), len(own) // COUNT)


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_is_exact(clips, mixed, workers):
    """From a state saved after any batch, also with fewer workers."""
    config = joint(clips, mixed, workers=workers)
    iterator = mixture(config).iterate()
    states, batches = [iterator.get_state()], []
    for _ in range(7):
        batches.append(next(iterator))
        states.append(iterator.get_state())
    for position in (3,) if workers else range(7):  # workers take seconds to start
        iterator.set_state(states[position])
        assert same(next(iterator), batches[position])
    iterator.close()
    other = mixture(dataclasses.replace(config, workers=0, threads=1)).iterate()
    other.set_state(states[4])
    assert all(same(a, b) for a, b in zip(take(other, 3), batches[4:], strict=True))


def test_orbax_saves_and_restores_the_stream(tmp_path, clips, mixed):
    config = joint(clips, mixed)
    iterator = mixture(config).iterate()
    for _ in range(3):
        next(iterator)
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(3, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(iterator)))
    expected = take(iterator, 2)
    restored = mixture(config).iterate()
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.restore(3, args=ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(restored)))
    assert all(same(a, b) for a, b in zip(take(restored, 2), expected, strict=True))


def test_a_state_of_other_data_is_refused(clips, mixed):
    state = mixture(joint(clips, mixed)).iterate().get_state()
    mixture(joint(clips, mixed, workers=3, threads=1, on_error="skip")).iterate().set_state(state)
    for other in (joint(mixed, mixed), joint(clips, mixed, seed=6), joint(clips, mixed, flip_probability=0.0)):
        with pytest.raises(ValueError, match="data have changed"):
            mixture(other).iterate().set_state(state)


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_records_stop_or_are_counted(tmp_path, workers, caplog):
    path = make_set(tmp_path, COUNT)
    name = damage(tmp_path, shard=1)
    iterator = mixture(video(path, workers=workers)).iterate()
    with pytest.raises(RecordError, match=rf"{name}: record \d+ \(index \d+ of split 'train'\)"):
        for _ in range(2):
            next(iterator)
    iterator.close()
    iterator = mixture(video(path, workers=workers, on_error="skip")).iterate()
    with caplog.at_level(logging.WARNING):
        batches = [next(iterator) for _ in range(4)]
    assert iterator.stats.skipped == 2 and iterator.get_state()["skipped"] == 2  # once an epoch
    assert caplog.text.count("skipped: ") == 2 and name in caplog.text
    iterator.close()
    damaged = set(range(COUNT)) - {int(r) for batch in batches for r in batch.record[:, 1]}
    assert len(damaged) == 1 and all(len(batch) == 8 for batch in batches)


def test_batches_are_pytrees_for_jit(clips):
    batch = next(mixture(video(clips)).iterate())
    compiled = []

    @jax.jit
    def step(batch: Batch):
        compiled.append((batch.kind, batch.bucket))
        return batch.content_frame.astype(int).sum(), batch

    total, back = step(batch)
    step(dataclasses.replace(batch, content_index=1 - batch.content_index))
    assert compiled == [("video", (32, 48))]
    assert total == sum(batch.pixels[i, batch.content_index[i]].astype(int).sum() for i in range(8))
    assert back.captions == batch.captions and batch.captions[0].endswith("naïve") and back.depth is None
    assert batch.nbytes == sum(leaf.nbytes for leaf in jax.tree.leaves(batch))


def test_precomputed_latents_come_in_batches(tmp_path):
    batch = next(mixture(video(make_latents(tmp_path, COUNT), batch_size=2, inputs="latents")).iterate())
    arrays = vars(batch) | batch.structure
    shapes = {key: (leaf.shape, leaf.dtype.name) for key, leaf in arrays.items() if hasattr(leaf, "dtype")}
    assert shapes["moments"] == ((2, 2, 4, 6, 8), "bfloat16")
    assert shapes["depth"] == ((2, 2, 4, 6, 4), "bfloat16")
    assert shapes["content"] == ((2, 5), "bfloat16")
    assert batch.pixels is None and "naïve" in batch.captions[0]


def test_what_does_not_fit_is_said(clips):
    with pytest.raises(ValueError, match="3 processes cannot share batches of 8"):
        mixture(video(clips), 0, 3)
    with pytest.raises(ValueError, match="image has no sources"):
        dataclasses.replace(video(clips), image_probability=0.5)
    with pytest.raises(ValueError, match="either all sources of a stream have a weight, or none"):
        StreamConfig(sources=(SourceConfig(path="a", weight=1.0), SourceConfig(path="b")))
    with pytest.raises(ValueError, match="stride 0"):
        SourceConfig(path="a", stride=0)
    with pytest.raises(ValueError, match="buckets"):
        StreamConfig(buckets=())


def test_configuration_files(tmp_path, clips, mixed):
    config = joint(clips, mixed)
    assert DataConfig.from_dict(config.to_dict()) == config
    file = tmp_path / "config.py"
    file.write_text(
        "import ml_collections\n"
        "def get_config():\n"
        "    source = {'path': 'clips'}\n"
        "    video = {'sources': [source], 'buckets': [[16, 16]], 'frames': 4, 'batch_size': 2}\n"
        "    return ml_collections.ConfigDict({'data': {'video': video, 'image_probability': 0, 'seed': 3}})\n"
    )
    stream = StreamConfig(sources=(SourceConfig(path="clips"),), buckets=((16, 16),), frames=4, batch_size=2)
    assert read_data(file) == DataConfig(video=stream, image_probability=0.0, seed=3)
    with pytest.raises(UserError, match=r"none\.py: no such file"):
        read_data(tmp_path / "none.py")
    nano = Path(__file__).parents[2] / "configs" / "nano.py"  # "FILE:TEXT", as `gen1 train` takes it
    assert read_data(f"{nano}:again") == read_recipe(f"{nano}:again").data != read_recipe(nano).data
    file.write_text("def get_config():\n    return {'data': 1 / 0}\n")
    with pytest.raises(UserError, match=r"config\.py: division by zero"):
        read_data(file)
    file.write_text("import ml_collections\ndef get_config():\n    return ml_collections.ConfigDict({'dada': {}})\n")
    with pytest.raises(UserError, match=r"config\.py: its configuration has no `data`"):
        read_data(file)
    with pytest.raises(ValueError, match="vidoe"):
        DataConfig.from_dict({"vidoe": {}})
    with pytest.raises(ValueError, match="batch_size"):
        DataConfig.from_dict({"video": {"batch_size": "many"}, "image_probability": 1.0})


def test_no_tensorflow():
    assert "tensorflow" not in sys.modules


def test_the_shapes_of_batches_are_known_before_they_are_drawn(clips, mixed):
    whole, half = mixture(joint(clips, mixed)), mixture(joint(clips, mixed), 1, 2)
    shapes = whole.shapes(3, 40)
    batches = take(whole.iterate(3), 37)
    assert shapes == tuple(dict.fromkeys((batch.kind, batch.bucket) for batch in batches)) and len(shapes) > 2
    described = lambda batch: (jax.tree.map(lambda x: (x.shape, x.dtype), batch), batch.kind, batch.bucket)
    for shape in shapes:
        real = next(batch for batch in batches if (batch.kind, batch.bucket) == shape)
        assert described(whole.alike(*shape)) == described(real)
        assert 2 * len(half.alike(*shape)) == len(real)
