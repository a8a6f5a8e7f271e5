"""`gen1 study results`: what raters answered, as shares of preferences with intervals."""

import contextlib
import dataclasses
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gen1_jax.errors import UserError, counted
from gen1_jax.evaluation.stored import json_number
from gen1_jax.evaluation.study.making import ANSWERS, KEY
from gen1_jax.measures import Interval, bootstrap, proportion, sign_test

PAPER = (("Text2Live", 30), ("a frame edited and propagated (IVS), lowest", 27), ("the same, highest", 31))
"""Gen-1's preferences over others, 88.24%, 79.41% and 91.18% (arXiv 2302.03011): shares of 34."""

OF_PAPER = 34
PASSED = 0.75
"""The share of checks that a rater has to answer right to count."""

_RATER = re.compile(r"[0-9a-z]{8,32}$")
_SUFFIXES = (".json", ".jsonl")


@dataclasses.dataclass(frozen=True)
class Preference:
    """Of one editor over another.

    Attributes:
        editor: the one.
        over: the other.
        won: answers for the one.
        answers: of both.
        clips: for each clip, the share of its answers that are for the one.
    """

    editor: str
    over: str
    won: int
    answers: int
    clips: tuple[float, ...]

    @property
    def share(self) -> Interval:
        """With Wilson's interval, as if answers were independent."""
        return proportion(self.won, self.answers)

    @property
    def over_clips(self) -> Interval:
        """The mean over clips with its bootstrap interval, for answers about one clip are alike."""
        return bootstrap(np.array(self.clips, np.float64))

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        intervals = {"share": self.share, "over_clips": self.over_clips}
        plain = {name: [json_number(x) for x in interval] for name, interval in intervals.items()}
        counts = {"editor": self.editor, "over": self.over, "won": self.won, "answers": self.answers}
        return counts | plain | {"sign_test": json_number(sign_test(self.won, self.answers)), "clips": len(self.clips)}

    def __str__(self) -> str:
        name = f"{self.editor} over {self.over}"
        if not self.answers:
            return f"{name}: no answers"
        low, high = self.share[1:]
        text = f"{name}: {self.won} of {self.answers}, {_percent(self.share)}"
        text += f", p = {sign_test(self.won, self.answers):.2g}"
        if len(self.clips) > 1:
            text += f"; over {len(self.clips)} clips {_percent(self.over_clips)}"
        return text if low > 0.5 or high < 0.5 else f"{text} (not told apart from even)"


def read_key(folder: Path) -> dict[str, Any]:
    """The key of a study.

    Raises:
        UserError: there is none.
    """
    path = folder / KEY
    if not path.is_file():
        raise UserError(f"{folder} is no study: it has no {KEY}; make one with gen1 study make")
    try:
        key = json.loads(path.read_text())
        return {name: key[name] for name in ("study", "question", "clips", "trials", "checks")}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): make the study anew") from None


def checked(answer: Any, key: Mapping[str, Any]) -> dict[str, Any]:
    """An answer as it is kept: of this study, a trial that it has, and one of its two clips; nothing more.

    Raises:
        UserError: it is none.
    """
    if not isinstance(answer, dict) or answer.get("study") != key["study"]:
        raise UserError("not an answer of this study")
    trial = (key["trials"] | key["checks"]).get(str(answer.get("trial")))
    rater, chosen, left = (str(answer.get(name, "")) for name in ("rater", "chosen", "left"))
    if trial is None or not _RATER.match(rater) or chosen not in trial["pair"] or left not in trial["pair"]:
        raise UserError("not an answer to a comparison of this study")
    known = {"study": key["study"], "rater": rater, "trial": str(answer["trial"]), "left": left, "chosen": chosen}
    if isinstance(answer.get("seconds"), int | float) and np.isfinite(answer["seconds"]):
        known["seconds"] = float(answer["seconds"])
    return known | {"at": str(answer.get("at", ""))[:32]}


