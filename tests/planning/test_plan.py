import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from gen1_jax.cli import main
from gen1_jax.models.module import abstract_parameters, parameter_count
from gen1_jax.parallel.mesh import MeshConfig, make_mesh
from gen1_jax.parallel.sharding import Layout
from gen1_jax.planning.compiled import needed_bytes
from gen1_jax.planning.growth import ChipBench
from gen1_jax.planning.plan import make_plan, next_to_try
from gen1_jax.planning.programs import Programs
from gen1_jax.planning.report import render
from gen1_jax.planning.topology import parse_topology
from gen1_jax.pretrained.sizes import SIZES
from gen1_jax.training.denoising import DenoisingConfig
from gen1_jax.training.recipe import read_recipe

CONFIGS = Path(__file__).parents[2] / "configs"
HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None
LATENTS = "--config.data.inputs=latents"


def recipe(name="smoke", *overrides, **changes):
    return dataclasses.replace(read_recipe(CONFIGS / f"{name}.py", overrides), **changes)


def gen1_plan(*arguments, name="smoke"):
    command = [sys.executable, "-m", "gen1_jax.cli", "plan", f"--config={CONFIGS / name}.py", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"JAX_OPTIMIZATION_LEVEL": "O0"}
    )


def rows_of(config, topology, **options):
    rows = list(make_plan(config, topology, **options))
    assert all(render(row) for row in rows)
    json.dumps(rows)
    return rows


@pytest.fixture(scope="module")
def on_gpus():
    """The plan of the smallest recipe on eight GPUs: nothing is compiled."""
    return rows_of(recipe("smoke", LATENTS, mesh=MeshConfig(data=2, fsdp=4)), parse_topology("gpu:h200:8"))


def test_every_figure_says_that_it_is_estimated(on_gpus):
    machine, *programs, stages = on_gpus
    assert machine["source"] == "estimated" and "GPU" in machine["why_estimated"]
    assert [row["program"] for row in programs] == ["video 32x32", "image 32x32", "sampler, 50 steps"]
    assert all(row["source"] == "estimated" and row["fits"] and row["compile_seconds"] is None for row in programs)
    assert [stage["steps"] for stage in stages["stages"]] == [4, 4, 4, 4]


def test_a_transformer_is_planned_as_a_unet_is():
    config = recipe("smoke", LATENTS, "--config.model=tiny-dit", mesh=MeshConfig(data=2, context=2))
    machine, *programs, _ = rows_of(config, parse_topology("gpu:h200:4"))
    assert machine["parameters"] == parameter_count(abstract_parameters(SIZES["tiny-dit"].build("unet", jnp.float32)))
    assert [row["program"] for row in programs] == ["video 32x32", "image 32x32", "sampler, 50 steps"]
    assert all(row["fits"] and row["step_s"] > 0 for row in programs)


def test_a_preview_finds_the_frozen_networks_of_all_stages():
    """A stage that sees fewer kinds may need a network that the one with most does without."""
    layout = Layout(make_mesh(MeshConfig(data=1), jax.devices("cpu")[:1]))
    several = dict(unet=DenoisingConfig(inputs=("depth", "tile", "source"), structure_dropout=0.5))
    plain = recipe("smoke", "--config.data.inputs=pixels", **several)

    def kept(*seen):
        stages = [dataclasses.replace(plain.stages[0], name=str(i), structure=kinds) for i, kinds in enumerate(seen)]
        return Programs(dataclasses.replace(plain, stages=tuple(stages)), layout).preview_bytes()[0]

    depth, others = ("depth",), ("tile", "source")
    assert kept(others) < kept(depth) == kept(depth, others)


def test_hours_follow_from_steps_and_shares(on_gpus):
    _, video, image, _, stages = on_gpus
    shares = (1.0, 0.125, 0.125, 0.125)
    for stage, share in zip(stages["stages"], shares, strict=True):
        seconds = share * image["step_s"] + (1 - share) * video["step_s"]
        assert stage["step_s"] == pytest.approx(seconds)
        assert stage["hours"] == pytest.approx(4 * stage["step_s"] / 3600)
        assert stage["chip_hours"] == pytest.approx(8 * stage["hours"])
    assert stages["hours"] == pytest.approx(sum(stage["hours"] for stage in stages["stages"]))


def test_what_does_not_fit_has_no_hours_and_fit_says_what_does():
    """A made-up chip with little memory, and a transformer, which is traced in a third of the time."""
    big = parse_topology("gpu:h200:1")
    config = recipe("smoke", LATENTS, "--config.model=tiny-dit")
    (row,) = [row for row in rows_of(config, big, programs=["video"]) if row["row"] == "program"]
    between = (row["argument_bytes"] + row["peak_bytes"]) / 2
    small = dataclasses.replace(big, chip=dataclasses.replace(big.chip, hbm_bytes=between))

    _, full, stages = rows_of(config, small, programs=["video"])
    assert not full["fits"] and "out of memory" in render(full)
    assert stages["hours"] is None and stages["stages"][1]["hours"] is None

    for fit in ("microbatches", "batch"):
        _, *tries, best, _ = rows_of(config, small, programs=["video"], fit=fit)
        assert best["fits"] and {row["fits"] for row in tries} == {True, False}
        one_part = [row["batch"] // row["microbatches"] for row in tries]
        fitting = [n for n, row in zip(one_part, tries, strict=True) if row["fits"]]
        assert best["batch"] // best["microbatches"] == max(fitting)
        assert best["batch"] == 8 if fit == "microbatches" else best["microbatches"] == 1


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_search_finds_the_last_that_fits(count):
    for limit in range(count + 1):
        good, bad, asked = -1, count, 0
        while (index := next_to_try(good, bad, count)) is not None:
            good, bad = (index, bad) if index < limit else (good, index)
            asked += 1
        assert good == limit - 1 and asked <= 2 * count.bit_length() + 1


@pytest.mark.parametrize(
    ("message", "gib"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (26.84G) "
            "exceeds available HBM (15.75G).",
            26.84,
        ),
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded", 20.5),
    ],
)
def test_memory_that_libtpu_says_is_missing(message, gib):
    assert needed_bytes(message) == int(gib * 2**30)
    assert needed_bytes(message.replace("RESOURCE_EXHAUSTED", "INTERNAL")) is None


