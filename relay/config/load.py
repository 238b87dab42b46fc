"""From TOML files to a `Config`, or to the list of everything that is wrong with them.

Does: reads one file and the `*.toml` of the folder `conf.d` beside it, in the order of their names; tables are merged,
lists (institutions, printers, ...) are joined, a value set twice is a mistake. Relative paths are meant from the main
file's folder.
Promises: every mistake is reported with its file and place, not only the first; no secret is ever part of a message.
"""

from __future__ import annotations

import difflib
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from relay.config.printers import Printer
from relay.config.profiles import BUILT_IN_PROFILES
from relay.config.rule_checks import Place, choices, unknown_in_rules
from relay.config.settings import Config, Spool
from relay.errors import ConfigError, Problem
from relay.mail.address import parse_address

_PATHS = (
    *("tls_certificate", "tls_key", "key_file", "ca_file", "file", "folder", "stylesheet", "client_ca", "spf_file"),
    *("client_certificate", "client_key", "key_folder", "policies"),
)
_SECRETS = {"password", "secret", "passwd", "key"}


def load(path: Path) -> Config:
    """The configuration of a file. Raises ConfigError with all problems."""
    source = _Source(path)
    try:
        config = Config.model_validate(source.tree)
    except ValidationError as error:
        found = _without_echoes(error.errors(include_url=False))
        raise ConfigError([*source.problems, *(source.problem(details) for details in found)]) from None
    problems = [*source.problems, *(Problem(source.place(place), text) for place, text in _contradictions(config))]
    if problems:
        raise ConfigError(problems)
    return config


def spool_at(url: str, password_file: Path | None) -> Spool:
    """A spool that is named on the command line as TARGET_URL. Raises ConfigError, as for [spool] in a file."""
    given = {"url": url, **({"password": {"file": password_file}} if password_file is not None else {})}
    try:
        return Spool.model_validate(given)
    except ValidationError as error:
        texts = [details["msg"].removeprefix("Value error, ") for details in error.errors(include_url=False)]
        raise ConfigError([Problem("TARGET_URL", text) for text in texts]) from None


class _Source:
    """The merged tree of all files, and for each list item the file and the position it came from."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self._origin: dict[Place, tuple[str, Place]] = {}
        for file in [path, *sorted((path.parent / "conf.d").glob("*.toml"))]:
            self._add(file)

    def _add(self, file: Path) -> None:
        try:
            tree = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError([Problem(str(file), f"can't be read: {error.strerror}")]) from None
        except UnicodeDecodeError as error:
            raise ConfigError([Problem(str(file), f"is not UTF-8 (byte {error.start})")]) from None
        except tomllib.TOMLDecodeError as error:
            raise ConfigError([Problem(str(file), f"is not TOML: {error}")]) from None
        _resolve_paths(tree, self.path.parent)
        self._merge(self.tree, tree, (), file)

    def _shown(self, file: Path) -> str:
        """How messages name a file: from the main file's folder."""
        return str(file.relative_to(self.path.parent))

    def _merge(self, into: dict[str, Any], tree: dict[str, Any], place: Place, file: Path) -> None:
        for key, value in tree.items():
            here = (*place, key)
            if key not in into:
                into[key] = [] if _is_table_list(value) else ({} if isinstance(value, dict) else value)
                self._origin[here] = (self._shown(file), here)
            if _is_table_list(value) and isinstance(into[key], list):
                for index, item in enumerate(value):
                    self._origin[(*here, len(into[key]))] = (self._shown(file), (*here, index))
                    into[key].append(item)
            elif isinstance(value, dict) and isinstance(into[key], dict):
                self._merge(into[key], value, here, file)
            elif self._origin.get(here, ("",))[0] != self._shown(file):
                first = self._origin.get(here, (self.path.name,))[0]
                self.problems.append(Problem(f"{self._shown(file)}: {_dotted(here)}", f"is set in {first} already"))

    def place(self, place: Place) -> str:
        """A place in words: the file, the path, and the name of the table it lies in."""
        file, shown = self.path.name, place
        for length in range(len(place), 0, -1):
            if place[:length] in self._origin:
                file, start = self._origin[place[:length]]
                shown = (*start, *place[length:])
                break
        return f"{file}: {_dotted(shown)}{self._named(place)}"

    def _named(self, place: Place) -> str:
        node: Any = self.tree
        name = ""
        for step in place:
            try:
                node = node[step]
            except (KeyError, IndexError, TypeError):
                break
            if isinstance(node, dict) and isinstance(node.get("name"), str):
                name = f" ({node['name']!r})"
        return name

    def problem(self, details: ErrorDetails) -> Problem:
        """One of pydantic's findings in our words."""
        place = tuple(step for step in details["loc"] if isinstance(step, int) or not step.startswith("function-"))
        kind, text = details["type"], details["msg"].removeprefix("Value error, ")
        if kind == "extra_forbidden":
            text = _unknown_key(str(place[-1]), _model_at(place[:-1]))
        elif kind == "missing":
            text = "is missing"
        elif kind in ("model_type", "dict_type"):
            text = "has to be a table"
            if place and place[-1] in (*_SECRETS, "token"):
                text = 'is a secret: name its place, as in { file = "/etc/slip-relay/secret" } or { env = "NAME" }'
        return Problem(self.place(place), text[:1].lower() + text[1:] if text[1:2].islower() else text)


