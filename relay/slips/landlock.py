"""Which files a rendering child may still read: a Landlock domain (see landlock(7), Linux 5.13 and later).

Does: leaves the process, its C libraries included, nothing but reading below the given places; where the kernel is new
enough (6.7, 6.12), also takes TCP, and signals and abstract sockets to anybody outside.
Promises: files that were open before stay open; what is not there is left out.
Known limits: can't be widened afterwards. Metadata (`stat`) of other files can still be seen.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable, Iterator

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on all machines
_VERSION_ONLY = 1
_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_RIGHTS_SINCE = {1: 13, 2: 14, 3: 15, 5: 16}  # ABI version: how many rights on files it knows
_TCP, _SCOPES = 0b11, 0b11
_TCP_SINCE, _SCOPES_SINCE = 4, 6

SYSTEM = (
    "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib", "/usr/share", "/usr/local/share", "/etc/fonts",
    "/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom",
)  # fmt: skip
"""What libraries read: themselves, fonts and their configuration, tables of scripts, time zones."""


def leave_files(readable: Iterable[str]) -> None:
    """From now on read only below these places. Raises OSError where the kernel has no Landlock."""
    version = _call(_CREATE_RULESET, None, 0, _VERSION_ONLY)
    rights = (1 << max(count for since, count in _RIGHTS_SINCE.items() if since <= version)) - 1
    attributes = struct.pack("=Q", rights)
    attributes += struct.pack("=Q", _TCP) if version >= _TCP_SINCE else b""
    attributes += struct.pack("=Q", _SCOPES) if version >= _SCOPES_SINCE else b""
    rules = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for place in dict.fromkeys(readable):
            _allow(rules, place)
        _call(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def font_places() -> Iterator[str]:
    """Where fontconfig finds fonts, its configuration and its caches on this machine."""
    library = ctypes.CDLL("libfontconfig.so.1")
    library.FcStrListNext.restype = ctypes.c_char_p
    for name in ("FcConfigGetFontDirs", "FcConfigGetConfigFiles", "FcConfigGetCacheDirs"):
        ask = getattr(library, name)
        ask.restype = ctypes.c_void_p
        listed = ctypes.c_void_p(ask(None))
        while (place := library.FcStrListNext(listed)) is not None:
            yield os.fsdecode(place)
        library.FcStrListDone(listed)


def _allow(rules: int, place: str) -> None:
    try:
        opened = os.open(place, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        is_folder = stat.S_ISDIR(os.fstat(opened).st_mode)
        right = _READ_FILE | _READ_DIR if is_folder else _READ_FILE
        _call(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", right, opened), 0)
    finally:
        os.close(opened)


def _call(number: int, *arguments: bytes | int | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    answer = int(libc.syscall(ctypes.c_long(number), *values))
    if answer < 0:
        raise OSError(ctypes.get_errno(), "landlock")
    return answer
