"""`gen1 study make`: the page of a study, clips under meaningless names, and the key that says who made which."""

import dataclasses
import itertools
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from gen1_jax.errors import UserError
from gen1_jax.evaluation.footage.listing import Row, find_rows, read_wanted
from gen1_jax.evaluation.footage.pairs import Frames, PairOptions, read_pair
from gen1_jax.evaluation.stored import write_json
from gen1_jax.files import write_text
from gen1_jax.media import VideoWriter, open_video
from gen1_jax.pretrained.folder import new_folder

PAGE, CLIPS, KEY, ANSWERS = "page", "clips", "key.json", "answers"
QUESTION = "Which edit is better: it shows what is asked for, and moves as the video does?"

_TEMPLATE = Path(__file__).parent / "page.html"
_BLOCKS = 8  # on the shorter side of a ruined clip


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """A study.

    Attributes:
        editors: folder of each editor's edits, by name: two or more, every two of which are compared.
        sources: folder of the clips that were edited.
        prompts: table of what was asked for, see `footage.listing`.
        question: that raters answer.
        most: comparisons that a rater is shown at most, drawn anew for each; 0 for all.
        every: one check after so many comparisons: an edit against the same one ruined.
        seed: of what clips are called and of how they are ruined.
        pairs: how clips are shown.
    """

    editors: Mapping[str, str]
    sources: str
    prompts: str
    question: str = QUESTION
    most: int = 0
    every: int = 10
    seed: int | None = None
    pairs: PairOptions = PairOptions(size=320)

    def __post_init__(self):
        if len(self.editors) < 2:
            raise UserError("a study compares two editors or more: name the folder of each with --videos")
        if self.most < 0 or self.every < 1:
            raise UserError(f"most must not be negative and every at least 1, got {self.most} and {self.every}")
        if not self.question.strip():
            raise UserError("question is empty: say what raters are to choose by")


def make_study(options: StudyOptions, out: Path, progress: Callable[[int, int, str], None]) -> dict[str, Any]:
    """Writes the folder of a study, whole or not at all.

    Args:
        options: what is compared.
        out: must not exist.
        progress: told of rows done, all rows, and the one at hand.

    Returns:
        What key.json holds.

    Raises:
        UserError: listing and folders do not fit, no two editors have edited the same clip, or a file cannot be read.
    """
    rows = find_rows(read_wanted(options.prompts), options.sources, options.editors)
    rows = [row for row in rows if len(row.edits) > 1]
    if not rows:
        raise UserError("no two editors have edited the same clip: there is nothing to compare")
    names, rng = _names(options.seed), np.random.default_rng(options.seed)
    study = secrets.token_hex(4) if options.seed is None else f"{options.seed:08x}"
    key: dict[str, Any] = {"study": study, "question": options.question, "clips": {}, "trials": {}, "checks": {}}
    shown: dict[str, list[dict[str, Any]]] = {"trials": [], "checks": []}
    with new_folder(out) as partial:
        clips = partial / PAGE / CLIPS
        clips.mkdir(parents=True)
        (partial / ANSWERS).mkdir()
        for done, row in enumerate(rows):
            progress(done, len(rows), row.name)
            files = _write_clips(row, options, clips, names, rng, key)
            for one, other in itertools.combinations(row.edits, 2):
                _add(key, shown, "trials", row, files, (one, other), next(names))
            best = list(row.edits)[done % len(row.edits)]
            _add(key, shown, "checks", row, files, (best, f"{best}, ruined"), next(names))
        told = {"id": study, "question": options.question, "every": options.every, **shown}
        told["most"] = options.most or len(shown["trials"])
        text = json.dumps(told).replace("<", "\\u003c")
        page = _TEMPLATE.read_text(encoding="utf-8").replace("/*STUDY*/null", text)
        write_text(partial / PAGE / "index.html", page)
        write_json(partial / KEY, key)
    progress(len(rows), len(rows), "done")
    return key


def _names(seed: int | None) -> Iterator[str]:
    """Names that say nothing, none twice."""
    rng, given = np.random.default_rng(seed), set()
    while True:
        name = rng.bytes(6).hex()
        if name not in given:
            given.add(name)
            yield name


def _write_clips(
    row: Row, options: StudyOptions, folder: Path, names: Iterator[str], rng: np.random.Generator, key: dict[str, Any]
) -> dict[str, str]:
    """Source, edits and a ruined edit, all of one length; their names by who made them."""
    pairs = {editor: read_pair(path, row.source, None, options.pairs) for editor, path in row.edits.items()}
    count = min(len(pair.edit) for pair in pairs.values())
    with open_video(row.source) as reader:
        rate = reader.info.frame_rate
    first = next(iter(pairs.values()))
    views = {"source": first.source[:count]} | {editor: pair.edit[:count] for editor, pair in pairs.items()}
    for editor in row.edits:
        views[f"{editor}, ruined"] = ruined(pairs[editor].edit[:count], rng)
    files = {}
    for who, frames in views.items():
        files[who] = next(names)
        key["clips"][files[who]] = {"by": who, "name": row.name}
        _write(folder / f"{files[who]}.mp4", frames, rate)
    return files


def ruined(frames: Frames, rng: np.random.Generator) -> Frames:
    """What nobody who looks prefers: a few large blocks of mean colour, in no order of time."""
    count, height, width, _ = frames.shape
    side = max(1, min(height, width) // _BLOCKS)
    rows, columns = -(-height // side), -(-width // side)
    padded = np.pad(frames, [(0, 0), (0, rows * side - height), (0, columns * side - width), (0, 0)], mode="edge")
    means = padded.reshape(count, rows, side, columns, side, 3).mean((2, 4), keepdims=True)
    blocks = np.broadcast_to(means, (count, rows, side, columns, side, 3)).reshape(padded.shape)
    return blocks[rng.permutation(count), :height, :width].astype(np.uint8)


def _write(path: Path, frames: Frames, rate: Fraction) -> None:
    height, width = frames.shape[1:3]
    with VideoWriter(path, width=width, height=height, frame_rate=rate) as writer:
        for frame in frames:
            writer.write(np.ascontiguousarray(frame))


def _add(
    key: dict[str, Any],
    shown: dict[str, list[dict[str, Any]]],
    kind: str,
    row: Row,
    files: Mapping[str, str],
    pair: tuple[str, str],
    name: str,
) -> None:
    """A comparison: on the page without names of editors, in the key with them; of a check the first is right."""
    clips = [files[who] for who in pair]
    key[kind][name] = {"name": row.name, "pair": dict(zip(clips, pair, strict=True))}
    if kind == "checks":
        key[kind][name]["right"] = clips[0]
    shown[kind].append({"id": name, "source": files["source"], "prompt": row.prompt, "pair": sorted(clips)})
