"""Each wall by itself keeps out what the others should have: sanitiser, fetcher, sandbox. And that the trap works."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from weasyprint import HTML
from weasyprint.urls import URLFetcher

from relay.config.profiles import BUILT_IN_PROFILES
from relay.errors import RendererDied
from relay.slips import landlock, sandbox
from relay.slips.images import Album
from relay.slips.layout import Engine
from relay.slips.page import Page, compose, environment, slip_templates
from relay.slips.parts import read_letter
from relay.slips.pool import RenderPool
from relay.slips.sanitize import sanitize
from tests.paper.test_hostile import SETTINGS, SHORT, Listener, new_trap
from tests.unit.slips.hostile import loads
from tests.unit.slips.hostile.case import SECRET, Hostile, Trap
from tests.unit.slips.letters import letter, text_of

A4 = BUILT_IN_PROFILES[0]
LOADS = loads.letters()
WORK_ELSEWHERE = (
    "loads by img src", "loads by style sheet", "loads by link of type attachment", "loads by object", "loads by embed",
    "loads by svg image", "loads by @import", "loads by @font-face", "loads by style background-image",
    "loads by style list-style", "loads by style escaped name",
)  # fmt: skip
"""What WeasyPrint does load when nobody stops it."""


class Recorder(URLFetcher):  # type: ignore[misc]  # WeasyPrint has no types
    """Notes what is asked for, and gives nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def fetch(self, url: str, headers: object = None) -> object:
        self.asked.append(url)
        raise ValueError("nothing")


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Trap, Listener]]:
    yield from new_trap(tmp_path_factory.mktemp("trap"))


def asked_for(html: str) -> list[str]:
    recorder = Recorder()
    HTML(string=html, base_url=None, url_fetcher=recorder).write_pdf(presentational_hints=True)
    return recorder.asked


@pytest.mark.parametrize("name", WORK_ELSEWHERE)
def test_trap_would_catch_a_renderer_that_loads(name: str, trap: tuple[Trap, Listener]) -> None:
    hostile = next(each for each in LOADS if each.name == name)
    asked = [url.partition("?")[0] for url in asked_for(read_letter(hostile.build(trap[0])).html)]
    assert f"http://127.0.0.1:{trap[0].port}/a.png" in asked
    assert f"file://{trap[0].picture}" in asked


@pytest.mark.parametrize("hostile", LOADS, ids=[hostile.name for hostile in LOADS])
def test_sanitised_letter_asks_for_nothing(hostile: Hostile, trap: tuple[Trap, Listener]) -> None:
    found = read_letter(hostile.build(trap[0]))
    album = Album(found.pictures, "1")
    safe = sanitize(found.html, album.url_for)
    html = compose(environment(A4.template), A4, Page.of(A4), safe, album.stylesheet(safe.body))
    assert {url for url in asked_for(html) if not url.startswith("slip:///1/")} == set()


@pytest.mark.parametrize("name", WORK_ELSEWHERE)
def test_fetcher_gives_nothing_to_a_letter_that_was_not_sanitised(name: str, trap: tuple[Trap, Listener]) -> None:
    hostile = next(each for each in LOADS if each.name == name)
    engine = Engine()
    sheets = engine.lay_out(read_letter(hostile.build(trap[0])).html, Page.of(A4), 50)
    assert SECRET not in text_of(sheets.pdf(1.0))
    assert trap[1].calls == 0


_ALONE = """
import sys
from weasyprint import HTML
from relay.slips import sandbox
HTML(string="<p>warm").write_pdf()
sandbox.enter(2**31, sandbox.python_folders()) if sys.argv[1] == "inside" else None
sys.stdout.buffer.write(HTML(string=sys.stdin.read()).write_pdf())
"""


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_sandbox_holds_a_renderer_that_loads_everything(where: str, tmp_path: Path) -> None:
    traps = new_trap(tmp_path)
    trap, listener = next(traps)
    html = f'<img src="http://127.0.0.1:{trap.port}/x"><link rel=stylesheet href="http://127.0.0.1:{trap.port}/y">'
    html += f'<link rel=attachment href="file://{trap.secret}"><p>good</p>'
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, where], input=html.encode(), capture_output=True, check=True, timeout=60
    )
    assert text_of(done.stdout) == "good"
    has_secret = b"/EmbeddedFile" in done.stdout
    calls, listener.calls = listener.calls, 0
    assert (calls > 0, has_secret) == (where == "outside", where == "outside")
    assert list(traps) == []


