import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from tiny import TINY, save_tiny_model

from gen1_jax.cli import main
from gen1_jax.editing.pipeline import EditSettings, Gen1Pipeline
from gen1_jax.evaluation import benchmark
from gen1_jax.evaluation.bars import bars, best, by_motion, nearer, sweep
from gen1_jax.evaluation.benchmark import BenchmarkConfig, run_benchmark
from gen1_jax.evaluation.editor import Editor, Way
from gen1_jax.evaluation.methods import ANSWER, EDIT, methods
from gen1_jax.evaluation.report import write_report
from gen1_jax.evaluation.worlds import Worlds
from gen1_jax.models.module import Bound
from gen1_jax.pretrained.folder import ModelFolder, open_model

STEPS = EditSettings(num_inference_steps=2)


@pytest.fixture(scope="module")
def source():
    return open_model("tiny")


@pytest.fixture(scope="module")
def editor(source):
    """Of three worlds, by a model whose every weight is random: fresh temporal layers do nothing."""
    pipeline = Gen1Pipeline(source)
    leaves, tree = jax.tree.flatten(pipeline.unet.params)
    rng = np.random.default_rng(0)
    noisy = [leaf + rng.normal(0, 0.1, leaf.shape).astype(np.float32) for leaf in leaves]
    pipeline.__dict__["unet"] = Bound(pipeline.unet.module, jax.tree.unflatten(tree, noisy))
    return Editor(pipeline, Worlds(3, frames=4, height=16, width=16), batch_size=2)


def test_little_of_sdedit_leaves_the_input_and_all_of_it_nothing(editor):
    settings, indices = dataclasses.replace(STEPS, num_inference_steps=20, guidance_scale=1.0), np.arange(2)
    inputs = np.asarray(editor._latents[indices])
    far = lambda strength: np.abs(editor._sample(Way(settings=settings, strength=strength), indices) - inputs).mean()
    assert far(0.05) < 0.5 * far(0.5) < 0.5 * far(1.0)
    with pytest.raises(ValueError, match="strength must be above 0"):
        Way(settings=settings, strength=0.0)


def test_frame_by_frame_no_frame_knows_of_another(editor):
    way = Way(settings=STEPS, frame_by_frame=True)
    first, whole = editor.edit(way), editor.edit(Way(settings=STEPS))
    before, editor.depth = editor.depth, editor.depth.copy()
    editor.depth[:, 2] = before[:, 2, :, ::-1]
    changed = lambda way, edits: [bool((editor.edit(way)[:, t] != edits[:, t]).any()) for t in range(4)]
    try:
        assert changed(way, first) == [False, False, True, False]
        assert all(changed(Way(settings=STEPS), whole))
    finally:
        editor.depth = before


def test_edits_of_first_frames_and_without_structure(editor):
    assert editor.edit(Way(settings=STEPS, first_frame_only=True)).shape == (3, 1, 16, 16, 3)
    blind = Way(settings=STEPS, sees_structure=False)
    before, editor.depth = editor.depth, editor.depth[::-1].copy()
    other, editor.depth = editor.edit(blind), before
    assert (editor.edit(blind) == other).all()


def test_a_benchmark_goes_on_where_it_stopped(source, tmp_path, monkeypatch):
    rival = "first frame, true flow"
    config = BenchmarkConfig(clips=2, batch_size=2, settings=STEPS, only=("structure_blur=3", rival))
    results = run_benchmark(source, config, tmp_path)
    assert set(results["methods"]) == {"edit", "input", "answer", "structure_blur=3", rival}
    answer = results["methods"][ANSWER]["scores"]
    assert answer["psnr"]["mean"] == 100 and abs(answer["perceptual"]["mean"]) < 1e-5 and answer["ssim"]["mean"] == 1
    text = write_report(results, tmp_path).read_text()
    assert all((tmp_path / name).exists() for name in re.findall(r'src="([^"]+)"', text)) and "videos/01.mp4" in text
    moving = results["methods"][ANSWER]["scores"]["frame_consistency"]["clips"]
    assert f"By motion, against {rival}" in text and f"<tr><td>{min(moving):.4f}</td><td>1</td>" in text

    again = []
    monkeypatch.setattr(benchmark, "_measure", lambda scorer, method, folder: again.append(method.name))
    (tmp_path / "methods" / "structure_blur_3.json").rename(tmp_path / "aside.json")
    assert "structure_blur=3" not in run_benchmark(source, config, tmp_path)["methods"]
    assert again == ["structure_blur=3"]
    (tmp_path / "aside.json").rename(tmp_path / "methods" / "structure_blur_3.json")
    monkeypatch.setattr(benchmark, "_scorer", None)
    for only in (config.only, ("edit",)):  # the second keeps what the first has measured
        assert run_benchmark(source, dataclasses.replace(config, only=only), tmp_path) == results
    assert json.loads((tmp_path / "results.json").read_text()) == results
    with pytest.raises(ValueError, match="holds a benchmark with other config: choose another folder"):
        run_benchmark(source, dataclasses.replace(config, clips=3), tmp_path)


