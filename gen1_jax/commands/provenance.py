"""Who signs what is written, and what `gen1 info` tells of a file."""

import argparse
import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gen1_jax.commands.common import report

if TYPE_CHECKING:
    from gen1_jax.media.provenance import Verification


def add_provenance(parser: argparse.ArgumentParser) -> None:
    """Declare who signs."""
    group = parser.add_argument_group(
        "provenance", "mp4, mov, gif, png, jpg and webp are signed: a C2PA manifest says what was edited, and by what"
    )
    group.add_argument(
        "--credentials",
        nargs=2,
        metavar=("CERT.pem", "KEY.pem"),
        help="the certificates and the key to sign with (an identity made for this user, which identifies nobody)",
    )
    group.add_argument("--no-provenance", action="store_true", help="write no manifest")


def provenance_options(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_provenance` declared, as fields of a request.

    Raises:
        UserError: credentials, and nothing to sign.
    """
    from gen1_jax.errors import UserError

    if args.credentials is not None and args.no_provenance:
        raise UserError("--credentials are for a manifest, and --no-provenance writes none: give one of them")
    credentials = None if args.credentials is None else tuple(args.credentials)
    return {"provenance": not args.no_provenance, "credentials": credentials}


def info_of_file(path: str, trust: str | None, *, as_json: bool) -> None:
    """Prints who signed a file and whether that holds, and the settings of the edit that it is, if it is one.

    Raises:
        UserError: it has neither manifest nor settings, or `trust` is no certificate.
    """
    from gen1_jax.editing.record import NoRecord, read_record
    from gen1_jax.errors import UserError
    from gen1_jax.media.provenance import read_certificates, verify

    anchors = None if trust is None else read_certificates(trust)
    found = None if path.lower().endswith(".json") else verify(path, anchors)
    record, damaged = {}, []
    try:
        record = read_record(path)
    except NoRecord:
        if found is None:
            raise UserError(f"{path}: has neither a manifest (C2PA) nor the settings of an edit in it") from None
    except UserError as error:
        if found is None:
            raise
        damaged = [("settings", str(error))]
    provenance = None if found is None else {**dataclasses.asdict(found), "edit": found.edit}
    lines = [*_provenance(path, found), *_settings(record), *damaged]
    report({**record, "provenance": provenance}, as_json, "\n".join(f"{name:24}{value}" for name, value in lines))


def _provenance(path: str, found: "Verification | None") -> Iterator[tuple[str, str]]:
    from gen1_jax.media.errors import shown
    from gen1_jax.media.provenance import holds_manifest

    if found is None:
        why = "it is not signed" if holds_manifest(path) else "a file of this kind holds no manifest"
        yield "provenance", f"None: {why}"
        return
    yield "provenance", f"{found.state}: {_MEANING[found.state]}"
    rows = [("", found.reasons), ("signed by", (found.signed_by, found.certificate, found.algorithm))]
    rows += [("made by", found.generators), ("actions", found.actions), ("made from", found.ingredients)]
    for name, values in rows:
        told = [shown(value) for value in values if value]
        if name == "signed by":
            told = [", ".join(told)] if told else []
        for number, value in enumerate(told):
            yield "" if number else name, value


_MEANING = {
    "Trusted": "not changed since it was signed, by somebody for whom --trust vouches",
    "Valid": "not changed since it was signed; nobody vouches for who signed it",
    "Invalid": "changed since it was signed, or damaged",
    "Unverified": "what is in the file does not suffice",
}


def _settings(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What a record says, without what it leaves open."""
    for name, value in record.items():
        if name == "versions":
            yield from value.items()
        elif value is not None and name != "record":
            yield name, value
