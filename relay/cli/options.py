"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from relay.config.kinds import duration
from relay.config.load import load
from relay.config.settings import Config
from relay.errors import ConfigError

config_option = click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=Path("/etc/slip-relay/relay.toml"),
    show_default=True,
    help="The configuration file.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="JSON for programs, with every field.")


def as_duration(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """A length of time as the configuration writes it, in seconds."""
    if value is None:
        return None
    try:
        return duration(int(value) if value.isdigit() else value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


def load_or_exit(path: Path, check: Callable[[Config], None] | None = None) -> Config:
    """The configuration; when it is wrong (or fails `check`), prints every mistake and exits with 1."""
    try:
        config = load(path)
        if check is not None:
            check(config)
        return config
    except ConfigError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        count = len(error.problems)
        click.echo(f"slip-relay: the configuration has {count} mistake{'s' if count > 1 else ''}", err=True)
        raise SystemExit(1) from None
