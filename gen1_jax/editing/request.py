"""What is asked of an edit of a file: which files, which part, which model, which numbers."""

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from gen1_jax.editing.contents import ContentUse
from gen1_jax.editing.masks import file_of, parse_mask
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.upscale_clip import NOISE_LEVEL, upscale_settings
from gen1_jax.errors import UserError
from gen1_jax.media import Limits, Part, needs_even_size
from gen1_jax.parallel.mesh import MeshConfig
from gen1_jax.pretrained.subject import SUBJECT


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditRequest:
    """One edit of a file.

    Attributes:
        video: a video, a folder of pictures or a picture.
        output: by suffix a video, or a picture if the input is one frame.
        prompt: the content in words, or None.
        image: the content as a picture file, for models with a split as a clip, too; or several, beside a prompt for
            models with an adapter for pictures.
        contents: several in the place of prompt and image, see `editing.contents`; pictures as files.
        negative_prompt: what the result should not look like.
        structure_from: ready maps in place of estimates: (kind, file), or (None, file) for the edit's first kind.
        keyframes: frames of the result that are given, by their number among those that are edited, as picture files.
        mask: what may change, in the notation of `masks.parse_mask`; None for all of it.
        background: what all outside of the mask is to become, in words; without a mask, all that is far.
        loras: LoRA files, adapters of `gen1 customize` among them, and their strengths, merged into the model. These
            tell their subject, too: alone where there is neither prompt nor image, or beside the prompt.
        low_memory: let every network go when it has done its part.
        model: name of a model that ships, a model folder, or a training workdir.
        settings: the numbers of the edit.
        start: index of the first frame to edit (int), or seconds (Fraction).
        duration: frames of the video (int) or seconds (Fraction) from there on, None to its end.
        frames: how many frames at most, None for all.
        stride: every how many-th.
        fps: frames a second of the result, the video's own if None: some are left out, or the last one is shown
            again. Of a folder of pictures, how fast they follow each other (8).
        size: (width, height) of the result, pixels; the video's own if None. What does not fit into that shape is
            cut off at both sides.
        upscale: how many times as large as the video the result is, or, with `upscaler`, as what `model` makes of it; a
            video that is larger itself keeps its size then.
        upscaler: of an edit, the model that enlarges it; None where `model` itself enlarges the video (`gen1 upscale`).
        noise_level: t_s of `upscaler`, see `editing.upscale_clip`; that of `model` is `settings.structure_blur`.
        match_colour: what is enlarged has the colours of what it was made from, see `enlarging.with_colours_of`.
        save_structure: where to write what the model saw, or None.
        save_mask: where to write the mask, or None.
        compare: write input, structure and edit side by side instead of the edit alone.
        sidecar: write the settings to OUTPUT.json, too.
        provenance: sign what is written, with a manifest that tells of the edit, where the kind of file can hold one.
        credentials: PEM files of the certificates and the key to sign with; None for an identity of this user.
        mesh: devices that share the sampling, or None for one.
        limits: refuses larger files.
    """

    video: str | Path
    output: str | Path
    prompt: str | None = None
    image: str | Path | Sequence[str | Path] | None = None
    contents: tuple[ContentUse, ...] = ()
    negative_prompt: str | None = None
    structure_from: tuple[tuple[str | None, str | Path], ...] = ()
    keyframes: tuple[tuple[int, str | Path], ...] = ()
    mask: str | Path | None = None
    background: str | None = None
    loras: tuple[tuple[str | Path, float], ...] = ()
    low_memory: bool = False
    model: str | Path = "nano"
    settings: EditSettings = EditSettings()
    start: int | Fraction = 0
    duration: int | Fraction | None = None
    frames: int | None = None
    stride: int = 1
    fps: Fraction | None = None
    size: tuple[int, int] | None = None
    upscale: int = 1
    upscaler: str | Path | None = None
    noise_level: int = NOISE_LEVEL
    match_colour: bool = True
    save_structure: str | Path | None = None
    save_mask: str | Path | None = None
    compare: bool = False
    sidecar: bool = False
    provenance: bool = True
    credentials: tuple[str | Path, str | Path] | None = None
    mesh: MeshConfig | None = None
    limits: Limits = Limits()

    def __post_init__(self):
        if self.contents and (self.prompt is not None or self.images):
            raise UserError("--content stands in the place of --prompt and --image: give either")
        if not self.is_told and not self.enlarges and not self._may_have_subject:
            raise UserError("give either --prompt or --image, or both to a model that reads both")
        if len(dict(self.keyframes)) < len(self.keyframes):
            raise UserError("--keyframe: two pictures for one frame")
        for option, text in (("prompt", self.prompt), ("background", self.background)):
            if text is not None and not text.strip():
                raise UserError(f"--{option} is empty: say what the result should look like")
        if self.mask is not None:
            parse_mask(self.mask)
        if self.save_mask is not None and not self.is_masked:
            raise UserError(f"--save-mask {self.save_mask}: there is no mask; say what may change with --mask")
        self._check_size()
        if self.upscaler is not None:
            upscale_settings(self.noise_level)
            if self.upscale < 2:
                raise UserError("--upscaler is for an edit that is enlarged: say --upscale 2")
        _ = self.part

    @property
    def images(self) -> tuple[str | Path, ...]:
        """The picture files of `image`."""
        if self.image is None:
            return ()
        return (self.image,) if isinstance(self.image, str | Path) else tuple(self.image)

    @property
    def is_told(self) -> bool:
        """Whether something says what the result should look like."""
        return self.prompt is not None or bool(self.images or self.contents) or self.background is not None

    @property
    def enlarges(self) -> bool:
        """Whether the model itself makes the video larger."""
        return self.upscale > 1 and self.upscaler is None

    @property
    def _may_have_subject(self) -> bool:
        """Whether the model, or an adapter, may tell what the result should look like."""
        return bool(self.loras) or (Path(self.model) / SUBJECT).is_file()

    @property
    def outputs(self) -> tuple[str | Path, ...]:
        """The files that it writes, without its sidecar."""
        return tuple(path for path in (self.output, self.save_structure, self.save_mask) if path is not None)

    @property
    def is_masked(self) -> bool:
        """Whether some of it stays as it is, or becomes something else."""
        return self.mask is not None or self.background is not None

    @property
    def inputs(self) -> tuple[str | Path, ...]:
        """The files that it reads, but for the model's."""
        mask = file_of(self.mask)
        given = [path for _, path in (*self.structure_from, *self.keyframes)]
        shown = [use.image for use in self.contents if use.image is not None]
        return (self.video, *self.images, *shown, *given, *([] if mask is None else [mask]))

    @property
    def part(self) -> Part:
        """The part of the video."""
        return Part(start=self.start, duration=self.duration, frames=self.frames, stride=self.stride, rate=self.fps)

    def _check_size(self) -> None:
        if self.size is None:
            return
        width, height = self.size
        if self.enlarges:
            raise UserError("--size is for edits: what is upscaled has the video's shape and a multiple of its size")
        if width < 1 or height < 1:
            raise UserError(f"--size {width}x{height}: both must be positive")
        if width * height > self.limits.max_pixels:
            raise UserError(f"--size {width}x{height}: more than {self.limits.max_pixels} pixels; raise --max-pixels")
        for path in self.outputs:
            if not self.compare and (width % 2 or height % 2) and needs_even_size(path):
                even = f"{width + width % 2}x{height + height % 2}"
                raise UserError(f"--size {width}x{height}: {path} needs even numbers, such as {even}")


def sidecar_of(output: str | Path) -> Path:
    """Where the settings of an output lie beside it: mars.mp4.json."""
    output = Path(output)
    return output.with_name(f"{output.name}.json")
