"""What the rules ask of a letter, asked of a child."""

from __future__ import annotations

import asyncio

import pytest

from relay.config.printers import Rendering
from relay.config.profiles import Profile
from relay.errors import RendererDied, RenderError
from relay.slips.describe import describe
from relay.slips.facts import ElementFound, ElementWanted, Facts, Wanted, answer, facts_from, question, wanted_from
from relay.slips.pool import RenderPool
from relay.slips.selectors import check_selector
from tests.unit.slips.letters import letter

TRANSIT = """<html><body><h1>Transit</h1><table>
<tr><td>From: <b>Main   Library</b></td></tr><tr><td>To: Map Room</td></tr></table>
<p id="note">Handle with care</p><script>hidden()</script><style>hidden{}</style></body></html>"""


def found(html: str, *wanted: ElementWanted) -> list[ElementFound]:
    facts = describe(letter(html), Wanted(elements=wanted))
    return [facts.elements[each] for each in wanted]


def test_text_is_found_across_line_breaks_and_case() -> None:
    wanted = Wanted(texts=("main library", "HANDLE WITH", "hidden", "From: Main Library"))
    assert describe(letter(TRANSIT), wanted).texts == {"main library", "HANDLE WITH", "From: Main Library"}


def test_elements_are_found_by_selector_and_by_their_text() -> None:
    here, there, cell, nowhere = found(
        TRANSIT,
        ElementWanted("#note"),
        ElementWanted("td", ("To: *",), ("*map*", "*main*")),
        ElementWanted("td", (), ("*map*", "*main*")),
        ElementWanted("#nowhere", ("*",)),
    )
    assert here == ElementFound(1, frozenset(), ("Handle with care",))
    assert there == ElementFound(1, frozenset({0}), ("To: Map Room",)), "the other cell has no part in it"
    assert (cell.count, cell.fits) == (2, frozenset({0, 1}))
    assert nowhere == ElementFound()


def test_an_element_without_text_has_its_content() -> None:
    assert found('<meta name="x" content="y z"><p>t</p>', ElementWanted('meta[name="x"]', ("y*",)))[0].count == 1


@pytest.mark.parametrize(
    ("selector", "why"),
    [("td[", "can't be used"), ("p::before", "never finds"), ("a:hover", "never finds"), ("x:nope", "can't be used")],
)
def test_a_bad_selector_is_a_clear_error(selector: str, why: str) -> None:
    with pytest.raises(RenderError, match=why):
        check_selector(selector)
    with pytest.raises(RenderError, match=why):
        describe(letter("<p>x</p>"), Wanted(elements=(ElementWanted(selector),)))


def test_a_letter_that_can_t_be_read_is_described_as_far_as_that_goes() -> None:
    message = b"From: a@lib.example\r\nSubject: Loan Receipt\r\nContent-Type: application/zip\r\n\r\nx\r\n"
    facts = describe(message, Wanted(texts=("x",)))
    assert facts.unreadable == "the message has no text to print: neither HTML nor plain text"
    assert facts.letter_type is not None
    assert (facts.letter_type.name, facts.texts) == ("FulLoanReceiptLetter", frozenset())


@pytest.mark.parametrize("html", ["<b>" * 200 + "x", "<i></i>" * 60_000], ids=["deep", "many"])
def test_a_letter_too_large_to_look_at_says_so(html: str) -> None:
    assert "the letter" in describe(letter(html), Wanted(elements=(ElementWanted("p"),))).unreadable


def test_attachments_are_named_by_their_type() -> None:
    message = (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>x</p>\r\n"
        b"--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=x.pdf\r\n\r\n%PDF-1.4\r\n"
        b"--b--\r\n"
    )
    assert describe(message, Wanted()).attachments == ("application/pdf",)


def test_questions_and_answers_travel_whole() -> None:
    wanted = Wanted(("a",), (ElementWanted("p", ("x*",), ("y",)),), {"A": ("b*",)})
    assert wanted_from(question(wanted)) == wanted
    facts = describe(letter('<meta name="slip-relay" content="type=T1; printer=P"><p>xa</p>'), wanted)
    assert facts_from(answer(facts, wanted), wanted) == facts
    assert isinstance(facts, Facts)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"type": "T", "found_by": "magic"},
        {"type": "T", "found_by": "marker", "printer": "", "library": "", "texts": [True, True]},
    ],
)
def test_an_answer_that_is_none_is_refused(header: dict[str, object]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        facts_from(header, Wanted(texts=("a",)))


def test_what_a_child_says_is_bounded() -> None:
    wanted = Wanted(elements=(ElementWanted("p"),))
    said = answer(Facts(unreadable="u" * 10_000), wanted)
    said["elements"] = [[1, [0, 5, 7], ["s" * 10_000] * 100]]
    said["printer"] = "p" * 10_000
    facts = facts_from(said, wanted)
    assert len(facts.unreadable) == 300
    assert facts.printer_code == ""
    assert facts.elements[wanted.elements[0]] == ElementFound(1, frozenset(), ("s" * 200,) * 5)


@pytest.mark.asyncio
async def test_a_child_describes_and_renders_one_after_the_other() -> None:
    pool = RenderPool(Rendering(children=1))
    await pool.start()
    try:
        wanted = Wanted(texts=("care",), elements=(ElementWanted("td", ("To:*",)),))
        facts = await pool.describe(letter(TRANSIT), wanted)
        assert facts.texts == {"care"}
        assert facts.elements[wanted.elements[0]].count == 1
        slip = await pool.render(letter(TRANSIT), Profile(name="a4", paper="A4"))
        assert slip.pages == 1
        with pytest.raises(RenderError, match="can't be used"):
            await pool.describe(letter(TRANSIT), Wanted(elements=(ElementWanted("td["),)))
        assert (await pool.describe(letter(TRANSIT), wanted)).texts == {"care"}
    finally:
        await pool.stop()


@pytest.mark.asyncio
async def test_a_letter_that_takes_too_long_to_describe_ends_its_child_and_no_other_letter() -> None:
    pool = RenderPool(Rendering(children=1, timeout=0.5))
    await pool.start()
    rows = "<p>x</p>" * 20_000
    try:
        with pytest.raises(RendererDied):
            await pool.describe(letter(rows), Wanted(elements=(ElementWanted("p:nth-last-of-type(3)"),)))
        async with asyncio.timeout(60):
            assert (await pool.describe(letter("<p>x</p>"), Wanted(texts=("x",)))).texts == {"x"}
    finally:
        await pool.stop()
