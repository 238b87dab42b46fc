"""What a renderer does with hostile pages when nobody has cleaned them before: WeasyPrint and PlutoPrint alone.

    python -m bench.hostile

Each page goes to a process of its own that may use 1 GiB and 20 s of the processor, with a fetcher that answers
nothing; the page then tries to reach a server on 127.0.0.1 and a file. Nothing of slip-relay stands between: no
sanitiser, no sandbox. In slip-relay both stand there; this shows what is left to them. Also says what the plain
libraries fetch by themselves.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import resource
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

MEMORY = 1024 * 1024 * 1024
LONGEST = 20
"""Seconds of the processor, the start of Python included; twenty times as long by the clock."""

MARK = "Zebrafinch"
"""Stands in the file that pages try to read, and in a script; on the PDF it would be seen."""


def pages(server: str, file: str) -> dict[str, str]:
    """The pages by name."""
    loads = "".join(
        f"<img src={url}><link rel=stylesheet href={url}><iframe src={url}></iframe><object data={url}></object>"
        f"<embed src={url}><video poster={url}></video><input type=image src={url}><link rel=attachment href={url}>"
        f"<svg><image href={url} /><use href={url}#a /></svg><script src={url}></script><body background={url}>"
        f"<style>@import url({url}); @font-face {{ font-family: f; src: url({url}) }} p {{ font-family: f;"
        f" background: url({url}); list-style: url({url}); border-image: url({url}); content: url({url}) }}</style><p>x"
        for url in (server, file)
    )
    return {
        "loads from everywhere": loads,
        "script": f"<p id=a>calm</p><script>document.getElementById('a').textContent = '{MARK}'</script>",
        "2,000 nested": "<div>" * 2_000 + "x",
        "100,000 nested": "<div>" * 100_000 + "x",
        "500 nested tables": "<table><tr><td>" * 500 + "x",
        "table of 20,000 rows": "<table>" + "<tr><td>a<td>b<td>c" * 20_000,
        "a cell over 100,000 columns": "<table><tr><td colspan=100000>a<td rowspan=60000>b",
        "a word of 1,000,000 letters": "<p>" + "w" * 1_000_000,
        "100,000 rules": "<style>" + "".join(f".c{n} > p {{ color: red }}" for n in range(100_000)) + "</style><p>x",
        "variables that double 40 times": "<style>p { --v0: xy; "
        + "".join(f"--v{n + 1}: var(--v{n}) var(--v{n}); " for n in range(40))
        + "content: var(--v40) }</style><p>x",
        "a page of 10 km": "<style>@page { size: 10000000mm 10000000mm }</style><p>x",
        "a margin of 10 km": "<p style='margin-top: 10000000mm'>x",
        "40,000 pages": "<style>p { break-after: page }</style>" + "<p>x" * 40_000,
        "a font of 1,000,000 px": "<p style='font-size: 1000000px'>x",
        "a floating maze": "<div style='float: left; width: 1px'>x</div>" * 20_000,
        "a picture that says 60,000 x 60,000": "<img src='data:image/png;base64,"
        "iVBORw0KGgoAAAANSUhEUgAA6mAAAOpgCAYAAADAnVYkAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='>",
    }


class Server:
    """Counts who comes."""

    def __init__(self) -> None:
        self.visits = 0

    async def start(self) -> str:
        """Its URL."""
        self._server = await asyncio.start_server(self._visit, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/x"

    async def _visit(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        writer.write(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        writer.close()


async def attempt(engine: str, page: str, *, guarded: bool = True) -> tuple[str, bytes]:
    """How it ended, and the PDF if there is one."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.hostile", "render", engine, "guarded" if guarded else "plain"),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(page.encode()), 20 * LONGEST)
    except TimeoutError:
        process.kill()
        await process.wait()
        return f"over {20 * LONGEST} s by the clock", b""
    code = process.returncode or 0
    if code == -signal.SIGXCPU:
        return f"over {LONGEST} s", b""
    if code:
        return f"dies ({signal.Signals(-code).name})" if code < 0 else "exception", b""
    lines, _, pdf = output.partition(b"\n")
    return lines.decode(), pdf


def render(engine: str, guarded: bool) -> None:
    """The child: a page from standard input; peak memory and PDF to standard output. Exit code 3: an exception."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (LONGEST, LONGEST + 5))
    logging.disable(logging.CRITICAL)
    page = sys.stdin.read()
    try:
        if engine == "weasyprint":
            from weasyprint import HTML

            from relay.slips.layout import PictureFetcher

            pdf = HTML(string=page, url_fetcher=PictureFetcher() if guarded else None).write_pdf()
        else:
            import io

            import plutoprint

            from bench.pluto import PictureFetcher as Fetcher

            book, target = plutoprint.Book(), io.BytesIO()
            if guarded:
                book.custom_resource_fetcher = Fetcher()
            book.load_html(page)
            book.write_to_pdf_stream(target)
            pdf = target.getvalue()
    except BaseException:
        os._exit(3)
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime
    # Not ru_maxrss, which begins with what the parent had when it started us.
    peak = int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) // 1024
    sys.stdout.buffer.write(f"{seconds:.1f} s, {peak} MB\n".encode() + pdf)


def _seen(pdf: bytes) -> bool:
    import pypdfium2

    return any(MARK in page.get_textpage().get_text_range() for page in pypdfium2.PdfDocument(pdf)) if pdf else False


async def compare() -> None:
    """All pages with both; prints a line for each."""
    server = Server()
    url = await server.start()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "secret.html"
        file.write_text(f"<p>{MARK}</p>")
        print(f"{'':40}{'weasyprint':>24}{'plutoprint':>24}")
        for guarded in (True, False):
            for name, page in pages(url, file.as_uri()).items():
                if not guarded and name != "loads from everywhere":
                    continue
                cells = []
                for engine in ("weasyprint", "plutoprint"):
                    server.visits = 0
                    text, pdf = await attempt(engine, page, guarded=guarded)
                    text += f", {server.visits} visits" if server.visits else ""
                    cells.append(text + (", SEEN" if _seen(pdf) else ""))
                print(f"{name + ('' if guarded else ', no fetcher'):40}" + "".join(f"{cell:>24}" for cell in cells))


if __name__ == "__main__":
    if sys.argv[1:2] == ["render"]:
        render(sys.argv[2], sys.argv[3] == "guarded")
    else:
        asyncio.run(compare())
