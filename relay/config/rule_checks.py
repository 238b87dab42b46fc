"""What is wrong with rules that are each right by themselves.

`unknown_in_rules` finds what would make the service fail, and is a part of reading the configuration; `nonsense` finds
rules that never do anything, which `slip-relay check` reports and a running service lives with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase

from relay.config.profiles import BUILT_IN_PROFILES
from relay.config.rules import CONDITIONS, Rule
from relay.config.settings import Config
from relay.mail.address import parse_address

Place = tuple[str | int, ...]


def unknown_in_rules(config: Config) -> Iterator[tuple[Place, str]]:
    """Names in rules that nothing has, and addresses that rules can't send to."""
    printers = {printer.name for printer in config.printers}
    named = (
        ("print", "printer", printers),
        ("next_hop", "next hop", {hop.name for hop in config.next_hops}),
        ("institution", "institution", {institution.name for institution in config.institutions}),
        ("source", "source", {source.name for source in config.sources}),
        ("profile", "profile", {profile.name for profile in [*config.profiles, *BUILT_IN_PROFILES]}),
    )
    for i, rule in enumerate(config.rules):
        for setting, what, known in named:
            name = getattr(rule, setting)
            if name is not None and name not in known:
                yield ("rules", i, setting), f"there is no {what} {name!r} ({choices(known)})"
        for name in rule.copy_to:
            if "@" not in name and name not in printers:
                yield ("rules", i, "copy_to"), f"there is no printer {name!r} ({choices(printers)})"
        for setting, addresses in (("forward", rule.forward), ("copy_to", rule.copy_to)):
            yield from (
                (("rules", i, setting), f"{address} stands for a printer: name the printer instead")
                for address in addresses
                if "@" in address and config.printer_for(parse_address(address)) is not None
            )


def nonsense(config: Config) -> Iterator[tuple[Place, str]]:
    """Rules that can never match, and actions that would lead from one institution to another."""
    for i, rule in enumerate(config.rules):
        yield from _across(config, i, rule)
        yield from _merges_nothing(config, i, rule)
        for earlier in config.rules[:i]:
            if earlier.decides and _covers(config, earlier, rule):
                yield ("rules", i), f"never matches: the rule {earlier.name!r} before it takes all that it would take"
                break


def choices(names: Collection[str]) -> str:
    """What there is, for a person who named something else."""
    return f"there are: {', '.join(sorted(names))}" if names else "there are none"


def _across(config: Config, i: int, rule: Rule) -> Iterator[tuple[Place, str]]:
    own = rule.institution
    if own is None:
        return
    for setting, names in (("print", [rule.print] if rule.print is not None else []), ("copy_to", rule.copy_to)):
        for printer in (config.printer(name) for name in names if "@" not in name):
            if printer.institution != own:
                yield (
                    ("rules", i, setting),
                    f"the printer {printer.name!r} belongs to {printer.institution!r}, and prints nothing of {own!r}",
                )
    source = next((source for source in config.sources if source.name == rule.source), None)
    if source is not None and own not in source.institutions:
        yield ("rules", i, "source"), f"the source {source.name!r} does not send for {own!r}"


def _merges_nothing(config: Config, i: int, rule: Rule) -> Iterator[tuple[Place, str]]:
    """Slips come out as one document where they wait, and nowhere else."""
    if not rule.merge:
        return
    what = "merge is for slips that wait for a printer's hours or release_at"
    if rule.print is not None:
        if not config.printer(rule.print).slips_wait:
            yield ("rules", i, "merge"), f"{what}, and none ever wait for {rule.print!r}"
    elif not any(each.slips_wait and rule.institution in (None, each.institution) for each in config.printers):
        yield ("rules", i, "merge"), f"{what}, and no printer that it could be for has any"


def _covers(config: Config, earlier: Rule, later: Rule) -> bool:
    """Whether whatever the later rule is for, the earlier one is for too."""
    institution = _only_for(config, earlier)
    if institution is not None and institution != _only_for(config, later):
        return False
    # A pattern covers another one when it fits the other's text, in which * stands for itself.
    if not fnmatchcase(later.recipient.casefold(), earlier.recipient.casefold()):
        return False
    for name in CONDITIONS:
        if name in ("institution", "recipient"):
            continue
        mine, other = getattr(earlier, name), getattr(later, name)
        if mine in (None, ()) or mine == other:
            continue
        if name == "letter_type" and other and set(other) <= set(mine):
            continue
        return False
    return True


def _only_for(config: Config, rule: Rule) -> str | None:
    """The institution whose mail alone a rule is for; None for any."""
    if rule.institution is None and rule.print is not None:
        return config.printer(rule.print).institution
    return rule.institution
