"""What the rendering child gives up before it sees any mail.

Does, in this order: dies with its parent; limits itself (memory, files, no core, nothing written to disk); leaves the
network by a namespace of its own where the kernel lets it; drops root's capabilities but reading; leaves all files
but the `readable` places (`landlock`) and all system calls that a renderer does not need (`seccomp`); and refuses
the same in Python by an audit hook.
Promises: each step that the machine refuses is left out quietly and missing from what `enter` answers. The audit hook
always works; it sees Python's own calls only, the two before it see the C libraries' too.
Refuses: nothing by CPU time: a child lives for many slips, and the service kills it by the clock.
Known limits: on a kernel without Landlock, C libraries may still read what the user may read. The user stays the same:
fonts, templates and modules are read when they are needed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
import struct
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence

from relay.slips import landlock, seccomp

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_CAP_DAC_READ_SEARCH = 1 << 2
_CAPABILITY_VERSION_3 = 0x20080522
_OPEN_FILES = 64

_REFUSED_EVENTS = (
    "socket.",
    "subprocess.",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.kill",
    "os.chmod",
    "os.chown",
    "os.truncate",
    "shutil.",
    "tempfile.",
    "urllib.Request",
    "ftplib.",
    "http.client.",
    "pty.spawn",
    "webbrowser.",
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def die_with_parent(parent: int) -> None:
    """Be killed when the parent ends, even if it is killed itself."""
    with contextlib.suppress(OSError):
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we could say so
        os._exit(0)


def ignore_stop_signals() -> None:
    """Ctrl-C and systemd's SIGTERM reach the whole group; the slip under way is still to be finished."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def enter(memory: int, readable: Sequence[str]) -> tuple[str, ...]:
    """Give everything up. Answers the names of the steps that this machine allowed."""
    steps: dict[str, Callable[[], None]] = {
        "limits": lambda: _limit(memory),
        "network": _leave_network,
        "capabilities": _drop_capabilities,
        "privileges": lambda: _prctl(_PR_SET_NO_NEW_PRIVS, 1),
        "files": lambda: landlock.leave_files([*readable, *landlock.SYSTEM, *landlock.font_places()]),
        "seccomp": seccomp.refuse_system_calls,
    }
    done = []
    for name, step in steps.items():
        with contextlib.suppress(OSError, ValueError, AttributeError):
            step()
            done.append(name)
    sys.addaudithook(lambda event, args: _judge(event, args, readable))
    return (*done, "audit")


def python_folders() -> list[str]:
    """Where Python and its packages live: modules are loaded late. Not what else PYTHONPATH and the like name."""
    return sorted({os.path.realpath(folder) for folder in _python_folders()})


def _python_folders() -> Iterator[str]:
    yield from (sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values())
    yield from (path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages"))


def _limit(memory: int) -> None:
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),  # pipes are not files; what would write gets an error, as SIGXFSZ is ignored
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_AS, memory),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def _leave_network() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0 and libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def _drop_capabilities() -> None:
    """Root without root's powers. Reading stays: the checkout may belong to somebody else."""
    kept = _CAP_DAC_READ_SEARCH if os.geteuid() == 0 else 0
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    sets = struct.pack("=6I", kept, kept, 0, 0, 0, 0)  # effective, permitted, inheritable: low words, then high
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _prctl(option: int, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    values = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    values += [ctypes.c_ulong(0)] * (4 - len(values))
    if libc.prctl(ctypes.c_int(option), *values) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _judge(event: str, args: tuple[object, ...], readable: Sequence[str]) -> None:
    if event == "builtins.id":  # harmless, and nine of ten events
        return
    if event == "open":
        path, _mode, flags = args
        if isinstance(flags, int) and flags & _WRITES:
            raise PermissionError(errno.EPERM, "a rendering child writes no files")
        if isinstance(path, (str, bytes)):
            real = os.path.realpath(os.fsdecode(path))
            if not any(real == folder or real.startswith(folder + os.sep) for folder in readable):
                raise PermissionError(errno.EPERM, "a rendering child reads no such file")
    elif event.startswith(_REFUSED_EVENTS):
        raise PermissionError(errno.EPERM, "a rendering child does no such thing")
