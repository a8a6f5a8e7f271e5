import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import relative_error

from gen1_jax.diffusion import DDIM, Guidance, NoiseSchedule, get_sampler, guidance_runs, guided_denoiser
from gen1_jax.diffusion.windows import blend_weights, window_starts, windowed
from gen1_jax.editing.sampling import GuidedSampler, in_32_bits
from gen1_jax.models.conditions import Conditions, Signal
from gen1_jax.models.module import Bound

SHAPE = (1, 4, 2, 3, 4)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    prediction_type: str = "v_prediction"
    guidance_embedded: bool = False


def spread(x):
    """A number of each clip, over its pixels."""
    return x[:, None, None, None, None]


class LinearModel(Bound):
    """A space-time denoiser that is known in full: linear in everything, coupling frames when there are several."""

    config = ModelConfig()

    def __init__(self, coupling=0.3, record=False):
        self.params = {"coupling": jnp.float32(coupling)}
        self.record, self.evaluated = record, []  # (rows, frames, which rows are pictures) of each evaluation

    def apply(self, params, latents, timesteps, conditions, method):
        assert method == "denoise"
        if self.record:
            seen = (*latents.shape[:2], conditions.still)
            jax.debug.callback(lambda: self.evaluated.append(seen))
        is_video = np.resize(np.logical_not(conditions.still), len(latents)) & (latents.shape[1] > 1)
        mean = latents.mean(1, keepdims=True) * spread(is_video)
        (tokens,), depth = conditions.content.values(), conditions.structure["depth"]
        prediction = (
            0.5 * latents
            + params["coupling"] * mean
            + spread(tokens.mean((1, 2)) * (1 + timesteps / 1000))
            + 0.1 * depth.maps * (1 + spread(depth.level) / 7)
        )
        return prediction, None


def conditions(shape=SHAPE, level=0, content=0.3):
    maps = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    depth = Signal.of(jnp.asarray(maps), jnp.full(shape[:1], level))
    return Conditions(content={"image": jnp.full((shape[0], 1, 8), content, jnp.float32)}, structure={"depth": depth})


def normal(seed, shape=SHAPE):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


COUPLED, UNCOUPLED = LinearModel(), LinearModel(coupling=0.0)


@functools.cache  # so that tests share compilations
def sampler_of(model, name="ddim", window=8, overlap=2):
    return GuidedSampler(model, NoiseSchedule(), get_sampler(name), 5, window=window, overlap=overlap)


def evaluations(model, w, w_t, name="ddim"):
    model.evaluated.clear()
    sampler_of(model, name).with_steps(1)(SHAPE, 0, conditions(), Guidance.of(w, w_t)).block_until_ready()
    jax.effects_barrier()
    return model.evaluated


@pytest.mark.parametrize(
    ("w", "w_t", "still"),
    [
        (7.5, 1.5, (True, False, False)),  # equation 10 is one batch
        (7.5, 1.0, (False, False)),  # ordinary guidance pays for no image branch
        (0.0, 1.5, (True, False)),  # no content, no conditional branch
        (1.5, 1.5, (True, False)),  # the unconditional video branch cancels
        (0.0, 1.0, (False,)),
        (1.0, 1.0, (False,)),  # the conditional model alone
        (0.0, 0.0, (True,)),  # the image model alone
    ],
)
def test_only_the_needed_branches_are_evaluated_in_one_batch(w, w_t, still):
    assert evaluations(LinearModel(record=True), w, w_t) == [(len(still), SHAPE[1], still)]


def test_few_steps_without_guidance_evaluate_the_content_branch_alone():
    """At w = w_t = 1, as distilled models are mostly run: a third of the cost of equation 10."""
    assert Guidance.of(1.0, 1.0).branches == ("content",)
    assert evaluations(LinearModel(record=True), 1.0, 1.0, "lcm") == [(1, SHAPE[1], (False,))]


def test_a_distilled_model_is_evaluated_once_a_step_and_told_both_scales():
    """Outside an interval it is told that there is no guidance."""
    told, model = [], LinearModel(record=True)
    guidance = Guidance.of(3.0, 1.2, distilled=True)
    parts = guidance_runs(guidance, 5, (0.2, 0.6))
    assert [(*run[:2], float(run[2].guidance_scale)) for run in parts] == [(0, 1, 1.0), (1, 3, 3.0), (3, 5, 1.0)]
    sampler_of(model, "lcm").with_steps(4)(SHAPE, 0, conditions(), guidance).block_until_ready()
    jax.effects_barrier()
    assert model.evaluated == 4 * [(1, SHAPE[1], (False,))]

    def predict(latents, timesteps, conditions):
        told.append(conditions.guidance)
        return latents

    for frames in (4, 1):
        shape = (2, frames, 2, 3, 4)
        guided_denoiser(predict, conditions(shape), guidance)(normal(0, shape), jnp.array([5, 5]))
    np.testing.assert_allclose(told, [[[3.0, 1.2]] * 2, [[3.0, 1.0]] * 2], rtol=1e-6)  # w_t is nothing to a picture


