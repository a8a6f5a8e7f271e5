import collections
import csv
import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest
from tiny import TINY

from gen1_jax.cli import main
from gen1_jax.diffusion import Guidance
from gen1_jax.evaluation import bench, bench_growth
from gen1_jax.evaluation.bench_growth import DeviceBench
from gen1_jax.evaluation.bench_layers import layers, render_layers
from gen1_jax.evaluation.bench_train import StepBench, random_latents
from gen1_jax.models.denoiser_inputs import abstract_conditions
from gen1_jax.models.module import Bound, abstract_parameters
from gen1_jax.parallel.mesh import MeshConfig, make_mesh
from gen1_jax.parallel.sharding import Layout
from gen1_jax.pretrained.nano_public import public_config
from gen1_jax.pretrained.sizes import SIZES, TINY_DIT

PUBLIC = dataclasses.replace(public_config(SIZES["tiny"]), clip=None)


def test_bench_times_and_counts(monkeypatch, capsys):
    monkeypatch.setitem(SIZES, "nano", TINY)
    both = bench.bench_sample(frames=2, steps=2, repeats=1, temporal_guidance_scale=1.5)
    assert both["finite"] and both["seconds"] > 0 and both["tflop_per_second"] > 0
    assert both["step_milliseconds"] == pytest.approx(1000 * both["seconds"] / 2)
    text = bench.render_sample(both)
    assert "ms" in text and "TFLOP" in text

    plain = bench.bench_sample(frames=2, steps=2, repeats=1, temporal_guidance_scale=1.0)
    assert plain["step_tflop"] < both["step_tflop"]  # no image branch