def _without_echoes(found: list[ErrorDetails]) -> list[ErrorDetails]:
    """Leaves out that a list is too short when that is only because its items are wrong."""
    wrong = {details["loc"][:length] for details in found for length in range(len(details["loc"]))}
    return [details for details in found if details["type"] != "too_short" or details["loc"] not in wrong]


def _unknown_key(key: str, model: type[BaseModel] | None) -> str:
    if key in _SECRETS:
        return "is unknown here, and secrets do not stand in the configuration"
    known = list(model.model_fields) if model else []
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return f"is unknown; is {near[0]} meant?"
    return f"is unknown; known here: {', '.join(known)}" if known else "is unknown"


def _model_at(place: Place) -> type[BaseModel] | None:
    """The settings class that stands at a place."""
    model: type[BaseModel] = Config
    for step in place:
        if isinstance(step, int):
            continue
        field = model.model_fields.get(step)
        inner = next(_models_in(field.annotation), None) if field else None
        if inner is None:
            return None
        model = inner
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _is_table_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _dotted(place: Place) -> str:
    text = ""
    for step in place:
        text += f"[{step + 1}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _resolve_paths(tree: Any, folder: Path) -> None:
    """Makes relative paths of files absolute, so that it does not matter where the command is called."""
    if isinstance(tree, list):
        for item in tree:
            _resolve_paths(item, folder)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if (key in _PATHS and isinstance(value, str)) or (
                key == "template" and isinstance(value, str) and "/" in value
            ):
                tree[key] = str(folder / value)
            elif key == "url" and isinstance(value, str) and value.startswith("sqlite:///"):
                tree[key] = f"sqlite:///{folder.absolute() / value.removeprefix('sqlite:///')}"
            else:
                _resolve_paths(value, folder)


def _contradictions(config: Config) -> Iterator[tuple[Place, str]]:
    """What is wrong between tables that are each right by themselves."""
    yield from _doubles(config)
    institutions = {institution.name for institution in config.institutions}
    hops = {hop.name for hop in config.next_hops}
    profiles = {profile.name for profile in [*config.profiles, *BUILT_IN_PROFILES]}

    for i, institution in enumerate(config.institutions):
        if institution.envelope_from == "verp" and config.server.secret is None:
            yield ("institutions", i, "envelope_from"), "VERP addresses are signed: set server.secret"
        hop = institution.next_hop or "default"
        if hop not in hops:
            yield ("institutions", i, "next_hop"), f"there is no next hop {hop!r} ({choices(hops)})"
        told = institution.dsn_to
        if told not in ("sender", "nobody") and config.printer_for(parse_address(told)) is not None:
            yield ("institutions", i, "dsn_to"), f"{told} stands for a printer: name a mailbox that is read"
        yield from _printed_notices(config, "institutions", i, institution.notify)
    for i, next_hop in enumerate(config.next_hops):
        for institution in config.institutions if next_hop.rewriting.header_from == "rewrite" else ():
            if institution.from_mailbox is None and next_hop in config.hops_of(institution):
                place = ("next_hops", i, "rewriting", "header_from")
                yield place, f"the institution {institution.name} has no from_mailbox to rewrite From to"
    for i, source in enumerate(config.sources):
        for name in source.institutions:
            if name not in institutions:
                yield ("sources", i, "institutions"), f"there is no institution {name!r} ({choices(institutions)})"
        if source.spf and config.spf_file() is None:
            yield (
                ("dns", "spf_file"),
                "with the spool on a server the file of the last SPF answers has to be named",
            )
        if source.certificates and not any(listener.client_ca for listener in config.listeners):
            yield ("sources", i, "certificates"), "no listener asks for certificates: set client_ca on one"
        if source.divert_to is not None and config.printer_for(parse_address(source.divert_to)) is not None:
            yield ("sources", i, "divert_to"), f"{source.divert_to} stands for a printer: name a mailbox that is read"
    for i, printer in enumerate(config.printers):
        yield from _printed_notices(config, "printers", i, printer.notify)
        if printer.institution not in institutions:
            yield (
                ("printers", i, "institution"),
                f"there is no institution {printer.institution!r} ({choices(institutions)})",
            )
        for address in printer.forward_to:
            if config.printer_for(parse_address(address)) is not None:
                meaning = f"{address} stands for a printer: name the address that the printer has itself"
                yield ("printers", i, "forward_to"), meaning
        if printer.forward_to and not _is_told(config, printer):
            meaning = "nobody hears what can't be delivered there: set notify, or notify or dsn_to of the institution"
            yield ("printers", i, "forward_to"), meaning
        if printer.queue and printer.profile not in profiles:
            yield ("printers", i, "profile"), f"there is no profile {printer.profile!r} ({choices(profiles)})"
        beside = {each.name for each in config.queues if each.institution == printer.institution} - {printer.name}
        for setting, names in printer.names_of_others:
            for name in names:
                if name not in beside:
                    meaning = f"{printer.institution!r} has no other printer {name!r} ({choices(beside)})"
                    yield ("printers", i, setting), meaning
    yield from unknown_in_rules(config)
    if config.uses_mta_sts and config.mta_sts_file() is None:
        meaning = "with the spool on a server the file of policies has to be named, since a next hop goes by MX"
        yield ("mta_sts", "policies"), meaning
    if config.pictures.allow and config.copies().folder is None:
        yield ("pictures", "folder"), "with the spool on a server the folder of the copies has to be named"
    if config.server.secret is not None and len(config.server.secret.reveal()) < 16:
        yield ("server", "secret"), "is shorter than 16 characters"