def test_outside_its_interval_guidance_costs_nothing():
    """Two of five steps are guided: the others evaluate the content branch alone, by a program of their own."""
    model = LinearModel(record=True)
    sampler, told = sampler_of(model), conditions()
    guided, plain = (True, False, False), (False,)
    assert sampler.compiles(SHAPE, Guidance.of(5, 1.5), interval=(0.2, 0.6)) == [0, 1]
    in_one = sampler(SHAPE, 0, told, Guidance.of(5, 1.5), interval=(0.2, 0.6))
    jax.effects_barrier()
    assert [rows for _, _, rows in model.evaluated] == [plain, guided, guided, plain, plain]
    assert sampler.compiles(SHAPE, Guidance.of(5, 1.5), interval=(0.2, 0.6)) == []
    by_steps = sampler(SHAPE, 0, told, Guidance.of(5, 1.5), lambda step, total: None, interval=(0.2, 0.6))
    np.testing.assert_array_equal(in_one, by_steps)
    state = sampler.start(jnp.uint32(0), SHAPE)
    for step, scales in enumerate([(1, 1), (5, 1.5), (5, 1.5), (1, 1), (1, 1)]):
        state = sampler.run(state, told, Guidance.of(*scales), start=step, stop=step + 1)
    np.testing.assert_array_equal(in_one, state.latents)
    assert sampler.advance.jitted._cache_size() == 2


@pytest.mark.parametrize(
    ("interval", "steps"),
    [((0.0, 1.0), range(5)), ((0.1, 0.6), range(1, 3)), ((0.0, 0.1), []), ((0.4, 1.0), range(2, 5))],
)
def test_guidance_runs_take_every_step_once(interval, steps):
    guidance = Guidance.of(7.5, 1.5)
    runs = guidance_runs(guidance, 5, interval)
    assert [i for start, stop, _ in runs for i in range(start, stop)] == list(range(5))
    assert [i for start, stop, g in runs if g is guidance for i in range(start, stop)] == list(steps)
    assert len(runs) == 1 or all(a[2].branches != b[2].branches for a, b in itertools.pairwise(runs))


def test_changing_traced_values_compiles_nothing():
    sampler = sampler_of(LinearModel())
    for seed, w, w_t, level, content, steps in [(0, 7.5, 1.5, 0, 0.3, 5), (1, 2, 0.5, 7, 0.1, 9), (2, 3, -1, 2, 0, 1)]:
        for progress in (None, lambda step, total: None):
            told = conditions(level=level, content=content)
            sampler.with_steps(steps)(SHAPE, seed, told, Guidance.of(w, w_t), progress)
    assert sampler.advance.jitted._cache_size() == 1
    assert sampler.start.jitted._cache_size() == 1


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize(("w", "w_t"), [(7.5, 1.5), (7.5, 1.0), (0.0, 1.5), (1.5, 1.5), (0.0, 0.0), (0.0, 1.0), (1, 1)])
def test_the_sampler_steps_by_equation_10(w, w_t, frames):
    """One step, with three evaluations by hand, whichever of them the sampler leaves out."""
    shape, told, guidance = (2, frames, 2, 3, 4), conditions((2, frames, 2, 3, 4)), Guidance.of(w, w_t)
    sampler = sampler_of(COUPLED).with_steps(1)
    start = sampler.start(jnp.uint32(5), shape)
    x, timesteps = start.latents, jnp.full(2, sampler.tables.timesteps[0])
    model = lambda told: np.asarray(COUPLED.apply(COUPLED.params, x, timesteps, told, "denoise")[0], np.float64)
    null = told.without_content()
    mu_pi, mu_null, mu_content = model(null.frames()), model(null), model(told)
    expected = mu_pi + w_t * (mu_null - mu_pi) + w * (mu_content - mu_null)
    stepped = sampler.sampler.step(sampler.tables, 0, start, jnp.float32(expected)).latents
    assert relative_error(sampler(shape, 5, told, guidance), stepped) < 1e-5


