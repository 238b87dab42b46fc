"""The folder with the keys of a domain, and what it says of them: which sign, which come next, which have gone.

Each key is a file SELECTOR.pem, made once and never written again. `signing.json` beside them is the state of a
rotation: `{"signs": [SELECTOR, ...], "next": [...], "retired": [{"selector": ..., "record_until": SECONDS}]}`. Without
it the folder holds one key of a kind, and that one signs.
Promises: the state is replaced whole, so that who reads it finds the old one or the new one. New files belong to whom
the present key belongs, and nobody but their owner reads them, and the group where it reads the present one.
Refuses, by StartError: a folder of which nobody could tell what signs.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from relay.errors import AddressError, StartError
from relay.mail.address import ascii_domain, parse_domain
from relay.outgoing.private_key import PrivateKey, kind_of, pem, read_private_key, write_new

STATE = "signing.json"


@dataclass(frozen=True, slots=True)
class Retired:
    """A key that signs no more, and whose record is still needed by what it signed."""

    selector: str
    record_until: float
    "When its record may go, in seconds since the epoch."


@dataclass(frozen=True, slots=True)
class KeyFolder:
    """What a folder says."""

    path: Path
    signs: tuple[str, ...]
    "Selectors that sign, RSA before Ed25519."
    coming: tuple[str, ...] = ()
    "Selectors that are to sign as soon as the DNS shows their records."
    retired: tuple[Retired, ...] = ()

    def file(self, selector: str) -> Path:
        """Where the key of a selector is."""
        return self.path / f"{selector}.pem"

    def key(self, selector: str) -> PrivateKey:
        """The key of a selector. Raises StartError."""
        return read_private_key(self.file(selector))

    def add(self, selector: str, key: PrivateKey) -> None:
        """Writes the key of a new selector. Raises StartError when it exists, or can't be written."""
        write_new(self.file(selector), pem(key))
        self._give(self.file(selector))

    def write(self) -> None:
        """Makes this the state of the folder, on disk. Raises StartError."""
        said: dict[str, Any] = {"signs": self.signs, "next": self.coming}
        said["retired"] = [{"selector": each.selector, "record_until": each.record_until} for each in self.retired]
        fresh = self.path / f".{STATE}.new"
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                json.dump(said, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            self._give(fresh)
            fresh.replace(self.path / STATE)
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise StartError(f"{self.path / STATE} can't be written: {error.strerror}") from None

    def _give(self, file: Path) -> None:
        """Lets those read a new file who read the present key: the service, when root makes it."""
        like, own = self.file(self.signs[0]).stat(), file.stat()
        try:
            if (like.st_uid, like.st_gid) != (own.st_uid, own.st_gid):
                os.chown(file, like.st_uid, like.st_gid)
            file.chmod(0o600 | (like.st_mode & stat.S_IRGRP))
        except OSError as error:
            file.unlink(missing_ok=True)
            raise StartError(
                f"{file} can't be given to the owner of {self.file(self.signs[0])}: {error.strerror}; run this as root"
            ) from None

    def switched(self, record_until: float) -> KeyFolder:
        """With those that come signing, and the records of those before needed until a time."""
        gone = tuple(Retired(selector, record_until) for selector in self.signs)
        return replace(self, signs=self.coming, coming=(), retired=(*self.retired, *gone))


def read_folder(path: Path) -> KeyFolder:
    """What a folder says. Raises StartError."""
    try:
        text = (path / STATE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return _without_state(path)
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"{path / STATE} can't be read: {error}") from None
    try:
        said = json.loads(text)
        retired = tuple(Retired(_selector(each["selector"]), float(each["record_until"])) for each in said["retired"])
        signs, coming = (tuple(map(_selector, said[name])) for name in ("signs", "next"))
    except (ValueError, KeyError, TypeError, AddressError) as error:
        raise StartError(f"{path / STATE} is not as `slip-relay dkim rotate` writes it: {error}") from None
    if not signs:
        raise StartError(f"{path / STATE} names no key that signs")
    return KeyFolder(path, signs, coming, retired)


def _without_state(path: Path) -> KeyFolder:
    """The folder as it is before its first rotation."""
    found: dict[str, list[str]] = {}
    try:
        files = sorted(path.glob("*.pem"))
    except OSError as error:
        raise StartError(f"the folder {path} can't be read: {error.strerror}") from None
    for file in files:
        try:
            selector = _selector(file.stem)
        except AddressError as error:
            raise StartError(f"{file} is not named as a selector: {error}") from None
        found.setdefault(kind_of(read_private_key(file)), []).append(selector)
    if not found:
        raise StartError(f"no key is in {path}: `slip-relay dkim keygen ... -o {path}/SELECTOR.pem` makes one")
    for kind, selectors in found.items():
        if len(selectors) > 1:
            raise StartError(
                f"{path} has {len(selectors)} {kind} keys ({', '.join(selectors)}), and no {STATE} that says which one "
                "signs: leave one there, `slip-relay dkim rotate --begin` makes the next"
            )
    return KeyFolder(path, tuple(found[kind][0] for kind in ("rsa", "ed25519") if kind in found))


def _selector(name: str) -> str:
    return ascii_domain(parse_domain(name))
