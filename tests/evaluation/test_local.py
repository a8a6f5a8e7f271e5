"""Edits of one object: exact pairs, and how near to them masks bring an edit."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from gen1_jax import synthetic
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import EditSettings
from gen1_jax.evaluation.benchmark import BenchmarkConfig, run_benchmark
from gen1_jax.evaluation.editor import Editor
from gen1_jax.evaluation.local import LOCAL_MEASURES, MARGIN, LocalScorer, changed_masks
from gen1_jax.evaluation.local_worlds import changed_object, local_scene
from gen1_jax.evaluation.methods import CLICKED, EDIT, MASKED
from gen1_jax.evaluation.report import write_report
from gen1_jax.evaluation.verdict import verdicts
from gen1_jax.evaluation.worlds import Worlds
from gen1_jax.measures import masked_psnr, psnr, seam_error
from gen1_jax.measures.local import border
from gen1_jax.pretrained.folder import open_model


def test_one_object_changes_and_nothing_else():
    worlds = Worlds(2, frames=4, height=32, width=32, make=local_scene)
    objects = changed_object(worlds)
    for clip, (structure, before, after), prompt in zip(objects, worlds.scenes, worlds.prompts, strict=True):
        told, other = synthetic.describe(structure, before), synthetic.parse(prompt)
        assert told.style == "photograph" and other == synthetic.describe(structure, after)
        assert sum(a != b for a, b in zip(told.objects, other.objects, strict=True)) == 1
        assert clip.any()
    changed = (worlds.clips.source != worlds.clips.answer).any(-1)
    near = np.stack([scipy.ndimage.binary_dilation(x, np.ones((1, 5, 5))) for x in objects])
    assert changed[objects].mean() > 0.9 and not changed[~near].any() and MARGIN == 2


def test_measures_of_a_part():
    rng = np.random.default_rng(0)
    answer, mask = jnp.asarray(rng.random((2, 1, 12, 16, 3)), jnp.float32), np.zeros((2, 1, 12, 16), bool)
    mask[0, :, 4:8, 4:9] = True
    other = jnp.where(mask[..., None], answer + 0.1, answer)
    np.testing.assert_allclose(masked_psnr(other, answer, jnp.asarray(mask)), [20, np.nan], atol=1e-3)
    np.testing.assert_allclose(masked_psnr(other, answer, jnp.asarray(~mask)), 100)
    np.testing.assert_allclose(masked_psnr(other, answer, jnp.ones(mask.shape, bool)), psnr(other, answer), rtol=1e-5)
    ring = np.asarray(border(jnp.asarray(mask), 3))[0, 0]
    square = np.ones((3, 3))
    grown = scipy.ndimage.binary_dilation(mask[0, 0], square, 2)
    np.testing.assert_array_equal(ring, grown & ~scipy.ndimage.binary_erosion(mask[0, 0], square))
    assert not border(jnp.ones((1, 1, 4, 4), bool), 3).any()
    flat = jnp.full(answer.shape, 0.5).at[0, :, 4:8, 4:9].set(0.7)
    np.testing.assert_allclose(seam_error(flat, flat, jnp.asarray(mask))[0], 0)
    twice = jnp.where(flat == 0.7, 0.9, flat)
    np.testing.assert_allclose(seam_error(twice, flat, jnp.asarray(mask))[0], 1, rtol=1e-5)


@pytest.fixture(scope="module")
def measured(tiny_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("local")
    config = BenchmarkConfig(
        benchmark="local", clips=2, batch_size=2, settings=EditSettings(num_inference_steps=2), only=("masked*",)
    )
    return run_benchmark(open_model(tiny_model), config, out), out


def test_masked_edits_are_exact_outside(measured):
    results, out = measured
    scores = {name: results["methods"][name]["scores"] for name in (EDIT, MASKED, CLICKED)}
    assert scores[MASKED]["outside_psnr"]["clips"] == [100, 100] > scores[EDIT]["outside_psnr"]["clips"]
    figures = {bar["figure"]: bar for bar in results["bars"]}
    assert figures["masked edit: outside"]["reached"]
    assert {f"{name}: inside, over the unmasked edit" for name in (MASKED, CLICKED)} < figures.keys()
    name = "masked edit by its change"
    assert results["methods"][name]["evaluations"] > results["methods"][MASKED]["evaluations"]
    assert results["methods"][name]["scores"]["outside_psnr"]["mean"] < 100
    assert f"{name}: outside, no mask given" in figures
    page = write_report(results, out, verdicts(results)).read_text()
    assert all(measure.replace("_", " ") in page for measure in LOCAL_MEASURES)
    assert json.loads((out / "benchmark.json").read_text())["config"]["benchmark"] == "local"


@pytest.mark.usefixtures("measured")  # whose programs are compiled
def test_words_for_what_is_there_stand_in_the_place_of_the_clip(tiny_model, monkeypatch):
    """The same content finds the same change, and where there are words the clip itself is not embedded."""
    pipeline = Gen1Pipeline(open_model(tiny_model))
    config = pipeline.config
    worlds = Worlds(2, frames=config.num_frames, height=config.height, width=config.width, make=local_scene)
    editor = Editor(pipeline, worlds, batch_size=2)
    texts = map(editor.embed_texts, (worlds.prompts, worlds.source_prompts))
    asked, before = (text[:, None].repeat(config.num_frames, axis=1) for text in texts)
    told = [LocalScorer(editor).told(embedded)["named"].tolist() for embedded in (asked, before)]
    assert told == [[1, 1], [0, 0]]
    seen, content = changed_masks(editor, EditSettings()), editor.__dict__.pop("source_content")
    assert not any(mask.is_everywhere(value) for mask in seen for value in (0, 1))
    says = {worlds.source_prompts: content, worlds.prompts: editor.content}
    monkeypatch.setattr(editor.pipeline.content, "of_prompts", lambda prompts, *_: (says[prompts], None))
    assert changed_masks(editor, EditSettings(), described=True) == seen
    assert "source_content" not in editor.__dict__
    monkeypatch.setitem(says, worlds.source_prompts, editor.content)
    assert all(mask.is_everywhere(0) for mask in changed_masks(editor, EditSettings(), described=True))
