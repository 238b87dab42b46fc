"""Text of bytes: charsets as mail has them, and plain text as HTML.

Does: decodes by byte order mark, declared charset (its larger cousins included), UTF-8, else by what the bytes look
like; joins the lines of format=flowed (RFC 3676); makes HTML of plain text.
Promises: always text, without NULs and other characters that no printer knows, and a note when it was a guess.
Refuses: UTF-7 and everything else that is no charset of mail: the note says so and the bytes are read without it.
Known limits: which one of the 8-bit charsets it is can't be seen: without a word of the sender it is windows-1252.
"""

from __future__ import annotations

import codecs
import html
import re

import webencodings

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Charsets that mail has and browsers do not know, or not under this name. Never UTF-7, nor codecs that are no charset.
_BEYOND_THE_WEB = frozenset(
    """cp437 cp737 cp775 cp850 cp852 cp855 cp857 cp858 cp860 cp861 cp862 cp863 cp864 cp865 cp866 cp869 cp1252 hz
    iso2022_jp_1 iso2022_jp_2 iso2022_jp_3 iso2022_jp_ext iso2022_kr iso8859-1 johab koi8-t mac-roman mac-cyrillic
    mac-greek mac-latin2 ptcp154 tis-620 utf-8 utf-16 utf-32 utf-32-be utf-32-le""".split()  # noqa: SIM905
)
# Senders name the smaller set and use characters of the larger one.
_COUSINS = {
    "gbk": ("gb18030",),
    "iso2022_jp": ("iso2022_jp_2", "iso2022_jp_ext"),
    "cp932": ("shift_jis_2004",),
    "euc_jp": ("eucjis2004",),
    "cp949": ("johab",),
    "big5hkscs": ("cp950",),
}
_MULTIBYTE = frozenset(("gbk", "gb18030", "iso2022_jp", "cp932", "euc_jp", "cp949", "big5hkscs", "iso2022_kr", "hz"))
_NO_CHARSET = frozenset(("", "8bit", "binary", "default", "none", "unknown", "unknown-8bit", "x-unknown"))
_ASCII = frozenset(("us-ascii", "ascii", "ansi_x3.4-1968", "iso646-us"))

_META = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([a-zA-Z0-9_.:-]{1,40})", re.IGNORECASE)
_XML = re.compile(rb"\s*<\?xml[^>]{0,80}encoding\s*=\s*[\"']([a-zA-Z0-9_.:-]{1,40})", re.IGNORECASE)
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\ufffe\uffff]")
_ESCAPED_JAPANESE = re.compile(rb"\x1b(?:\$[@B]|\(J)")

_START = r"(?>\s+|<!--.*?-->|<\?xml[^>]*>|<!DOCTYPE\s(?!html)[^>]*>)*+"  # possessive: no second way to read it
_IS_HTML = re.compile(
    _START + r"<(?:!doctype\s+html|html|head|body|meta|title|style|table|div|center|p|h[1-6]|br|font|span)\b[^<>]*>",
    re.IGNORECASE | re.DOTALL,
)
_HAS_TAGS = re.compile(r"</?[a-z!?][^<>]*>", re.IGNORECASE)
_IS_LETTER_XML = re.compile(_START + r"<(?:\w+:)?notification_data\b", re.DOTALL | re.IGNORECASE)


def decode_text(content: bytes, charset: str, notes: list[str]) -> str:
    """Text of bytes: byte order mark, declared charset, UTF-8, else a guess; never fails."""
    for mark, name in _MARKS:
        if content.startswith(mark):
            return content.decode(name, "replace")
    charset = charset.strip().strip("\"'").lower()
    codec = _codec(charset)
    if codec is None and charset not in _NO_CHARSET:
        notes.append(f"The letter names a charset that does not exist: {charset[:40]}.")
    if (wide := _looks_wide(content)) and (codec is None or not codec.startswith(("utf-16", "utf-32"))):
        return content.decode(wide, "replace")
    if codec is None or charset in _ASCII:
        return _without_a_word(content, notes)
    return _as_declared(content, codec, charset, notes)


def charset_inside(content: bytes) -> str:
    """The charset that HTML or XML names in its own beginning, or nothing."""
    match = _XML.match(content[:200]) or _META.search(content[:4096])
    return match[1].decode("ascii") if match else ""


def decode_part(content: bytes, charset: str, notes: list[str]) -> str:
    """Text of a part that may name its charset inside as well, as HTML and XML do. The header counts first."""
    doubts: list[str] = []
    inside = charset_inside(content)
    text = decode_text(content, charset or inside, doubts)
    if doubts and charset and inside and inside.lower() != charset.lower():
        others: list[str] = []
        other = decode_text(content, inside, others)
        if not others:
            text, doubts = (
                other,
                ["The letter is not in the charset of its header, but in the one that it names inside."],
            )
    notes.extend(doubts)
    return clean(text)


