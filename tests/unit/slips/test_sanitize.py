"""Hostile HTML and CSS."""

from __future__ import annotations

import pytest

from relay.errors import RenderError
from relay.slips.sanitize import SafeLetter, sanitize
from relay.slips.stylesheet import clean_declarations, clean_stylesheet

HOSTILE = [
    "<script>alert(1)</script>",
    "<SCRIPT SRC=http://evil/x.js></SCRIPT>",
    "<img src=x onerror=alert(1)>",
    "<body onload=alert(1)>",
    '<a href="javascript:alert(1)">x</a>',
    '<base href="http://evil/">',
    '<link rel="stylesheet" href="http://evil/x.css">',
    '<link rel=attachment href="/etc/passwd">',
    '<meta http-equiv=refresh content="0;url=http://evil/">',
    '<iframe src="file:///etc/passwd"></iframe>',
    '<object data="file:///etc/passwd"></object>',
    '<embed src="http://evil/x.svg">',
    '<svg><image href="file:///etc/passwd"/><script>x</script></svg>',
    '<svg><style><img src="http://evil/"></style></svg>',
    "<math><mtext><table><mglyph><style><!--</style><img src=http://evil/ onerror=x>",
    "<form action=http://evil/><input name=x><button>x</button></form>",
    '<table background="http://evil/x.png"><tr><td background="http://evil/y.png">x</table>',
    '<video poster="http://evil/x.png"><source src="http://evil/x.mp4"></video>',
    '<img srcset="http://evil/x.png 2x" src=y>',
    '<noscript><p title="</noscript><img src=http://evil/ onerror=x>"></noscript>',
    '<p style="background:url(http://evil/x.png)">x</p>',
    '<p style="background:u\\72l(http://evil/x.png)">x</p>',
    "<style>@import url(http://evil/x.css); @import 'http://evil/y.css';</style>",
    "<style>p { background: url('http://evil/x.png') }</style>",
    "<style>@font-face { font-family: x; src: url(http://evil/x.woff) }</style>",
    "<style>@media print { p { list-style: url(http://evil/x.png) } }</style>",
    "<style>p::before { content: url(http://evil/x.png) }</style>",
    "<style>p::before { content: '</style><img src=http://evil/>' }</style>",
    "<style><!-- </style><script>alert(1)</script> --></style>",
    '<div style="--x: url(http://evil/); background: var(--x)">x</div>',
    '<p style="width: expression(alert(1)); behavior: url(http://evil/x.htc)">x</p>',
    "<p style=\"background-image: image-set('http://evil/x.png' 1x)\">x</p>",
    "<plaintext><script>alert(1)</script>",
    "<textarea><img src=http://evil/></textarea>",
    "<template><img src=http://evil/></template>",
]


def clean(html: str) -> SafeLetter:
    return sanitize(html, lambda reference: "slip:///1/1")


@pytest.mark.parametrize("html", HOSTILE)
def test_hostile_snippets_come_out_harmless(html: str) -> None:
    found = clean(f"<html><body><p>before</p>{html}")
    whole = f"{found.body} {found.css} {found.style}".lower().replace("&lt;", "")
    assert "before" in found.body
    for word in ("<script", "onerror=", "onload=", "javascript:", "url(", "@import", "@font-face", "file:", "href="):
        assert word not in whole
    for word in ("<link", "<base", "<meta", "<iframe", "<object", "<embed", "<svg", "<form", "<style", "srcset"):
        assert word not in whole
    assert "</style" not in found.css
    assert 'src="http' not in whole


def test_every_image_gets_a_url_of_ours() -> None:
    asked: list[str] = []

    def url_for(reference: str) -> str:
        asked.append(reference)
        return f"slip:///7/{len(asked)}"

    wild = ["cid:a.png", "b.png", "http://x/c.png", "file:///d.png", "data:image/png;base64,AA", "//x/e.png"]
    body = sanitize("".join(f'<img src="{reference}">' for reference in wild), url_for).body
    assert asked == wild
    assert body.count('src="slip:///7/') == len(wild)


def test_layout_of_mail_stays() -> None:
    html = (
        '<table width="100%" cellpadding="5" bgcolor="#eee" style="color:#333; width:50%"><tr>'
        '<td align="right" valign="top" colspan="2" nowrap class="c" id="i"><font size="4" color="red">x</font></td>'
    )
    body = clean(html).body
    for kept in ('width="100%"', 'cellpadding="5"', 'bgcolor="#eee"', 'align="right"', 'valign="top"', 'colspan="2"'):
        assert kept in body
    for kept in ("nowrap", 'class="c"', 'id="i"', 'size="4"', "color: #333; width: 50%"):
        assert kept in body


def test_surroundings_of_the_letter_are_kept() -> None:
    found = clean(
        '<html lang="nb" dir="ltr"><head><style>p { color: red }</style><title>no</title></head>'
        '<body class="c" id="i" style="font-family: arial" bgcolor="#fff" text="#111"><p>x</p></body></html>'
    )
    assert (found.lang, found.direction, found.body_class, found.body_id) == ("nb", "ltr", "c", "i")
    assert found.css == "p { color: red }"
    assert found.style == "color: #111; background-color: #fff; font-family: arial"
    assert found.body.strip() == "<p>x</p>"


def test_hebrew_and_arabic_read_from_the_right_without_being_told() -> None:
    assert clean("<p>קבלת השאלה ABC</p>").direction == "rtl"
    assert clean("<p>إيصال إعارة</p>").direction == "rtl"
    assert clean("<p>Loan קבלת receipt</p>").direction == "ltr"
    assert clean('<html dir="ltr"><p>קבלת השאלה</p>').direction == "ltr"


@pytest.mark.parametrize("name", ["colspan", "rowspan"])
def test_huge_spans_are_dropped(name: str) -> None:
    assert name not in clean(f'<table><tr><td {name}="1000000">x</table>').body


@pytest.mark.parametrize("html", ["<div>" * 5000, "<table><tr><td>" * 200, "<i>" * 60_000, "<br>" * 60_000])
def test_too_deep_or_too_many_is_refused(html: str) -> None:
    with pytest.raises(RenderError):
        clean(html)


@pytest.mark.parametrize(
    ("css", "expected"),
    [
        ("p { color: red; position: fixed }", "p { color: red }"),
        ("@media print { p { color: red } }", "@media print {\np { color: red }\n}"),
        ("@page { size: A0 }", ""),
        ("@import 'x'; p { margin: 0 }", "p { margin: 0 }"),
        ("p { float: footnote; color: red !important }", "p { color: red !important }"),
        ("Language related body { color: red } p { broken", "Language related body { color: red }"),
        ('a:not(.b) > td:nth-child(2n)[width="5"] { color: rgb(1 2 3) }', None),
        ("p { width: calc(100% - 5px) }", None),
        ("p::after { content: '<' }", 'p::after { content: "\\3c " }'),
        ("}}}} p { color: red", ""),
    ],
)
def test_style_sheets(css: str, expected: str | None) -> None:
    assert clean_stylesheet(css) == (css if expected is None else expected)


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("color: red; background: url(x)", "color: red"),
        ("COLOR: Red", "color: Red"),
        ("bookmark-label: 'x'; -weasy-hyphens: auto; position: running(x)", ""),
        ("color: red; }</style>", "color: red"),
        ("", ""),
    ],
)
def test_style_attributes(style: str, expected: str) -> None:
    assert clean_declarations(style) == expected
