"""The MTA-STS policies of recipients' domains: found, kept, refreshed (RFC 8461 3.3, 10.2).

Does: asks the DNS whether a domain has a policy, as often as its record says (TTL), fetches one that is new, and keeps
it until max_age has passed, in a file over restarts. One that is used is fetched again once a day, or at half its age.
Promises: while the DNS or the policy host does not answer, or the record is gone, a policy that was fetched holds until
it ends; without one the domain is as one that has none. Nobody waits longer than one look-up and one fetch.
Known limits: the first mail to a domain believes the DNS, as RFC 8461 says: a record that somebody hides was not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay.dns.kept_file import write_whole
from relay.dns.resolver import Resolver
from relay.dns.sts_fetch import PolicyFetcher
from relay.dns.sts_policy import StsPolicy, read_policy, read_record, record_name
from relay.errors import DnsError
from relay.maillog import MailLog

LOOK_AGAIN = 300.0
"""Seconds until a domain without a record, or whose policy could not be had, is asked again."""

LEAST_AGE = 60.0
"""Seconds for which a policy holds at least, so that one with max_age 0 is not fetched for each mail."""

LONGEST_TTL = 3600.0
REFRESH = 86400.0
RETRY_REFRESH = 3600.0
USED_WITHIN = 30 * 86400.0
"""Seconds since the last mail to a domain within which its policy is refreshed."""

MAX_KEPT = 10_000


@dataclass(slots=True)
class Kept:
    """A policy that was fetched. Times are seconds since the epoch."""

    id: str
    "Of the record that announced it."
    policy: StsPolicy
    fetched_at: float
    used_at: float

    @property
    def ends_at(self) -> float:
        """When it holds no more."""
        return self.fetched_at + max(self.policy.max_age, LEAST_AGE)


class StsPolicies:
    """Those of one service."""

    def __init__(
        self,
        file: Path | None,
        resolver: Resolver,
        fetcher: PolicyFetcher,
        maillog: MailLog,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Without a file they are kept in memory only."""
        self.ca_file = fetcher.ca_file
        self._file = file
        self._resolver = resolver
        self._fetcher = fetcher
        self._maillog = maillog
        self._clock = clock
        self._kept: dict[str, Kept] = {}
        self._ask_at: dict[str, float] = {}
        self._refresh_at: dict[str, float] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._is_new = asyncio.Event()

    async def policy_of(self, domain: str) -> StsPolicy | None:
        """The policy in force for a domain, which is given as A-labels; None where there is none."""
        if not 0 < self._ask_at.get(domain, 0) - self._clock() <= LONGEST_TTL:
            await asyncio.shield(self._asking.get(domain) or self._begin(domain))
        kept = self._in_force(domain)
        if kept is None:
            return None
        if self._clock() - kept.used_at > REFRESH:
            kept.used_at = self._clock()
            self._is_new.set()
        return kept.policy

    async def open(self) -> None:
        """Takes what the file knows."""
        await asyncio.to_thread(self._read)

    async def run(self) -> None:
        """Refreshes policies and writes what is new, until it is cancelled."""
        while True:
            due = min((self._due(domain) for domain in self._kept), default=float("inf"))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(due - self._clock(), 0.05), RETRY_REFRESH)):
                    await self._is_new.wait()
            self._kept = {domain: kept for domain, kept in self._kept.items() if kept.ends_at > self._clock()}
            for domain in [domain for domain in self._kept if self._due(domain) <= self._clock()]:
                await self._refresh(domain)
            await self.save()

    async def save(self) -> None:
        """Writes what is new since the last time."""
        if self._is_new.is_set():
            self._is_new.clear()
            await asyncio.to_thread(self._write, {domain: _for_file(kept) for domain, kept in self._kept.items()})

    def _in_force(self, domain: str) -> Kept | None:
        kept = self._kept.get(domain)
        if kept is None or kept.ends_at <= self._clock():
            return None
        return kept

    def _begin(self, domain: str) -> asyncio.Task[None]:
        """Asks about a domain, once for all that wait."""
        task = self._asking[domain] = asyncio.create_task(self._ask(domain), name=f"MTA-STS of {domain}")
        task.add_done_callback(lambda _: self._asking.pop(domain, None))
        return task

    async def _ask(self, domain: str) -> None:
        pause = LOOK_AGAIN
        try:
            records = await self._resolver.records(record_name(domain), "TXT")
            announced = read_record(records.texts)
            kept = self._in_force(domain)
            if announced is None:
                self._maillog.mta_sts(domain, result="none")
                return
            pause = min(max(records.ttl or 0.0, LEAST_AGE), LONGEST_TTL)
            if kept is not None and kept.id == announced:
                self._maillog.mta_sts(domain, result="same")
            else:
                kept = self._keep(domain, announced, await self._fetcher.fetch(domain))
            pause = min(pause, kept.ends_at - self._clock())
        except DnsError as error:
            pause = LOOK_AGAIN
            self._failed(domain, str(error))
        finally:
            self._ask_at[domain] = self._clock() + pause
            while len(self._ask_at) > MAX_KEPT:
                del self._ask_at[next(iter(self._ask_at))]

    async def _refresh(self, domain: str) -> None:
        """Fetches a policy again whatever the DNS says: who hides the record shall not see it end (RFC 8461 10.2)."""
        try:
            policy = await self._fetcher.fetch(domain)
        except DnsError as error:
            self._refresh_at[domain] = self._clock() + RETRY_REFRESH
            self._failed(domain, str(error))
        else:
            if (kept := self._kept.get(domain)) is not None:
                self._keep(domain, kept.id, policy)

    def _due(self, domain: str) -> float:
        """When a policy is fetched again, or dropped; never while nobody uses it."""
        kept = self._kept[domain]
        if domain in self._refresh_at:
            return self._refresh_at[domain]
        if self._clock() - kept.used_at > USED_WITHIN:
            return float("inf")
        return kept.fetched_at + max(min(kept.policy.max_age / 2, REFRESH), LOOK_AGAIN)

    def _keep(self, domain: str, announced: str, policy: StsPolicy) -> Kept:
        before = self._kept.pop(domain, None)
        self._refresh_at.pop(domain, None)
        now = self._clock()
        fresh = self._kept[domain] = Kept(announced, policy, now, before.used_at if before else now)
        while len(self._kept) > MAX_KEPT:
            del self._kept[min(self._kept, key=lambda each: self._kept[each].used_at)]
        self._is_new.set()
        result = "same" if before is not None and before.policy == policy else "changed"
        self._maillog.mta_sts(domain, result=result, mode=policy.mode, hosts=policy.mx)
        return fresh

    def _failed(self, domain: str, why: str) -> None:
        kept = self._in_force(domain)
        in_force = kept.policy.mode if kept is not None else ""
        self._maillog.mta_sts(domain, result="failed", mode=in_force, why=why)

    def _read(self) -> None:
        if self._file is None:
            return
        try:
            tree = json.loads(self._file.read_text(encoding="utf-8"))
            found = {str(domain): _from_file(kept) for domain, kept in tree["policies"].items()}
            self._kept = {domain: kept for domain, kept in found.items() if kept.ends_at > self._clock()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError, DnsError) as error:
            self._maillog.fault("mta-sts", error)

    def _write(self, policies: dict[str, object]) -> None:
        """Without the file the service goes on; the next start fetches them again."""
        if self._file is None:
            return
        try:
            write_whole(self._file, {"policies": policies})
        except OSError as error:
            self._maillog.fault("mta-sts", error)


def _for_file(kept: Kept) -> dict[str, object]:
    return {"id": kept.id, "policy": kept.policy.text, "fetched_at": kept.fetched_at, "used_at": kept.used_at}


def _from_file(kept: dict[str, Any]) -> Kept:
    policy = read_policy(str(kept["policy"]).encode("utf-8"))
    return Kept(str(kept["id"]), policy, float(kept["fetched_at"]), float(kept["used_at"]))
