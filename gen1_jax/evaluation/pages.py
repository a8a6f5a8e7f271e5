"""What reports in HTML share: their style, and tables."""

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gen1_jax.evaluation.scores import Measure

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px; }
td, th { padding: .2em .7em; border-bottom: 1px solid #ddd; text-align: right; }
td:first-child, th:first-child { text-align: left; }
small { color: #777; } img, video { max-width: 100%; } .no { color: #b00; } .yes { color: #070; }
"""


def write_page(path: Path, title: str, sections: Iterable[str]) -> Path:
    """Writes a page; sections are HTML, the title is text."""
    head = f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{STYLE}</style>"
    path.write_text(head + "\n".join(sections) + "\n", encoding="utf-8")
    return path


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Of cells in HTML."""
    cells = lambda row, tag: "".join(f"<{tag}>{cell}</{tag}>" for cell in row)
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<table><tr>{cells([name.replace('_', ' ') for name in head], 'th')}</tr>{body}</table>"


def headed(name: str, measure: Measure) -> str:
    """The name of a measure with an arrow that points to where it is better."""
    return f"{name.replace('_', ' ')} {'↑' if measure.sign > 0 else '↓'}"


def score_cell(score: Mapping[str, Any]) -> str:
    """A mean over its interval, as `stored.with_mean` has them."""
    if score["mean"] is None:
        return "-"
    low, high = score["interval"]
    return f"{score['mean']:.4g}<br><small>{low:.4g} … {high:.4g}</small>"


def definitions(measures: Mapping[str, Measure]) -> str:
    """A table of what measures are."""
    rows = [
        (headed(name, measure), measure.better, measure.values, html.escape(measure.definition))
        for name, measure in measures.items()
    ]
    return table(("measure", "better", "values", "definition"), rows)
