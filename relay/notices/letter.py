"""The e-mail of a notice: whom it goes to, its words and its bytes.

Promises: it names printer, queue, number of slips, time and the reason in CUPS's words, and nothing of the slips
themselves. It leaves like a DSN: null reverse-path, signed, by the rules, never onto paper.
"""

from __future__ import annotations

from relay.bounces.mime import fields, text_part
from relay.bounces.own_mail import own_hostname, own_message, sender_of, way_to
from relay.bounces.words import Templates, local_time
from relay.config.institutions import Institution
from relay.config.settings import Config
from relay.mail.address import parse_address
from relay.mail.queue_id import new_queue_id
from relay.notices.conditions import Condition
from relay.routing.rules import PRINT
from relay.spool.records import NewMessage


class Letters:
    """Writes the notices of one configuration."""

    def __init__(self, config: Config) -> None:
        """Compiles the templates of the languages in use. Raises StartError when the hostname has no ASCII form."""
        self._config = config
        self._hostname = own_hostname(config)
        self._templates = Templates({each.language for each in config.institutions}, "notices")

    def write(self, condition: Condition, since: float, now: float, *, is_over: bool) -> NewMessage | None:
        """The letter that tells of a condition, or that it is over; None where nobody is named to be told."""
        institution, mailbox = self._addressee(condition)
        if mailbox is None:
            return None
        to = parse_address(mailbox)
        route = way_to(self._config, institution, to)
        if route is None:
            return None
        words = self._templates.fill(
            institution.language, condition.kind, **self._values(condition, since, now), over=is_over
        )
        queue_id = new_queue_id(now)
        message_id = f"<{queue_id}@{self._hostname}>"
        head = [
            *fields(words, sender_of(institution), to, message_id, now),
            "Auto-Submitted: auto-generated",
            "MIME-Version: 1.0",
        ]
        content = "\r\n".join(head).encode("utf-8") + b"\r\n" + text_part(words.text)
        return own_message(
            self._config, institution, to, route, content, queue_id=queue_id, message_id=message_id, now=now
        )

    def _addressee(self, condition: Condition) -> tuple[Institution, str | None]:
        if condition.kind == "silent":
            institution = self._config.institution(condition.name)
            return institution, institution.notify
        printer = self._config.printer(condition.name)
        institution = self._config.institution(printer.institution)
        return institution, printer.notify or institution.notify

    def _values(self, condition: Condition, since: float, now: float) -> dict[str, str]:
        values = {
            "hostname": self._hostname,
            "since": local_time(since),
            "now": local_time(now),
            "count": str(condition.count),
            "reason": condition.reason,
        }
        if condition.kind == "silent":
            look = {"command": "journalctl -u slip-relay", "second_command": ""}
            return values | look | {"institution": condition.name}
        printer = self._config.printer(condition.name)
        states = ("held", "uncertain") if condition.kind == "held" else ("pending", "deferred")
        commands = [f"slip-relay queue list --state {state} --route {PRINT}{printer.name}" for state in states]
        return values | {
            "institution": printer.institution,
            "printer": f"{printer.name} ({printer.desk})" if printer.desk else printer.name,
            "queue": printer.queue,
            "command": commands[0],
            "second_command": commands[1],
        }
