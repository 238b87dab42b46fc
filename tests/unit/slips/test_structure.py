"""Broken, wrapped and encrypted messages, and the many forms of a letter's XML."""

from __future__ import annotations

import base64
import contextlib
import datetime
import time
from email.mime.application import MIMEApplication
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.errors import RenderError
from relay.slips.parts import Letter, read_letter
from relay.slips.smime import MAX_DEPTH as MAX_CMS_DEPTH
from relay.slips.smime import signed_content
from tests.unit.slips.enclosures import file, message, pdf_of, saved, sheet_of

XML = '<?xml version="1.0" encoding="UTF-8"?>\n<notification_data><receivers/><title>Größe</title></notification_data>'


def raw(head: str, body: bytes | str = b"") -> bytes:
    content = body if isinstance(body, bytes) else body.encode()
    return f"MIME-Version: 1.0\r\n{head}\r\n\r\n".encode() + content


TWO_PARTS = "--==x\r\nContent-Type: text/plain\r\n\r\nwords\r\n--==x\r\nContent-Type: text/html\r\n\r\n<p>rich</p>\r\n"


@pytest.mark.parametrize(
    "head", ["multipart/alternative", "multipart/alternative; boundary=other", 'multipart/alternative; boundary=""']
)
def test_missing_or_wrong_boundary_is_found(head: str) -> None:
    letter = read_letter(raw(f"Content-Type: {head}", TWO_PARTS + "--==x--\r\n"))
    assert "<p>rich</p>" in letter.html
    assert letter.notes == ("The message does not say where its parts begin; that was guessed.",)


def test_missing_end_is_no_matter() -> None:
    letter = read_letter(raw("Content-Type: multipart/alternative; boundary===x", TWO_PARTS))
    assert "<p>rich</p>" in letter.html
    assert letter.notes == ()


def test_byte_order_mark_or_blank_line_before_the_header() -> None:
    for before in (b"\xef\xbb\xbf", b"\r\n", b"\n\n"):
        assert read_letter(before + raw("Content-Type: text/html", "<p>x</p>")).html == "<p>x</p>"


def test_damaged_base64_is_noted() -> None:
    body = base64.encodebytes(b"<p>hello</p>" * 20)[:-20]
    letter = read_letter(raw("Content-Type: text/html\r\nContent-Transfer-Encoding: BASE64 ; x", body))
    assert letter.html.startswith("<p>hello</p>" * 18)
    damaged = raw("Content-Type: text/html\r\nContent-Transfer-Encoding: base64", b"!" + body)
    assert read_letter(damaged).notes == ("A part of the message is damaged; it was read as far as possible.",)


def test_nuls_are_left_out() -> None:
    assert read_letter(raw("Content-Type: text/html", b"<p>a\0b</p>")).html == "<p>ab</p>"


def test_flowed_text_is_joined() -> None:
    assert read_letter(raw("Content-Type: text/plain; format=flowed", "a \nb")).html == "<pre>a b</pre>"


def test_text_that_is_a_picture_or_pdf_is_an_attachment() -> None:
    for content in (pdf_of(sheet_of("red")), saved(sheet_of("red"), "PNG")):
        for kind in ("text/html", "text/plain", "application/octet-stream", "application/x-unknown", "image/jpeg"):
            letter = read_letter(file(content, "", kind, "inline").as_bytes())
            assert letter.html == ""
            assert [a.is_pages for a in letter.attachments] == [True]


def test_file_that_is_html_is_the_letter_when_there_is_no_other() -> None:
    page = b"<!DOCTYPE html><p>page</p>"
    assert "page" in read_letter(message(file(page, "letter.bin"))).html
    assert "body" in read_letter(message(file(page, "letter.html"), html="<p>body</p>")).html


def test_forwarded_letter_is_opened_when_there_is_nothing_else() -> None:
    inner = MIMEMultipart("alternative")
    inner.attach(MIMEText("<p>inner</p>", "html"))
    wrapped = MIMEMessage(inner)
    outer = MIMEMultipart("mixed")
    outer.attach(MIMEText(" \n"))
    outer.attach(wrapped)
    letter = read_letter(outer.as_bytes())
    assert letter.html == "<p>inner</p>"
    assert letter.notes == ("The message has no text of its own; the message that it forwards was printed.",)
    outer.attach(MIMEText("cover"))
    letter = read_letter(outer.as_bytes())
    assert "cover" in letter.html
    assert [a.kind for a in letter.attachments] == ["message/rfc822"]


