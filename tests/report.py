"""A DSN as others read it."""

from __future__ import annotations

import base64
import email
import quopri
import re
from email.message import Message as Parsed


class Read:
    """A DSN as the parser of the standard library reads it, and its parts byte for byte."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.message = email.message_from_bytes(content)
        assert self.message.get_content_type() == "multipart/report"
        assert self.message.get_param("report-type") == "delivery-status"
        self.parts: list[Parsed] = list(self.message.get_payload())  # type: ignore[arg-type]
        assert not [defect for part in (self.message, *self.parts) for defect in part.defects]
        delimiter = f"\r\n--{self.message.get_boundary()}".encode()
        self.raw = [part.removeprefix(b"\r\n") for part in content.split(delimiter)[1:-1]]
        assert content.endswith(delimiter + b"--\r\n")
        assert len(self.raw) == len(self.parts)

    @property
    def text(self) -> str:
        """What people read."""
        assert self.parts[0].get_content_type() == "text/plain"
        payload = self.parts[0].get_payload(decode=True)
        assert isinstance(payload, bytes)
        return payload.decode("utf-8")

    @property
    def fields(self) -> dict[str, str]:
        """What programs read, of the message and of its recipient; each field once."""
        assert self.parts[1].get_content_type() == "message/delivery-status"
        groups: list[Parsed] = list(self.parts[1].get_payload())  # type: ignore[arg-type]
        assert len(groups) == 2
        pairs = [(name.lower(), re.sub(r"\r\n ", " ", value)) for group in groups for name, value in group.items()]
        assert len({name for name, _ in pairs}) == len(pairs)
        assert {"reporting-mta", "final-recipient", "action", "status"} <= {name for name, _ in pairs}
        return dict(pairs)

    @property
    def returned(self) -> tuple[str, bytes]:
        """Type and bytes of the mail that it is about."""
        part, raw = self.parts[2], self.raw[2]
        body = raw.partition(b"\r\n\r\n")[2]
        match part["Content-Transfer-Encoding"]:
            case "base64":
                body = base64.b64decode(body)
            case "quoted-printable":
                body = quopri.decodestring(body)
        return part.get_content_type(), body
