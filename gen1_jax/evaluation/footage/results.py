"""`gen1 evaluate --videos`: every edit scored, a file each, then put together; what is scored already is not again.

scores/EDITOR/CLIP.json ──► results.json, results.csv (a line an edit) ──► report.html
"""

import csv
import dataclasses
import io
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gen1_jax.checkpoints.trained import open_trained
from gen1_jax.data.precompute import fingerprint
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.errors import Failure, UserError, in_one_line
from gen1_jax.evaluation.footage.listing import SOURCE, Row, find_rows, read_wanted
from gen1_jax.evaluation.footage.pairs import PairOptions, read_pair
from gen1_jax.evaluation.footage.scores import FVD_FRAMES, MEASURES, OF_LPIPS, OUTSIDE, FootageScorer
from gen1_jax.evaluation.judge import NANO_JUDGE, open_judge
from gen1_jax.evaluation.scores import Measure
from gen1_jax.evaluation.stored import interval_of, json_number, own_file_name, read_json, with_mean, write_json
from gen1_jax.files import write_text
from gen1_jax.measures import frechet_distance
from gen1_jax.pretrained.measuring import read_measuring
from gen1_jax.versions import versions

RESULTS, TABLE = "results.json", "results.csv"
_IDENTITY, _SCORES = "evaluation.json", "scores"

CAVEATS = (
    "frame consistency and warping error are never read alone: both get better as pictures blur or stand still; "
    "sharpness, motion fidelity and the line of the sources tell such edits",
)
OF_FVD = (
    "FVD is biased towards content: it hardly sees broken motion, and severe damage in time can score better than "
    "medium blur (https://arxiv.org/abs/2404.12391)",
    "FVD of few clips is far too large and falls with their number: below some thousands compare figures of the same "
    "number only, and take no figure for a difference that is smaller than the one between two halves of the sources",
)
OF_OWN_JUDGE = "the judge is the CLIP of {}, which also makes edits: of its own edits it is no independent judge"
OF_NANO_JUDGE = "the judge is nano-judge, which knows synthetic worlds alone: for footage name a public CLIP (--judge)"

FootageProgress = Callable[[int, int, str], None]
"""Called with edits done, all edits, and what is being done."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FootageConfig:
    """What is scored, and how.

    Attributes:
        editors: folder of each editor's edits, by name.
        sources: folder of the clips that were edited.
        prompts: table of what was asked for, see `footage.listing`.
        masks: folder of masks of what was to change.
        judge: a CLIP, see `judge.open_judge`.
        model: whose depth network tells structure.
        lpips: whether LPIPS to the source is measured.
        fvd: whether FVD to the sources is measured.
        pairs: how edits and sources are laid upon each other.
    """

    editors: Mapping[str, str]
    sources: str
    prompts: str
    masks: str | None = None
    judge: str | None = None
    model: str = "nano"
    lpips: bool = False
    fvd: bool = False
    pairs: PairOptions = PairOptions()

    @property
    def measures(self) -> dict[str, Measure]:
        """Those of every edit."""
        return MEASURES | (OUTSIDE if self.masks else {}) | (OF_LPIPS if self.lpips else {})


def evaluate_footage(
    config: FootageConfig, out: Path, progress: FootageProgress, warn: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Scores what is not scored yet, and writes results.json and results.csv.

    Args:
        config: what.
        out: the folder, which may hold a part of it already.
        progress: told how far it is.
        warn: told of edits that cannot be scored, a line each.

    Returns:
        What results.json holds.

    Raises:
        UserError: listing and folders do not fit, or `out` is of another judge or other options.
        Failure: nothing could be scored.
    """
    rows = find_rows(read_wanted(config.prompts), config.sources, config.editors, config.masks)
    networks, editors = _Networks(config), (SOURCE, *config.editors)
    due = [(row, editor) for row in rows for editor in editors if row.edits and editor in (SOURCE, *row.edits)]
    if not all(_is_scored(out, editor, row) for row, editor in due):
        networks.scorer()  # what is missing is told before anything is written
    identity = _claim(out, networks.identity())
    failed: list[dict[str, str]] = []
    for done, (row, editor) in enumerate(due):
        progress(done, len(due), f"{editor}: {row.name}")
        try:
            if not _is_scored(out, editor, row):
                _score(networks, config, out, editor, row)
        except UserError as error:
            failed.append({"editor": editor, "name": row.name, "error": in_one_line(error)})
            warn(f"{editor}: {row.name}: {in_one_line(error)}")
    progress(len(due), len(due), "done")
    if len(failed) == len(due):
        raise Failure(f"none of {len(due)} edits could be scored; the first: {failed[0]['error']}")
    return _summarise(config, out, rows, identity, failed)


