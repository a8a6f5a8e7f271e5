"""What the benchmark compares: the paper's method over its settings, and other editors with the same weights."""

import dataclasses
import difflib
import fnmatch
import math
import re
from collections.abc import Callable, Iterable, Sequence

from gen1_jax.diffusion import FLOW_SAMPLERS
from gen1_jax.editing.settings import EditSettings, scale_ranges
from gen1_jax.errors import UserError
from gen1_jax.evaluation.contents import content_methods
from gen1_jax.evaluation.editor import Editor
from gen1_jax.evaluation.inputs import input_methods
from gen1_jax.evaluation.optical_flow import estimate_backward_flow
from gen1_jax.evaluation.propagation import propagate_first, propagate_stepwise
from gen1_jax.evaluation.rivals.listing import WITH_DEPTH, rivals, text_rivals
from gen1_jax.evaluation.told import Way
from gen1_jax.evaluation.worlds import EditClips
from gen1_jax.pretrained.family import Gen1Config

SWEEPS: dict[str, tuple] = {
    "temporal_guidance_scale": (0.0, 0.5, 1.0, 1.5, 2.0),
    "structure_blur": tuple(range(8)),
    "guidance_scale": (1.0, 2.0, 4.0, 7.5, 12.0),
    "guidance_interval": ((0.0, 1.0), (0.0, 0.75), (0.0, 0.5), (0.0, 0.25), (0.1, 0.6)),
    "num_inference_steps": (5, 10, 20, 50),
    "sampler": ("ddim", "dpm++"),
    "deep_cache": (2, 3, 5),
}
"""Settings of an edit that are varied, one at a time; samplers are others for rectified flow."""

STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Of SDEdit (https://arxiv.org/abs/2108.01073): the share of the sampler's steps that are run on the noised input."""

EDIT, INPUT, ANSWER = "edit", "input", "answer"
AUTOENCODED = "autoencoded answer"
MASKED, CLICKED = "masked edit", "masked edit by a click"
MASKED_IN_SIGHT = "masked edit with the clip in sight"
MASKED_BY_CHANGE, CHANGE_DESCRIBED = "masked edit by its change", "masked edit by its described change"
CHANGE_IN_SIGHT = "masked edit by its described change with the clip in sight"
DEPTH_BY_FRAME = "depth frame by frame"
FIRST_FRAME, FIRST_FRAME_ESTIMATED = "first frame true flow", "first frame estimated flow"
SDEDIT_BY_FRAME, SDEDIT_BY_CLIP = "SDEdit frame by frame", "SDEdit whole clip"
_VARIED = {
    "temporal_guidance_scale": "the temporal guidance scale, w_t",
    "structure_blur": "how much detail of the structure is given up, t_s",
    "guidance_scale": "how strictly the content is followed, w",
    "guidance_interval": "the part of the steps in which there is guidance",
    "num_inference_steps": "the steps of the sampler",
    "sampler": "the sampler",
    "deep_cache": "how many steps share what lies below the finest level",
}


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to make the edits.

    Attributes:
        group: of methods that differ in a number. Words without commas, so that names can be listed; files are called
            by them, so that another name loses what was measured under the old one.
        value: the number in which the methods of the group differ; of a sweep, the value of the setting.
        what: one line that says what it is.
        make: the edits of all worlds.
    """

    group: str
    value: int | float | str | None
    what: str
    make: Callable[[Editor], EditClips]

    @property
    def name(self) -> str:
        """Unique: the group, and the value where there is one, as "SDEdit whole clip=0.6"."""
        return self.group if self.value is None else f"{self.group}={self.value}"

    def fits(self, pattern: str) -> bool:
        """Whether a pattern as "SDEdit*" is of its name, or of its group's; case, commas and "_" do not count."""
        return any(fnmatch.fnmatchcase(_plain(name), _plain(pattern)) for name in (self.name, self.group))


def chosen(known: Sequence[Method], patterns: Iterable[str]) -> list[Method]:
    """The methods that fit a pattern, all if there is none; the edit, the input and the answer are always among them.

    Raises:
        UserError: a pattern that fits none; names those that are near to it.
    """
    patterns = list(patterns)
    for pattern in patterns:
        if not any(method.fits(pattern) for method in known):
            near = ", ".join(repr(name) for name in _near(pattern, known))
            raise UserError(f"--only: no method is called {pattern!r}; near to it are {near} (--list names all)")
    always = (EDIT, INPUT, ANSWER)
    return [m for m in known if not patterns or m.name in always or any(m.fits(pattern) for pattern in patterns)]


def methods(settings: EditSettings, config: Gen1Config | None = None) -> list[Method]:
    """All that are compared of worlds, the edit with `settings` first; what only some models can, by one's `config`."""
    others, further = [*rivals(settings)], []
    if config is not None:
        others += text_rivals(settings, config)
        further += [*input_methods(settings, config), *content_methods(settings, config)]
    others, further = ([Method(*each) for each in rows] for rows in (others, further))
    return [*first_methods(settings), *_baselines(settings), *others, *_sweeps(settings, config), *further]


def first_methods(settings: EditSettings) -> list[Method]:
    """What every benchmark begins with: the edit, and what lies on both sides of it."""
    return [
        Method(EDIT, None, "the paper's method", lambda editor: editor.edit(Way(settings=settings))),
        Method(INPUT, None, "the clip that is edited, as it is", lambda editor: editor.worlds.clips.source),
        Method(ANSWER, None, "what the edit should be, rendered", lambda editor: editor.worlds.clips.answer),
        Method(
            AUTOENCODED,
            None,
            "the answer through the autoencoder: no edit can be better than that",
            lambda editor: editor.through_autoencoder(editor.worlds.clips.answer),
        ),
    ]


def _plain(name: str) -> str:
    """A name or pattern without what is easily mistaken: lower case, a space for commas and underscores, 1 for 1.0."""
    return re.sub(r"(=\d+)\.0$", r"\1", re.sub(r"[\s,_]+", " ", name).strip().lower())


def _near(pattern: str, known: Sequence[Method]) -> list[str]:
    """At most five names or patterns of groups: those that begin as `pattern` does, then those spelled like it."""
    names = dict.fromkeys(m.name if m.value is None else f"{m.group}=*" for m in known)
    wanted = _plain(pattern).partition("=")[0].strip("* ")
    plain = {_plain(name).removesuffix("=*"): name for name in names}
    begin = [name for name in plain if wanted and name.startswith(wanted)]
    alike = difflib.get_close_matches(wanted, plain, n=5, cutoff=0.0)
    return [plain[name] for name in dict.fromkeys([*begin, *alike])][:5]


def _sweeps(settings: EditSettings, config: Gen1Config | None) -> list[Method]:
    swept, ranges = [], {} if config is None else scale_ranges(config)
    for field, values in SWEEPS.items():
        if field == "deep_cache" and not (config is not None and config.unet.keeps_features):
            continue
        low, high = ranges.get(field, (-math.inf, math.inf))
        values = tuple(FLOW_SAMPLERS) if field == "sampler" and settings.sampler in FLOW_SAMPLERS else values
        for value in values:
            if field in ranges and not low <= value <= high:
                continue  # the model takes no such value
            if value != getattr(settings, field):  # that one is the edit itself
                way = Way(settings=dataclasses.replace(settings, **{field: value}))
                shown = "{:g}:{:g}".format(*value) if isinstance(value, tuple) else value
                swept.append(Method(field, shown, f"the edit with another value of {_VARIED[field]}", _editing(way)))
    return swept


def _baselines(settings: EditSettings) -> list[Method]:
    first = Way(settings=settings, first_frame_only=True)
    baselines = [
        Method(
            DEPTH_BY_FRAME,
            None,
            "the image model on every frame by itself, with the depth of the clip",
            _editing(Way(settings=settings, frame_by_frame=True)),
        ),
        Method(
            FIRST_FRAME,
            None,
            "the edit of the first frame, carried along the renderer's own motion",
            lambda editor: propagate_first(editor.edit(first), editor.worlds.clips.flow_to_first),
        ),
        Method(
            FIRST_FRAME_ESTIMATED,
            None,
            "the same along a motion that is estimated (TV-L1; needs the extra evaluate)",
            lambda editor: propagate_stepwise(editor.edit(first), estimate_backward_flow(editor.worlds.clips.source)),
        ),
    ]
    for frame_by_frame in (True, False):
        for sees_structure in (False, True):
            group = (SDEDIT_BY_FRAME if frame_by_frame else SDEDIT_BY_CLIP) + WITH_DEPTH * sees_structure
            what = "every frame by itself" if frame_by_frame else "the clip"
            what += ", whose depth is told" if sees_structure else ""
            for strength in STRENGTHS:
                way = Way(
                    settings=settings, strength=strength, sees_structure=sees_structure, frame_by_frame=frame_by_frame
                )
                if strength < 1 or not sees_structure:  # with depth and at full strength nothing of SDEdit is left
                    text = f"SDEdit: noise is added to {what}, {strength:.0%} of the steps take it away"
                    baselines.append(Method(group, strength, text, _editing(way)))
    return baselines


def _editing(way: Way) -> Callable[[Editor], EditClips]:
    return lambda editor: editor.edit(way)
