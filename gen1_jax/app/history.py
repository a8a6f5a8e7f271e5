"""The edits that a visitor has made, to be looked at again and to go on from."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from gen1_jax.app.jobs import EditFiles
from gen1_jax.editing.request import EditRequest

_KEPT, _LONGEST = 8, 60  # edits; letters of a prompt


class Past(NamedTuple):
    """An edit that is done.

    Attributes:
        number: of the visitor's edits, from 1.
        values: of all fields of the form.
        request: what was asked.
        files: what came of it; they are gone when others have come (`EditSession`).
    """

    number: int
    values: tuple[Any, ...]
    request: EditRequest
    files: EditFiles

    @property
    def label(self) -> str:
        """It in one line."""
        request, settings = self.request, self.request.settings
        told = [request.prompt, *(use.prompt for use in request.contents), request.background, "a picture"]
        said = next(text for text in told if text)
        said = said if len(said) <= _LONGEST else f"{said[: _LONGEST - 1]}…"
        numbers = f"w {settings.guidance_scale:g}, t_s {settings.structure_blur}, seed {settings.seed}"
        marks = {
            f"{len(request.contents)} contents": request.contents,
            "masked": request.is_masked,
            "enlarged": request.upscaler,
        }
        if request.enlarges:
            said, numbers = "enlarged", f"noise level {settings.structure_blur}, seed {settings.seed}"
        return " · ".join([str(self.number), said, numbers, *(mark for mark, has in marks.items() if has)])


def with_edit(past: Sequence[Past], values: Sequence[Any], request: EditRequest, files: EditFiles) -> list[Past]:
    """The last edits, with another."""
    number = past[-1].number + 1 if past else 1
    return [*past, Past(number, tuple(values), request, files)][-_KEPT:]


def named(past: Sequence[Past], label: str | None) -> Past | None:
    """The one of that label."""
    return next((one for one in past if one.label == label), None)
