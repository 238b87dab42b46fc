"""Which letter it is: by its marker, by traits of the default templates, by its subject."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from relay.slips.describe import describe
from relay.slips.facts import Facts, Wanted
from relay.slips.subjects import SUBJECTS
from tests.harness import samples
from tests.unit.slips.letters import barcode, letter, picture, solid

CORPUS = Path(__file__).resolve().parents[4] / "shared" / "corpus"
REQUEST, TRANSIT = "FulReasourceRequestSlipLetter", "FulTransitSlipLetter"
NOTHING = Wanted()


def of(html: str, *attached: str, subject: str = "Slip", wanted: Wanted = NOTHING) -> Facts:
    """What is found of a letter with pictures of these names."""
    parts = [picture(solid("black"), content_id=name, name=name) for name in attached]
    message = letter(html, *parts).replace(b"Subject: Slip", b"Subject: " + subject.encode())
    return describe(message, wanted)


def kind(facts: Facts) -> tuple[str, str] | None:
    return (facts.letter_type.name, facts.letter_type.found_by) if facts.letter_type else None


def shown(*names: str) -> str:
    return "".join(f'<img src="{name}">' for name in names)


MARKERS = {
    "in the head": '<head><meta name="slip-relay" content="type=FulTransitSlipLetter;printer=MAIN;library=LAW"></head>',
    "in the body": '<body><meta name="slip-relay" content="type=FulTransitSlipLetter; printer=MAIN; library=LAW">x',
    "spelled loosely": '<META NAME="Slip-Relay" CONTENT=" Type = FulTransitSlipLetter ;printer=MAIN;library=LAW;;">',
    "never closed": '<p id="slip-relay" title="type=FulTransitSlipLetter; printer=MAIN; library=LAW">',
    "as an element": '<p><span id="slip-relay" title="type=FulTransitSlipLetter; printer=MAIN; library=LAW"></span>',
    "in two places": '<meta name="slip-relay" content="type=FulTransitSlipLetter"><meta name="slip-relay" '
    'content="type=Other; printer=MAIN; library=LAW">',
}


@pytest.mark.parametrize("html", MARKERS.values(), ids=MARKERS)
def test_a_marker_says_type_printer_and_library(html: str) -> None:
    facts = of(f"{html}text", subject="Loan Receipt")
    assert kind(facts) == (TRANSIT, "marker")
    assert (facts.printer_code, facts.library_code) == ("MAIN", "LAW")


@pytest.mark.parametrize(
    "words",
    ["", "type=", "type=<script>", "type=a b", "type=" + "x" * 100, "printer", "=;=;=", "type=Zoë", "type=1st"],
)
def test_a_marker_of_nonsense_says_nothing(words: str) -> None:
    html = f'<meta name="slip-relay" content="{words.replace("<", "&lt;")}"><p>x</p>'
    assert kind(of(html, subject="Loan Receipt")) == ("FulLoanReceiptLetter", "subject")


def test_the_markers_that_libraries_had_put_in_before_are_read() -> None:
    kth = '<head><meta name="kthb" printer="alma-walkin" printkey="k"></head><p>x</p>'
    assert of(kth).printer_code == "alma-walkin"
    assert kind(of('<p id="print_type">FulTransitSlipLetter</p>')) == (TRANSIT, "marker")


def test_a_code_that_could_forge_a_line_of_a_log_is_none() -> None:
    facts = of('<meta name="slip-relay" content="printer=a&#10;event=x; library=b\u202ec"><p>x</p>')
    assert (facts.printer_code, facts.library_code) == ("", "")


FINGERPRINTS = [
    (shown("externalId.png", "qualifier.png", "group_qualifier.png"), (), "ResourceSharingShippingSlipLetter"),
    (shown("externalId.png", "cid:Barcode1.png"), (), "FulIncomingSlipLetter"),
    (shown("cid:request_id_barcode.png", "cid:item_id_barcode.png") + "<h2>Shelf</h2>", (), REQUEST),
    ("<h2>Regal</h2>", ("request_id_barcode.png",), REQUEST),
    (
        shown("cid:request_id_barcode.png", "cid:item_id_barcode.png") + '<div class="recordTitle">T</div>',
        (),
        TRANSIT,
    ),
    (shown("cid:item_id_barcode.png") + '<div class="recordTitle">T</div>', (), TRANSIT),
]


@pytest.mark.parametrize(("html", "attached", "name"), FINGERPRINTS)
def test_traits_of_the_default_templates_need_no_words(html: str, attached: tuple[str, ...], name: str) -> None:
    assert kind(of(html + "<p>שלום</p>", *attached, subject="???")) == (name, "fingerprint")


def test_traits_that_two_types_share_narrow_the_subject_down() -> None:
    html = shown("cid:request_id_barcode.png", "cid:item_id_barcode.png") + "<p>x</p>"
    assert kind(of(html, subject="Transit Slip")) == (TRANSIT, "subject")
    assert kind(of(html, subject="Loan Receipt")) is None
    assert kind(of(shown("externalId.png"), subject="Resource Sharing Return Slip")) == (
        "ResourceSharingReturnSlipLetter",
        "subject",
    )


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("Loan Receipt", "FulLoanReceiptLetter"),
        ("  LOAN   receipt ", "FulLoanReceiptLetter"),
        ("=?utf-8?b?UmXDp3UgZGUgcHLDqnQ=?=", "FulLoanReceiptLetter"),
        ("Ausleihquittung", "FulLoanReceiptLetter"),
        ("FulPlaceOnHoldShelfLetter", "FulPlaceOnHoldShelfLetter"),
    ],
)
def test_a_subject_is_looked_up(subject: str, name: str) -> None:
    assert kind(of("<p>x</p>", subject=subject)) == (name, "subject")


def test_a_heading_is_as_good_as_a_subject() -> None:
    assert kind(of("<h1>Return <b>receipt</b></h1>", subject="Hello")) == ("FulReturnReceiptLetter", "subject")


def test_an_institution_has_subjects_of_its_own() -> None:
    own = Wanted(subjects={"FulLoanReceiptLetter": ("your books*",), "X1": ("loan receipt",)})
    assert kind(of("<p>x</p>", subject="Your books, by date", wanted=own)) == ("FulLoanReceiptLetter", "subject")
    assert kind(of("<p>x</p>", subject="Loan receipt", wanted=own)) == ("X1", "subject")


def test_nothing_is_guessed() -> None:
    assert kind(of("<p>Dear reader</p>", subject="Hello")) is None
    both = Wanted(subjects={"A": ("same",), "B": ("same",)})
    assert kind(of("<p>x</p>", subject="same", wanted=both)) is None


def test_no_built_in_subject_stands_for_two_types_of_one_language() -> None:
    for language, table in SUBJECTS.items():
        counted = Counter(pattern for patterns in table.values() for pattern in patterns)
        assert [pattern for pattern, count in counted.items() if count > 1] == [], language
        assert all(pattern == pattern.casefold() for pattern in counted), language


def test_our_own_samples_are_recognised_without_a_marker() -> None:
    assert kind(describe(samples.request_slip("a@b.example"), NOTHING)) == (REQUEST, "fingerprint")


def test_the_barcode_of_a_font_counts_by_its_attached_picture() -> None:
    message = letter("<h2>Shelf</h2><p>*123*</p>", picture(barcode(), content_id="request_id_barcode.png"))
    assert kind(describe(message, NOTHING)) == (REQUEST, "fingerprint")


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not beside this checkout")
def test_the_slips_of_the_corpus_are_recognised_and_none_is_taken_for_another() -> None:
    """Without a marker. The facts of the two `edge/duplicate-delivery` have a wrong type: they are transit slips."""
    found: Counter[str] = Counter()
    for path in sorted(CORPUS.glob("*/*.eml")):
        told = json.loads(path.with_suffix(".json").read_text()).get("letter_type")
        if not told or path.name.startswith("duplicate-delivery"):
            continue
        facts = describe(path.read_bytes(), NOTHING)
        if facts.letter_type is not None:
            assert facts.letter_type.name == told, path.name
        found[facts.letter_type.found_by if facts.letter_type else "nothing"] += "Slip" in told
    assert found["fingerprint"] >= 30
    assert found["nothing"] == 0


DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "alma-marker.md"
XSL = "{http://www.w3.org/1999/XSL/Transform}"


def test_the_lines_for_alma_make_the_marker_that_is_read() -> None:
    """The style sheet's few instructions, carried out on what Alma's XML would say."""
    lines = re.findall(r"```xml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)[0]
    says = {
        "/notification_data/general_data/letter_type": TRANSIT,
        "/notification_data/receivers/receiver/printer/code": "MAIN",
        "/notification_data/organization_unit/code": "LAW",
    }
    meta = ElementTree.fromstring(f'<r xmlns:xsl="{XSL.strip("{}")}">{lines}</r>')[0]
    (attribute,) = meta
    pieces = [part.text if part.tag == f"{XSL}text" else says[part.attrib["select"]] for part in attribute]
    content = "".join(piece or "" for piece in pieces)
    facts = of(f'<{meta.tag} name="{meta.attrib["name"]}" {attribute.attrib["name"]}="{content}"><p>x</p>')
    assert kind(facts) == (TRANSIT, "marker")
    assert (facts.printer_code, facts.library_code) == ("MAIN", "LAW")


def test_the_marker_of_the_document_is_read() -> None:
    (shown_there,) = re.findall(r"^    (<meta .*>)$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert kind(of(f"{shown_there}<p>x</p>")) == (TRANSIT, "marker")
