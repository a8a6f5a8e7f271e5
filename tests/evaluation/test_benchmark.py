import dataclasses
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import TINY, save_tiny_model

import gen1_jax
from gen1_jax import synthetic
from gen1_jax.cli import main
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import EditSettings
from gen1_jax.errors import UserError
from gen1_jax.evaluation import benchmark, report
from gen1_jax.evaluation.bars import _over_kinds, bars, best, by_motion, nearer, sweep
from gen1_jax.evaluation.benchmark import BenchmarkConfig, run_benchmark
from gen1_jax.evaluation.contents import BOTH, PICTURE
from gen1_jax.evaluation.editor import Editor
from gen1_jax.evaluation.inputs import ANSWER_CARRIED, ANSWER_KNOWN, FIRST_KNOWN, FOLLOWED, KEYFRAMES
from gen1_jax.evaluation.judge import open_judge
from gen1_jax.evaluation.local import local_methods
from gen1_jax.evaluation.methods import ANSWER, EDIT, chosen, methods
from gen1_jax.evaluation.report import write_report
from gen1_jax.evaluation.scores import COMPONENT_MEASURES, KIND_MEASURES, MEASURES, Scorer
from gen1_jax.evaluation.told import Way
from gen1_jax.evaluation.verdict import lines, verdicts
from gen1_jax.evaluation.worlds import Worlds
from gen1_jax.measures import proportion
from gen1_jax.models.growing import with_inputs
from gen1_jax.models.module import Bound
from gen1_jax.models.structure import STRUCTURE_KINDS
from gen1_jax.pretrained.family import NANO
from gen1_jax.pretrained.folder import ModelFolder, open_model
from gen1_jax.pretrained.growing import grown

STEPS = EditSettings(num_inference_steps=2)


@pytest.fixture(scope="module")
def source(tiny_model):
    return open_model(tiny_model)


@pytest.fixture(scope="module")
def editor(source):
    """Of three worlds, by a model of several inputs whose every weight is random: fresh temporal layers do nothing."""
    pipeline = Gen1Pipeline(grown(source, with_inputs(source.config.unet, ("depth", "tile", "known"))))
    leaves, tree = jax.tree.flatten(pipeline.unet.params)
    rng = np.random.default_rng(0)
    noisy = [leaf + rng.normal(0, 0.1, leaf.shape).astype(np.float32) for leaf in leaves]
    pipeline.networks.kept["unet"] = Bound(pipeline.unet.module, jax.tree.unflatten(tree, noisy))
    return Editor(pipeline, Worlds(3, frames=4, height=16, width=16, maps=synthetic.EXACT), batch_size=2)


def test_noise_that_a_sampler_draws_is_of_the_clip_whatever_the_batch(editor):
    way = Way(settings=dataclasses.replace(STEPS, sampler="lcm", guidance_scale=1.0))
    first, second = (editor.sample(way, np.array(indices)) for indices in ([0, 1], [1, 2]))
    np.testing.assert_allclose(first[1], second[0], atol=1e-5 * float(np.abs(first).max()))
    other = dataclasses.replace(way, settings=dataclasses.replace(way.settings, seed=1))
    assert np.abs(editor.sample(other, np.array([0, 1])) - first).max() > 0.1


def test_little_of_sdedit_leaves_the_input_and_all_of_it_nothing(editor):
    settings, indices = dataclasses.replace(STEPS, num_inference_steps=20, guidance_scale=1.0), np.arange(2)
    inputs = np.asarray(editor.latents[indices])
    far = lambda strength: np.abs(editor.sample(Way(settings=settings, strength=strength), indices) - inputs).mean()
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


def test_edits_go_on_from_given_frames_and_keyframes(editor):
    plain, way = editor.edit(Way(settings=STEPS)), Way(settings=dataclasses.replace(STEPS, keyframe_stride=3))
    first = editor.worlds.clips.answer[:, :1]
    known, stepwise = editor.edit(Way(settings=STEPS), first=first), editor.edit(way)
    kept = editor.through_autoencoder(first)
    assert np.abs(known[:, :1].astype(int) - kept).max() <= 1 and (known != plain)[:, 1:].any((0, 2, 3, 4)).all()
    assert stepwise.shape == plain.shape and (stepwise != plain)[:, 1:3].any()
    followed = editor.edit(Way(settings=dataclasses.replace(STEPS, structure="tile")))
    assert (followed != plain).any()


