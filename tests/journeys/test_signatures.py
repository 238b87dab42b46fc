"""Letters of every shape, signed, through a real Postfix as next hop: two verifiers that are not ours, dkimpy and
Mail::DKIM, find our signature good at the end, and those that a letter brought along.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import dkim
import pytest
import pytest_asyncio

from relay.errors import HeaderError
from relay.mail import headers
from tests.harness.appliance import Refused
from tests.harness.dns_server import DnsServer
from tests.harness.institution import DOMAIN, SELECTOR
from tests.harness.letters_only import LettersOnly
from tests.harness.next_hop import NextHop, Taken
from tests.harness.postfix import Postfix, can_run_postfix
from tests.harness.process import find_program
from tests.harness.waiting import LOCALHOST, free_ports, until

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
VERIFIER = Path(__file__).parents[1] / "harness" / "verify_dkim.pl"
HEADER = f"From: Circ <circ@{DOMAIN}>\r\nSubject: due\r\nDate: Sat, 21 Nov 2026 08:00:00 +0000\r\n".encode()
MIME = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"


pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        not can_run_postfix(), reason="needs root, and Postfix: the machine may have another mail server"
    ),
]


def by_ex_libris(letter: bytes, key: Path) -> bytes:
    """A letter with a signature for the institution that it had before it came to us."""
    signed = [b"from", b"from", b"to", b"subject", b"subject", b"date", b"message-id", b"auto-submitted", b"reply-to"]
    made = dkim.sign(letter, b"exl", DOMAIN.encode(), key.read_bytes(), include_headers=signed)
    return bytes(made) + letter


def shapes(key: Path) -> dict[str, bytes]:
    """Letters that are nasty to sign, or to carry."""
    utf8 = "Für Jörg: Größe ½ \u05d0\u05d1\r\n".encode()
    parts = b"--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>" + utf8 + b"</p>\r\n--b--\r\n"
    plain = HEADER + b"\r\nbody\r\n"
    of_alma = HEADER + b"Message-ID: <1.JavaMail.urm@app02.eu07>\r\nTo: a@patron.example\r\n\r\nbody \r\n\r\n"
    return {
        "empty-body": HEADER + b"\r\n",
        "no-body": HEADER,
        "only-line-ends": HEADER + b"\r\n\r\n\r\n\r\n",
        "no-final-line-end": HEADER + b"\r\nbody",
        "trailing-spaces": HEADER + b"\r\nbody  \t \r\n \t\r\nend \r\n\r\n\r\n \r\n\r\n",
        "only-spaces": HEADER + b"\r\n \t ",
        "dots": HEADER + b"\r\n.\r\n..\r\n.x\r\n\r\n.",
        "from-at-line-start": HEADER + b"\r\nFrom here\r\n>From there\r\nFrom: circ@lib.example\r\n",
        "long-header": b"X-Long: " + b"x" * 960 + b"\r\n" + HEADER + b"\r\nbody\r\n",
        "long-folded-subject": HEADER.replace(b"due", b"\r\n ".join([b"long words"] * 400)) + b"\r\nbody\r\n",
        "long-references": HEADER + b"References:" + b"\r\n\t<%060d@lib.example>" % 7 * 300 + b"\r\n\r\nbody\r\n",
        "odd-white-space": b"SUBJECT:\t  a  \t b  \r\n  c\t\r\nfrom:\r\n Circ\t<circ@lib.example> \r\n\r\n a \t b\r\n",
        "empty-fields": HEADER.replace(b"due", b"") + b"Cc:\r\nReply-To: \r\n\r\nbody\r\n",
        "8-bit": HEADER + MIME + b"\r\n" + utf8,
        "8-bit-latin-1": HEADER + MIME.replace(b"utf-8", b"iso-8859-1") + b"\r\ncaf\xe9\r\n",
        "8-bit-without-mime": HEADER + b"\r\n" + utf8,
        "8-bit-in-parts": HEADER + b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + parts,
        "utf-8-header": HEADER.replace(b"Circ", "Jörg".encode()).replace(b"due", "für".encode())
        + MIME
        + b"\r\n"
        + utf8,
        "long-lines": HEADER
        + MIME.replace(b"8bit", b"7bit")
        + b"\r\n"
        + b"long line \t " * 200
        + b"\r\n"
        + b"x" * 5000,
        "long-lines-of-header": HEADER.replace(b"due", b"long words " * 300) + b"\r\nbody\r\n",
        "line-of-998": HEADER + b"\r\n" + b"x" * 998 + b"\r\n" + b"y" * 997 + b"\r\n",
        "many-received": b"Received: from a by b; Sat, 21 Nov 2026 08:00:00 +0000\r\n" * 45 + plain,
        "to-200": HEADER
        + b"To: "
        + b",\r\n\t".join(b'"Reader, %03d" <reader%03d@patron.example>' % (n, n) for n in range(200))
        + b"\r\n\r\nbody\r\n",
        "left-out": b"Return-Path: <a@b.example>\r\nBcc: x@patron.example\r\n" + plain,
        "rewritten": plain.replace(b"circ@lib.example", b"circ@vendor.example"),
        "signed-before": by_ex_libris(of_alma, key),
        "signed-before-twice": by_ex_libris(by_ex_libris(of_alma, key), key),
        "signed-before-and-left-out": by_ex_libris(b"Return-Path: <a@b.example>\r\n" + of_alma, key),
        "signed-badly-before": b"DKIM-Signature: v=1; a=rsa-sha256; d=x.example; s=y; h=from; bh=AA==; b=AA==\r\n"
        + plain,
        "dkim-signature-of-nothing": b"DKIM-Signature: \r\n" + plain,
        "2-MB": HEADER + MIME + b"\r\n" + (utf8 + b"x  y\t z " * 8 + b"\r\n") * 16_000,
    }


def corpus() -> dict[str, bytes]:
    """The shared corpus, when it is there."""
    found = {}
    for path in sorted(CORPUS.rglob("*.eml")):
        content = path.read_bytes()
        content = content if b"\r\n" in content[:2000] else content.replace(b"\n", b"\r\n")
        found[str(path.relative_to(CORPUS).with_suffix(""))] = content
    return found


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What each verifier says of a message's signatures, from the top: selector and whether it is good."""

    dkimpy: list[tuple[str, bool]]
    mail_dkim: list[tuple[str, bool]]


