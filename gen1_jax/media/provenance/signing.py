"""Writing a manifest into a file that is finished, before it is put in its place.

the file, and its inputs ──► C2PA library ──► the same file with its manifest ──rename──► the file
                              opened(source), edited(digitalSourceType, inputs), our own assertion
"""

import dataclasses
import functools
import io
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from gen1_jax.errors import in_one_line
from gen1_jax.media.errors import AnyPath, shown
from gen1_jax.media.provenance.identity import Credentials
from gen1_jax.media.provenance.library import FORMATS, context
from gen1_jax.versions import versions

EDIT = "org.gen1-jax.edit"
"""The label of our own assertion: the settings of the edit, JSON in its entry "settings"."""

_EDITED = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's name for what generative AI has edited."""

_SOURCE = "source"
_PROGRAM = "gen1-jax"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """What is said of an edit in the manifest of its file, and who signs it.

    Attributes:
        credentials: of the signer.
        source: what was edited, told by its name; where it has a manifest, that comes along.
        inputs: what else it was made from, pictures say.
        record: settings of the edit, JSON values, or None.
    """

    credentials: Credentials
    source: AnyPath
    inputs: tuple[AnyPath, ...] = ()
    record: Mapping[str, Any] | None = None

    def sign(self, path: Path, name: AnyPath) -> None:
        """Puts a manifest into a file, where it can hold one. It is never lost: if that fails, a warning says why.

        Args:
            path: the file, which is replaced.
            name: what it will be called, for the warning.
        """
        media_type = FORMATS.get(path.suffix.lower())
        if media_type is None:
            return
        signed = path.with_name(f".{path.name}.signed")  # hidden, and short enough beside a name of PendingOutput
        try:
            with path.open("rb") as source, signed.open("w+b") as target:
                self._sign(source, target, media_type)
            os.replace(signed, path)
        except Exception as error:  # of the library, of a full disk
            warnings.warn(f"{shown(name)}: has no manifest, signing failed ({in_one_line(error, 200)})", stacklevel=2)
        finally:
            signed.unlink(missing_ok=True)

    def _sign(self, source: BinaryIO, target: BinaryIO, media_type: str) -> None:
        import c2pa

        with c2pa.Builder(json.dumps(self._definition), context(verify=False)) as builder:
            for archive in self._ingredients[1]:
                builder.add_ingredient_from_archive(io.BytesIO(archive))
            with self.credentials.signer() as signer:
                builder.sign(signer, media_type, source, target)

    @functools.cached_property
    def _definition(self) -> dict[str, Any]:
        plain, _ = self._ingredients
        program = {"name": _PROGRAM, "version": versions((_PROGRAM,))[_PROGRAM]}
        edited: dict[str, Any] = {"action": "c2pa.edited", "digitalSourceType": _EDITED, "softwareAgent": program}
        if self.inputs:
            edited["parameters"] = {"ingredientIds": [_input(number) for number in range(len(self.inputs))]}
        actions = [{"action": "c2pa.opened", "parameters": {"ingredientIds": [_SOURCE]}}, edited]
        assertions: list[dict[str, Any]] = [{"label": "c2pa.actions.v2", "data": {"actions": actions}}]
        if self.record is not None:
            # As text, for the library tells lists of numbers as if they were bytes.
            settings = json.dumps(self.record, ensure_ascii=False)
            assertions.append({"label": EDIT, "data": {"settings": settings}})
        return {"claim_generator_info": [program], "ingredients": plain, "assertions": assertions}

    @functools.cached_property
    def _ingredients(self) -> tuple[list[dict[str, str]], list[bytes]]:
        """Those told by their names alone, and those read by the library, kept: a folder's pictures share them."""
        named: list[dict[str, str]] = []
        read: list[bytes] = []
        whole = [(self.source, _SOURCE, "parentOf")]
        whole += [(path, _input(number), "inputTo") for number, path in enumerate(self.inputs)]
        for path, label, relationship in whole:
            told = {"title": Path(path).name, "relationship": relationship, "label": label}
            archive = _archive(Path(path), told)
            if archive is None:
                named.append(told)
            else:
                read.append(archive)
        return named, read


def _input(number: int) -> str:
    return f"input_{number}"


def _archive(path: Path, told: dict[str, str]) -> bytes | None:
    """What the library makes of an input; None of a folder, a kind that C2PA does not know, or a damaged manifest."""
    import c2pa

    if not path.is_file():
        return None
    try:
        with c2pa.Builder("{}", context()) as builder, path.open("rb") as file:
            builder.add_ingredient(told, FORMATS.get(path.suffix.lower(), path.suffix.lower().lstrip(".")), file)
            archive = io.BytesIO()
            builder.write_ingredient_archive(told["label"], archive)
            return archive.getvalue()
    except c2pa.C2paError:
        return None
