"""What the manifests of edits say, and who signs them."""

from collections.abc import Mapping
from typing import Any

from gen1_jax.editing.request import EditRequest
from gen1_jax.errors import UserError
from gen1_jax.media.provenance import Provenance, holds_manifest, local_credentials, read_credentials


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
    given = request.credentials
    return Provenance(
        credentials=local_credentials() if given is None else read_credentials(*given),
        source=request.video,
        inputs=(*request.images, *(path for _, path in request.structure_from)),
        record=record,
    )


def check_provenance(request: EditRequest) -> None:
    """Refuses what would keep an edit from being signed by the credentials that were given for it.

    Raises:
        UserError: they cannot sign, or an output cannot hold a manifest.
    """
    if request.credentials is None:
        return
    for path in request.outputs:
        if not holds_manifest(path):
            raise UserError(f"{path}: --credentials: such a file holds no C2PA manifest; mp4, mov, gif and png do")
    provenance_of(request, None).check()
