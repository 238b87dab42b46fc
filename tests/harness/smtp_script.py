r"""Scripted SMTP dialogues: what a client says, and what a server has to answer.

A script is a text file. Its head says what it shows; its body is the dialogue, one line each:

    @about RFC 5321 4.1.1.3: ...       what it shows, and by which paragraph
    @postfix same                      what Postfix is expected to do: the same,
    @postfix differs: why              or something else where a line P: says so,
    @postfix not run: why              or it is not asked
    @at submission                     the listener or the appliance that it needs (without it: relay)
    @from 127.0.0.2                    the client's address (without it 127.0.0.1)

    C: EHLO a.example                  a line that the client says; {x*900} is 900 x
    C> MAIL FROM:<a@b>\r\nRSET\r\n     text as it stands, with \r \n \0 and \xNN, and no line end of its own
    C! starttls                        the client begins TLS
    C! half-close                      the client says no more
    S: 250 2.1.0                       how the last line of the next reply begins
    P: 555 5.5.4                       how Postfix's begins instead
    S+ SIZE *                          a line of the reply just heard is like that, after its code
    S- BINARYMIME                      no line of it is
    S! closed                          the server closes the connection

A line with # is a comment. A reply of the appliance is looked at besides: ASCII, at most 512 octets a line, and an
enhanced status of the class of its code (RFC 2034), where a reply may have one.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from tests.harness.institution import HOSTNAME

PATIENCE = 20.0
"""Seconds that a reply may take."""

_REPEAT = re.compile(r"\{([^{}*]+)\*(\d+)\}")
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|([rn0\\]))")
_ENHANCED = re.compile(rb"([245])\d\d[ -]\1\.\d{1,3}\.\d{1,3}(?: |\r\n)")
_CHARACTERS = {"r": "\r", "n": "\n", "0": "\0", "\\": "\\"}


class Departed(AssertionError):
    """The dialogue went another way than the script."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a dialogue: its kind (as `C:`), its text, and where it stands."""

    kind: str
    text: str
    line: int


@dataclass(slots=True)
class Script:
    """A dialogue."""

    path: Path
    about: str = ""
    postfix: str = ""
    at: str = "relay"
    source: str = "127.0.0.1"
    steps: list[Step] = field(default_factory=list)

    @property
    def runs_on_postfix(self) -> bool:
        """Whether Postfix is asked as well."""
        return not self.postfix.startswith("not run: ")

    @property
    def expects_difference(self) -> bool:
        """Whether Postfix says something else somewhere."""
        return any(step.kind == "P:" for step in self.steps)


def read(path: Path) -> Script:
    """The script in a file. Raises ValueError with the line that can't be read."""
    script = Script(path)
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        word, _, text = line.partition(" ")
        if word in ("@about", "@postfix", "@at", "@from"):
            setattr(script, "source" if word == "@from" else word[1:], text.strip())
        elif word in ("C:", "C>", "C!", "S:", "P:", "S+", "S-", "S!"):
            script.steps.append(Step(word, text, number))
        else:
            raise ValueError(f"{path.name}:{number}: {line!r} is no line of a script")
    if not script.about or not re.fullmatch(r"same|(?:differs|not run): .+", script.postfix):
        raise ValueError(f"{path.name}: @about and @postfix are needed")
    if script.expects_difference != script.postfix.startswith("differs: "):
        raise ValueError(f"{path.name}: @postfix says {script.postfix!r}, and the lines P: say something else")
    return script


class Client:
    """Plays scripts against a server. `words` are replaced where they stand in braces."""

    def __init__(self, port: int, *, is_ours: bool, words: Mapping[str, str] | None = None) -> None:
        self._port = port
        self._is_ours = is_ours
        self._words = words or {}

    async def play(self, script: Script) -> None:
        """Plays one to its end. Raises Departed, with what was said until then."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(script.source, 0))
        said: list[str] = []
        reply: list[str] = []
        steps = [step for step in script.steps if step.kind != "P:"]
        others = {script.steps[i - 1].line: step for i, step in enumerate(script.steps) if step.kind == "P:"}
        try:
            for step in steps:
                said.append(f"{step.line:4} {step.kind} {step.text[:100]}")
                if step.kind == "S:":
                    expected = step if self._is_ours else others.get(step.line, step)
                    reply = await self._reply(reader, said)
                    _check(reply[-1].startswith(self._filled(expected.text)), expected, script, said)
                elif step.kind in ("S+", "S-"):
                    found = any(fnmatchcase(line[4:], step.text) for line in reply)
                    _check(not self._is_ours or found == (step.kind == "S+"), step, script, said)
                elif step.kind == "S!":
                    _check(await _is_closed(reader), step, script, said)
                elif step.kind == "C!":
                    await self._act(step.text, writer)
                else:
                    writer.write(self._bytes(step))
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            raise Departed(f"{script.path.name}: {error!r} after\n" + "\n".join(said)) from error
        finally:
            writer.close()

    async def _reply(self, reader: asyncio.StreamReader, said: list[str]) -> list[str]:
        lines: list[str] = []
        while True:
            raw = await asyncio.wait_for(reader.readuntil(b"\r\n"), PATIENCE)
            lines.append(raw[:-2].decode("utf-8", "replace"))
            said.append(f"     ... {lines[-1]}")
            if self._is_ours:
                _check_form(raw, is_exempt=lines[0][4:].startswith(HOSTNAME), said=said)
            if raw[3:4] != b"-":
                return lines

    async def _act(self, what: str, writer: asyncio.StreamWriter) -> None:
        if what == "starttls":
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            await asyncio.wait_for(writer.start_tls(context), PATIENCE)
        elif what == "half-close":
            writer.write_eof()
        else:
            raise ValueError(f"a client can't {what}")

    def _bytes(self, step: Step) -> bytes:
        text = self._filled(step.text)
        if step.kind == "C:":
            return text.encode() + b"\r\n"
        raw = _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else _CHARACTERS[match[2]], text)
        return raw.encode("latin-1")

    def _filled(self, text: str) -> str:
        for word, meaning in self._words.items():
            text = text.replace(f"{{{word}}}", meaning)
        return _REPEAT.sub(lambda match: match[1] * int(match[2]), text)


def _check(good: bool, step: Step, script: Script, said: list[str]) -> None:
    if not good:
        raise Departed(f"{script.path.name}:{step.line}: {step.kind} {step.text}\n" + "\n".join(said))


def _check_form(raw: bytes, *, is_exempt: bool, said: list[str]) -> None:
    """RFC 5321 4.5.3.1.5 and RFC 2034 3: the greeting, EHLO's answer, 354 and 334 have no enhanced status."""
    has_status = _ENHANCED.match(raw) is not None or is_exempt or raw[:3] in (b"354", b"334")
    if not raw.isascii() or len(raw) > 512 or not has_status:
        raise Departed(f"{raw!r} is not a reply as it should be\n" + "\n".join(said))


async def _is_closed(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(1), PATIENCE) == b""
    except ConnectionResetError:
        return True
