"""The edit against each rival, clip by clip, beside what people preferred in the paper where it compares the two.

That an edit is nearer to the exact answer is not that people prefer it; the numbers stand beside each other.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from gen1_jax.evaluation.bars import Results, best, clip_scores
from gen1_jax.evaluation.methods import ANSWER, AUTOENCODED, EDIT, FIRST_FRAME_ESTIMATED, SDEDIT_BY_FRAME, SWEEPS
from gen1_jax.evaluation.rivals.listing import ATLAS
from gen1_jax.evaluation.scores import MEASURES
from gen1_jax.evaluation.stored import json_number
from gen1_jax.evaluation.study.answers import OF_PAPER, PAPER
from gen1_jax.measures import Interval, bootstrap, proportion

COMPARED = {"perceptual": "perceptual", "psnr": "psnr", "structure_error": "perceptual"}
"""Of each measure, that by which a rival's settings are chosen: what hardly edits has the best structure of all."""

HEADS = {"perceptual": "in CLIP's space", "psnr": "by PSNR", "structure_error": "by structure"}
"""What the shares are called."""

_LAYERED, _LOWEST, _HIGHEST = (proportion(won, OF_PAPER).percent for _, won in PAPER)
PREFERRED = {SDEDIT_BY_FRAME: "about 3 in 4", FIRST_FRAME_ESTIMATED: f"{_LOWEST} to {_HIGHEST}", ATLAS: _LAYERED}
"""Of the paper's user study, where motion was estimated, too; intervals are of 34 answers, which its shares match."""


class Verdict(NamedTuple):
    """The edit and one rival.

    Attributes:
        rival: its group.
        methods: of the group, that which is compared, by measure.
        shares: of clips whose edit is nearer to the answer than the rival's, a tie is not; Wilson's intervals.
        leads: by how much it is better, in the unit of the measure, mean of the clips' differences; bootstrap.
        preferred: the share of people in the paper, in words; empty where it says nothing.
    """

    rival: str
    methods: Mapping[str, str]
    shares: Mapping[str, Interval]
    leads: Mapping[str, Interval]
    preferred: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        numbers = lambda found: {name: [json_number(x) for x in interval] for name, interval in found.items()}
        intervals = {"shares": numbers(self.shares), "leads": numbers(self.leads)}
        return {"rival": self.rival, "methods": dict(self.methods), **intervals, "preferred": self.preferred}


def verdicts(results: Results) -> Iterator[Verdict]:
    """Of all rivals of a benchmark that were measured, at their best by each measure.

    Args:
        results: as in results.json.
    """
    for group in dict.fromkeys(entry["group"] for entry in results["methods"].values()):
        if group in (EDIT, ANSWER, AUTOENCODED, *SWEEPS):
            continue
        methods = {measure: best(results, group, by) for measure, by in COMPARED.items()}
        leads = {measure: _lead(results, method, measure) for measure, method in methods.items()}
        shares = {name: proportion(int((lead > 0).sum()), len(lead)) for name, lead in leads.items()}
        means = {name: bootstrap(lead) for name, lead in leads.items()}
        yield Verdict(group, methods, shares, means, PREFERRED.get(group, ""))


def lines(found: list[Verdict]) -> Iterator[str]:
    """A table for a terminal."""
    rows = [("nearer to the answer than", *HEADS.values(), "people, in the paper")]
    rows += [(v.rival, *(share.percent for share in v.shares.values()), v.preferred) for v in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _lead(results: Results, rival: str, measure: str) -> np.ndarray:
    """How much better the edit is, of the clips where both were measured."""
    ours, theirs = (clip_scores(results, name, measure) for name in (EDIT, rival))
    lead = MEASURES[measure].sign * (ours - theirs)
    return lead[~np.isnan(lead)]
