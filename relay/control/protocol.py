"""What is said over the control socket: a line of JSON for each request, a line of JSON for each answer.

A request: `{"verb": "hold", "deliveries": [["QUEUE-ID", 0], ...]}`, and where it is so `"why": TEXT`,
`"only": [STATE, ...]`, `"more": true` and `"for": ACCOUNT`. An answer: `{"done": [["QUEUE-ID", 0, WAS, NOW, ROUTE],
...], "refused": [["QUEUE-ID", 0, WHY], ...]}`, or `{"error": SENTENCE}`. The verb `reprint` knows besides
`"printer": NAME` and `"mark": true` or `false`; what it did has a sixth place, the number of what was made.
The question `{"ask": "metrics"}` is answered with `{"metrics": TEXT}`, and `{"ask": "sources"}` with
`{"sources": [...]}` (`relay.control.sources`). `{"ask": "keys"}` has the signing keys taken anew from where they
are, and is answered with what signs now, `{"keys": {INSTITUTION: ["SELECTOR._domainkey.DOMAIN", ...]}}`.
The verb `send-test` has `"to": ADDRESS` and, where it is to be said, `"institution": NAME`, in the place of
deliveries; it is answered as done with the delivery that was made. `{"ask": "trials"}` tells what was seen of such
letters (`relay.control.trials`).
Refuses, with OrderError and a sentence, what is not such a line.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from relay.errors import OrderError
from relay.spool.orders import STEP, Done, Refused, Result, Verb
from relay.spool.records import Key, State
from relay.spool.reprints import REPRINT

MAX_REQUEST = 64 * 1024
"""Bytes of a request, its line end included."""

MAX_ANSWER = 1 * 1024 * 1024
"""Bytes of an answer."""

MAX_WHY = 500
"""Characters of a reason."""

MAX_NAME = 63
"""Characters of the name of a printer or an institution."""

_FIELDS = {"verb", "deliveries", "why", "only", "more", "for"}
SEND_TEST = "send-test"
_SEND_TEST_FIELDS = {"verb", "to", "institution", "for"}
_REPRINT_FIELDS = {"verb", "deliveries", "why", "printer", "mark", "more", "for"}
_QUEUE_ID = re.compile(r"[0-9A-HJKMNP-TV-Z]{13}")
ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")


@dataclass(frozen=True, slots=True)
class Request:
    """What is ordered, and of which deliveries."""

    verb: Verb
    keys: tuple[Key, ...]
    why: str = ""
    "The person's reason."
    only: frozenset[State] | None = None
    "Only what is still in one of these states."
    more: bool = False
    "More of the same order follows: the runner need not act yet."
    on_behalf_of: str = ""
    "The account for which root speaks (sudo)."


@dataclass(frozen=True, slots=True)
class Reprint:
    """Which slips are to be printed once more, and how."""

    keys: tuple[Key, ...]
    why: str = ""
    printer: str = ""
    "On which printer; empty for the one it was for."
    mark: bool | None = None
    "Whether it says on paper what it is; None for what is set for the printer."
    more: bool = False
    on_behalf_of: str = ""


@dataclass(frozen=True, slots=True)
class SendTest:
    """To whom a test letter is to be sent, and whose letter it is."""

    to: str
    institution: str = ""
    "Empty where it goes without saying: that of the printer, or the only one."
    on_behalf_of: str = ""


AnyRequest = Request | Reprint | SendTest


def write_request(request: AnyRequest) -> bytes:
    """A request as a line."""
    if isinstance(request, SendTest):
        named = {"institution": request.institution, "for": request.on_behalf_of}
        return _line({"verb": SEND_TEST, "to": request.to, **{name: value for name, value in named.items() if value}})
    if isinstance(request, Reprint):
        how = {"why": request.why, "printer": request.printer, "more": request.more, "for": request.on_behalf_of}
        asked: dict[str, Any] = {name: value for name, value in how.items() if value}
        asked |= {"mark": request.mark} if request.mark is not None else {}
        return _line({"verb": REPRINT, "deliveries": request.keys, **asked})
    only = sorted(state.value for state in request.only) if request.only is not None else None
    optional = {"why": request.why, "only": only, "more": request.more, "for": request.on_behalf_of}
    said = {name: value for name, value in optional.items() if value}
    return _line({"verb": request.verb.value, "deliveries": request.keys, **said})


def read_request(line: bytes) -> AnyRequest:
    """A line as a request."""
    said = _object(line)
    if said.get("verb") == SEND_TEST:
        return _send_test(said)
    is_reprint = said.get("verb") == REPRINT
    if unknown := said.keys() - (_REPRINT_FIELDS if is_reprint else _FIELDS):
        raise OrderError(f"a request has no {sorted(unknown)[0]!r}")
    why, more, account = _for_all(said)
    if is_reprint:
        printer, mark = said.get("printer", ""), said.get("mark")
        if not isinstance(printer, str) or len(printer) > MAX_NAME:
            raise OrderError("'printer' is the name of a printer")
        if mark is not None and not isinstance(mark, bool):
            raise OrderError("'mark' is true or false")
        return Reprint(_keys(said.get("deliveries")), why, printer, mark, more, account)
    try:
        verb = Verb(said.get("verb", ""))
        only = frozenset(map(State, said["only"])) if "only" in said else None
    except (ValueError, TypeError) as error:
        raise OrderError(f"not an order: {error}") from None
    return Request(verb, _keys(said.get("deliveries")), why, only, more, account)


def _send_test(said: dict[str, Any]) -> SendTest:
    if unknown := said.keys() - _SEND_TEST_FIELDS:
        raise OrderError(f"a request has no {sorted(unknown)[0]!r}")
    to, institution = said.get("to"), said.get("institution", "")
    if not isinstance(to, str) or len(to) > MAX_WHY:
        raise OrderError("'to' is an address")
    if not isinstance(institution, str) or len(institution) > MAX_NAME:
        raise OrderError("'institution' is the name of an institution")
    return SendTest(to, institution, _for_all(said)[2])


def _for_all(said: dict[str, Any]) -> tuple[str, bool, str]:
    """What every request may say: the reason, whether more follows, for whom root speaks."""
    why, more, account = said.get("why", ""), said.get("more", False), said.get("for", "")
    if not isinstance(why, str) or len(why) > MAX_WHY:
        raise OrderError(f"a reason is text of at most {MAX_WHY} characters")
    if not isinstance(more, bool):
        raise OrderError("'more' is true or false")
    if not isinstance(account, str) or not (account == "" or ACCOUNT.fullmatch(account)):
        raise OrderError("'for' is the name of an account")
    return why, more, account


METRICS, SOURCES, KEYS, TRIALS = "metrics", "sources", "keys", "trials"
"""What can be asked."""


def write_question(what: str) -> bytes:
    """A question as a line."""
    return _line({"ask": what})


def read_question(line: bytes) -> str | None:
    """What a line asks; None when it is no question."""
    try:
        what = _object(line).get("ask")
    except OrderError:
        return None
    return what if isinstance(what, str) else None


def write_told(what: str, told: object) -> bytes:
    """What is told to a question, as a line."""
    return _line({what: told})


def read_told(what: str, line: bytes) -> Any:
    """A line as what is told to a question; raises OrderError when it is something else."""
    said = _object(line)
    if what not in said:
        raise OrderError(str(said.get("error", "the service gave an answer that can't be read")))
    return said[what]


def write_answer(answer: Result | OrderError) -> bytes:
    """An answer as a line."""
    if isinstance(answer, OrderError):
        return _line({"error": str(answer)})
    done = [
        [*each.key, each.was.value, each.now.value, each.route, *([] if each.made is None else [each.made])]
        for each in answer.done
    ]
    return _line({"done": done, "refused": [[*each.key, each.why] for each in answer.refused]})


def read_answer(line: bytes) -> Result:
    """A line as an answer; raises OrderError also when it says that the request was not carried out."""
    said = _object(line)
    if "error" in said:
        raise OrderError(str(said["error"]))
    try:
        done = [
            Done((queue_id, number), State(was), State(now), route, *made)
            for queue_id, number, was, now, route, *made in said["done"]
        ]
        return Result(done, [Refused((queue_id, number), why) for queue_id, number, why in said["refused"]])
    except (KeyError, ValueError, TypeError) as error:
        raise OrderError(f"the service gave an answer that can't be read: {error}") from None


def _keys(said: object) -> tuple[Key, ...]:
    if not isinstance(said, list) or not 1 <= len(said) <= STEP:
        raise OrderError(f"'deliveries' is a list of 1 to {STEP}")
    keys: list[Key] = []
    for each in said:
        match each:
            case [str(queue_id), int(number)] if (
                _QUEUE_ID.fullmatch(queue_id) and not isinstance(number, bool) and 0 <= number < 2**31
            ):
                keys.append((queue_id, number))
            case _:
                raise OrderError('a delivery is named as in ["QUEUE-ID", 0]')
    return tuple(keys)


def _object(line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise OrderError(f"not JSON: {error}") from None
    if not isinstance(said, dict):
        raise OrderError("a line is one JSON object")
    return said


def _line(said: dict[str, Any]) -> bytes:
    return json.dumps(said, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"
