"""Letters that want something loaded: from a server, from the machine's files. By every tag and property that can.

Each stands for all `Trap.targets`: `{u}` is filled with one after the other. All of them are printed, without it.
"""

from __future__ import annotations

import html as entities
from collections.abc import Callable
from email.mime.base import MIMEBase
from email.mime.text import MIMEText
from urllib.parse import quote

from tests.unit.slips.hostile.case import Hostile, Trap, page
from tests.unit.slips.letters import letter, picture

TAGS = {
    "img src": '<img src="{u}">',
    "img src without quotes": "<img src={u}>",
    "img srcset": '<img srcset="{u} 1x, {u} 2x" src="{u}" sizes="100vw">',
    "img of old browsers": '<img lowsrc="{u}" dynsrc="{u}" longdesc="{u}" usemap="{u}">',
    "image, the old alias": '<image src="{u}" href="{u}" xlink:href="{u}">',
    "picture": '<picture><source srcset="{u}" type="image/png"><img src="{u}"></picture>',
    "input of type image": '<input type="image" src="{u}" formaction="{u}">',
    "video": '<video src="{u}" poster="{u}" autoplay><source src="{u}"><track src="{u}"></video>',
    "audio": '<audio src="{u}" autoplay><source src="{u}"></audio><bgsound src="{u}">',
    "object": '<object data="{u}" type="image/png" codebase="{u}"><param name="src" value="{u}"></object>',
    "embed": '<embed src="{u}" type="image/svg+xml">',
    "applet": '<applet code="x" codebase="{u}" archive="{u}"></applet>',
    "iframe": '<iframe src="{u}"></iframe><iframe srcdoc="<img src={u}>"></iframe>',
    "frame": '<frameset><frame src="{u}"></frameset><noframes><img src="{u}"></noframes>',
    "style sheet": '<link rel="stylesheet" href="{u}" type="text/css">',
    "link of type attachment": '<link rel="attachment" href="{u}" title="a">',
    "links of other types": '<link rel="icon" href="{u}"><link rel="preload" as="image" href="{u}">'
    '<link rel="manifest" href="{u}"><link rel="import" href="{u}"><link rel="dns-prefetch" href="{u}">',
    "base": '<base href="{u}"><img src="x.png"><a href="y">y</a>',
    "meta refresh": '<meta http-equiv="refresh" content="0;url={u}"><meta http-equiv="link" content="<{u}>;rel=x">',
    "body background": '<body background="{u}">',
    "table background": '<table background="{u}"><tr background="{u}"><td background="{u}">x</td></tr></table>',
    "anchor that is an attachment": '<a href="{u}" rel="attachment" ping="{u}" download>x</a>',
    "area": '<map name="m"><area href="{u}" shape="default"></map>',
    "form": '<form action="{u}"><button formaction="{u}">x</button></form>',
    "cite": '<q cite="{u}">x</q><blockquote cite="{u}">x</blockquote><ins cite="{u}">x</ins><del cite="{u}">x</del>',
    "svg image": '<svg xmlns:xlink="http://www.w3.org/1999/xlink"><image href="{u}" xlink:href="{u}"/></svg>',
    "svg use": '<svg><use href="{u}#x" xlink:href="{u}#x"/></svg>',
    "svg feImage": '<svg><filter id="f"><feImage href="{u}" xlink:href="{u}"/></filter>'
    '<rect width="9" height="9" filter="url(#f)"/></svg>',
    "svg style": '<svg><style>@import "{u}"; rect {{ fill: url({u}) }}</style><rect width="9" height="9"/></svg>',
    "svg foreignObject": '<svg><foreignObject width="9" height="9"><img src="{u}"><iframe src="{u}"/></foreignObject>',
    "svg text path and animation": '<svg><textPath href="{u}"/><animate attributeName="href" to="{u}"/>'
    '<set attributeName="xlink:href" to="{u}"/></svg>',
    "svg with another xml:base": '<svg xml:base="{u}"><image href="x.png"/></svg>',
    "math": '<math href="{u}"><mglyph src="{u}"/><annotation-xml encoding="text/html"><img src="{u}"></math>',
    "namespaced tags": '<x:img xmlns:x="http://www.w3.org/1999/xhtml" src="{u}"/><html:img src="{u}"/>',
    "html manifest": '<html manifest="{u}" xmlns:v="urn:schemas-microsoft-com:vml"><v:fill src="{u}"/>',
    "xml data island": '<xml src="{u}" id="i"></xml><layer src="{u}"></layer><ilayer src="{u}"></ilayer>',
    "script src": '<script src="{u}"></script><script>new Image().src = "{u}"</script>',
    "noscript": '<noscript><img src="{u}"><link rel="stylesheet" href="{u}"></noscript>',
    "template": '<template><img src="{u}"></template>',
    "onerror": '<img src="x" onerror="this.src=&quot;{u}&quot;">',
    "conditional comment": '<!--[if gte mso 9]><img src="{u}"><![endif]--><!--><img src="{u}">-->',
    "processing instruction": '<?xml-stylesheet href="{u}" type="text/css"?><?import src="{u}"?>',
    "tag that is not closed": '<img src="{u}" <img src="{u}"',
    "attribute twice": '<img src="cid:x" src="{u}" SRC="{u}">',
}
STYLES = {
    "background": "background: url({u})",
    "background-image": "background-image: url('{u}'), url(\"{u}\")",
    "list-style": "display: list-item; list-style: url({u}); list-style-image: url({u})",
    "content of an element": "content: url({u})",
    "cursor": "cursor: url({u}), auto",
    "border-image": "border: 9px solid; border-image: url({u}) 30 round; border-image-source: url({u})",
    "mask": "mask: url({u}); mask-image: url({u}); mask-border: url({u}); -webkit-mask-image: url({u})",
    "filter": "filter: url({u}#f); backdrop-filter: url({u}#f)",
    "clip-path and shapes": "clip-path: url({u}#c); float: left; shape-outside: url({u}); offset-path: url({u})",
    "image()": "background: image('{u}'); background-image: -webkit-image('{u}')",
    "image-set()": "background: image-set('{u}' 1x, url({u}) 2x); content: -webkit-image-set(url({u}) 1x)",
    "cross-fade()": "background: cross-fade(url({u}), url({u}), 50%)",
    "element() and paint()": "background: element(#x), paint(x), -moz-element(#x)",
    "gradient with a picture": "background: linear-gradient(red, blue), url({u})",
    "var()": "--u: url({u}); background: var(--u); background: var(--none, url({u}))",
    "src()": "background: src('{u}'); background-image: url('{u}' x(y))",
    "escaped name": "background: u\\72l({u}); background: \\75 \\72 \\6c({u}); background: \\000075rl('{u}')",
    "comments within": "background: url(/**/{u}); background: u/**/rl({u}); /* */ background: url('{u}') /* */",
    "capitals": "BACKGROUND: URL({u}); BackGround-Image: uRL('{u}')",
    "wide letters": "background: \uff55\uff52\uff4c({u}); background: \u212arl({u})",
    "nothing closed": "background: url('{u}",
    "behaviours of old browsers": "behavior: url({u}); -moz-binding: url({u}); width: expression(x('{u}'))",
    "bookmarks and strings of pages": "string-set: a url({u}); bookmark-label: url({u}); -weasy-link: url({u}); link: {u}",
    "attr() of type url": "content: attr(title url); background: attr(title url)",
}
SHEETS = {
    "@import": '@import "{u}";',
    "@import with url()": "@import url({u}) print; @IMPORT uRl('{u}'); @imp\\6frt url({u});",
    "@import after a rule": "p {{ color: red }} @import '{u}'; @media print {{ @import '{u}'; }}",
    "@font-face": "@font-face {{ font-family: x; src: url({u}), local('x') }} p {{ font-family: x }}",
    "@font-face within @media": "@media print {{ @font-face {{ font-family: x; src: url({u}) }} }} p {{ font: 9px x }}",
    "@namespace": "@namespace url({u}); @namespace x '{u}'; x|p {{ color: red }}",
    "@page": "@page {{ background: url({u}); @top-left {{ content: url({u}) }} @footnote {{ content: url({u}) }} }}",
    "@supports and @layer": "@supports (color: red) {{ p {{ background: url({u}) }} }} @layer x {{ p {{ background: url({u}) }} }}",
    "@counter-style": "@counter-style x {{ system: cyclic; symbols: url({u}) }} li {{ list-style: x }}",
    "@color-profile": "@color-profile --x {{ src: url({u}) }} p {{ color: color(--x 0 0 0) }}",
    "pseudo-elements": "p::before, p::marker, p::after {{ content: url({u}) }} p::first-letter {{ background: url({u}) }}",
    "nested rules": "p {{ & {{ background: url({u}) }} span {{ background: url({u}) }} @media print {{ content: url({u}) }} }}",
    "selector with a url": "p[title=url({u})] {{ color: red }} url({u}) {{ color: red }}",
    "string with a line end": "p {{ content: '\n url({u}) '; background: url({u}) }}",
    "@charset": "@charset 'utf-7'; +AEA-import '{u}'; p {{ background: url({u}) }}",
}


