"""The keys that come after those that sign in a folder: of the same kinds, under new selectors.

Promises: no file is written a second time, and until the folder names the new keys what signs is what signed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from relay.errors import StartError
from relay.mail.address import ascii_domain, parse_domain
from relay.outgoing.key_folder import KeyFolder
from relay.outgoing.private_key import BITS, PrivateKey, kind_of, new_private_key


def names_of(selector: str, folder: KeyFolder) -> tuple[str, ...]:
    """The selectors that go by a name: the second one, of Ed25519 beside RSA, with `-ed25519`. Raises AddressError."""
    name = ascii_domain(parse_domain(selector))
    return (name, f"{name}-ed25519")[: len(folder.signs)]


def fresh_names(folder: KeyFolder) -> tuple[str, ...]:
    """Selectors of today's date that the folder does not have. Raises StartError."""
    today = f"s{date.today():%Y%m%d}"
    for suffix in ("", *"bcdefghijklmnopqrstuvwxyz"):
        names = names_of(today + suffix, folder)
        if not any(folder.file(name).exists() for name in names):
            return names
    raise StartError("so many keys were made today: name one with --selector")


def make_next(folder: KeyFolder, names: Sequence[str]) -> KeyFolder:
    """Makes a key like each that signs, and names them in the folder as those that come. Raises StartError."""
    present = [folder.key(each) for each in folder.signs]
    folder.write()  # first, or a crash would leave two keys of a kind of which nobody says which one signs
    for name, key in zip(names, present, strict=True):
        folder.add(name, _like(key))
    coming = replace(folder, coming=tuple(names))
    coming.write()
    return coming


def _like(key: PrivateKey) -> PrivateKey:
    """A new key of the same kind; of RSA at least as long, and never shorter than keygen makes them."""
    return new_private_key(kind_of(key), max(key.key_size, BITS) if isinstance(key, RSAPrivateKey) else BITS)
