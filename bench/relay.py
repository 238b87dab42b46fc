"""How many letters a second, and at what cost: slip-relay beside Postfix + OpenDKIM, the same work in the same run.

    python -m bench.relay [--quick] [--rounds N] [--letters N] [--only slip-relay] [--folder DIR]

Letters of 10 KB with one recipient are handed in over 1, 5 and 20 connections, once to be signed (RSA-2048) and once
not. *Letters a second* are end to end: from the first connection made to the last letter taken by the sink. *CPU* is
user and system time of all processes of the system under test, until it is at rest again. The systems take turns; each
figure is the median of the rounds. Sender and sink are processes of their own, the same for both.

Ends with an error when a letter is lost or comes twice, when one is not signed that should be, or when a signature is
wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import shutil
import statistics
import sys
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dkim
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from bench.letters import SIGNED, UNSIGNED
from bench.systems import Place, Postfix, SlipRelay, System, can_run_postfix

CONNECTIONS = (1, 5, 20)
LONGEST = 120.0
"""Seconds that a run may take."""

WARM_UP = 200
"""Letters before the first run of each kind, which are not counted."""


class Spoiled(RuntimeError):
    """A run that gives no figure, and why."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run gave."""

    letters_per_second: float
    cpu_ms: float


class Sink:
    """The next hop, as a child process."""

    async def start(self) -> int:
        """Starts it; gives its port."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.sink", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        return int(await self._read())

    def expect(self, run: str, count: int) -> None:
        """Begins to count the letters of a run."""
        self._write(f"expect {run} {count}\n")

    async def counted(self) -> dict[str, object]:
        """What came in, as soon as all of it did; after too long a time, what came in until then."""
        try:
            return dict(json.loads(await asyncio.wait_for(self._read(), LONGEST)))
        except TimeoutError:
            self._write("report\n")
            return dict(json.loads(await self._read()))

    async def stop(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode())

    async def _read(self) -> str:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise Spoiled("the sink ended")
        return line.decode()


class Bench:
    """Runs of the systems, and their checks."""

    def __init__(self, sink: Sink, dkim_record: bytes) -> None:
        self._sink = sink
        self._dkim_record = dkim_record

    async def measure(self, system: System, domain: str, connections: int, count: int) -> Figures:
        """One run. Raises Spoiled when not every letter arrived as it should."""
        run = uuid.uuid4().hex
        self._sink.expect(run, count)
        cpu = system.cpu()
        load = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.load", str(system.port(domain)), str(connections), str(count), domain, run),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await load.communicate()
        if load.returncode != 0:
            raise Spoiled(f"{system.name} did not take all letters")
        began = float(json.loads(output)["first"])
        facts = await self._sink.counted()
        self._check(system, domain, count, facts)
        await _at_rest(system)
        return Figures(count / (float(str(facts["last"])) - began), (system.cpu() - cpu) * 1000 / count)

    def _check(self, system: System, domain: str, count: int, facts: dict[str, object]) -> None:
        if facts["letters"] != count or facts["copies"]:
            raise Spoiled(f"{system.name}: of {count} letters {facts['letters']} came, and {facts['copies']} copies")
        if facts["signed"] != (count if domain == SIGNED else 0):
            raise Spoiled(f"{system.name}: {facts['signed']} of {count} letters from {domain} were signed")
        sample = base64.b64decode(str(facts["sample"]))
        if domain == SIGNED and not dkim.verify(sample, dnsfunc=lambda *_, **__: self._dkim_record):
            raise Spoiled(f"{system.name}: the signature is wrong")


async def _at_rest(system: System) -> None:
    """Returns when the system has settled what it did."""
    used = -1.0
    while system.cpu() - used > 0.02:
        used = system.cpu()
        await asyncio.sleep(0.5)


def make_key(path: Path) -> bytes:
    """Writes an RSA-2048 key; gives its DNS record."""
    key = rsa.generate_private_key(65537, 2048)
    path.touch(0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)


async def compare(folder: Path, only: str | None, rounds: int, letters: int) -> dict[tuple[str, str, int], Figures]:
    """Medians by system, domain and connections."""
    key = folder / "dkim.pem"
    record = make_key(key)
    sink = Sink()
    port = await sink.start()
    systems: list[System] = []
    try:
        for kind in (SlipRelay, Postfix):
            if only not in (None, kind.name):
                continue
            home = folder / kind.__name__.lower()
            home.mkdir()
            system = kind(Place(home, key, port))
            systems.append(system)
            await system.start()
        return await _rounds(Bench(sink, record), systems, rounds, letters)
    finally:
        for system in systems:
            await system.stop()
        await sink.stop()


async def _rounds(
    bench: Bench, systems: Sequence[System], rounds: int, letters: int
) -> dict[tuple[str, str, int], Figures]:
    for system in systems:
        for domain in (UNSIGNED, SIGNED):
            await bench.measure(system, domain, max(CONNECTIONS), WARM_UP)
    found: dict[tuple[str, str, int], list[Figures]] = defaultdict(list)
    for number in range(rounds):
        for domain in (UNSIGNED, SIGNED):
            for connections in CONNECTIONS:
                for system in systems:
                    figures = await bench.measure(system, domain, connections, letters)
                    found[system.name, domain, connections].append(figures)
        print(f"round {number + 1} of {rounds} done", file=sys.stderr)
    return {
        key: Figures(
            statistics.median(figures.letters_per_second for figures in runs),
            statistics.median(figures.cpu_ms for figures in runs),
        )
        for key, runs in found.items()
    }


def table(found: dict[tuple[str, str, int], Figures]) -> str:
    """The figures side by side; the ratios say how much better slip-relay is."""
    ours, theirs = SlipRelay.name, Postfix.name
    lines = [
        f"{'':26}{'letters a second':>32}{'':8}{'CPU ms a letter':>32}",
        f"{'':10}{'connections':>13}   {ours:>11}{theirs:>20}{'ratio':>7} {ours:>13}{theirs:>20}{'ratio':>7}",
    ]
    for domain, words in ((UNSIGNED, "not signed"), (SIGNED, "signed")):
        for connections in CONNECTIONS:
            mine, other = found.get((ours, domain, connections)), found.get((theirs, domain, connections))
            speed = _pair(mine and mine.letters_per_second, other and other.letters_per_second, 0, faster=True)
            cost = _pair(mine and mine.cpu_ms, other and other.cpu_ms, 2, faster=False)
            lines.append(f"{words:10}{connections:>13}   {speed}   {cost}")
    return "\n".join(lines)


def _pair(mine: float | None, other: float | None, digits: int, *, faster: bool) -> str:
    shown = [f"{value:.{digits}f}" if value is not None else "-" for value in (mine, other)]
    ratio = "-"
    if mine and other:
        ratio = f"{mine / other if faster else other / mine:.2f}"
    return f"{shown[0]:>11}{shown[1]:>20}{ratio:>7}"


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(description="slip-relay beside Postfix + OpenDKIM")
    parser.add_argument("--quick", action="store_true", help="one round of 300 letters")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--letters", type=int, default=1000, help="letters of one run")
    parser.add_argument("--only", choices=[SlipRelay.name, Postfix.name], help="measure one system alone")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where spool and queue lie: a real disk")  # noqa: S108
    options = parser.parse_args()
    rounds, letters = (1, 300) if options.quick else (options.rounds, options.letters)
    only = options.only
    if only is None and not can_run_postfix():
        print("Postfix can be measured by root only; slip-relay is measured alone", file=sys.stderr)
        only = SlipRelay.name
    folder = Path(tempfile.mkdtemp(prefix="slip-relay-bench-", dir=options.folder))
    folder.chmod(0o755)  # Postfix' own users have to come in
    try:
        found = asyncio.run(compare(folder, only, rounds, letters))
    except Spoiled as error:
        sys.exit(f"no figures: {error}; the logs are in {folder}")
    shutil.rmtree(folder)
    print(
        f"10 KB, one recipient, end to end; {os.cpu_count()} processors; medians of {rounds} runs of {letters} letters"
    )
    print(table(found))


if __name__ == "__main__":
    main()
