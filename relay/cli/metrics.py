"""`slip-relay metrics`: what the running service has counted, in the text format of Prometheus."""

from __future__ import annotations

from pathlib import Path

import click

from relay.cli.options import config_option, load_or_exit
from relay.control.client import metrics_of


@click.command
@config_option
def metrics(config_path: Path) -> None:
    """What the service has counted since its start, for Prometheus.

    As root or the account of the service. For the textfile collector of node_exporter: write it to a file from a timer.
    """
    click.echo(metrics_of(load_or_exit(config_path)), nl=False)
