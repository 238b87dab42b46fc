"""Letters that are too much: too deep, too long, too wide, too many, and such that cover or hide what counts."""

from __future__ import annotations

from collections.abc import Iterator

from tests.unit.slips.hostile.case import MARK, End, Hostile, fixed, held, printed, refused
from tests.unit.slips.letters import letter

_HUGE = ("1e9px", "99999999mm", "1e38em", "calc(1e9px * 1e9)", "-1e9px", "1e7%", "1e30vh")
_COVER = "background: #000; color: #fff; width: 3000px; height: 3000px"


def letters() -> list[Hostile]:
    """All of them."""
    return [*_nesting(), *_many(), *_styles(), *_lengths(), *_hiding(), *_text()]


def _nesting() -> Iterator[Hostile]:
    for tag in ("div", "table><tr><td", "b", "span", "font", "ul><li", "blockquote"):
        opened = f"<{tag}>" * (100_000 if "<" not in tag else 30_000)
        yield refused(f"100,000 nested {tag.split('>')[0]}", opened, "nested deeper than")
    yield refused("nested in custom tags", "<x-y>" * 60_000, "more than 25000 elements|nested deeper than")
    yield refused("100,000 flat elements", "<p>x</p>" * 100_000, "more than 25000 elements")
    yield refused("100,000 void elements", "<br>" * 100_000, "more than 25000 elements")
    yield held("flex boxes in flex boxes", '<div style="display:flex">x' * 40)
    yield held("grids in grids", '<div style="display:grid">x' * 40)
    yield held("inline blocks in inline blocks", '<span style="display:inline-block">x' * 90)
    yield held("floats in floats", '<div style="float:left">x' * 90)
    yield held("tables in tables", "<table><tr><td>x" * 30)
    yield printed("misnested formatting elements", "<p>" + "<b><i><u><p>" * 20 + "x")
    yield held("adoption agency", "".join(f"<a><b><i><font color={n}><p>" for n in range(18)) + "x" + "</a></b>" * 90)


def _many() -> Iterator[Hostile]:
    yield printed(
        "colspan and rowspan of a million", '<table><tr><td colspan="1000000" rowspan="65534">x</td></tr></table>'
    )
    cell = '<td colspan="100" rowspan="100">x</td>'
    yield held("spans of 100 in each cell", "<table>" + f"<tr>{cell * 40}</tr>" * 100 + "</table>")
    yield held("table of 45,000 cells", "<table>" + ("<tr>" + "<td>x" * 45) * 980 + "</table>")
    yield held("table of one row with 45,000 cells", "<table><tr>" + "<td>x" * 45_000 + "</table>")
    yield printed("col of a million", '<table><colgroup span="1000000"><col span="999999"><tr><td>x</table>')
    yield refused("page after each word", '<p style="page-break-after:always">x</p>' * 2000, "more than 50 pages")
    yield refused("elements by end tags", "</p></br>" * 100_000, "more than 25000 elements")
    yield held("lists that count far", '<ol start="2147483647"><li value="-2147483648">x</ol>' * 3000)
    yield printed(
        "roman and greek numbers", '<ol type="I" start="999999999"><li>x</ol><ol type="a" start="-99"><li>y</ol>'
    )
    yield held("200,000 attributes on a tag", "<p " + " ".join(f"a{n}=1" for n in range(200_000)) + ">x</p>")
    yield printed("attribute of 2 MB", f'<p title="{"x" * 2_000_000}" class="{"y " * 400_000}">x</p>')
    yield printed(
        "50,000 classes",
        f'<p class="{" ".join(f"c{n}" for n in range(50_000))}">x</p>',
        head="<style>.c7{color:red}</style>",
    )


