"""The models that a page serves: one that edits, and where it is there one that enlarges."""

import dataclasses
import warnings

from gen1_jax.checkpoints.trained import open_trained
from gen1_jax.editing.content import line_of_unknown
from gen1_jax.editing.enlarging import scale_of
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.request import EditRequest
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.upscale_clip import upscale_settings
from gen1_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ServedModels:
    """Both.

    Attributes:
        editor: makes edits.
        upscaler: enlarges edits and clips, or None.
    """

    editor: Gen1Pipeline
    upscaler: Gen1Pipeline | None = None

    @classmethod
    def opened(cls, model: str, upscaler: str | None = None) -> "ServedModels":
        """Models by name or folder; their networks are read when they are first needed.

        Raises:
            FolderError, LayoutError, CheckpointError: there is no such model, or it is damaged.
            UserError: one cannot do what it is there for.
        """
        models = cls(_opened(model), None if upscaler is None else _opened(upscaler))
        if scale_of(models.editor.config) is not None:
            raise UserError(f"--model {model} enlarges videos: name it with --upscaler, beside one that edits")
        if upscaler is not None and models.scale is None:
            raise UserError(f"--upscaler {upscaler} does not enlarge videos; see gen1 upscale --help")
        return models

    @property
    def scale(self) -> int | None:
        """How many times as large the upscaler makes what it is given; None without one."""
        return None if self.upscaler is None else scale_of(self.upscaler.config)

    @property
    def checked_scale(self) -> int:
        """The same where something is to be enlarged.

        Raises:
            UserError: nothing enlarges.
        """
        if self.scale is None:
            raise UserError("nothing here enlarges videos: gen1 app --upscaler DIR names a model that does")
        return self.scale

    @property
    def warning(self) -> str | None:
        """One line that every visitor should see, or None."""
        sources = [pipeline.source for pipeline in (self.editor, self.upscaler) if pipeline is not None]
        lines = [
            line
            for source in sources
            for line in (source.warning, source.config.caution and f"{source.name}: {source.config.caution}")
        ]
        return " · ".join(filter(None, lines)) or None

    def of(self, request: EditRequest) -> Gen1Pipeline:
        """The one that makes what is asked for."""
        return self.upscaler if request.enlarges else self.editor

    def unknown(self, request: EditRequest) -> str | None:
        """One line about words of a request that its model has never seen, or None."""
        prompts = (request.prompt, request.background, *(use.prompt for use in request.contents))
        return line_of_unknown(self.of(request).source, *filter(None, prompts))

    def unsaid(self, request: EditRequest) -> EditSettings:
        """What a command would do that says no more than the sampler; where that is not the model's own, it says so."""
        config, plain = self.of(request).config, upscale_settings() if request.enlarges else EditSettings()
        follow = dataclasses.replace(plain, sampler=request.settings.sampler).of(config)
        return dataclasses.replace(follow, sampler=plain.of(config).sampler)


def _opened(model: str) -> Gen1Pipeline:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the page shows it
        return Gen1Pipeline(open_trained(model))
