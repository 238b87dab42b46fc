"""Choosing and decoding the printable part, and collecting pictures."""

from __future__ import annotations

from email.mime.application import MIMEApplication
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest

from relay.errors import RenderError
from relay.slips.parts import MAX_DEPTH, MAX_PARTS, decode_text, read_letter
from tests.unit.slips.letters import letter, picture, solid


def part(content_type: str, body: bytes, *more: str) -> bytes:
    return "\r\n".join(["MIME-Version: 1.0", f"Content-Type: {content_type}", *more, "", ""]).encode() + body


def multipart(subtype: str, *children: MIMEText | MIMEMultipart | MIMEApplication) -> MIMEMultipart:
    message = MIMEMultipart(subtype)
    for child in children:
        message.attach(child)
    return message


def test_html_of_alternative_is_preferred_to_text_whatever_the_order() -> None:
    html, text = MIMEText("<b>rich</b>", "html"), MIMEText("plain", "plain")
    for children in ((html, text), (text, html)):
        assert "rich" in read_letter(multipart("alternative", *children).as_bytes()).html


def test_last_html_of_alternative_is_the_best() -> None:
    message = multipart("alternative", MIMEText("<p>first</p>", "html"), MIMEText("<p>last</p>", "html"))
    assert "last" in read_letter(message.as_bytes()).html


def test_html_in_related_in_mixed_is_found() -> None:
    inner = multipart("related", multipart("alternative", MIMEText("text"), MIMEText("<p>deep</p>", "html")))
    assert "deep" in read_letter(multipart("mixed", inner).as_bytes()).html


def test_related_starts_where_start_says() -> None:
    first, second = MIMEText("<p>one</p>", "html"), MIMEText("<p>two</p>", "html")
    second["Content-ID"] = "<root@x>"
    message = multipart("related", first, second)
    message.set_param("start", "<root@x>")
    assert "two" in read_letter(message.as_bytes()).html


def test_text_alone_becomes_html_and_is_escaped() -> None:
    found = read_letter(part("text/plain", b"a < b & c\r\n<script>x</script>"))
    assert "a &lt; b &amp; c" in found.html
    assert "<script>" not in found.html


def test_html_that_is_called_text_is_still_html() -> None:
    assert read_letter(part("text/plain", b"<html><body><p>x</p></body></html>")).html.startswith("<html>")


def test_blank_html_gives_way_to_text() -> None:
    message = multipart("alternative", MIMEText("words"), MIMEText("  \n", "html"))
    assert "words" in read_letter(message.as_bytes()).html


def test_attached_html_is_not_the_letter_unless_it_is_all_there_is() -> None:
    attached = MIMEText("<p>attached</p>", "html")
    attached.add_header("Content-Disposition", "attachment", filename="a.html")
    assert "body" in read_letter(multipart("mixed", attached, MIMEText("body")).as_bytes()).html
    assert "attached" in read_letter(multipart("mixed", attached).as_bytes()).html


def test_what_was_not_printed_is_noted() -> None:
    spreadsheet = MIMEApplication(b"x")
    spreadsheet.add_header("Content-Disposition", "attachment", filename="orders.xlsx")
    notes = read_letter(multipart("mixed", MIMEText("a"), MIMEText("b"), spreadsheet).as_bytes()).notes
    assert "The attachment orders.xlsx was not printed." in notes
    assert "The message has more text parts than the one that was printed." in notes


@pytest.mark.parametrize(
    ("content", "charset", "expected"),
    [
        ("Größe".encode(), "utf-8", "Größe"),
        ("Größe".encode("latin-1"), "iso-8859-1", "Größe"),
        ("Größe".encode(), "", "Größe"),
        ("Größe".encode(), "us-ascii", "Größe"),
        ("Größe".encode("cp1252"), "", "Größe"),
        ("Größe".encode("utf-8-sig"), "iso-8859-1", "Größe"),
        ("Größe".encode("utf-16"), "utf-8", "Größe"),
        ("Größe".encode("cp1252"), "utf-8", "Größe"),
        ("Прага".encode("koi8-r"), "koi8-r", "Прага"),
        ("東京".encode("shift_jis"), "Shift_JIS", "東京"),
        ("Größe".encode(), "x-no-such", "Größe"),
        (b"\x81\xff\x00", "utf-8", "\ufffdÿ\0"),
    ],
)
def test_charsets(content: bytes, charset: str, expected: str) -> None:
    assert decode_text(content, charset, []) == expected


