"""Deep features that a step of the sampler leaves for the next ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import relative_error
from tiny import TINY, save_tiny_model

from gen1_jax.cli import main
from gen1_jax.diffusion import Guidance, NoiseSchedule, get_sampler, guided_denoiser, run_steps
from gen1_jax.diffusion.caching import keeping, run_cached_steps
from gen1_jax.editing.keyframes import between
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.sampling import GuidedSampler
from gen1_jax.editing.settings import EditSettings
from gen1_jax.evaluation import bench
from gen1_jax.evaluation.editor import Editor
from gen1_jax.evaluation.methods import methods
from gen1_jax.evaluation.runs import part_of_whole
from gen1_jax.media.clips import save_video
from gen1_jax.models.conditions import Conditions, Signal
from gen1_jax.models.module import Bound, initialise
from gen1_jax.pretrained import family
from gen1_jax.pretrained.sizes import TINY_DIT

CONFIG = family.TINY.unet
SHAPE, STEPS = (1, 3, 4, 4, 4), 7
FEATURES = (3, *SHAPE[1:4], CONFIG.block_out_channels[1])


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


GUIDANCE, FEW = Guidance.of(3.0, 1.5), EditSettings(deep_cache=2, num_inference_steps=20)
TOLD = Conditions(
    content={"image": normal(4, 1, 1, CONFIG.cross_attention_dim)},
    structure={"depth": Signal.of(normal(5, *SHAPE), jnp.zeros(1, int))},
)


@pytest.fixture(scope="module")
def sampler():
    """Of a U-Net none of whose layers is zero."""
    module, schedule = family.TINY.build("unet", jnp.float32), NoiseSchedule(rescale_zero_terminal_snr=True)
    params = jax.tree.map(lambda x: x + 0.1 * normal(x.size, *x.shape), initialise(module, 0))
    return GuidedSampler(Bound(module, params), schedule, get_sampler("dpm++"), STEPS, window=4, overlap=2)


def model_of(unet):
    return lambda *told: unet.denoise(*told)


@pytest.fixture
def editor(sampler):
    """What it counts, of one clip, and nothing else of it."""

    class Counting(Editor):
        def __init__(self):
            self.evaluations, self._parts = 0.0, {}

        def count(self, evaluations, latents):
            self.evaluations += evaluations

    return Counting()


def test_steps_in_part_are_counted_by_their_operations(sampler, editor):
    part, spent = part_of_whole(sampler, TOLD, GUIDANCE, SHAPE), []
    assert 0.2 < part < 0.9
    for every in (1, 3):
        editor.evaluations = 0.0
        editor.run(sampler.with_deep_cache(every), TOLD, normal(1, *SHAPE), [(0, 5, GUIDANCE)])
        spent.append(editor.evaluations)
    assert spent == [15, pytest.approx(3 * (2 + 3 * part))]


def test_under_guidance_features_of_the_same_step_give_its_prediction(sampler):
    """Three branches have features of their own, one batch."""
    denoise = keeping(lambda model: guided_denoiser(model, TOLD, GUIDANCE), model_of(sampler.unet))
    latents, timesteps = normal(1, *SHAPE), jnp.array([500])
    whole, features = denoise(latents, timesteps, None)
    assert features.shape[0] == 3
    plain = guided_denoiser(lambda *told: sampler.unet.denoise(*told)[0], TOLD, GUIDANCE)(latents, timesteps)
    np.testing.assert_array_equal(whole, plain)
    assert relative_error(denoise(latents, timesteps, features)[0], whole) < 1e-5
    others = denoise(latents, timesteps, features[::-1])[0]
    assert relative_error(others, whole) > 1e-3


def test_which_steps_are_whole():
    """Of a fake model that counts in its cache how many steps ago it was filled."""

    def denoise(latents, timesteps, cache):
        age = jnp.zeros((), jnp.int32) if cache is None else cache + 1
        return 0 * latents + age, age

    solver = get_sampler("ddim")
    tables = solver.tables(NoiseSchedule(), 5, "v_prediction")
    state, ages = solver.init(jnp.zeros((1, 1)))._replace(cache=jnp.array(9)), []
    for step in range(5):
        whole = np.arange(5) % 3 == 0
        state = run_cached_steps(denoise, solver, tables, state, whole, start=step, stop=step + 1)
        ages.append(int(state.cache))
    assert ages == [0, 1, 2, 0, 1]


def test_with_whole_steps_alone_it_is_the_run_without_a_cache(sampler):
    solver, tables, begin = sampler.sampler, sampler.tables, normal(1, *SHAPE)
    around = lambda model: guided_denoiser(model, TOLD, GUIDANCE)
    plain = run_steps(around(lambda *told: sampler.unet.denoise(*told)[0]), solver, tables, solver.init(begin))
    state = solver.init(begin)._replace(cache=jnp.zeros(FEATURES))
    denoise = keeping(around, model_of(sampler.unet))
    cached = run_cached_steps(denoise, solver, tables, state, np.ones(STEPS, bool), start=0, stop=STEPS)
    assert relative_error(cached.latents, plain.latents) < 1e-5


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.2, 0.6)])
def test_a_run_that_is_followed_is_the_run_in_one(sampler, interval):
    """Where guidance begins and ends there are other branches, so that each part begins with a whole step."""
    plain, outs = sampler(SHAPE, 0, TOLD, GUIDANCE, interval=interval), []
    for every in (2, 3):
        cached, done = sampler.with_deep_cache(every), []
        in_one = cached(SHAPE, 0, TOLD, GUIDANCE, interval=interval)
        compiled = sampler.advance.jitted._cache_size()
        by_steps = cached(SHAPE, 0, TOLD, GUIDANCE, lambda *told, done=done: done.append(told), interval=interval)
        np.testing.assert_array_equal(in_one, by_steps)
        assert len(done) == STEPS and sampler.advance.jitted._cache_size() == compiled
        outs.append(in_one)
    assert all(relative_error(out, plain) > 1e-4 for out in outs) and relative_error(*outs) > 1e-4
    np.testing.assert_array_equal(sampler(SHAPE, 0, TOLD, GUIDANCE, interval=interval), plain)


def test_without_it_the_program_knows_nothing_of_it(sampler):
    def program(deep_cache):
        def run(params, state):
            other = sampler.with_deep_cache(deep_cache)
            return other.advance.jitted(params, state, TOLD, GUIDANCE, sampler.padded_tables, 0, STEPS, *more)

        state, more = sampler.start(jnp.uint32(0), SHAPE), ()
        if deep_cache > 1:
            state = state._replace(cache=jnp.zeros(FEATURES))
            more = (None, None, np.arange(1000) % deep_cache == 0)
        return str(jax.make_jaxpr(run)(sampler.unet.params, state))

    assert "cond[" not in program(1) and "cond[" in program(2)


def test_clips_of_several_windows_or_tiles_are_refused(sampler):
    cached = sampler.with_deep_cache(2)
    with pytest.raises(ValueError, match="deep_cache is for clips of at most 4 frames, not 5: leave it 1"):
        cached((1, 5, *SHAPE[2:]), 0, TOLD, GUIDANCE)
    cached.tile = 2
    with pytest.raises(ValueError, match="deep_cache is for pictures that are sampled in one tile"):
        cached(SHAPE, 0, TOLD, GUIDANCE)


def test_settings_are_checked():
    for wrong in (0, 11):
        with pytest.raises(ValueError, match=f"deep_cache must be 1 to 10, got {wrong}"):
            EditSettings(deep_cache=wrong)
    assert EditSettings(deep_cache=2).of(family.TINY).deep_cache == 2
    for config in (TINY, TINY_DIT):
        assert EditSettings().of(config).deep_cache == 1
        with pytest.raises(ValueError, match="deep_cache: this model has no deeper levels"):
            EditSettings(deep_cache=2).of(config)


def test_models_without_deeper_levels_are_not_compared():
    swept = lambda config: [m.value for m in methods(EditSettings().of(config), config) if m.group == "deep_cache"]
    assert (swept(family.TINY), swept(TINY), swept(TINY_DIT)) == ([2, 3, 5], [], [])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("models") / "two_levels", family.TINY)


def test_an_edit_takes_it_and_a_long_one_is_refused_at_once(model, tmp_path, capsys):
    pipeline, frames = Gen1Pipeline.from_pretrained(model), np.zeros((5, 16, 16, 3), np.uint8)
    sampler = pipeline.sampler(FEW)
    assert sampler.deep_cache == 2 and sampler.ascending().deep_cache == between(FEW).deep_cache == 1
    with pytest.raises(ValueError, match="at most 4 frames, not 5"):
        pipeline.edit(frames, "a golden car", deep_cache=2)
    save_video(frames, tmp_path / "five.mkv", 8)
    words = ["edit", tmp_path / "five.mkv", "-o", tmp_path / "out.mkv", "--prompt", "a golden car", "--model", model]
    assert main([*map(str, words), "--deep-cache", "2"]) == 2
    assert "--deep-cache is for clips of at most 4 frames, not 5" in capsys.readouterr().err
    assert not (tmp_path / "out.mkv").exists()
    assert main(["bench", "sample", "--size", "tiny-dit", "--deep-cache", "2"]) == 2
    assert "--deep-cache: this model has no deeper levels" in capsys.readouterr().err


def test_it_is_timed():
    cached = bench.bench_sample(size="tiny", frames=1, steps=4, repeats=1, deep_cache=2)
    assert cached["finite"] and "every 2. step whole" in bench.render_sample(cached)
    assert cached["temporary_bytes"] > 0
