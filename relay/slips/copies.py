"""Copies of pictures on other servers, as the rendering child sees them: a folder to read, and a list.

Does: answers with the copy of an allowed URL, if there is one, and remembers what was asked for.
Promises: nothing is opened but the copy's own file, at most MAX_COPY bytes of it; at most MAX_WANTED URLs are kept.
"""

from __future__ import annotations

from pathlib import Path

from relay.config.pictures import Pictures, canonical, copy_name

MAX_COPY = 4 * 1024 * 1024
MAX_WANTED = 20


class Copies:
    """What one slip may have of other servers. Without settings: nothing."""

    def __init__(self, settings: Pictures | None = None) -> None:
        self._settings = settings
        self._wanted: dict[str, None] = {}

    @property
    def wanted(self) -> tuple[str, ...]:
        """The allowed URLs that were asked for, with a copy or without."""
        return tuple(self._wanted)

    def allowed(self, reference: str) -> str | None:
        """The canonical URL of a reference, when the list has it."""
        url = canonical(reference) if self._settings is not None else None
        return url if url is not None and self._settings is not None and self._settings.allows(url) else None

    def find(self, url: str) -> bytes | None:
        """The copy of an allowed URL, or None."""
        if len(self._wanted) < MAX_WANTED:
            self._wanted[url] = None
        if self._settings is None or self._settings.folder is None:
            return None
        try:
            with (Path(self._settings.folder) / copy_name(url)).open("rb") as file:
                return file.read(MAX_COPY)
        except OSError:
            return None