def test_models_of_several_inputs_have_methods_of_their_own(editor):
    settings = EditSettings().of(editor.pipeline.config)
    more = methods(settings, editor.pipeline.config)[len(methods(settings)) :]
    groups = dict.fromkeys(method.group for method in more)
    assert list(groups) == [FIRST_KNOWN, ANSWER_KNOWN, ANSWER_CARRIED, KEYFRAMES, FOLLOWED, PICTURE, BOTH]
    assert {m.value for m in more if m.group == FOLLOWED} == {"tile", "depth+tile"}
    words_and_pictures = [method.name for method in methods(settings, TINY)[len(methods(settings)) :]]
    assert words_and_pictures == ["picture", "prompt and picture=predictions", "prompt and picture=embeddings"]
    sees_source = dataclasses.replace(TINY, unet=with_inputs(TINY.unet, ("depth", "source")))
    assert [m.name for m in local_methods(settings, sees_source)][-3:] == [
        "source guidance scale=2.0",
        "masked edit with the clip in sight",
        "masked edit by its described change with the clip in sight",
    ]
    assert len(local_methods(settings, TINY)) == len(local_methods(settings, sees_source)) - 5


def test_several_contents_are_told_and_their_evaluations_counted(editor):
    way = Way(settings=dataclasses.replace(STEPS, guidance_scale=2.0, guidance_interval=(0.0, 1.0)))
    before, edits = editor.content, {}
    for blend, evaluations in (("predictions", 6), ("embeddings", 4)):  # two steps of the null content and others
        told = dataclasses.replace(way, settings=dataclasses.replace(way.settings, blend=blend))
        editor.evaluations = 0.0
        with editor.telling(before, -before):
            edits[blend] = editor.edit(told)
        assert editor.evaluations == evaluations and editor.content is before and not editor.beside
    with editor.telling(before, before):
        same = editor.edit(way).astype(int)
        alike = editor.edit(dataclasses.replace(way, frame_by_frame=True)).astype(int)
    np.testing.assert_allclose(same, editor.edit(way), atol=1)
    np.testing.assert_allclose(alike, editor.edit(dataclasses.replace(way, frame_by_frame=True)), atol=1)
    assert (edits["predictions"] != edits["embeddings"]).any()


def test_edits_of_first_frames_and_without_structure(editor):
    assert editor.edit(Way(settings=STEPS, first_frame_only=True)).shape == (3, 1, 16, 16, 3)
    blind = Way(settings=STEPS, sees_structure=False)
    before, editor.depth = editor.depth, editor.depth[::-1].copy()
    other, editor.depth = editor.edit(blind), before
    assert (editor.edit(blind) == other).all()


def test_a_benchmark_goes_on_where_it_stopped(source, tmp_path, monkeypatch):
    rival = "first frame true flow"
    config = BenchmarkConfig(clips=2, batch_size=2, settings=STEPS, only=("structure_blur=3", rival))
    results = run_benchmark(source, config, tmp_path)
    assert set(results["methods"]) == {"edit", "input", "answer", "structure_blur=3", rival}
    answer = results["methods"][ANSWER]["scores"]
    assert answer["psnr"]["mean"] == 100 and abs(answer["perceptual"]["mean"]) < 1e-5 and answer["ssim"]["mean"] == 1
    # two steps of two branches: of every frame, of the first of four, of none
    assert [results["methods"][name]["evaluations"] for name in (EDIT, rival, ANSWER)] == [4, 1, 0]
    text = write_report(results, tmp_path, verdicts(results)).read_text()
    assert all((tmp_path / name).exists() for name in re.findall(r'src="([^"]+)"', text)) and "videos/01.mp4" in text
    cell = "<td>[^/]*</small><br><small>[^/]*</small></td>"
    assert re.search(rf"<td>{rival}</td>({cell}){{3}}<td></td>", text)  # nobody has true motion
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

    for clips in (tmp_path / "methods").glob("*.npz"):  # numbers alone, as they come from another machine
        clips.unlink()
    text = write_report(results, tmp_path, verdicts(results)).read_text()
    assert f"<td>{rival}</td>" in text and "<video" not in text


