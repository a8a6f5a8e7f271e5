"""What the manifests of edits say, and who signs them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gen1_jax.editing.request import EditRequest
from gen1_jax.errors import UserError
from gen1_jax.media.provenance import Credentials, Provenance, holds_manifest, local_credentials, read_credentials

Files = tuple[str | Path, str | Path]
"""Certificates and key."""


def provenance_of(request: EditRequest, record: Mapping[str, Any] | None) -> Provenance | None:
    """The manifest of what a request writes; None if it is to have none.

    Args:
        request: of the edit.
        record: of the edit, or None for what was written on the way.

    Raises:
        UserError: the credentials cannot be read.
    """
    if not request.provenance:
        return None
    source, *inputs = request.inputs
    return Provenance(credentials=_credentials(request.credentials), source=source, inputs=tuple(inputs), record=record)


def check_provenance(request: EditRequest) -> None:
    """Refuses what would keep an edit from being signed by the credentials that were given for it.

    Raises:
        UserError: they cannot sign, or an output cannot hold a manifest.
    """
    if request.credentials is None or not request.provenance:
        return
    for path in request.outputs:
        if not holds_manifest(path):
            raise UserError(f"{path}: --credentials: such a file holds no C2PA manifest; mp4, mov, gif and png do")
    _credentials(request.credentials).check()


def signature_line(signed: bool, credentials: Files | None) -> str | None:
    """What to say of the signature of edits that are still to be made; None if they have none.

    Raises:
        UserError: the credentials cannot sign.
    """
    if not signed:
        return None
    who = "an identity of this machine, which identifies nobody"
    if credentials is not None:
        _credentials(credentials).check()
        who = "the credentials of whoever runs this page"
    return f"The file says, in a signed manifest (C2PA), that it was edited by generative AI and how; signed by {who}."


def _credentials(files: Files | None) -> Credentials:
    return local_credentials() if files is None else read_credentials(*files)
