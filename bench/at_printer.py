"""How long a slip takes from the end of its DATA to an idle printer, beside its rendering alone.

    python -m bench.at_printer [--slips N]

The real service, a real cupsd and a virtual printer (`tests.harness.playground`). A request slip on A4 goes by SMTP
when nothing else is under way; the clock runs from the last byte of DATA until the printer has put the whole document
down. Before each, the same slip is rendered alone, by a warm child of a pool of this process: what is more is intake,
spool, CUPS with its filters, and IPP to the printer. Medians, because the machine does other things as well.

CUPS's own part is taken beside it: the same PDF handed to the same queue, from Create-Job on.
"""

from __future__ import annotations

import argparse
import asyncio
import smtplib
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.slip_pages import profile_of, slip
from relay.config.printers import Cups, Rendering
from relay.printing.cups import CupsServer
from relay.printing.jobs import job_options
from relay.slips.pool import RenderPool
from tests.harness.playground import Playground
from tests.harness.printers import VirtualPrinter
from tests.harness.waiting import LOCALHOST

PRINTER = "laser"
WARM_UP = 5
LOOK_EVERY = 0.001
REST = 1.5
"""Seconds after each, until CUPS and the service have noticed that it is on paper."""
LONGEST = 30.0
MOST_MORE = 0.1
"""Seconds that all but the rendering may take."""


class Lost(RuntimeError):
    """A slip did not come to the printer."""


@dataclass(slots=True)
class Times:
    """Seconds of each slip."""

    rendering: list[float] = field(default_factory=list)
    cups: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)

    def more(self) -> float:
        """What the way takes besides the rendering: the median of the differences."""
        return statistics.median(whole - alone for whole, alone in zip(self.whole, self.rendering, strict=True))


async def measure(slips: int) -> Times:
    """That many slips, one when the one before is settled."""
    times = Times()
    with tempfile.TemporaryDirectory(prefix="slip-relay-bench-") as folder:
        async with Playground(Path(folder) / "all") as playground:
            pool = RenderPool(Rendering(children=1))
            await pool.start()
            try:
                for number in range(-WARM_UP, slips):
                    one = await _one(playground, pool, number)
                    if number >= 0:
                        times.rendering.append(one[0])
                        times.cups.append(one[1])
                        times.whole.append(one[2])
            finally:
                await pool.stop()
    return times


async def _one(playground: Playground, pool: RenderPool, number: int) -> tuple[float, float, float]:
    message, profile = slip("request", number), profile_of("request")
    printer, mailbox = playground.printers[PRINTER], playground.institution.mailbox(PRINTER)
    began = time.monotonic()
    alone = await pool.render(message, profile)
    rendered = time.monotonic() - began
    cups = CupsServer(Cups(server=f"{LOCALHOST}:{playground.ports.cups}"))
    count, began = len(printer.papers()), time.monotonic()
    name = f"bench-{number}"
    job = await cups.create_job(PRINTER, name, job_options(profile, (alone.width_mm, alone.height_mm), alone.pages))
    await cups.send_document(PRINTER, job, name, alone.pdf)
    by_cups = await _arrived(printer, count) - began
    await asyncio.sleep(REST)
    count = len(printer.papers())
    ended = await asyncio.to_thread(_hand_in, playground.ports.smtp, mailbox, message)
    whole = await _arrived(printer, count) - ended
    await asyncio.sleep(REST)
    return rendered, by_cups, whole


def _hand_in(port: int, mailbox: str, message: bytes) -> float:
    """Sends a message; gives when its last byte was sent."""
    with smtplib.SMTP(LOCALHOST, port, local_hostname="app02.eu07.example", timeout=60) as client:
        client.ehlo()
        client.mail("alma@exlibrisgroup.example")
        client.rcpt(mailbox)
        client.docmd("DATA")
        client.send(message.replace(b"\r\n.", b"\r\n..") + b"\r\n.\r\n")
        ended = time.monotonic()
        code, text = client.getreply()
        if code != 250:
            raise Lost(f"not taken: {code} {text.decode(errors='replace')}")
    return ended


async def _arrived(printer: VirtualPrinter, count: int) -> float:
    """Waits for the next document; gives when it was there."""
    ends = time.monotonic() + LONGEST
    while len(printer.papers()) <= count:
        if time.monotonic() > ends:
            raise Lost(f"nothing came to the printer within {LONGEST:g} s")
        await asyncio.sleep(LOOK_EVERY)
    return time.monotonic()


def table(times: Times) -> str:
    """The figures, and whether the way is as short as it should be."""
    lines = [f"to an idle printer, {len(times.whole)} slips:"]
    for words, seconds in (("rendering alone", times.rendering), ("CUPS alone", times.cups), ("whole", times.whole)):
        lines.append(
            f"{words:16} median {statistics.median(seconds) * 1000:6.0f} ms, worst {max(seconds) * 1000:6.0f} ms"
        )
    more, most = times.more() * 1000, MOST_MORE * 1000
    lines.append(f"besides the rendering: {more:.0f} ms: {'within' if more <= most else 'MORE than'} {most:.0f} ms")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(description="From the end of DATA to the printer")
    parser.add_argument("--slips", type=int, default=50)
    print(table(asyncio.run(measure(parser.parse_args().slips))))


if __name__ == "__main__":
    main()
