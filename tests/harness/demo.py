"""The demo: one letter out and three slips on paper, before your eyes.

    python -m tests.harness.demo

Starts a playground in demo-output/, submits four messages as Alma would, follows them, and then shows what became of
each: the letter at the next hop with its new envelope and its signature, checked by a verifier that is not ours; each
slip as the virtual printer received it, with a PNG preview beside the PDF; and the state of every delivery, read
through the real `slip-relay queue list`. Exit code 0 only when every single claim was found true.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pypdf

from tests.harness import samples
from tests.harness.appliance import Refused, command
from tests.harness.cupsd import CommandFailed
from tests.harness.dns_server import verify_dkim
from tests.harness.institution import BOUNCE_DOMAIN, DOMAIN, USER
from tests.harness.next_hop import Taken
from tests.harness.playground import CannotStart, Playground
from tests.harness.process import DiedEarly, Missing, find_program
from tests.harness.waiting import TookTooLong, until

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "demo-output"
PATRON = "asa.oertel@patron.example"
ALMA = "alma@exlibrisgroup.com"
SETTLED_SECONDS = 90.0
MM = 72 / 25.4


@dataclass(frozen=True, slots=True)
class Slip:
    """One slip of the demo: how it is made, where it goes, and what has to come out."""

    title: str
    make: Callable[[str], bytes]
    printer: str
    width_mm: float
    height_mm: float | None
    words: str


SLIPS = (
    Slip("request slip", samples.request_slip, "laser", 210, 297, "Resource request"),
    Slip("transit slip", samples.transit_slip, "a5", 148, 210, "In transit"),
    Slip("loan receipt", samples.loan_receipt, "receipt", 80, None, "Loan receipt"),
)


class Findings:
    """What the demo claims, each with the result of looking."""

    def __init__(self) -> None:
        self.wrong: list[str] = []

    def found(self, claim: str, true: bool, detail: str = "") -> None:
        """Print one claim with its result, and remember it when it is not true."""
        print(f"    {'ok   ' if true else 'WRONG'} {claim}{f': {detail}' if detail else ''}", flush=True)
        if not true:
            self.wrong.append(claim)


async def demonstrate() -> list[str]:
    """Run the demo; gives the claims that were not true."""
    findings = Findings()
    say("Starting the playground: CUPS, three virtual printers, a next hop, a DNS server and the appliance ...")
    async with Playground(OUTPUT) as playground:
        say(f"  ready; the appliance is process {playground.appliance.pid}, port {playground.ports.smtp}")
        say("\nSubmitting as Alma would")
        letter = samples.patron_letter(PATRON)
        queue_ids = await submit_all(playground, letter)
        say("\nWaiting until every delivery is settled ...")
        deliveries = await settled(playground, len(queue_ids))
        await show_letter(playground, letter, findings)
        for slip in SLIPS:
            await show_slip(playground, slip, findings)
        show_states(queue_ids, deliveries, findings)
    return findings.wrong


async def submit_all(playground: Playground, letter: bytes) -> dict[str, str]:
    """Hand in the four messages; gives the queue id of each, by its title."""
    appliance, institution = playground.appliance, playground.institution
    reply = await appliance.submit(
        letter, ALMA, [PATRON], port=playground.ports.submission, login=(USER, institution.password)
    )
    queue_ids = {"patron letter": queue_id(reply)}
    say(f"  patron letter  to {PATRON} (port for submission, STARTTLS, AUTH)\n                 {reply}")
    for slip in SLIPS:
        mailbox = institution.mailbox(slip.printer)
        reply = await appliance.submit(slip.make(mailbox), ALMA, [mailbox])
        queue_ids[slip.title] = queue_id(reply)
        say(f"  {slip.title:13}  to {mailbox}\n                 {reply}")
    return queue_ids


async def settled(playground: Playground, count: int) -> list[dict[str, Any]]:
    """The deliveries, once all are delivered or failed; as they are when that takes too long."""
    latest: list[dict[str, Any]] = []
    seen: set[tuple[str, str]] = set()

    async def all_settled() -> bool:
        nonlocal latest
        latest = await queue_list(playground.institution.config)
        for delivery in latest:
            step = (delivery["queue_id"], delivery["state"])
            if step not in seen:
                seen.add(step)
                say(f"  {delivery['queue_id']}  {delivery['state']:9}  {delivery['recipient']}")
        return len(latest) == count and all(d["state"] not in ("queued", "active", "pending") for d in latest)

    try:
        await until(all_settled, "the deliveries", seconds=SETTLED_SECONDS, every=0.3)
    except TookTooLong as late:
        say(f"  {late}")
    return latest


async def queue_list(config: Path) -> list[dict[str, Any]]:
    """What `slip-relay queue list --json` prints."""
    output = await run([*command(), "queue", "list", "-c", str(config), "--json"])
    deliveries: list[dict[str, Any]] = json.loads(output)
    return deliveries


async def show_letter(playground: Playground, sent: bytes, findings: Findings) -> None:
    """The letter at the next hop: envelope, signature, body."""
    say("\nThe letter at the next hop")
    findings.found("it arrived, once", len(playground.next_hop.taken) == 1)
    for taken in playground.next_hop.taken[:1]:
        say(f"    {taken.path}")
        await _compare(taken, sent, playground.ports.dns, findings)


async def _compare(taken: Taken, sent: bytes, dns_port: int, findings: Findings) -> None:
    arrived = taken.content
    verdict = await asyncio.to_thread(verify_dkim, arrived, dns_port)
    rewritten = taken.mail_from.endswith(f"@{BOUNCE_DOMAIN}")
    findings.found("its envelope sender is the institution's", rewritten, f"{ALMA} became {taken.mail_from}")
    findings.found("its recipient is the patron", taken.rcpt_to == [PATRON], ", ".join(taken.rcpt_to))
    findings.found("it travelled over TLS", taken.tls)
    findings.found(
        "dkimpy accepts its signature by the key in the demo's DNS",
        verdict.valid and verdict.domain == DOMAIN,
        verdict.reason or f"d={verdict.domain}, s={verdict.selector}",
    )
    findings.found("its body is the same, byte for byte", _body(arrived) == _body(sent), f"{len(_body(sent))} bytes")


async def show_slip(playground: Playground, slip: Slip, findings: Findings) -> None:
    """A slip as its printer received it: one document, the right paper, a preview."""
    printer = playground.printers[slip.printer]
    say(f"\nThe {slip.title} on printer {slip.printer}")
    papers = printer.papers()
    findings.found("it was printed, once", len(papers) == 1, f"{len(papers)} documents")
    for paper in papers[:1]:
        page = pypdf.PdfReader(paper).pages[0]
        width, height = float(page.mediabox.width) / MM, float(page.mediabox.height) / MM
        fits = abs(width - slip.width_mm) < 1 and (slip.height_mm is None or abs(height - slip.height_mm) < 1)
        findings.found("its paper is right", fits, f"{width:.0f} x {height:.0f} mm")
        words = " ".join(page.extract_text().split())
        findings.found("it can be read", slip.words.casefold() in words.casefold(), slip.words)
        preview = paper.with_suffix("")
        await run([find_program("pdftoppm"), "-png", "-r", "100", "-f", "1", "-singlefile", str(paper), str(preview)])
        findings.found("it has a preview", preview.with_suffix(".png").exists())
        say(f"    {paper}\n    {preview.with_suffix('.png')}")


def show_states(queue_ids: dict[str, str], deliveries: list[dict[str, Any]], findings: Findings) -> None:
    """The final state of every delivery, as the command tells it."""
    say("\nThe state of every delivery, by slip-relay queue list")
    states = {delivery["queue_id"]: delivery for delivery in deliveries}
    for title, identity in queue_ids.items():
        delivery = states.get(identity, {"state": "not known", "route": "", "reason": "", "evidence": ""})
        detail = f"{identity}  {delivery['state']} by {delivery['route']}  {delivery['reason']} {delivery['evidence']}"
        findings.found(f"the {title} is delivered", delivery["state"] == "delivered", detail.strip())


def say(text: str) -> None:
    """One more piece of the story, on the terminal now."""
    print(text, flush=True)


def queue_id(reply: str) -> str:
    """The queue id in a reply `2.0.0 queued as <queue id>`."""
    return reply.rpartition(" ")[2]


async def run(argv: list[str]) -> str:
    """Run a command; gives its standard output, raises CommandFailed with what it said."""
    child = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, complaint = await child.communicate()
    if child.returncode != 0:
        raise CommandFailed(f"{' '.join(argv)}: {complaint.decode(errors='replace').strip()}")
    return output.decode()


def _body(message: bytes) -> bytes:
    return message.partition(b"\r\n\r\n")[2]


def main() -> int:
    """The command; gives its exit code."""
    started = time.monotonic()
    if OUTPUT.is_dir():
        shutil.rmtree(OUTPUT)
    try:
        wrong = asyncio.run(demonstrate())
    except (CannotStart, CommandFailed, DiedEarly, Missing, Refused, TookTooLong, OSError) as error:
        wrong = [str(error)]
    if wrong:
        say("\nThe demo failed:\n" + "\n".join(f"  {claim}" for claim in wrong))
        say(f"  The appliance's log: {OUTPUT / 'log' / 'relay.log'}")
        return 1
    say(f"""
All of it is true, in {time.monotonic() - started:.0f} seconds.

What next
  Look at the slips:          {OUTPUT}/printers/*/paper/
  Read the configuration:     {OUTPUT}/relay.toml; the commented sample is config/relay.toml
  Play with a running one:    make playground DIR=/tmp/playground PORTS=20000
  Break a printer in it:      echo media-empty > /tmp/playground/printers/laser/fault""")
    return 0


if __name__ == "__main__":
    sys.exit(main())