def test_wrong_input_is_one_line(tmp_path, capsys):
    without = save_tiny_model(tmp_path / "model", dataclasses.replace(TINY, prior=None))
    assert ModelFolder(without).config.prior is None
    (tmp_path / "file").write_text("")
    for arguments, message in (
        (["--only", "SDedit"], "no method is called 'SDedit': edit, input,"),
        (["--clips", "0"], "0 clips in batches of 16"),
        (["--steps", "0"], "num_inference_steps must be 1 to 1000"),
        (["--model", str(without), "--clips", "1"], "has no prior"),
        (["--out", str(tmp_path / "file")], str(tmp_path / "file")),
    ):
        assert main(["evaluate", "--model", "tiny", "--json", "--out", str(tmp_path / "out"), *arguments]) == 2
        said = capsys.readouterr().err
        assert message in said and len(said.splitlines()) == 1, said


def crafted(**scores):
    """Results of 64 clips where each method has one score everywhere: methods by name, value or list of values."""
    table = {}
    for method in methods(EditSettings()):
        names = ("psnr", "perceptual", "structure_error", "frame_consistency", "retrieved")
        values = {name: scores.get(method.name, {}).get(name, 0.5) for name in names}
        entry = {name: dict(clips=[v] * 64, mean=v, interval=[v, v]) for name, v in values.items()}
        table[method.name] = dict(group=method.group, value=method.value, scores=entry)
    parts = ("autoencoder_psnr", "depth_delta", "clip_image_to_text", "clip_text_to_image")
    components = {
        name: dict(clips=[], mean=v, interval=[v, v]) for name, v in zip(parts, (31.0, 0.95, 0.9, 0.8), strict=True)
    }
    settings = dataclasses.asdict(EditSettings())
    return dict(methods=table, components=components, config=dict(settings=settings))


def test_bars_tell_what_was_reached():
    results = crafted(
        **{f"temporal_guidance_scale={w}": {"frame_consistency": 0.5 + 0.1 * (w - 1)} for w in (0.5, 1.5)},
        **{f"structure_blur={t}": {"structure_error": 0.5 + 0.1 * t} for t in range(1, 8)},
        **{"SDEdit, frame by frame=0.6": {"perceptual": 0.4, "psnr": 0.4}},
    )
    verdict = {bar.figure: bar.reached for bar in bars(results)}
    assert list(sweep(results, "structure_blur")) == list(range(8)) and sweep(results, "structure_blur")[0] == EDIT
    assert best(results, "SDEdit, frame by frame", "perceptual") == "SDEdit, frame by frame=0.6"
    assert best(results, "SDEdit, frame by frame", "psnr") == "SDEdit, frame by frame=0.2"
    assert nearer(results, "SDEdit, frame by frame=0.6", "psnr").mean == 1
    assert verdict == {
        "frame consistency at ω_t 0.5 / 1 / 1.5": True,
        "structure error at t_s 0 ... 7": True,
        "structure error at t_s 0, relative to the answer's": True,
        "prompt retrieval of 64, edit": False,
        "prompt retrieval of 64, answer": False,
        "nearer to the answer than SDEdit, frame by frame=0.6, in CLIP's space": False,
        "nearer to the answer than SDEdit, frame by frame=0.2, by PSNR": False,
        "nearer to the answer than first frame, true flow, in CLIP's space": False,
        "nearer to the answer than first frame, true flow, by PSNR": False,
        "autoencoder": True,
        "depth: pixels within 25%": True,
        "CLIP: caption of a picture, of 64": True,
        "CLIP: picture of a caption, of 64": False,
    }
    results["methods"]["structure_blur=7"]["scores"]["structure_error"]["clips"] = [0.6] * 64
    assert not next(bar for bar in bars(results) if bar.figure.startswith("structure error at t_s 0 ...")).reached


def test_clips_by_motion():
    """Those that change most come first, and shares are of the clips that are meant alone."""
    results, rival = crafted(), "first frame, true flow"
    alike = np.random.default_rng(0).permutation(64) / 64
    results["methods"][ANSWER]["scores"]["frame_consistency"]["clips"] = alike.tolist()
    results["methods"][EDIT]["scores"]["psnr"]["clips"] = np.where(alike < 0.25, 0.6, 0.4).tolist()
    parts = by_motion(results, 4)
    assert [alike[part].max() for part in parts] == [15 / 64, 31 / 64, 47 / 64, 63 / 64]
    assert [nearer(results, rival, "psnr", part).mean for part in parts] == [1, 0, 0, 0]
    assert nearer(results, rival, "psnr").mean == 0.25
