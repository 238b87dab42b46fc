"""Messages whose structure is the attack: headers, parts, encodings, charsets."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable, Iterator

from tests.unit.slips.hostile.case import MARK, End, Hostile, fixed

HTML = f"<html><body><p>{MARK}</p></body></html>"
BODY = f"Content-Type: text/html; charset=utf-8\r\n\r\n{HTML}\r\n".encode()


def letters() -> list[Hostile]:
    """All of them."""
    return [*_structure(), *_headers(), *_encodings(), *_charsets(), *_plain()]


def _of(
    name: str, build: Callable[[], bytes], end: End = End.PRINTED, says: str = "", *, heavy: bool = False
) -> Hostile:
    return Hostile(name, lambda trap: build(), end, says, heavy)


def _structure() -> Iterator[Hostile]:
    yield _of(
        "10,000 parts",
        lambda: _multipart([BODY, *[b"Content-Type: image/png\r\n\r\nx"] * 10_000]),
        End.REFUSED,
        "more than 500 parts",
    )
    yield _of("10,000 texts", lambda: _multipart([BODY] * 10_000), End.REFUSED, "more than 500 parts")
    yield _of(
        "500,000 boundaries",
        lambda: _head("multipart/mixed") + b"--b\r\n" * 500_000 + b"--b\r\n" + BODY + b"--b--",
        End.HELD,
    )
    yield _of("parts nested 30 deep", lambda: _nested(30), End.REFUSED, "nested deeper than")
    yield _of("parts nested 1,000 deep", lambda: _nested(1000), End.REFUSED)
    yield _of("parts nested 20,000 deep", lambda: _nested(20_000), End.REFUSED)
    yield _of(
        "messages in messages 500 deep", lambda: b"Content-Type: message/rfc822\r\n\r\n" * 500 + BODY, End.REFUSED
    )
    yield _of(
        "digests in digests",
        lambda: b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\n" * 400 + BODY,
        End.REFUSED,
    )
    yield _of(
        "boundary of 2 MB",
        lambda: b"Content-Type: multipart/mixed; boundary=" + b"b" * 2_000_000 + b"\r\n\r\n" + BODY,
        End.HELD,
    )
    yield _of("boundary that is an expression", lambda: _multipart([BODY], b"(a+)+$[x"), End.HELD)
    yield _of(
        "part that is its own parent",
        lambda: (
            _head('multipart/related; start="<r>"')
            + b"--b\r\nContent-ID: <r>\r\n"
            + _head('multipart/related; start="<r>"')
            + b"--b\r\n"
            + BODY
            + b"--b--"
        ),
        End.HELD,
    )
    yield _of("100 MB of base64", lambda: _multipart([BODY, _base64_part(75_000_000)]), End.REFUSED, "more than 96 MB")
    yield _of(
        "100 MB of base64 as the letter",
        lambda: (
            b"Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n"
            + base64.encodebytes(b"<p>x" * 18_750_000)
        ),
        End.REFUSED,
        "more than 96 MB",
    )
    yield _of("90 MB of base64", lambda: _multipart([BODY, _base64_part(68_000_000)]), End.HELD, "64 MB|more memory")
    yield _of(
        "a letter of 30 MB",
        lambda: b"Content-Type: text/html\r\n\r\n" + b"<p>x</p>" * 4_000_000,
        End.REFUSED,
        "KB of text",
    )
    yield _of(
        "gzip that says so",
        lambda: b"Content-Type: text/html\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"x" * 50_000_000),
        End.HELD,
    )


def _headers() -> Iterator[Hostile]:
    yield _of("1,000,000 header fields", lambda: b"X-A: b\r\n" * 1_000_000 + BODY, End.REFUSED, "more than")
    yield _of(
        "1,000,000 fields of one kind",
        lambda: b"Content-Type: text/html\r\n" * 1_000_000 + BODY,
        End.REFUSED,
        "more than",
    )
    yield _of("a header field of 10 MB", lambda: b"Subject: " + b"x" * 10_000_000 + b"\r\n" + BODY)
    yield _of("a header field of 1,000,000 lines", lambda: b"Subject: x\r\n" + b" x\r\n" * 1_000_000 + BODY)
    yield _of(
        "1,000,000 parameters", lambda: b"Content-Type: text/html" + b"; a=b" * 1_000_000 + b"\r\n\r\n" + HTML.encode()
    )
    yield _of(
        "1,000,000 quotes", lambda: b'Content-Type: text/html; a="' + b';"' * 1_000_000 + b"\r\n\r\n" + HTML.encode()
    )
    yield _of(
        "1,000,000 backslashes",
        lambda: b'Content-Type: text/html; a="' + b'\\";' * 700_000 + b"\r\n\r\n" + HTML.encode(),
    )
    yield _of(
        "200,000 continuations (RFC 2231)",
        lambda: _multipart(
            [
                BODY,
                b"Content-Type: image/png"
                + b"".join(f"; name*{n}*=%41".encode() for n in range(200_000))
                + b"\r\n\r\nx",
            ]
        ),
    )
    yield _of(
        "continuations in no order",
        lambda: _multipart(
            [
                BODY,
                b"Content-Type: image/png; name*99999999999=a; name*1*=b; name*x=c; name*=''; name*0=utf-8'x\r\n\r\nx",
            ]
        ),
    )
    yield _of(
        "continuations with odd charsets",
        lambda: _multipart(
            [
                BODY,
                b"Content-Disposition: attachment; filename*0*=unicode_escape''%5Cx; filename*1*=punycode''a\r\n\r\nx",
            ]
        ),
    )
    yield _of(
        "100,000 encoded words (RFC 2047)",
        lambda: _multipart(
            [BODY, b'Content-Disposition: attachment; filename="' + b"=?utf-8?b?QQ==?= " * 100_000 + b'"\r\n\r\nx']
        ),
    )
    yield _of(
        "an encoded word without end",
        lambda: _multipart([BODY, b'Content-Disposition: attachment; filename="' + b"=?" * 500_000 + b'"\r\n\r\nx']),
    )
    yield _of(
        "encoded words in odd charsets",
        lambda: _multipart(
            [
                BODY,
                b'Content-Disposition: attachment; filename="=?idna?q?xn--a?= =?rot13?q?a?= =?zlib?b?eJw=?= =?hex?q?4?="\r\n\r\nx',
            ]
        ),
    )
    yield _of(
        "field names that are none", lambda: b": x\r\n\x00: y\r\n\xff\xfe: z\r\n" + b"A" * 100_000 + b": x\r\n" + BODY
    )
    yield _of("bare CR and NUL in the header", lambda: b"Subject: a\rb\x00c\r\nX: \r\n\t\r\n" + BODY)
    yield _of(
        "brackets in a Content-ID",
        lambda: _multipart(
            [BODY, b"Content-Type: image/png\r\nContent-ID: " + b"<" * 300_000 + b">" * 300_000 + b"\r\n\r\nx"]
        ),
    )
    yield _of("no header", lambda: b"\r\n\r\n" + b"x" * 100, End.HELD)
    yield _of("nothing", lambda: b"", End.REFUSED)
    yield _of(
        "ten types at once",
        lambda: b"Content-Type: text/html, image/png; multipart/mixed / x\r\n" * 10 + BODY,
        End.HELD,
    )


def _encodings() -> Iterator[Hostile]:
    yield _of(
        "quoted-printable of 3 MB",
        lambda: (
            b"Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
            + HTML.encode()
            + b"=41" * 1_000_000
        ),
        End.HELD,
    )
    yield _of(
        "quoted-printable of soft breaks",
        lambda: (
            b"Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
            + HTML.encode()
            + b"=\r\n" * 2_000_000
            + b"=" * 500_000
        ),
        End.HELD,
    )
    yield _of(
        "base64 of other things",
        lambda: (
            b"Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n"
            + base64.b64encode(HTML.encode())
            + b"=!$ =\xff" * 200_000
        ),
        End.HELD,
    )
    yield _of(
        "uuencode without end",
        lambda: (
            b"Content-Type: text/html\r\nContent-Transfer-Encoding: x-uuencode\r\n\r\nbegin 644 /etc/passwd\r\n"
            + b"M" * 300_000
        ),
        End.HELD,
    )
    yield _of(
        "five encodings",
        lambda: b"Content-Transfer-Encoding: base64\r\nContent-Transfer-Encoding: 8bit, x-gzip, binary\r\n" + BODY,
        End.HELD,
    )


def _charsets() -> Iterator[Hostile]:
    for charset in (
        "utf-7",
        "utf-16",
        "utf-32",
        "idna",
        "punycode",
        "unicode_escape",
        "raw_unicode_escape",
        "rot13",
        "zlib",
        "bz2",
        "hex",
        "base64",
        "undefined",
        "mbcs",
        "x-user-defined",
        "replacement",
        "iso-2022-jp",
        "hz-gb-2312",
        "\xff\xfe",
        "../../etc/passwd",
        "x" * 10_000,
    ):
        head = b"Content-Type: text/html; charset=" + charset.encode("latin-1") + b"\r\n\r\n"
        text = HTML.replace("</p>", "</p>+ADw-script+AD4-x()+ADw-/script+AD4-") + "\\u003cscript>"
        end = End.HELD if charset in ("utf-16", "utf-32", "replacement") else End.PRINTED
        yield fixed(f"charset {charset[:20]!r}", head + text.encode(), end)
    yield _of(
        "UTF-16 without a mark",
        lambda: b"Content-Type: text/html; charset=utf-16\r\n\r\n" + HTML.encode("utf-16-be"),
        End.HELD,
    )
    yield _of(
        "UTF-16 of surrogates",
        lambda: b"Content-Type: text/html\r\n\r\n\xff\xfe" + b"\x00\xd8" * 20_000 + HTML.encode("utf-16-le"),
    )
    yield _of(
        "UTF-8 of surrogates and too long",
        lambda: (
            b"Content-Type: text/html; charset=utf-8\r\n\r\n"
            + HTML.encode()
            + b"\xed\xa0\x80\xed\xbf\xbf\xc0\xaf\xf8\x88\x80\x80\x80\xf4\x90\x80\x80" * 3000
        ),
    )
    yield _of(
        "NUL bytes",
        lambda: (
            b"Content-Type: text/html; charset=utf-8\r\n\r\n"
            + HTML.encode()
            + b"\0" * 500_000
            + b"<scr\0ipt>x</scr\0ipt>"
        ),
    )
    yield _of(
        "meta charset of utf-7",
        lambda: b"Content-Type: text/html\r\n\r\n<meta charset=utf-7>" + HTML.encode() + b"+ADw-script+AD4-",
    )
    yield _of(
        "ISO-2022-JP that shifts for ever",
        lambda: b"Content-Type: text/html; charset=iso-2022-jp\r\n\r\n" + HTML.encode() + b"\x1b$B" * 200_000,
    )


def _plain() -> Iterator[Hostile]:
    plain = b"Content-Type: text/plain; charset=utf-8\r\n\r\n"
    yield _of("comments before something that is no HTML", lambda: plain + b"<!-- x -->" * 60 + MARK.encode())
    yield _of("comments without end", lambda: plain + b"<!--" * 200_000 + MARK.encode(), End.HELD)
    yield _of(
        "plain text with markup", lambda: plain + f"{MARK} <script>x()</script> </pre> &lt; {{{{ 7*7 }}}}".encode()
    )
    yield _of(
        "100,000 lines", lambda: plain + MARK.encode() + b"\r\nx" * 100_000, End.HELD, "more than 50 pages|longer than"
    )
    yield _of(
        "form feeds", lambda: plain + MARK.encode() + b"\f" * 100_000 + b"\v\x1b[2J\x1bE\x1b%-12345X@PJL", End.PRINTED
    )
    yield _of(
        "tags that nobody closes",
        lambda: b"Content-Type: text/html\r\n\r\n" + HTML.encode() + b"<a " * 900_000,
        End.HELD,
    )
    yield _of(
        "declarations that nobody closes",
        lambda: b"Content-Type: text/html\r\n\r\n" + HTML.encode() + b"<!x " * 500_000,
        End.HELD,
    )
    yield _of(
        "comments that nobody closes",
        lambda: b"Content-Type: text/html\r\n\r\n" + HTML.encode() + b"<!-- " * 500_000,
        End.HELD,
    )
    yield _of(
        "CDATA that nobody closes",
        lambda: b"Content-Type: text/html\r\n\r\n" + HTML.encode() + b"<![CDATA[ " * 300_000,
        End.HELD,
    )
    yield _of(
        "scripts that nobody closes",
        lambda: b"Content-Type: text/html\r\n\r\n" + HTML.encode() + b"<script></scrip " * 200_000,
        End.HELD,
    )
    yield _of(
        "ampersands",
        lambda: b"Content-Type: text/html\r\n\r\n" + HTML.encode() + b"&" * 900_000 + b"&#" * 200_000,
        End.HELD,
    )
    yield _of("end tags", lambda: b"Content-Type: text/html\r\n\r\n" + HTML.encode() + b"</p></br>" * 300_000, End.HELD)
    yield _of(
        "quotes of attributes",
        lambda: b"Content-Type: text/html\r\n\r\n" + HTML.encode() + b"<p a='" + b"=\"'" * 500_000,
        End.HELD,
    )


def _head(kind: str) -> bytes:
    return f"Content-Type: {kind}; boundary=b\r\n\r\n".encode()


def _multipart(parts: list[bytes], boundary: bytes = b"b") -> bytes:
    head = b'Content-Type: multipart/mixed; boundary="' + boundary + b'"\r\n\r\n'
    return head + b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"


def _nested(depth: int) -> bytes:
    return (
        b"".join(f"Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n".encode() for n in range(depth))
        + BODY
    )


def _base64_part(size: int) -> bytes:
    return (
        b"Content-Type: image/png\r\nContent-ID: <x>\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes(bytes(size))
    )
