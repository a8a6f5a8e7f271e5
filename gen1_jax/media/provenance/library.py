"""The C2PA library, imported when it is first needed, and such that it asks no network for anything."""

import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen1_jax.media.errors import AnyPath
from gen1_jax.media.files import is_folder

if TYPE_CHECKING:
    import c2pa

FORMATS = {
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".gif": "image/gif",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
}
"""Media types of the files of ours that can hold a manifest: C2PA has no place for one in Matroska and WebM."""

_HELD = 32  # MiB of a file in memory, the rest of it in a temporary file

# What begins a store of manifests in any container: the type of its outermost JUMBF box (ISO/IEC 19566-5).
_STORE = bytes.fromhex("6332706100110010800000AA00389B71")


def holds_manifest(path: AnyPath) -> bool:
    """Whether a file of this name can hold a manifest; of a folder "NAME/" its pictures can."""
    return is_folder(path) or Path(path).suffix.lower() in FORMATS


def context(*, trust: bytes | None = None, verify: bool = True) -> "c2pa.Context":
    """How the library works for us: it fetches neither manifests that lie elsewhere, nor revocation lists, nor
    identities, and makes no thumbnails, which would show inputs to whoever has the output.

    Args:
        trust: certificates in PEM; whoever they or what they issued signed is trusted. None for nobody.
        verify: what is read, and what was signed.
    """
    import c2pa

    settings: dict[str, Any] = {
        "verify": {
            "remote_manifest_fetch": False,
            "ocsp_fetch": False,
            "verify_after_reading": verify,
            "verify_after_sign": verify,
        },
        # Identities (CAWG) are not decoded: they may name a host, for which the list of hosts does not count.
        "core": {
            "allowed_network_hosts": [],
            "decode_identity_assertions": False,
            "backing_store_memory_threshold_in_mb": _HELD,
        },
        "builder": {"thumbnail": {"enabled": False}},
    }
    if trust is not None:
        settings["trust"] = {"user_anchors": trust.decode()}
    return c2pa.Context.from_dict(settings)


def has_store(path: Path) -> bool:
    """Whether there is a store of manifests somewhere in a file, readable or not."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(_STORE) >= 0
