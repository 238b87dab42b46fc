"""The mail log: one function per event, the queue id first, one line of `key=value` each on the logger `slip-relay`.

What is written is counted too (`relay.metrics`).
docs/maillog.md is its manual.
Promises: no subject, no body, no name of a person; the local part of an address only where the configuration says so.
Text from outside is quoted, so that it can't forge a line.
"""

from __future__ import annotations

import hmac
import logging
import re
import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Literal

from relay.config.settings import Config
from relay.mail.status import Reply, printable
from relay.metrics import Metrics

_ADDRESS = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|[^\s<>@,;:()\[\]]+)@[^\s<>@,;:()'"]*""")
_PLAIN = re.compile(r"[!#-<>-~]+")
"""What needs no quotes: printable ASCII without `"` and `=`."""


class MailLog:
    """Writes the events of mail, and counts them."""

    def __init__(self, addresses: Literal["domain", "hashed", "shown"] = "domain", key: str = "") -> None:
        """`addresses` is the setting `log.addresses`; `key` is what addresses are hashed with, or one is made up."""
        self._addresses = addresses
        self._key = (key or secrets.token_hex(32)).encode("utf-8")
        self.metrics = Metrics()
        self._logger = logging.getLogger("slip-relay")

    @classmethod
    def of(cls, config: Config) -> MailLog:
        """As a configuration wants it."""
        return cls(config.log.addresses, config.server.secret.reveal() if config.server.secret else "")

    def accepted(
        self,
        queue_id: str,
        *,
        source: str,
        institution: str,
        client: str,
        sender: str,
        recipients: int,
        size: int,
        seconds: float,
    ) -> None:
        """A message is in the spool, and will be answered with 250."""
        self.metrics.accepted.labels(source, institution).inc()
        self.metrics.accepted_bytes.labels(source, institution).inc(size)
        self._write(
            "accepted",
            id=queue_id,
            source=source,
            institution=institution,
            client=client,
            sender=self._address(sender),
            recipients=recipients,
            size=size,
            seconds=f"{seconds:.3f}",
        )

    def refused(self, *, client: str, stage: str, reply: Reply, limit: str = "") -> None:
        """A client was told no: in answer to a command, or by CONNECT, TURN or TIME; `limit` is the one it met."""
        self.metrics.refused.labels(stage, reply.code).inc()
        if limit:
            self.metrics.limits.labels(limit).inc()
        self._write(
            "refused",
            client=client,
            stage=stage,
            code=reply.code,
            status=reply.enhanced,
            text=self._masked(reply.text),
            limit=limit,
        )

    def attempt_ended(
        self,
        queue_id: str,
        number: int,
        *,
        route: str,
        recipient: str,
        state: str,
        attempt: int,
        seconds: float,
        reason: str,
    ) -> None:
        """An attempt of a delivery ended in a state."""
        self.metrics.attempts.labels(route, state).inc()
        self._write(
            "attempt",
            id=queue_id,
            delivery=number,
            route=route,
            recipient=self._address(recipient),
            state=state,
            attempt=attempt,
            seconds=f"{seconds:.3f}",
            reason=self._masked(reason),
        )

    def signature_broken(
        self,
        queue_id: str,
        number: int,
        institution: str,
        *,
        kind: str,
        rules: Sequence[str],
        domain: str = "",
        selector: str = "",
    ) -> None:
        """A signature that a letter brought along, `dkim` or `multipart/signed`, is not good any more as it leaves: for
        what it covers was changed by these rules.
        """
        for rule in rules:
            self.metrics.signatures_broken.labels(institution, rule).inc()
        said = {"kind": kind, "domain": printable(domain, 100), "selector": printable(selector, 100)}
        self._write("signature-broken", id=queue_id, delivery=number, **said, rules=",".join(rules))

    def notified(self, queue_id: str, *, about: str, recipient: str, size: int) -> None:
        """A DSN of ours was accepted into the spool."""
        self.metrics.notified.inc()
        self._write("notified", id=queue_id, about=about, recipient=self._address(recipient), size=size)

    def notice(self, kind: str, name: str, *, is_over: bool, seconds: float, queue_id: str, why: str) -> None:
        """Somebody is told of something at a printer or an institution; without a queue id nobody is there to be told.

        `seconds` is since when it is so, or how long it was.
        """
        what = "over" if is_over else "told"
        self.metrics.notices.labels(kind, what).inc()
        self._write(
            "notice", id=queue_id, kind=kind, what=what, of=name, seconds=f"{seconds:.0f}", why=self._masked(why)
        )

    def expired(self, queue_id: str, number: int, *, route: str) -> None:
        """A delivery was given up that waited too long."""
        self.metrics.expired.labels(route).inc()
        self._write("expired", id=queue_id, delivery=number, route=route)

    def lease_lost(self, queue_id: str, number: int, error: Exception) -> None:
        """A delivery was taken from us: its lease had run out, or an operator said so."""
        self._write("lease-lost", id=queue_id, delivery=number, why=error)

    def order(
        self,
        queue_id: str,
        number: int,
        *,
        verb: str,
        who: str,
        was: str,
        state: str,
        route: str,
        made: int | None = None,
    ) -> None:
        """An operator said what is to become of a delivery: `who` has the name of the account, `made` the number of
        the delivery that was made for it.
        """
        self.metrics.orders.labels(verb).inc()
        said = {"verb": verb, "who": who, "was": was, "state": state, "route": route, "made": made}
        self._write("order", id=queue_id, delivery=number, **said)

    def destination_shut(self, destination: str, *, seconds: float, reason: str) -> None:
        """A destination can't be reached and is given a rest."""
        self.metrics.shut.inc()
        self._write("backoff", destination=destination, seconds=f"{seconds:.0f}", reason=self._masked(reason))

    def job(self, queue_id: str, number: int, *, printer: str, job: str, job_id: int | None, event: str) -> None:
        """Something happened to a print job."""
        self.metrics.jobs.labels(printer, event).inc()
        self._write("print", id=queue_id, delivery=number, printer=printer, job=job, job_id=job_id, what=event)

    def rendered(
        self, queue_id: str, number: int, *, printer: str, good: int, failed: Sequence[str], missing_glyphs: int
    ) -> None:
        """A slip was rendered: how many of its barcodes read, why each of the others does not, and characters that no
        font has. It is a line only when something is wrong. Never a value: that is somebody's card or loan.
        """
        self.metrics.barcodes.labels(printer, "read").inc(good)
        self.metrics.barcodes.labels(printer, "failed").inc(len(failed))
        self.metrics.missing_glyphs.labels(printer).inc(missing_glyphs)
        if failed or missing_glyphs:
            self._write(
                "rendered",
                id=queue_id,
                delivery=number,
                printer=printer,
                barcodes_read=good,
                barcodes_failed=len(failed),
                why="; ".join(sorted(set(failed))),
                missing_glyphs=missing_glyphs,
            )

    def duplicate(self, queue_id: str, number: int, *, printer: str, of: str, by: str) -> None:
        """A slip was not printed, since another delivery is the same one and was."""
        self.metrics.duplicates.labels(printer, by).inc()
        self._write("duplicate", id=queue_id, delivery=number, printer=printer, of=of, by=by)

    def reprinted(self, queue_id: str, number: int, *, printer: str, of: str, source: str) -> None:
        """A slip is about to be printed once more, from the `kept` PDF or `rendered` again."""
        self.metrics.reprints.labels(printer, source).inc()
        self._write("reprint", id=queue_id, delivery=number, printer=printer, of=of, source=source)

    def batch(self, *, printer: str, slips: int, separator: str, why: str = "") -> None:
        """A batch of slips is let out; what became of its separator page: printed, failed, or none."""
        self.metrics.batches.labels(printer, separator).inc()
        self._write("batch", printer=printer, slips=slips, separator=separator, why=why)

    def merged(self, queue_id: str, number: int, *, route: str, bundle: str) -> None:
        """A slip comes out in one document with others: the delivery that is its bundle."""
        self.metrics.merged.labels(route).inc()
        self._write("merged", id=queue_id, delivery=number, route=route, bundle=bundle)

    def cleaned(self, *, bodies: int, messages: int, pdfs: int, pages: int) -> None:
        """The clean-up removed something: bodies, whole messages with their history, what was printed as a PDF, free
        pages of an SQLite file.
        """
        self._write("cleaned", bodies=bodies, messages=messages, pdfs=pdfs or None, pages=pages or None)

    def certificate(self, listener: str, *, what: str, subject: str, why: str = "") -> None:
        """The certificate of a listener was `taken` anew, `kept` since the new one can't be used, or it `ends` soon or
        has `ended`.
        """
        self.metrics.certificates.labels(listener, what).inc()
        self._write("certificate", listener=listener, what=what, subject=subject, why=why)

    def login(self, next_hop: str, *, host: str, what: str, why: str = "") -> None:
        """Our login at a next hop is `refused`, or `works` again."""
        self.metrics.logins.labels(next_hop, what).inc()
        self._write("login", next_hop=next_hop, host=host, what=what, why=self._masked(why))

    def spf(self, name: str, *, result: str, networks: int, more: str = "", less: str = "", why: str = "") -> None:
        """An SPF name of a source was looked up; a line only when its addresses changed, it failed, or it has parts
        that can't be used.
        """
        self.metrics.spf_looks.labels(name, result).inc()
        self.metrics.spf_networks.labels(name).set(networks)
        if result != "same" or why:
            self._write("spf", name=name, result=result, networks=networks, more=more, less=less, why=why)

    def mta_sts(self, domain: str, *, result: str, mode: str = "", hosts: Sequence[str] = (), why: str = "") -> None:
        """A recipient's domain was asked for its MTA-STS policy; a line only when that is another one than before, or
        could not be had: `mode` is then that of the one in force.
        """
        self.metrics.mta_sts_looks.labels(result).inc()
        if result in ("changed", "failed"):
            self._write("mta-sts", domain=domain, result=result, mode=mode, mx=" ".join(hosts[:20]), why=why)

    def tls_missed(self, domain: str, *, host: str, policy: str, why: str) -> None:
        """Mail left although the session was not what a policy in testing asks for."""
        self.metrics.tls_missed.labels(policy).inc()
        self._write("tls-missed", domain=domain, host=host, policy=policy, why=why)

    def turned_away(self, *, client: str, listener: str, why: str) -> None:
        """A connection was closed before its session began."""
        self.metrics.turned_away.labels(listener).inc()
        self._write("turned-away", client=client, listener=listener, why=why)

    def locked_out(self, client: str) -> None:
        """An address tried too many passwords."""
        self.metrics.lockouts.inc()
        self._write("locked-out", client=client)

    def diverted(self, *, source: str, recipient: str, to: str) -> None:
        """A sandbox wrote to somebody that it may not write to: it goes to the mailbox for that."""
        self.metrics.diverted.labels(source).inc()
        self._write("diverted", source=source, recipient=self._address(recipient), to=to)

    def service(self, event: str, **facts: object) -> None:
        """The service itself: started, stopping, a listener opened."""
        self._write(event, **facts)

    def fault(self, where: str, error: BaseException, **facts: object) -> None:
        """A fault of ours. The trace goes to the log under an id of its own, never onto the wire."""
        self.metrics.faults.inc()
        shown = _pairs({"where": where, "error": type(error).__name__, "trace": secrets.token_hex(6), **facts})
        self._logger.error("event=fault %s", shown, exc_info=error)

    def _write(self, event: str, **facts: object) -> None:
        self._logger.info("event=%s %s", event, _pairs(facts))

    def _address(self, address: str) -> str:
        if self._addresses == "shown" or "@" not in address:
            return address
        return self._hidden(address) + "@" + address.rpartition("@")[2]

    def _hidden(self, address: str) -> str:
        """What stands in the place of a local part: the same for the same address, or the same for all."""
        if self._addresses == "domain":
            return "*"
        return "~" + hmac.digest(self._key, address.casefold().encode("utf-8", "replace"), "sha256").hex()[:12]

    def _masked(self, text: str) -> str:
        """Text from a next hop or a client, which likes to repeat the address it is about."""
        if self._addresses == "shown":
            return text
        return _ADDRESS.sub(lambda match: self._address(match[0]), text)


class _Lines(logging.Formatter):
    """Time, level and text; the time is put into words once a second."""

    _second, _words = -1, ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - its name there
        """The time of a record."""
        if int(record.created) != self._second:
            self._second, self._words = int(record.created), super().formatTime(record, datefmt)
        return self._words


def set_up(level: int = logging.INFO) -> None:
    """Sends the log to standard error, and silences libraries that would write addresses and bodies."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    # What a line does not show need not be found out for it (Python's logging HOWTO, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logMultiprocessing = logging.logProcesses = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("slip-relay").setLevel(level)
    for chatty in ("mail", "aiosmtplib", "weasyprint", "fontTools", "alembic"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)


def _pairs(facts: Mapping[str, object]) -> str:
    return " ".join([f"{key}={_quoted(value)}" for key, value in facts.items() if value not in (None, "")])


def _quoted(value: object) -> str:
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in escaped) + '"'