def test_bench_takes_the_window_of_the_model_and_counts_every_window_of_a_longer_clip(monkeypatch, capsys):
    monkeypatch.setitem(SIZES, "tiny", TINY)
    assert main(["bench", "sample", "--size", "tiny", "--steps", "1", "--repeats", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["frames"] == TINY.num_frames
    video_only = dict(size="tiny", steps=1, repeats=1, temporal_guidance_scale=1.0)
    one, two = (bench.bench_sample(frames=n, **video_only)["step_tflop"] for n in (4, 6))
    assert two == 2 * one  # of four frames, two of which overlap


def test_public_models_are_timed_with_their_text_and_their_control(monkeypatch):
    monkeypatch.setitem(SIZES, "public", PUBLIC)
    result = bench.bench_sample(size="public", steps=1, repeats=1, temporal_guidance_scale=1.2)
    assert result["finite"] and result["frames"] == PUBLIC.num_frames
    alone = dataclasses.replace(PUBLIC, unet=dataclasses.replace(PUBLIC.unet, controls=()))
    without = abstract_step_tflop(alone, Guidance.of(7.5, 1.2))
    assert result["step_tflop"] == pytest.approx(abstract_step_tflop(PUBLIC, Guidance.of(7.5, 1.2)))
    assert 1.13 < result["step_tflop"] / without < 1.33  # two of the three branches share one


def abstract_step_tflop(config, guidance):
    """Nothing is evaluated."""
    module = config.build("unet", jnp.bfloat16)
    unet = Bound(module, abstract_parameters(module))
    size = (config.height // config.vae.downscale, config.width // config.vae.downscale)
    shape = (1, config.num_frames, *size, config.unet.latent_channels)
    conditions = abstract_conditions(config.unet, shape, config.text.max_position_embeddings, jnp.bfloat16)
    return bench.step_flops(unet, shape, conditions, guidance, config.num_frames, config.window_overlap) / 1e12


def test_wrong_numbers_are_named(capsys):
    assert main(["bench", "sample", "--size", "huge"]) == 2
    assert "huge" in capsys.readouterr().err
    assert main(["bench", "sample", "--steps", "0"]) == 2
    assert "steps" in capsys.readouterr().err


def test_a_step_of_a_transformer_is_three_of_its_forward_passes():
    """Forward once, and twice in the backward pass, but for the patches, whose input needs no gradient."""
    bench_of_step = StepBench(TINY_DIT, Layout(make_mesh(MeshConfig(data=1), jax.devices()[:1])))
    module = TINY_DIT.build("unet", jnp.float32)
    unet, shape = Bound(module, abstract_parameters(module)), (2, 4, 8, 8, 4)
    told = abstract_conditions(TINY_DIT.unet, shape, 1, jnp.float32)
    forward = bench.step_flops(unet, shape, told, Guidance.of(1.0, 1.0), TINY_DIT.num_frames, TINY_DIT.window_overlap)
    assert 2.5 < bench_of_step.flops(random_latents(TINY_DIT, "video", 2)) / forward < 3


def test_bench_train_times_each_batch(capsys):
    """Of a transformer, whose step compiles in a third of the time."""
    assert (
        main(["bench", "train", "--size", "tiny-dit", "--clips", "2", "--images", "2", "--steps", "2", "--json"]) == 0
    )
    clips, images = map(json.loads, capsys.readouterr().out.splitlines())
    assert (clips["kind"], clips["batch"], images["kind"]) == ("video", 2, "image")
    assert clips["seconds"] > 0 and clips["tflop"] > images["tflop"] > 0
    assert clips["examples_per_second"] == pytest.approx(2 / clips["seconds"])
    assert clips["state_bytes"] > 4 * 4 * clips["parameters"]  # weights, EMA, two moments

    assert main(["bench", "train", "--size", "huge"]) == 2
    assert main(["bench", "train", "--mesh", "fsdp=3"]) == 2
    assert main(["bench", "train", "--mesh", "rows=3"]) == 2
    assert "rows=3" in capsys.readouterr().err


def test_layers_are_those_of_the_network():
    """What they compute is all that it does, but for the convolutions between levels, the first, and the last."""
    config = SIZES["nano"]
    counts = collections.Counter((layer.name, layer.level) for layer in layers(config))
    resnets = {level: count for (name, level), count in counts.items() if name == "ResnetBlock"}
    each = 2 * config.unet.layers_per_block + 1
    assert resnets == {
        level: each + 2 * (level == max(resnets)) for level in range(len(config.unet.block_out_channels))
    }
    assert all(counts["SpatialTransformer", level] == counts["TemporalTransformer", level] for level in resnets)
    assert counts["SpatialTransformer", 0] == 0 and counts["SpatialTransformer", max(resnets)] == each + 1


def test_bench_layers_times_each_kind_and_tells_what_each_operation_takes(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(SIZES, "tiny", TINY)
    out = tmp_path / "layers.csv"
    command = ["bench", "layers", "--size", "tiny", "--clips", "1", "--steps", "1"]
    assert main([*command, "--json", "--profile", str(out)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    operations = list(csv.DictReader(out.open()))
    assert len({operation["program"] for operation in operations}) == len(rows)
    assert {"convolutions", "elementwise"} <= {operation["kind"] for operation in operations}
    assert all(float(operation["milliseconds"]) >= 0 for operation in operations)
    assert len({(row["layer"], row["level"], row["channels"]) for row in rows}) == len(rows)
    assert sum(row["count"] for row in rows) == len(layers(TINY))
    assert all(row["forward_seconds"] > 0 and row["tflop"] > 0 for row in rows)

    head, names, first, *_, total = render_layers([rows[0] | {"error": "out of memory"}, rows[0] | {"count": 3}])
    assert "out of memory" in first and float(total.split()[2]) == pytest.approx(3000 * rows[0]["seconds"], abs=2e-3)
    for wrong, said in ((["--size", "tiny-dit"], "no U-Net"), (["--clips", "0"], "at least 1")):
        assert main(["bench", "layers", *wrong]) == 2
        assert said in capsys.readouterr().err
    for wrong in (tmp_path / "none" / "layers.csv", tmp_path / "layers.txt"):
        assert main([*command, "--profile", str(wrong)]) == 2
        assert str(wrong) in capsys.readouterr().err


def test_growth_times_the_sampler_in_windows_and_draws(tmp_path, capsys):
    options = ["--size", "tiny", "--work", "sample", "--frames", "4", "6", "--devices", "--steps", "1"]
    command = ["bench", "growth", *options, "--out", str(tmp_path / "out")]
    assert main([*command, "--pixels", "--json"]) == 0
    short, long, fit = map(json.loads, capsys.readouterr().out.splitlines())
    assert (short["windows"], long["windows"]) == (1, 2) and long["tflop"] == pytest.approx(2 * short["tflop"])
    assert min(short["seconds"], long["seconds"]) > 0 and short["source"] == "measured"
    assert long["temporary_bytes"] < 2 * short["temporary_bytes"]  # windows come one after another
    assert fit["fit"]["tflop"] == pytest.approx(1.71, abs=1e-2)
    assert (tmp_path / "out" / "growth.png").read_bytes().startswith(b"\x89PNG")
    assert main([*command, "--pixels"]) == 0  # nothing is measured again
    assert "windows of 4 frames that share 2" in capsys.readouterr().out


def test_growth_has_a_row_for_a_step_that_does_not_fit(monkeypatch):
    """The program is that of `gen1 bench train` above."""
    monkeypatch.setattr(bench_growth, "_memory", lambda devices: 1000)
    row = DeviceBench("tiny-dit", batch=2)(work="train", frames=4, height=TINY.height, width=TINY.width, devices=1)
    assert row["error"].startswith("out of memory") and "seconds" not in row
    assert row["peak_bytes"] > row["temporary_bytes"] > 0 and row["tflop"] > 0

    def fails(*args, **more):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 byte")

    monkeypatch.setattr(bench_growth, "StepBench", fails)
    assert DeviceBench("tiny")(work="train", frames=4, height=16, width=16, devices=1) == {"error": "out of memory"}
