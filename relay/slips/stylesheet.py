"""Untrusted CSS becomes safe CSS.

Does: parses style sheets and style attributes with tinycss2 and writes out again what it knows to be harmless.
Promises: what comes out loads nothing (no `url()`, `@import`, `@font-face`), can't leave a `<style>` element, does not
change the page (`@page`, `position: fixed`, running elements), and is never an exception.
Numbers over LARGEST, of whatever unit, become LARGEST.
Refuses: every property not on PROPERTIES or under PREFIXES, every function not on FUNCTIONS, selectors and values that
are longer or deeper than people write them, and grids of more than MOST_TRACKS: what takes WeasyPrint minutes.
Known limits: nested rules, `@supports`, `@layer` and custom properties are dropped; `@media` stays, WeasyPrint decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tinycss2
from tinycss2.ast import AtRule, Declaration, FunctionBlock, Node, QualifiedRule

MAX_CSS = 256 * 1024
MAX_RULES = 2000
MEDIA_DEPTH = 3
MAX_TOKENS = 400
MAX_STRING = 1000
MAX_DEPTH = 12
MOST_TRACKS = 500
LARGEST = 20_000

PROPERTIES = frozenset(
    """align-content align-items align-self border bottom box-decoration-break box-sizing break-after break-before
    break-inside caption-side clear color column-gap content counter-increment counter-reset direction display
    empty-cells flex flex-basis flex-direction flex-flow flex-grow flex-shrink flex-wrap float font gap height hyphens
    image-orientation image-rendering justify-content justify-items justify-self left letter-spacing line-height
    list-style list-style-position list-style-type max-height max-width min-height min-width object-fit
    object-position opacity order orphans outline outline-color outline-style outline-width overflow overflow-wrap
    page-break-after page-break-before page-break-inside position quotes right row-gap table-layout tab-size top
    transform transform-origin unicode-bidi vertical-align visibility white-space widows width word-break
    word-spacing word-wrap z-index background background-color""".split()  # noqa: SIM905 - so many words read better without quotes
)
PREFIXES = ("border-", "font-", "grid-", "margin", "padding", "text-")
FUNCTIONS = frozenset(
    """attr calc clamp counter counters device-cmyk fit-content hsl hsla hwb lab lch matrix max min minmax oklab oklch
    repeat rgb rgba rotate scale scalex scaley skew skewx skewy translate translatex translatey color linear-gradient
    radial-gradient""".split()  # noqa: SIM905 - so many words read better without quotes
)


def clean_stylesheet(css: str) -> str:
    """The harmless rules of a style sheet."""
    rules = tinycss2.parse_stylesheet(css[:MAX_CSS], skip_comments=True, skip_whitespace=True)
    return _inert("\n".join(_rules(rules[:MAX_RULES], MEDIA_DEPTH)))


def clean_declarations(style: str) -> str:
    """The harmless declarations of a style attribute."""
    return _inert(_declarations(tinycss2.parse_blocks_contents(style[:MAX_CSS])))


def _inert(css: str) -> str:
    # `</style>` may stand in a string. As an escape it means the same to CSS and nothing to HTML.
    return css.replace("<", "\\3c ")


def _rules(rules: Iterable[Node], depth: int) -> Iterable[str]:
    for rule in rules:
        if isinstance(rule, QualifiedRule):
            body = _declarations(tinycss2.parse_blocks_contents(rule.content))
            if body and _is_harmless(rule.prelude):
                yield f"{tinycss2.serialize(rule.prelude).strip()} {{ {body} }}"
        elif isinstance(rule, AtRule) and rule.lower_at_keyword == "media" and rule.content is not None and depth:
            inner = tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True)
            if _is_harmless(rule.prelude):
                body = "\n".join(_rules(inner[:MAX_RULES], depth - 1))
                yield f"@media {tinycss2.serialize(rule.prelude).strip()} {{\n{body}\n}}"


def _declarations(nodes: Sequence[Node]) -> str:
    return "; ".join(
        f"{node.lower_name}: {_value(node.value)}{' !important' if node.important else ''}"
        for node in nodes
        if isinstance(node, Declaration) and _is_allowed(node)
    )


def _is_allowed(node: Declaration) -> bool:
    name = node.lower_name
    if name not in PROPERTIES and not name.startswith(PREFIXES):
        return False
    if name == "position" and not _words(node.value) <= {"static", "relative", "absolute"}:
        return False
    if name == "float" and not _words(node.value) <= {"left", "right", "none"}:
        return False
    if name.startswith("grid") and not _has_few_tracks(node.value):
        return False
    return _is_harmless(node.value)


def _value(tokens: Sequence[Node]) -> str:
    """As it was, with no number over LARGEST: WeasyPrint and Pango count in 32 bits, and fail where those end."""
    waiting = list(tokens)
    while waiting:
        token = waiting.pop()
        if token.type in ("number", "percentage", "dimension") and not abs(token.value) <= LARGEST:
            token.representation = f"{'-' if token.value < 0 else ''}{LARGEST}"
        waiting.extend(_inside(token))
    return str(tinycss2.serialize(tokens).strip())


def _words(tokens: Iterable[Node]) -> set[str]:
    return {
        token.lower_value if token.type == "ident" else token.type
        for token in tokens
        if token.type not in ("whitespace", "comment")
    }


def _is_harmless(tokens: Iterable[Node]) -> bool:
    """No token that loads, breaks out, or could not be parsed, at any depth; and not too many of them."""
    waiting = [(token, 1) for token in tokens]
    seen = 0
    while waiting:
        token, depth = waiting.pop()
        seen += token.type not in ("whitespace", "comment")
        if seen > MAX_TOKENS or depth > MAX_DEPTH or token.type in ("url", "error", "at-keyword", "{} block"):
            return False
        if token.type == "string" and len(token.value) > MAX_STRING:
            return False
        if token.type == "ident" and depth > 1 and token.lower_value.lstrip("-") in ("infinity", "nan"):
            return False
        if isinstance(token, FunctionBlock) and not _is_known(token):
            return False
        waiting.extend((inner, depth + 1) for inner in _inside(token))
    return True


def _is_known(function: FunctionBlock) -> bool:
    if function.lower_name == "attr":  # `attr(x url)` loads by definition, and fails in WeasyPrint
        return _names_an_attribute(function.arguments)
    # Selectors have functions as well; none of them loads.
    return function.lower_name in FUNCTIONS or function.lower_name in _SELECTORS


def _has_few_tracks(tokens: Iterable[Node]) -> bool:
    waiting = list(tokens)
    while waiting:
        token = waiting.pop()
        if token.type == "number" and abs(token.value) > MOST_TRACKS:
            return False
        waiting.extend(_inside(token))
    return True


def _inside(token: Node) -> Sequence[Node]:
    if isinstance(token, FunctionBlock):
        return token.arguments  # type: ignore[no-any-return]
    return token.content if token.type in ("() block", "[] block") else ()


def _names_an_attribute(tokens: Iterable[Node]) -> bool:
    return [token.type for token in tokens if token.type not in ("whitespace", "comment")] == ["ident"]


_SELECTORS = frozenset(("not", "is", "where", "nth-child", "nth-last-child", "nth-of-type", "nth-last-of-type", "lang"))
