"""Whether a file is as it was signed, by whom, and what it says of its making."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gen1_jax.media.errors import AnyPath
from gen1_jax.media.provenance.reading import ManifestElsewhere, UnreadableManifest, read_manifests
from gen1_jax.media.provenance.signing import EDIT

TRUSTED, VALID, INVALID, UNVERIFIED = "Trusted", "Valid", "Invalid", "Unverified"

_UNTRUSTED = "signingCredential.untrusted"


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What the manifest of a file says, and whether it holds. All texts are whoever's who signed it.

    Attributes:
        state: "Trusted": as it was signed, by somebody that a certificate given vouches for; "Valid": as it was signed,
            by anybody; "Invalid": changed since, or damaged; "Unverified": the manifest is not in the file.
        reasons: why it is not better than that, C2PA's code first; () of what is trusted.
        signed_by: organisation in the certificate of the signer, or None.
        certificate: its common name, or None.
        algorithm: of the signature, or None.
        generators: programs that made the claim, with versions.
        actions: what was done, in order: "c2pa.edited (compositeWithTrainedAlgorithmicMedia)".
        ingredients: what it was made from: "car.mp4 (parentOf)", and whether that had a manifest.
        edit: our own assertion, the settings of the edit, or None.
    """

    state: str
    reasons: tuple[str, ...] = ()
    signed_by: str | None = None
    certificate: str | None = None
    algorithm: str | None = None
    generators: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    ingredients: tuple[str, ...] = ()
    edit: Mapping[str, Any] | None = None


def verify(path: AnyPath, trust: bytes | None = None) -> Verification | None:
    """Verifies the manifest of a file, or of the first picture of a folder; None where there is none.

    Args:
        path: the file.
        trust: certificates in PEM; what they or those that they issued signed is trusted. None for nobody.

    Raises:
        MediaError: no such file.
    """
    try:
        store = read_manifests(path, trust=trust)
        return _told(store) if store else None
    except UnreadableManifest as error:
        state = UNVERIFIED if isinstance(error, ManifestElsewhere) else INVALID
        return Verification(state=state, reasons=(f"its manifest cannot be read: {error}",))
    except (AttributeError, KeyError, TypeError) as error:  # of another form than C2PA gives it
        return Verification(state=INVALID, reasons=(f"its manifest is no such thing ({type(error).__name__})",))


def _told(store: Mapping[str, Any]) -> Verification:
    manifest = store["manifests"][store["active_manifest"]]
    signature = manifest.get("signature_info") or {}
    assertions = manifest.get("assertions", [])
    actions = [
        action
        for assertion in assertions
        if assertion["label"].startswith("c2pa.actions")
        for action in assertion["data"]["actions"]
    ]
    return Verification(
        state=str(store.get("validation_state", INVALID)),
        reasons=tuple(dict.fromkeys(_reasons(store))),
        signed_by=signature.get("issuer"),
        certificate=signature.get("common_name"),
        algorithm=signature.get("alg"),
        generators=tuple(_named(program) for program in manifest.get("claim_generator_info", [])),
        actions=tuple(map(_action, actions)),
        ingredients=tuple(map(_ingredient, manifest.get("ingredients", []))),
        edit=next((_settings(assertion["data"]) for assertion in assertions if assertion["label"] == EDIT), None),
    )


def _settings(data: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        settings = json.loads(data["settings"])
    except (ValueError, RecursionError):
        return None
    return settings if isinstance(settings, dict) else None


def _reasons(store: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong, damage before a signer whom nobody vouches for."""
    for status in sorted(store.get("validation_status", []), key=lambda status: status["code"] == _UNTRUSTED):
        yield f"{status['code']}: {status['explanation']}" if status.get("explanation") else status["code"]


def _named(program: Mapping[str, Any]) -> str:
    return f"{program['name']} {program.get('version') or ''}".rstrip()


def _action(action: Mapping[str, Any]) -> str:
    kind = str(action.get("digitalSourceType", "")).rpartition("/")[2]
    return f"{action['action']} ({kind})" if kind else str(action["action"])


def _ingredient(ingredient: Mapping[str, Any]) -> str:
    had = "without a manifest"
    if ingredient.get("active_manifest"):
        wrong = ingredient.get("validation_results", {}).get("activeManifest", {}).get("failure", [])
        damaged = any(status["code"] != _UNTRUSTED for status in wrong)
        had = "with a manifest that did not hold" if damaged else "with a manifest"
    return f"{ingredient.get('title', '?')} ({ingredient.get('relationship', '?')}, {had})"


def signed_edit(path: AnyPath) -> str | None:
    """Our own assertion in the manifest of a file as JSON, whoever signed it and whether it holds or not; or None.

    Raises:
        MediaError: no such file.
    """
    try:
        store = read_manifests(path, verify=False)
        edit = _told(store).edit if store else None
    except (UnreadableManifest, AttributeError, KeyError, TypeError):
        return None
    return None if edit is None else json.dumps(edit)