def clean(text: str) -> str:
    """Text with one kind of line end, and only with characters that may stand in HTML."""
    text = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates: nh3 would not take them
        return text.encode("utf-8", "replace").decode()
    return text


def looks_like_html(text: str) -> bool:
    """Whether text begins as HTML does, whatever it is called."""
    return _IS_HTML.match(text[:4096]) is not None


def is_letter_xml(text: str) -> bool:
    """Whether this is the XML behind a letter, which Alma sends to whoever is the "XML to Letter Admin"."""
    return _IS_LETTER_XML.match(text[:8192]) is not None


def html_of(text: str, *, is_html: bool, flowed: bool = False, delsp: bool = False) -> str:
    """The text as HTML, unless it is."""
    if is_html and (_HAS_TAGS.search(text) or "\n" not in text.strip()):
        return text
    if is_html:  # no tag at all, but lines: somebody called plain text HTML
        text = html.unescape(text)
    elif looks_like_html(text):
        return text
    return f"<pre>{html.escape(_unflowed(text, delsp=delsp) if flowed else text)}</pre>"


def _unflowed(text: str, *, delsp: bool) -> str:
    """Lines that end with a space go on in the next one (RFC 3676, 4), if both are quoted equally deep."""
    joined: list[str] = []
    open_depth = -1
    for line in text.split("\n"):
        stripped = line.lstrip(">")
        depth = len(line) - len(stripped)
        rest = stripped.removeprefix(" ")  # space-stuffed (4.4)
        if open_depth == depth and rest != "-- ":
            joined[-1] += rest
        else:
            joined.append(f"{'>' * depth} {rest}" if depth else rest)
        goes_on = joined[-1].endswith(" ") and rest != "-- " and rest.endswith(" ")
        open_depth = depth if goes_on else -1
        if goes_on and delsp:
            joined[-1] = joined[-1][:-1]
    return "\n".join(joined)


def _codec(charset: str) -> str | None:
    """Python's name of a charset, or None."""
    encoding = webencodings.lookup(charset) if charset.isascii() else None
    if encoding is not None and encoding.name not in ("replacement", "x-user-defined"):
        return str(encoding.codec_info.name)
    try:
        name = codecs.lookup(charset).name if charset and charset.isascii() and "\0" not in charset else ""
    except (LookupError, ValueError):
        return None
    return name if name in _BEYOND_THE_WEB else None


def _looks_wide(content: bytes) -> str:
    """UTF-16 without its mark, seen by the NULs of its Latin letters; or nothing."""
    begin = content[:200]
    if len(begin) < 4 or begin.count(0) < len(begin) // 3:
        return ""
    even, odd = begin[0::2].count(0), begin[1::2].count(0)
    if odd > len(begin) // 3 and odd > 8 * even:
        return "utf-16-le"
    return "utf-16-be" if even > len(begin) // 3 and even > 8 * odd else ""


def _as_declared(content: bytes, codec: str, charset: str, notes: list[str]) -> str:
    is_utf8 = _strict(content, "utf-8")
    if is_utf8 is not None and codec.startswith(("utf-16", "utf-32")) and b"\0" not in content[:1000]:
        return is_utf8  # programs name the charset of their strings, and then write them in another
    if is_utf8 is not None and not content.isascii() and codec not in _MULTIBYTE and not codec.startswith("utf"):
        # No text of an 8-bit charset is UTF-8 by accident, but for very short ones.
        notes.append(f"The letter says it is in {charset[:40]}, but it is in UTF-8.")
        return is_utf8
    for name in (codec, *_COUSINS.get(codec, ())):
        if (text := _strict(content, name)) is not None:
            return text
    notes.append("The letter is not in the charset it names; some characters may be wrong.")
    if is_utf8 is not None:
        return is_utf8
    if codec == "utf-8":
        return _nearly_utf8(content)
    if codec in _MULTIBYTE or codec.startswith("utf"):
        cousins = _COUSINS.get(codec)
        return content.decode(cousins[0] if cousins else codec, "replace")
    return content.decode("windows-1252", "replace") if codec == "iso8859-1" else content.decode(codec, "replace")


def _without_a_word(content: bytes, notes: list[str]) -> str:
    if _ESCAPED_JAPANESE.search(content) and (text := _strict(content, "iso2022_jp_ext")) is not None:
        return text
    text = _strict(content, "utf-8")
    if text is None:
        notes.append("The letter does not name its charset; some characters may be wrong.")
        return _nearly_utf8(content)
    return text


def _nearly_utf8(content: bytes) -> str:
    """UTF-8 with a few broken bytes, or else windows-1252, which never was UTF-8."""
    text = content.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    whole = sum(not character.isascii() for character in text) - broken
    return text if whole > broken else content.decode("windows-1252", "replace")


def _strict(content: bytes, codec: str) -> str | None:
    try:
        return content.decode(codec)
    except (UnicodeError, LookupError):
        return None