def read_answers(folder: Path, key: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All answers that were received, or downloaded and put there; of one rater to one trial the first.

    Raises:
        UserError: a file is no list of answers of this study.
    """
    answers: dict[tuple[str, str], dict[str, Any]] = {}
    files = sorted(file for file in (folder / ANSWERS).glob("*") if file.suffix in _SUFFIXES)
    for file in files:
        for answer in _read(file):
            try:
                known = checked(answer, key)
            except UserError as error:
                raise UserError(f"{file}: {error}; take it away") from None
            answers.setdefault((known["rater"], known["trial"]), known)
    return list(answers.values())


def _read(file: Path) -> Iterator[Any]:
    """What a file holds; lines that were cut off are left out, for the page sends them again."""
    text = file.read_text(encoding="utf-8", errors="replace")
    if file.suffix == ".jsonl":
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)
        return
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UserError(f"{file}: is not JSON ({error}); take it away") from None
    yield from found if isinstance(found, list) else [found]


def results(folder: Path) -> dict[str, Any]:
    """Preferences of the raters who passed their checks, and of all.

    Raises:
        UserError: no study there, or answers that are not of it.
    """
    key = read_key(folder)
    answers = read_answers(folder, key)
    right: dict[str, list[bool]] = defaultdict(list)
    for answer in answers:
        if answer["trial"] in key["checks"]:
            right[answer["rater"]].append(answer["chosen"] == key["checks"][answer["trial"]]["right"])
    raters = sorted({answer["rater"] for answer in answers})
    failed = [rater for rater in raters if right[rater] and np.mean(right[rater]) < PASSED]
    kept = [answer for answer in answers if answer["rater"] not in failed]
    compared = [answer for answer in kept if answer["trial"] in key["trials"]]
    return {
        "question": key["question"],
        "raters": len(raters),
        "failed_checks": failed,
        "unchecked": [rater for rater in raters if not right[rater]],
        "answers": len(compared),
        "left": [json_number(x) for x in proportion(sum(a["left"] == a["chosen"] for a in compared), len(compared))],
        "preferences": [preference.to_dict() for preference in preferences(kept, key)],
        "preferences_of_all": [preference.to_dict() for preference in preferences(answers, key)],
        "lines": [str(preference) for preference in preferences(kept, key)],
    }


def preferences(answers: list[dict[str, Any]], key: Mapping[str, Any]) -> list[Preference]:
    """Of every two editors, in the order in which the study names them."""
    by_pair: dict[tuple[str, str], dict[str, list[bool]]] = {}
    for trial in key["trials"].values():
        by_pair.setdefault(tuple(trial["pair"].values()), defaultdict(list))
    for answer in answers:
        if trial := key["trials"].get(answer["trial"]):
            one, _ = pair = tuple(trial["pair"].values())
            by_pair[pair][trial["name"]].append(trial["pair"][answer["chosen"]] == one)
    found = []
    for (one, other), clips in by_pair.items():
        votes = list(itertools.chain(*clips.values()))
        shares = tuple(float(np.mean(votes)) for votes in clips.values())
        found.append(Preference(one, other, sum(votes), len(votes), shares))
    return found


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """For a person."""
    yield found["question"]
    raters = f"{counted(found['raters'], 'rater')}, {counted(found['answers'], 'answer')}"
    yield f"{raters}; {len(found['failed_checks'])} failed the checks and do not count"
    if found["unchecked"]:
        yield f"{counted(len(found['unchecked']), 'rater')} came to no check and count"
    yield from found["lines"]
    if found["answers"]:
        yield f"left was chosen {_percent(Interval(*found['left']))}"


def paper_lines() -> Iterator[str]:
    """The paper's own preferences with their intervals."""
    yield f"Gen-1's preferences in its paper, as shares of {OF_PAPER} that match its percentages:"
    for other, won in PAPER:
        yield str(Preference("Gen-1", other, won, OF_PAPER, ()))


def _percent(interval: Interval) -> str:
    if np.isnan(interval.mean):
        return "-"
    return f"{interval.mean:.2%} [{interval.low:.1%}, {interval.high:.1%}]"
