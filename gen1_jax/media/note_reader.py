"""Reading the note that travels inside a video or picture, see `notes`."""

from gen1_jax.media.container import open_container
from gen1_jax.media.errors import DEFAULT_LIMITS, AnyPath, Limits, blaming
from gen1_jax.media.files import existing_path, regular_file
from gen1_jax.media.images import READABLE_SUFFIXES, folder_pictures, open_image
from gen1_jax.media.notes import of_picture, of_texts


def read_note(path: AnyPath, limits: Limits = DEFAULT_LIMITS) -> str | None:
    """The note in a video, a picture or a folder of pictures; None if there is none.

    Raises:
        MediaError: no such file, or not a video or picture that can be read.
    """
    local = existing_path(path)
    if local.is_dir():
        pictures = folder_pictures(local)
        return read_note(pictures[0], limits) if pictures else None
    regular_file(path, limits)
    if local.suffix.lower() in READABLE_SUFFIXES:
        with blaming(path, "not a picture that can be read"), open_image(local) as image:
            return of_picture(image)
    with open_container(path, local) as container:
        return of_texts(container.metadata.values())