def test_another_judge_scores_edits_and_not_the_networks(editor, tmp_path):
    judge = open_judge(save_tiny_model(tmp_path / "judge", seed=1))
    own, other, clips = Scorer(editor), Scorer(editor, judge=judge), editor.worlds.clips.source
    judged = {"perceptual", "frame_consistency", "prompt_consistency"}
    ours, theirs = own.score(clips), other.score(clips)
    for name in set(ours) - {"retrieved"}:
        assert np.array_equal(ours[name], theirs[name]) == (name not in judged), name
    np.testing.assert_equal(own.components(), other.components())


def test_wrong_input_is_one_line(tmp_path, capsys):
    without = save_tiny_model(tmp_path / "model", dataclasses.replace(TINY, prior=None))
    assert ModelFolder(without).config.prior is None
    (tmp_path / "file").write_text("")
    for arguments, message in (
        (["--only", "SDedit"], "no method is called 'SDedit'; near to it are 'SDEdit frame by frame=*', 'SDEdit"),
        (["--only", "structure-blurr=3"], "'structure_blur=*'"),
        (["--clips", "0"], "--clips must be at least 1, got 0"),
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--steps", "0"], "--steps must be 1 to 1000, got 0"),
        (["--model", str(without), "--clips", "1"], "has no prior"),
        (["--out", str(tmp_path / "file")], str(tmp_path / "file")),
    ):
        assert main(["evaluate", "--model", "tiny", "--json", "--out", str(tmp_path / "out"), *arguments]) == 2
        said = capsys.readouterr().err
        assert message in said and len(said.splitlines()) == 1, said


def crafted(config=None, **scores):
    """Results of 64 clips where each method has one score everywhere: methods by name, value or list of values."""
    table = {}
    usual = EditSettings(guidance_scale=2.0, num_inference_steps=20)
    for method in methods(usual, config):
        names = ("psnr", "perceptual", "structure_error", "frame_consistency", "retrieved")
        values = {name: scores.get(method.name, {}).get(name, 0.5) for name in names}
        entry = {name: dict(clips=[v] * 64, mean=v, interval=[v, v]) for name, v in values.items()}
        table[method.name] = dict(group=method.group, value=method.value, scores=entry)
    parts = ("autoencoder_psnr", "depth_delta", "clip_image_to_text", "clip_text_to_image")
    components = {
        name: dict(clips=[], mean=v, interval=[v, v]) for name, v in zip(parts, (31.0, 0.95, 0.9, 0.8), strict=True)
    }
    settings = dataclasses.asdict(usual)
    return dict(methods=table, components=components, config=dict(settings=settings), size=[8, 128, 128])


def test_bars_tell_what_was_reached():
    results = crafted(
        **{f"temporal_guidance_scale={w}": {"frame_consistency": 0.5 + 0.1 * (w - 1)} for w in (0.5, 1.5)},
        **{f"structure_blur={t}": {"structure_error": 0.5 + 0.1 * t} for t in range(1, 8)},
        **{"SDEdit frame by frame=0.6": {"perceptual": 0.4, "psnr": 0.4}},
    )
    verdict = {bar.figure: bar.reached for bar in bars(results)}
    assert list(sweep(results, "structure_blur")) == list(range(8)) and sweep(results, "structure_blur")[0] == EDIT
    assert best(results, "SDEdit frame by frame", "perceptual") == "SDEdit frame by frame=0.6"
    assert best(results, "SDEdit frame by frame", "psnr") == "SDEdit frame by frame=0.2"
    assert nearer(results, "SDEdit frame by frame=0.6", "psnr").mean == 1
    assert verdict == {
        "frame consistency at ω_t 0.5 / 1 / 1.5": True,
        "structure error at t_s 0 ... 7": True,
        "structure error at t_s 0, relative to the answer's": True,
        "prompt retrieval of 64, edit": False,
        "prompt retrieval of 64, answer": False,
        "nearer to the answer than SDEdit frame by frame=0.6, in CLIP's space": False,
        "nearer to the answer than SDEdit frame by frame=0.2, by PSNR": False,
        "nearer to the answer than first frame true flow, in CLIP's space": False,
        "nearer to the answer than first frame true flow, by PSNR": False,
        "autoencoder": True,
        "depth: pixels within 25%": True,
        "CLIP: caption of a picture, of 64": True,
        "CLIP: picture of a caption, of 64": False,
    }
    results["methods"]["structure_blur=7"]["scores"]["structure_error"]["clips"] = [0.6] * 64
    assert not next(bar for bar in bars(results) if bar.figure.startswith("structure error at t_s 0 ...")).reached