def test_forwarded_letter_in_base64_is_opened_too() -> None:
    inner = base64.encodebytes(MIMEText("<p>inner</p>", "html").as_bytes())
    head = "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64"
    assert read_letter(raw(head, inner)).html == "<p>inner</p>"


@pytest.mark.parametrize(
    "declared", ["text/plain", "text/html", "text/xml", "application/xml", "application/octet-stream"]
)
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("disposition", ["inline", "attachment"])
def test_xml_of_a_letter_is_never_printed(declared: str, codec: str, disposition: str) -> None:
    part = file(XML.encode(codec), "letter.xml", declared, disposition)
    blank = MIMEMultipart("mixed")
    blank.attach(MIMEText(" \n"))
    blank.attach(part)
    for mail in (part.as_bytes(), message(part), blank.as_bytes()):
        with pytest.raises(RenderError, match="XML of a letter"):
            read_letter(mail)


def test_xml_beside_a_letter_is_a_file() -> None:
    letter = read_letter(message(file(XML.encode(), "letter.xml", "text/xml"), html="<p>Letter</p>"))
    assert letter.html == "<p>Letter</p>"
    assert letter.notes == ("The attachment letter.xml was not printed.",)


def test_foreign_xml_is_a_file() -> None:
    letter = read_letter(message(file(b"<?xml version='1.0'?><orders/>", "orders.xml", "text/xml")))
    assert letter.html == ""
    assert letter.attachments[0].title == "orders.xml (XML file)"


def test_xhtml_that_is_called_xml_is_a_letter() -> None:
    assert "x" in read_letter(raw("Content-Type: application/xml", "<?xml version='1.0'?><html><p>x</p></html>")).html


def test_uuencoded_file_in_text_is_an_attachment() -> None:
    letter = read_letter(raw("Content-Type: text/plain", "words\nbegin 644 a.bin\n#86)C\n`\nend\nmore\n"))
    assert letter.html == "<pre>words\nmore\n</pre>"
    assert [(a.name, a.content) for a in letter.attachments] == [("a.bin", b"abc")]


