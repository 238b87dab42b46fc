"""The command `slip-relay`. A person's mistake ends with one clear message and exit code 1 (2 for wrong usage), never
a trace.

Each command's module is loaded when it is called: a look at the queue need not wait for the parts of the mail server.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click

from relay import __version__
from relay.errors import RelayError

_HOMES = {
    "check": "check",
    "dkim": "dkim",
    "dns": "dns",
    "explain": "slips",
    "hash-password": "service",
    "metrics": "metrics",
    "pictures": "pictures",
    "printers": "printers",
    "profiles": "slips",
    "queue": "queue",
    "render": "slips",
    "reprint": "reprint",
    "send-test": "send_test",
    "serve": "service",
    "sources": "sources",
    "spool": "spool",
}
"""In which module of this package each command is defined, under its own name."""


class _Commands(click.Group):
    """The commands, loaded when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return list(_HOMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; None when there is none."""
        if cmd_name not in _HOMES:
            return None
        found: click.Command = getattr(import_module(f"relay.cli.{_HOMES[cmd_name]}"), cmd_name.replace("-", "_"))
        return found


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="slip-relay")
def command() -> None:
    """E-mail and print-slip relay for libraries that run Ex Libris Alma."""


def main() -> None:
    """Entry point of the distribution."""
    try:
        command()
    except (RelayError, OSError) as error:
        click.echo(f"slip-relay: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
