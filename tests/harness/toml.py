"""Writes configuration tables as TOML, and merges further ones into them.

Knows what a configuration is made of: tables, lists of tables, strings, numbers, booleans and lists of those. Tables
within lists of tables are written inline.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeGuard

Table = dict[str, Any]


def dumps(tree: Mapping[str, Any]) -> str:
    """The tables as a TOML document."""
    plain = [f"{key} = {_value(value)}" for key, value in tree.items() if not _is_table(value) and not _is_list(value)]
    blocks = ["\n".join(plain)] if plain else []
    for key, value in tree.items():
        if _is_table(value):
            blocks.append(_block(f"[{key}]", value))
        elif _is_list(value):
            blocks += [_block(f"[[{key}]]", item) for item in value]
    return "\n\n".join(blocks) + "\n"


def merged(base: Mapping[str, Any], extra: Mapping[str, Any]) -> Table:
    """Both together: tables are merged, `extra` wins; lists of tables are joined.

    An item of such a list that has the `name` of one in `base` is merged into it instead, so that an extra file can
    change a printer or a next hop.
    """
    result = dict(base)
    for key, value in extra.items():
        known = result.get(key)
        if _is_table(known) and _is_table(value):
            result[key] = merged(known, value)
        elif _is_list(known) and _is_list(value):
            result[key] = _joined(known, value)
        else:
            result[key] = value
    return result


def _joined(base: list[Table], extra: list[Table]) -> list[Table]:
    result = list(base)
    for item in extra:
        same = next((n for n, known in enumerate(base) if "name" in item and known.get("name") == item["name"]), None)
        if same is None:
            result.append(item)
        else:
            result[same] = merged(result[same], item)
    return result


def _block(heading: str, table: Mapping[str, Any]) -> str:
    return "\n".join([heading, *(f"{_key(key)} = {_value(value)}" for key, value in table.items())])


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    raise TypeError(f"{type(value).__name__} has no place in this configuration")


def _is_table(value: object) -> TypeGuard[Table]:
    return isinstance(value, Mapping)


def _is_list(value: object) -> TypeGuard[list[Table]]:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)
