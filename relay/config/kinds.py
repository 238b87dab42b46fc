"""Kinds of value that settings are made of: durations, sizes, papers, secrets. Each says what it takes when it gets
something else.
"""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    PlainValidator,
    model_validator,
)

from relay.errors import AddressError
from relay.mail.address import parse_address, parse_domain

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_FINGERPRINT = re.compile(r"(sha256|spki):((?:[0-9a-f]{2}:?){31}[0-9a-f]{2})")
_DNS_NAME = re.compile(
    r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
_PAPER = re.compile(r"(\d+(?:\.\d+)?)(?:x(\d+(?:\.\d+)?))?(mm|in)")

NAMED_PAPERS = {
    "A4": (210.0, 297.0),
    "A5": (148.0, 210.0),
    "A6": (105.0, 148.0),
    "Letter": (215.9, 279.4),
    "Legal": (215.9, 355.6),
}
"""Sheets by name: width and height in millimetres."""


class Settings(BaseModel):
    """Base of every table of the configuration: unknown keys are errors, values don't change."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


def duration(value: object) -> float:
    """A length of time in seconds, from a number or from text as in "5m". Raises ValueError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < LONGEST:
        return float(value)
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        return float(match[1]) * _UNITS[match[2]]
    raise ValueError('a duration is seconds, or a number with s, m, h or d, as in "30s" or "5d"')


LONGEST = 366 * 86400.0

Duration = Annotated[float, BeforeValidator(duration)]
"""A length of time in seconds; written as a number or as "30s", "5m", "2h", "5d"."""

Size = ByteSize
"""A number of bytes; written as a number or as "25MB", "25MiB"."""


def is_file(path: Path) -> bool:
    """Whether a file is there that can be seen; False also where a folder on the way can't be entered."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether a folder is there that can be entered."""
    try:
        return path.is_dir() and os.access(path, os.R_OK | os.X_OK)
    except OSError:
        return False


def paper_size(paper: str) -> tuple[float, float | None]:
    """Width and height in millimetres of a paper; the height is None on a roll, which is cut where the content ends.

    `paper` is one of NAMED_PAPERS, WIDTHxHEIGHTmm (a sheet) or WIDTHmm (a roll), or the same in inches ("in"). Raises
    ValueError for anything else.
    """
    if paper in NAMED_PAPERS:
        return NAMED_PAPERS[paper]
    match = _PAPER.fullmatch(paper)
    if not match:
        known = ", ".join(NAMED_PAPERS)
        raise ValueError(f'a paper is {known}, a sheet as in "100x150mm", or the width of a roll as in "80mm"')
    unit = 25.4 if match[3] == "in" else 1.0
    width, height = float(match[1]) * unit, float(match[2]) * unit if match[2] else None
    if not 20 <= width <= 1000 or (height is not None and not 20 <= height <= 5000):
        raise ValueError("a paper is between 20 and 1000 mm wide, and a sheet between 20 and 5000 mm high")
    return width, height


class Secret(Settings):
    """Where a secret is kept. The secret itself never stands in the configuration."""

    file: Path | None = None
    "File whose first line is the secret; readable by the service only."
    env: str | None = None
    "Name of the environment variable that holds the secret."

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.file is None) == (self.env is None):
            raise ValueError("a secret is named by exactly one of file and env")
        if self.file is not None and not (is_file(self.file) and os.access(self.file, os.R_OK)):
            raise ValueError(f"the file {self.file} does not exist or can't be read")
        if self.env is not None and not os.environ.get(self.env):
            raise ValueError(f"the environment variable {self.env} is not set")
        if not self.reveal():
            raise ValueError(f"the file {self.file} is empty")
        return self

    def reveal(self) -> str:
        """The secret, read from its place now."""
        if self.file is not None:
            return self.file.read_text(encoding="utf-8").split("\n", 1)[0].strip()
        return os.environ.get(self.env or "", "")


def _name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", value):
        raise ValueError("a name is made of small letters, digits, dot, dash and underscore, as in main-desk")
    return value


def _domain(value: str) -> str:
    try:
        return parse_domain(value)
    except AddressError as error:
        raise ValueError(str(error)) from None


