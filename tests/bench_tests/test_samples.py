"""The samples have Alma's shape, and their barcodes say what they should."""

from collections.abc import Callable
from email import message_from_bytes
from email.message import Message
from io import BytesIO

import pytest
from PIL import Image

from tests.harness import code39, samples

ALL = (samples.patron_letter, samples.request_slip, samples.transit_slip, samples.loan_receipt)


def _children(message: Message) -> list[Message]:
    children = message.get_payload()
    assert isinstance(children, list)
    return [child for child in children if isinstance(child, Message)]


def _content(part: Message) -> bytes:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content


@pytest.mark.parametrize("make", ALL)
def test_shape_is_almas(make: Callable[..., bytes]) -> None:
    raw = make("desk@print.lib.example", message_id="<1.2.3.JavaMail.urm@app02.eu07>")
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert raw.isascii()
    message = message_from_bytes(raw)
    assert message["Message-ID"] == "<1.2.3.JavaMail.urm@app02.eu07>"
    assert message.get_content_type() == "multipart/related"
    assert message.get_param("type") is None
    assert message.get_param("start") is None
    alternative, *images = _children(message)
    assert alternative.get_content_type() == "multipart/alternative"
    (html,) = _children(alternative)
    assert (html.get_content_type(), html["Content-Transfer-Encoding"]) == ("text/html", "7bit")
    assert b"&uuml;" in _content(html)
    for image in images:
        assert image["Content-ID"] == f"<{image.get_filename()}>"
        assert image.get_content_disposition() == "inline"
        assert Image.open(BytesIO(_content(image))).format == "PNG"


def test_other_scripts_make_it_quoted_printable() -> None:
    raw = samples.request_slip("desk@print.lib.example", item=samples.Item(title="庭の本"))
    html = next(part for part in message_from_bytes(raw).walk() if part.get_content_type() == "text/html")
    assert html["Content-Transfer-Encoding"] == "quoted-printable"
    assert "庭の本" in _content(html).decode()


def test_a_receipt_has_as_many_items_as_wanted() -> None:
    raw = samples.loan_receipt("desk@print.lib.example", items=40)
    assert raw.count(b"SB-3") == 40
    assert b"40 items" in raw


def test_every_message_has_its_own_message_id() -> None:
    ids = {message_from_bytes(samples.patron_letter("a@patron.example"))["Message-ID"] for _ in range(20)}
    assert len(ids) == 20


@pytest.mark.parametrize("text", ["SB-20417733", "29310448817602", "A-Z. $/+%"])
def test_a_barcode_can_be_read_back(text: str) -> None:
    picture = Image.open(BytesIO(code39.png(text)))
    assert (picture.mode, picture.size[1]) == ("1", 105)
    assert picture.info["dpi"] == pytest.approx((150, 150), abs=0.1)
    row = [not picture.getpixel((x, 10)) for x in range(picture.width)]
    assert row == code39.modules(text)
    assert row[0]
    assert row[-1]
    assert _read(row) == f"*{text}*"


def test_what_code_39_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="ü"):
        code39.modules("Bücher")
    with pytest.raises(ValueError, match=r"\*"):
        code39.modules("*")


def _read(row: list[bool]) -> str:
    runs: list[int] = []
    for place, black in enumerate(row):
        if place and black == row[place - 1]:
            runs[-1] += 1
        else:
            runs.append(1)
    letters = {pattern: letter for letter, pattern in code39.PATTERNS.items()}
    wide = ["1" if run == code39.WIDE else "0" for run in runs]
    return "".join(letters["".join(wide[start : start + 9])] for start in range(0, len(wide), 10))
