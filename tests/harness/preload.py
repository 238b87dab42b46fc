"""Small C libraries of the bench that a process is started with (LD_PRELOAD), compiled when they are first wanted."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.harness.process import find_program


def compiled(source: Path, folder: Path) -> Path:
    """The library of a C file, in a folder."""
    library = folder / source.with_suffix(".so").name
    if library.exists():
        return library
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    done = subprocess.run(
        [find_program("gcc"), *options, "-o", str(library), str(source), "-ldl", "-lpthread"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{source.name} can't be compiled: {done.stderr.strip()}")
    return library
