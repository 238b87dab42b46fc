"""Every script has its letters; what no font has is counted and told."""

from __future__ import annotations

import pytest

from relay.config.profiles import Profile
from relay.slips.fonts import Fonts
from relay.slips.render import Renderer
from tests.unit.slips.letters import letter, text_of

A4 = Profile(name="a4", paper="A4")
SCRIPTS = {
    "latin": "Łódź Ærø Škoda façade Đặng ﬁ",
    "greek": "Βιβλιοθήκη Ἀθήνα",
    "cyrillic": "Библиотека Київ Ђорђе",
    "hebrew": "ספרייה שָׁלוֹם",
    "arabic": "مكتبة کتابخانه اُردو",
    "chinese": "图书馆 圖書館",
    "japanese": "図書館 としょかん トショカン",
    "korean": "도서관",
    "thai": "ห้องสมุด",
    "devanagari": "पुस्तकालय",
    "armenian and georgian": "Գրադարան ბიბლიოთეკა",
    "symbols": "№ € ₪ → ✓ ☐ ★ ½ ∑ ♪",
    "emoji": "📚 😀 ☕ 📅 📖 ⏰ ❤\ufe0f 👩\u200d🏫",
}


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer()


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_letter_of_a_script_is_missing(renderer: Renderer, script: str) -> None:
    slip = renderer.render(letter(f"<p>{SCRIPTS[script]}</p>"), A4)
    assert (slip.missing_glyphs, slip.notes) == (0, ())
    assert text_of(slip.pdf)


@pytest.mark.parametrize(
    ("text", "count", "note"),
    [
        ("a\U000f0001b", 1, "1 character of the letter is missing in the fonts of this machine."),
        ("\U000f0001 \U000f0001 \U000f0002", 3, "3 characters of the letter are missing in the fonts of this machine."),
    ],
)
def test_what_no_font_has_is_counted_and_told(renderer: Renderer, text: str, count: int, note: str) -> None:
    slip = renderer.render(letter(f"<p>Title: {text}</p>"), A4)
    assert slip.missing_glyphs == count
    assert slip.notes == (note,)


def test_hidden_and_invisible_characters_are_not_missing(renderer: Renderer) -> None:
    html = "<p>x\u200b\u200e\u2028\u00ad\ufeff</p><p style='display:none'>\U000f0001</p>"
    html += "<p style='visibility:hidden'>\U000f0001</p><p title='\U000f0001'>y</p>"
    assert renderer.render(letter(html), A4).missing_glyphs == 0


def test_fonts_are_asked_once_for_each_character() -> None:
    fonts = Fonts()
    assert fonts.missing("plain ASCII") == 0
    assert fonts.missing("é\U000f0001é\U000f0001") == 2
    assert set(fonts._known) == {"é", "\U000f0001"}
