"""What the rendering child gives up before it sees any mail.

Does, in this order: dies with its parent; limits itself (memory, files, no core, nothing written to disk); leaves the
network by a namespace of its own where the kernel lets it; drops root's capabilities but reading; forbids itself, by a
seccomp filter, sockets and new programs; and refuses the same, and opening files outside the `readable` folders, in
Python by an audit hook.
Promises: each step that the machine refuses is left out quietly and missing from what `enter` answers. The audit hook
always works; it sees Python's own calls only, seccomp sees the C libraries' too.
Refuses: nothing by CPU time: a child lives for many slips, and the service kills it by the clock.
Known limits: C libraries (fontconfig, Pango) may still read what the user may read; the seccomp filter knows x86-64
and 64-bit ARM. The user stays the same: fonts, templates and modules are read when they are needed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Callable, Sequence

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_CAP_DAC_READ_SEARCH = 1 << 2
_CAPABILITY_VERSION_3 = 0x20080522
_OPEN_FILES = 64

# AUDIT_ARCH of <linux/audit.h>, then: socket, socketpair, execve, execveat, ptrace, io_uring_setup
_SYSCALLS = {
    "x86_64": (0xC000003E, (41, 53, 59, 322, 101, 425)),
    "aarch64": (0xC00000B7, (198, 199, 221, 281, 117, 425)),
}
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
    """Give everything up. Answers the names of the steps that this machine allowed.

    `readable` is looked at on each opening, so its owner may add a folder later.
    """
    steps: dict[str, Callable[[], None]] = {
        "limits": lambda: _limit(memory),
        "network": _leave_network,
        "capabilities": _drop_capabilities,
        "privileges": lambda: _prctl(_PR_SET_NO_NEW_PRIVS, 1),
        "seccomp": _filter_syscalls,
    }
    done = []
    for name, step in steps.items():
        with contextlib.suppress(OSError, ValueError, AttributeError):
            step()
            done.append(name)
    sys.addaudithook(lambda event, args: _judge(event, args, readable))
    return (*done, "audit")


def python_folders() -> list[str]:
    """Where Python and its packages live: modules are loaded late."""
    folders = {sys.prefix, sys.base_prefix, sys.exec_prefix, *(path for path in sys.path if path)}
    return sorted(os.path.realpath(folder) for folder in folders)


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


def _filter_syscalls() -> None:
    """A seccomp filter (classic BPF, see seccomp(2)): EPERM for the calls above, and for other architectures'."""
    arch, refused = _SYSCALLS.get(platform.machine(), (0, ()))
    if not refused:
        raise OSError(errno.ENOSYS, "no filter for this machine")
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    deny, allow = 0x00050000 | errno.EPERM, 0x7FFF0000
    count = len(refused)
    # Jumps count the instructions to skip; `deny` is the last one. Offset 4 is the architecture, 0 the call's number,
    # and numbers from 0x40000000 are the x32 calls of x86-64.
    program = [(load, 0, 0, 4), (equal, 0, count + 3, arch), (load, 0, 0, 0), (at_least, count + 1, 0, 0x40000000)]
    program += [(equal, count - index, 0, number) for index, number in enumerate(refused)]
    program += [(answer, 0, 0, allow), (answer, 0, 0, deny)]
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(Program(len(program), ctypes.addressof(buffer))))


def _prctl(option: int, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    values = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    values += [ctypes.c_ulong(0)] * (4 - len(values))
    if libc.prctl(ctypes.c_int(option), *values) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _judge(event: str, args: tuple[object, ...], readable: Sequence[str]) -> None:
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
