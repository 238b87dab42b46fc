"""What is installed is whole: the templates and the migrations travel in the wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_has_templates_and_migrations(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (wheel,) = tmp_path.glob("slip_relay-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for template in (ROOT / "templates").rglob("*.*"):
        assert f"relay/templates/{template.relative_to(ROOT / 'templates')}" in names
    for module in (ROOT / "relay").rglob("*.py"):
        assert str(module.relative_to(ROOT)) in names
    assert not any(name.startswith(("tests/", "bench/")) for name in names)