@pytest.fixture(scope="module")
def signer() -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Alma")])
    begin = datetime.datetime(2026, 1, 1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(begin).not_valid_after(begin + datetime.timedelta(900))
    return builder.sign(key, hashes.SHA256()), key


def cms(content: bytes, kind: str) -> bytes:
    return file(content, "smime.p7m", f"application/pkcs7-mime; smime-type={kind}").as_bytes()


def test_signed_letters_are_read(signer: tuple[x509.Certificate, rsa.RSAPrivateKey]) -> None:
    inner = MIMEText("<p>signed</p>", "html").as_bytes()
    builder = pkcs7.PKCS7SignatureBuilder().set_data(inner).add_signer(*signer, hashes.SHA256())
    opaque = builder.sign(Encoding.DER, [pkcs7.PKCS7Options.Binary])
    assert read_letter(cms(opaque, "signed-data")).html == "<p>signed</p>"
    clear = builder.sign(Encoding.SMIME, [pkcs7.PKCS7Options.DetachedSignature])
    letter = read_letter(clear)
    assert (letter.html, letter.attachments, letter.notes) == ("<p>signed</p>", (), ())


def test_signed_content_in_pieces_of_unknown_length() -> None:
    pieces = b"\x24\x80" + b"\x04\x03abc" + b"\x04\x02de" + b"\0\0"
    encapsulated = b"\x30\x80\x06\x09" + bytes.fromhex("2a864886f70d010701") + b"\xa0\x80" + pieces + b"\0\0\0\0"
    signed = b"\x30\x80\x02\x01\x01\x31\x00" + encapsulated + b"\x31\x00\0\0"
    whole = b"\x30\x80\x06\x09" + bytes.fromhex("2a864886f70d010702") + b"\xa0\x80" + signed + b"\0\0\0\0"
    assert signed_content(whole) == b"abcde"
    for end in range(len(whole) - 20):
        with pytest.raises((ValueError, IndexError, StopIteration)):
            signed_content(whole[:end])
    with pytest.raises(ValueError, match="cut off"):
        signed_content(b"\x30\x80" * (MAX_CMS_DEPTH + 5))


def test_encrypted_letters_are_refused_with_a_reason(signer: tuple[x509.Certificate, rsa.RSAPrivateKey]) -> None:
    sealed = pkcs7.PKCS7EnvelopeBuilder().set_data(b"x").add_recipient(signer[0]).encrypt(Encoding.DER, [])
    pgp = MIMEMultipart("encrypted")
    pgp.attach(MIMEApplication(b"Version: 1", "pgp-encrypted"))
    pgp.attach(MIMEApplication(b"x"))
    armored = raw("Content-Type: text/plain", "\n-----BEGIN PGP MESSAGE-----\n\nhQEM\n-----END PGP MESSAGE-----\n")
    for mail in (cms(sealed, "enveloped-data"), pgp.as_bytes(), armored):
        with pytest.raises(RenderError, match="encrypted"):
            read_letter(mail)


def test_pgp_signed_text_is_printed_without_its_armour() -> None:
    text = (
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nwords\n- - listed\n-----BEGIN PGP SIGNATURE-----\n\niQ\n"
    )
    assert read_letter(raw("Content-Type: text/plain", text)).html == "<pre>words\n- listed</pre>"
    signed = MIMEMultipart("signed")
    signed.attach(MIMEText("words"))
    signed.attach(file(b"-----BEGIN PGP SIGNATURE-----", "signature.asc", "application/pgp-signature"))
    letter = read_letter(signed.as_bytes())
    assert (letter.html, letter.attachments, letter.notes) == ("<pre>words</pre>", (), ())


def test_keys_of_the_elliptic_kind_do_not_matter() -> None:
    """A CMS that is none is a file like any other."""
    junk = ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value.to_bytes(32, "big")
    assert read_letter(message(file(junk, "smime.p7m"), html="<p>x</p>")).attachments[0].name == "smime.p7m"


WORDS = [
    b"Content-Type: ",
    b"multipart/mixed",
    b"text/html",
    b"text/plain",
    b"; boundary=b",
    b"\r\n",
    b"\r\n\r\n",
    b"--b",
    b"--b--",
    b"Content-Transfer-Encoding: base64",
    b"Content-Transfer-Encoding: quoted-printable",
    b"; charset=",
    b"utf-16",
    b"iso-2022-jp",
    b"gb18030",
    b"utf-7",
    b"<html>",
    b"<p>x",
    b"=?utf-8?b?",
    b"Content-Disposition: attachment; filename*0*=",
    b"message/rfc822",
    b"application/ms-tnef",
    b"\x78\x9f\x3e\x22\0\0",
    b"begin 644 x\n",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"{\\rtf1",
    b"application/pkcs7-mime",
    b"\x30\x80\x06\x09",
    b"%PDF-",
    b"<?xml",
    b"-----BEGIN PGP SIGNED MESSAGE-----\n",
    b"format=flowed",
    b"multipart/related; start=<",
    b"Content-ID: <",
    b"multipart/encrypted",
    b"message/delivery-status",
]


@settings(deadline=2000, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(st.sampled_from(WORDS), st.binary(max_size=30)), max_size=40))
def test_any_bytes_are_a_letter_or_a_refusal(pieces: list[bytes]) -> None:
    try:
        letter = read_letter(b"".join(pieces))
    except RenderError as error:
        assert str(error)  # noqa: PT017
    else:
        assert isinstance(letter, Letter)
        assert letter.html or letter.attachments
        letter.html.encode()


@pytest.mark.parametrize(
    "body",
    [
        b"<!--" * 500_000,
        b"<style>" * 400_000,
        b"-----BEGIN PGP SIGNED MESSAGE-----\n" + b"A: b\n" * 300_000,
        b"> " * 1_000_000 + b"\n",
        b">\n" * 500_000,
        b"=E4=\n" * 400_000,
        b"\x1b$B" * 500_000,
        b"<?xml " * 300_000,
        b"begin 644 x\n" * 150_000,
    ],
)
@pytest.mark.parametrize("head", ["text/html", "text/plain; format=flowed", "multipart/mixed"])
def test_hostile_bodies_end_in_time(body: bytes, head: str) -> None:
    started = time.process_time()
    with contextlib.suppress(RenderError):
        read_letter(raw(f"Content-Type: {head}\r\nContent-Transfer-Encoding: quoted-printable", body))
    assert time.process_time() - started < 10
