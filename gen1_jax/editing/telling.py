"""What the files of a request tell a model of the content: its pictures, its texts, and the video itself."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from gen1_jax.editing.content import Pictures
from gen1_jax.editing.contents import ContentUse, following_sound
from gen1_jax.editing.inputs import to_pictures
from gen1_jax.editing.masks.regions import contents_of
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.request import EditRequest
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.source import Source
from gen1_jax.models.conditions import Conditions


@dataclasses.dataclass(frozen=True)
class Telling:
    """What was read of a request's files.

    Attributes:
        request: of the edit.
        pictures: of its `image`.
        contents: several in their place, with their pictures.
    """

    request: EditRequest
    pictures: Pictures
    contents: Sequence[ContentUse]

    @classmethod
    def of(cls, request: EditRequest) -> "Telling":
        """Reads the pictures of a request.

        Raises:
            MediaError: one cannot be read, or is beyond the limits.
        """
        pictures = to_pictures(request.images, request.limits)
        return cls(request, pictures, [use.read(request.limits) for use in request.contents])

    def encoded(self, pipeline: Gen1Pipeline, settings: EditSettings) -> tuple[Conditions | None, Conditions | None]:
        """What is told of the mask's inside, and of all else, see `contents_of`; None of a video that shows it itself.

        Raises:
            UserError: see `contents_of`.
        """
        request = self.request
        if self._shows_itself:
            return None, None
        told = (request.prompt, self.pictures, settings, request.negative_prompt, request.background, self.contents)
        return contents_of(pipeline, *told)

    def with_source(self, content: Conditions | None, pipeline: Gen1Pipeline, source: Source) -> Conditions | None:
        """The same with what the video says: its sound, and where nothing else says what it shows, its first frame.

        Raises:
            UserError: a content follows a sound that there is not.
        """
        if self._shows_itself:
            content = pipeline.content_of(np.stack([*itertools.islice(source.frames, 1)]))
        return following_sound(content, self.contents, self.request.video, source.times, source.end)

    @property
    def _shows_itself(self) -> bool:
        return self.request.enlarges and not self.request.is_told
