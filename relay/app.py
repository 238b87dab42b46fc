"""The one place that builds the parts; start order and stop order.

Starting: keys, lock and spool, renderer, runner, ports; what can't work says so before a port is open. Stopping: ports,
sessions, running attempts, renderer, spool; what was not finished is taken up at the next start.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from functools import partial

from relay import __version__
from relay.bounces.notify import Notifier
from relay.config.settings import Config
from relay.control import protocol
from relay.control.desk import Desk
from relay.control.place import socket_path
from relay.control.server import ControlSocket
from relay.control.sources import report
from relay.control.trials import Trials, WatchedAssembler
from relay.delivery.attempt import Attempts
from relay.delivery.gates import Gate
from relay.delivery.runner import Runner
from relay.dns.resolver import Resolver
from relay.dns.sts_fetch import PolicyFetcher
from relay.dns.sts_policies import StsPolicies
from relay.errors import PrintError, RenderError, StartError
from relay.intake.accept import Acceptance
from relay.intake.listener import Listeners
from relay.intake.policy import Policy
from relay.intake.spf_sources import SpfSources
from relay.intake.staging import Staging
from relay.maillog import MailLog
from relay.notices.post import Post
from relay.outgoing.key_watch import KeyWatch
from relay.outgoing.sign import Signer
from relay.pictures.fetch import Fetcher
from relay.pictures.shelf import Shelf
from relay.printing.cups import CupsServer
from relay.routing.calendar import Calendar
from relay.routing.rules import DISCARD, HOLD, PRINT, RELEASED, SORT, merges
from relay.slips import trial
from relay.slips.pool import RenderPool
from relay.slips.selectors import check_selector
from relay.spool.engine import Place
from relay.spool.records import State
from relay.spool.retention import Retention
from relay.spool.store import Store
from relay.transports import Transport
from relay.transports.binder import BatchBinder
from relay.transports.parked import Parked
from relay.transports.printer import PrinterTransport
from relay.transports.smtp import SmtpTransport
from relay.transports.sorter import Sorter


class Appliance:
    """The running service of one configuration."""

    def __init__(self, config: Config) -> None:
        """Builds the parts. Raises StartError when a key or a selector is unusable."""
        _check_selectors(config)
        self._config = config
        self._maillog = MailLog.of(config)
        self._store = Store(Place.of(config.spool), min_free=int(config.spool.min_free), lease=config.spool.lease)
        copies = config.copies()
        self._fetcher = Fetcher(copies, Shelf(copies.folder), self._maillog) if copies.folder is not None else None
        self._renderer = RenderPool(config.rendering, copies, self._fetcher.want if self._fetcher else None)
        self._cups = CupsServer(config.cups)
        signer = Signer(config.institutions)
        self._keys = KeyWatch(signer, config.institutions, self._maillog, config.tls.look_every)
        self._trials = Trials(config)
        self._assembler = WatchedAssembler(config, signer, self._maillog, self._trials)
        resolver = Resolver(config.dns)
        self._policies = _sts_policies(config, resolver, self._maillog)
        self._transports = self._build_transports(resolver)
        attempts = Attempts(config, self._store, self._transports, Notifier(config), self._maillog)
        self._runner = Runner(self._store, attempts, self._transports, self._maillog, self._build_gates())
        self._retention = Retention(self._store, config.spool, self._maillog)
        self._notices = Post(config, self._store, self._maillog)
        desk = Desk(config, self._store, self._maillog, self._runner.reopen, self._trials)
        self._spf = SpfSources(config, resolver, self._maillog)
        questions: dict[str, Callable[[], object]] = {
            protocol.METRICS: self._maillog.metrics.text,
            protocol.SOURCES: partial(report, config, self._spf),
            protocol.KEYS: self._keys.take,
            protocol.TRIALS: self._trials.seen,
        }
        self._control = ControlSocket(socket_path(config), desk, questions, self._maillog)
        policy = Policy(config, self._spf)
        folder = config.intake.folder or (self._store.place.path.parent if self._store.place.path else None)
        self._staging = Staging(config.intake, folder, self._store.has_room, self._maillog)
        acceptance = Acceptance(config, policy, self._store, self._maillog, self._runner, self._staging)
        self._listeners = Listeners(config, policy, acceptance, self._maillog)

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT. Raises StartError when it can't start."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._look_again)
        await self._check_cups()
        self._try_profiles()
        self._store.open()
        try:
            await self._serve(stop)
        finally:
            await self._stop()

    async def _serve(self, stop: asyncio.Event) -> None:
        if self._config.queues or self._config.reads_letters:
            await self._renderer.start()
        await self._open_control()
        await self._spf.open()
        if self._policies is not None:
            await self._policies.open()
        await self._listeners.open()
        self._maillog.service("started", version=__version__, hostname=self._config.server.hostname)
        runner = asyncio.create_task(self._runner.run(), name="runner")
        beside = [
            asyncio.create_task(self._retention.run(stop), name="clean-up"),
            asyncio.create_task(self._notices.run(stop), name="notices"),
            asyncio.create_task(self._spf.run(), name="SPF names"),
            asyncio.create_task(self._listeners.watch_certificates(), name="certificates"),
            asyncio.create_task(self._keys.run(), name="signing keys"),
        ]
        if self._policies is not None:
            beside.append(asyncio.create_task(self._policies.run(), name="MTA-STS"))
        stopped = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait([runner, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        self._maillog.service("stopping")
        self._listeners.close()
        await self._listeners.drain(self._config.delivery.stop_timeout)
        await self._runner.stop(self._config.delivery.stop_timeout)
        for task in beside:
            task.cancel()  # it has ended already, unless it waits for the spool
        await asyncio.gather(*beside, return_exceptions=True)
        if self._policies is not None:
            await self._policies.save()
        await runner  # a fault of the runner ends the service, for the service manager to start it anew

    def _look_again(self) -> None:
        """SIGHUP: certificates, signing keys and SPF names are looked at now."""
        self._spf.look_now()
        self._listeners.look_now()
        self._keys.take_kindly()

    async def _open_control(self) -> None:
        """On a server's spool orders can be given without this service, and another one may have the usual socket."""
        try:
            await self._control.open()
        except StartError as error:
            if self._config.control.socket is not None or self._config.spool.path is not None:
                raise
            self._maillog.service("control-missing", why=error)

    async def _stop(self) -> None:
        self._listeners.close()
        await self._control.close()
        await asyncio.gather(*(transport.close() for transport in self._transports.values()))
        await self._renderer.stop()
        if self._fetcher is not None:
            await self._fetcher.close()
        self._staging.close()
        await asyncio.to_thread(self._store.close)
        self._maillog.service("stopped")

    async def _check_cups(self) -> None:
        """What is wrong with the queues is said; letters go out and slips are taken all the same."""
        if not self._config.queues:
            return
        try:
            queues = await self._cups.queues()
        except PrintError as error:
            self._maillog.service("cups-away", why=f"{error}; mend cups.server in the configuration, or start CUPS")
            return
        for printer in self._config.queues:
            if printer.queue not in queues:
                self._maillog.service("queue-missing", printer=printer.name, queue=printer.queue)

    def _try_profiles(self) -> None:
        """A template that is wrong holds slips, and no other mail: it is said, and is no reason not to start."""
        for name in sorted({printer.profile for printer in self._config.queues}):
            for setting, fault in trial.faults(self._config.profile(name)):
                self._maillog.service("profile-wrong", profile=name, setting=setting, why=fault)

    def _build_transports(self, resolver: Resolver) -> dict[str, Transport]:
        """The way out for each route that the configuration knows."""
        config = self._config
        hostname = config.server.hostname
        transports: dict[str, Transport] = {DISCARD: Parked(State.DELIVERED, "discarded by a rule")}
        for hop in config.next_hops:
            backoff = config.delivery_for(hop.name).retry_first
            transports[hop.name] = SmtpTransport(
                hop, hostname, self._assembler, resolver, self._maillog, backoff_first=backoff, policies=self._policies
            )
        desks: dict[str, PrinterTransport] = {}
        for printer in config.queues:
            transport = PrinterTransport(printer, config, self._store, self._renderer, self._cups, self._maillog, desks)
            transports[PRINT + printer.name] = desks[printer.name] = transport
        for rule in config.rules:
            if rule.hold is not None:
                transports[HOLD + rule.name] = Parked(State.HELD, rule.hold)
        for each in config.institutions:
            transports[SORT + each.name] = Sorter(config, each.name, self._renderer, released=False)
            transports[RELEASED + each.name] = Sorter(config, each.name, self._renderer, released=True)
        return transports

    def _build_gates(self) -> dict[str, Gate]:
        """The gate for each printer whose slips wait for hours or release times."""
        gates = {}
        for printer in self._config.queues:
            calendar = Calendar.of(printer, self._config.server.time_zone)
            if calendar is not None:
                binder = BatchBinder(printer, self._config, self._store, self._renderer, self._cups, self._maillog)
                has_batches = printer.has_batches or merges(self._config, printer)
                gates[PRINT + printer.name] = Gate(calendar, binder if has_batches else None)
        return gates


def _sts_policies(config: Config, resolver: Resolver, maillog: MailLog) -> StsPolicies | None:
    """The MTA-STS policies, where mail goes by MX. Raises StartError when their authorities can't be used."""
    if not config.uses_mta_sts:
        return None
    return StsPolicies(config.mta_sts_file(), resolver, PolicyFetcher(config.mta_sts, resolver), maillog)


def _check_selectors(config: Config) -> None:
    for printer in config.printers:
        if printer.sort is not None:
            try:
                check_selector(printer.sort)
            except RenderError as error:
                raise StartError(f"the printer {printer.name}: sort: {error}") from None
    for rule in config.rules:
        for element in rule.elements:
            try:
                check_selector(element.selector)
            except RenderError as error:
                raise StartError(f"the rule {rule.name}: {error}") from None


def serve(config: Config) -> None:
    """Runs the appliance until it is told to stop. Raises StartError."""
    os.umask(0o077)  # the spool holds patrons' mail
    asyncio.run(Appliance(config).run())
