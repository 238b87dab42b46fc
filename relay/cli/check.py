"""`check`: every mistake of the configuration, also those that only show when keys and templates are tried."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from relay.cli.options import config_option, load_or_exit
from relay.config.listeners import Listener
from relay.config.rule_checks import Place, nonsense
from relay.config.settings import Config
from relay.errors import ConfigError, Problem, RelayError
from relay.intake.tls import certificate_in, certificate_of, server_context
from relay.outgoing.keys import load_keys
from relay.slips import trial
from relay.slips.selectors import check_selector
from relay.transports.contexts import client_context
from relay.transports.opening import try_source
from relay.transports.tls_policy import Authorities, Start, TlsPolicy


@click.command()
@config_option
def check(config_path: Path) -> None:
    """Check the configuration: every mistake with its place. Exit code 0 when there is none, else 1."""
    config = load_or_exit(config_path, _try_parts)
    click.echo(
        f"{config_path}: no mistakes; {len(config.institutions)} institutions, {len(config.sources)} sources, "
        f"{len(config.printers)} printers, {len(config.next_hops)} next hops"
    )
    _tell_certificates(config)


def _tell_certificates(config: Config) -> None:
    """When the certificates of listeners and next hops end; what ends soon stands on standard error."""
    now = time.time()
    shown = [(f"listener {each.name}", "", each.tls_certificate) for each in config.listeners]
    shown += [(f"next hop {each.name}", "client ", each.client_certificate) for each in config.next_hops]
    for whose, kind, file in shown:
        if file is not None:
            certificate = certificate_in(file)
            is_soon = certificate.ends_at - now <= config.tls.warn_before
            click.echo(
                f"{whose}: {'renew its' if is_soon else 'its'} {kind}certificate{':' if is_soon else ''} "
                f"{certificate.in_words(now)}",
                err=is_soon,
            )


def _try_parts(config: Config) -> None:
    """Raises ConfigError with every key, certificate, template and folder that can't be used."""
    problems: list[Problem] = []
    for i, institution in enumerate(config.institutions):
        for j, key in enumerate(institution.dkim):
            setting = next(name for name in ("key_file", "key_env", "key_folder") if getattr(key, name) is not None)
            place = f"institutions[{i + 1}].dkim[{j + 1}].{setting} ({institution.name!r})"
            _collect(problems, place, partial(load_keys, key))
    for i, listener in enumerate(config.listeners):
        if listener.tls_certificate is not None:
            place = f"listeners[{i + 1}].tls_certificate ({listener.name!r})"
            _collect(problems, place, partial(_try_certificate, listener))
    for i, hop in enumerate(config.next_hops):
        _collect(problems, f"next_hops[{i + 1}].ca_file ({hop.name!r})", TlsPolicy.of(hop).context)
        if hop.client_certificate is not None:
            place = f"next_hops[{i + 1}].client_certificate ({hop.name!r})"
            _collect(problems, place, partial(client_context, hop, TlsPolicy(Start.ALWAYS, "")))
        place = f"next_hops[{i + 1}].source_address ({hop.name!r})"
        for address in hop.source_address:
            _collect(problems, place, partial(try_source, address))
    for i, profile in enumerate(config.profiles):
        for setting, fault in trial.faults(profile):
            problems.append(Problem(f"profiles[{i + 1}].{setting} ({profile.name!r})", fault))
    problems += [Problem(_place(config, where), text) for where, text in nonsense(config)]
    for i, rule in enumerate(config.rules):
        for j, element in enumerate(rule.elements):
            place = f"rules[{i + 1}].elements[{j + 1}].selector ({rule.name!r})"
            _collect(problems, place, partial(check_selector, element.selector))
    for i, printer in enumerate(config.printers):
        if printer.sort is not None:
            _collect(problems, f"printers[{i + 1}].sort ({printer.name!r})", partial(check_selector, printer.sort))
    folder = config.spool.path.parent if config.spool.path is not None else None
    if folder is not None and not (folder.is_dir() and os.access(folder, os.W_OK)):
        problems.append(Problem("spool.url", f"the folder {folder} does not exist or can't be written"))
    answers = config.spf_file()
    if any(source.spf for source in config.sources) and answers is not None and not os.access(answers.parent, os.W_OK):
        problems.append(Problem("dns.spf_file", f"the folder {answers.parent} does not exist or can't be written"))
    _collect(problems, "mta_sts.ca_file", TlsPolicy(Start.ALWAYS, "", Authorities(config.mta_sts.ca_file)).context)
    policies = config.mta_sts_file()
    if config.uses_mta_sts and policies is not None and not os.access(policies.parent, os.W_OK):
        problems.append(Problem("mta_sts.policies", f"the folder {policies.parent} does not exist or can't be written"))
    copies = config.copies().folder
    if copies is not None and not os.access(copies if copies.is_dir() else copies.parent, os.W_OK):
        problems.append(Problem("pictures.folder", f"the folder {copies} can't be made or written"))
    if problems:
        raise ConfigError(problems)


def _try_certificate(listener: Listener) -> None:
    server_context(listener)
    certificate_of(listener)


def _place(config: Config, place: Place) -> str:
    """The place of a rule, as `relay.config.load` writes it."""
    table, number, *setting = place
    assert isinstance(number, int)
    return f"{table}[{number + 1}]{''.join(f'.{each}' for each in setting)} ({config.rules[number].name!r})"


def _collect(problems: list[Problem], place: str, try_it: Callable[[], object]) -> None:
    try:
        try_it()
    except RelayError as error:
        problems.append(Problem(place, str(error)))