class Way:
    """The appliance, Postfix behind it, and behind Postfix the sink; with the DNS that has the keys."""

    def __init__(self, letters: LettersOnly, dns: DnsServer, sink: NextHop) -> None:
        self.letters, self.dns, self.sink = letters, dns, sink
        self._sent = 0

    @property
    def key(self) -> Path:
        return self.letters.institution.dkim_key

    async def submit(self, letter: bytes) -> str:
        """Hands a letter in; gives its recipient."""
        self._sent += 1
        recipient = f"reader{self._sent}@patron.example"
        await self.letters.appliance.submit(letter, "alma@exlibrisgroup.example", [recipient])
        return recipient

    def taken_for(self, recipient: str) -> Taken | None:
        return next((taken for taken in self.sink.taken if taken.rcpt_to == [recipient]), None)

    async def travelled(self, all_letters: Mapping[str, bytes]) -> dict[str, Taken]:
        """The letters as they are at the end of their way, by name."""
        recipients = {name: await self.submit(letter) for name, letter in all_letters.items()}

        def left() -> list[str]:
            return [name for name, recipient in recipients.items() if self.taken_for(recipient) is None]

        await until(lambda: not left(), lambda: f"letters at the sink; left: {left()}", seconds=60)
        return {name: taken for name, recipient in recipients.items() if (taken := self.taken_for(recipient))}

    async def verdicts(self, taken: Mapping[str, Taken]) -> dict[str, Verdicts]:
        """What both verifiers say of each message."""
        child = await asyncio.create_subprocess_exec(
            *(find_program("perl"), str(VERIFIER), str(self.dns.port), *(str(each.path) for each in taken.values())),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await asyncio.wait_for(child.communicate(), 120)
        assert child.returncode == 0
        lines = [line.split("\t") for line in output.decode().splitlines()]
        return {
            name: Verdicts(
                await asyncio.to_thread(self._by_dkimpy, each.content),
                [(selector, said == "pass") for path, _, selector, said in lines if path == str(each.path)],
            )
            for name, each in taken.items()
        }

    def _by_dkimpy(self, message: bytes) -> list[tuple[str, bool]]:
        found = []
        for number in range(len(re.findall(rb"(?mi)^dkim-signature:", headers.section(message)))):
            verifier = dkim.DKIM(message, timeout=10)
            try:
                is_good = verifier.verify(idx=number, dnsfunc=self._look_up)
            except dkim.DKIMException:
                is_good = False
            selector = verifier.selector or b""
            found.append((selector.decode() if isinstance(selector, bytes) else selector, is_good))
        return found

    def _look_up(self, name: bytes, timeout: float = 5) -> bytes:
        record = self.letters.institution.dkim_record
        known = {f"{selector}._domainkey.{DOMAIN}" for selector in (SELECTOR, "exl")}
        return record.encode() if name.decode().rstrip(".") in known else b""


@asynccontextmanager
async def a_way(folder: Path, settings: Mapping[str, str], *, eight_bit: bool = True) -> AsyncIterator[Way]:
    """A way with these settings of the institution; `eight_bit` is whether the sink has 8BITMIME."""
    sink_port, postfix_port, dns_port = (free_ports(9) + n for n in range(3))
    postfix = Postfix(
        [postfix_port],
        {"relayhost": f"[{LOCALHOST}]:{sink_port}", "mynetworks": "127.0.0.0/8", "message_size_limit": 50_000_000,
         "smtputf8_enable": "yes", "smtpd_relay_restrictions": "permit_mynetworks,reject"},
    )  # fmt: skip
    foreign = {domain for letter in corpus().values() for domain in from_domains(letter)} - {DOMAIN}
    extra = {
        "next_hops": [{"name": "default", "port": postfix_port}],
        "institutions": [{"name": "demo", **settings}],
        "sources": [{"name": "alma", "from_domains": sorted(foreign | {"vendor.example"})}],
    }
    async with DnsServer(dns_port) as dns, NextHop(sink_port, folder / "sink", eight_bit=eight_bit) as sink:
        await postfix.start()
        try:
            async with LettersOnly(folder / "letters", extra=extra) as letters:
                for selector in (SELECTOR, "exl"):
                    dns.add(f"{selector}._domainkey.{DOMAIN}", "TXT", letters.institution.dkim_record)
                yield Way(letters, dns, sink)
        finally:
            await postfix.stop()


def from_domains(letter: bytes) -> list[str]:
    try:
        return headers.from_domains(headers.section(letter))
    except HeaderError:
        return []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def way(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Way]:
    """A way on which every host takes everything."""
    settings = {"header_from": "rewrite", "from_mailbox": f"library@{DOMAIN}"}
    async with a_way(tmp_path_factory.mktemp("way"), settings) as made:
        yield made


async def test_every_shape_arrives_well_signed(way: Way) -> None:
    all_letters = shapes(way.key)
    taken = await way.travelled(all_letters)
    found = await way.verdicts(taken)
    brought = {"signed-before": [True], "signed-before-twice": [True, True], "signed-before-and-left-out": [True]}
    for name, verdicts in found.items():
        ours = (SELECTOR, True)
        theirs = [("exl", good) for good in brought.get(name, [])]
        assert verdicts.dkimpy[:1] == verdicts.mail_dkim[:1] == [ours], (name, verdicts)
        if theirs:
            assert verdicts.dkimpy[1:] == verdicts.mail_dkim[1:] == theirs, (name, verdicts)
    for name in ("left-out", "signed-before-and-left-out"):
        assert not {"bcc", "return-path"} & {field for field, _ in headers.fields(headers.section(taken[name].content))}
    assert b"From: Circ via Library\r\n <library@lib.example>\r\n" in taken["rewritten"].content


async def test_a_verifier_can_say_no(way: Way) -> None:
    taken = await way.travelled({"spoilt": HEADER + b"\r\nbody\r\n"})
    taken["spoilt"].path.write_bytes(taken["spoilt"].content.replace(b"body", b"other"))
    assert await way.verdicts(taken) == {"spoilt": Verdicts([(SELECTOR, False)], [(SELECTOR, False)])}


async def test_two_from_fields_are_never_signed_for_they_are_refused(way: Way) -> None:
    with pytest.raises(Refused, match="2 From fields; exactly one is needed"):
        await way.submit(b"From: evil@vendor.example\r\n" + HEADER + b"\r\nbody\r\n")


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the shared corpus is not here")
async def test_all_of_the_corpus_arrives_well_signed(way: Way) -> None:
    all_letters = corpus()
    assert len(all_letters) > 60
    taken = await way.travelled(all_letters)
    for name, verdicts in (await way.verdicts(taken)).items():
        assert verdicts.dkimpy[:1] == verdicts.mail_dkim[:1] == [(SELECTOR, True)], (name, verdicts)


LESS = ["8-bit", "8-bit-latin-1", "utf-8-header", "2-MB"]


@pytest.mark.parametrize(("convert", "is_good"), [("as-needed", False), ("always", True)])
async def test_behind_postfix_is_a_host_that_takes_less(tmp_path: Path, convert: str, *, is_good: bool) -> None:
    async with a_way(tmp_path, {"convert": convert}, eight_bit=False) as way:
        all_letters = shapes(way.key)
        taken = await way.travelled({name: all_letters[name] for name in [*LESS, "trailing-spaces"]})
        for name, verdicts in (await way.verdicts(taken)).items():
            good = is_good or name == "trailing-spaces"
            assert verdicts.dkimpy == verdicts.mail_dkim == [(SELECTOR, good)], (name, verdicts)
            assert headers.split(taken[name].content)[1].isascii()


@pytest.mark.prove
async def test_25_mb_arrive_well_signed(way: Way) -> None:
    line = "Für Jörg  \t a history of reading\t\r\n".encode()
    taken = await way.travelled({"25-MB": HEADER + MIME + b"\r\n" + line * (25_000_000 // len(line))})
    assert (await way.verdicts(taken))["25-MB"] == Verdicts([(SELECTOR, True)], [(SELECTOR, True)])
