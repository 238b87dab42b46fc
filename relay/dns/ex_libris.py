"""Whether a domain still lets Ex Libris send in its name, and what its SPF record costs without that.

Once all mail of Alma goes by way of the appliance nobody needs it, and every library in that cloud may use it.
"""

from __future__ import annotations

from relay.dns.answers import Answers
from relay.dns.findings import Finding
from relay.dns.spf_record import parse
from relay.dns.spf_verdict import records_of, whole_cost
from relay.errors import DnsError
from relay.mail.status import printable

EX_LIBRIS = "exlibrisgroup.com"

DEEPEST = 10
"""Records that are followed into one another; SPF allows ten look-ups."""

MUST = "no include of Ex Libris, once all mail leaves by way of slip-relay"


async def check_ex_libris(answers: Answers, domain: str) -> Finding | None:
    """What names Ex Libris in the record of a domain, or in one that it includes; None when nothing does, or there is
    no record.
    """
    paths = await _paths(answers, domain, frozenset())
    if not paths:
        return None
    before = await whole_cost(answers, domain)
    after = before.lookups
    for path in paths:
        after -= 1 + (await whole_cost(answers, _target(path[-1]))).lookups
    says = printable(", ".join(" > ".join(path) for path in paths), 300)
    advice = f"it can be dropped then: look-ups fall from {before.lookups} to {after}"
    return Finding("spf", domain, MUST, says, "ok", advice)


async def _paths(answers: Answers, domain: str, above: frozenset[str]) -> list[tuple[str, ...]]:
    """The terms that lead from a record to each one that names Ex Libris."""
    try:
        found = await records_of(answers, domain)
        record = parse(found[0]) if len(found) == 1 else None
    except DnsError:
        return []
    if record is None:
        return []
    terms = [(term.text, term.domain) for term in record.terms if term.domain and not term.has_macro]
    if record.redirect and "%" not in record.redirect:
        terms.append((f"redirect={record.redirect}", record.redirect))
    paths: list[tuple[str, ...]] = []
    for text, target in terms:
        if f".{target}".endswith(f".{EX_LIBRIS}"):
            paths.append((text,))
        elif _is_followed(text) and target not in above and len(above) < DEEPEST:
            paths += [(text, *path) for path in await _paths(answers, target, above | {domain})]
    return paths


def _is_followed(text: str) -> bool:
    return text.lstrip("+-~?").lower().startswith(("include:", "redirect="))


def _target(text: str) -> str:
    return text.replace("redirect=", ":").partition(":")[2].lower()
