"""A renderer of the comparison, as a process of its own: `python -m bench.plain weasyprint | plutoprint`.

Takes pages of HTML on its standard input and gives a PDF for each (frames as in `relay.slips.frames`). What is plain
about it: `weasyprint.HTML(string=...).write_pdf()` and `plutoprint.Book().load_html(...)`, as their documents begin,
with nothing kept from page to page and nothing kept away from the page.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable

from relay.slips import frames


def weasyprint_renderer() -> Callable[[str], bytes]:
    """WeasyPrint, as its first page of documentation has it."""
    from weasyprint import HTML  # each renderer in a process without the other

    logging.disable(logging.CRITICAL)
    return lambda html: HTML(string=html).write_pdf()


def plutoprint_renderer() -> Callable[[str], bytes]:
    """PlutoPrint, as its first page of documentation has it; `@page` in the page says the paper."""
    import plutoprint

    def render(html: str) -> bytes:
        book, target = plutoprint.Book(), io.BytesIO()
        book.load_html(html)
        book.write_to_pdf_stream(target)
        return target.getvalue()

    return render


def main() -> None:
    """Serve until standard input is closed."""
    render = {"weasyprint": weasyprint_renderer, "plutoprint": plutoprint_renderer}[sys.argv[1]]()
    while (request := frames.read(sys.stdin.buffer)) is not None:
        sys.stdout.buffer.write(frames.pack({}, render(request[1].decode())))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
