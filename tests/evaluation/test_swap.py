"""Swaps with an exact answer, and what linear probes read in either half."""

import json

import numpy as np
import pytest
from tiny import TINY_PUBLIC, TINY_SPLIT, save_tiny_model

from gen1_jax import synthetic
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import EditSettings
from gen1_jax.errors import UserError
from gen1_jax.evaluation.benchmark import BenchmarkConfig, run_benchmark
from gen1_jax.evaluation.methods import EDIT
from gen1_jax.evaluation.report import write_report
from gen1_jax.evaluation.swap import (
    OWN_BOTH,
    OWN_CONTENT,
    OWN_STRUCTURE,
    PROBE_MEASURES,
    SwapEditor,
    SwapWorlds,
    lines,
    rates,
    swap_methods,
)
from gen1_jax.evaluation.told import Way
from gen1_jax.evaluation.verdict import verdicts
from gen1_jax.measures.probes import probe_labels, probe_values
from gen1_jax.models.pictures import pixels_to_images
from gen1_jax.pretrained.folder import ModelFolder, SeededModel

SETTINGS = EditSettings(num_inference_steps=2)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return ModelFolder(save_tiny_model(tmp_path_factory.mktemp("models") / "split", TINY_SPLIT))


@pytest.fixture(scope="module")
def editor(source):
    """Of as many worlds as the benchmark below, whose programs are the same."""
    worlds = SwapWorlds(3, frames=4, height=16, width=16)
    return SwapEditor(Gen1Pipeline(source), worlds, batch_size=3)


def test_probes_find_what_is_linear_and_nothing_in_noise():
    rng = np.random.default_rng(0)
    features, groups = rng.normal(size=(240, 40)), np.repeat(np.arange(80), 3)
    targets = features[:, :5] @ rng.normal(size=(5, 3)) + 7
    labels = (features[:, :4] @ rng.normal(size=(4, 3))).argmax(-1) + 5
    noise = rng.normal(size=(240, 300))  # more features than examples
    assert probe_values(features, targets, groups).mean() > 0.999
    assert -0.1 < probe_values(noise, targets, groups).mean() < 0.1
    found, chance = probe_labels(features, labels, groups)
    blind, same = probe_labels(noise, labels, groups)
    assert found.mean() > 0.7 > 0.55 > max(chance.mean(), blind.mean()) and np.array_equal(chance, same)
    own = np.repeat(rng.normal(size=(80, 20)), 3, axis=0)  # what tells the group alone tells nothing of others
    assert probe_values(own, np.repeat(rng.normal(size=(80, 2)), 3, axis=0), groups).mean() < 0.1
    assert np.isnan(probe_values(features, np.ones((240, 1)), groups)).all()


def test_contents_are_those_of_the_answers_in_other_structures(editor):
    worlds = editor.worlds
    for (structure, before, after), (other, content, _) in zip(worlds.scenes, worlds.others.scenes, strict=True):
        assert content is after and content is not before
        assert synthetic.describe(structure, after).style == synthetic.describe(other, content).style
        assert not np.array_equal(structure.parts.shape, other.parts.shape)
    assert worlds.others.clips.source.shape == worlds.clips.source.shape


def test_an_edit_is_told_the_structure_of_one_clip_and_the_content_of_another(editor):
    told = editor.told(Way(settings=SETTINGS), np.arange(3))
    pipeline, worlds = editor.pipeline, editor.worlds
    latents = np.stack([pipeline.vae.images_to_latents(pixels_to_images(clip)) for clip in worlds.clips.source])
    np.testing.assert_allclose(told.structure["split"].maps, pipeline.network("split").encode(latents).maps, atol=1e-4)
    np.testing.assert_allclose(told.content["split"], pipeline.content.shown(worlds.others.clips.source), atol=1e-5)


def test_either_half_can_be_the_answers_own(editor, monkeypatch):
    given = lambda self, way: given.told.append((self.worlds.clips.source, self.content)) or self.worlds.clips.source
    given.told = []
    monkeypatch.setattr(SwapEditor, "edit", given)
    by_name = {method.name: method for method in swap_methods(SETTINGS)}
    clips, own = editor.worlds.clips, editor.shown(editor.worlds.clips.answer)
    assert np.abs(own - editor.content).max() > 1e-3
    for name, source, content in (
        (EDIT, clips.source, editor.content),
        (OWN_CONTENT, clips.source, own),
        (OWN_STRUCTURE, clips.answer, editor.content),
        (OWN_BOTH, clips.answer, own),
    ):
        by_name[name].make(editor)
        np.testing.assert_array_equal(given.told[-1][0], source)
        np.testing.assert_array_equal(given.told[-1][1], content)


def test_results_tell_of_leaks_and_rates(source, tmp_path):
    config = BenchmarkConfig(benchmark="swap", clips=3, batch_size=3, settings=SETTINGS, only=("own structure",))
    results = run_benchmark(source, config, tmp_path)
    assert results["bits_per_frame"] == TINY_SPLIT.split.bits_per_frame == 128
    components = results["components"]
    assert PROBE_MEASURES.keys() <= components.keys() and PROBE_MEASURES.keys() <= results["measures"].keys()
    assert 0 < components["entries_used"]["mean"] <= 1
    assert all(0 <= components[f"chance_{what}"]["mean"] <= 1 for what in ("material", "environment", "style"))
    page = write_report(results, tmp_path, verdicts(results)).read_text()
    assert "structure tells style" in page and "own structure" in page
    stored = json.loads((tmp_path / "results.json").read_text())
    assert any(line.startswith("entries of the codebooks in use") for line in lines(stored))
    table = [*rates([stored, stored | {"bits_per_frame": None, "model": "nano"}])]
    assert [row.split()[0] for row in table] == ["model", "nano", "split"] and " 128 " in table[-1]


def test_models_that_cannot_be_told_are_refused_before_anything_is_rendered(source, tmp_path):
    with pytest.raises(UserError, match="split reads none: take swap"):
        run_benchmark(source, BenchmarkConfig(clips=2), tmp_path)
    with pytest.raises(UserError, match="public reads text"):
        run_benchmark(SeededModel(TINY_PUBLIC, 0, "public"), BenchmarkConfig(benchmark="swap"), tmp_path)
    assert not [*tmp_path.iterdir()]
