"""Signatures, judged by dkimpy's verifier."""

import hashlib
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import example, given
from hypothesis import strategies as st

from relay.cli.dkim import pem, public_record
from relay.config.settings import Institution
from relay.errors import StartError
from relay.outgoing import sign
from relay.outgoing.sign import Signer, SigningKey, body_hash, read_private_key, signature

HEADER = (
    b"From: Library <circ@lib.example>\r\nTo: reader@patron.example\r\nSubject: On\r\n hold shelf\r\n"
    b"Date: Sat, 21 Nov 2026 08:00:00 +0000\r\nMessage-ID: <1.JavaMail.urm@app01.eu00>\r\nCc: a@x.example\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: text/html; charset=UTF-8\r\n"
)
BODY = b"<p>Your  book\tis here </p>\r\n\r\n .\r\n\r\n\r\n"


@pytest.fixture(scope="module")
def private() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def verifies(private: rsa.RSAPrivateKey, message: bytes) -> bool:
    record = public_record(private).encode()
    return bool(dkim.verify(message, dnsfunc=lambda name, timeout=5: record))


def test_a_signature_is_accepted_by_another_implementation(private: rsa.RSAPrivateKey) -> None:
    field = signature(SigningKey("lib.example", "s1", private), HEADER, BODY)
    assert verifies(private, field + HEADER + b"\r\n" + BODY)
    assert all(len(line) <= 78 for line in field.split(b"\r\n"))


@pytest.mark.parametrize("name", [b"From", b"Subject", b"Date", b"To", b"Message-ID"])
def test_nobody_can_add_a_second_field_of_the_oversigned(private: rsa.RSAPrivateKey, name: bytes) -> None:
    field = signature(SigningKey("lib.example", "s1", private), HEADER, BODY)
    forged = field + name + b": forged\r\n" + HEADER + b"\r\n" + BODY
    assert not verifies(private, forged)


@pytest.mark.parametrize("name", [b"Subject", b"Date", b"To", b"Message-ID"])
def test_nobody_can_add_an_oversigned_field_that_was_absent(private: rsa.RSAPrivateKey, name: bytes) -> None:
    header = b"From: circ@lib.example\r\n"
    field = signature(SigningKey("lib.example", "s1", private), header, BODY)
    assert verifies(private, field + header + b"\r\n" + BODY)
    assert not verifies(private, field + name + b": added\r\n" + header + b"\r\n" + BODY)


def test_a_changed_body_does_not_verify(private: rsa.RSAPrivateKey) -> None:
    field = signature(SigningKey("lib.example", "s1", private), HEADER, BODY)
    assert not verifies(private, field + HEADER + b"\r\n" + BODY.replace(b"book", b"bock"))


@given(st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"a", b"b c", b"."]), max_size=30).map(b"".join))
@example(b"")
@example(b"\r\n")
@example(b" ")
@example(b"a \t")
@example(b"a" + b"\r\n" * 5000)
@example(b"\r\n" * 5000)
def test_the_hash_of_the_body_is_that_of_dkimpy(body: bytes) -> None:
    canonical = dkim.canonicalization.Relaxed.canonicalize_body(body + b"\r\n")
    wanted = hashlib.sha256(canonical).digest()
    assert body_hash(body + b"\r\n") == wanted
    for block in (1, 2, 3, 7):  # a large body is hashed in pieces
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sign, "_BLOCK", block)
            assert body_hash(memoryview(body + b"\r\n")) == wanted


def institution(folder: Path, *domains: str) -> Institution:
    keys = []
    for domain in domains:
        file = folder / f"{domain}.pem"
        file.write_bytes(pem(rsa.generate_private_key(65537, 2048)))
        keys.append({"domain": domain, "selector": "s1", "key_file": file})
    return Institution.model_validate(
        {"name": "demo", "domains": ["lib.example"], "bounce_domain": "b.example", "dkim": keys}
    )


@pytest.mark.parametrize(
    ("sender", "domain"),
    [
        ("lib.example", b"lib.example"),
        ("law.lib.example", b"law.lib.example"),
        ("deep.law.lib.example", b"law.lib.example"),
        ("stranger.example", b"lib.example"),
    ],
)
def test_the_key_nearest_to_the_from_domain_signs(tmp_path: Path, sender: str, domain: bytes) -> None:
    signer = Signer([institution(tmp_path, "lib.example", "law.lib.example")])
    field = signer.sign("demo", b"From: a@" + sender.encode() + b"\r\n", b"x\r\n")
    assert b"d=" + domain + b";" in field


def test_an_institution_without_a_key_sends_unsigned(tmp_path: Path) -> None:
    assert Signer([institution(tmp_path)]).sign("demo", HEADER, BODY) == b""


def test_unusable_keys_are_named(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    for content, complaint in [
        (b"nonsense", "not a PEM private key"),
        (pem(rsa.generate_private_key(65537, 2048))[:300], "not a PEM private key"),
        (
            ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "not an RSA key",
        ),
    ]:
        file.write_bytes(content)
        with pytest.raises(StartError, match=complaint):
            read_private_key(file)
