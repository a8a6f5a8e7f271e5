"""The PyTorch denoiser is the JAX one: networks, sampler, files."""

import dataclasses
import functools
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from oracle import relative_error

from gen1_jax.diffusion import Guidance, NoiseSchedule, get_sampler, sample
from gen1_jax.diffusion.windows import blend_weights, window_starts
from gen1_jax.editing.known import KnownLatents
from gen1_jax.editing.sampling import GuidedSampler, Known
from gen1_jax.exporting import torch_format
from gen1_jax.exporting.torch_format import load_modeling, write_torch
from gen1_jax.models.conditions import Conditions, Signal
from gen1_jax.models.denoiser_config import KNOWN
from gen1_jax.models.denoiser_inputs import conditions_of, known_signal
from gen1_jax.models.module import Bound, abstract_parameters, flatten, unflatten
from gen1_jax.models.structure import normalise_depth
from gen1_jax.models.structure import structure_images as structure_images_jax
from gen1_jax.models.unet import UNetConfig
from gen1_jax.pretrained.family import TINY
from gen1_jax.pretrained.folder import SeededModel

modeling = load_modeling(Path(torch_format.__file__).parent)
LIMIT = 1e-4
torch.set_num_threads(1)  # the tensors are tiny

SMALL = dict(num_attention_heads=2, cross_attention_dim=16, norm_num_groups=4)
STRUCTURED = dataclasses.replace(
    TINY,
    unet=UNetConfig(
        **SMALL, block_out_channels=(8, 16), attention_levels=(True, False), layers_per_block=1, max_frames=5
    ),
)
PLAIN = dataclasses.replace(
    TINY,
    unet=UNetConfig(
        **SMALL,
        block_out_channels=(8, 12),
        attention_levels=(False, True),
        layers_per_block=2,
        structure_channels=0,
        max_frames=4,
        prediction_type="epsilon",
    ),
    schedule=NoiseSchedule(),
    num_frames=3,
    window_overlap=0,
)
SHALLOW = dataclasses.replace(  # for what is of the sampler and its inputs, whatever the levels
    STRUCTURED, unet=dataclasses.replace(STRUCTURED.unet, block_out_channels=(8,), attention_levels=(True,))
)
SEVERAL = dataclasses.replace(
    SHALLOW,
    unet=dataclasses.replace(
        SHALLOW.unet,
        structure_kinds=("depth", "edges", "source"),
        structure_optional=True,
        known=True,
        structure_level_period=16.0,
    ),
)


class RandomModel(SeededModel):
    """A model source whose every parameter says something, those that are zero in a fresh model too."""

    def __init__(self, config):
        super().__init__(config, 0, "random", Path("none"))

    def parameters(self, component):
        rng, flat = np.random.default_rng(0), {}
        for name, x in flatten(abstract_parameters(self.config.build(component, np.float32))).items():
            value = rng.normal(size=x.shape).astype(np.float32)
            value *= np.prod(x.shape[:-1]) ** -0.5 if len(x.shape) > 1 else 0.1
            flat[name] = value + np.float32(name.endswith("scale"))
        return unflatten(flat)


