"""What is counted, for Prometheus: every metric with its labels and its meaning.

Promises: labels are names of the configuration, states and codes, so that their number is bounded; never an address, a
queue id or anything of the mail. Counts begin at the start of the service; gauges say what the last look saw.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

PREFIX = "slip_relay"


class Metrics:
    """Those of one service. `relay.maillog` counts as it writes, so that log and metrics say the same."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.accepted = self._counter("messages_accepted", "Messages answered with 250.", "source", "institution")
        self.accepted_bytes = self._counter("accepted_bytes", "Bytes of these messages.", "source", "institution")
        self.refused = self._counter("refusals", "Replies that told a client no.", "stage", "code")
        self.limits = self._counter("intake_limits", "Times a client met a limit of the intake.", "limit")
        self.connections = self._gauge("connections", "SMTP sessions that are open.")
        self.attempts = self._counter("attempts", "Attempts that ended, by the state that followed.", "route", "state")
        self.expired = self._counter("expired", "Deliveries given up that had waited too long.", "route")
        self.signatures_broken = self._counter(
            "signatures_broken", "Signatures of letters that a rule of ours broke.", "institution", "rule"
        )
        self.notified = self._counter("dsns", "DSNs of our own that were accepted into the spool.")
        self.orders = self._counter("orders", "Orders of operators that were carried out.", "verb")
        self.shut = self._counter("destinations_shut", "Times a destination was given a rest.")
        self.jobs = self._counter("print_jobs", "What happened to print jobs.", "printer", "what")
        self.duplicates = self._counter("duplicates", "Slips that came twice and were printed once.", "printer", "by")
        self.reprints = self._counter("reprints", "Attempts to print a slip once more.", "printer", "source")
        self.barcodes = self._counter("barcodes", "Barcodes read again from the page of a slip.", "printer", "result")
        self.missing_glyphs = self._counter("missing_glyphs", "Characters of slips that no font has.", "printer")
        self.batches = self._counter(
            "batches", "Batches of slips, by what became of their separator page.", "printer", "separator"
        )
        self.merged = self._counter("merged", "Slips that come out in one document with others.", "route")
        self.notices = self._counter("notices", "What people were told, and that it was over.", "kind", "what")
        self.open_slips = self._gauge("open_slips", "Slips that are to come out.", "printer")
        self.oldest_slip = self._gauge("oldest_slip_seconds", "Age of the oldest of these.", "printer")
        self.for_a_person = self._gauge("slips_for_a_person", "Slips held, uncertain or corrupt.", "printer")
        self.trouble = self._gauge(
            "printer_trouble", "1 while a printer's slips have not come out for long.", "printer"
        )
        self.since_mail = self._gauge("seconds_since_mail", "Since mail was last accepted.", "institution")
        self.turned_away = self._counter("turned_away", "Connections closed before their greeting.", "listener")
        self.lockouts = self._counter("lockouts", "Failed AUTHs after which an address was locked out.")
        self.certificate_ends = self._gauge(
            "certificate_ends_timestamp_seconds", "When the certificate of a listener ends.", "listener"
        )
        self.certificates = self._counter("certificates", "What happened to certificates.", "listener", "what")
        self.logins = self._counter(
            "next_hop_logins", "Logins at next hops: refused, or working again.", "next_hop", "what"
        )
        self.spf_looks = self._counter("spf_lookups", "Look-ups of the SPF names of sources.", "name", "result")
        self.spf_age = self._gauge(
            "spf_answer_timestamp_seconds", "When the addresses in force of an SPF name were looked up.", "name"
        )
        self.spf_networks = self._gauge("spf_networks", "Networks in force of an SPF name.", "name")
        self.mta_sts_looks = self._counter("mta_sts_lookups", "Look-ups of MTA-STS policies of domains.", "result")
        self.tls_missed = self._counter(
            "tls_missed", "Mail that left although TLS was not what a policy in testing asks for.", "policy"
        )
        self.diverted = self._counter("diverted", "Recipients of sandboxes that were diverted.", "source")
        self.faults = self._counter("faults", "Faults of slip-relay itself; the log has each with its trace.")

    def text(self) -> str:
        """All of them, in the text format of Prometheus."""
        return generate_latest(self._registry).decode("utf-8")

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", meaning, labels, registry=self._registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", meaning, labels, registry=self._registry)
