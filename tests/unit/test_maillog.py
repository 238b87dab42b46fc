"""The mail log: documented, unforgeable, and without anybody's name."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from relay.mail.status import Reply
from relay.maillog import MailLog

ROOT = Path(__file__).parents[2]
ADDRESS = "Anna.Oertel@patron.example"


def lines(caplog: pytest.LogCaptureFixture, maillog: MailLog, text: str = f"<{ADDRESS}> is busy") -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.INFO, "slip-relay"):
        maillog.notified("SGNSM5YHK3A91", about="SGNSM5YHK3A90", recipient=ADDRESS, size=10)
        maillog.refused(client="192.0.2.1", stage="RCPT", reply=Reply(550, "5.7.1", text), limit="max_errors")
    return [record.getMessage() for record in caplog.records]


def test_each_event_is_documented_and_no_other() -> None:
    document = (ROOT / "docs" / "maillog.md").read_text(encoding="utf-8")
    documented = set(
        re.findall(r"`([a-z-]+)`", "".join(re.findall(r"^\| ((?:`[a-z-]+`(?:, )?)+) \|", document, re.MULTILINE)))
    )
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "relay").rglob("*.py"))
    written = set(re.findall(r"(?:_write|maillog\.service)\(\s*\"([a-z-]+)\"", sources)) | {"fault"}
    assert len(written) > 20
    assert documented == written


def test_the_local_part_is_hidden(caplog: pytest.LogCaptureFixture) -> None:
    notified, refused = lines(caplog, MailLog())
    assert notified == "event=notified id=SGNSM5YHK3A91 about=SGNSM5YHK3A90 recipient=*@patron.example size=10"
    assert refused == (
        "event=refused client=192.0.2.1 stage=RCPT code=550 status=5.7.1 "
        'text="<*@patron.example> is busy" limit=max_errors'
    )


def test_a_hash_stands_for_the_same_person(caplog: pytest.LogCaptureFixture) -> None:
    notified, refused = lines(caplog, MailLog("hashed", "a secret of the tests"))
    # As the manual says: printf | openssl dgst -sha256 -mac HMAC
    assert "recipient=~4157978cb56a@patron.example" in notified
    hashed = re.findall(r"~[0-9a-f]{12}@patron\.example", notified + refused)
    assert len(hashed) == 2
    assert len(set(hashed)) == 1
    assert lines(caplog, MailLog("hashed", "a secret of the tests"))[0] == notified
    assert lines(caplog, MailLog("hashed", "another secret"))[0] != notified
    assert "oertel" not in (notified + refused).lower()


def test_an_address_may_be_shown(caplog: pytest.LogCaptureFixture) -> None:
    notified, refused = lines(caplog, MailLog("shown"))
    assert f"recipient={ADDRESS}" in notified
    assert ADDRESS in refused


@pytest.mark.parametrize("text", ['a" code=250 b="', "a\nevent=accepted id=X", "a\x1b[2J", "a \\ b", "ä\u202e"])
def test_nobody_forges_a_line(caplog: pytest.LogCaptureFixture, text: str) -> None:
    refused = lines(caplog, MailLog(), text)[1]
    assert refused.isprintable()
    assert re.fullmatch(
        r'event=refused client=192\.0\.2\.1 stage=RCPT code=550 status=5\.7\.1 text="(?:[^"\\]|\\.)*" limit=max_errors',
        refused,
    )
