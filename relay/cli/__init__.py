"""The command `slip-relay`. A person's mistake ends with one clear message and exit code 1 (2 for wrong usage), never
a trace.
"""

from __future__ import annotations

import sys

import click

from relay import __version__
from relay.cli import check, dkim, queue, service, spool
from relay.errors import RelayError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="slip-relay")
def command() -> None:
    """E-mail and print-slip relay for libraries that run Ex Libris Alma."""


command.add_command(service.serve)
command.add_command(check.check)
command.add_command(service.hash_password)
command.add_command(queue.queue)
command.add_command(spool.spool)
command.add_command(dkim.dkim)


def main() -> None:
    """Entry point of the distribution."""
    try:
        command()
    except (RelayError, OSError) as error:
        click.echo(f"slip-relay: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
