"""Letters that want to run something, or to get out of the place that the page gives them."""

from __future__ import annotations

from collections.abc import Iterator

from tests.unit.slips.hostile.case import MARK, Hostile, fixed, page, printed
from tests.unit.slips.letters import letter

_OUT = "<img src=//127.0.0.1/x onerror=alert(1)><script>alert(1)</script><b title=x>"
SCRIPTS = {
    "script": "<script>document.write('x')</script><SCRIPT\n/x>x</SCRIPT\t><script src=data:,x></script>",
    "handlers": "<p onclick=x() onload=x() ONERROR=x() onbegin=x() on\tclick=x()>x</p><svg/onload=x()><body onpageshow=x()>",
    "javascript links": "<a href='javascript:x()'>x</a><a href='java\tscript:x()'>x</a><a href='&#106;avascript&colon;x()'>x</a>"
    "<a href='data:text/html,<script>x()</script>'>x</a><a href=vbscript:x>x</a><form action=javascript:x()>",
    "slashes for spaces": "<img/src='x'/onerror=x()><p/style='color:red'/onclick=x()>x</p>",
    "script in script": "<scr<script>ipt>x()</scr</script>ipt><<script>x()//<</script>",
    "null bytes in tags": "<scr\0ipt>x()</scr\0ipt><im\0g src='file:///etc/passwd'><p st\0yle='color: red'>x</p>",
    "server side includes": "<!--#include file='/etc/passwd'--><!--#exec cmd='id'--><?php readfile('/etc/passwd') ?><% x %>",
    "includes of other kinds": "<xi:include href='file:///etc/passwd' parse='text'/><esi:include src='http://127.0.0.1/'/>"
    "<c:import url='file:///etc/passwd'/>",
    "mutation by math and style": "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=x()&gt;'>",
    "mutation by svg and title": "<svg></p><style><a id='</style><img src=1 onerror=x()>'></svg><svg><title><b id='</title><img src=1>'>",
    "mutation by noscript": "<noscript><p title='</noscript><img src=x onerror=x()>'></noscript>",
    "mutation by form": "<form><math><mtext></form><form><mglyph><svg><mtext><style><path id='</style><img onerror=x() src>'>",
    "mutation by a nested table": "<table><tr><td><svg><desc><table><style><b title='</style><img src=x onerror=x()>'></td></tr></table>",
    "mutation by annotation-xml": "<math><annotation-xml encoding='text/html'><style><img src=x onerror=x()></style></annotation-xml></math>",
    "mutation by select": "<select><option><style></option></select><b title='</style><img src=x onerror=x()>'>",
    "mutation by xmp and plaintext": "<xmp><p title='</xmp><img src=x onerror=x()>'></xmp><listing>&lt;img src=x&gt;</listing>",
    "mutation by textarea": "<textarea><p title='</textarea><img src=x onerror=x()>'></textarea><title><p></title><img src=x>",
    "CDATA": "<![CDATA[<img src='file:///etc/passwd'>]]><svg><![CDATA[</svg><img src=x onerror=x()>]]></svg>",
    "comments with odd ends": "<!--><img src=x onerror=x()>--><!---><img src=x>--><!-- --!><img src=x><!-- <!-- --> --><!doctype x [",
    "doctypes": "<!DOCTYPE html PUBLIC '-//W3C//DTD' 'file:///etc/passwd'><!DOCTYPE x SYSTEM 'http://127.0.0.1/'>",
    "custom elements and slots": "<x-y is=z><slot name=a></slot></x-y><p is=x slot=a part=b exportparts=c>x</p><dialog open>x</dialog>",
    "microdata and forms": "<p itemprop=a itemtype=file:///x>x</p><input type=hidden name=x value=y autofocus><keygen><isindex prompt=x>",
    "PDF from attributes": "<p style='bookmark-level: 1; bookmark-label: \"x) Tj\"; anchor: attr(id); link: attr(title)' id='a)(' title='#x'>x</p>"
    "<meta name=keywords content='x) /JS (x()) /S'><meta name=author content='(\\'><title>) >> /OpenAction (</title>",
    "form fields for the PDF": "<form><input value='x' style='appearance: auto'><textarea style='appearance: auto'>x</textarea></form>",
}
BREAKOUTS = {
    "a string in CSS": f"p::before {{ content: '</style>{_OUT}' }}",
    "an escape in CSS": "p::before { content: '\\3c/style\\3e\\3cscript>' } p { color: \\3c /style> }",
    "a selector": f"p[title='</style>{_OUT}'] {{ color: red }} </style {{ }}",
    "a media query": f"@media ('</style>{_OUT}') {{ p {{ color: red }} }}",
    "comments of HTML": f"<!-- p {{ color: red }} --> </style --><!-- {_OUT} -->",
    "a font's name": f'p {{ font-family: \'</style>{_OUT}\', "x\\"; }} * {{ display: none }}" }}',
    "braces": "p { color: red } } } @page { size: 1px } * { content: 'x' } /*",
    "an open string": "p { font-family: '\n* { display: none } \\",
    "the end of the block in a value": "p { color: red\\7d * { x: } display: none\\3b }",
}


def letters() -> list[Hostile]:
    """All of them."""
    return [
        *(printed(f"markup: {name}", html) for name, html in SCRIPTS.items()),
        *(
            printed(f"breaks out by {name}", "<p title=x>x</p>", head=f"<style>{css}</style>")
            for name, css in BREAKOUTS.items()
        ),
        *_attributes(),
    ]


def _attributes() -> Iterator[Hostile]:
    for name, value in {
        "quotes": "x&quot;&gt;&lt;script&gt;x()&lt;/script&gt;&lt;p title=&quot;",
        "the end of a style": "x: y&quot;; } &lt;/style&gt;&lt;img src=x&gt;",
        "a line end and a bracket": "x&#10;&#13;&#8232;]]&gt;--&gt;",
    }.items():
        html = (
            f'<html lang="{value}" dir="{value}"><body id="{value}" class="{value}" style="{value}" text="{value}" bgcolor="{value}">'
            f'<p>{MARK}</p><table bgcolor="{value}" width="{value}"><tr><td align="{value}"><font face="{value}" color="{value}" size="{value}">'
            f'<img src="{value}" alt="{value}">x</table></body></html>'
        )
        yield fixed(f"breaks out by attributes: {name}", letter(html))
    yield Hostile("body twice", lambda trap: page('<body style="display:none" onload=x()><html style="display:none">x'))
