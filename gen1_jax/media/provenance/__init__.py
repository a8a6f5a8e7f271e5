"""C2PA manifests: what a file says of how it was made, signed and verified by the C2PA library; owners' opt-outs."""

from gen1_jax.media.provenance.identity import Credentials, local_credentials, read_certificates, read_credentials
from gen1_jax.media.provenance.library import holds_manifest
from gen1_jax.media.provenance.opt_outs import training_opt_out
from gen1_jax.media.provenance.signing import EDIT, Provenance
from gen1_jax.media.provenance.verification import Verification, signed_edit, verify

__all__ = [
    "EDIT",
    "Credentials",
    "Provenance",
    "Verification",
    "holds_manifest",
    "local_credentials",
    "read_certificates",
    "read_credentials",
    "signed_edit",
    "training_opt_out",
    "verify",
]
