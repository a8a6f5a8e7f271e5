"""Manifests: signed in every kind of file that can hold one, verified by the C2PA library, opt-outs of owners."""

import datetime
import http.server
import json
import stat
import struct
import threading
import warnings
from dataclasses import replace

import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from media_files import picture
from PIL import Image

from gen1_jax.errors import UserError
from gen1_jax.media import VideoWriter, load_video, read_note, write_image
from gen1_jax.media.provenance import (
    Provenance,
    local_credentials,
    read_certificates,
    read_credentials,
    training_opt_out,
    verify,
)
from gen1_jax.media.provenance.library import context
from gen1_jax.media.provenance.opt_outs import C2PA, UNREADABLE, XMP

RECORD = {"record": 1, "prompt": "a naïve car", "seed": 7, "guidance_scale": 2.0, "image": None, "interval": [0.0, 1.0]}
FRAMES = np.stack([picture(number, 64, 48) for number in range(3)])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "source.mp4"
    return write(path)


def write(path, provenance=None, note=None):
    if str(path).endswith((".png", ".jpg", ".webp")):
        write_image(path, FRAMES[0], provenance=provenance, note=note)
        return path
    height, width = FRAMES.shape[1:3]
    with VideoWriter(path, width=width, height=height, frame_rate=8, provenance=provenance, note=note) as writer:
        for frame in FRAMES:
            writer.write(frame)
    return path


def provenance(source, **more):
    return Provenance(credentials=local_credentials(), source=source, record=RECORD, **more)


def change_a_byte(path):
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)


def anchors(credentials, which=slice(None)):
    certificates = credentials.certificates.split(b"-----END CERTIFICATE-----\n")[:-1]
    return b"".join(each + b"-----END CERTIFICATE-----\n" for each in certificates[which])


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".gif", ".png", ".jpg", ".webp"])
def test_what_is_signed_is_valid_and_otherwise_the_same(tmp_path, source, suffix):
    plain = write(tmp_path / f"plain{suffix}", note="a note")
    signed = write(tmp_path / f"signed{suffix}", provenance(source, inputs=(source,)), note="a note")
    assert np.array_equal(load_video(signed), load_video(plain)) and read_note(signed) == read_note(plain)
    assert sorted(path.name for path in tmp_path.iterdir()) == [plain.name, signed.name]  # and nothing beside them

    found = verify(signed)
    assert (found.state, found.edit) == ("Valid", RECORD)
    assert [reason.split(":")[0] for reason in found.reasons] == ["signingCredential.untrusted"]
    assert "identifies nobody" in found.signed_by and found.generators[0].startswith("gen1-jax ")
    assert found.actions == ("c2pa.opened", "c2pa.edited (compositeWithTrainedAlgorithmicMedia)")
    assert [name.split(",")[0] for name in found.ingredients] == ["source.mp4 (parentOf", "source.mp4 (inputTo"]

    trusted = verify(signed, anchors(local_credentials(), slice(1, None)))  # the authority alone
    assert (trusted.state, trusted.reasons) == ("Trusted", ())
    assert verify(plain) is None

    with c2pa.Reader(str(signed), context=context()) as reader:  # what others see
        manifest = reader.get_active_manifest()
        assert reader.get_validation_state() == "Valid"
    assert "thumbnail" not in manifest and "thumbnail" not in manifest["ingredients"][0]


def test_what_c2pa_has_no_place_for_stays_as_it_is(tmp_path, source):
    for suffix in (".mkv", ".webm"):
        assert verify(write(tmp_path / f"a{suffix}", provenance(source))) is None


def test_each_picture_of_a_folder_is_signed(tmp_path, source):
    folder = write(f"{tmp_path}/frames/", provenance(source))
    assert [verify(path).state for path in sorted((tmp_path / "frames").iterdir())] == ["Valid"] * 3
    assert verify(folder).edit == RECORD


def test_one_changed_byte_is_noticed(tmp_path, source):
    for suffix in (".mp4", ".png"):
        path = write(tmp_path / f"a{suffix}", provenance(source))
        change_a_byte(path)
        found = verify(path, anchors(local_credentials()))
        assert found.state == "Invalid" and "mismatch" in found.reasons[0]


