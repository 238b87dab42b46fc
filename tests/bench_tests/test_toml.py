"""What is written as TOML reads back the same, and extra tables find their place."""

import tomllib
from pathlib import Path

from relay.config.load import load
from tests.harness import toml
from tests.harness.institution import Institution, Ports


def test_tables_read_back_the_same() -> None:
    tables = {
        "version": 1,
        "server": {"name": 'with "quotes", \\ and ü', "on": True, "secret": {"file": "/x"}, "empty": []},
        "lists": [{"name": "a", "ports": [1, 2]}, {"name": "b", "keys": [{"d": "x", "n": 1.5}]}],
    }
    assert tomllib.loads(toml.dumps(tables)) == tables


def test_extra_tables_are_merged_and_lists_are_joined() -> None:
    base = {"delivery": {"first": "1s", "longest": "10s"}, "printers": [{"name": "a", "queue": "a"}]}
    extra = {"delivery": {"first": "2s"}, "printers": [{"name": "b", "queue": "b"}, {"name": "a", "queue": "z"}],
             "rules": [{"name": "r"}]}  # fmt: skip
    assert toml.merged(base, extra) == {
        "delivery": {"first": "2s", "longest": "10s"},
        "printers": [{"name": "a", "queue": "z"}, {"name": "b", "queue": "b"}],
        "rules": [{"name": "r"}],
    }
    assert base["printers"] == [{"name": "a", "queue": "a"}]


def test_the_demo_configuration_has_no_mistakes(tmp_path: Path) -> None:
    library = Institution(tmp_path, Ports(20000))
    library.write_config({"rules": [{"name": "no-ads", "recipient": "ads@*", "discard": True}]})
    config = load(library.config)
    assert {printer.name for printer in config.printers} == {"laser", "a5", "receipt"}
    assert config.rules[0].name == "no-ads"
    for private in (library.dkim_key, library.certificate_key, library.secret):
        assert private.stat().st_mode & 0o077 == 0