class _Networks:
    """Networks, loaded when they are first needed: of a finished evaluation only the judge, to tell that it is."""

    def __init__(self, config: FootageConfig):
        self._config, self.judge = config, open_judge(config.judge)
        self._source = open_trained(config.model)
        self._scorer: FootageScorer | None = None

    def identity(self) -> dict[str, Any]:
        """What scores depend on, and what they were made with."""
        depth = None if self._source.config.depth is None else fingerprint(self._source, "depth")
        return {
            "judge": {"name": self.judge.name, "weights": self.judge.fingerprint, "edits": not self.judge.alone},
            "depth": {"name": self._source.name, "weights": depth},
            "options": {
                **dataclasses.asdict(self._config.pairs),
                "measures": [*self._config.measures],
                "fvd": self._config.fvd,
            },
            "device": jax.devices()[0].device_kind,
            "versions": versions(("gen1-jax", "jax", "opencv-python-headless")),
        }

    def scorer(self) -> FootageScorer:
        """The scorer."""
        if self._scorer is None:
            networks = {name: read_measuring(name) for name in ("lpips", "i3d") if self._asked(name)}
            self._scorer = FootageScorer(self.judge, Gen1Pipeline(self._source), **networks)
        return self._scorer

    def _asked(self, network: str) -> bool:
        return self._config.lpips if network == "lpips" else self._config.fvd