@functools.cache
def networks(config):
    """The JAX network."""
    return Bound(config.build("unet", np.float32), RandomModel(config).parameters("unet"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A configuration's folder, and the parity that was measured when it was written; each is made once."""

    @functools.cache
    def write(config, dtype=np.float32):
        folder = tmp_path_factory.mktemp("exported")
        return folder, write_torch(RandomModel(config), folder, np.dtype(dtype))

    return write


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def to_torch(x):
    """Channels last to channels after time."""
    return None if x is None else torch.from_numpy(np.moveaxis(np.asarray(x), -1, 2).copy())


def from_torch(x):
    return np.moveaxis(x.numpy(), 2, -1)


@pytest.mark.parametrize(
    ("config", "dtype"), [(STRUCTURED, np.float32), (PLAIN, ml_dtypes.bfloat16), (SEVERAL, np.float32)]
)
def test_a_folder_is_written_and_compared(exported, config, dtype):
    folder, parity = exported(config, dtype)
    assert {path.name for path in folder.iterdir()} == {"config.json", "unet.safetensors", "modeling_gen1.py"}
    assert parity.keys() == {"unet_image", "unet_video", "guided_step"}
    assert all(0 < value < LIMIT / 10 for value in parity.values()), parity
    tensor = next(iter(modeling.load_file(folder / "unet.safetensors").values()))
    assert tensor.dtype == (torch.float32 if dtype is np.float32 else torch.bfloat16)


def test_a_wrong_weight_shows(exported, tmp_path, monkeypatch):
    exported(STRUCTURED)  # compiles
    theirs = type(torch_format.LAYOUT).to_theirs

    def to_theirs(self, params):
        tensors = theirs(self, params)
        name = "mid_block.resnets.0.temporal_conv1.weight"
        return {**tensors, name: 1.01 * tensors[name]}

    monkeypatch.setattr(type(torch_format.LAYOUT), "to_theirs", to_theirs)
    parity = write_torch(RandomModel(STRUCTURED), tmp_path, np.dtype(np.float32))
    assert {name for name, value in parity.items() if value > LIMIT} == {"unet_video", "guided_step"}


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (STRUCTURED, (2, 5, 5, 7)),  # odd sizes, as many frames as there are positions
        (PLAIN, (1, 2, 7, 2)),  # fewer frames than positions
    ],
)
def test_the_network(exported, config, shape):
    latents = normal(*shape, 4)
    timesteps, levels = np.array([999, 3, 500])[: shape[0]], np.array([7, 0, 2])[: shape[0]]
    content = normal(shape[0], 2, 16, seed=1)
    structure = normal(*shape, 4, seed=2) if config.unet.structure_channels else None
    expected = networks(config)(latents, timesteps, content, structure, levels)
    unet = modeling.Gen1Denoiser.from_pretrained(exported(config)[0]).unet
    step, tokens, level = (torch.from_numpy(x) for x in (timesteps, content, levels))
    latents, structure = to_torch(latents), to_torch(structure)
    assert relative_error(from_torch(unet(latents, step, tokens, structure, level)), expected) < LIMIT / 10
    images = unet(latents, step, tokens, structure, level, temporal=False)
    first = unet(latents[:, :1], step, tokens, None if structure is None else structure[:, :1], level)
    torch.testing.assert_close(images[:, :1], first)


def several(shape, given, seed=0):
    """Signals of a model of several inputs, each of its own level and weight, those that are not given of weight 0."""
    maps = {name: normal(*shape[:-1], 4, seed=seed + i) for i, name in enumerate(SEVERAL.unet.structures)}
    told = {
        name: Signal(x, np.full(shape[0], level), np.full(shape[0], weight, np.float32))
        for (name, x), level, weight in zip(maps.items(), (3, 0, 7), (1.0, 0.5, 0.8), strict=True)
    }
    mask = np.zeros((*shape[:-1], 1), np.float32)
    mask[:, 0], mask[:, 1, 1:3] = 1, 1
    told[KNOWN] = known_signal(jnp.asarray(normal(*shape, seed=seed + 9)), jnp.asarray(mask))
    told = {
        name: x if name in given else dataclasses.replace(x, weight=np.zeros(shape[0], np.float32))
        for name, x in told.items()
    }
    return jax.tree.map(jnp.asarray, told)


def signals_to_torch(told, given):
    tensor = lambda x: torch.from_numpy(np.asarray(x).copy())
    return {
        name: modeling.Signal(to_torch(told[name].maps), tensor(told[name].level), tensor(told[name].weight))
        for name in given
    }


@pytest.mark.parametrize("given", [("depth", "edges", "source", KNOWN), ("depth",), (KNOWN, "depth"), ("edges",), ()])
def test_any_of_several_inputs(exported, given):
    shape = 2, 3, 5, 6, 4
    latents, content = jnp.asarray(normal(*shape, seed=20)), jnp.asarray(normal(2, 1, 16, seed=21))
    timesteps = np.array([999, 3])
    told = several(shape, given)
    expected = networks(SEVERAL).denoise(latents, timesteps, Conditions(content={"image": content}, structure=told))[0]
    unet = modeling.Gen1Denoiser.from_pretrained(exported(SEVERAL)[0]).unet
    args = to_torch(latents), torch.from_numpy(timesteps), torch.from_numpy(np.array(content))
    found = unet(*args, signals_to_torch(told, given))
    assert relative_error(from_torch(found), expected) < LIMIT / 10
    if given == ("depth",):
        one = networks(SEVERAL)(latents, timesteps, content, told["depth"].maps, told["depth"].level)
        short = unet(*args, to_torch(told["depth"].maps), torch.tensor([3, 3]))
        assert relative_error(from_torch(short), one) < LIMIT / 10
        torch.testing.assert_close(short, found)


