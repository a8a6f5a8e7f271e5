"""Whether the owner of a file forbids that models are trained on it, in any of the ways that machines can read.

C2PA        cawg.training-mining, or c2pa.training-mining as it was called: an entry for training or mining that is not
            "allowed", in the manifest of the file or in that of anything that it was made from
IPTC, XMP   plus:DataMining, IPTC's "Data Mining" property of pictures and videos, with any of PLUS's prohibitions; or
            tdm:reservation, of the W3C's group on text and data mining
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from gen1_jax.media.container import open_container
from gen1_jax.media.errors import AnyPath, MediaError
from gen1_jax.media.files import existing_path
from gen1_jax.media.images import FORMATS, folder_pictures, open_image
from gen1_jax.media.provenance.reading import UnreadableManifest, read_manifests

C2PA, XMP = "training forbidden by C2PA", "training forbidden by IPTC or XMP"
UNREADABLE = "manifest that cannot be read"
"""What there is to say of a file that is not to be trained on."""

_TRAINING = {"ai_generative_training", "ai_training", "data_mining"}  # and not "ai_inference", which is another matter
_XMP_OF_TIFF = 700
_LARGEST = 4 * 2**20  # characters of a packet of XMP that are looked at
_PROHIBITED = re.compile(r"ns\.useplus\.org/ldf/vocab/DMI-PROHIBITED", re.IGNORECASE)
_RESERVED = re.compile(r"\btdm:reservation\s*(?:=\s*[\"']|>)\s*1\b")


def training_opt_out(path: AnyPath) -> str | None:
    """What a file says against being trained on (`C2PA` or `XMP`), or None.

    `UNREADABLE` is a manifest that is damaged, or lies elsewhere: whether its owner forbids it, nobody knows. A folder
    of pictures says what any of them does. No signature is looked at: a no counts, whoever said it.

    Raises:
        MediaError: no such file.
    """
    local = existing_path(path)
    if local.is_dir():
        return next(filter(None, map(training_opt_out, folder_pictures(local))), None)
    try:
        found = any(_forbids(entry) for entry in _entries(read_manifests(local, verify=False)))
    except UnreadableManifest:
        return XMP if _xmp_forbids(local) else UNREADABLE
    if found:
        return C2PA
    return XMP if _xmp_forbids(local) else None


def _entries(store: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The entries of all assertions on training and mining, of all manifests."""
    for manifest in store.get("manifests", {}).values():
        for assertion in manifest.get("assertions", []):
            if re.match(r"(cawg|c2pa)\.training-mining\b", str(assertion.get("label"))):
                data = assertion.get("data")
                entries = data.get("entries") if isinstance(data, dict) else None
                yield from entries.items() if isinstance(entries, dict) else ()


def _forbids(entry: tuple[str, Any]) -> bool:
    name, said = entry
    use = said.get("use") if isinstance(said, dict) else said
    return name.rpartition(".")[2] in _TRAINING and use != "allowed"  # "constrained" has terms that we cannot judge


def _xmp_forbids(local: Path) -> bool:
    packet = _packet(local)[:_LARGEST]
    return bool(_PROHIBITED.search(packet) or _RESERVED.search(packet))


def _packet(local: Path) -> str:
    """The XMP of a picture or a video; "" where there is none, or of a file that cannot be read."""
    try:
        with open_image(local, (*FORMATS, "GIF")) as image:
            packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or _tag(image) or b""
            return packet if isinstance(packet, str) else bytes(packet).decode("utf-8", "replace")
    except Exception:  # no picture, or one that its reader will complain of
        pass
    try:
        with open_container(local, local, probe=False, xmp=True) as container:
            return container.metadata.get("xmp", "")
    except MediaError:
        return ""


def _tag(image: Image.Image) -> bytes | str | None:
    """Of a TIFF."""
    return getattr(image, "tag_v2", {}).get(_XMP_OF_TIFF)