def _is_told(config: Config, printer: Printer) -> bool:
    """Whether somebody here is told of mail to a printer's own address: a slip must not get lost in silence."""
    owner = next((each for each in config.institutions if each.name == printer.institution), None)
    if owner is None:
        return True  # that is told
    return bool(printer.notify or owner.notify) or owner.dsn_to not in ("sender", "nobody")


def _printed_notices(config: Config, table: str, i: int, told: str | None) -> Iterator[tuple[Place, str]]:
    if told is not None and config.printer_for(parse_address(told)) is not None:
        yield (table, i, "notify"), f"{told} stands for a printer: name a mailbox that is read"


def _doubles(config: Config) -> Iterator[tuple[Place, str]]:
    for table in ("listeners", "institutions", "sources", "next_hops", "profiles", "printers", "rules"):
        items = getattr(config, table)
        names = Counter(item.name for item in items)
        for i, item in enumerate(items):
            if names[item.name] > 1 and any(other.name == item.name for other in items[:i]):
                yield (table, i, "name"), f"there is another one of {table} named {item.name!r}"
    seen: dict[str, str] = {}
    for i, printer in enumerate(config.printers):
        for mailbox in printer.mailboxes:
            key = parse_address(mailbox).key
            if seen.setdefault(key, printer.name) != printer.name:
                yield ("printers", i, "mailboxes"), f"{mailbox} stands for the printer {seen[key]!r} already"
    devices: dict[str, tuple[str, str]] = {}
    for i, printer in enumerate(config.printers):
        if printer.device is None:
            continue
        name, device = devices.setdefault(printer.queue, (printer.name, printer.device))
        if printer.device != device:
            yield ("printers", i, "device"), f"the printer {name!r} has the same queue, and names another device"
    folders: dict[Path, str] = {}
    for i, institution in enumerate(config.institutions):
        for j, signing in enumerate(institution.dkim):
            folder = signing.key_folder
            if folder is not None and folders.setdefault(folder, signing.domain) != signing.domain:
                meaning = f"the folder has the keys of {folders[folder]} already"
                yield ("institutions", i, "dkim", j, "key_folder"), meaning
    owners: dict[str, str] = {}
    for i, institution in enumerate(config.institutions):
        for domain in institution.domains:
            if owners.setdefault(domain, institution.name) != institution.name:
                yield ("institutions", i, "domains"), f"{domain} belongs to the institution {owners[domain]!r} already"
    logins: dict[str, str] = {}
    for i, source in enumerate(config.sources):
        if source.username and logins.setdefault(source.username, source.name) != source.name:
            yield (
                ("sources", i, "username"),
                f"{source.username!r} is the name of the source {logins[source.username]!r} already",
            )