def test_charset_that_does_not_exist_is_noted() -> None:
    found = read_letter(part("text/html; charset=x-no-such", b"<p>x</p>"))
    assert found.notes == ("The letter names a charset that does not exist: x-no-such.",)


def test_charset_of_meta_counts_when_the_header_has_none() -> None:
    html = '<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-2"><p>Łódź</p>'
    assert "Łódź" in read_letter(part("text/html", html.encode("iso-8859-2"))).html


def test_broken_base64_is_read_as_far_as_it_goes() -> None:
    found = read_letter(part("text/html", b"PHA+aGVsbG88L3A+*!broken", "Content-Transfer-Encoding: base64"))
    assert "hello" in found.html


def test_names_of_pictures_are_decoded() -> None:
    header = "Content-Disposition: inline; filename*=utf-8''%C3%A4.png"
    head = 'Content-Type: image/png; name="=?utf-8?q?=C3=B6=2Epng?="'
    body = "--b\r\nContent-Type: text/html\r\n\r\n<p>x</p>\r\n--b\r\nContent-Type: image/png\r\n" + header
    body += "\r\n\r\nx\r\n--b\r\n" + head + "\r\nContent-ID: < two@x >\r\n\r\ny\r\n--b--\r\n"
    pictures = read_letter(part("multipart/related; boundary=b", body.encode())).pictures
    assert [(p.name, p.content_id) for p in pictures] == [("ä.png", ""), ("ö.png", "two@x")]


def test_pictures_keep_all_three_names() -> None:
    message = letter("<p>x</p>", picture(solid("red"), "c@x", "n.png", "http://x/l.png"))
    assert [(p.content_id, p.name, p.location) for p in read_letter(message).pictures] == [
        ("c@x", "n.png", "http://x/l.png")
    ]


def nested(depth: int) -> bytes:
    lines = [f"--b{i}\r\nContent-Type: multipart/mixed; boundary=b{i + 1}\r\n\r\n" for i in range(depth)]
    body = "".join(lines) + f"--b{depth}\r\n\r\ntext\r\n"
    return part("multipart/mixed; boundary=b0", body.encode())


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "no text"),
        (part("image/png", b"x"), "no text"),
        (part("text/html", b" \r\n "), "no text"),
        (nested(MAX_DEPTH + 5), "nested"),
        (nested(5000), "nested|can't be read"),
        (part("multipart/mixed; boundary=b", b"--b\r\n\r\nx\r\n" * (MAX_PARTS + 5)), "parts"),
        (part("text/plain", b"<?xml version='1.0'?>\n<notification_data><a/></notification_data>"), "XML"),
        (part("message/rfc822", b"Subject: x\r\n\r\n"), "no text"),
    ],
)
def test_refused_with_a_reason(message: bytes, reason: str) -> None:
    with pytest.raises(RenderError, match=reason):
        read_letter(message)


@pytest.mark.parametrize(
    "head",
    [
        "text/html; charset*=utf-8'",
        "text/html; charset*0*=x'y'z; charset*1=w",
        "text/html; name*=''; name*0*=%ff",
        "text/html; charset=\x00\xff",
        ";;;",
        "multipart/mixed",
        'multipart/mixed; boundary=""',
    ],
)
def test_strange_headers_print_anyway(head: str) -> None:
    assert "letter" in read_letter(f"Content-Type: {head}\r\n\r\n".encode("latin-1") + b"<p>letter</p>").html