def calls_inside(log: str) -> list[str]:
    """What each process called after it had put on its filter."""
    inside: dict[str, list[str]] = {}
    for line in log.splitlines():
        pid, _, call = line.partition(" ")
        if pid in inside:
            inside[pid].append(call.strip())
        elif "PR_SET_SECCOMP" in line:
            inside[pid] = []
    assert inside, "no process put on its filter"
    return [call for calls in inside.values() for call in calls]


@pytest.mark.asyncio
async def test_no_system_call_of_a_child_goes_anywhere(
    tmp_path: Path, trap: tuple[Trap, Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "calls"
    wrapper = tmp_path / "python"
    # -D leaves the child a child of ours; the filter makes strace look at these calls only.
    wrapper.write_text(
        f'#!/bin/sh\nexec strace -D -f --seccomp-bpf -qq -e trace=%network,open,openat,openat2,execve,prctl -o "{log}" '
        f'"{sys.executable}" "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(wrapper))
    pool = RenderPool(SETTINGS)
    await pool.start()
    try:
        for hostile in (
            each
            for each in SHORT
            if each.name.startswith("loads") or each.name.startswith(("markup", "PNG", "SVG", "EPS"))
        ):
            await pool.render(hostile.build(trap[0]), A4)
    finally:
        await pool.stop()
    after = calls_inside(log.read_text())
    opened = [call.split('"')[1] for call in after if call.startswith("open") and " = -1 " not in call]
    places = [
        *sandbox.python_folders(),
        str(Path(sandbox.__file__).parents[1]),
        str(slip_templates().resolve()),
        *landlock.SYSTEM,
        *landlock.font_places(),
    ]
    assert [path for path in opened if not path.startswith(tuple(places))] == []
    assert [call for call in after if not call.startswith(("open", "prctl", "+++", "---"))] == []
    assert not any(SECRET in call or str(trap[0].secret.parent) in call for call in after)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "answer",
    [
        '{"pages": NaN, "width_mm": 210, "height_mm": 297, "notes": []}',
        '{"pages": 1, "width_mm": Infinity, "height_mm": 297, "notes": []}',
        '{"pages": 1, "width_mm": NaN, "height_mm": 297, "notes": []}',
        '{"pages": 1, "width_mm": 210, "height_mm": -1e300, "notes": []}',
        '{"pages": 1e999, "width_mm": 210, "height_mm": 297, "notes": 5}',
        '{"pages": true, "width_mm": "210", "height_mm": 297, "notes": []}',
        '{"pages": 1, "width_mm": 210, "height_mm": 297, "notes": {"x": 1}}',
        "[" * 100_000,
        "nonsense",
        "{}",
    ],
)
async def test_child_that_somebody_else_owns_can_say_what_it_likes(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned = tmp_path / "owned"
    owned.write_text(
        f"#!{sys.executable}\nimport sys, struct\n"
        "def say(words):\n"
        " sys.stdout.buffer.write(struct.pack('!II', len(words), 5) + words + b'%PDF-'); sys.stdout.flush()\n"
        f"say(b'{{}}'); sys.stdin.buffer.read(1); say(b'{{}}'); say({answer.encode()!r}); sys.stdin.buffer.read()\n"
    )
    owned.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(owned))
    pool = RenderPool(SETTINGS)
    await pool.start()
    try:
        with pytest.raises(RendererDied):
            await pool.render(letter("<p>x</p>"), A4)
    finally:
        await pool.stop()
