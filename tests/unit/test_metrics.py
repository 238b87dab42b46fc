"""The metrics: counted with the log, documented, and without anything of the mail."""

from __future__ import annotations

import re
from pathlib import Path

from relay.mail.status import Reply
from relay.maillog import MailLog
from relay.metrics import Metrics

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_what_is_logged_is_counted_and_no_address_becomes_a_label() -> None:
    maillog = MailLog("shown")
    maillog.accepted(
        "06GXWTSGYD8QM",
        source="alma",
        institution="demo",
        client="192.0.2.1",
        sender="anna@lib.example",
        recipients=1,
        size=1000,
        seconds=0.1,
    )
    for state in ("deferred", "delivered"):
        maillog.attempt_ended(
            "06GXWTSGYD8QM",
            0,
            route="campus",
            recipient="anna@lib.example",
            state=state,
            attempt=1,
            seconds=0.1,
            reason="anna@lib.example is busy",
        )
    maillog.refused(client="192.0.2.1", stage="rcpt", reply=Reply(550, "5.7.1", "no anna@lib.example here"))
    text = maillog.metrics.text()
    assert 'slip_relay_messages_accepted_total{institution="demo",source="alma"} 1.0' in text
    assert 'slip_relay_accepted_bytes_total{institution="demo",source="alma"} 1000.0' in text
    assert 'slip_relay_attempts_total{route="campus",state="delivered"} 1.0' in text
    assert 'slip_relay_refusals_total{code="550",stage="rcpt"} 1.0' in text
    assert "anna" not in text
    assert "06GXWTSGYD8QM" not in text


def test_each_metric_is_documented_and_no_other() -> None:
    text = Metrics().text()
    counted = set(re.findall(r"^# TYPE (\S+_total) counter", text, re.MULTILINE))
    counted |= set(re.findall(r"^# TYPE (\S+(?<!_created)) gauge", text, re.MULTILINE))
    documented = set(re.findall(r"^\| `(slip_relay_\w+)", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE))
    assert counted
    assert documented == counted
