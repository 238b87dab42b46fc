"""Charsets as mail has them, and plain text as HTML."""

from __future__ import annotations

import time

import pytest

from relay.slips.text import clean, decode_part, decode_text, html_of, is_letter_xml, looks_like_html

CYRILLIC, JAPANESE, CHINESE, KOREAN = "Библиотека", "図書館の本", "图书馆", "도서관"


def read(content: bytes, charset: str = "") -> tuple[str, list[str]]:
    notes: list[str] = []
    return decode_text(content, charset, notes), notes


@pytest.mark.parametrize(
    ("text", "codec", "name"),
    [
        (CYRILLIC, "koi8-r", "KOI8-R"),
        (CYRILLIC, "cp1251", "windows-1251"),
        (CYRILLIC, "cp866", "cp866"),
        (CYRILLIC, "cp855", "cp855"),
        (JAPANESE, "iso2022_jp", "ISO-2022-JP"),
        (JAPANESE, "shift_jis", '"Shift_JIS"'),
        ("①図書", "cp932", "shift_jis"),
        (JAPANESE, "euc_jp", "euc-jp"),
        (CHINESE, "gb18030", "GB18030"),
        (CHINESE, "gb2312", "gb2312"),
        ("𠀀朱镕基", "gb18030", "gb2312"),
        (CHINESE, "hz", "hz-gb-2312"),
        ("圖書館", "big5", "big5"),
        (KOREAN, "euc_kr", "ks_c_5601-1987"),
        (KOREAN, "iso2022_kr", "iso-2022-kr"),
        ("ספרייה", "cp1255", "windows-1255"),
        ("מצעד", "iso8859_8", "iso-8859-8-i"),
        ("مكتبة", "cp1256", "windows-1256"),
        ("Größe", "cp850", "cp850"),
        ("Größe", "latin-1", "latin-1"),
        ("Größe", "utf-16-le", "utf-16"),
        ("Größe €", "utf-32", "utf-32"),
        ("Größe", "mac-roman", "macintosh"),
    ],
)
def test_named_charsets_are_read_without_a_note(text: str, codec: str, name: str) -> None:
    assert read(text.encode(codec), name) == (text, [])


@pytest.mark.parametrize(
    "name", ["utf-7", "x-no-such", "rot13", "base64", "idna", "unicode_escape", "zip", "größe", "a" * 99]
)
def test_what_is_no_charset_of_mail_is_noted_and_not_used(name: str) -> None:
    text, notes = read("+ADw-b+AD4- Größe".encode(), name)
    assert text == "+ADw-b+AD4- Größe"
    assert notes == [f"The letter names a charset that does not exist: {name[:40]}."]


@pytest.mark.parametrize("name", ["unknown-8bit", "x-unknown", "8bit", "binary", "", "default"])
def test_charsets_that_say_nothing_are_none(name: str) -> None:
    assert read("Größe".encode(), name) == ("Größe", [])


@pytest.mark.parametrize("name", ["iso-8859-1", "windows-1252", "koi8-r", "iso-8859-15", "cp850"])
def test_utf8_under_the_name_of_an_8_bit_charset_is_seen(name: str) -> None:
    text, notes = read(f"Größe {CYRILLIC}".encode(), name)
    assert text == f"Größe {CYRILLIC}"
    assert notes == [f"The letter says it is in {name}, but it is in UTF-8."]


def test_utf8_with_a_broken_end_stays_utf8() -> None:
    text, notes = read(CYRILLIC.encode()[:-1], "utf-8")
    assert text.startswith(CYRILLIC[:-1])
    assert len(notes) == 1


def test_western_text_under_the_name_utf8_is_read_and_noted() -> None:
    text, notes = read("Größe für Bücher".encode("cp1252"), "utf-8")
    assert text == "Größe für Bücher"
    assert notes == ["The letter is not in the charset it names; some characters may be wrong."]


def test_western_text_without_a_name_is_read_and_noted() -> None:
    assert read("Größe".encode("cp1252")) == (
        "Größe",
        ["The letter does not name its charset; some characters may be wrong."],
    )


