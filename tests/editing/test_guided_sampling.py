import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import relative_error

from gen1_jax.diffusion import DDIM, NoiseSchedule, get_sampler, run_steps
from gen1_jax.diffusion.guided import guided_denoiser, per_frame
from gen1_jax.diffusion.windows import blend_weights, window_starts, windowed
from gen1_jax.editing.sampling import Conditions, GuidedSampler
from gen1_jax.models.module import Bound

SHAPE = (1, 4, 2, 3, 4)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    prediction_type: str = "v_prediction"


class LinearModel(Bound):
    """A space-time denoiser that is known in full: linear in everything, coupling frames when there are several."""

    config = ModelConfig()

    def __init__(self, coupling=0.3, record=False):
        self.params = {"coupling": jnp.float32(coupling)}
        self.record, self.evaluated = record, []  # (batch, frames) of each evaluation that was run

    def apply(self, params, latents, timesteps, content, structure, structure_level):
        if self.record:
            jax.debug.callback(lambda shape=latents.shape: self.evaluated.append(shape[:2]))
        mean = latents.mean(1, keepdims=True) if latents.shape[1] > 1 else 0 * latents
        time = timesteps[:, None, None, None, None] / 1000
        level = structure_level[:, None, None, None, None] / 7
        return (
            0.5 * latents
            + params["coupling"] * mean
            + content.mean((1, 2))[:, None, None, None, None] * (1 + time)
            + 0.1 * structure * (1 + level)
        )


def conditions(w=7.5, w_t=1.0, shape=SHAPE, level=0, content=0.3):
    rng = np.random.default_rng(1)
    return Conditions(
        content=jnp.full((shape[0], 1, 8), content, jnp.float32),
        structure=jnp.asarray(rng.normal(size=shape), jnp.float32),
        structure_level=jnp.full(shape[:1], level),
        guidance_scale=jnp.float32(w),
        temporal_guidance_scale=jnp.float32(w_t),
    )


COUPLED, UNCOUPLED = LinearModel(), LinearModel(coupling=0.0)


@functools.cache  # so that tests share compilations
def sampler_of(model, steps=5, name="ddim", window=8, overlap=2):
    return GuidedSampler(model, NoiseSchedule(), get_sampler(name), steps, window=window, overlap=overlap)


def branches(model, w, w_t):
    model.evaluated.clear()
    sampler_of(model, steps=1)(SHAPE, 0, conditions(w, w_t)).block_until_ready()
    jax.effects_barrier()
    return sorted(model.evaluated)


@pytest.mark.parametrize(
    ("w", "w_t", "expected"),
    [
        (7.5, 1.5, [(2, 4), (4, 1)]),  # both video branches in one batch, the image branch frame by frame
        (7.5, 1.0, [(2, 4)]),  # ordinary guidance pays for no image branch
        (0.0, 1.5, [(1, 4), (4, 1)]),  # no content, no conditional branch
        (0.0, 1.0, [(1, 4)]),
        (1.0, 1.0, [(1, 4)]),  # the conditional model alone
        (0.0, 0.0, [(4, 1)]),  # the image model alone
    ],
)
def test_only_the_needed_branches_are_evaluated(w, w_t, expected):
    assert branches(LinearModel(record=True), w, w_t) == expected


def test_changing_traced_values_compiles_nothing():
    sampler = sampler_of(LinearModel())
    for seed, w, w_t, level, content in [(0, 7.5, 1, 0, 0.3), (1, 0, 1.5, 7, 0.1), (2, 3, 0, 2, 0)]:
        for progress in (None, lambda step, total: None):
            sampler(SHAPE, seed, conditions(w, w_t, level=level, content=content), progress)
    assert sampler.advance._cache_size() == 1
    assert sampler.start._cache_size() == 1


def reference(model, w, w_t, combine, steps=5):
    """The same sampling loop around guidance that is written out by hand."""
    c, sampler = conditions(w, w_t), sampler_of(model, steps)
    apply = lambda x, t, content: model.apply(model.params, x, t, content, c.structure, c.structure_level)
    state = sampler.start(jnp.uint32(0), SHAPE)
    return run_steps(lambda x, t: combine(apply, x, t, c), sampler.sampler, sampler.tables, state).latents


def test_w_t_of_one_is_classifier_free_guidance():
    model = COUPLED

    def plain(apply, x, t, c):
        null, cond = apply(x, t, 0 * c.content), apply(x, t, c.content)
        return null + 7.5 * (cond - null)

    ours = sampler_of(model)(SHAPE, 0, conditions(7.5, 1.0))
    assert relative_error(ours, reference(model, 7.5, 1, plain)) < 1e-6


def test_no_guidance_at_all_is_frame_by_frame_image_sampling():
    model = COUPLED
    ours = sampler_of(model)(SHAPE, 0, conditions(0.0, 0.0))
    start = sampler_of(model).start(jnp.uint32(0), SHAPE).latents
    for frame in range(SHAPE[1]):
        c = conditions(1.0, 1.0, content=0)
        one = sampler_of(model)
        cut = lambda x, f=frame: x[:, f : f + 1]
        state = one.sampler.init(cut(start))
        c = c._replace(structure=cut(c.structure))
        theirs = one.advance(model.params, state, c, 0, 5).latents
        assert relative_error(cut(ours), theirs) < 1e-6


def test_without_temporal_coupling_w_t_is_irrelevant():
    model = UNCOUPLED
    base = sampler_of(model)(SHAPE, 0, conditions(7.5, 1.0))
    for w_t in (0.0, 0.5, 2.0):
        assert relative_error(sampler_of(model)(SHAPE, 0, conditions(7.5, w_t)), base) < 1e-5
    coupled = [sampler_of(COUPLED)(SHAPE, 0, conditions(7.5, w_t)) for w_t in (1.0, 2.0)]
    assert relative_error(*coupled) > 1e-3