def test_bars_of_given_frames_and_keyframes():
    several = dataclasses.replace(NANO, unet=with_inputs(NANO.unet, ("depth", "tile", "known")))
    farther = {"keyframe stride=7": {"perceptual": 0.6}, FIRST_KNOWN: {"psnr": 0.6, "perceptual": 0.6}}
    verdict = {bar.figure: bar for bar in bars(crafted(several, **farther))}
    assert verdict[f"{FIRST_KNOWN}, nearer than first frame true flow, by PSNR"].reached
    assert not verdict[f"{FIRST_KNOWN}, nearer than first frame true flow, in CLIP's space"].reached
    assert not verdict[f"{ANSWER_KNOWN}, nearer than {ANSWER_CARRIED}, by PSNR"].reached
    saved = verdict["evaluations saved by keyframes at equal CLIP distance"]
    assert (saved.measured, saved.reached) == ("2.00", False)  # by a stride of 4: 3 frames of 40, 10 of 4
    nearer = crafted(several, **{"keyframe stride=7": {"perceptual": 0.4}})
    assert {bar.figure: bar.measured for bar in bars(nearer)}[saved.figure] == "2.86"


def test_verdicts_on_rivals():
    """Of 64 clips 48 are nearer by PSNR than the nearest of a group, which is another in CLIP's space; ties are not."""
    rivals = {"SDEdit frame by frame=0.6": {"perceptual": 0.4, "structure_error": 0.7}}
    rivals |= {f"SDEdit frame by frame={s}": {"structure_error": 0.1} for s in (0.2, 0.4)}
    results = crafted(**rivals)
    results["methods"][EDIT]["scores"]["psnr"]["clips"] = [0.75] * 48 + [0.25] * 14 + [0.5, None]
    found = {verdict.rival: verdict for verdict in verdicts(results)}
    assert not {EDIT, ANSWER, "autoencoded answer", "structure_blur"} & found.keys()
    sdedit = found["SDEdit frame by frame"]
    assert sdedit.methods["structure_error"] == sdedit.methods["perceptual"] == "SDEdit frame by frame=0.6"
    assert sdedit.shares["psnr"] == proportion(48, 63) and sdedit.shares["perceptual"].mean == 0
    assert sdedit.shares["structure_error"].mean == 1 and abs(sdedit.leads["structure_error"].mean - 0.2) < 1e-9
    assert abs(sdedit.leads["psnr"].mean - (48 - 14) / 4 / 63) < 1e-9
    assert found["TokenFlow"].preferred == "" and sdedit.preferred == "about 3 in 4"
    assert found["layered atlas"].preferred == "88.2% [73.4%, 95.3%]"
    assert found["first frame estimated flow"].preferred == "79.4% [63.2%, 89.7%] to 91.2% [77.0%, 97.0%]"
    head, *rows = lines([sdedit])
    assert head.startswith("nearer to the answer than") and "76.2% [64.4%, 85.0%]" in rows[0]
    assert json.dumps(sdedit.to_dict())


def test_clips_by_motion():
    """Those that change most come first, and shares are of the clips that are meant alone."""
    results, rival = crafted(), "first frame true flow"
    alike = np.random.default_rng(0).permutation(64) / 64
    results["methods"][ANSWER]["scores"]["frame_consistency"]["clips"] = alike.tolist()
    results["methods"][EDIT]["scores"]["psnr"]["clips"] = np.where(alike < 0.25, 0.6, 0.4).tolist()
    parts = by_motion(results, 4)
    assert [alike[part].max() for part in parts] == [15 / 64, 31 / 64, 47 / 64, 63 / 64]
    assert [nearer(results, rival, "psnr", part).mean for part in parts] == [1, 0, 0, 0]
    assert nearer(results, rival, "psnr").mean == 0.25


