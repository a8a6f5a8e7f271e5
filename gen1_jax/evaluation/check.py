"""`gen1 info MODEL --check`: whether a model's weights are right, told by how well they find the noise in a clip.

    clip ──autoencoder──► latents ── + noise at t = 200, 500, 800 ──► predicted noise ──► mean squared error
                                                        ▲
                     what is true of the clip, then one thing at a time that is wrong or missing

A network whose weights were read wrongly finds less than a guess without any; one that has learned to read a condition
finds less when it is wrong. So no other program is needed to compare with.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gen1_jax.diffusion.prediction import to_x0_and_epsilon
from gen1_jax.editing.inputs import resize_frames
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.structures import Frames
from gen1_jax.errors import UserError, counted
from gen1_jax.measures import psnr
from gen1_jax.models.conditions import Conditions, Signal
from gen1_jax.models.pictures import pixels_to_images

CLIP = Path(__file__).parents[1] / "assets" / "demo.mp4"
PROMPT = "a rusty car, a dog and a tree in a green grassland at midday"
"""What is to be seen in `CLIP`."""

TIMESTEPS = (200, 500, 800)
FEWEST_DB = 28.0
"""PSNR of frames that went through the autoencoder of a good model."""

# Of errors to others: Stable Diffusion finds less in smooth renderings than in photographs, motion modules are tuned to
# another noise schedule than the base, and the noise is one draw; what was read wrongly is not near.
_GUESS, _NO_WORSE, _BETTER, _WORSE = (0.0, 0.8), (0.0, 1.02), (0.0, 0.998), (1.002, math.inf)

_TRIVIAL, _STILL, _VIDEO = "a guess without a network", "frame by frame", "video"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """One way to tell the model of the clip.

    Attributes:
        name: of the row.
        told: what it is told.
        against: which row its errors are compared with.
        limits: which the ratio should be within.
        shuffled: whether its frames are in another order.
        noisiest: whether the noisiest timestep alone counts. What a prompt or a picture says is decided there: where
            a clip shows through its noise, it says all that they could.
    """

    name: str
    told: Conditions
    against: str
    limits: tuple[float, float]
    shuffled: bool = False
    noisiest: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """The answer to a question.

    Attributes:
        name: of the question.
        errors: mean squared errors of the noise, by timestep.
        against: what they are compared with.
        ratio: of the errors to those, geometric mean over the timesteps that count.
        expected: of the ratio, in words.
        fits: whether it is so.
    """

    name: str
    errors: Mapping[int, float]
    against: str
    ratio: float
    expected: str
    fits: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """All findings.

    Attributes:
        model: its name.
        frames: of the clip that were taken.
        size: (height, width) at which.
        trivial: errors of the best linear guess that knows of latents only how large they are, by timestep.
        decibels: PSNR of the frames after the autoencoder.
        findings: in the order of the questions.
        skipped: what could not be asked.
    """

    model: str
    frames: int
    size: tuple[int, int]
    trivial: Mapping[int, float]
    decibels: float
    findings: tuple[Finding, ...]
    skipped: tuple[str, ...]

    @property
    def suspicious(self) -> list[str]:
        """Names of the findings that are not as expected."""
        autoencoder = [] if self.decibels >= FEWEST_DB else ["autoencoder"]
        return autoencoder + [finding.name for finding in self.findings if not finding.fits]

    @property
    def verdict(self) -> str:
        """One line."""
        count, wrong = 1 + len(self.findings), self.suspicious
        if not wrong:
            return f"{self.model}: ok, all {count} findings are as expected"
        return f"{self.model}: suspicious, {len(wrong)} of {count} findings are not as expected: {'; '.join(wrong)}"

    def to_dict(self) -> dict:
        """Plain values."""
        return dataclasses.asdict(self) | {"suspicious": self.suspicious, "verdict": self.verdict}


def check(
    pipeline: Gen1Pipeline,
    frames: Frames,
    prompt: str | None,
    timesteps: Sequence[int] = TIMESTEPS,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Check:
    """Ask a model of a clip in every way that it has.

    Two programs are compiled, and one clip of at most the model's `num_frames` is in memory.

    Args:
        pipeline: the model. Its networks' parameters are arguments of what is compiled.
        frames: of a clip in which things move, of any size.
        prompt: what is to be seen in it; models whose content is a picture are shown a frame instead.
        timesteps: of the noise.
        progress: called with "checking", questions answered, and their number.

    Raises:
        UserError: no prompt for a model that needs one.
    """
    config = pipeline.config
    size = config.working_size(*frames.shape[1:3])
    frames = resize_frames(frames[: config.num_frames], size)
    latents = pipeline.encode_frames(frames)
    decoded = np.stack(list(pipeline.decode(latents)))
    decibels = float(psnr(*((pixels_to_images(clip)[None] + 1) / 2 for clip in (decoded, frames)))[0])
    questions, skipped = _questions(pipeline, frames, prompt)
    errors = {_TRIVIAL: _trivial(pipeline, latents, timesteps)}
    for number, question in enumerate(questions):
        progress("checking", number, len(questions))
        errors[question.name] = _errors(pipeline, latents, question, timesteps)
    progress("checking", len(questions), len(questions))
    return Check(
        model=pipeline.source.name,
        frames=len(frames),
        size=size,
        trivial=errors[_TRIVIAL],
        decibels=decibels,
        findings=tuple(_finding(question, errors) for question in questions),
        skipped=tuple(skipped),
    )


def _questions(pipeline: Gen1Pipeline, frames: Frames, prompt: str | None) -> tuple[list[Question], list[str]]:
    """What is asked, and what cannot be.

    All questions have the same arrays, so that they share programs: structures that the model needs are told in full
    throughout, and controls are there without weight until they are asked for.
    """
    unet = pipeline.config.unet
    told, picture = _content(pipeline, frames, prompt)
    right, wrong, asks = {}, {}, {*unet.required, *pipeline.structures.estimable}
    skipped = [f"{name} (nothing here estimates it)" for name in unet.kinds if name not in asks]
    for name in (name for name in unet.kinds if name in asks):
        kind = pipeline.config.structure_kind(name)
        maps = np.asarray(pipeline.structures.estimate(kind, frames))
        encoded = (pipeline.structures.encoded(kind, x) for x in (maps, maps[:, :, ::-1]))
        right[name], wrong[name] = (Signal.of(x, weight=jnp.float32([name in unet.required])) for x in encoded)
    skipped += ["prior"] if pipeline.config.prior is not None else []
    told = dataclasses.replace(told, structure=right)
    moves = len(frames) > 1 and unet.couples_frames
    main, seen = (_VIDEO, lambda x: x) if moves else (_STILL, Conditions.frames)

    def ask(name: str, limits: tuple[float, float], against: str = main, content=None, **signals: Signal):
        said = dataclasses.replace(told, content=content or told.content, structure=right | signals)
        return Question(name=name, told=seen(said), against=against, limits=limits, noisiest=content is not None)

    asked = [Question(name=_STILL, told=told.frames(), against=_TRIVIAL, limits=_GUESS)]
    if moves:
        out_of_order = dict(name="video, frames out of order", against=_VIDEO, limits=_WORSE, shuffled=True)
        asked += [ask(_VIDEO, _NO_WORSE, _STILL), Question(told=told, **out_of_order)]
    asked.append(ask(f"without the {unet.content.told_by}", _WORSE, content=told.without_content().content))
    if picture is not None:
        asked.append(ask("with a frame as a picture", _BETTER, content=told.content | picture))
    for name, signal in right.items():
        full, none = (dataclasses.replace(signal, weight=jnp.float32([weight])) for weight in (1, 0))
        mirrored = dataclasses.replace(wrong[name], weight=full.weight)
        if name in unet.required:
            asked += [
                ask(f"without {name}", _WORSE, **{name: none}),
                ask(f"{name} mirrored", _WORSE, **{name: mirrored}),
            ]
        else:
            asked.append(ask(f"with {name}", _BETTER, **{name: full}))
            asked.append(ask(f"with {name} mirrored", _WORSE, f"with {name}", **{name: mirrored}))
    return asked, skipped


def _content(
    pipeline: Gen1Pipeline, frames: Frames, prompt: str | None
) -> tuple[Conditions, dict[str, Float[Array, "1 n d"]] | None]:
    """What is true of the clip; and tokens of a frame, of which a model with an adapter is told nothing by that."""
    unet, settings, middle = pipeline.config.unet, EditSettings().of(pipeline.config), frames[len(frames) // 2]
    if unet.content.is_shown:
        return pipeline.encode_content(None, [middle], settings), None
    if prompt is None:
        raise UserError(f"{pipeline.source.name} needs a prompt: say what is to be seen in the clip")
    told = pipeline.encode_content(prompt, [middle] if unet.image_adapter else [], settings)
    if not unet.image_adapter:
        return told, None
    picture = {"image": told.content["image"]}
    return dataclasses.replace(told, content=told.content | {"image": told.null["image"]}), picture


def _trivial(pipeline: Gen1Pipeline, latents: Float[Array, "1 t h w c"], timesteps: Sequence[int]) -> dict[int, float]:
    alpha_bar, power = pipeline.config.schedule.alphas_cumprod_float64, float(jnp.square(latents).mean())
    return {t: float(alpha_bar[t] * power / (alpha_bar[t] * power + 1 - alpha_bar[t])) for t in timesteps}


def _errors(
    pipeline: Gen1Pipeline, latents: Float[Array, "1 t h w c"], question: Question, timesteps: Sequence[int]
) -> dict[int, float]:
    """By timestep. The noise of a timestep is the same for all questions, so that they can be compared."""
    count, schedule, told = latents.shape[1], pipeline.config.schedule, question.told
    order = np.arange(count)
    if question.shuffled:  # neighbours come to lie far apart
        order = np.concatenate([order[::2], order[1::2][::-1]])
        structure = {kind: dataclasses.replace(x, maps=x.maps[:, order]) for kind, x in told.structure.items()}
        told = dataclasses.replace(told, structure=structure)
    errors = {}
    for timestep in timesteps:
        t, noise = jnp.array([timestep]), jax.random.normal(jax.random.key(timestep), latents.shape)[:, order]
        noisy = schedule.add_noise(latents[:, order], noise, t)
        prediction, _ = pipeline.unet.denoise(noisy, t, told)
        prediction_type = pipeline.config.unet.prediction_type
        _, found = to_x0_and_epsilon(prediction_type, prediction, noisy, *schedule.alpha_sigma(t))
        errors[timestep] = float(jnp.square(found - noise).mean())
    return errors


def _finding(question: Question, errors: Mapping[str, Mapping[int, float]]) -> Finding:
    ours, others = errors[question.name], errors[question.against]
    counts = [max(ours)] if question.noisiest else list(ours)
    ratio = math.exp(np.mean([math.log(ours[t] / others[t]) for t in counts]))
    low, high = question.limits
    return Finding(
        name=question.name,
        errors=ours,
        against=question.against,
        ratio=ratio,
        expected=f"below {high:g}" if low == 0 else f"above {low:g}",
        fits=low <= ratio <= high,  # and a ratio that is no number does not fit
    )


def render(checked: Check) -> str:
    """The table as a person reads it, the verdict in the last line."""
    return "\n".join(_lines(checked))


def _lines(checked: Check) -> Iterator[str]:
    row = "{:32}{:>24}  {:>7}  {:30}{:14}{}".format
    numbers = lambda errors: " ".join(f"{error:7.4f}" for error in errors.values())
    height, width = checked.size
    yield f"{counted(checked.frames, 'frame')} of {width}x{height}; mean squared error of the noise:"
    yield row("told", " ".join(f"t = {t:3}" for t in checked.trivial), "ratio", "to that of", "expected", "").rstrip()
    yield row(_TRIVIAL, numbers(checked.trivial), "", "", "", "").rstrip()
    for finding in checked.findings:
        said = "ok" if finding.fits else "suspicious"
        yield row(
            finding.name, numbers(finding.errors), f"{finding.ratio:.3f}", finding.against, finding.expected, said
        )
    said = "ok" if checked.decibels >= FEWEST_DB else "suspicious"
    yield row("autoencoder, there and back", f"{checked.decibels:.1f} dB", "", "", f"{FEWEST_DB:g} dB", said)
    if checked.skipped:
        yield f"not checked: {', '.join(checked.skipped)}"
    yield checked.verdict
