"""Header fields of a hostile message, within bounds.

Does: gives the e-mail parser a message class that keeps the first MAX_FIELD characters of a field.
Promises: what is read of a header later (parameters, encoded words: the parser's ways are quadratic) is short.
Refuses: a header of more than MAX_FIELDS fields (RenderError).
"""

from __future__ import annotations

from email.message import Message

from relay.errors import RenderError

MAX_FIELDS = 2000
MAX_NAME = 200
MAX_FIELD = 8 * 1024


class BoundedMessage(Message):
    """A message, or a part of one, for `email.message_from_bytes`."""

    def set_raw(self, name: str, value: str) -> None:  # what the parser calls for each field
        """Keep a field. Raises RenderError when there are too many."""
        if len(self) >= MAX_FIELDS:
            raise RenderError(f"a header of the message has more than {MAX_FIELDS} fields")
        super().set_raw(name[:MAX_NAME], value[:MAX_FIELD])
