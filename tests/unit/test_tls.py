"""Certificates of listeners: taken anew when they change, kept when the new one is wrong, told before they end."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import Encoding

from relay.cli import command
from relay.config.listeners import Listener
from relay.config.settings import Config
from relay.errors import StartError
from relay.intake.caller import Caller
from relay.intake.policy import Policy
from relay.intake.tls import DAY, ClientCertificate, ServerTls, server_context
from relay.maillog import MailLog
from tests.harness import certificates
from tests.harness.certificates import Made
from tests.unit.conftest import Tree
from tests.unit.test_config import write
from tests.unit.test_policy import NoNames, refused

Make = Callable[..., Config]


def listener(made: Made, **more: object) -> Listener:
    return Listener.model_validate(
        {"name": "smtp", "port": 25, "tls_certificate": made.certificate, "tls_key": made.key, **more}
    )


def tls_of(made: Made, warn_days: float = 14) -> ServerTls:
    return ServerTls(listener(made), MailLog(), warn_days * DAY)


def test_only_modern_tls_is_spoken(tmp_path: Path) -> None:
    context = server_context(listener(certificates.make(tmp_path, "relay.example")))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    names = {cipher["name"] for cipher in context.get_ciphers()}
    assert names
    assert all(name.startswith(("TLS_", "ECDHE-")) and ("GCM" in name or "CHACHA20" in name) for name in names)


def test_a_new_certificate_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "slip-relay")
    tls = tls_of(certificates.make(tmp_path, "relay.example", days=30))
    before, ended = tls.context, tls.certificate.ends_at
    tls.look(time.time())
    assert tls.context is before
    certificates.make(tmp_path, "relay.example", days=90)
    tls.look(time.time())
    assert tls.context is not before
    assert tls.certificate.ends_at > ended + 50 * DAY
    assert "event=certificate listener=smtp what=taken subject=relay.example" in caplog.text


@pytest.mark.parametrize("content", ["", "no certificate", None])
def test_a_wrong_new_one_leaves_the_old_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    caplog.set_level("INFO", "slip-relay")
    made = certificates.make(tmp_path, "relay.example")
    tls = tls_of(made)
    before = tls.context
    if content is None:
        made.certificate.unlink()
    else:
        made.certificate.write_text(content)
    tls.look(time.time())
    tls.look(time.time())
    assert tls.context is before
    assert caplog.text.count("what=kept") == 1, "a fault is told once"
    certificates.make(tmp_path, "relay.example")
    tls.look(time.time())
    assert tls.context is not before


def test_a_certificate_without_its_key_is_not_taken(tmp_path: Path) -> None:
    made = certificates.make(tmp_path, "relay.example")
    tls = tls_of(made)
    before = tls.context
    other = certificates.make(tmp_path, "other.example")
    made.certificate.write_bytes(other.certificate.read_bytes())
    tls.look(time.time())
    assert tls.context is before
    with pytest.raises(StartError, match="the listener smtp can't use the certificate"):
        tls_of(made)


def test_the_end_is_told_once_a_day(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "slip-relay")
    maillog, now = MailLog(), time.time()
    tls = ServerTls(listener(certificates.make(tmp_path, "relay.example", days=10)), maillog, 14 * DAY)
    for hours in (0, 1, 23, 25, 26):
        tls.look(now + hours * 3600)
    assert caplog.text.count("what=ends subject=relay.example") == 2
    assert "in 10 days" in caplog.text
    tls.look(now + 11 * DAY)
    assert "what=ended" in caplog.text
    assert 'slip_relay_certificate_ends_timestamp_seconds{listener="smtp"}' in maillog.metrics.text()


def test_one_that_is_good_for_long_is_not_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "slip-relay")
    tls_of(certificates.make(tmp_path, "relay.example", days=30)).look(time.time())
    assert caplog.text == ""


def test_check_says_when_certificates_end(tmp_path: Path, tree: Tree) -> None:
    for name, days in (("old", 3), ("new", 80)):
        made = certificates.make(tmp_path, f"{name}.example", days=days)
        tree["listeners"].append(
            {"name": name, "port": 2600 + days, "tls_certificate": str(made.certificate), "tls_key": str(made.key)}
        )
    result = CliRunner().invoke(command, ["check", "-c", str(write(tmp_path, tree))])
    assert result.exit_code == 0
    assert "listener old: renew its certificate: old.example ends on 2" in result.stderr
    assert "listener new: its certificate new.example ends on 2" in result.stdout


def test_a_source_is_known_by_each_name_of_its_certificate(make_config: Make, tmp_path: Path) -> None:
    made = certificates.make(tmp_path, "mta.lib.example")
    shown = ClientCertificate.of(made.read.public_bytes(Encoding.DER))
    (spki,) = (name for name in shown.names if name.startswith("spki:"))
    upper = ":".join(made.sha256[7:].upper()[n : n + 2] for n in range(0, 64, 2))
    for name in (made.sha256, f"SHA256:{upper}".replace("SHA256", "sha256"), spki, "dns:MTA.lib.example",
                 "subject:CN=mta.lib.example"):  # fmt: skip
        config = make_config(sources=[{"name": "mta", "institutions": ["demo"], "certificates": [name]}])
        policy = Policy(config, NoNames())
        assert policy.sources_of(config.listeners[0], Caller("192.0.2.1", shown)), name
        assert not policy.sources_of(config.listeners[0], Caller("192.0.2.1")), name
        other = ClientCertificate.of(certificates.make(tmp_path, "other.example").read.public_bytes(Encoding.DER))
        assert not policy.sources_of(config.listeners[0], Caller("192.0.2.1", other)), name
        submission = config.listeners[0].model_copy(update={"kind": "submission"})
        assert not policy.sources_of(submission, Caller("192.0.2.1", shown)), "there only AUTH counts"


def test_where_a_certificate_is_required_nothing_else_counts(make_config: Make) -> None:
    config = make_config()
    strict = config.listeners[0].model_copy(update={"client_certificates": "required"})
    policy = Policy(config, NoNames())
    for login in (None, config.sources[0]):
        reply = refused(lambda: policy.sources_of(strict, Caller("192.0.2.1"), login))  # noqa: B023
        assert reply.startswith("530 5.7.0 ")
