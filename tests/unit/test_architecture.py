"""The house keeps its shape: imports run one way, each library has one home, no module grows into a second job."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]

HOMES = {
    "cups": ("relay.printing.",),
    "weasyprint": ("relay.slips.",),
    "nh3": ("relay.slips.",),
    "tinycss2": ("relay.slips.",),
    "tinyhtml5": ("relay.slips.tree.",),
    "cssselect2": ("relay.slips.selectors.", "relay.slips.cascade."),
    "cffi": ("relay.slips.",),
    "zxingcpp": ("relay.slips.symbols.",),
    "pypdfium2": ("relay.slips.",),
    "dkim": ("relay.outgoing.sign",),
    "aiohttp": ("relay.dns.sts_fetch", "relay.pictures.fetch", "relay.printing.device"),
    "idna": ("relay.mail.address",),
    "aiosmtpd": ("relay.intake.",),
    "aiosmtplib": ("relay.transports.",),
    "sqlalchemy": ("relay.spool.",),
    "alembic": ("relay.spool.",),
    "dns": ("relay.dns.",),
    "click": ("relay.cli",),
    "rich": ("relay.cli.",),
    "prometheus_client": ("relay.metrics",),
    "pydantic": ("relay.config.",),
}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("relay", include_external_packages=True)


def test_imports_run_one_way() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("library", HOMES)
def test_each_library_has_one_home(graph: grimp.ImportGraph, library: str) -> None:
    importers = graph.find_modules_that_directly_import(library)
    assert importers, f"nobody imports {library}: is the name right?"
    assert all(f"{importer}.".startswith(HOMES[library]) for importer in importers), importers


@pytest.mark.parametrize("module", sorted((ROOT / "relay").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_opens_with_its_contract_and_has_one_job(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    assert text.startswith('"""'), "a module opens with its docstring"
    assert text.count("\n") <= 400, "a module over 400 lines has two jobs"


def test_the_folders_read_as_the_journey() -> None:
    folders = {path.name for path in (ROOT / "relay").iterdir() if path.is_dir() and path.name != "__pycache__"}
    journey = {"mail", "intake", "spool", "routing", "outgoing", "delivery", "transports", "slips", "printing", "dns"}
    journey |= {"bounces", "notices", "pictures"}
    assert folders == journey | {"config", "cli", "control"}
