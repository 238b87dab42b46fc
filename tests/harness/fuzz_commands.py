"""What clients may say in MAIL, RCPT and BDAT, searched by coverage: a run of minutes, by hand.

    python -m tests.harness.fuzz_commands CORPUS -max_total_time=200

Needs `pip install atheris`, which is no dependency of ours; the options are libFuzzer's. A finding is a file `crash-*`:
give its bytes to `judge` in tests/unit/test_commands.py as an example.
"""

from __future__ import annotations

import re
import sys

from relay.errors import Refusal
from relay.intake.commands import read_bdat, read_mail, read_rcpt
from relay.mail.address import ascii_domain, parse_address
from relay.mail.dsn_parameters import read_notify, read_orcpt

_REPLY = re.compile(rb"[45]\d\d [45]\.\d{1,3}\.\d{1,3} [\x20-\x7e]+\r\n")


def judge(words: bytes) -> None:
    """Reads words as one of the commands, which the first byte says. Raises AssertionError where a promise is broken:
    what is read is printable and reads back, and what is refused has a reply that can be sent.
    """
    if not words:
        return
    text = "".join(c for c in words[1:2048].decode("utf-8", "ignore") if c >= " " and c != "\x7f")
    try:
        if words[0] % 4 == 0:
            _judge_mail(text)
        elif words[0] % 4 == 3:
            assert 0 <= read_bdat(text)[0] < 10**20
        else:
            _judge_rcpt(text, smtputf8=words[0] % 4 == 1)
    except Refusal as refusal:
        line = refusal.reply.line()
        assert _REPLY.fullmatch(line), line
        assert len(line) <= 512, line


def _judge_mail(text: str) -> None:
    mail = read_mail(f"FROM:{text}")
    if mail.reverse_path is not None:
        assert str(mail.reverse_path).isprintable()
        assert parse_address(str(mail.reverse_path)) == mail.reverse_path
        assert mail.smtputf8 or mail.reverse_path.is_ascii


def _judge_rcpt(text: str, *, smtputf8: bool) -> None:
    rcpt = read_rcpt(f"TO:{text}", smtputf8=smtputf8)
    assert str(rcpt.recipient).isprintable()
    assert parse_address(str(rcpt.recipient)) == rcpt.recipient
    assert smtputf8 or rcpt.recipient.is_ascii
    assert ascii_domain(rcpt.recipient.domain).isascii()
    assert read_orcpt(rcpt.asked.orcpt or None) == rcpt.asked.orcpt
    assert read_notify(rcpt.asked.notify or None) == rcpt.asked.notify


def main() -> None:
    """Searches."""
    import atheris

    atheris.instrument_all()
    atheris.Setup(sys.argv, judge)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
