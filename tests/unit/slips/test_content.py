"""What makes two slips the same: what they say, and nothing of how they came."""

from __future__ import annotations

import re
from email.mime.application import MIMEApplication
from email.mime.image import MIMEImage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import SMTP

import pytest

from relay.config.profiles import BUILT_IN_PROFILES
from relay.slips.content import digest
from relay.slips.parts import read_letter
from relay.slips.render import Renderer
from tests.harness import code39, samples

HTML = "<p>Größe, 你好</p>\n<p>Item <img src='cid:{cid}'></p>"
BARCODE = code39.png("31188000000011")


def message(
    html: str = HTML, *, cid: str = "a@b", picture: bytes = BARCODE, attached: bytes = b"", encoding: str = "utf-8"
) -> bytes:
    mail = MIMEMultipart("related")
    mail["From"], mail["Message-ID"], mail["Date"] = "a@lib.example", f"<{cid}>", "Tue, 24 Nov 2026 10:00:00 +0000"
    mail.attach(MIMEText(html.format(cid=cid), "html", encoding))
    image = MIMEImage(picture, "png")
    image["Content-ID"] = f"<{cid}>"
    mail.attach(image)
    if attached:
        mail.attach(MIMEApplication(attached, "pdf", name="a.pdf"))
    return mail.as_bytes(policy=SMTP)


def of(mail: bytes) -> str:
    return digest(read_letter(mail))


@pytest.mark.parametrize(
    "other",
    [
        message(cid="another@name"),
        message(HTML.replace("\n", "\r\n   ")),
        b"Received: from somewhere\r\nSubject: x\r\n" + message(),
        message(encoding="utf-16"),
    ],
    ids=["Content-ID and Message-ID", "white space", "header fields", "transfer encoding and charset"],
)
def test_what_does_not_count(other: bytes) -> None:
    assert of(other) == of(message())


@pytest.mark.parametrize(
    "other",
    [
        message(HTML.replace("Größe", "Große")),
        message(picture=code39.png("31188000000012")),
        message(attached=b"%PDF-1.4 one"),
        message(HTML.replace("Item", "<b>Item</b>")),
    ],
    ids=["a letter", "a barcode", "an attachment", "how it looks"],
)
def test_what_counts(other: bytes) -> None:
    assert of(other) != of(message())


def test_attachments_count_by_name_and_content() -> None:
    one = message(attached=b"%PDF-1.4 one")
    found = {of(one), of(message(attached=b"%PDF-1.4 two")), of(one.replace(b"a.pdf", b"b.pdf"))}
    assert len(found) == 3


def test_pictures_that_change_places_make_another_slip() -> None:
    def two(first: str, second: str) -> bytes:
        mail = MIMEMultipart("related")
        mail.attach(MIMEText(f"<img src='cid:{first}'><img src='cid:{second}'>", "html"))
        for name, value in (("x", "31188000000011"), ("xx", "31188000000012")):
            image = MIMEImage(code39.png(value), "png")
            image["Content-ID"] = f"<{name}>"
            mail.attach(image)
        return mail.as_bytes(policy=SMTP)

    assert of(two("x", "xx")) != of(two("xx", "x"))


def test_a_rendered_slip_brings_its_digest_whatever_the_paper() -> None:
    renderer = Renderer()
    slips = [renderer.render(samples.request_slip(recipient="a@b.example"), each) for each in BUILT_IN_PROFILES[:4]]
    assert len({slip.content for slip in slips}) == 1
    assert re.fullmatch("[0-9a-f]{64}", slips[0].content)
    assert slips[0].pdf != slips[1].pdf
