"""Who signs: a key and the certificates that vouch for it, of files or made once for this user.

The identity that is made here is its own authority, so it identifies nobody, and says so in its name: it shows that a
file has not changed since it was written, and which files one identity has signed, but not who did.

FOLDER/identity/key.pem            the key, readable by its user alone
FOLDER/identity/certificates.pem   its certificate, and that of the authority that issued it, whose key is not kept
"""

import datetime
import functools
import io
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen1_jax.errors import UserError, in_one_line
from gen1_jax.files import replacing
from gen1_jax.media.errors import AnyPath, shown
from gen1_jax.media.provenance.library import context

if TYPE_CHECKING:
    import c2pa

SELF_SIGNED = "gen1_jax (self-signed, identifies nobody)"
"""The organisation in the certificates that are made here, which every reader of manifests shows."""

_YEARS = 30  # after its certificate has ended a file would no longer verify
_LARGEST = 2**20  # bytes of a file of certificates
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """A key and its certificates.

    Attributes:
        certificates: PEM, that of the key first, then who issued it, and so on.
        key: PEM, PKCS 8, not encrypted; never shown.
        algorithm: C2PA's name of how it signs: es256, es384, es512, ed25519 or ps256.
    """

    certificates: bytes
    key: bytes = field(repr=False)
    algorithm: str

    def signer(self) -> "c2pa.Signer":
        """For the library. It asks no time server, so a signature says nothing of when it was made."""
        import c2pa

        info = c2pa.C2paSignerInfo(self.algorithm.encode(), self.certificates, self.key, None)
        return c2pa.Signer.from_info(info)

    def check(self) -> None:
        """Signs a small picture, for what is wrong with a certificate should be known before the work.

        Raises:
            UserError: the library refuses them.
        """
        import c2pa
        from PIL import Image

        picture = io.BytesIO()
        Image.new("RGB", (8, 8)).save(picture, "PNG")
        picture.seek(0)
        created = {"action": "c2pa.created", "digitalSourceType": "http://c2pa.org/digitalsourcetype/empty"}
        claim = {"assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}]}
        try:
            with c2pa.Builder(json.dumps(claim), context()) as builder, self.signer() as signer:
                builder.sign(signer, "image/png", picture, io.BytesIO())
        except c2pa.C2paError as error:
            raise UserError(f"--credentials: they cannot sign ({in_one_line(error, 300)})") from None


def read_credentials(certificates: AnyPath, key: AnyPath) -> Credentials:
    """The credentials in two PEM files.

    Raises:
        UserError: a file cannot be read, they do not belong together, or are of a kind that C2PA does not know.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    chain, secret = _read(certificates), _read(key)
    try:
        private = serialization.load_pem_private_key(secret, password=None)
    except TypeError:
        raise UserError(f"{shown(key)}: the key is encrypted; give it decrypted (openssl pkey)") from None
    except Exception:  # and no word of what is in it
        raise UserError(f"{shown(key)}: not a private key in PEM") from None
    try:
        first = x509.load_pem_x509_certificates(chain)[0]
    except Exception as error:
        raise UserError(f"{shown(certificates)}: no certificate in PEM ({in_one_line(error, 80)})") from None
    encoding, public = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    own, certified = (each.public_key().public_bytes(encoding, public) for each in (private, first))
    if own != certified:
        raise UserError(f"{shown(certificates)}: its first certificate is not that of {shown(key)}")
    return Credentials(
        certificates=b"".join(_CERTIFICATE.findall(chain)), key=_pem(private), algorithm=_algorithm(key, private)
    )


def read_certificates(path: AnyPath) -> bytes:
    """The certificates in a PEM file, and nothing else of it.

    Raises:
        UserError: it cannot be read, or has none.
    """
    found = b"".join(_CERTIFICATE.findall(_read(path)))
    if not found:
        raise UserError(f"{shown(path)}: no certificate in PEM")
    return found


def local_credentials(folder: Path | None = None) -> Credentials:
    """The identity of this user, made at its first use; one for this process alone where it cannot be kept.

    Args:
        folder: where it is kept; None for the user's folder of settings (on Linux ~/.config/gen1_jax).
    """
    try:
        home = (folder or _settings_folder()) / "identity"
        if not home.is_dir():
            _keep(home, _self_signed())
        return Credentials(
            certificates=(home / "certificates.pem").read_bytes(),
            key=(home / "key.pem").read_bytes(),
            algorithm="es256",
        )
    except (OSError, RuntimeError):  # no home, or one that cannot be written to
        return _of_this_process()


def _settings_folder() -> Path:
    import platformdirs

    return platformdirs.user_config_path("gen1_jax", appauthor=False)


def _keep(home: Path, made: Credentials) -> None:
    """Both files appear at one moment; of two processes that make an identity at once, the first one's stays."""
    home.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(home) as beside:
            beside.mkdir(mode=0o700)
            (beside / "certificates.pem").write_bytes(made.certificates)
            key = os.open(beside / "key.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(key, "wb") as file:
                file.write(made.key)
    except OSError:
        if not home.is_dir():
            raise


@functools.cache
def _of_this_process() -> Credentials:
    return _self_signed()


def _self_signed() -> Credentials:
    """A key, its certificate and that of an authority, as C2PA wants them: one that issues itself is refused."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)  # clocks differ

    def certificate(of: ec.EllipticCurvePrivateKey, role: str) -> x509.Certificate:
        name = lambda text: x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, SELF_SIGNED),
                x509.NameAttribute(NameOID.COMMON_NAME, f"gen1_jax local {text}"),
            ]
        )
        issues = of is authority
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
        )
        usage |= {"decipher_only": False, "digital_signature": not issues, "key_cert_sign": issues, "crl_sign": issues}
        builder = (
            x509.CertificateBuilder(name("authority"), name(role), of.public_key(), x509.random_serial_number())
            .not_valid_before(since)
            .not_valid_after(since + datetime.timedelta(days=365 * _YEARS))
            .add_extension(x509.BasicConstraints(ca=issues, path_length=0 if issues else None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(of.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
        )
        if not issues:
            purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])  # one of those that C2PA takes
            builder = builder.add_extension(purpose, critical=False)
        return builder.sign(authority, hashes.SHA256())

    from cryptography.hazmat.primitives.serialization import Encoding

    chain = certificate(key, "signer"), certificate(authority, "authority")
    return Credentials(
        certificates=b"".join(each.public_bytes(Encoding.PEM) for each in chain), key=_pem(key), algorithm="es256"
    )


def _pem(private: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _algorithm(path: AnyPath, private: Any) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(private, ec.EllipticCurvePrivateKey):
        curves = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
        if private.curve.name in curves:
            return curves[private.curve.name]
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size >= 2048:
        return "ps256"
    raise UserError(
        f"{shown(path)}: C2PA takes keys of the curves P-256, P-384, P-521, Ed25519, and RSA of 2048 bits or more"
    )


def _read(path: AnyPath) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        raise UserError(f"{shown(path)}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if len(data) > _LARGEST:
        raise UserError(f"{shown(path)}: too large for certificates or a key in PEM")
    return data