@pytest.mark.parametrize("name", ["ddim", "dpm++"])
def test_progress_by_steps_gives_the_same_latents_as_one_call(name):
    model, seen = COUPLED, []
    sampler = sampler_of(model, 4, name)
    whole = sampler(SHAPE, 3, conditions(5, 1.5))
    steps = sampler(SHAPE, 3, conditions(5, 1.5), lambda step, total: seen.append((step, total)))
    np.testing.assert_array_equal(whole, steps)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert jnp.abs(sampler(SHAPE, 4, conditions(5, 1.5)) - whole).max() > 0.1  # another seed, another sample


@pytest.mark.parametrize("name", ["ddim", "dpm++"])
def test_an_exact_denoiser_leads_to_the_known_answer(name):
    """Data that is one point per content: v is then known, and every sampler must land on the point."""
    schedule = NoiseSchedule(rescale_zero_terminal_snr=True)
    alphas = jnp.asarray(schedule.alphas_cumprod)

    class Exact(LinearModel):
        def apply(self, params, latents, timesteps, content, structure, structure_level):
            a, s = (jnp.sqrt(x)[timesteps][:, None, None, None, None] for x in (alphas, 1 - alphas))
            x0 = structure + content.mean((1, 2))[:, None, None, None, None]
            return (a * latents - x0) / jnp.maximum(s, 1e-8)  # v = (a x - x0) / s

    c = conditions(1.0, 1.0)
    out = GuidedSampler(Exact(), schedule, get_sampler(name), 10, window=8, overlap=2)(SHAPE, 0, c)
    expected = c.structure + 0.3
    # DDIM ends at the noise level of timestep 0, as Stable Diffusion does
    level = 0.0 if name == "dpm++" else float(np.sqrt(1 - schedule.alphas_cumprod[0]))
    assert jnp.abs(out - expected).max() <= 4 * level + 1e-4


def test_windows_cover_and_blend_to_one():
    for frames, window, overlap in [(8, 8, 4), (9, 8, 4), (30, 8, 2), (17, 8, 7), (24, 8, 0)]:
        starts, weights = window_starts(frames, window, overlap), blend_weights(frames, window, overlap)
        total = np.zeros(frames)
        for start, weight in zip(starts, weights, strict=True):
            total[start : start + window] += weight
        np.testing.assert_allclose(total, 1, atol=1e-6)
        assert (weights > 0).all() and starts[-1] == frames - window
    with pytest.raises(ValueError, match="overlap"):
        window_starts(10, 8, 8)


def test_windows_equal_the_whole_where_frames_are_independent():
    shape = (1, 13, 2, 3, 4)
    model = UNCOUPLED
    whole = sampler_of(model, window=16)(shape, 0, conditions(5, 1.5, shape))
    windows = sampler_of(model, window=4, overlap=2)(shape, 0, conditions(5, 1.5, shape))
    assert relative_error(windows, whole) < 1e-5


def test_windows_leave_no_seam():
    """A constant clip under a coupling model: blended windows keep neighbours as equal as the whole does."""
    model = COUPLED
    latents = jnp.ones((1, 13, 2, 3, 4)) * jnp.linspace(0, 1, 13)[None, :, None, None, None]
    args = (latents, jnp.array([500]), jnp.zeros((1, 1, 8)), 0 * latents, jnp.array([0]))
    out = windowed(lambda *a: model.apply(model.params, *a), 6, 4)(*args)
    cut = windowed(lambda *a: model.apply(model.params, *a), 6, 0)(*args)
    jumps = lambda x: float(jnp.abs(jnp.diff(x[0, :, 0, 0, 0], n=2)).max())
    assert jumps(out) < 0.5 * jumps(cut)


def test_the_image_branch_of_a_long_clip_is_chunked():
    model = LinearModel(record=True)
    shape = (1, 13, 2, 3, 4)
    sampler_of(model, 1, window=4, overlap=1)(shape, 0, conditions(0, 0, shape)).block_until_ready()
    jax.effects_barrier()
    assert set(model.evaluated) == {(4, 1)}


def test_guided_denoiser_of_one_frame_is_guidance_of_the_image_model():
    model = COUPLED
    shape = (1, 1, 2, 3, 4)
    apply = lambda *a: model.apply(model.params, *a)
    c = conditions(3.0, 1.7, shape)._asdict()
    out = guided_denoiser(apply, per_frame(apply), **c)(jnp.ones(shape), jnp.array([10]))
    plain = guided_denoiser(apply, per_frame(apply), **(c | {"temporal_guidance_scale": jnp.float32(1)}))
    np.testing.assert_array_equal(out, plain(jnp.ones(shape), jnp.array([10])))


def test_eta_needs_no_more_than_the_seed():
    model = COUPLED
    noisy = GuidedSampler(model, NoiseSchedule(), DDIM(eta=1.0), 5, window=8, overlap=2)
    np.testing.assert_array_equal(noisy(SHAPE, 0, conditions()), noisy(SHAPE, 0, conditions()))


def test_memory_does_not_depend_on_the_number_of_steps():
    shape = (1, 8, 32, 32, 4)

    def temporaries(steps):
        sampler, model = sampler_of(COUPLED, steps), COUPLED
        state = sampler.start(jnp.uint32(0), shape)
        compiled = sampler.advance.lower(model.params, state, conditions(7, 1.5, shape), 0, steps).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(100) - temporaries(5) < 4 * np.prod(shape)  # not even one more set of latents