def _claim(out: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """The identity of the evaluation in this folder: of the one that began it."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / _IDENTITY
    if not path.exists():
        write_json(path, identity)
        return identity
    before = read_json(path, "judge", "depth", "options")
    told = {"judge": "judge", "depth": "depth network (--model)", "options": "options or measures"}
    for name, what in told.items():
        ours = identity[name].get("weights", identity[name])
        if before[name].get("weights", before[name]) != ours:
            raise UserError(f"{out} holds an evaluation with another {what}: choose another --out")
    return before


def _files(row: Row, editor: str) -> dict[str, list[Any]]:
    """Which files scores are of, so that those of others are made anew."""
    paths = {"edit": _edit(row, editor), "source": row.source, "mask": row.mask}
    return {name: _signature(path) for name, path in paths.items() if path is not None}


def _edit(row: Row, editor: str) -> Path:
    """The file of an edit; of the source itself that of the first edit, whose frames of the source are looked at."""
    return next(iter(row.edits.values())) if editor == SOURCE else row.edits[editor]


def _signature(path: Path) -> list[Any]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    states = [file.stat() for file in files]
    return [str(path), len(files), sum(s.st_size for s in states), max((s.st_mtime_ns for s in states), default=0)]


def _file(out: Path, editor: str, row: Row) -> Path:
    return out / _SCORES / own_file_name(editor) / f"{own_file_name(row.name)}.json"


def _is_scored(out: Path, editor: str, row: Row) -> bool:
    path = _file(out, editor, row)
    if not path.exists():
        return False
    found = read_json(path, "files", "prompt", "scores")
    return found["files"] == _files(row, editor) and found["prompt"] == row.prompt


def _score(networks: _Networks, config: FootageConfig, out: Path, editor: str, row: Row) -> None:
    began, files = time.perf_counter(), _files(row, editor)
    pair = read_pair(_edit(row, editor), row.source, row.mask, config.pairs)
    pair = dataclasses.replace(pair, edit=pair.source) if editor == SOURCE else pair
    score = networks.scorer().score(pair, row.prompt)
    target = _file(out, editor, row)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        target,
        {
            "editor": editor,
            "name": row.name,
            "prompt": row.prompt,
            "files": files,
            "size": list(pair.edit.shape[1:3]),
            "frames": list(pair.lengths),
            "seconds": round(time.perf_counter() - began, 2),
            "scores": {name: json_number(value) for name, value in score.values.items()},
            "features": None if score.features is None else [json_number(float(x)) for x in score.features],
        },
    )


def _summarise(
    config: FootageConfig, out: Path, rows: list[Row], identity: dict[str, Any], failed: list[dict[str, str]]
) -> dict[str, Any]:
    """Puts the files of all edits together."""
    excluded = {(each["editor"], each["name"]) for each in failed}
    table: dict[str, list[dict[str, Any] | None]] = {}
    for editor in (SOURCE, *config.editors):
        path = lambda row, editor=editor: _file(out, editor, row)
        is_there = lambda row, editor=editor: (editor, row.name) not in excluded and _file(out, editor, row).exists()
        table[editor] = [read_json(path(row), "scores", "frames") if is_there(row) else None for row in rows]
    measures = {name: measure._asdict() for name, measure in config.measures.items()}
    results = {
        **identity,
        "clips": [{"name": row.name, "prompt": row.prompt, "source": str(row.source)} for row in rows],
        "measures": measures,
        "editors": {editor: _of_editor(entries, measures) for editor, entries in table.items()},
        "failed": failed,
        "missing": [
            {"editor": editor, "name": row.name} for row in rows for editor in config.editors if editor not in row.edits
        ],
    }
    results["paired"] = list(_paired(results, config))
    if config.fvd:
        results["fvd"] = _fvd(table)
    results["caveats"] = [*CAVEATS, *(OF_FVD if config.fvd else ())]
    if identity["judge"]["edits"]:
        results["caveats"].append(OF_OWN_JUDGE.format(identity["judge"]["name"]))
    if identity["judge"]["name"] == NANO_JUDGE:
        results["caveats"].append(OF_NANO_JUDGE)
    write_json(out / RESULTS, results)
    write_text(out / TABLE, _csv(results))
    return results


def _of_editor(entries: list[dict[str, Any] | None], measures: Mapping[str, Any]) -> dict[str, Any]:
    """Scores by measure, None where there is no edit or nothing to say of it."""
    values = {name: [None if e is None else e["scores"].get(name) for e in entries] for name in measures}
    return {
        "edits": sum(entry is not None for entry in entries),
        "frames": [None if entry is None else entry["frames"] for entry in entries],
        "scores": {name: with_mean(clips) for name, clips in values.items()},
    }


def _paired(results: Mapping[str, Any], config: FootageConfig) -> Iterator[dict[str, Any]]:
    """Differences of every two editors on the clips that both have, with intervals over clips."""
    for (one, ours), (other, theirs) in itertools.combinations(results["editors"].items(), 2):
        if SOURCE in (one, other):
            continue
        for name, measure in config.measures.items():
            both = zip(theirs["scores"][name]["clips"], ours["scores"][name]["clips"], strict=True)
            gaps = [b - a for b, a in both if None not in (a, b)]
            if not gaps:
                continue
            interval = interval_of(gaps)
            better = sum(measure.sign * gap > 0 for gap in gaps)
            yield {
                "editor": other,
                "than": one,
                "measure": name,
                "difference": json_number(interval.mean),
                "interval": [json_number(interval.low), json_number(interval.high)],
                "better": better,
                "clips": len(gaps),
            }


def _fvd(table: Mapping[str, list[dict[str, Any] | None]]) -> dict[str, Any]:
    """To the sources, of the clips of which there are enough frames of both; and of two halves of the sources."""

    def features(editor: str, others: str) -> np.ndarray:
        pairs = zip(table[editor], table[others], strict=True)
        of = lambda entry: None if entry is None else entry.get("features")
        found = [of(entry) for entry, beside in pairs if of(entry) is not None and of(beside) is not None]
        return np.array(found, np.float64).reshape(len(found), -1)

    sources = features(SOURCE, SOURCE)
    found = {
        editor: {
            "fvd": json_number(frechet_distance(features(editor, SOURCE), features(SOURCE, editor))),
            "clips": len(features(editor, SOURCE)),
        }
        for editor in table
        if editor != SOURCE
    }
    halves = frechet_distance(sources[::2], sources[1::2]) if len(sources) > 3 else float("nan")
    return {
        "frames": FVD_FRAMES,
        "editors": found,
        "floor": {"fvd": json_number(halves), "clips": len(sources) // 2},
    }


def _csv(results: Mapping[str, Any]) -> str:
    """A line an edit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(results["measures"])
    writer.writerow(("editor", "name", "prompt", "frames", "source_frames", *names))
    for editor, entry in results["editors"].items():
        for index, clip in enumerate(results["clips"]):
            if (frames := entry["frames"][index]) is not None:
                scores = [entry["scores"][name]["clips"][index] for name in names]
                writer.writerow((editor, clip["name"], clip["prompt"], *frames, *scores))
    return text.getvalue()
