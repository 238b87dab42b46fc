"""Which system calls a rendering child may still make: a seccomp filter (classic BPF, see seccomp(2)).

Does: refuses, for the whole process and its C libraries, what a renderer never needs and an attacker would: sockets,
new programs and processes, writing and changing files, signals to others, other processes' memory, mounts, kernel
interfaces. Calls whose arguments lie in memory, where a filter can't see them, are said not to exist, so that glibc
takes the older ones.
Promises: what is refused answers EPERM and harms nothing else; threads still work; so does reading.
Known limits: knows x86-64 and 64-bit ARM. What was open before stays open. Reading is `landlock`'s matter.

Numbers: <asm/unistd_64.h> of x86-64 and <asm-generic/unistd.h>, which 64-bit ARM uses; None where there is no such
call. A test compares them with the headers.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _ANSWER = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF: ld, jeq, jge, jset, ret
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_X32 = 0x40000000
_CLONE_THREAD = 0x10000
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column below, AUDIT_ARCH of <linux/audit.h>

REFUSED: dict[str, tuple[int | None, int | None]] = {
    # the network, and talking to others on this machine
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242), "sendto": (44, 206), "sendmsg": (46, 211), "sendmmsg": (307, 269),
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180), "mq_unlink": (241, 181),
    # programs, processes, signals, other processes' memory and limits
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None), "kill": (62, 129),
    "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440), "kcmp": (312, 272),
    "setpriority": (141, 140), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118), "sched_setattr": (314, 274), "ioprio_set": (251, 30),
    # files: nothing is made, changed or taken away
    "creat": (85, None), "truncate": (76, 45), "ftruncate": (77, 46), "fallocate": (285, 47),
    "unlink": (87, None), "unlinkat": (263, 35), "rmdir": (84, None), "mkdir": (83, None), "mkdirat": (258, 34),
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "link": (86, None), "linkat": (265, 37),
    "symlink": (88, None), "symlinkat": (266, 36), "mknod": (133, None), "mknodat": (259, 33),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "memfd_create": (319, 279), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "flock": (73, 32),
    # places and kernel interfaces
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsmount": (432, 432),
    "mount_setattr": (442, 442), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_setup": (206, 0), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "fanotify_init": (300, 262), "kexec_load": (246, 104), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142), "swapon": (167, 224),
    "quotactl": (179, 60), "acct": (163, 89), "syslog": (103, 116), "personality": (135, 92),
}  # fmt: skip
MISSING: dict[str, tuple[int | None, int | None]] = {"clone3": (435, 435), "openat2": (437, 437)}
"""Said not to exist: their arguments can't be judged."""
WRITING: dict[str, tuple[int | None, int | None]] = {"open": (2, None), "openat": (257, 56)}
"""Refused when their flags say more than reading."""
FLAGS_OF = {"open": 1, "openat": 2}
CLONE: tuple[int | None, int | None] = (56, 220)
"""Allowed for threads only."""
PRLIMIT: tuple[int | None, int | None] = (302, 261)
"""Allowed for the process itself only: 0 as process id."""

_Instruction = tuple[int, int, int, int]


def refuse_system_calls() -> None:
    """From now on, for ever. Raises OSError where the machine knows no such filter."""
    column, architecture = _MACHINES.get(platform.machine(), (0, 0))
    if not architecture:
        raise OSError(errno.ENOSYS, "no filter for this machine")
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in _program(column, architecture))
    buffer = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    program = Program(len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    rest = (ctypes.c_ulong(0), ctypes.c_ulong(0))
    if libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(program), *rest) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def _program(column: int, architecture: int) -> Iterable[_Instruction]:
    """Offset 4 is the architecture, 0 the call's number, 16 and on its arguments, eight bytes each."""
    deny, missing = _ERROR | errno.EPERM, _ERROR | errno.ENOSYS
    yield _LOAD, 0, 0, 4
    yield _EQUAL, 1, 0, architecture
    yield _ANSWER, 0, 0, deny
    yield _LOAD, 0, 0, 0
    yield _AT_LEAST, 0, 1, _X32  # the x32 calls of x86-64 begin here; nothing else has such numbers
    yield _ANSWER, 0, 0, deny
    for calls, answer in ((REFUSED, deny), (MISSING, missing)):
        for numbers in calls.values():
            if (number := numbers[column]) is not None:
                yield _EQUAL, 0, 1, number
                yield _ANSWER, 0, 0, answer
    for name, numbers in WRITING.items():
        yield from _if_argument(numbers[column], FLAGS_OF[name], (_ANY_BIT, _WRITES), deny, _ALLOW)
    yield from _if_argument(CLONE[column], 0, (_ANY_BIT, _CLONE_THREAD), _ALLOW, deny)
    yield from _if_argument(PRLIMIT[column], 0, (_EQUAL, 0), _ALLOW, deny)
    yield _ANSWER, 0, 0, _ALLOW


def _if_argument(
    number: int | None, argument: int, test: tuple[int, int], then: int, otherwise: int
) -> Iterable[_Instruction]:
    """One answer when the low half of an argument passes a test, else the other."""
    if number is None:
        return
    yield _EQUAL, 0, 4, number
    yield _LOAD, 0, 0, 16 + 8 * argument
    yield test[0], 0, 1, test[1]
    yield _ANSWER, 0, 0, then
    yield _ANSWER, 0, 0, otherwise