def letters() -> list[Hostile]:
    """All of them."""
    found = [Hostile(f"loads by {name}", _tag(each)) for name, each in TAGS.items()]
    found += [Hostile(f"loads by style {name}", _style(each)) for name, each in STYLES.items()]
    found += [Hostile(f"loads by {name}", _sheet(each)) for name, each in SHEETS.items()]
    return [
        *found,
        Hostile("loads by a style sheet in the body", _sheet_in_the_body),
        Hostile("loads by a style sheet in other elements", _sheet_elsewhere),
        Hostile("loads by an external entity", _external_entity),
        Hostile("loads by a picture that is SVG", _svg_picture),
        Hostile("loads by a data URL that is SVG", _svg_in_data),
        Hostile("loads by a data URL that is CSS", _css_in_data),
        Hostile("loads by Content-Location", _content_location),
        Hostile("loads by names of attachments", _names),
        Hostile("loads by message/external-body", _external_body),
    ]


def _tag(each: str) -> Callable[[Trap], bytes]:
    return lambda trap: page(_for_all(each, trap))


def _style(each: str) -> Callable[[Trap], bytes]:
    return lambda trap: page(_styled(each, trap))


def _sheet(each: str) -> Callable[[Trap], bytes]:
    return lambda trap: page("<p title=x>x</p>", head=f"<style>{_for_all(each, trap, quoted=False)}</style>")


