"""`dkim rotate`: from one signing key to the next, in steps that can be taken days apart.

A rotation has three: the key of a new selector is made, and its record printed (`--begin`); once the DNS shows the
record, signatures are made with it; once nothing is under way any more that the old key signed, the old record may go.
Each call takes the steps that can be taken now.
Promises: nothing is ever signed with a key whose record the DNS does not show, and no key is overwritten or removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from relay.cli import shapes
from relay.cli.options import as_duration, config_option, json_option, load_or_exit
from relay.cli.tables import clean, clock
from relay.config.institutions import DkimKey
from relay.config.settings import Config
from relay.control.client import take_keys
from relay.dns.authorities import texts_everywhere
from relay.dns.dkim_record import judge_record, key_record
from relay.dns.findings import Record
from relay.dns.resolver import Resolver
from relay.errors import AddressError, DnsError, NoService, OrderError, StartError
from relay.mail.address import ascii_domain, parse_domain
from relay.outgoing.key_folder import KeyFolder, read_folder
from relay.outgoing.next_keys import fresh_names, make_next, names_of

LOOK_EVERY = 10.0
"""Seconds between two looks at the DNS."""

ON_ITS_WAY = 7 * 86400.0
"""Seconds for which a receiver may still have mail before it verifies it: queues give up after five days (RFC 5321
4.5.4.1), and somebody may forward what he got.
"""

NOT_YET = 3
"""Exit code while the DNS does not show a record that the next step needs."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the DNS shows of a key."""

    selector: str
    record: Record
    is_there: bool
    says: str


@click.command()
@config_option
@click.option("--domain", default="", help="Whose keys: d= of the signature. Needed where several have a key_folder.")
@click.option("--begin", is_flag=True, help="Make the next key, unless one is made already.")
@click.option("--selector", default="", help="With --begin: its selector; without it one of today's date.")
@click.option("--wait", "seconds", default="0s", callback=as_duration, help="Look until the DNS shows the record.")
@json_option
def rotate(config_path: Path, domain: str, begin: bool, selector: str, seconds: float, as_json: bool) -> None:
    """Change the key that signs: begin with --begin, publish the record, and call this again until it is done.

    It signs with the new key as soon as the DNS shows its record, at every name server of the zone. Then it says until
    when the old record is needed, and, called after that, that it may go. Exit code 0 when nothing is to be done but
    wait for that, 3 while the record is not shown, 1 for a mistake.
    """
    if selector and not begin:
        raise click.UsageError("--selector goes with --begin")
    config = load_or_exit(config_path)
    table = _table(config, domain)
    assert table.key_folder is not None
    with _alone(table.key_folder):
        told = _Teller(quiet=as_json)
        folder = read_folder(table.key_folder)
        if begin:
            folder = _begin(folder, selector, told)
        shown: list[Shown] = []
        if folder.coming:
            shown = asyncio.run(_wait(config, table, folder, seconds, told))
            if all(each.is_there for each in shown):
                folder = _switch(config, table, folder, told)
        folder = asyncio.run(_let_go(config, table, folder, told))
    if as_json:
        shapes.print_json(_shape(table, folder, shown))
    elif not folder.coming:
        click.echo(f"{table.domain} is signed with {' and '.join(folder.signs)}")
    if folder.coming:
        raise SystemExit(NOT_YET)