def test_japanese_without_a_name_is_seen_by_its_escapes() -> None:
    assert read(JAPANESE.encode("iso2022_jp")) == (JAPANESE, [])


def test_broken_multibyte_text_is_read_as_far_as_it_goes() -> None:
    text, notes = read(CHINESE.encode("gb18030") + b"\xff\xff", "gb2312")
    assert text.startswith(CHINESE)
    assert len(notes) == 1


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-16", "utf-8-sig", "utf-32"])
@pytest.mark.parametrize("name", ["", "utf-8", "iso-8859-1"])
def test_wide_text_is_seen_with_and_without_its_mark(codec: str, name: str) -> None:
    text = "<?xml version='1.0'?><p>Größe</p>"
    assert read(text.encode(codec), name)[0] == text


def test_utf8_that_calls_itself_utf16_is_utf8() -> None:
    assert read(b'<?xml version="1.0" encoding="utf-16"?><p>12</p>', "utf-16")[0].endswith("<p>12</p>")


def test_charset_inside_counts_when_that_of_the_header_does_not_fit() -> None:
    html = '<meta charset="windows-1251"><p>' + CYRILLIC
    notes: list[str] = []
    assert CYRILLIC in decode_part(html.encode("cp1251"), "utf-8", notes)
    assert notes == ["The letter is not in the charset of its header, but in the one that it names inside."]
    assert CYRILLIC in decode_part(html.replace("windows-1251", "iso-8859-1").encode(), "utf-8", [])


def test_characters_that_no_printer_knows_are_left_out() -> None:
    assert clean("a\0b\x07c\r\nd\re\ud800") == "abc\nd\ne?"


def test_html_is_known_by_its_beginning() -> None:
    for text in (
        "<HTML><p>",
        " \n<!doctype html>",
        "<!-- x --><table width=1>",
        "<?xml version='1.0'?>\n<html>",
        "<p>x",
    ):
        assert looks_like_html(text), text
    for text in ("a <b>", "<anna@example.edu> wrote", "<notification_data>", "x < y", ""):
        assert not looks_like_html(text), text


def test_plain_text_that_is_called_html_keeps_its_lines() -> None:
    assert html_of("Title: A &amp; B\nShelf < 3", is_html=True) == "<pre>Title: A &amp; B\nShelf &lt; 3</pre>"
    assert html_of("one line", is_html=True) == "one line"
    assert html_of("a<br>\nb", is_html=True) == "a<br>\nb"


def test_flowed_lines_are_joined() -> None:
    flowed = "A long \nline of \ntext.\n\n> quoted \n> on\n>> deeper\n stuffed\n-- \nsignature"
    expected = "A long line of text.\n\n> quoted on\n>> deeper\nstuffed\n-- \nsignature"
    assert html_of(flowed, is_html=False, flowed=True) == f"<pre>{expected.replace('>', '&gt;')}</pre>"


def test_flowed_lines_without_spaces_between_words_are_joined_without() -> None:
    assert html_of("図書 \n館", is_html=False, flowed=True, delsp=True) == "<pre>図書館</pre>"


@pytest.mark.parametrize(
    "text",
    [
        "<notification_data><a/></notification_data>",
        '<?xml version="1.0" encoding="UTF-8"?>\n<!-- x -->\n<notification_data>',
        "<?xml version='1.0'?><!DOCTYPE notification_data [ ]><notification_data >",
        " \n<a:notification_data xmlns:a='x'>",
    ],
)
def test_xml_of_a_letter_is_known(text: str) -> None:
    assert is_letter_xml(text)
    assert not is_letter_xml("<html>" + text)
    assert not is_letter_xml("<p>notification_data</p>")


@pytest.mark.parametrize("text", ["<!---->" * 600, "<!--" * 2000, "<?xml " * 1000, " " * 8000, "<!DOCTYPE x>" * 500])
def test_beginnings_made_to_take_long_do_not(text: str) -> None:
    started = time.process_time()
    assert not looks_like_html(text)
    assert not is_letter_xml(text)
    assert time.process_time() - started < 1