def _styles() -> Iterator[Hostile]:
    def css(name: str, text: str, body: str = "<p class=a id=b>x</p>" * 50) -> Hostile:
        return held(name, body, head=f"<style>{text}</style>")

    yield css("100,000 rules", "".join(f".r{n} {{ color: red }}" for n in range(100_000)))
    yield css("many selectors on many elements", ("* " * 20 + "{ color: red }\n") * 2000, "<div><p>x</p></div>" * 2000)
    yield css("long selector", "p" + " > *" * 60_000 + " { color: red }")
    yield css("list of 60,000 selectors", ", ".join(f".s{n}" for n in range(60_000)) + " { color: red }")
    yield css(":not in :not", ":not(" * 5000 + "p" + ")" * 5000 + " { color: red }")
    yield css(":is with many", ":is(" + ",".join(["div p", "* *", "p ~ p"] * 3000) + ") " * 1 + "{ color: red }")
    yield css("siblings", "p ~ p ~ p ~ p ~ p ~ p ~ i { color: red }\n" * 1000, "<p>x</p>" * 3000)
    yield css(":has", ":has(p) :has(p) :has(p) { color: red }\n" * 500, "<div><p>x</p></div>" * 1000)
    yield css("nth-child", "p:nth-child(99999999999999999999n+1) { color: red } p:nth-child(-n + -9) { color: red }")
    yield css("blocks that nobody closes", "p { color: red; a { " * 50_000)
    yield css("brackets that nobody closes", "p { color: " + "([{" * 80_000)
    yield css("functions that nobody closes", "p { width: " + "calc(" * 50_000)
    yield css("deep calc()", "p { width: " + "calc(1px + " * 3000 + "1px" + ")" * 3000 + " }")
    yield css("wide calc()", "p { width: calc(" + " + ".join(["1px"] * 60_000) + ") }")
    yield css("min() in max()", "p { width: " + "min(1px, max(2px, " * 900 + "1px" + "))" * 900 + " }")
    yield css("@media in @media", "@media print { " * 10_000 + "p { color: red }" + "}" * 10_000)
    yield css("long content", "p::before { content: '" + "x" * 250_000 + "' }")
    yield css(
        "content on everything",
        "*::before, *::after { content: 'x' counter(page) counters(a, '.'); counter-increment: a }",
        "<div>x</div>" * 5000,
    )
    yield css("counters that nest", "div { counter-reset: a } div::before { content: counters(a, '.') }", "<div>" * 90)
    yield css(
        "a counter of 10**30",
        "p { counter-reset: a 9999999999999999999999999999999 } p::before { content: counter(a, upper-roman) }",
    )
    yield css("quotes", "p { quotes: " + "'a' 'b' " * 20_000 + " } p::before { content: open-quote }")
    yield css(
        "grid of a million",
        "div { display: grid; grid-template-columns: repeat(1000000, 1px); grid-template-rows: repeat(99999, 1px) }",
        "<div><p>x</p></div>",
    )
    yield css(
        "grid areas far away",
        "div { display: grid } p { grid-area: 99999 / 99999 / 999999 / 999999 }",
        "<div><p>x</p></div>",
    )
    yield css(
        "columns of 100,000", "div { columns: 100000; column-count: 100000; column-width: 1px }", "<div><p>x</p></div>"
    )
    yield css(
        "gradient of 20,000 stops", "p { background: linear-gradient(" + ", ".join(["red", "blue"] * 10_000) + ") }"
    )
    yield css(
        "backgrounds in many layers", "p { background: " + ", ".join(["linear-gradient(red, blue)"] * 5000) + " }"
    )
    yield css(
        "repeating gradient of a hair", "p { background: repeating-linear-gradient(red, blue 1e-9px); height: 90px }"
    )
    yield css(
        "background that repeats a hair",
        "p { background: linear-gradient(red, blue) 0 0 / 1e-3px 1e-3px; height: 90px }",
    )
    yield css(
        "long shadows and fonts",
        "p { text-shadow: " + ", ".join(["0 0 1e9px red"] * 9000) + "; font-family: " + "a," * 30_000 + "b }",
    )
    yield css(
        "font features",
        "p { font-feature-settings: "
        + ", ".join(["'smcp' 1"] * 20_000)
        + "; font-variation-settings: "
        + ", ".join(["'wght' 1e9"] * 9000)
        + " }",
    )
    yield css("font-size in powers", "div { font-size: 10em }", "<div>" * 90 + "x")
    yield css(
        "variables that double",
        "".join(f"p {{ --v{n + 1}: var(--v{n}) var(--v{n}) }}" for n in range(60))
        + "p { --v0: x; content: var(--v60) }",
    )
    yield css("variables in a circle", "p { --a: var(--b); --b: var(--a); color: var(--a) }")
    yield css("transitions of ::before in ::before", "p::before::before::before::after { content: 'x' }" * 2000)
    yield css("a sheet of 4 MB of comments", "/*" + "*" * 3_900_000 + "*/")
    yield css("a sheet of 3 MB of backslashes", "p { color: " + "\\" * 3_000_000 + " }")
    yield css("at-rules without end", "@" * 200_000)
    yield css(
        "tab-size and spacing",
        "pre { tab-size: 99999999; letter-spacing: 1e9px; word-spacing: 1e9px }",
        "<pre>a\tb c\td</pre>",
    )
    yield css("hyphens and widows", "p { hyphens: auto; widows: 999999; orphans: 999999; text-indent: 1e9px }")
    yield held("40,000 style attributes", "".join(f'<b style="color:#{n:06x};top:{n}px">x</b>' for n in range(40_000)))


def _lengths() -> Iterator[Hostile]:
    for name in (
        "height",
        "width",
        "padding",
        "margin",
        "border-width",
        "font-size",
        "line-height",
        "top",
        "min-height",
        "min-width",
        "outline-width",
        "text-indent",
        "letter-spacing",
        "border-spacing",
        "border-radius",
    ):
        extra = (
            "border-style: solid; outline-style: solid; position: relative;"
            if name in ("top", "border-width", "outline-width")
            else ""
        )
        body = "".join(f'<div style="{extra}{name}: {value}">x</div>' for value in _HUGE)
        yield held(f"huge {name}", body)
    yield held("canvas of 10,000,000 px", '<div style="height:10000000px;background:red">x</div>')
    yield held(
        "canvas by attributes",
        '<table width="99999" height="99999" border="99999" cellpadding="99999"><tr><td height="99999">x</table>',
    )
    yield held("a line of 99999", '<hr size="99999" width="99999%"><font size="+999999999">x</font>')
    yield held("a picture of 1e9 px", '<img src="x" style="width:1e9px;height:1e9px" width="99999" height="99999">')
    yield held(
        "a transform of 1e9",
        '<p style="transform: scale(1e9) translate(1e9px) rotate(1e30deg) matrix(1e9,1e9,1e9,1e9,1e9,1e9)">x</p>',
    )
    yield held(
        "a zoom of nothing",
        '<p style="transform: scale(0)">x</p><p style="font-size: 0">y</p><p style="font-size:1e-30px">z</p>',
    )
    yield held(
        "not numbers",
        '<p style="width: calc(1px / 0); height: calc(infinity * 1px); top: NaN; margin: calc(0px / 0)">x</p>',
    )