def test_the_manifest_of_an_input_comes_along(tmp_path, source):
    first = write(tmp_path / "first.png", provenance(source))
    second = verify(write(tmp_path / "second.png", provenance(first)))
    assert second.state == "Valid" and second.ingredients == ("first.png (parentOf, with a manifest)",)
    change_a_byte(first)
    third = verify(write(tmp_path / "third.png", provenance(first)))
    assert third.state == "Valid" and third.ingredients == ("first.png (parentOf, with a manifest that did not hold)",)


def test_inputs_that_the_library_cannot_read_are_told_by_their_names(tmp_path, source):
    data = write(tmp_path / "torn.png", provenance(source)).read_bytes()
    (tmp_path / "torn.png").write_bytes(data.replace(b"c2pa.assertions", b"c2pa.xxxertions"))
    matroska = write(tmp_path / "a.mkv")
    found = verify(write(tmp_path / "a.png", provenance(tmp_path, inputs=(matroska, tmp_path / "torn.png"))))
    assert found.state == "Valid"
    assert {name.split(" (")[0] for name in found.ingredients} == {tmp_path.name, "a.mkv", "torn.png"}


def test_an_identity_is_made_once_and_its_key_is_for_its_user_alone(tmp_path):
    first = local_credentials(tmp_path)
    assert local_credentials(tmp_path) == first != local_credentials(tmp_path / "another")
    assert stat.S_IMODE((tmp_path / "identity" / "key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "identity").stat().st_mode) == 0o700
    assert "PRIVATE" not in repr(first)
    file = tmp_path / "file"
    file.touch()
    unkept = local_credentials(file)  # no folder can be made there
    assert unkept == local_credentials(file) and "PRIVATE" in unkept.key.decode()


def test_a_file_is_not_lost_if_it_cannot_be_signed(tmp_path, source):
    broken = replace(provenance(source), credentials=replace(local_credentials(), key=b"no key"))
    with pytest.warns(UserWarning, match=r"a\.png: has no manifest, signing failed"):
        path = write(tmp_path / "a.png", broken)
    assert verify(path) is None and [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_credentials_of_files(tmp_path):
    own = local_credentials(tmp_path)
    chain, key = (tmp_path / "identity" / name for name in ("certificates.pem", "key.pem"))
    read = read_credentials(chain, key)
    assert read == own
    read.check()

    def refused(chain, key, *words):
        with pytest.raises(UserError) as error:
            read_credentials(chain, key).check()
        assert all(word in str(error.value) for word in words) and "\n" not in str(error.value), error.value
        assert "PRIVATE" not in str(error.value)

    refused(tmp_path / "none.pem", key, "none.pem", "No such file")
    refused(key, key, "key.pem", "no certificate")
    refused(chain, chain, "certificates.pem", "not a private key")
    other = tmp_path / "other.pem"
    other.write_bytes(local_credentials(tmp_path / "other").key)
    refused(chain, other, "is not that of", "other.pem")
    secret = serialization.load_pem_private_key(own.key, None)
    encrypted = serialization.BestAvailableEncryption(b"secret")
    pkcs8 = serialization.PrivateFormat.PKCS8
    other.write_bytes(secret.private_bytes(serialization.Encoding.PEM, pkcs8, encrypted))
    refused(chain, other, "encrypted")
    alone = tmp_path / "alone.pem"
    alone.write_bytes(certificate_of(secret))
    refused(alone, key, "they cannot sign")
    with pytest.raises(UserError, match="no certificate"):
        read_certificates(key)


def certificate_of(key):
    """One that says nothing of what it may be used for."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_nothing_is_fetched(tmp_path, source):
    """A manifest that lies elsewhere is not looked for there, whether a file is verified, edited, or prepared."""
    asked = []

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

    with http.server.HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}/manifest.c2pa"
            path = signed_by_others(write(tmp_path / "a.png"), tmp_path / "remote.png", elsewhere=address)
            assert address.encode() in path.read_bytes()
            found = verify(path)
            assert found.state == "Unverified" and "nothing is fetched" in found.reasons[0]
            assert training_opt_out(path) == UNREADABLE
            assert verify(write(tmp_path / "b.png", provenance(path))).state == "Valid"
        finally:
            server.shutdown()
            thread.join()
    assert not asked


def signed_by_others(source, path, *assertions, elsewhere=None):
    kind = "http://c2pa.org/digitalsourcetype/empty"
    created = {"label": "c2pa.actions.v2", "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": kind}]}}
    builder = c2pa.Builder(json.dumps({"assertions": [created, *assertions]}), context())
    if elsewhere:
        builder.set_no_embed()
        builder.set_remote_url(elsewhere)
    with builder, local_credentials().signer() as signer, source.open("rb") as file, path.open("w+b") as target:
        builder.sign(signer, {".mp4": "video/mp4", ".png": "image/png"}[path.suffix], file, target)
    return path


@pytest.mark.parametrize(
    ("label", "entry", "use", "said"),
    [
        ("cawg.training-mining", "cawg.ai_generative_training", "notAllowed", C2PA),
        ("c2pa.training-mining", "c2pa.ai_training", "constrained", C2PA),
        ("cawg.training-mining", "cawg.data_mining", "allowed", None),
        ("cawg.training-mining", "cawg.ai_inference", "notAllowed", None),
    ],
)
def test_opt_outs_of_c2pa(tmp_path, source, label, entry, use, said):
    path = signed_by_others(source, tmp_path / "a.mp4", {"label": label, "data": {"entries": {entry: {"use": use}}}})
    assert training_opt_out(path) == said
    derived = write(tmp_path / "derived.png", provenance(path))
    assert training_opt_out(derived) == said  # of what it was made from


def xmp(inside):
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f"<rdf:Description {inside}</rdf:RDF></x:xmpmeta>"
    ).encode()


PLUS = 'xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/"'
TDM = 'xmlns:tdm="http://www.w3.org/ns/tdmrep#"'
DMI = "http://ns.useplus.org/ldf/vocab/DMI-"
PROHIBITED = xmp(f'{PLUS} plus:DataMining="{DMI}PROHIBITED-GENAIMLTRAINING"/>')


@pytest.mark.parametrize(
    ("packet", "said"),
    [
        (PROHIBITED, XMP),
        (xmp(f'{PLUS}><plus:DataMining rdf:resource="{DMI}PROHIBITED"/></rdf:Description>'), XMP),
        (xmp('xmlns:tdm="http://www.w3.org/ns/tdmrep#" tdm:reservation="1"/>'), XMP),
        (
            xmp('xmlns:tdm="http://www.w3.org/ns/tdmrep#"><tdm:reservation>1</tdm:reservation></rdf:Description>'),
            XMP,
        ),
        (xmp('xmlns:tdm="http://www.w3.org/ns/tdmrep#" tdm:reservation="0"/>'), None),
        (xmp(f'{PLUS} plus:DataMining="{DMI}ALLOWED"/>'), None),
        (b"\xff\x00<" * 1000, None),
    ],
)
def test_opt_outs_of_xmp(tmp_path, source, packet, said):
    box = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC") + packet
    path = tmp_path / "a.mp4"
    path.write_bytes(source.read_bytes() + struct.pack(">I4s", 8 + len(box), b"uuid") + box)
    assert training_opt_out(path) == said
    assert training_opt_out(source) is None


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_opt_outs_of_pictures(tmp_path, suffix):
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", PROHIBITED.decode())
    options = {".png": {"pnginfo": text}, ".tif": {"tiffinfo": {700: PROHIBITED}}}.get(suffix, {"xmp": PROHIBITED})
    Image.fromarray(FRAMES[0]).save(tmp_path / f"1{suffix}", **options)
    Image.fromarray(FRAMES[0]).save(tmp_path / f"0{suffix}")
    assert training_opt_out(tmp_path / f"1{suffix}") == XMP
    assert training_opt_out(tmp_path / f"0{suffix}") is None
    assert training_opt_out(tmp_path) == XMP


def test_hostile_manifests_are_told_in_one_line(tmp_path, source):
    random = np.random.default_rng(0)
    whole = write(tmp_path / "whole.png", provenance(source)).read_bytes()
    begin = whole.index(b"caBX")
    states = set()
    for _ in range(60):
        data = bytearray(whole)
        for at in random.integers(begin, begin + 3000, 3):
            data[at : at + 2] = random.bytes(2)
        path = tmp_path / "hostile.png"
        path.write_bytes(data)
        found = verify(path)
        states.add(found and found.state)
        assert found is None or (all("\n" not in reason for reason in found.reasons) and found.state in STATES)
        assert training_opt_out(path) in (None, UNREADABLE)
    assert "Invalid" in states
    for data in (b"", b"c2pa", whole[: begin + 100], b"\x00" * 100):
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert training_opt_out(path) in (None, UNREADABLE)
            assert verify(path) is None or verify(path).state == "Invalid"


STATES = ("Valid", "Invalid")