def test_a_guided_run_with_known_frames_and_source(exported):
    """In windows; the source has a scale of its own, and what is known is in the estimate of every step."""
    sampler, scales = jax_sampler(SEVERAL, SEVERAL.num_frames, SEVERAL.window_overlap), (W, 1.5, 2.5)
    content, told = jnp.asarray(normal(1, 1, 16, seed=3)), several(SHAPE, ("depth", "source", KNOWN), seed=30)
    noise = np.asarray(sampler.start(jnp.uint32(5), SHAPE).latents)
    known, mask = jnp.split(told[KNOWN].maps, [4], axis=-1)
    conditions = Conditions(content={"image": content}, structure=told)
    expected = sampler(SHAPE, 5, conditions, Guidance.of(*scales), known=Known(known, 1 - mask))
    expected = KnownLatents(known, mask).on(expected)
    names = "guidance_scale", "temporal_guidance_scale", "source_guidance_scale"
    model = modeling.Gen1Denoiser.from_pretrained(exported(SEVERAL)[0])
    given = signals_to_torch(told, ("depth", "source", KNOWN))
    args = to_torch(noise), torch.from_numpy(np.array(content)), given
    latents = model.sample(*args, num_inference_steps=STEPS, **dict(zip(names, scales, strict=True)))
    assert relative_error(from_torch(latents), expected) < LIMIT
    other = model.sample(*args, num_inference_steps=STEPS, **dict(zip(names[:2], scales, strict=False)))
    assert relative_error(other, latents) > LIMIT
    with pytest.raises(ValueError, match="source_guidance_scale is for a run that is told of its source"):
        model.sample(*args[:2], signals_to_torch(told, ("depth",)), source_guidance_scale=2.0)


def test_what_is_known_is_kept_whatever_its_weight_unless_that_is_zero(exported):
    told = several(SHAPE, (KNOWN, "depth"), seed=30)
    given, mask = signals_to_torch(told, (KNOWN, "depth")), to_torch(told[KNOWN].maps[..., -1:]) > 0
    model = modeling.Gen1Denoiser.from_pretrained(exported(SEVERAL)[0])

    def run(signals):
        args = to_torch(normal(*SHAPE, seed=1)), torch.from_numpy(normal(1, 1, 16, seed=3)), signals
        return model.sample(*args, num_inference_steps=2)

    weighed = lambda weight: run({**given, KNOWN: modeling.Signal(given[KNOWN].maps, weight=weight)})
    where = mask.expand_as(given["depth"].maps)
    assert where.any() and torch.equal(weighed(0.5)[where], given[KNOWN].maps[:, :, :-1][where])
    torch.testing.assert_close(weighed(0.0), run({"depth": given["depth"]}))


def test_known_latents():
    latents, mask = jnp.asarray(normal(1, 2, 3, 3, 4)), jnp.float32(normal(1, 2, 3, 3, 1) > 0)
    ours, theirs = known_signal(latents, mask), modeling.known_signal(to_torch(latents), to_torch(mask))
    np.testing.assert_array_equal(from_torch(theirs.maps), ours.maps)


def test_what_the_network_refuses(exported):
    unet = modeling.Gen1Denoiser.from_pretrained(exported(STRUCTURED)[0]).unet
    latents, zero, content = torch.zeros(1, 1, 4, 2, 2), torch.zeros(1, dtype=int), torch.zeros(1, 1, 16)
    with pytest.raises(ValueError, match="needs structure: depth"):
        unet(latents, zero, content)
    with pytest.raises(ValueError, match="takes depth, but was given edges"):
        unet(latents, zero, content, dict.fromkeys(("depth", "edges"), modeling.Signal(latents)))
    unet = modeling.Gen1Denoiser.from_pretrained(exported(PLAIN, ml_dtypes.bfloat16)[0]).unet
    latents, zero, content = torch.zeros(1, 5, 4, 2, 2), torch.zeros(1, dtype=int), torch.zeros(1, 1, 16)
    with pytest.raises(ValueError, match="5 frames, but the model has 4 frame positions"):
        unet(latents, zero, content)
    with pytest.raises(ValueError, match="takes no structure, but was given structure"):
        unet(latents[:, :1], zero, content, latents[:, :1], zero)
    assert unet(latents, zero, content, temporal=False).shape == latents.shape


def test_names_are_those_of_diffusers(exported):
    """The image part is UNet2DConditionModel's state, tensor by tensor."""
    from diffusers import UNet2DConditionModel

    config = STRUCTURED.unet
    with torch.device("meta"):
        theirs = UNet2DConditionModel(
            in_channels=12,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=config.block_out_channels,
            layers_per_block=config.layers_per_block,
            attention_head_dim=config.num_attention_heads,
            cross_attention_dim=config.cross_attention_dim,
            norm_num_groups=config.norm_num_groups,
            use_linear_projection=True,
        ).state_dict()
    ours = modeling.load_file(exported(STRUCTURED)[0] / "unet.safetensors")
    spatial = {name: x.shape for name, x in ours.items() if ".temporal" not in name}
    assert spatial == {name: x.shape for name, x in theirs.items()}


