"""Signatures, judged by dkimpy's verifier."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import example, given
from hypothesis import strategies as st

from relay.config.institutions import Institution
from relay.errors import StartError
from relay.outgoing import sign
from relay.outgoing.keys import SigningKey, public_record
from relay.outgoing.private_key import PrivateKey, pem, read_private_key
from relay.outgoing.sign import OVERSIGNED, SIGNED_IF_THERE, Signer, body_hash, signatures

HEADER = (
    b"From: Library <circ@lib.example>\r\nTo: reader@patron.example\r\nSubject: On\r\n hold shelf\r\n"
    b"Date: Sat, 21 Nov 2026 08:00:00 +0000\r\nMessage-ID: <1.JavaMail.urm@app01.eu00>\r\nCc: a@x.example\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: text/html; charset=UTF-8\r\n"
)
BODY = b"<p>Your  book\tis here </p>\r\n\r\n .\r\n\r\n\r\n"


@pytest.fixture(scope="module")
def private() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def verifies(private: PrivateKey, message: bytes, index: int = 0) -> bool:
    record = public_record(private).encode()
    try:
        return bool(dkim.DKIM(message).verify(index, dnsfunc=lambda name, timeout=5: record))
    except dkim.ValidationError:
        return False


def signature(private: PrivateKey, header: bytes, body: bytes, expires_after: int | None = None) -> bytes:
    (field,) = signatures([SigningKey("lib.example", "s1", private, expires_after)], header, body)
    return field


def tags(field: bytes) -> dict[bytes, bytes]:
    text = b"".join(field.partition(b":")[2].split())
    return {name: value for name, _, value in (tag.partition(b"=") for tag in text.split(b";"))}


def test_a_signature_is_accepted_by_another_implementation(private: rsa.RSAPrivateKey) -> None:
    field = signature(private, HEADER, BODY)
    assert verifies(private, field + HEADER + b"\r\n" + BODY)
    assert all(len(line) <= 78 for line in field.split(b"\r\n"))


@pytest.mark.parametrize("name", OVERSIGNED)
def test_nobody_can_add_a_second_field_of_the_oversigned(private: rsa.RSAPrivateKey, name: str) -> None:
    header = HEADER + b"Reply-To: a@x.example\r\nContent-Transfer-Encoding: 8bit\r\n"
    field = signature(private, header, BODY)
    assert verifies(private, field + header + b"\r\n" + BODY)
    assert not verifies(private, field + name.encode() + b": forged\r\n" + header + b"\r\n" + BODY)


@pytest.mark.parametrize("name", [name for name in OVERSIGNED if name != "from"])
def test_nobody_can_add_an_oversigned_field_that_was_absent(private: rsa.RSAPrivateKey, name: str) -> None:
    header = b"From: circ@lib.example\r\n"
    field = signature(private, header, BODY)
    assert verifies(private, field + header + b"\r\n" + BODY)
    assert not verifies(private, field + name.encode() + b": added\r\n" + header + b"\r\n" + BODY)


@pytest.mark.parametrize("name", SIGNED_IF_THERE)
def test_a_mailing_list_may_add_its_fields_but_change_none(private: rsa.RSAPrivateKey, name: str) -> None:
    added = name.encode() + b": <a@x.example>\r\n"
    assert verifies(private, signature(private, HEADER, BODY) + added + HEADER + b"\r\n" + BODY)
    field = signature(private, added + HEADER, BODY)
    assert verifies(private, field + added + HEADER + b"\r\n" + BODY)
    assert not verifies(private, field + added.replace(b"<a", b"<b") + HEADER + b"\r\n" + BODY)


def test_a_signature_says_since_when_and_if_wanted_until_when_it_holds(private: rsa.RSAPrivateKey) -> None:
    made = tags(signature(private, HEADER, BODY))
    assert made.keys() == {b"v", b"a", b"c", b"d", b"s", b"t", b"h", b"bh", b"b"}
    field = signature(private, HEADER, BODY, expires_after=7 * 86400)
    assert int(tags(field)[b"x"]) - int(tags(field)[b"t"]) == 7 * 86400
    assert verifies(private, field + HEADER + b"\r\n" + BODY)


def test_ed25519_stands_beside_rsa_and_each_verifies_alone(private: rsa.RSAPrivateKey) -> None:
    other = ed25519.Ed25519PrivateKey.generate()
    made = signatures([SigningKey("lib.example", "s1", private), SigningKey("lib.example", "s2", other)], HEADER, BODY)
    assert [tags(field)[b"a"] for field in made] == [b"rsa-sha256", b"ed25519-sha256"]
    for message in (b"".join(made), b"".join(reversed(made))):
        keys: Sequence[PrivateKey] = (private, other) if message.startswith(made[0]) else (other, private)
        for index, key in enumerate(keys):
            assert verifies(key, message + HEADER + b"\r\n" + BODY, index)
            assert not verifies(key, message + HEADER.replace(b"shelf", b"shell") + b"\r\n" + BODY, index)


def test_a_changed_body_does_not_verify(private: rsa.RSAPrivateKey) -> None:
    field = signature(private, HEADER, BODY)
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
    """With one key for each domain; a domain behind "ed25519:" has one of that kind."""
    keys = []
    for number, text in enumerate(domains):
        kind, _, domain = text.rpartition(":")
        file = folder / f"{number}.pem"
        made: PrivateKey = ed25519.Ed25519PrivateKey.generate() if kind else rsa.generate_private_key(65537, 2048)
        file.write_bytes(pem(made))
        keys.append({"domain": domain, "selector": f"s{number}", "key_file": file})
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
    (field,) = signer.sign("demo", b"From: a@" + sender.encode() + b"\r\n", b"x\r\n")
    assert tags(field)[b"d"] == domain


def test_of_the_nearest_domain_the_first_key_of_each_kind_signs(tmp_path: Path) -> None:
    domains = ("ed25519:lib.example", "lib.example", "lib.example", "ed25519:lib.example", "law.lib.example")
    signer = Signer([institution(tmp_path, *domains)])
    fields = signer.sign("demo", b"From: a@lib.example\r\n", b"x\r\n")
    assert [(tags(field)[b"s"], tags(field)[b"a"]) for field in fields] == [
        (b"s1", b"rsa-sha256"),
        (b"s0", b"ed25519-sha256"),
    ]
    assert [tags(field)[b"s"] for field in signer.sign("demo", b"From: a@law.lib.example\r\n", b"")] == [b"s4"]


@pytest.mark.parametrize(
    "header",
    [
        b"Subject: from nobody\r\n",
        b"From: a@lib.example\r\nFrom: b@lib.example\r\n",
        b"From: a@lib.example\r\nTo: x@y.example\r\nfrom : b@elsewhere.example\r\n",
        b"From: \r\n",
        b"From: a@lib.example <b@elsewhere.example>\r\n",
    ],
)
def test_what_has_not_exactly_one_readable_from_field_is_never_signed(tmp_path: Path, header: bytes) -> None:
    assert Signer([institution(tmp_path, "lib.example")]).sign("demo", header, BODY) == []


def test_an_institution_without_a_key_sends_unsigned(tmp_path: Path) -> None:
    assert Signer([institution(tmp_path)]).sign("demo", HEADER, BODY) == []


def test_unusable_keys_are_named(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    for content, complaint in [
        (b"nonsense", "not a PEM private key"),
        (pem(rsa.generate_private_key(65537, 2048))[:300], "not a PEM private key"),
        (
            ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "not an RSA key of at least 1024 bits, nor an Ed25519 key",
        ),
    ]:
        file.write_bytes(content)
        with pytest.raises(StartError, match=complaint):
            read_private_key(file)


def test_a_key_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch, private: rsa.RSAPrivateKey) -> None:
    monkeypatch.setenv("DKIM_KEY", pem(private).decode())
    key = {"domain": "lib.example", "selector": "s1", "key_env": "DKIM_KEY", "expires_after": "7d"}
    settings = {"name": "demo", "domains": ["lib.example"], "bounce_domain": "b.example", "dkim": [key]}
    (field,) = Signer([Institution.model_validate(settings)]).sign("demo", HEADER, BODY)
    assert verifies(private, field + HEADER + b"\r\n" + BODY)
    assert int(tags(field)[b"x"]) - int(tags(field)[b"t"]) == 7 * 86400
    monkeypatch.setenv("DKIM_KEY", "nonsense")
    with pytest.raises(StartError, match="the DKIM key in DKIM_KEY is not a PEM private key"):
        Signer([Institution.model_validate(settings)])