def mailbox(value: str) -> str:
    """A mailbox in its usual spelling, or ValueError."""
    try:
        return str(parse_address(value))
    except AddressError as error:
        raise ValueError(str(error)) from None


def _network(value: object) -> IPv4Network | IPv6Network:
    try:
        return ip_network(str(value))
    except ValueError as error:
        raise ValueError(
            f'{error}; a network is written as in "192.0.2.0/24", "2001:db8::/32" or "192.0.2.1"'
        ) from None


def _ip_address(value: str) -> str:
    try:
        return str(ip_address(value))
    except ValueError:
        raise ValueError(f"{value!r} is not an IP address") from None


def dns_name(value: str) -> str:
    """A name in the DNS, which may have underscores where a host's has none; ValueError for anything else."""
    name = value.lower().removesuffix(".")
    if not _DNS_NAME.fullmatch(name):
        raise ValueError(f'{value!r} is not a name in the DNS, as in "_spf.exlibris.example"')
    return name


def address_or_domain(text: str) -> str:
    """An IP address, or a name in the DNS that is none, in its usual spelling; ValueError for anything else."""
    try:
        return str(ip_address(text))
    except ValueError:
        name = dns_name(text) if "_" in text else _domain(text)
    if name.rpartition(".")[2].isdigit():
        raise ValueError(f"{text!r} is neither an IP address nor a domain")
    return name


def nameserver(text: str) -> tuple[str, int]:
    """Address and port of a name server written as ADDRESS, IPV4:PORT or [IPV6]:PORT; ValueError for anything else."""
    host, colon, port = text.rpartition(":")
    if colon and port.isdigit() and (":" not in host or host.startswith("[")):
        if not 1 <= int(port) <= 65535:
            raise ValueError(f"{text!r} has no valid port")
        return _ip_address(host.strip("[]")), int(port)
    return _ip_address(text), 53


def host_and_port(text: str, port: int) -> tuple[str, int]:
    """A host written as HOST, HOST:PORT, an address or [IPV6]:PORT, with its port or the given one; or ValueError."""
    try:
        return str(ip_address(text.removeprefix("[").removesuffix("]"))), port
    except ValueError:
        host, colon, number = text.rpartition(":")
    if not colon:
        return text, port
    if not host or (":" in host and not host.startswith("[")) or not number.isdigit():
        raise ValueError(f'{text!r} is no host; one is written as in "smtp.example", "smtp.example:587" or "[::1]:587"')
    if not 1 <= int(number) <= 65535:
        raise ValueError(f"{text!r} has no valid port")
    return _ip_address(host.strip("[]")) if host.startswith("[") else host, int(number)


def one_or_more(value: object) -> object:
    """A list of one for what stands alone."""
    return (value,) if isinstance(value, str) else value


def fingerprint(value: str) -> str:
    """The fingerprint of a certificate (`sha256:`) or of its public key (`spki:`), without colons; or ValueError."""
    match = _FINGERPRINT.fullmatch(value.lower())
    if match is None:
        if value.partition(":")[0] not in ("sha256", "spki"):
            raise ValueError(
                'a certificate is named by its fingerprint ("sha256:..."), or that of its public key ("spki:...")'
            )
        raise ValueError(f"{value!r} is not a SHA-256 fingerprint: 64 hexadecimal digits, with or without colons")
    return f"{match[1]}:{match[2].replace(':', '')}"


Name = Annotated[str, AfterValidator(_name)]
Domain = Annotated[str, AfterValidator(_domain)]
Mailbox = Annotated[str, AfterValidator(mailbox)]
Fingerprint = Annotated[str, AfterValidator(fingerprint)]
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(_network)]
Text = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\s\x00-\x1f]+$")]
"""A word without spaces."""

OptionalName = Annotated[str, AfterValidator(lambda value: _name(value) if value else value)]
OptionalText = Annotated[str, Field(max_length=255, pattern=r"^[^\s\x00-\x1f]*$")]
"""Empty for none."""

IpAddress = Annotated[str, AfterValidator(_ip_address)]
Port = Annotated[int, Field(ge=1, le=65535)]
