"""What leaves is verified before it leaves: nothing good is held up, nothing bad gets out."""

from __future__ import annotations

import base64
import hashlib
import re
import tracemalloc
from collections.abc import Callable

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import example, given
from hypothesis import strategies as st

from relay.errors import BadSignature
from relay.outgoing import sign, verify
from relay.outgoing.keys import SigningKey
from relay.outgoing.sign import signatures
from relay.outgoing.verify import Verifier

OWN = b"Received: by relay.lib.example (slip-relay) id 1;\r\n\tSat, 21 Nov 2026 08:00:00 +0000\r\n"
HEADER = (
    b"DKIM-Signature: v=1; d=elsewhere.example; s=x; b=\r\nFROM : Library <circ@lib.example>\r\n"
    b"To: reader@patron.example,\r\n\tother@patron.example\r\nSubject:  On\r\n \thold  shelf \r\nCc: a@x.example\r\n"
    b"List-Id: <l.x.example>\r\nX-Other: x\r\n"
)
BODY = b"<p>Your  book\tis here </p>\r\n\r\n .\r\n\r\n\r\n"


@pytest.fixture(scope="module")
def keys() -> list[SigningKey]:
    return [
        SigningKey("lib.example", "s1", rsa.generate_private_key(65537, 2048)),
        SigningKey("lib.example", "s2", ed25519.Ed25519PrivateKey.generate()),
    ]


def check(keys: list[SigningKey], header: bytes, body: bytes, own: Callable[[bytes], bytes] = lambda own: own) -> None:
    """Signs and verifies; `own` changes our fields on the way."""
    fields = b"".join(signatures(keys, header, body))
    Verifier(keys).verify(own(OWN + fields), header + b"\r\n" + body, len(keys))


@pytest.mark.parametrize("body", [b"", b"\r\n", b" \r\n", BODY, BODY[:-2], b"no end", b"a \t", "größe\r\n".encode()])
def test_what_is_well_signed_may_leave(keys: list[SigningKey], body: bytes) -> None:
    check(keys, HEADER, body)


def test_a_message_without_an_empty_line_is_all_header(keys: list[SigningKey]) -> None:
    fields = b"".join(signatures(keys, HEADER, b""))
    Verifier(keys).verify(OWN + fields, HEADER, 2)


@pytest.mark.parametrize(
    ("pattern", "by", "complaint"),
    [
        (rb"bh=..", b"bh=AA", "has the hash of another body"),
        (rb"c=relaxed/relaxed", b"c=relaxed/simple", "is not as ours are"),
        (rb"a=rsa-sha256", b"a=rsa-sha1", "is not as ours are"),
        (rb"t=\d+;", b"t=1; l=3;", "is not as ours are"),
        (rb"t=\d+;", b"t=1; x=2;", "has expired"),
        (rb"t=\d+;", b"t=1;", "does not verify"),
        (rb"s=s2", b"s=s3", "selector s3 is not as ours are"),
        (rb"h=[^;]+", b"h=subject:to", "does not cover the From field"),
        (rb"h=from:subject:", b"h=from:", "does not verify"),
        (rb"b=[^;]{3}(?=[^;]{300})", b"b=*A*", "does not verify"),
        (rb"\tb=[^;]{88,}\Z", b"\tb=AAAA\r\n", "does not verify"),
        (rb"\A", b"From: another@lib.example\r\n", "not exactly one From field"),
        (rb"\A", b"Subject: another\r\n", "does not verify"),
        (rb"DKIM-Signature", b"X-Signature", "is not as ours are"),
    ],
)
def test_what_a_receiver_would_not_accept_may_not_leave(
    keys: list[SigningKey], pattern: bytes, by: bytes, complaint: str
) -> None:
    def change(own: bytes) -> bytes:
        changed = re.sub(pattern, by, own, count=1)
        assert changed != own
        return changed

    with pytest.raises(BadSignature, match=complaint):
        check(keys, HEADER, BODY, change)


def test_as_many_signatures_have_to_be_there_as_were_made(keys: list[SigningKey]) -> None:
    with pytest.raises(BadSignature, match="it has 0 DKIM signatures instead of 2"):
        Verifier(keys).verify(OWN, b"From: circ@lib.example\r\n\r\n" + BODY, 2)


def test_a_mistake_in_how_we_sign_shows(keys: list[SigningKey], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign, "_relaxed", lambda lines: lines)
    with pytest.raises(BadSignature, match="hash of another body"):
        check(keys, HEADER, BODY)
    monkeypatch.undo()
    monkeypatch.setattr(dkim, "hash_headers", lambda digest, *rest: digest.update(b"something else"))
    with pytest.raises(BadSignature, match="does not verify"):
        check(keys, HEADER, BODY)


@given(st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"a", b"b c", b"."]), max_size=30).map(b"".join))
@example(b"")
@example(b" ")
@example(b"\r\n \r\n a")
@example(b"a" + b" \r\n" * 5000 + b" b")
@example(b"a" + b" " * 5000 + b"b")
def test_the_hash_of_the_body_is_that_of_dkimpy(body: bytes) -> None:
    wanted = hashlib.sha256(dkim.canonicalization.Relaxed.canonicalize_body(body + b"\r\n")).digest()
    for block in (1, 2, 3, 7, 64 * 1024):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(verify, "_BLOCK", block)
            assert verify._body_hash(b"From: x\r\n\r\n" + body + b"\r\n", 11) == wanted


@pytest.mark.parametrize(
    "piece",
    [base64.b64encode(bytes(57)) + b"\r\n", b" ", b" a", b"\t\r\n", b"a"],
    ids=["attachment", "spaces", "words", "empty", "line"],
)
def test_a_large_message_costs_little_beside_itself(keys: list[SigningKey], piece: bytes) -> None:
    body = piece * (4 * 1024 * 1024 // len(piece)) + b"end\r\n"
    fields = b"".join(signatures(keys, HEADER, body))
    message = HEADER + b"\r\n" + body
    tracemalloc.start()
    try:
        Verifier(keys).verify(OWN + fields, message, 2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(message)
