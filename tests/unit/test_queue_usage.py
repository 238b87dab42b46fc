"""Wrong usage of the queue on the command line: refused before anything is looked at."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from relay.cli import command


@pytest.mark.parametrize(
    "arguments",
    [
        "hold",
        "release --all 06GXWTSGYD8QM",
        "retry --all --route one",
        "cancel --route one",
        "cancel --all",
        "printed",
        "list --older-than soon",
        "list --state lost",
        "list --limit 0",
        "export",
        "shred 06GXWTSGYD8QM",
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: str) -> None:
    ran = CliRunner().invoke(command, ["queue", *arguments.split()])
    assert ran.exit_code == 2
    assert ran.stdout == ""
    assert "Usage:" in ran.stderr