def _hiding() -> Iterator[Hostile]:
    yield printed("covers the page", f'<div style="position:absolute;top:0;left:0;z-index:2147483647;{_COVER}"></div>')
    yield printed("covers by a negative margin", f'<div style="margin: -3000px;{_COVER}"></div>')
    yield printed("covers by a transform", f'<div style="transform: translate(-900px,-900px) scale(9);{_COVER}"></div>')
    yield printed("fixed to each page", f'<div style="position:fixed;top:0;left:0;{_COVER}"></div>')
    yield printed(
        "running element",
        '<div style="position: running(x)">x</div>',
        head="<style>@page { @top-left { content: element(x) } }</style>",
    )
    yield printed(
        "takes the page's margins",
        "x",
        head="<style>@page { margin: 0; size: 1px 1px } @page :first { size: 90m 90m }</style>",
    )
    yield printed(
        "pages by name",
        '<p style="page: x">x</p>',
        head="<style>@page x { size: 9m 9m landscape; marks: crop; bleed: 9m }</style>",
    )
    yield printed(
        "footnotes",
        '<span style="float: footnote">x</span>' * 300,
        head="<style>@page { @footnote { max-height: 9m } }</style>",
    )
    yield printed(
        "hides the rest of the page",
        "x",
        head="<style>html, body { display: block; height: 1px; overflow: hidden; clip: rect(0 0 0 0) }</style>",
    )
    yield printed(
        "filter and blend of everything",
        "x",
        head="<style>* { mix-blend-mode: difference; filter: invert(1); isolation: isolate }</style>",
    )
    everything_away = (
        "display: none",
        "visibility: hidden",
        "opacity: 0",
        "position: absolute; left: -9999px",
        "font-size: 0",
        "color: #fff",
        "transform: scale(0)",
        "overflow: hidden; height: 0",
    )
    for style in everything_away:
        body = f'<html><body style="{style}"><div style="{style}">{MARK}</div></body></html>'
        yield fixed(f"all hidden by {style}", letter(body), End.HELD)


def _text() -> Iterator[Hostile]:
    yield held("one word of 1 MB", "x" * 1_000_000)
    yield held("one line of 1 MB that may not break", f"<pre>{'x ' * 500_000}</pre>")
    yield held("1 MB of soft hyphens", "x\u00ad" * 300_000)
    yield printed("10,000 combining characters", "x" + "\u0301\u0336\u20dd" * 3400)
    yield printed("zalgo in each letter", "".join(c + "\u0300\u0315\u0334" * 30 for c in "a title of the north " * 20))
    yield printed("bidi controls", "\u202e\u2066\u2067\u202b\u202d" * 5000 + "x" + "\u202c\u2069" * 5000)
    yield printed("bdo in bdo", "<bdo dir=rtl>" * 45 + "x")
    yield printed("zero widths", "\u200b\u200d\ufeff\u2060" * 20_000 + "x")
    yield printed("emoji of families", "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 500)
    yield printed("all planes", "".join(chr(c) for c in range(0x20, 0x2_FFFF, 97) if not 0xD800 <= c < 0xE000))
    yield printed(
        "characters that are none",
        "".join(chr(c) for c in [*range(1, 32), 0x7F, *range(0x80, 0xA0), 0xFFFE, 0xFFFF, 0x10FFFF, 0xFDD0]),
    )
    yield printed(
        "numeric entities", "&#0;&#x0;&#xD800;&#xDFFF;&#x110000;&#99999999999;&#x80;&#-1;&#x" + "0" * 50_000 + "41;"
    )
    yield held("entities in entities", "&amp;" * 200_000 + "&lt;script&gt;&amp;#60;b&amp;#62;" * 900)
    yield printed("Arabic ligatures and Jawi", "\ufdfd" * 2000 + "\u0640" * 3000)
    yield printed(
        "templates of ours",
        "{{ 7 * 7 }} {% for x in range(10**9) %}x{% endfor %} {{ config }} {{ ''.__class__.__mro__ }} ${7*7} <%= 7 %>",
    )
    yield Hostile(
        "templates of ours in attributes",
        lambda trap: letter(
            f'<html lang="{{{{ 7*7 }}}}" dir="{{{{ x }}}}"><body id="{{% raise %}}" class="{{{{ page }}}}" style="color: {{{{ x }}}}">'
            f"<p>{MARK}</p></body></html>"
        ),
    )