class _Teller:
    """Says to a person what is done; a program hears the end only."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def __call__(self, text: str) -> None:
        if not self._quiet:
            click.echo(text)


def _table(config: Config, domain: str) -> DkimKey:
    """The table whose folder is meant. Raises StartError with what there is."""
    tables = [table for institution in config.institutions for table in institution.dkim]
    if domain:
        try:
            wanted = parse_domain(domain)
        except AddressError as error:
            raise click.UsageError(str(error)) from None
        tables = [table for table in tables if table.domain == wanted]
        if not tables:
            raise StartError(f"the configuration has no DKIM key of {wanted}")
    found = {table.key_folder: table for table in tables if table.key_folder is not None}
    if not found:
        first = tables[0] if tables else None
        where = f"the key of {first.domain} stands in a file or variable of its own" if first else "there is no key"
        raise StartError(
            f"{where}; to rotate it, move it to FOLDER/SELECTOR.pem, and put key_folder = FOLDER in the place of "
            "selector and key_file in [[institutions.dkim]] (docs/letters.md, Keys)"
        )
    if len(found) > 1:
        raise StartError(f"which one? --domain {', --domain '.join(sorted(t.domain for t in found.values()))}")
    return next(iter(found.values()))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps a second rotation of the folder away. Raises StartError."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(opened)
        raise StartError(f"another `slip-relay dkim rotate` is at work in {folder}") from None
    try:
        yield
    finally:
        os.close(opened)


def _begin(folder: KeyFolder, selector: str, told: _Teller) -> KeyFolder:
    """Makes the next keys, where none are on their way."""
    try:
        names = names_of(selector, folder) if selector else ()
    except AddressError as error:
        raise click.UsageError(str(error)) from None
    if folder.coming:
        under_way = f"the rotation to {' and '.join(folder.coming)} is under way"
        if names not in ((), folder.coming):
            raise StartError(f"{under_way}; it ends before another begins")
        told(under_way)
        return folder
    folder = make_next(folder, names or fresh_names(folder))
    told(f"made {', '.join(str(folder.file(name)) for name in folder.coming)}")
    return folder


async def _wait(config: Config, table: DkimKey, folder: KeyFolder, seconds: float, told: _Teller) -> list[Shown]:
    """Looks until the DNS shows the next keys, or for so many seconds."""
    deadline = time.monotonic() + seconds
    last = ""
    while True:
        resolver = Resolver(config.dns)
        shown = [await _look(resolver, table, folder, name) for name in folder.coming]
        missing = [each for each in shown if not each.is_there]
        said = "\n".join(f"{each.record.name}: {each.says}" for each in shown)
        if said != last:
            told(said)
        if missing and not last:
            told("\n".join(["\nto publish:", *(each.record.zone_line for each in missing), ""]))
        last, left = said, deadline - time.monotonic()
        if missing and left <= 0:
            told("it is signed with the key of before; when the record is published, call this again")
        if not missing or left <= 0:
            return shown
        await asyncio.sleep(min(LOOK_EVERY, left))


async def _look(resolver: Resolver, table: DkimKey, folder: KeyFolder, selector: str) -> Shown:
    """What the configured name servers show, and each one of the zone's by itself."""
    record, key = _record(table, folder, selector), folder.key(selector).public_key()
    try:
        texts = (await resolver.records(record.name, "TXT")).texts
    except DnsError as error:
        return Shown(selector, record, False, clean(str(error)))
    verdict, says, _ = judge_record(texts, key)
    if verdict == "wrong":
        return Shown(selector, record, False, says)
    answers = await texts_everywhere(resolver, record.name)
    silent = [answer.server for answer in answers if answer.fault]
    asked = [answer for answer in answers if not answer.fault]
    for answer in asked:
        verdict, says, _ = judge_record(answer.texts, key)
        if verdict == "wrong":
            return Shown(selector, record, False, clean(f"not yet at {answer.server}: {says}"))
    where = f", at each of {len(asked)} name servers of the zone" if asked else ""
    but = f"; no answer from {', '.join(silent)}" if silent else ""
    return Shown(selector, record, True, clean(f"there{where}{but}"))


def _switch(config: Config, table: DkimKey, folder: KeyFolder, told: _Teller) -> KeyFolder:
    """From now on the next keys sign; the running service takes them. When it can't, all stays as it was: both records
    are published, so that it does not matter with which of the two it signs meanwhile.
    """
    switched = folder.switched(time.time() + (table.expires_after or _longest(config)))
    switched.write()
    names = {_record(table, switched, name).name for name in switched.signs}
    try:
        if not any(names <= set(each) for each in take_keys(config).values()):
            raise OrderError("it runs with a configuration from before this key_folder: start it again")
    except NoService:
        told("no service runs here: it signs with the new key from its next start")
        return switched
    except OrderError as error:
        folder.write()
        raise StartError(f"the service does not take the new key, and signs with that of before: {error}") from None
    told("the service signs with it now")
    return switched


def _longest(config: Config) -> float:
    """Seconds that mail may be on its way to whoever verifies it: in the queue of a next hop, for example."""
    return max(ON_ITS_WAY, config.delivery.expire_after)


async def _let_go(config: Config, table: DkimKey, folder: KeyFolder, told: _Teller) -> KeyFolder:
    """Tells what becomes of old records; those that are gone from the DNS in time are forgotten."""
    resolver, kept = Resolver(config.dns), []
    for each in folder.retired:
        name = f"{each.selector}._domainkey.{ascii_domain(table.domain)}"
        if each.record_until > time.time():
            told(f"{name}: leave it published until {clock(each.record_until)}, for mail that is under way")
        else:
            with contextlib.suppress(DnsError):
                if not (await resolver.records(name, "TXT")).texts:
                    told(f"{name}: it is gone, and so is the need of {folder.file(each.selector)}")
                    continue
            told(f"{name}: it may go now: remove the record, and {folder.file(each.selector)}")
        kept.append(each)
    if len(kept) < len(folder.retired):
        folder = KeyFolder(folder.path, folder.signs, folder.coming, tuple(kept))
        folder.write()
    return folder


def _record(table: DkimKey, folder: KeyFolder, selector: str) -> Record:
    return key_record(ascii_domain(table.domain), selector, folder.key(selector).public_key())


def _shape(table: DkimKey, folder: KeyFolder, shown: Sequence[Shown]) -> dict[str, Any]:
    by_name = {each.selector: each for each in shown}

    def coming(name: str) -> dict[str, Any]:
        record = _record(table, folder, name)
        return {"selector": name, "name": record.name, "zone_line": record.zone_line, "says": by_name[name].says}

    return {
        "domain": table.domain,
        "signs": list(folder.signs),
        "next": [coming(name) for name in folder.coming],
        "retired": [{"selector": each.selector, "record_until": each.record_until} for each in folder.retired],
    }
