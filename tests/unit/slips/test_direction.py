"""Hebrew, Arabic and mixed letters: each block is read its own way, and stands on its own side."""

from __future__ import annotations

import pytest

from relay.config.profiles import Profile
from relay.slips import tree
from relay.slips.direction import has_rtl, left_is_start, set_directions
from relay.slips.render import Renderer
from tests.unit.slips.letters import ink_mm, letter, raster, word, words_of

A4 = Profile(name="a4", paper="A4")
LEFT, RIGHT = A4.margins.left, 210 - A4.margins.right
ENGLISH = "<p>Loan receipt of the library of the town, with a good many letters</p>"
HEBREW = "<p>קבלת השאלה של ספריית העיר, ובה הרבה מאוד אותיות עבריות</p>"


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer()


def directed(html: str, letter: str = "ltr") -> str:
    body = tree.parse(html)
    set_directions(body, letter)
    return tree.inner_html(body)


@pytest.mark.parametrize(
    ("html", "overall", "expected"),
    [
        ("<p>ספר</p><p>book</p>", "ltr", '<p dir="rtl">ספר</p><p>book</p>'),
        ("<p>ספר</p><p>book</p>", "rtl", '<p>ספר</p><p dir="ltr">book</p>'),
        # The first letter and the most letters differ: the letter as a whole decides.
        ("<p>Title: תולדות ארץ ישראל</p>", "ltr", "<p>Title: תולדות ארץ ישראל</p>"),
        ("<p>JavaScript למתחילים גמורים</p>", "rtl", "<p>JavaScript למתחילים גמורים</p>"),
        ("<p>כותר: A tale of love and darkness</p>", "rtl", "<p>כותר: A tale of love and darkness</p>"),
        # Behind a label only the value counts: an English template with Hebrew values begins on one side throughout.
        ("<p><b>Author: </b>לוי, משה</p>", "rtl", "<p><b>Author: </b>לוי, משה</p>"),
        ("<p>Annex shelving location: 956.94 לוי</p>", "rtl", "<p>Annex shelving location: 956.94 לוי</p>"),
        ("<p>Author: לוי, משה</p>", "ltr", "<p>Author: לוי, משה</p>"),
        ("<p>Request type: Patron request</p>", "rtl", '<p dir="ltr">Request type: Patron request</p>'),
        # Inline elements count with their block, blocks inside a block do not.
        ("<p><b>כותר</b> <i>ארץ</i></p>", "ltr", '<p dir="rtl"><b>כותר</b> <i>ארץ</i></p>'),
        ("<div>book<p>ספר</p></div>", "ltr", '<div>book<p dir="rtl">ספר</p></div>'),
        ("<div>ספר<p>book</p></div>", "ltr", '<div dir="rtl">ספר<p dir="ltr">book</p></div>'),
        # A table keeps the order of the columns of the letter.
        (
            "<table><tbody><tr><td>ספר</td><td>book</td></tr></tbody></table>",
            "ltr",
            '<table><tbody><tr><td dir="rtl">ספר</td><td>book</td></tr></tbody></table>',
        ),
        (
            "<div>ספר<table><tbody><tr><td>1</td></tr></tbody></table></div>",
            "ltr",
            '<div dir="rtl">ספר<table dir="ltr"><tbody><tr><td>1</td></tr></tbody></table></div>',
        ),
        # What the letter says stays; what it says in words that mean nothing here is found out.
        ('<p dir="ltr">ספר</p>', "rtl", '<p dir="ltr">ספר</p>'),
        ('<p dir="auto">ספר</p>', "ltr", '<p dir="rtl">ספר</p>'),
        # No letters: where the surroundings put it. Groups of digits stay in their order.
        ("<p>31188000602306</p>", "rtl", "<p>31188000602306</p>"),
        ("<p>15/09/2025 23:59</p>", "rtl", "<p>15/09/2025 23:59</p>"),
        ("<p>3 9345 0001</p>", "rtl", '<p dir="ltr" align="right">3 9345 0001</p>'),
        ('<p align="left">3 9345 0001</p>', "rtl", '<p align="left" dir="ltr">3 9345 0001</p>'),
        ("<p>3 9345 0001</p>", "ltr", "<p>3 9345 0001</p>"),
    ],
)
def test_each_block_has_the_direction_of_its_text(html: str, overall: str, expected: str) -> None:
    assert directed(html, overall) == expected


def test_marks_and_letters_of_every_rtl_script_are_seen() -> None:
    for text in ("ש", "ع", "\u200f", "\u0710", "\u07ca", "\ufdfa", "\U0001e900"):
        assert has_rtl(text)
    assert not has_rtl("aé Ж ω 中 の 한 123 📚")


def test_what_a_tree_writes_is_what_it_read() -> None:
    html = '<p title="&quot;a&quot; &amp; b">1 &lt; 2 &amp;amp;<br>x</p>\u00a0<img src="slip:///1/1" alt=""><hr>end'
    assert tree.inner_html(tree.parse(html)) == html