def test_no_guidance_at_all_is_frame_by_frame_image_sampling():
    sampler, still = sampler_of(COUPLED), Guidance.of(0.0, 0.0)
    ours = sampler(SHAPE, 0, conditions(), still)
    start = sampler.start(jnp.uint32(0), SHAPE).latents
    for frame in range(SHAPE[1]):
        state = sampler.sampler.init(start[:, frame : frame + 1])
        theirs = sampler.run(state, conditions(content=0.0).window(frame, 1), Guidance.of(1.0, 1.0)).latents
        assert relative_error(ours[:, frame : frame + 1], theirs) < 1e-6


def test_without_temporal_coupling_w_t_is_irrelevant():
    base = sampler_of(UNCOUPLED)(SHAPE, 0, conditions(), Guidance.of(7.5, 1.0))
    for w_t in (0.0, 0.5, 2.0):
        assert relative_error(sampler_of(UNCOUPLED)(SHAPE, 0, conditions(), Guidance.of(7.5, w_t)), base) < 1e-5
    coupled = [sampler_of(COUPLED)(SHAPE, 0, conditions(), Guidance.of(7.5, w_t)) for w_t in (1.0, 2.0)]
    assert relative_error(*coupled) > 1e-3


@pytest.mark.parametrize("name", ["ddim", "dpm++"])
def test_progress_by_steps_gives_the_same_latents_as_one_call(name):
    seen, sampler, request = [], sampler_of(COUPLED, name).with_steps(4), (conditions(), Guidance.of(5, 1.5))
    whole = sampler(SHAPE, 3, *request)
    steps = sampler(SHAPE, 3, *request, lambda step, total: seen.append((step, total)))
    np.testing.assert_array_equal(whole, steps)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert jnp.abs(sampler(SHAPE, 4, *request) - whole).max() > 0.1  # another seed, another sample


@pytest.mark.parametrize("name", ["ddim", "lcm"])
def test_a_strength_below_1_begins_with_noised_latents(name):
    """And gives what the steps by hand give; it compiles no second loop."""
    schedule, request = NoiseSchedule(), (conditions(), Guidance.of(2.0, 1.2))
    sampler = GuidedSampler(COUPLED, schedule, get_sampler(name), 5, window=8, overlap=2)
    sampler(SHAPE, 3, *request)
    part, clean = sampler.with_steps(5, 0.6), normal(7)
    timesteps = {"ddim": [401, 201, 1], "lcm": [599, 479, 359, 239, 119]}[
        name
    ]  # LCM takes as many steps in what is left
    assert part.tables.timesteps.tolist() == timesteps and part.strength == 0.6
    noise = sampler.start(jnp.uint32(3), SHAPE)
    begin = noise._replace(latents=schedule.add_noise(clean, noise.latents, jnp.array(timesteps[:1])))
    expected = part.run(begin, *request).latents
    np.testing.assert_allclose(part(SHAPE, 3, *request, latents=clean), expected, atol=1e-5)
    assert sampler.advance.jitted._cache_size() == 1
    with pytest.raises(ValueError, match=r"strength of 0.6 needs latents"):
        part(SHAPE, 3, *request)


def test_every_bit_of_a_seed_counts():
    """Those of other programs have 64, of which JAX drops half."""
    seeds = [0, 7, 2**32 - 1, 2**32, 2**32 + 7, 2**50, 2**64 - 1, 2**64]
    assert [in_32_bits(seed) for seed in seeds[:3]] == seeds[:3]
    assert len({in_32_bits(seed) for seed in seeds}) == len(seeds) and max(map(in_32_bits, seeds)) < 2**32


@pytest.mark.parametrize("name", ["ddim", "dpm++"])
def test_another_number_of_steps_is_that_of_a_sampler_made_for_it(name):
    request = (conditions(), Guidance.of(5, 1.0))
    made = GuidedSampler(COUPLED, NoiseSchedule(), get_sampler(name), 7, window=8, overlap=2)
    np.testing.assert_array_equal(sampler_of(COUPLED, name).with_steps(7)(SHAPE, 0, *request), made(SHAPE, 0, *request))


