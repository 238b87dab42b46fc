"""Where the control socket is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from relay.config.settings import Config

ON_A_SERVER = Path("/run/slip-relay/control.sock")
"""Where it is when the spool is on a server and nothing else is said."""

_LONGEST = 107
"""Bytes that the path of a unix socket may have (sun_path, less its end mark)."""


def socket_path(config: Config) -> Path:
    """Where the control socket of a configuration is."""
    if config.control.socket is not None:
        return config.control.socket
    return config.spool.path.with_name("control.sock") if config.spool.path is not None else ON_A_SERVER


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """A name of a socket that is short enough for the kernel. Raises OSError when its folder is not there."""
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
