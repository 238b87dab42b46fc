"""Every message of the shared corpus through the real appliance, when it is there: slips onto paper, letters out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pypdf
import pytest
import pytest_asyncio

from relay.errors import HeaderError
from relay.mail import headers
from tests.harness import toml
from tests.harness.playground import Playground
from tests.harness.waiting import until
from tests.journeys.story import Story, body

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
PRINTERS = {"A4": "laser", "Letter": "laser", "A5": "a5", "80mm": "receipt"}

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not CORPUS.is_dir(), reason="the shared corpus is not here"),
]


@dataclass(frozen=True, slots=True)
class Sample:
    """One message of the corpus with what its index says of it."""

    name: str
    content: bytes
    sender: str
    recipients: tuple[str, ...]
    printer: str | None

    @property
    def domain(self) -> str:
        header, _ = headers.split(self.content)
        try:
            return headers.from_domains(header)[0]
        except HeaderError:
            return ""


def samples() -> list[Sample]:
    found = []
    for index in sorted(CORPUS.rglob("*.json")):
        facts = json.loads(index.read_text(encoding="utf-8"))
        content = index.with_suffix(".eml").read_bytes()
        if b"\r\n" not in content[:2000]:
            content = content.replace(b"\n", b"\r\n")
        printer = PRINTERS.get(facts.get("paper", ""), "laser") if facts["route"] == "print" else None
        name = str(index.relative_to(CORPUS).with_suffix(""))
        found.append(Sample(name, content, facts["mail_from"], tuple(facts["rcpt_to"]), printer))
    return found


def tables(all_samples: list[Sample], key_file: Path) -> dict[str, Any]:
    """An institution that owns the domains of the corpus, with its printers' mailboxes."""
    foreign = {"exlibrisgroup.com", "mx.example.net"}
    domains = sorted(
        ({sample.domain for sample in all_samples} | {"library.example.edu"}) - foreign - {"lib.example", ""}
    )
    keys = [{"domain": domain, "selector": "demo", "key_file": str(key_file)} for domain in domains]
    mailboxes: dict[str, set[str]] = {}
    owners: dict[str, str] = {}
    for sample in all_samples:
        if sample.printer is not None:
            owner = owners.setdefault(sample.recipients[0], sample.printer)
            mailboxes.setdefault(owner, set()).add(sample.recipients[0])
    return {
        "institutions": [{"name": "corpus", "domains": domains, "bounce_domain": "bounces.lib.example", "dkim": keys}],
        "sources": [
            {
                "name": "corpus",
                "institutions": ["corpus"],
                "networks": ["127.0.0.1/32"],
                "from_domains": ["exlibrisgroup.com"],
            }
        ],
        "printers": [
            {
                "name": f"corpus-{name}",
                "institution": "corpus",
                "mailboxes": sorted(boxes),
                "queue": name,
                "profile": {"laser": "a4", "a5": "a5", "receipt": "receipt80"}[name],
            }
            for name, boxes in mailboxes.items()
        ],
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def story(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Story]:
    """A playground whose appliance knows the institutions of the corpus."""
    playground = Playground(tmp_path_factory.mktemp("corpus") / "all", start_appliance=False)
    institution = playground.institution
    extra = tables(samples(), institution.dkim_key)
    institution.config.write_text(toml.dumps(toml.merged(institution.tables(), extra)), encoding="utf-8")
    for domain in extra["institutions"][0]["domains"]:
        playground.dns.add(f"demo._domainkey.{domain}", "TXT", institution.dkim_record)
    async with playground:
        await playground.appliance.start()
        yield Story(playground)


async def test_every_slip_is_printed_and_every_letter_leaves_as_it_came(story: Story) -> None:
    slips = [sample for sample in samples() if sample.printer is not None]
    letters = [sample for sample in samples() if sample.printer is None]
    assert len(slips) > 40
    assert len(letters) > 15
    numbers = {}
    for sample in [*slips, *letters]:
        numbers[sample.name] = await story.submit(sample.content, *sample.recipients, sender=sample.sender)

    def open_ones() -> list[Any]:
        lines = story.deliveries(*numbers.values())
        return [line for line in lines if line.state != "delivered" and not line.duplicate_of]

    await until(lambda: not open_ones(), lambda: f"all of the corpus; left: {open_ones()}", seconds=180)
    names = {number: name for name, number in numbers.items()}
    twice = {line.queue_id for line in story.deliveries(*numbers.values()) if line.duplicate_of}
    assert {names[number] for number in twice} == handed_in_again(slips)
    await check_slips(story, {numbers[sample.name] for sample in slips} - twice, names)
    for sample in letters:
        await check_letter(story, sample, numbers[sample.name])


def handed_in_again(slips: list[Sample]) -> set[str]:
    """Those with the Message-ID and the recipients of one before them."""
    seen: set[tuple[str, tuple[str, ...]]] = set()
    again: set[str] = set()
    for sample in slips:
        known = (headers.message_id(headers.section(sample.content)), sample.recipients)
        if known[0] and known in seen:
            again.add(sample.name)
        seen.add(known)
    return again


async def check_slips(story: Story, numbers: set[str], names: dict[str, str]) -> None:
    """Each slip is on paper once, as a PDF."""
    printed: list[str] = []
    for printer in story.printers.values():
        jobs = printer.job_names()
        papers = printer.papers()
        assert len(papers) == len(jobs)
        printed += [job.split("-")[1] for job in jobs]
        for paper in papers:
            assert len(pypdf.PdfReader(paper).pages) >= 1
    assert sorted(printed) == sorted(numbers), {names[number] for number in numbers ^ set(printed)}


async def check_letter(story: Story, sample: Sample, number: str) -> None:
    """A letter's body is what it was, and its signature is good."""
    ours = f" id {number};".encode()
    taken = [each for each in story.next_hop.taken if ours in each.content[:400]]
    assert len(taken) == 1, sample.name
    if sample.name == "edge/xml-to-letter-admin.plain":  # a line of 1,575 octets, which hosts would break
        sent, came = (message_from_bytes(content) for content in (taken[0].content, sample.content))
        assert sent.get_payload(decode=True) == came.get_payload(decode=True)
        assert (sent["Content-Transfer-Encoding"], sent["Subject"]) == ("quoted-printable", came["Subject"])
    else:
        assert body(taken[0].content) == body(sample.content), sample.name
        assert taken[0].content.endswith(sample.content), sample.name
    assert await story.verdict(taken[0]), sample.name
    assert taken[0].mail_from == "" if not sample.sender else taken[0].mail_from.endswith("@bounces.lib.example")
