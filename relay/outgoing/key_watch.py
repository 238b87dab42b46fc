"""Signing keys taken anew while the service runs: when somebody says so, or a key folder says that other keys sign.

Promises: all keys are taken, or none; what can't be read leaves those of before in force, is told once, and is tried
again. Only `signing.json` is looked at by itself, which `dkim rotate` writes when the records are published: a key file
that somebody writes anew is taken when he says so (SIGHUP).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from relay.config.institutions import Institution
from relay.errors import StartError
from relay.maillog import MailLog
from relay.outgoing.key_folder import STATE
from relay.outgoing.sign import Signer
from relay.stamps import stamp_of


class KeyWatch:
    """The keys of one signer."""

    def __init__(self, signer: Signer, institutions: Sequence[Institution], maillog: MailLog, every: float) -> None:
        """`every` is the time in seconds between two looks."""
        self._signer = signer
        self._maillog = maillog
        self._every = every
        folders = {key.key_folder for each in institutions for key in each.dkim if key.key_folder is not None}
        self._files = [folder / STATE for folder in sorted(folders)]
        self._taken = stamp_of(self._files)
        self._fault = ""

    def take(self, *, once: bool = False) -> dict[str, list[str]]:
        """Takes the keys; what signs now, by institution. Raises StartError when all stay as they are; with `once` the
        log is not told the same again.
        """
        before, stamp = self._signer.selectors(), stamp_of(self._files)
        try:
            self._signer.load()
        except StartError as error:
            if not once or str(error) != self._fault:
                self._maillog.service("keys-kept", why=error)
            self._fault = str(error)
            raise
        self._taken, self._fault = stamp, ""
        for institution, names in self._signer.selectors().items():
            if names != before[institution]:
                self._maillog.service("keys-taken", institution=institution, signs=" ".join(names))
        return self._signer.selectors()

    def take_kindly(self, *, once: bool = False) -> None:
        """Takes the keys; what is wrong is in the log."""
        with contextlib.suppress(StartError):
            self.take(once=once)

    async def run(self) -> None:
        """Looks at the folders now and again, until it is cancelled."""
        while True:
            await asyncio.sleep(self._every)
            if stamp_of(self._files) != self._taken:
                self.take_kindly(once=True)