def _for_all(pattern: str, trap: Trap, *, quoted: bool = True) -> str:
    targets = [entities.escape(target) if quoted else target for target in trap.targets]
    return "\n".join(pattern.format(u=target) for target in targets)


def _styled(style: str, trap: Trap) -> str:
    """As an attribute and as a rule, for each target."""
    rules, parts = [], []
    for number, target in enumerate(trap.targets):
        attribute = entities.escape(style.format(u=target))
        parts.append(
            f'<p id="a{number}" title="{entities.escape(target)}" style="{attribute}">x</p><p id="b{number}">y</p>'
        )
        rules.append(f"#b{number} {{ {style.format(u=target)} }}")
    return "".join(parts) + "".join(f"<style>{rule}</style>" for rule in rules)


def _sheet_in_the_body(trap: Trap) -> bytes:
    return page(_for_all("<div><style>p {{ background: url({u}) }}</style></div>", trap, quoted=False))


def _sheet_elsewhere(trap: Trap) -> bytes:
    places = ("svg", "math", "noscript", "template", "select", "textarea", "title", "table", "xmp", "plaintext")
    css = _for_all("p {{ background: url({u}) }} @import '{u}';", trap, quoted=False)
    return page("".join(f"<{place}><style media=all>{css}</style></{place}>" for place in places))


def _external_entity(trap: Trap) -> bytes:
    kinds = "".join(f'<!ENTITY x{n} SYSTEM "{target}">' for n, target in enumerate(trap.targets))
    uses = "".join(f"&x{n};" for n in range(len(trap.targets)))
    parameter = f'<!ENTITY % p SYSTEM "file://{trap.secret}"> %p;'
    body = page(f"<p>{uses}</p>").decode()
    return body.replace("<html>", f'<?xml version="1.0"?><!DOCTYPE html [{kinds}{parameter}]><html>').encode()


def _svg(trap: Trap) -> str:
    images = "".join(f'<image width="9" height="9" href="{entities.escape(target)}"/>' for target in trap.targets)
    return (
        f'<?xml version="1.0"?><?xml-stylesheet href="file://{trap.secret}"?>'
        f'<!DOCTYPE svg [<!ENTITY x SYSTEM "file://{trap.secret}">]>'
        f'<svg xmlns="http://www.w3.org/2000/svg" width="99" height="99"><text y="9">&x;</text>{images}</svg>'
    )


def _svg_picture(trap: Trap) -> bytes:
    part = picture(_svg(trap).encode(), "x", "x.svg", subtype="svg+xml")
    lying = picture(_svg(trap).encode(), "y", "y.png")
    return page('<img src="cid:x"><img src="cid:y"><object data="cid:x"></object>', part, lying)


def _svg_in_data(trap: Trap) -> bytes:
    plain = "data:image/svg+xml," + quote(_svg(trap))
    return page(
        f'<img src="{plain}"><img src="{plain.replace("svg+xml", "png")}"><p style="background:url({plain})">x</p>'
    )


def _css_in_data(trap: Trap) -> bytes:
    css = "data:text/css," + quote(_for_all("p {{ background: url({u}) }} @import '{u}';", trap, quoted=False))
    return page(f'<link rel="stylesheet" href="{css}"><style>@import "{css}"; @import url({css});</style>')


def _content_location(trap: Trap) -> bytes:
    parts: list[MIMEBase] = []
    for target in trap.targets:
        part = picture(b"not a picture", location=target.strip().replace("\n", ""))
        part["Content-Base"] = target.strip().replace("\n", "")
        parts.append(part)
    return page(_for_all('<img src="{u}">', trap), *parts)


def _names(trap: Trap) -> bytes:
    parts = [picture(b"", name=str(trap.picture)), picture(b"", "../.." + str(trap.secret), "../" + trap.picture.name)]
    return page(
        f'<img src="{trap.picture.name}"><img src="cid:..{trap.secret}">' + _for_all('<img src="{u}">', trap), *parts
    )


def _external_body(trap: Trap) -> bytes:
    part = MIMEText("Content-Type: image/png\r\nContent-ID: <x>\r\n\r\n", "plain")
    part.replace_header("Content-Type", f'message/external-body; access-type=local-file; name="{trap.picture}"')
    web = MIMEText("Content-Type: text/html\r\n\r\n", "plain")
    web.replace_header("Content-Type", f'message/external-body; access-type=URL; URL="http://127.0.0.1:{trap.port}/"')
    return letter('<p>Shelf mark QX 27</p><img src="cid:x">', part, web)