def test_methods_are_named_by_words_that_can_be_listed():
    known = methods(EditSettings())
    names = [method.name for method in known]
    assert len(set(names)) == len(names) and not any("," in name or name.strip() != name for name in names)
    assert all(method.what and "\n" not in method.what for method in known)
    fit = lambda *patterns: {method.name for method in chosen(known, patterns)} - {"edit", "input", "answer"}
    assert fit("structure_blur=*") == fit("structure_blur") == {f"structure_blur={t}" for t in range(1, 8)}
    assert fit("SDEdit*") == {name for name in names if name.startswith("SDEdit")} and len(fit("sdedit*")) == 18
    assert fit("SDEdit, frame by frame=*") == fit("SDEdit_frame_by_frame=*") == fit("SDEdit frame by frame")
    assert fit("depth_frame_by_frame", "sampler=dpm++") == {"depth frame by frame", "sampler=dpm++"}
    assert fit("temporal guidance scale=2", "SDEdit frame by frame=1") == {
        "temporal_guidance_scale=2.0",
        "SDEdit frame by frame=1.0",
    }
    assert len(chosen(known, ())) == len(known)


def test_of_a_distilled_model_only_what_it_takes_is_varied():
    unet = dataclasses.replace(TINY.unet, guidance_embedded=True)
    config = dataclasses.replace(TINY, unet=unet, distilled_scales=((1.0, 4.0), (0.5, 1.5)))
    names = lambda config: {m.name for m in methods(EditSettings(guidance_scale=2.0), config)}
    assert names(TINY) - names(config) == {
        *(f"guidance_scale={w}" for w in (7.5, 12.0)),
        *(f"temporal_guidance_scale={w_t}" for w_t in (0.0, 2.0)),
    }


def test_files_of_before_are_found_by_the_names_of_today():
    """Groups had commas in their names; what was measured then is neither measured again nor lost."""
    files = {benchmark.file_name(method.name) for method in methods(EditSettings())}
    before = ("depth, frame by frame", "first frame, true flow", "first frame, estimated flow", "autoencoded answer")
    before += ("SDEdit, frame by frame, with depth=0.6", "SDEdit, whole clip=1.0", "structure_blur=3", "sampler=dpm++")
    assert {benchmark.file_name(name) for name in before} <= files
    assert "SDEdit_frame_by_frame_with_depth_0.6" in files


def test_damaged_files_of_a_benchmark_are_refused_in_one_line(source, tmp_path):
    worlds, known = Worlds(1, frames=4, height=16, width=16), methods(EditSettings())
    (tmp_path / "methods").mkdir()
    for name, text in (("edit", "{"), ("edit", '{"seconds": 1, "scores": {"psnr": []}}'), ("components", "[]")):
        path = tmp_path / "methods" / f"{name}.json"
        path.write_text(text)
        with pytest.raises(
            UserError, match=f"{name}.json is not of a benchmark that can go on: .*delete it"
        ) as refused:
            benchmark.summarise(tmp_path, worlds, {}, known)
        assert "\n" not in str(refused.value)
        path.unlink()


def test_a_benchmark_goes_on_that_began_before_a_setting_was_new(tmp_path):
    path = tmp_path / "benchmark.json"
    config = {"clips": 2, "settings": dataclasses.asdict(EditSettings()), "judge": None}
    ours = {"weights": {}, "size": [1], "config": config}
    old = json.loads(json.dumps(ours))
    del old["config"]["settings"]["sampler"], old["config"]["judge"]
    path.write_text(json.dumps(old))
    assert benchmark._claim(path, ours)["config"] == ours["config"]


@pytest.mark.parametrize(
    ("count", "most", "sizes"), [(2, 16, [2]), (20, 16, [10, 10]), (17, 16, [9, 9]), (5, 2, [2] * 3)]
)
def test_no_more_clips_are_edited_than_there_are(count, most, sizes):
    editor = object.__new__(Editor)
    editor.worlds, editor.batch_size = range(count), most
    batches = list(editor.batches())
    assert [len(batch) for batch in batches] == sizes
    assert sorted(set(np.concatenate(batches))) == list(range(count)) and sum(sizes) < count + len(sizes)


