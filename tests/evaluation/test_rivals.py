"""Rivals on known answers: what their algorithms give back exactly, and what they cost."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY

from gen1_jax.diffusion import Guidance, training_target
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import EditSettings
from gen1_jax.evaluation.editor import Editor
from gen1_jax.evaluation.methods import Method
from gen1_jax.evaluation.rivals import by_inversion, layered_atlas, listing, tokenflow, tuning
from gen1_jax.evaluation.rivals.inversion import inversion_trajectory
from gen1_jax.evaluation.told import Way
from gen1_jax.evaluation.worlds import Worlds
from gen1_jax.models.attended import attending_to, first_and_previous, first_frame, own_and_middle
from gen1_jax.models.module import Bound, flatten
from gen1_jax.models.selection import together
from gen1_jax.pretrained.folder import open_model

STEPS = EditSettings(num_inference_steps=2).of(TINY)
PLAIN = dataclasses.replace(STEPS, guidance_scale=1.0)
BOTH = np.arange(2)


@pytest.fixture(scope="module")
def editor():
    """Of two worlds, by a model whose every weight is random: fresh temporal layers do nothing."""
    pipeline = Gen1Pipeline(open_model("tiny"))
    leaves, tree = jax.tree.flatten(pipeline.unet.params)
    rng = np.random.default_rng(0)
    noisy = [leaf + rng.normal(0, 0.1, leaf.shape).astype(np.float32) for leaf in leaves]
    pipeline.networks.kept["unet"] = Bound(pipeline.unet.module, jax.tree.unflatten(tree, noisy))
    return Editor(pipeline, Worlds(2, frames=4, height=16, width=16), batch_size=2)


def spent(editor, make):
    before = editor.evaluations
    out = make()
    return out, editor.evaluations - before


def test_inversion_and_sampling_with_the_same_content_come_nearer_to_the_input_the_more_steps(editor):
    inputs, far = editor.latents[BOTH], []
    told = editor.told(Way(settings=PLAIN), BOTH)
    for steps in (50, 400):
        way = Way(settings=dataclasses.replace(PLAIN, num_inference_steps=steps))
        sampler = editor.sampler(way.settings)
        noise, cost = spent(editor, lambda sampler=sampler: editor.inverted(sampler, told, inputs))
        assert cost == steps and noise.shape == inputs.shape
        again = editor.run(sampler, told, noise, [(0, steps, Guidance.of(1.0, 1.0))])
        far.append(float(jnp.abs(again - inputs).mean()))
    assert far[1] < 0.25 * far[0], far


def test_inversion_is_told_the_input_and_sampling_what_is_asked_for(editor):
    way = Way(settings=STEPS)
    edit, cost = spent(editor, lambda: by_inversion.inverted_edit(editor, way, BOTH))
    assert cost == 2 + 2 * len(STEPS.guidance(TINY.unet).branches)
    before = editor.content, editor.source_content
    try:
        for change in ("content", "source_content"):
            setattr(editor, change, getattr(editor, change)[::-1].copy())
            assert (by_inversion.inverted_edit(editor, way, BOTH) != edit).any()
            editor.content, editor.source_content = before
    finally:
        editor.content, editor.source_content = before
    assert (by_inversion.inverted_edit(editor, way, BOTH) == edit).all()


def test_noise_that_leads_to_the_input_is_that_of_ancestral_sampling(editor):
    """Of a denoiser that says x_0 = 0, steps are the DDPM posterior, and x_t are noised by the schedule, each anew."""
    way = Way(settings=dataclasses.replace(PLAIN, num_inference_steps=5), strength=0.6)
    ran, run = [], editor.run

    def of_nothing(sampler, told, latents, parts):
        ((step, stop, _),) = parts
        assert stop == step + 1 and not sampler.tables.from_noise.any()
        tables = jax.tree.map(lambda column: column[step], sampler.tables)
        ran.append((int(tables.timesteps), tables, np.asarray(latents)))
        return tables.from_latents * latents

    try:
        editor.run = of_nothing
        by_inversion.edit_by_friendly_noise(editor, way, BOTH)
    finally:
        editor.run = run
    schedule = editor.pipeline.config.schedule
    levels = schedule.alphas_cumprod_float64
    assert [timestep for timestep, *_ in ran] == [599, 599, 399, 399, 199]
    for (now, tables, _), then in ((ran[0], 399), (ran[2], 199)):
        posterior = np.sqrt(levels[now] / levels[then]) * (1 - levels[then]) / (1 - levels[now])
        assert abs(tables.from_latents - posterior) < 1e-6  # of x_t; of x_0 it is as DDPM's equation 7 has it
    noises = [
        (latents - np.sqrt(levels[now]) * editor.latents[BOTH]) / np.sqrt(1 - levels[now])
        for now, _, latents in (ran[1], ran[3])
    ]
    assert all(abs(noise.std() - 1) < 0.1 for noise in noises)
    assert abs(np.corrcoef(noises[0].ravel(), noises[1].ravel())[0, 1]) < 0.1


def test_noise_that_leads_to_the_input_takes_the_same_content_along_the_noised_input(editor, monkeypatch):
    way = Way(settings=dataclasses.replace(PLAIN, num_inference_steps=5), strength=0.6)
    edit, cost = spent(editor, lambda: by_inversion.edit_by_friendly_noise(editor, way, BOTH))
    assert cost == 2 * 3 - 1  # three steps, one to find the noise and one to use it; the last has none
    monkeypatch.setattr(editor, "content", editor.source_content)
    ends, run = [], editor.run
    monkeypatch.setattr(editor, "run", lambda *args: ends.append(args[2]) or run(*args))
    again = by_inversion.edit_by_friendly_noise(editor, way, BOTH)
    assert len(ends) == 5 and jnp.abs(again - edit).max() > 0.1
    for along_input, along_edit in (ends[:2], ends[2:4]):
        np.testing.assert_allclose(along_input, along_edit, atol=1e-5)


def test_a_clip_is_denoised_better_by_what_was_tuned_on_it_than_by_what_was_tuned_on_another(editor):
    told = editor.told_input(editor.told(Way(settings=PLAIN), BOTH), BOTH)
    unet, schedule = editor.pipeline.unet, editor.pipeline.config.schedule
    latents = jnp.asarray(editor.latents[BOTH])
    keys = jax.random.split(jax.random.key(0), 2)
    learned = tuning.tuned(unet, schedule, told, latents, keys, steps=60, learning_rate=1e-2)  # they have far to go
    changed = {path for path, x in flatten(learned).items() if (x != flatten(unet.params)[path]).any()}
    asked = {path for path in flatten(learned) if path.endswith("spatial.block.attn2.to_q.kernel")}
    assert changed == set(flatten(learned)) - asked  # of one token of content every query has the same answer
    assert all(x.shape[0] == 2 for x in flatten(learned).values())
    assert any(".spatial.block.attn1.to_q." in path for path in changed)
    assert any(".temporal." in path and "to_v" in path for path in changed)
    assert not any("spatial" in path and "to_v" in path for path in changed)
    noise = jax.random.normal(jax.random.key(5), latents.shape)
    timestep = jnp.array([500, 500])
    noisy, wanted = schedule.add_noise(latents, noise, timestep), schedule.alpha_sigma(timestep)
    target = training_target("v_prediction", latents, noise, *wanted)
    errors = np.empty((3, 2))

    @jax.jit
    def predict(weights):
        with attending_to(first_and_previous):
            return unet.apply(weights, noisy, timestep, told, method="denoise")[0]

    for row, part in enumerate((*(jax.tree.map(lambda x, i=i: x[i], learned) for i in BOTH), {})):
        out = predict(together(unet.params, part))
        errors[row] = jnp.square(out - target).mean(axis=(1, 2, 3, 4))
    assert (errors[:2] < 0.99 * errors[2]).all(), errors
    assert errors[0, 0] + errors[1, 1] < 0.995 * (errors[0, 1] + errors[1, 0]), errors


def test_what_is_tuned_on_a_clip_does_not_depend_on_its_place_in_a_batch(editor, monkeypatch):
    monkeypatch.setattr(tuning, "STEPS", 5)
    there, back = (tuning.tuned_edit(editor, Way(settings=PLAIN), order) for order in (BOTH, BOTH[::-1]))
    np.testing.assert_allclose(there, back[::-1], atol=1e-4 * float(jnp.abs(there).max()))


def seen_by(editor, where, still):
    """Which frames' latents each frame's prediction depends on."""
    unet = editor.pipeline.unet
    told = editor.told(Way(settings=PLAIN), BOTH[:1])
    told = told.frames() if still else told
    latents = jnp.asarray(editor.latents[:1])

    @jax.jit
    def predict(x):
        with attending_to(where):
            return unet.apply(unet.params, x, jnp.array([500]), told, method="denoise")[0]

    changed = [predict(latents.at[:, t].add(1)) != predict(latents) for t in range(latents.shape[1])]
    return [[bool(change[0, t].any()) for change in changed] for t in range(latents.shape[1])]


def test_frames_of_the_image_model_look_where_they_are_told(editor):
    own = np.eye(4, dtype=bool)
    first = own | (np.arange(4) == 0)
    assert np.array_equal(seen_by(editor, None, still=True), own)
    assert np.array_equal(seen_by(editor, first_frame, still=True), first)
    reached = np.tril(np.ones((4, 4), bool))  # through several layers, the one before the one before, too
    looking = np.array(seen_by(editor, first_and_previous, still=True))
    assert not looking[~reached].any() and (looking >= (first | np.eye(4, k=-1, dtype=bool))).all()
    assert looking[2:, 0].all() and np.array(seen_by(editor, None, still=False)).all()


def test_looking_at_ones_own_frame_is_what_is_done_anyway(editor):
    way = Way(settings=STEPS)
    edits = [by_inversion.cross_frame_edit(editor, way, BOTH, where) for where in (first_frame, lambda x: x)]
    assert jnp.abs(edits[0] - edits[1]).max() > 1e-3
    sampler, told = editor.sampler(STEPS), editor.told(way, BOTH).frames()
    source = editor.told_input(told, BOTH)
    noise = editor.inverted(sampler, source, editor.latents[BOTH])
    plain = editor.run(sampler, told, noise, [(0, 2, STEPS.guidance(TINY.unet).of_images())])
    np.testing.assert_allclose(edits[1], plain, atol=1e-5 * float(jnp.abs(plain).max()))


def test_a_clip_that_stands_still_flows_as_the_image_model_has_it(editor, monkeypatch):
    """Of frames that are alike, whichever are edited: keys and values of several are those of one."""
    way = Way(settings=STEPS)
    for name in ("latents", "depth"):
        still = getattr(editor, name)
        monkeypatch.setattr(editor, name, np.repeat(still[:, :1], still.shape[1], axis=1))
    plain = by_inversion.cross_frame_edit(editor, way, BOTH, first_frame)
    edit = tokenflow.tokenflow_edit(editor, way, BOTH, interval=2)
    np.testing.assert_allclose(edit, plain, atol=1e-4 * float(jnp.abs(plain).max()))


def test_the_trajectory_of_an_inversion_begins_at_its_noise(editor):
    sampler, told = editor.sampler(STEPS), editor.told(Way(settings=STEPS), BOTH)
    noise = editor.inverted(sampler, told, editor.latents[BOTH])
    passed, cost = spent(editor, lambda: inversion_trajectory(editor, sampler, told, editor.latents[BOTH]))
    assert len(passed) == cost == 2 and jnp.abs(passed[1] - passed[0]).max() > 1e-2
    np.testing.assert_allclose(passed[0], noise, atol=1e-6)


def test_what_is_attended_to():
    x = jnp.arange(3.0)[None, :, None, None] * jnp.ones((1, 3, 2, 1))
    assert first_frame(x).squeeze().tolist() == [[0, 0]] * 3
    assert first_and_previous(x).squeeze().tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]]
    assert own_and_middle(x).squeeze().tolist() == [[0, 0, 1, 1], [1, 1, 1, 1], [2, 2, 1, 1]]


def test_smoothing_by_the_model_that_has_inverted_gives_the_frames_back(editor):
    """Of the video model alone; what the image model has inverted it takes elsewhere."""
    way = Way(settings=dataclasses.replace(PLAIN, num_inference_steps=100))
    frames = editor.sample(dataclasses.replace(way, frame_by_frame=True), BOTH)
    far = {}
    for mixing, inversions in ((0.0, 1), (0.5, 2), (1.0, 1)):
        edit, cost = spent(editor, lambda mixing=mixing: by_inversion.bivdiff_edit(editor, way, BOTH, mixing))
        assert cost == 100 * (2 + inversions)
        far[mixing] = float(jnp.abs(edit - frames).mean())
    assert far[0.0] < 0.3 * far[1.0] and far[0.0] < far[0.5] < far[1.0], far


def test_every_rival_has_its_edits_and_its_cost(editor, monkeypatch):
    for module in (layered_atlas, tuning):
        monkeypatch.setattr(module, "STEPS", 2)
    methods, full = [Method(*each) for each in listing.rivals(STEPS)], len(STEPS.guidance(TINY.unet).branches)
    costs = {("EVE attention", None): 2 + 2 * 2, ("Pix2Video attention", None): 2 + 2 * 2}  # of two steps, up and down
    costs |= {
        ("layered atlas" + masks, None): 2 * 2 * 2 / 4 for masks in ("", " true masks")
    }  # two pictures of 4 frames
    costs |= {("TokenFlow", interval): 2 + 2 * (1 + 2) for interval in (2, 4)}  # going down, the input is beside it
    costs |= {("DDIM inversion" + depth, None): 2 + 2 * full for depth in ("", " with depth")}
    for depth in ("", " with depth"):
        costs |= {("edit friendly noise" + depth, strength): full for strength in (0.4, 0.64)}  # the last step alone
        costs["edit friendly noise" + depth, 1.0] = 1 + 2 * full
        costs["Tune-A-Video" + depth, None] = 3 * 2 + 2 + 2 * full
    costs |= {("BIVDiff", mixing): 2 * 2 + 2 * n + 2 * full for mixing, n in ((0.0, 1), (0.25, 2), (1.0, 1))}
    for method in methods:
        clips, cost = spent(editor, lambda method=method: method.make(editor))
        assert clips.shape == editor.worlds.clips.source.shape and clips.dtype == np.uint8, method.name
        assert cost == costs[method.group, method.value], method.name
    assert len(methods) == len(costs)