def test_full_recipe_on_gpus_without_compiling():
    """By hand: 1.266 B parameters, four float32 copies, over 8 chips; 205 TFLOP at 35% of 989.5 TFLOP/s."""
    config = recipe("gen1", mesh=MeshConfig(data=8, fsdp=8), remat=False)
    config = dataclasses.replace(config, microbatches=dataclasses.replace(config.microbatches, video=1, image=1))
    machine, video, stages = rows_of(config, parse_topology("gpu:h200:64"), programs=["video"])
    assert machine["parameters"] == 1_266_159_364
    assert video["argument_bytes"] == pytest.approx(16 * machine["parameters"] / 8, rel=0.03)
    assert video["compute_s"] == pytest.approx(205.2e12 / (0.35 * 989.5e12), rel=0.01)
    assert 0.3 < video["mfu"] <= 0.35 and video["fits"]
    assert stages["stages"][0]["hours"] is None  # images were not planned

    # One H200 without recomputation: 18.9 GiB of state, 41.0 GiB beside it for 8 clips and 79.8 for 16.
    weights = 2 * machine["parameters"]
    clip = (video["temporary_bytes"] - weights) / (1152 / 64)
    assert 8 * video["argument_bytes"] / 2**30 == pytest.approx(18.9, rel=0.03)
    assert (weights + 8 * clip) / 2**30 == pytest.approx(41.0, rel=0.03)
    assert (weights + 16 * clip) / 2**30 == pytest.approx(79.8, rel=0.03)


def test_a_public_model_is_planned_with_its_text_and_its_controls():
    """By hand: 1.638 B weights in bfloat16. Torch counts 12.85 TFLOP of 16 pictures, 17.68 of a clip, and 4.29 of a
    control without its hint, which mu_pi(0) and mu(0) share."""
    config = recipe("public", "--config.model=public")
    machine, sampler, _ = rows_of(config, parse_topology("gpu:h100:1"), programs=["sampler"])[:3]
    assert machine["parameters"] == 417_137_600 + 361_279_120  # that are trained
    assert sampler["argument_bytes"] == pytest.approx(2 * 1_637_937_684, rel=0.02)
    assert sampler["model_tflop"] == pytest.approx(50 * (12.85 + 2 * 17.68 + 2 * 4.29), rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--topology=gpu:h200:8", "--batch=video=12"], "--batch"),
        (["--topology=gpu:h200:8", "--mesh=fsdp=3"], "3"),
        (["--topology=gpu:h200:8", "--microbatches=clips=2"], "video=9"),
        (["--topology=gpu:h200:8", "--programs=audio"], "audio"),
    ],
)
def test_wrong_input_is_one_line(arguments, says, capsys):
    try:
        code = main(["plan", f"--config={CONFIGS / 'smoke'}.py", *arguments])
    except SystemExit as stopped:  # of argparse
        code = stopped.code
    assert code == 2
    said = capsys.readouterr().err
    assert says in said and len(said.splitlines()) == 1, said


def test_wrong_input_is_one_line_of_a_process():
    run = gen1_plan("--topology=v9:4x4")
    assert run.returncode == 2 and "v5e:16x16" in run.stderr and len(run.stderr.splitlines()) == 1, run.stderr


@pytest.mark.skipif(not HAS_LIBTPU, reason="needs libtpu")
def test_compiles_for_a_tpu_that_is_not_there():
    run = gen1_plan("--topology=v5e:2x2", "--mesh=fsdp=4", "--programs=video", "--json", LATENTS)
    assert run.returncode == 0, run.stderr
    machine, video, stages = map(json.loads, run.stdout.splitlines())
    assert machine["source"] == video["source"] == "compiled"
    assert video["fits"] and 0 < video["argument_bytes"] < video["peak_bytes"] < 2**30
    assert any("fsdp" in c["axes"] for c in video["collectives"]) and video["step_s"] > 0
    assert stages["stages"][0]["hours"] is None


def test_growth_on_chips_that_are_not_there(capsys):
    clip = dict(height=16, width=16)
    bench = ChipBench("tiny-dit", "h200", estimate_only=True)
    short, long = (bench(work="sample", frames=n, devices=1, **clip) for n in (4, 8))
    both = bench(work="train", frames=4, devices=2, **clip)
    assert short["memory"] == "estimated" and (short["windows"], long["windows"]) == (1, 3)
    assert long["tflop"] == pytest.approx(3 * short["tflop"])
    assert long["hbm_gb"] > 2.5 * short["hbm_gb"]  # of activations, which move for every window
    assert both["tflop"] > 0 and both["seconds"] > 0 and "windows" not in both
    assert main(["bench", "growth", "--chip", "v9"]) == 2 and "v9" in capsys.readouterr().err
    assert main(["bench", "growth", "--chip", "v5e", "--estimate", "--devices", "1", "2"]) == 2
    assert "v5e:2x1" in capsys.readouterr().err