def test_hebrew_in_an_english_letter_stands_at_the_right(renderer: Renderer) -> None:
    pdf = renderer.render(letter(ENGLISH + "<p>ספר על אהבה</p><p>returned</p>"), A4).pdf
    assert word(pdf, "ספר").right == pytest.approx(RIGHT, abs=0.5)
    assert word(pdf, "returned").left == pytest.approx(LEFT, abs=0.5)
    assert word(pdf, "ספר").left > word(pdf, "על").left > word(pdf, "אהבה").left


def test_english_in_a_hebrew_letter_stands_at_the_left(renderer: Renderer) -> None:
    pdf = renderer.render(letter(HEBREW + "<p>A tale of love</p><p>מוחזר</p>"), A4).pdf
    assert word(pdf, "A").left == pytest.approx(LEFT, abs=0.5)
    assert word(pdf, "A").left < word(pdf, "tale").left < word(pdf, "love").left
    assert word(pdf, "מוחזר").right == pytest.approx(RIGHT, abs=0.5)


def test_a_label_stands_before_its_value(renderer: Renderer) -> None:
    english = renderer.render(letter(ENGLISH + "<p><b>Title:</b> תולדות ארץ ישראל</p>"), A4).pdf
    assert word(english, "Title:").right < word(english, "ישראל").left
    assert word(english, "ישראל").left < word(english, "תולדות").left
    hebrew = renderer.render(letter(HEBREW + "<p><b>כותר</b> A tale of love and darkness</p>"), A4).pdf
    assert word(hebrew, "כותר").left > word(hebrew, "darkness").right
    assert word(hebrew, "A").left < word(hebrew, "darkness").left


def test_columns_follow_the_letter(renderer: Renderer) -> None:
    table = "<table width='100%'><tr><td width='50%'>ספר</td><td>book</td></tr></table>"
    english = renderer.render(letter(ENGLISH + table), A4).pdf
    assert word(english, "ספר").right < word(english, "book").left
    hebrew = renderer.render(letter(HEBREW + table), A4).pdf
    assert word(hebrew, "ספר").left > word(hebrew, "book").right


def test_align_of_the_letter_keeps_its_word(renderer: Renderer) -> None:
    pdf = renderer.render(letter(ENGLISH + "<p align='left'>ספר</p><p align='right'>returned</p>"), A4).pdf
    assert word(pdf, "ספר").left == pytest.approx(LEFT, abs=0.5)
    assert word(pdf, "returned").right == pytest.approx(RIGHT, abs=0.5)


@pytest.mark.parametrize("style", ["p { text-align: left }", ""])
def test_css_that_puts_all_text_to_the_left_was_meant_for_latin(renderer: Renderer, style: str) -> None:
    attribute = "" if style else ' style="text-align:left"'
    html = f"<style>{style}</style>{ENGLISH}<p{attribute}>ספר</p><p{attribute}>returned</p>"
    pdf = renderer.render(letter(html), A4).pdf
    assert word(pdf, "ספר").right == pytest.approx(RIGHT, abs=0.5)
    assert word(pdf, "returned").left == pytest.approx(LEFT, abs=0.5)


def test_css_of_a_letter_that_names_its_direction_is_believed(renderer: Renderer) -> None:
    pdf = renderer.render(letter(f'<html dir="rtl"><p style="text-align:left">ספר</p>{HEBREW}'), A4).pdf
    assert word(pdf, "ספר").left == pytest.approx(LEFT, abs=0.5)


def test_only_the_alignment_of_text_is_changed() -> None:
    assert left_is_start("float: left; text-align: left; text-align:LEFT") == (
        "float: left; text-align: start; text-align:start"
    )


def test_groups_of_digits_keep_their_order_in_a_hebrew_letter(renderer: Renderer) -> None:
    pdf = renderer.render(letter(HEBREW + "<table width='100%'><tr><td>3 9345 0001</td></tr></table>"), A4).pdf
    assert [each.text for each in words_of(pdf)][-3:] == ["3", "9345", "0001"]
    assert word(pdf, "3").left < word(pdf, "9345").left < word(pdf, "0001").left
    assert word(pdf, "0001").right > 190


def test_arabic_is_joined_and_at_the_right(renderer: Renderer) -> None:
    slip = renderer.render(letter("<p>مكتبة العلوم</p>"), A4)
    left, _, right, _ = ink_mm(raster(slip.pdf))
    assert right == pytest.approx(RIGHT, abs=1)
    apart = renderer.render(letter("<p>م\u200cك\u200cت\u200cب\u200cة ا\u200cل\u200cع\u200cل\u200cو\u200cم</p>"), A4)
    assert right - left < 0.9 * (RIGHT - ink_mm(raster(apart.pdf))[0]), "letters that are not joined are wider"