W, STEPS, SHAPE = 7.5, 4, (1, 7, 4, 5, 4)


@functools.cache
def jax_sampler(config, window, overlap):
    return GuidedSampler(networks(config), config.schedule, get_sampler("ddim"), STEPS, window=window, overlap=overlap)


def jax_trajectory(w, w_t):
    """Initial noise, content, structure and the result of a run in windows."""
    sampler = jax_sampler(SHALLOW, SHALLOW.num_frames, SHALLOW.window_overlap)
    content, structure = normal(1, 1, 16, seed=3), normal(*SHAPE, seed=4)
    conditions = conditions_of(SHALLOW.unet, jnp.asarray(content), jnp.asarray(structure), jnp.array([2]))
    noise = np.asarray(sampler.start(jnp.uint32(5), SHAPE).latents)
    return noise, content, structure, np.asarray(sampler(SHAPE, 5, conditions, Guidance.of(w, w_t)))


@pytest.mark.parametrize(("w", "w_t"), [(W, 0.0), (W, 1.0), (W, 1.5), (0.0, 1.5), (1.0, 1.0), (0.0, 0.0)])
def test_a_guided_run_in_windows(exported, w, w_t):
    noise, content, structure, expected = jax_trajectory(w, w_t)
    model = modeling.Gen1Denoiser.from_pretrained(exported(SHALLOW)[0])
    scales = dict(guidance_scale=w, temporal_guidance_scale=w_t, num_inference_steps=STEPS)
    steps = list(model.steps(to_torch(noise), torch.from_numpy(content), to_torch(structure), 2, **scales))
    assert len(steps) == STEPS
    assert relative_error(from_torch(steps[-1]), expected) < LIMIT
    again = model.sample(to_torch(noise), torch.from_numpy(content), to_torch(structure), torch.tensor([2]), **scales)
    assert torch.equal(again, steps[-1])


class Stub(torch.nn.Module):
    """A network that is known in full, and counts the clips that it sees."""

    def __init__(self, prediction_type):
        super().__init__()
        self.config, self.evaluated = SimpleNamespace(prediction_type=prediction_type, inputs=(), required=()), []

    def forward(self, latents, timesteps, content, structure, *, temporal):
        self.evaluated.append((len(latents), temporal))
        return 0.5 * latents + timesteps[:, None, None, None, None] / 1000


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_every_solver_and_prediction(sampler, prediction_type):
    schedule, noise = NoiseSchedule(rescale_zero_terminal_snr=prediction_type != "epsilon"), normal(2, 3, 2, 2, 4)
    levels = modeling.alphas_cumprod(**schedule.to_dict())
    denoise = lambda x, t: 0.5 * x + t[:, None, None, None, None] / 1000
    expected = sample(denoise, schedule, get_sampler(sampler), jnp.asarray(noise), 6, prediction_type)
    model = modeling.Gen1Denoiser(Stub(prediction_type), levels, 1.0, num_frames=3, window_overlap=0)
    out = model.sample(
        to_torch(noise), torch.zeros(2, 1, 8), guidance_scale=1.0, num_inference_steps=6, sampler=sampler
    )
    assert relative_error(from_torch(out), expected) < 1e-5


@pytest.mark.parametrize(
    ("w", "w_t", "frames", "expected"),
    [
        (7.5, 1.5, 2, [(2, True), (1, False)]),
        (7.5, 1.0, 2, [(2, True)]),
        (0.0, 0.0, 2, [(1, False)]),
        (1.0, 1.0, 2, [(1, True)]),
        (7.5, 1.5, 1, [(2, True)]),  # of one frame both models are one
    ],
)
def test_branches_without_weight_are_not_evaluated(w, w_t, frames, expected):
    stub = Stub("sample")
    model = modeling.Gen1Denoiser(stub, [0.9, 0.5], 1.0, num_frames=4, window_overlap=2)
    args = torch.zeros(1, frames, 4, 2, 2), torch.ones(1, 1, 8)
    model.sample(*args, guidance_scale=w, temporal_guidance_scale=w_t, num_inference_steps=1)
    assert stub.evaluated == expected


SCHEDULES = [
    NoiseSchedule(),
    NoiseSchedule(rescale_zero_terminal_snr=True),
    NoiseSchedule(beta_schedule="linear", num_train_timesteps=400, set_alpha_to_one=True),
    NoiseSchedule(beta_schedule="squaredcos_cap_v2", rescale_zero_terminal_snr=True),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.beta_schedule)
