"""The addresses in force of sources that are known by SPF names: looked up, kept, asked again.

Does: asks each name anew when its records say so, within `dns.spf_shortest` and `dns.spf_longest`, and writes what it
learns into a file for the next start.
Promises: while the DNS does not answer, or a record is wrong, the last good answer stays in force, also over a
restart; a change is logged with what came and what went. Of a name that was never answered nothing is known, which is
no reason to refuse mail for good.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from relay.config.dns import Dns
from relay.config.kinds import Network
from relay.config.settings import Config
from relay.config.sources import Source
from relay.dns.kept_file import write_whole
from relay.dns.resolver import Resolver
from relay.dns.spf import Addresses, addresses_of
from relay.errors import DnsError
from relay.maillog import MailLog

SHOWN = 20
"""Networks that a line of the log names."""


@dataclass(slots=True)
class Known:
    """What is known of one name. Times are seconds since the epoch."""

    name: str
    answer: Addresses | None = None
    "The last good answer; None when there was none."
    looked_up_at: float = 0.0
    "When that was."
    due_at: float = 0.0
    "When it is asked next."
    fault: str = ""
    "Why the last look-up failed; empty when it did not."


class SpfSources:
    """The SPF names of one configuration."""

    def __init__(
        self, config: Config, resolver: Resolver, maillog: MailLog, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings: Dns = config.dns
        self._file = config.spf_file()
        self._resolver = resolver
        self._maillog = maillog
        self._clock = clock
        names = dict.fromkeys(name for source in config.sources for name in source.spf)
        self._known = {name: Known(name) for name in names}
        self._asked_early = asyncio.Event()

    def networks_of(self, source: Source) -> tuple[Network, ...]:
        """The networks in force of a source, beside those of its own."""
        found: list[Network] = []
        for name in source.spf:
            answer = self._known[name].answer
            found += answer.networks if answer is not None else ()
        return tuple(found)

    def is_unknown(self, source: Source) -> bool:
        """Whether a name of the source was never answered."""
        return any(self._known[name].answer is None for name in source.spf)

    def all_known(self) -> list[Known]:
        """Every name, for people."""
        return list(self._known.values())

    def look_now(self) -> None:
        """Has every name asked at once."""
        for known in self._known.values():
            known.due_at = 0.0
        self._asked_early.set()

    async def open(self) -> None:
        """Takes what the file knows; asks the names that it does not know, so that their mail need not wait."""
        await asyncio.to_thread(self._read)
        await self._look(known for known in self._known.values() if known.answer is None)

    async def run(self) -> None:
        """Asks each name when it is due, until it is cancelled."""
        while self._known:
            pause = min(known.due_at for known in self._known.values()) - self._clock()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(pause, 0.05), self._settings.spf_longest)):
                    await self._asked_early.wait()
            self._asked_early.clear()
            due = [known for known in self._known.values() if self._is_due(known)]
            try:
                await self._look(due)
            except Exception as error:
                self._maillog.fault("spf", error)
                for known in due:
                    known.due_at = self._clock() + self._settings.spf_shortest

    def _is_due(self, known: Known) -> bool:
        """Also when it is due later than it can be: the clock was set back."""
        return not 0 < known.due_at - self._clock() <= self._settings.spf_longest

    async def _look(self, due: Iterable[Known]) -> None:
        if any(await asyncio.gather(*map(self._ask, due))):
            await asyncio.to_thread(self._write)

    async def _ask(self, known: Known) -> bool:
        """Asks a name; whether there was a good answer."""
        try:
            answer = await addresses_of(self._resolver, known.name)
        except DnsError as error:
            known.fault, known.due_at = str(error), self._clock() + self._settings.spf_shortest
            in_force = len(known.answer.networks) if known.answer is not None else 0
            self._maillog.spf(known.name, result="failed", networks=in_force, why=known.fault)
            return False
        before, known.answer, known.fault = known.answer, answer, ""
        known.looked_up_at = self._clock()
        known.due_at = known.looked_up_at + self._pause(answer.ttl)
        self._tell(known.name, before, answer)
        self._maillog.metrics.spf_age.labels(known.name).set(known.looked_up_at)
        return True

    def _tell(self, name: str, before: Addresses | None, answer: Addresses) -> None:
        old, new = set(before.networks if before else ()), set(answer.networks)
        news = answer.unusable if before is None or before.unusable != answer.unusable else ()
        self._maillog.spf(
            name,
            result="same" if old == new else "changed",
            networks=len(new),
            more=_listed(new - old),
            less=_listed(old - new),
            why="; ".join(news),
        )

    def _pause(self, ttl: float) -> float:
        return min(max(ttl, self._settings.spf_shortest), self._settings.spf_longest)

    def _read(self) -> None:
        if self._file is None or not self._known:
            return
        try:
            kept = json.loads(self._file.read_text(encoding="utf-8"))
            for name, known in self._known.items():
                if name in kept["names"]:
                    known.answer, known.looked_up_at = _from_file(kept["names"][name])
                    known.due_at = known.looked_up_at + self._pause(known.answer.ttl)
                    self._maillog.metrics.spf_age.labels(name).set(known.looked_up_at)
                    self._maillog.metrics.spf_networks.labels(name).set(len(known.answer.networks))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._maillog.fault("spf", error)

    def _write(self) -> None:
        """Writes what is known, whole or not at all. Without it the service goes on; the next start asks first."""
        assert self._file is not None, "the configuration was checked"
        names = {name: _for_file(known) for name, known in self._known.items() if known.answer is not None}
        try:
            write_whole(self._file, {"names": names})
        except OSError as error:
            self._maillog.fault("spf", error)


def _from_file(kept: dict[str, Any]) -> tuple[Addresses, float]:
    networks = tuple(ip_network(text) for text in kept["networks"])
    return Addresses(networks, tuple(map(str, kept["unusable"])), float(kept["ttl"])), float(kept["looked_up_at"])


def _for_file(known: Known) -> dict[str, object]:
    assert known.answer is not None
    return {
        "networks": [str(network) for network in known.answer.networks],
        "unusable": list(known.answer.unusable),
        "ttl": known.answer.ttl,
        "looked_up_at": known.looked_up_at,
    }


def _listed(networks: set[Network]) -> str:
    words = sorted(map(str, networks))
    return " ".join(words[:SHOWN]) + (f" and {len(words) - SHOWN} more" if len(words) > SHOWN else "")
