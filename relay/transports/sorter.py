"""Mail that has to be sorted before it goes anywhere: a rule wants to read its letter, or makes several deliveries.

Does: has a rendering child describe the letter, where a rule asks for it; asks all the rules again; says where the
delivery goes on and what is added to its message. The spool then does all of that in one transaction.
Promises: nothing leaves the machine here, so an attempt that was cut off is simply made again. A letter that can't be
read, or that ends the child, goes on as if no rule that reads letters matched, with a note. One after the other for
each institution, in order of arrival, so that the slips of a printer stay in it.
Known limit: what needs no sorting does not wait for what does; the two may change places by the time it takes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from relay.config.settings import Config
from relay.errors import HeaderError, RenderError, RendererUnavailable
from relay.mail import headers
from relay.mail.address import Address, parse_address
from relay.routing import rules
from relay.routing.conditions import Arrival
from relay.slips.facts import Facts, Wanted
from relay.spool.records import Delivery, Message, NewDelivery, Onward, Outcome, State
from relay.transports import Limits

SHUT_FOR = 5.0
"""Seconds until a letter is looked at again for which there was no rendering child; those behind it wait too."""


class Reader(Protocol):
    """Who reads letters (`relay.slips.pool.RenderPool`)."""

    async def describe(self, message: bytes, wanted: Wanted) -> Facts:
        """What the letter of a message is like. Raises RenderError and RendererUnavailable."""
        ...


class Sorter:
    """The mail of one institution; `released` when a person has let it go, so that no rule holds it."""

    limits = Limits(total=1, per_destination=1, by_one_node=True)

    def __init__(self, config: Config, institution: str, reader: Reader, *, released: bool) -> None:
        self._config = config
        self._reader = reader
        self._released = released
        self._wanted = rules.wanted(config, institution)

    async def deliver(self, delivery: Delivery, content: bytes) -> Outcome:
        """Asks the rules, and says what they made of it."""
        arrival = arrived(delivery.message, parse_address(delivery.recipient), content)
        facts = None
        decision = rules.decide(self._config, arrival, passing_holds=self._released)
        if decision is None:
            try:
                facts = await self._reader.describe(content, self._wanted)
            except RenderError as error:
                facts = Facts(unreadable=str(error))
            except RendererUnavailable as error:
                return Outcome(State.DEFERRED, str(error), shut_for=SHUT_FOR)
            decision = rules.decide(self._config, arrival, facts, passing_holds=self._released)
            assert decision is not None, "with facts there is always a decision"
        onward = self._onward(delivery, decision)
        state = State.DELIVERED if onward.way is None else State.QUEUED
        return Outcome(state, _in_words(decision), notes=_notes(facts), onward=onward)

    def interrupt(self) -> None:
        """A letter is read quickly, or its child is ended."""

    async def close(self) -> None:
        """Nothing to let go of: the children belong to all."""

    def _onward(self, delivery: Delivery, decision: rules.Decision) -> Onward:
        way = None
        if decision.route is not None:
            way = self._new(delivery, delivery.recipient, decision.route, delivery.notify, decision)
        # Nobody asked to be told of a copy. What is forwarded is the sender's mail under another name (RFC 3461 5.2.7).
        more = [self._additional(delivery, each, delivery.notify) for each in decision.forwards]
        more += [
            self._additional(delivery, each, delivery.notify if each.printer else "NEVER")
            for each in decision.copies_to
        ]
        return Onward(way, tuple(more), at_once=self._released)

    def _additional(self, delivery: Delivery, each: rules.Additional, notify: str) -> NewDelivery:
        new = self._new(delivery, str(each.recipient), each.route, notify, None)
        if each.printer and self._config.printer(each.printer).duplicates.message_id:
            return replace(new, once_at=each.printer)
        return new

    def _new(
        self, delivery: Delivery, recipient: str, route: rules.Route, notify: str, decision: rules.Decision | None
    ) -> NewDelivery:
        warn_at, expires_at = self._config.delivery_for(route.name).deadlines(delivery.message.received_at)
        return NewDelivery(
            recipient=recipient,
            route=route.name,
            destination=route.destination,
            notify=notify,
            orcpt=delivery.orcpt if notify != "NEVER" else "",
            warn_at=warn_at,
            expires_at=expires_at,
            profile=decision.profile if decision is not None else "",
            copies=decision.copies if decision is not None else 0,
            merge=decision is not None and decision.merge,
            copy_of=delivery.number if decision is None else delivery.copy_of,
        )


def arrived(message: Message, recipient: Address, content: bytes) -> Arrival:
    """A message that is in the spool as it was when it arrived."""
    try:
        domains = tuple(headers.from_domains(headers.section(content)))
    except HeaderError:
        domains = ()
    return Arrival(
        institution=message.institution,
        source=message.source,
        recipient=recipient,
        sender=message.reverse_path,
        from_domains=domains,
        size=message.size,
        at=message.received_at,
    )


def _in_words(decision: rules.Decision) -> str:
    """What was decided, for the log and the history."""
    ways = [decision.route.name] if decision.route is not None else []
    ways += [f"forwarded to {each.recipient}" for each in decision.forwards]
    ways += [f"a copy to {each.route.printer or each.recipient}" for each in decision.copies_to]
    return f"sorted by {decision.because}: {', '.join(ways)}"


def _notes(facts: Facts | None) -> tuple[str, ...]:
    if facts is None:
        return ()
    if facts.unreadable:
        return (f"the rules could not read the letter: {facts.unreadable}",)
    return (f"the letter is a {facts.letter_type}" if facts.letter_type else "the type of the letter is not known",)
