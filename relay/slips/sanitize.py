"""Untrusted letter HTML becomes safe HTML.

Does: notes what surrounds the letter (`<style>`, the attributes of html and body, the direction of its script) in one
pass over the tags; lets nh3 keep what is on TAGS and ATTRIBUTES; cleans style attributes; gives every image a URL of
the `Album`.
Promises: the body that comes out has no script, no handler, no form, no link that loads, and no `src` that is not ours.
Refuses: a letter with more than MAX_TAGS tags, or nested deeper than MAX_DEPTH (RenderError).
Known limits: a table is printed as it is found, however odd; spans over 100 columns or rows are taken as one.

The pass over the tags decides nothing about safety: nh3 reads the original and drops `<style>` itself. (With `style`
allowed and properties filtered, nh3 raises a PanicException, which is not an Exception.)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser

import nh3

from relay.errors import RenderError
from relay.slips.stylesheet import clean_declarations, clean_stylesheet

MAX_TAGS = 25_000
MAX_DEPTH = 100
MAX_TAIL = 10_000

TAGS = frozenset(
    """a abbr address article aside b bdi bdo big blockquote br caption center cite code col colgroup dd del dfn div dl
    dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd li main mark nav nobr ol p pre q s
    samp section small span strike strong sub sup table tbody td tfoot th thead tr tt u ul var wbr""".split()  # noqa: SIM905 - so many words read better without quotes
)
EMPTIED = frozenset(
    """applet audio canvas embed iframe math noembed noframes object script select style svg template textarea title
    video""".split()  # noqa: SIM905 - so many words read better without quotes
)
ATTRIBUTES = {
    "*": {"align", "class", "dir", "id", "lang", "style", "title", "valign"},
    "col": {"span", "width"},
    "colgroup": {"span", "width"},
    "font": {"color", "face", "size"},
    "hr": {"color", "noshade", "size", "width"},
    "img": {"alt", "border", "height", "hspace", "src", "vspace", "width"},
    "li": {"type", "value"},
    "ol": {"start", "type"},
    "table": {"bgcolor", "border", "cellpadding", "cellspacing", "frame", "height", "rules", "width"},
    "tbody": {"bgcolor"},
    "td": {"bgcolor", "colspan", "height", "nowrap", "rowspan", "width"},
    "tfoot": {"bgcolor"},
    "th": {"bgcolor", "colspan", "height", "nowrap", "rowspan", "width"},
    "thead": {"bgcolor"},
    "tr": {"bgcolor", "height"},
    "ul": {"type"},
}
# Only so that nh3 hands every src to us; none of these is ever opened.
_SCHEMES = {"cid", "data", "file", "ftp", "http", "https"}
_UNNESTED = frozenset(
    "area base br col embed hr img input link meta param source track wbr p li dt dd td th tr".split()  # noqa: SIM905
)
_LENGTH = re.compile(r"\s*\d{1,5}(?:\.\d{1,4})?\s*(?:%|px)?\s*", re.IGNORECASE)
_LONG_TEXT = re.compile(r"<[^>]*>|[^<]{1000,}")
_PIECE = re.compile(r"(?>&[^;\s]{1,12};|[\s\S]){1,400}(?:(?>&[^;\s]{1,12};|[\s\S]){0,100}?(?=\s)|)")
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8}){0,3}")
_RTL = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]")
_LTR = re.compile("[A-Za-z\u00c0-\u02af\u0370-\u058f\u0e00-\u0fff\u3040-\u9fff\uac00-\ud7af]")


@dataclass(frozen=True, slots=True)
class SafeLetter:
    """A letter that may be laid out: `body` is HTML, `css` the text of a `<style>`, the rest attributes of its body."""

    body: str
    css: str
    style: str = ""
    body_id: str = ""
    body_class: str = ""
    lang: str = ""
    direction: str = "ltr"
    says_direction: bool = False
    "Whether the letter itself names its direction, so that its author minded it."


def sanitize(html: str, url_for: Callable[[str], str]) -> SafeLetter:
    """The safe letter in this HTML; `url_for` answers an image reference with a URL of ours."""
    surroundings = _Surroundings()
    surroundings.feed(html)
    if len(surroundings.rawdata) <= MAX_TAIL:  # what was opened and not closed; html.parser takes its square in time
        surroundings.close()
    body = surroundings.attributes.get("body", {})
    root = surroundings.attributes.get("html", {})
    styles: dict[str, str] = {}  # the same few styles stand on hundreds of cells

    def filtered(tag: str, name: str, value: str) -> str | None:
        if name == "style":
            if value not in styles:
                styles[value] = clean_declarations(value)
            return styles[value] or None
        if name == "src":
            return url_for(value)
        return value if _is_sane(name, value) else None

    lang = body.get("lang") or root.get("lang") or ""
    declared = (body.get("dir") or root.get("dir") or "").strip().lower()
    clean = nh3.clean(
        html,
        tags=TAGS,
        clean_content_tags=EMPTIED,
        attributes=ATTRIBUTES,
        attribute_filter=filtered,
        url_schemes=_SCHEMES,
        link_rel=None,
    )
    if clean.count("<") > 2 * MAX_TAGS:  # HTML has ways to make elements without a tag: a stray </p> is one
        raise RenderError(f"the letter has more than {MAX_TAGS} elements")
    return SafeLetter(
        body=_breakable(clean),
        css="\n".join(clean_stylesheet(css) for css in surroundings.styles),
        style=clean_declarations(_body_style(body)),
        body_id=body.get("id", ""),
        body_class=body.get("class", ""),
        lang=lang if _LANGUAGE.fullmatch(lang) else "",
        direction=_direction(declared, surroundings.text),
        says_direction=declared in ("ltr", "rtl"),
    )


def _breakable(body: str) -> str:
    """With a place to break (`<wbr>`) in long texts, at a space where there is one.

    For each line WeasyPrint may lay out the rest of the text up to the next tag: without this, a word of 100 KB takes
    minutes.
    """

    def broken(found: re.Match[str]) -> str:
        return found[0] if found[0][0] == "<" else "<wbr>".join(_PIECE.findall(found[0]))

    return _LONG_TEXT.sub(broken, body)


def _is_sane(name: str, value: str) -> bool:
    if name in ("colspan", "rowspan", "span"):  # a million columns are a way to fill the memory
        return value.strip().isdecimal() and int(value.strip()[:5]) <= 100
    if name in ("width", "height", "size", "border", "cellpadding", "cellspacing", "hspace", "vspace"):
        return value == "" or _LENGTH.fullmatch(value) is not None or name == "size"
    return True


def _body_style(body: dict[str, str]) -> str:
    # `text=` and `bgcolor=` of body are old HTML for the same; the style attribute comes last and wins.
    hints = [f"color: {body['text']}"] if body.get("text") else []
    hints += [f"background-color: {body['bgcolor']}"] if body.get("bgcolor") else []
    return "; ".join([*hints, body.get("style", "")])


def _direction(declared: str, text: str) -> str:
    """Alma's default templates never say `dir=rtl`, so the script decides when nobody else does."""
    if declared in ("ltr", "rtl"):
        return declared
    return "rtl" if len(_RTL.findall(text)) > len(_LTR.findall(text)) else "ltr"


class _Surroundings(HTMLParser):
    """What stands around the letter's body, and how large and deep the letter is."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.styles: list[str] = []
        self.attributes: dict[str, dict[str, str]] = {}
        self._text: list[str] = []
        self._inside: str | None = None
        self._tags = 0
        self._depth = 0

    @property
    def text(self) -> str:
        """The visible text, for finding its script."""
        return "".join(self._text)[:20_000]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tags += 1
        if tag not in _UNNESTED:
            self._depth += 1
        if self._tags > MAX_TAGS:
            raise RenderError(f"the letter has more than {MAX_TAGS} elements")
        if self._depth > MAX_DEPTH:
            raise RenderError(f"the elements of the letter are nested deeper than {MAX_DEPTH}")
        if tag in ("html", "body") and tag not in self.attributes:
            self.attributes[tag] = {name: value or "" for name, value in attrs}
        if tag in EMPTIED:
            self._inside = tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in ("style", "script", "html", "body"):
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _UNNESTED:
            self._depth = max(0, self._depth - 1)
        if tag == self._inside:
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.styles.append(data)
        elif self._inside is None:
            self._text.append(data)
