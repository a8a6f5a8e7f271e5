"""The manifests of a file that anybody may have made, as plain values."""

import json
from pathlib import Path
from typing import Any

from gen1_jax.errors import in_one_line
from gen1_jax.media.errors import AnyPath
from gen1_jax.media.files import existing_path
from gen1_jax.media.images import folder_pictures
from gen1_jax.media.provenance.library import context, has_store


class UnreadableManifest(Exception):
    """A file has a manifest that cannot be read. The message is why."""


class ManifestElsewhere(UnreadableManifest):
    """It is not in the file, which only says where it lies."""


def read_manifests(path: AnyPath, *, trust: bytes | None = None, verify: bool = True) -> dict[str, Any]:
    """The store of manifests of a file, as the library tells it; {} where there is none.

    Of a folder of pictures it is that of the first one. Nothing is fetched from anywhere.

    Args:
        path: the file.
        trust: certificates in PEM, see `context`.
        verify: whether signatures and hashes are looked at; the whole file is read then.

    Raises:
        UnreadableManifest: there is one, but damaged, or elsewhere (`ManifestElsewhere`).
        MediaError: no such file.
    """
    import c2pa

    local = existing_path(path)
    if local.is_dir():
        pictures = folder_pictures(local)
        return read_manifests(pictures[0], trust=trust, verify=verify) if pictures else {}
    try:
        with local.open("rb") as file:
            reader = c2pa.Reader.try_create(None, file, None, context(trust=trust, verify=verify))
            if reader is None:
                return {}
            with reader:
                return json.loads(reader.json())
    except (c2pa.C2paError, ValueError, RecursionError) as error:
        why = in_one_line(error, 200)
        if why.startswith("Remote"):
            raise ManifestElsewhere("it lies elsewhere, and nothing is fetched") from None
        if _has_store(local):
            raise UnreadableManifest(f"it is damaged: {why}") from None
        return {}  # a kind of file that C2PA does not know, or a damaged one without any


def _has_store(local: Path) -> bool:
    return local.stat().st_size > 0 and has_store(local)