def test_the_report_says_of_each_measure_what_it_is_and_which_way_is_better(editor):
    scorer, measures = Scorer(editor, tuple(STRUCTURE_KINDS)), MEASURES | KIND_MEASURES
    scores = scorer.score(editor.worlds.clips.answer)
    assert scores.keys() == measures.keys() and scorer.components().keys() == COMPONENT_MEASURES.keys()
    assert all(len(scores[name]) == 3 and np.isfinite(scores[name]).all() for name in KIND_MEASURES)
    assert scorer._kinds["edges"].shape == (3, 4, 16, 16, 1) and scores["segmentation_error"].max() < 0.7
    results = {
        "methods": {"edit": {"what": "the <paper's> method", "scores": scores}},
        "measures": measures | COMPONENT_MEASURES,
    }
    text = "".join(report._definitions(results))
    for name, measure in (measures | COMPONENT_MEASURES).items():
        arrow = {"higher": "↑", "lower": "↓"}[measure.better]
        assert f"<td>{name.replace('_', ' ')} {arrow}</td><td>{measure.better}</td><td>{measure.values}</td>" in text
    assert "the &lt;paper&#x27;s&gt; method" in text


def test_an_edit_is_told_of_each_kind_that_it_names(editor, monkeypatch):
    config = editor.pipeline.config
    told = dataclasses.replace(
        config, unet=dataclasses.replace(config.unet, structure_kinds=("depth", "edges", "pose"))
    )
    monkeypatch.setattr(editor.pipeline, "config", told)
    settings = dataclasses.replace(STEPS, structure="depth,edges=0.5,pose", structure_blur=3)
    indices = np.arange(2)
    signals = editor._structure(Way(settings=settings), indices)
    assert {kind: (signal.level.tolist(), signal.weight.tolist()) for kind, signal in signals.items()} == {
        "depth": ([3, 3], [1, 1]),
        "edges": ([0, 0], [0.5, 0.5]),  # t_s takes nothing from lines
        "pose": ([0, 0], [1, 1]),
    }
    assert editor._maps("pose").shape == (3, 4, 16, 16, 3)  # exact ones, for nothing estimates them
    clip = editor.worlds.clips.source[1]
    np.testing.assert_array_equal(editor._maps("edges")[1], told.structure_kind("edges").estimate(clip, {}))
    blind = editor._structure(Way(settings=settings, sees_structure=False), indices)
    assert not any(np.asarray(signal.maps).any() or signal.level.any() for signal in blind.values())


def test_the_error_of_a_kind_is_held_against_the_answers():
    scores = lambda value: {"scores": {"flow_error": {"clips": [value, value]}}}
    told = {"config": {"settings": {"structure": "flow"}}}
    results = told | {"methods": {"edit": scores(0.6), "answer": scores(0.5)}}
    (bar,) = _over_kinds(results)
    assert bar.figure == "flow error, relative to the answer's" and bar.measured == "1.20 (0.6 of 0.5)" and bar.reached
    assert not list(_over_kinds(told | {"methods": {"edit": {"scores": {}}, "answer": {"scores": {}}}}))
    results["config"]["settings"]["structure"] = "depth"  # which the edit follows, and no flow
    assert not list(_over_kinds(results))


def test_list_names_the_methods_without_measuring(capsys):
    assert main(["evaluate", "--model", "tiny", "--list", "--only", "SDEdit whole clip"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[:4]] == ["edit", "input", "answer", "SDEdit whole clip=0.2"]
    assert "20% of the steps" in lines[3]
    assert main(["evaluate", "--model", "tiny", "--list", "--json"]) == 0
    config = open_model("tiny").config
    assert json.loads(capsys.readouterr().out).keys() == {m.name for m in methods(EditSettings().of(config), config)}


def test_the_card_calls_methods_by_their_names():
    card = (Path(gen1_jax.__file__).parent / "pretrained" / "nano" / "README.md").read_text()
    for table in card.split("| method |")[1:]:
        named = [row.split("|")[1].strip() for row in table.split("\n\n")[0].splitlines()[2:]]
        assert len(named) > 20 and set(named) <= {m.name for m in methods(EditSettings().of(NANO))}
