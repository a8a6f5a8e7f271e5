"""`gen1 evaluate`: edits of held-out worlds scored against the render of the right answer.

worlds ──► methods (edits, baselines, sweeps) ──► scores, a file a method ──► bars, results.json ──► report.html

A method that was scored is not run again, so that a benchmark goes on where it stopped.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gen1_jax.data.precompute import fingerprint
from gen1_jax.data.world import traced
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import EditSettings
from gen1_jax.errors import UserError
from gen1_jax.evaluation.bars import bars
from gen1_jax.evaluation.editor import Editor
from gen1_jax.evaluation.judge import Judge, open_judge
from gen1_jax.evaluation.local import LOCAL_MEASURES, LocalScorer, local_methods
from gen1_jax.evaluation.local_worlds import local_scene
from gen1_jax.evaluation.methods import Method, chosen, methods
from gen1_jax.evaluation.scores import (
    COMPONENT_MEASURES,
    KIND_MEASURES,
    MEASURES,
    PRIOR_MEASURES,
    Measure,
    Scorer,
    Scores,
)
from gen1_jax.evaluation.stored import file_name, json_number, read_json, unreadable, with_mean, write_json
from gen1_jax.evaluation.swap import PROBE_MEASURES, SwapEditor, SwapScorer, SwapWorlds, swap_methods
from gen1_jax.evaluation.worlds import FRAME_RATE, Scene, Worlds, scene
from gen1_jax.files import replacing
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.folder import ModelSource
from gen1_jax.versions import versions

SHOWN = 8
"""Clips whose pictures are kept for the report."""

RESULTS = "results.json"
_METHODS, _IDENTITY, _COMPONENTS = "methods", "benchmark.json", "components"


class Suite(NamedTuple):
    """What a benchmark is of.

    Attributes:
        methods: that are compared, of an edit's settings and a model's configuration.
        scene: makes an edit, see `Worlds`.
        scorer: scores them by the measures.
        measures: by name.
        components: measures of the networks by themselves, by name.
        worlds: that are edited.
        editor: of them.
        of_kinds: whether each kind of structure that a model takes has an error of its own: they cost more than edits.
    """

    methods: Callable[[EditSettings, Gen1Config], list[Method]]
    scene: Callable[[str, int, int], Scene]
    scorer: type[Scorer]
    measures: Mapping[str, Measure]
    components: Mapping[str, Measure] = COMPONENT_MEASURES
    worlds: type[Worlds] = Worlds
    editor: type[Editor] = Editor
    of_kinds: bool = False


SUITES = {
    "worlds": Suite(methods, scene, Scorer, MEASURES, of_kinds=True),
    "local": Suite(local_methods, local_scene, LocalScorer, MEASURES | LOCAL_MEASURES),
    "swap": Suite(
        swap_methods, scene, SwapScorer, MEASURES, COMPONENT_MEASURES | PROBE_MEASURES, SwapWorlds, SwapEditor
    ),
}

BenchmarkProgress = Callable[[str, int, int], None]
"""Called with what is done, and how far: done, total."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What is measured.

    Attributes:
        benchmark: "worlds", "local" for edits of one object (`evaluation.local`), or "swap" for the content of another
            clip (`evaluation.swap`).
        clips: held-out edits.
        seed: of the worlds and of the prior's noise; that of the edits is in `settings`.
        batch_size: clips edited at once at most. Beyond rounding, only what the prior draws depends on it.
        settings: of the edit that everything else is compared with.
        only: patterns of method names, see `methods.chosen`.
        judge: the CLIP that edits are scored by, see `judge.open_judge`; None for the model's own.
    """

    benchmark: str = "worlds"
    clips: int = 256
    seed: int = 0
    batch_size: int = 16
    settings: EditSettings = EditSettings()
    only: tuple[str, ...] = ()
    judge: str | None = None

    def __post_init__(self):
        for name, least in (("clips", 1), ("batch_size", 1), ("seed", 0)):
            if getattr(self, name) < least:
                option = f"--{name.replace('_', '-')}"
                raise UserError(f"{option} must be at least {least}, got {getattr(self, name)}")


def run_benchmark(
    source: ModelSource, config: BenchmarkConfig, out: Path, progress: BenchmarkProgress | None = None
) -> dict[str, Any]:
    """Measures, and writes results.json; what `out` holds already of the same benchmark is kept.

    Returns:
        What results.json holds.

    Raises:
        ValueError: `out` holds results of another model or configuration, or the model takes no prompt, or has no CLIP
            or no depth network to measure with.
    """
    report = progress or (lambda *_: None)
    config = dataclasses.replace(config, settings=config.settings.of(source.config))
    suite = SUITES[config.benchmark]
    _check_told(source, config, suite)
    known = suite.methods(config.settings, source.config)
    wanted = chosen(known, config.only)
    folder = out / _METHODS
    folder.mkdir(parents=True, exist_ok=True)
    judge = None if config.judge is None else open_judge(config.judge)
    identity = _claim(out / _IDENTITY, _identity(source, config, judge))

    size = dict(frames=source.config.num_frames, height=source.config.height, width=source.config.width)
    maps, size["make"] = traced(_kinds(source, config)), suite.scene
    rendering = lambda *done: report("rendering", *done)
    worlds = suite.worlds(config.clips, **size, seed=config.seed, maps=maps, progress=rendering)
    scorer = _Lazily(lambda: _scorer(source, worlds, config, suite, judge))
    components = folder / f"{_COMPONENTS}.json"
    if not components.exists():
        write_json(components, _plain(scorer().components()))
    for number, method in enumerate(wanted):
        report(method.name, number, len(wanted))
        if not _file(folder, method).exists():
            _measure(scorer(), method, folder)
    report("done", len(wanted), len(wanted))
    return summarise(out, worlds, identity, known, suite.measures, suite.components)


def _check_told(source: ModelSource, config: BenchmarkConfig, suite: Suite) -> None:
    """The model can be told what edits of a benchmark are to look like."""
    kind, shows = source.config.unet.content, suite.editor is SwapEditor
    if shows and not kind.is_shown:
        raise UserError(f"--benchmark {config.benchmark} shows clips, and {source.name} reads text")
    if kind.of_prompts is None and not shows:
        raise UserError(f"--benchmark {config.benchmark} gives prompts, and {source.name} reads none: take swap")


def summarise(
    out: Path,
    worlds: Worlds,
    identity: dict[str, Any],
    known: Iterable[Method],
    measures: Mapping[str, Measure] = MEASURES,
    networks: Mapping[str, Measure] = COMPONENT_MEASURES,
) -> dict[str, Any]:
    """Puts the files of all methods that were measured together, and results.json in its place."""
    folder = out / _METHODS
    table = {}
    for method in known:
        if not _file(folder, method).exists():
            continue
        entry = read_json(_file(folder, method), "seconds", "scores")
        if missing := [measure for measure in measures if measure not in entry["scores"]]:
            raise unreadable(_file(folder, method), f"it has no {missing[0]}")
        table[method.name] = dict(group=method.group, value=method.value, what=method.what) | entry
    components = read_json(folder / f"{_COMPONENTS}.json", *(networks.keys() - PRIOR_MEASURES.keys()))
    results = {
        **identity,
        "measures": {name: measure._asdict() for name, measure in _told(table, measures, networks).items()},
        "labels": [_labels(told, prompt) for told, prompt in zip(worlds.descriptions, worlds.prompts, strict=True)],
        "components": {name: with_mean(values) for name, values in components.items()},
        "methods": {
            name: entry | {"scores": {key: with_mean(values) for key, values in entry["scores"].items()}}
            for name, entry in table.items()
        },
    }
    results["bars"] = [bar._asdict() for bar in bars(results)]
    write_json(out / RESULTS, results)
    return results


def _told(
    table: dict[str, Any], measures: Mapping[str, Measure], networks: Mapping[str, Measure]
) -> dict[str, Measure]:
    """What is measured: of kinds of structure, those that were."""
    scored = {name for entry in table.values() for name in entry["scores"]}
    kinds = {name: measure for name, measure in KIND_MEASURES.items() if name in scored}
    return {**measures, **kinds, **networks}


def shown_clips(out: Path, method: str) -> np.ndarray | None:
    """The first clips of a method, uint8 (n, T, H, W, 3), for the report; None if it was not measured."""
    path = out / _METHODS / f"{file_name(method)}.npz"
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["clips"]


def _scorer(source: ModelSource, worlds: Worlds, config: BenchmarkConfig, suite: Suite, judge: Judge | None) -> Scorer:
    pipeline = Gen1Pipeline(source)
    editor = suite.editor(pipeline, worlds, batch_size=config.batch_size, seed=config.seed)
    return suite.scorer(editor, _kinds(source, config), judge)


def _kinds(source: ModelSource, config: BenchmarkConfig) -> tuple[str, ...]:
    """The structures whose error is measured: those that the edit follows; of a model that takes any subset, all."""
    unet = source.config.unet
    if not SUITES[config.benchmark].of_kinds:
        return ()
    return unet.structures if unet.structure_optional else tuple(use.kind for use in config.settings.structures)


def _measure(scorer: Scorer, method: Method, folder: Path) -> None:
    began, before = time.perf_counter(), scorer.editor.evaluations
    clips = method.make(scorer.editor)
    cost = {"seconds": time.perf_counter() - began, "evaluations": scorer.editor.evaluations - before}
    target = folder / f"{file_name(method.name)}.npz"
    with replacing(target) as partial:
        np.savez_compressed(partial, clips=clips[:SHOWN])
    write_json(_file(folder, method), cost | {"scores": _plain(scorer.score(clips))})


class _Lazily:
    """A value made when it is first asked for: a finished benchmark loads no model."""

    def __init__(self, make: Callable[[], Scorer]):
        self._make, self._value = make, None

    def __call__(self) -> Scorer:
        if self._value is None:
            self._value = self._make()
        return self._value


def _identity(source: ModelSource, config: BenchmarkConfig, judge: Judge | None) -> dict[str, Any]:
    """What results depend on, and what they were made with."""
    measured = {name: value for name, value in dataclasses.asdict(config).items() if name != "only"}
    measured |= {name: getattr(source.config, name) for name in ("prior_guidance_scale", "prior_num_inference_steps")}
    measured["judge"] = None if judge is None else judge.fingerprint
    return {
        "model": source.name,
        "trained": source.warning is None,
        "judge": config.judge,
        "bits_per_frame": None if source.config.split is None else source.config.split.bits_per_frame,
        "guidance_embedded": source.config.unet.guidance_embedded,
        "weights": {component: fingerprint(source, component) for component in source.config.components},
        "config": measured,
        "size": [source.config.num_frames, source.config.height, source.config.width],
        "frame_rate": FRAME_RATE,
        "device": jax.devices()[0].device_kind,
        "versions": versions(("gen1-jax", "jax", "flax")),
    }


def _claim(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """The identity of the benchmark in this folder: the one that began it, wherever it goes on."""
    ours = json.loads(json.dumps(identity))
    if not path.exists():
        write_json(path, ours)
        return ours
    before = read_json(path, "config")
    older = dataclasses.asdict(EditSettings()) | {"guidance_interval": [0.0, 1.0]}  # some settings are newer than it
    before["config"] |= {"settings": older | before["config"].get("settings", {})}
    before["config"].setdefault("judge", None)  # as others, of before there were any
    for name in ("weights", "config", "size"):
        if before.get(name) != ours[name]:
            raise UserError(f"{path.parent} holds a benchmark with other {name}: choose another folder")
    return before


def _labels(told, prompt: str) -> dict[str, Any]:
    materials = sorted({material for _, material in told.objects})
    return dict(prompt=prompt, style=told.style, environment=told.environment, light=told.light, materials=materials)


def _plain(scores: Scores) -> dict[str, list[float | None]]:
    return {name: [json_number(value) for value in np.asarray(values).tolist()] for name, values in scores.items()}


def _file(folder: Path, method: Method) -> Path:
    return folder / f"{file_name(method.name)}.json"
