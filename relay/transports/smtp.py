"""SMTP to a next hop: one delivery is one transaction with one recipient.

5yz settles as failed; 4yz, a lost connection and an answer that never came are deferred. When the answer after the
final dot is not known the delivery is deferred too: the mail may arrive twice, with the same Message-ID, never not at
all. MAIL, RCPT and DATA are sent at once to a host that allows it (RFC 2920), each reply is minded.
A message is made ready when the extensions of the host are known, in a form that it takes; what has none fails. One
whose signature is not good by our own judgement is held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace

from relay.config.next_hops import NextHop
from relay.dns.resolver import Resolver
from relay.dns.sts_policies import StsPolicies
from relay.errors import (
    BadSignature,
    CredentialsMissing,
    DnsError,
    NoSecureWay,
    NoSuchDomain,
    NullMx,
    Unconvertible,
)
from relay.mail import headers
from relay.mail.address import Address, ascii_domain, parse_address
from relay.mail.status import Reply, printable
from relay.maillog import MailLog
from relay.outgoing.assemble import Assembler, OutgoingMail
from relay.spool.records import Delivery, Message, Outcome, State
from relay.transports import Limits
from relay.transports.connection import Connection, ConnectionPool
from relay.transports.dialogue import Dialogue, Lost
from relay.transports.letter import LARGE, Letter
from relay.transports.mx_security import IN_TESTING, Wish
from relay.transports.opening import NoSession, Opener, SessionRefused
from relay.transports.rests import Rests
from relay.transports.targets import Target, Targets


class _Answered(Exception):
    """The next hop said no; the session is still good."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class _Passed(Exception):
    """A target that has not seen the mail; the outcome where there is no other."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class SmtpTransport:
    """Deliveries to one next hop."""

    def __init__(
        self,
        hop: NextHop,
        hostname: str,
        assembler: Assembler,
        resolver: Resolver,
        maillog: MailLog,
        *,
        backoff_first: float,
        policies: StsPolicies | None = None,
    ) -> None:
        """`backoff_first` is the time in seconds after which a host that can't be reached is asked again; without
        `policies` there is no MTA-STS.
        """
        self.limits = Limits(
            total=hop.concurrency,
            per_destination=min(hop.max_per_domain, hop.concurrency) if hop.goes_by_mx else hop.concurrency,
            rate=hop.max_rate,
            backoff_first=min(backoff_first, hop.backoff_longest),
            backoff_longest=hop.backoff_longest,
        )
        self._hop = hop
        self._maillog = maillog
        self._assembler = assembler
        self._targets = Targets(hop, resolver, policies)
        self._rests = Rests(self.limits.backoff_first, self.limits.backoff_longest)
        self._pool = ConnectionPool(Opener(hop, hostname, maillog), hop.idle_timeout)

    async def deliver(self, delivery: Delivery, content: bytes) -> Outcome:
        """Sends the delivery to the first smarthost, or MX host, that can be reached."""
        recipient = parse_address(delivery.recipient)
        wish = self._wish(delivery.message, content)
        try:
            targets = await self._targets.of(recipient, wish)
        except NullMx as error:
            return Outcome(State.FAILED, str(error), Reply(556, "5.1.10", str(error)))
        except NoSuchDomain as error:
            return Outcome(State.FAILED, str(error), Reply(550, "5.1.2", str(error)))
        except NoSecureWay as error:
            return Outcome(State.FAILED, str(error), Reply(550, "5.7.30", str(error)))
        except DnsError as error:
            return Outcome(State.DEFERRED, str(error), trouble="unreachable")
        try:
            letter = Letter(self._assembler, delivery, content)
            return await self._send(letter, recipient.domain, wish, self._rests.in_order(targets))
        except CredentialsMissing as error:
            return Outcome(State.DEFERRED, str(error), trouble="unreachable")

    def interrupt(self) -> None:
        """A transaction is better ended than cut off: the answer to it may be on its way."""

    async def close(self) -> None:
        """Ends the kept sessions."""
        self._targets.close()
        await self._pool.close()

    def _wish(self, message: Message, content: bytes) -> Wish:
        """What the sender says about TLS. A DSN leaves whatever a host promises: nobody would be told that it did not
        (RFC 8689 5).
        """
        if message.requiretls:
            return Wish.REQUIRED if message.reverse_path is not None else Wish.NONE
        if self._hop.goes_by_mx and headers.tls_is_unimportant(headers.section(content)):
            return Wish.UNIMPORTANT
        return Wish.NONE

    async def _send(self, letter: Letter, domain: str, wish: Wish, targets: Sequence[Target]) -> Outcome:
        """Sends it to the first target that takes part in a transaction; what is said of it is the outcome."""
        failed: list[Outcome] = []
        unfit: list[Outcome] = []
        before: dict[str, str] = {}
        for target in targets:
            try:
                outcome = await self._try_target(target, letter, wish)
            except Unconvertible as error:  # another may take more
                unfit.append(_unfit(target, error, Reply(554, error.enhanced, str(error))))
                self._rests.reached(target)
            except NoSecureWay as error:  # another may promise more
                unfit.append(_unfit(target, error, Reply(550, "5.7.30", str(error))))
                self._rests.reached(target)
            except _Passed as passed:
                failed.append(passed.outcome)
                before[target.address] = passed.outcome.reason
                self._rests.failed(target)
            else:
                self._rests.reached(target)
                if outcome.state is State.DELIVERED and target.tls.name in IN_TESTING:
                    why = before.get(target.address) or IN_TESTING[target.tls.name]
                    self._maillog.tls_missed(domain, host=target.name, policy="mta-sts", why=why)
                return outcome
        if not failed:
            if not unfit:
                return Outcome(State.DEFERRED, "there is no host to send it to")
            return replace(unfit[-1], reason="; ".join(outcome.reason for outcome in unfit))
        # The reply that is told, in a DSN too, is the last one that there was.
        told = next((outcome for outcome in reversed(failed) if outcome.reply is not None), failed[-1])
        return replace(told, reason="; ".join(outcome.reason for outcome in [*unfit, *failed]))

    async def _try_target(self, target: Target, letter: Letter, wish: Wish) -> Outcome:
        """The outcome at a target. Raises _Passed, Unconvertible and NoSecureWay where another may be tried, and
        CredentialsMissing.
        """
        host, fresh = target.name, False
        while True:
            try:
                connection = await self._pool.lend(target, fresh=fresh)
            except SessionRefused as error:
                # Whatever the code: the mail has not been seen.
                outcome = Outcome(State.DEFERRED, str(error), error.reply, trouble="unreachable", remote_host=host)
                raise _Passed(outcome) from None
            except NoSession as error:
                raise _Passed(Outcome(State.DEFERRED, str(error), trouble="unreachable")) from None
            if wish is Wish.REQUIRED and "requiretls" not in connection.dialogue.offers:
                self._pool.give_back(target, connection)
                raise NoSecureWay("it does not offer REQUIRETLS, which the mail asks for")
            try:
                mail = await letter.ready_for(connection.dialogue.offers)
                reply = await self._transaction(connection, mail)
            except BadSignature as error:
                self._pool.give_back(target, connection)
                return Outcome(State.HELD, f"not sent: {error}")
            except Unconvertible:
                self._pool.give_back(target, connection)
                raise
            except _Answered as answer:
                if answer.reply.code == 421 and connection.is_stale:
                    connection.dialogue.close()
                    fresh = True
                    continue
                if answer.reply.code == 421 and not connection.data_begun:
                    connection.dialogue.close()
                    raise _Passed(_refused(host, answer.reply)) from None  # it shuts down (RFC 5321 3.8)
                await self._after_refusal(target, connection)
                return _refused(host, answer.reply)
            except Lost as error:
                connection.dialogue.close()
                if connection.is_stale:
                    fresh = True
                    continue
                outcome = Outcome(
                    State.DEFERRED, f"the connection to {target} was lost: {_in_words(error)}", trouble="lost"
                )
                if connection.data_begun:  # it may have taken the mail
                    return outcome
                raise _Passed(outcome) from None
            except BaseException:
                connection.dialogue.close()
                raise
            self._pool.give_back(target, connection)
            passed_on = "dsn" in connection.dialogue.offers
            reason = f"taken by {host} ({connection.security}){', converted' if mail.is_converted else ''}"
            return Outcome(State.DELIVERED, reason, reply, remote_host=host, dsn_passed_on=passed_on)

    async def _transaction(self, connection: Connection, mail: OutgoingMail) -> Reply:
        dialogue = connection.dialogue
        await self._begin(dialogue, *_commands(mail, dialogue.offers))
        connection.data_begun = True
        if mail.size < LARGE:
            dialogue.say(stuffed(mail.content))
            reply = await dialogue.reply(self._hop.data_timeout)
        else:
            reply = await self._send_large(dialogue, mail)
        return _expected(250, reply)

    async def _begin(self, dialogue: Dialogue, *commands: bytes) -> None:
        """MAIL, RCPT and DATA; returns when the host waits for the message."""
        at_once = "pipelining" in dialogue.offers
        if at_once:
            dialogue.say(*commands)
        for number, command in enumerate(commands):
            if not at_once:
                dialogue.say(command)
            reply = await dialogue.reply(self._hop.timeout)
            try:
                _expected(354 if command is commands[-1] else 250, reply)
            except _Answered:
                if at_once:
                    await self._call_off(dialogue, len(commands) - number - 1)
                raise

    async def _call_off(self, dialogue: Dialogue, said: int) -> None:
        """After a refusal: takes the replies to the commands that were said already behind the refused one."""
        try:
            replies = [await dialogue.reply(self._hop.timeout) for _ in range(said)]
            if not replies or replies[-1].code != 354:
                return
            if said > 1:
                dialogue.close()  # without a sender it would take even an empty message for one
                return
            # It waits for a message to nobody; a single dot ends it (RFC 2920 3.1).
            dialogue.say(b".\r\n")
            await dialogue.reply(self._hop.timeout)
        except Lost:
            dialogue.close()

    async def _send_large(self, dialogue: Dialogue, mail: OutgoingMail) -> Reply:
        try:
            async with asyncio.timeout(self._hop.data_timeout):
                await dialogue.send(stuffed_blocks(mail.own_fields, mail.original, start=mail.start))
        except TimeoutError:
            raise Lost(f"the message was not taken within {self._hop.data_timeout:g} s") from None
        return await dialogue.reply(self._hop.data_timeout)

    async def _after_refusal(self, target: Target, connection: Connection) -> None:
        """Keeps the session where it can begin anew."""
        try:
            connection.dialogue.say(b"RSET\r\n")
            reset = await connection.dialogue.reply(self._hop.timeout)
        except Lost:
            connection.dialogue.close()
            return
        if reset.code == 250:
            self._pool.give_back(target, connection)
        else:
            connection.dialogue.close()


def stuffed(content: bytes) -> bytes:
    """A message as it stands after DATA: a dot before each line that begins with one, and the end mark."""
    dot = b"." if content.startswith(b".") else b""
    end = b"" if content.endswith(b"\r\n") else b"\r\n"
    return b"".join((dot, content.replace(b"\r\n.", b"\r\n.."), end, b".\r\n"))


def stuffed_blocks(own_fields: bytes, original: bytes, size: int = LARGE, *, start: int = 0) -> Iterator[bytes]:
    """The same as `stuffed`, in blocks of about a size, with what of the original begins at `start`, a line. The fields
    before it are whole lines, and the first does not begin with a dot.
    """
    yield own_fields.replace(b"\r\n.", b"\r\n..")
    last = original if start < len(original) else own_fields
    while start < len(original):
        end = original.rfind(b"\n", start, start + size) + 1 or start + size
        if original[end - 1 : end] == b"\r" and end - 1 > start:
            end -= 1  # a line end is never cut in two
        if original.startswith(b".", start) and (start == 0 or original.endswith(b"\r\n", 0, start)):
            yield b"."
        yield original[start:end].replace(b"\r\n.", b"\r\n..")
        start = end
    yield b".\r\n" if last.endswith(b"\r\n") else b"\r\n.\r\n"


def _commands(mail: OutgoingMail, offers: frozenset[str]) -> tuple[bytes, bytes, bytes]:
    """MAIL, RCPT and DATA for a host with these extensions, which suit the mail."""
    from_ = [b"MAIL FROM:<%s>" % _wire(mail.reverse_path, mail.smtputf8)]
    if "size" in offers:
        from_.append(b"SIZE=%d" % mail.size)
    if mail.eight_bit and "8bitmime" in offers:
        from_.append(b"BODY=8BITMIME")
    if mail.smtputf8:
        from_.append(b"SMTPUTF8")
    if mail.requiretls and "requiretls" in offers:
        from_.append(b"REQUIRETLS")
    to = [b"RCPT TO:<%s>" % _wire(parse_address(mail.recipient), mail.smtputf8)]
    if "dsn" in offers:
        from_ += _words(RET=mail.ret, ENVID=mail.envid)
        to += _words(NOTIFY=mail.notify, ORCPT=mail.orcpt)
    return b" ".join(from_) + b"\r\n", b" ".join(to) + b"\r\n", b"DATA\r\n"


def _expected(code: int, reply: Reply) -> Reply:
    if reply.code // 10 != code // 10:
        raise _Answered(reply)
    return reply


def _wire(address: Address | None, smtputf8: bool) -> bytes:
    """A path's inside as it is sent: A-labels unless the mail is internationalised."""
    if address is None:
        return b""
    if smtputf8:
        return str(address).encode("utf-8")
    return str(Address(address.local, ascii_domain(address.domain))).encode("ascii")


def _words(**parameters: str) -> list[bytes]:
    """Parameters as they are sent; those that were not given are left out (RFC 3461 5.2.1)."""
    return [f"{name}={value}".encode("ascii") for name, value in parameters.items() if value]


def _unfit(target: Target, error: Exception, reply: Reply) -> Outcome:
    return Outcome(State.FAILED, f"{target.name} can't be sent it: {error}", reply, remote_host=target.name)


def _refused(host: str, reply: Reply) -> Outcome:
    if reply.permanent:
        return Outcome(State.FAILED, f"{host} refused it: {reply}", reply, remote_host=host)
    return Outcome(State.DEFERRED, f"{host} put it off: {reply}", reply, remote_host=host)


def _in_words(error: Exception) -> str:
    return printable(str(error), 300) or type(error).__name__
