"""`slip-relay check` tries what next hops need: authorities, our certificate, source addresses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from relay.cli import command
from relay.config.load import load
from tests.harness.certificates import make
from tests.unit.conftest import Tree
from tests.unit.test_config import write

GUIDE = Path(__file__).parents[2] / "docs" / "letters.md"


def checked(folder: Path, tree: Tree, **settings: Any) -> Any:
    tree["next_hops"][0] |= {"tls": "required", **settings}
    return CliRunner().invoke(command, ["check", "-c", str(write(folder, tree))])


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A certificate, its key, another one's key, a locked key, and what is no certificate at all."""
    made, other = make(tmp_path, "relay.lib.example", days=3), make(tmp_path, "other.example", days=80)
    locked = tmp_path / "locked.key"
    locked.write_bytes(made.signing_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    (tmp_path / "rubbish").write_text("rubbish")
    return {
        "certificate": str(made.certificate),
        "key": str(made.key),
        "other certificate": str(other.certificate),
        "other key": str(other.key),
        "locked": str(locked),
        "rubbish": str(tmp_path / "rubbish"),
    }


def test_it_says_when_our_certificate_ends(tmp_path: Path, tree: Tree, files: dict[str, str]) -> None:
    result = checked(tmp_path, tree, client_certificate=files["certificate"], client_key=files["key"])
    assert result.exit_code == 0, result.stderr
    assert "next hop default: renew its client certificate: relay.lib.example ends on 2" in result.stderr
    result = checked(tmp_path, tree, client_certificate=files["other certificate"], client_key=files["other key"])
    assert "next hop default: its client certificate other.example ends on 2" in result.stdout


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (
            {"client_certificate": "certificate", "client_key": "other key"},
            "next_hops[1].client_certificate ('default'): the client certificate {certificate} with the key "
            "{other key} can't be used: the key is that of another certificate",
        ),
        (
            {"client_certificate": "rubbish", "client_key": "key"},
            "can't be used: they are not PEM files of a certificate and its key",
        ),
        (
            {"client_certificate": "certificate", "client_key": "locked"},
            "can't be used: the key is encrypted; write it without a password, readable by the service only",
        ),
        ({"ca_file": "rubbish"}, "next_hops[1].ca_file ('default'): the authorities in {rubbish} can't be used"),
    ],
    ids=["another's key", "no certificate", "locked key", "no authorities"],
)
def test_files_that_can_t_be_used(
    tmp_path: Path, tree: Tree, files: dict[str, str], settings: dict[str, str], complaint: str
) -> None:
    result = checked(tmp_path, tree, **{name: files[file] for name, file in settings.items()})
    assert result.exit_code == 1
    assert complaint.format(**files) in result.stderr


def test_authorities_and_place_of_policies_that_can_t_be_used(
    tmp_path: Path, tree: Tree, files: dict[str, str]
) -> None:
    tree["mta_sts"] = {"ca_file": files["rubbish"], "policies": str(tmp_path / "nowhere" / "policies.json")}
    del tree["next_hops"][0]["host"]
    result = checked(tmp_path, tree, tls="encrypted")
    assert result.exit_code == 1
    assert f"mta_sts.ca_file: the authorities in {files['rubbish']} can't be used" in result.stderr
    assert f"mta_sts.policies: the folder {tmp_path}/nowhere does not exist or can't be written" in result.stderr


def test_the_examples_of_the_guide_are_right(tmp_path: Path, tree: Tree) -> None:
    section = GUIDE.read_text(encoding="utf-8").partition("\n## Next hops\n")[2].partition("\n## ")[0]
    example = section.partition("```toml\n")[2].partition("```")[0].replace("/usr/bin/curl", "/bin/true")
    for path in re.findall(r'"(/etc/slip-relay/[^"]+)"', example):
        (tmp_path / Path(path).name).write_text("0123456789abcdef")
    example = example.replace("/etc/slip-relay/", f"{tmp_path}/")
    del tree["next_hops"]
    tree["institutions"][0]["next_hop"] = "campus"
    path = write(tmp_path, tree)
    path.write_text(path.read_text() + example)
    hops = load(path).next_hops
    assert [hop.name for hop in hops] == ["campus", "m365-connector", "m365-mailbox", "world"]
    assert hops[0].smarthosts == (("smtp1.campus.example", 587), ("smtp2.campus.example", 587))


def test_a_source_address_that_is_not_of_this_machine(tmp_path: Path, tree: Tree) -> None:
    assert checked(tmp_path, tree, source_address=["127.0.0.5", "::1"]).exit_code == 0
    result = checked(tmp_path, tree, source_address="192.0.2.77")
    assert result.exit_code == 1
    assert (
        "next_hops[1].source_address ('default'): nothing can be sent from 192.0.2.77: Cannot assign requested address"
        in result.stderr
    )
