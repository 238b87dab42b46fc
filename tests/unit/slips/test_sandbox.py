"""What a rendering child can't do any more. Tried in processes of their own: nobody comes back from a sandbox."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_TRY = """
import ctypes, json, os, resource, signal, socket, subprocess, sys, threading, urllib.request
from relay.slips import sandbox
readable = [*sandbox.python_folders(), {folder!r}]
steps = sandbox.enter({memory}, readable)
libc = ctypes.CDLL(None, use_errno=True)

def attempt(what):
    try:
        return what()
    except BaseException as error:
        return type(error).__name__

found = dict(
    steps=steps,
    socket=attempt(lambda: str(socket.socket())),
    resolve=attempt(lambda: socket.getaddrinfo("localhost", 80)),
    urlopen=attempt(lambda: str(urllib.request.urlopen("http://127.0.0.1/"))),
    program=attempt(lambda: subprocess.run(["true"]).returncode),
    system=attempt(lambda: os.system("true")),
    passwd=attempt(lambda: open("/etc/passwd").read()),
    traversal=attempt(lambda: open({folder!r} + "/../secret").read()),
    write=attempt(lambda: str(open({folder!r} + "/x", "w"))),
    allowed=attempt(lambda: open({folder!r} + "/page").read()),
    module=attempt(lambda: __import__("wave").__name__),
    c_socket=libc.socket(2, 1, 0),
    c_passwd=libc.open(b"/etc/passwd", 0),
    c_secret=libc.open({folder!r}.encode() + b"/../secret", 0),
    c_allowed=libc.open({folder!r}.encode() + b"/page", 0) > 0,
    c_write=libc.open({folder!r}.encode() + b"/page", os.O_WRONLY),
    c_create=libc.open({folder!r}.encode() + b"/new", os.O_CREAT | os.O_RDONLY, 0o600),
    c_unlink=libc.unlink({folder!r}.encode() + b"/page"),
    c_rename=libc.rename({folder!r}.encode() + b"/page", {folder!r}.encode() + b"/other"),
    c_kill=libc.kill(os.getppid(), 0),
    c_fork=libc.fork(),
    c_limit=libc.prlimit(os.getppid(), resource.RLIMIT_NOFILE, None, ctypes.create_string_buffer(16)),
    thread=attempt(lambda: [(t := threading.Thread(target=list)).start(), t.join()][1]),
    c_exec=libc.execv(b"/bin/true", (ctypes.c_char_p * 2)(b"true", None)),
    memory=attempt(lambda: len(bytearray(2 * {memory}))),
)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("sandbox") / "readable"
    folder.mkdir()
    (folder / "page").write_text("page")
    (folder.parent / "secret").write_text("secret")
    code = _TRY.format(folder=str(folder.resolve()), memory=512 * 2**20)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


@pytest.mark.parametrize("what", ["socket", "resolve", "urlopen", "program", "system", "passwd", "traversal", "write"])
def test_python_is_refused(found: dict[str, object], what: str) -> None:
    assert found[what] in ("PermissionError", "URLError")


def test_what_it_needs_still_works(found: dict[str, object]) -> None:
    assert (found["allowed"], found["module"]) == ("page", "wave")


def test_memory_ends(found: dict[str, object]) -> None:
    assert found["memory"] == "MemoryError"


def test_c_libraries_are_refused_too(found: dict[str, object]) -> None:
    if "seccomp" not in str(found["steps"]):
        pytest.skip("this machine has no seccomp filters")
    assert (found["c_socket"], found["c_exec"]) == (-1, -1)


CALLS = ("write", "create", "unlink", "rename", "kill", "fork", "limit")


@pytest.mark.parametrize("what", CALLS)
def test_c_libraries_change_nothing_and_reach_nobody(found: dict[str, object], what: str) -> None:
    if "seccomp" not in str(found["steps"]):
        pytest.skip("this machine has no seccomp filters")
    assert found[f"c_{what}"] == -1
    assert found["thread"] is None, "threads still work"


def test_c_libraries_read_only_what_they_may(found: dict[str, object]) -> None:
    if "files" not in str(found["steps"]):
        pytest.skip("this machine has no Landlock")
    assert (found["c_passwd"], found["c_secret"], found["c_allowed"]) == (-1, -1, True)


def test_child_dies_with_its_parent(tmp_path: Path) -> None:
    code = "from relay.slips import sandbox; sandbox.die_with_parent(1_000_000_000); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