@pytest.mark.parametrize("name", ["ddim", "dpm++", "lcm", "tcd"])
def test_an_exact_denoiser_leads_to_the_known_answer(name):
    """Data that is one point per content: v is then known, and every sampler must land on the point."""
    schedule = NoiseSchedule(rescale_zero_terminal_snr=True)
    alphas = jnp.asarray(schedule.alphas_cumprod)

    class Exact(LinearModel):
        def apply(self, params, latents, timesteps, conditions, method):
            a, s = (spread(jnp.sqrt(x)[timesteps]) for x in (alphas, 1 - alphas))
            x0 = conditions.structure["depth"].maps + spread(conditions.content["image"].mean((1, 2)))
            return (a * latents - x0) / jnp.maximum(s, 1e-8), None  # v = (a x - x0) / s

    sampler = GuidedSampler(Exact(), schedule, get_sampler(name), 10, window=8, overlap=2)
    out = sampler(SHAPE, 0, conditions(), Guidance.of(1.0, 1.0))
    expected = conditions().structure["depth"].maps + 0.3
    # DDIM and TCD end at the noise level of timestep 0
    level = 0.0 if name in ("dpm++", "lcm") else float(np.sqrt(1 - schedule.alphas_cumprod[0]))
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
    request = (shape, 0, conditions(shape), Guidance.of(5, 1.5))
    whole, windows = sampler_of(UNCOUPLED, window=16)(*request), sampler_of(UNCOUPLED, window=4)(*request)
    assert relative_error(windows, whole) < 1e-5


def test_windows_leave_no_seam():
    """A constant clip under a coupling model: blended windows keep neighbours as equal as the whole does."""
    shape = (1, 13, 2, 3, 4)
    latents = jnp.ones(shape) * jnp.linspace(0, 1, 13)[None, :, None, None, None]
    silent = Conditions(content={"image": jnp.zeros((1, 1, 8))}, structure={"depth": Signal.of(0 * latents)})
    model = lambda *args: COUPLED.apply(COUPLED.params, *args, "denoise")[0]
    out, cut = (windowed(model, 6, overlap)(latents, jnp.array([500]), silent) for overlap in (4, 0))
    jumps = lambda x: float(jnp.abs(jnp.diff(x[0, :, 0, 0, 0], n=2)).max())
    assert jumps(out) < 0.5 * jumps(cut)


def test_all_branches_of_a_long_clip_are_evaluated_in_windows():
    model, shape = LinearModel(record=True), (1, 13, 2, 3, 4)
    sampler = sampler_of(model, window=4, overlap=1).with_steps(1)
    sampler(shape, 0, conditions(shape), Guidance.of(3, 1.5)).block_until_ready()
    jax.effects_barrier()
    assert model.evaluated == [(3, 4, (True, False, False))] * len(window_starts(13, 4, 1))


def test_guided_denoiser_of_one_frame_is_guidance_of_the_image_model():
    shape = (1, 1, 2, 3, 4)
    model = lambda *args: COUPLED.apply(COUPLED.params, *args, "denoise")[0]
    args = (jnp.ones(shape), jnp.array([10]))
    out = guided_denoiser(model, conditions(shape), Guidance.of(3.0, 1.7))(*args)
    plain = guided_denoiser(model, conditions(shape), Guidance.of(3.0, 1.0))(*args)
    np.testing.assert_array_equal(out, plain)


def test_eta_needs_no_more_than_the_seed():
    noisy = GuidedSampler(COUPLED, NoiseSchedule(), DDIM(eta=1.0), 5, window=8, overlap=2)
    request = (SHAPE, 0, conditions(), Guidance.of(7.5, 1.0))
    np.testing.assert_array_equal(noisy(*request), noisy(*request))


def test_memory_does_not_depend_on_the_number_of_steps():
    shape = (1, 8, 32, 32, 4)

    def temporaries(steps):
        sampler = sampler_of(COUPLED).with_steps(steps)
        state = sampler.start(jnp.uint32(0), shape)
        request = (state, conditions(shape), Guidance.of(7, 1.5), sampler.padded_tables)
        compiled = sampler.advance.lower(COUPLED.params, *request, 0, steps).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(100) - temporaries(5) < 4 * np.prod(shape)  # not even one more set of latents


@pytest.mark.parametrize(("name", "nearer"), [("ddim", 8), ("dpm++", 4)])  # which ends at another level than it began
def test_from_inverted_noise_the_same_content_leads_back(name, nearer):
    told, far, steps_seen = conditions(), [], []
    latents = jnp.asarray(np.random.default_rng(5).normal(size=SHAPE), jnp.float32)
    for steps in (20, 320):
        sampler = sampler_of(LinearModel(), name).with_steps(steps)
        noise = sampler.inverted(latents, told, lambda done, total: steps_seen.append((done, total)))
        back = [sampler(SHAPE, seed, told, Guidance.of(1.0, 1.0), noise=noise) for seed in (0, 1)]
        np.testing.assert_array_equal(*back)
        far.append(relative_error(back[0], latents))
    assert far[1] < far[0] / nearer, far
    assert steps_seen[0] == (1, 20) and steps_seen[-1] == (320, 320)