@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
def test_tables_of_coefficients(schedule, sampler):
    fields = schedule.to_dict()
    clean = fields.pop("set_alpha_to_one", False)
    levels = modeling.alphas_cumprod(**fields)
    np.testing.assert_allclose(levels, schedule.alphas_cumprod_float64, rtol=1e-11, atol=1e-15)
    for count in [*range(1, 80), 100, 333, schedule.num_train_timesteps]:
        tables = get_sampler(sampler).tables(schedule, count, "v_prediction")
        steps = modeling.solver_steps(levels, count, "v_prediction", sampler, clean)
        timesteps, coefficients = zip(*steps, strict=True)
        assert list(timesteps) == tables.timesteps.tolist()
        np.testing.assert_allclose(np.array(coefficients).T, np.stack(tables[1:6]), rtol=1e-5, atol=1e-6)


def test_what_the_solver_refuses():
    levels = modeling.alphas_cumprod(**NoiseSchedule(rescale_zero_terminal_snr=True).to_dict())
    with pytest.raises(ValueError, match="zero terminal SNR"):
        modeling.solver_steps(levels, 5, "epsilon", "ddim")
    with pytest.raises(ValueError, match="between 1 and 1000, got 0"):
        modeling.solver_steps(levels, 0, "sample", "ddim")
    with pytest.raises(ValueError, match="unknown sampler 'euler'"):
        modeling.solver_steps(levels, 5, "sample", "euler")


@pytest.mark.parametrize(("frames", "window", "overlap"), [(9, 4, 2), (7, 4, 0), (8, 8, 3), (6, 5, 4)])
def test_windows(frames, window, overlap):
    starts, weights = zip(*modeling.blend_windows(frames, window, overlap), strict=True)
    assert list(starts) == window_starts(frames, window, overlap).tolist()
    np.testing.assert_allclose(torch.stack(weights), blend_weights(frames, window, overlap), rtol=1e-6)


@pytest.mark.parametrize(("level", "quantiles"), [(0, (0.0, 1.0)), (1, (0.0, 1.0)), (3, (0.05, 0.9)), (7, (0.0, 1.0))])
def test_structure(level, quantiles):
    depth = 5 + 3 * normal(2, 2, 13, 20)
    depth[1] = 4  # constant
    expected = structure_images_jax(normalise_depth(jnp.asarray(depth), quantiles), jnp.array([level, level]))
    pictures = modeling.structure_images(torch.from_numpy(depth), level, quantiles)
    assert relative_error(from_torch(pictures), expected) < 1e-5


def test_bfloat16_computes(exported):
    folder = exported(PLAIN, ml_dtypes.bfloat16)[0]
    args = to_torch(normal(1, 2, 4, 4, 4)), torch.tensor([500]), torch.from_numpy(normal(1, 1, 16))
    wide, narrow = (modeling.Gen1Denoiser.from_pretrained(folder, dtype=x) for x in (torch.float32, torch.bfloat16))
    out = narrow.unet(*args)
    assert out.dtype == torch.float32
    assert 1e-4 < relative_error(out, wide.unet(*args)) < 0.05


ALONE = """
import sys
for name in ("jax", "jaxlib", "flax", "einops", "gen1_jax", "diffusers", "transformers"):
    sys.modules[name] = None
folder, numbers = sys.argv[1:]
sys.path.insert(0, folder)
import numpy as np, torch
from modeling_gen1 import Gen1Denoiser
data = {name: torch.from_numpy(x) for name, x in np.load(numbers).items()}
expected = data.pop("expected")
model = Gen1Denoiser.from_pretrained(folder)
out = model.sample(**data, structure_level=2, temporal_guidance_scale=1.5, num_inference_steps=4)
print(float((out - expected).abs().max() / expected.abs().max()))
"""


def test_the_folder_runs_without_jax(exported, tmp_path):
    folder = exported(SHALLOW)[0]
    noise, content, structure, expected = jax_trajectory(W, 1.5)
    video = lambda x: to_torch(x).numpy()
    file = tmp_path / "numbers.npz"
    np.savez(file, noise=video(noise), content=content, structure=video(structure), expected=video(expected))
    command = [sys.executable, "-B", "-c", ALONE, str(folder), str(file)]
    out = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    assert float(out.stdout) < LIMIT


def test_without_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match="needs torch: pip install"):
        write_torch(RandomModel(STRUCTURED), tmp_path, np.dtype(np.float32))
    assert not list(tmp_path.iterdir())
