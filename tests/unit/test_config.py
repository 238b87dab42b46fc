"""Wrong configurations, with what is said about them."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from relay.config.hours import week
from relay.config.kinds import paper_size
from relay.config.load import load
from relay.config.settings import Config
from relay.errors import ConfigError
from tests.unit.conftest import Tree

SAMPLE = Path(__file__).parents[2] / "config" / "relay.toml"


def to_toml(tree: Any, indent: str = "") -> str:
    """TOML of a tree; inner tables are written inline."""
    lines = [f"{key} = {inline(value)}" for key, value in tree.items() if not is_tables(value)]
    for key, value in tree.items():
        for table in value if is_tables(value) else []:
            lines += [f"[[{key}]]", *(f"{name} = {inline(item)}" for name, item in table.items())]
    return "\n".join(lines) + "\n"


def is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {inline(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value)


def write(folder: Path, tree: Tree) -> Path:
    path = folder / "relay.toml"
    path.write_text(to_toml(tree), encoding="utf-8")
    return path


def complaints(folder: Path, tree: Tree) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load(write(folder, tree))
    return [str(problem) for problem in error.value.problems]


def test_the_small_configuration_is_right(tmp_path: Path, tree: Tree) -> None:
    config = load(write(tmp_path, tree))
    assert config.printer("desk").profile == "a4"
    assert config.profile("a4").paper == "A4"


HOP = {"name": "default"}
HOST = HOP | {"host": "smtp.example"}
LOGIN = HOST | {"tls": "required", "username": "me"}

CATALOGUE: list[tuple[str, Any, str]] = [
    ("server.hostnam", "x", "relay.toml: server.hostnam: is unknown; is hostname meant?"),
    ("printers.0.colour", True, "relay.toml: printers[1].colour ('desk'): is unknown; known here: name, institution,"),
    ("server.secret", "abc", 'relay.toml: server.secret: is a secret: name its place, as in { file = "/etc'),
    ("server.secret", {"file": "nowhere"}, "nowhere does not exist or can't be read"),
    ("server.secret", {"env": "SLIP_RELAY_UNSET"}, "the environment variable SLIP_RELAY_UNSET is not set"),
    ("server.secret", {}, "exactly one of file and env"),
    ("server.password", "abc", "secrets do not stand in the configuration"),
    ("listeners.0.port", 70000, "relay.toml: listeners[1].port ('smtp'): input should be less than or equal to 65535"),
    ("listeners.0.kind", "submission", "needs tls_certificate and tls_key"),
    ("listeners.0.tls_key", "key.pem", "go together"),
    ("listeners.0.address", "localhost", "'localhost' is not an IP address"),
    ("dns", {"nameservers": ["dns.example:53"]}, "'dns.example' is not an IP address"),
    ("intake", {"folder": "/nowhere"}, "the folder /nowhere does not exist or can't be written to"),
    ("intake", {"malformed": "drop"}, "relay.toml: intake.malformed: input should be 'normalise' or 'refuse'"),
    ("server.secret", {"file": "/tmp"}, "the file /tmp does not exist or can't be read"),
    ("cups", {"server": "localhost:ipp"}, "a CUPS server is the path of its socket, or host:port"),
    ("cups", {"poll": 0}, "greater than or equal to 0.05"),
    ("cups", {"encryption": "sometimes"}, "cups.encryption: input should be 'never', 'if-requested' or 'required'"),
    ("cups", {"password": "abc"}, "is a secret: name its place"),
    ("cups", {"password": {"env": "HOME"}}, "relay.toml: cups: a password goes with a username"),
    (
        "cups",
        {"server": "cups.example:631", "username": "me", "password": {"env": "HOME"}},
        'a password travels over TLS only: set encryption = "required"',
    ),
    ("printers.0.device", "10.0.0.5", "printers[1].device ('desk'): a device is a URI, as in"),
    ("printers.0.device", "ipp://me:secret@10.0.0.5/ipp", "names and passwords do not stand in the configuration"),
    ("dns", {"nameservers": ["127.0.0.1:99999"]}, "has no valid port"),
    ("delivery", {"retry_first": 0}, "greater than or equal to 0.01"),
    ("intake", {"max_message_size": 0}, "greater than or equal to 65536"),
    ("pictures", {"allow": ["*"]}, "'*' is no pattern of URLs; one is written as in \"https://www.lib.example/logos/*"),
    ("pictures", {"allow": ["https://*/logo.png"]}, "is no pattern of URLs"),
    ("pictures", {"allow": ["https://*.example/*"]}, "allows a whole top-level domain"),
    ("pictures", {"allow": ["https://lib.example"]}, "is no pattern of URLs"),
    ("pictures", {"allow": ["ftp://lib.example/*"]}, "is no pattern of URLs"),
    ("pictures", {"allow": ["https://me@lib.example/*"]}, "is no pattern of URLs"),
    ("pictures", {"allow": ["https://lib.example/a/../*"]}, "matches no URL that a picture can be fetched from"),
    ("pictures", {"allow": ["https://lib.example:99999/*"]}, "matches no URL that a picture can be fetched from"),
    ("pictures", {"refresh": "1s"}, "greater than or equal to 60"),
    ("next_hops.0.host", "smtp example", "next_hops[1].host ('default'): string should match pattern"),
    ("printers.0.queue", "", "printers[1] ('desk'): queue is missing, or forward_to for a printer that has an address"),
    ("institutions.0.envelope_from", "größe@lib.example", "envelope_from has to be ASCII"),
    ("spool.url", "sqlite:///", "spool.url: a spool in a file is named as in"),
    ("spool.url", "mysql://x", "spool.url: a spool is named as in"),
    ("spool.url", "postgresql+psycopg://me:secret@db.example/spool", "a password stands in spool.password"),
    ("spool.keep_history", "1d", "keep_history can't be shorter than keep_bodies"),
    ("spool.keep_pdfs", "31d", "keep_pdfs can't be longer than keep_bodies"),
    ("spool.max_pdf_size", "1GiB", "less than or equal to 67108864"),
    ("spool.lease", "1s", "greater than or equal to 2"),
    ("next_hops.0.max_rate", 0, "next_hops[1].max_rate ('default'): input should be greater than 0"),
    ("printers.0.retry", {"expire_after": "1d"}, "slips never expire: leave out retry.expire_after"),
    ("printers.0.duplicates", {"content": "soon"}, "printers[1].duplicates.content ('desk'): \"off\", or"),
    (
        "printers.0.duplicates",
        {"contents": "10m"},
        "printers[1].duplicates.contents ('desk'): is unknown; is content meant?",
    ),
    ("printers.0.mark_reprints", "often", "printers[1].mark_reprints ('desk'): input should be a valid boolean"),
    ("institutions.0.dsn_to", "postmaster", "the address has no @"),
    ("institutions.0.dsn_to", "desk@print.lib.example", "stands for a printer: name a mailbox that is read"),
    (
        "institutions.0.notify",
        "desk@print.lib.example",
        "institutions[1].notify ('demo'): desk@print.lib.example stands",
    ),
    ("printers.0.notify", "desk@print.lib.example", "printers[1].notify ('desk'): desk@print.lib.example stands for a"),
    ("printers.0.notify", "desk", "printers[1].notify ('desk'): the address has no @"),
    ("notices", {"trouble_after": "soon"}, "notices.trouble_after: a duration is seconds"),
    ("notices", {"look_every": "0s"}, "notices.look_every: input should be greater than or equal to 0.2"),
    ("institutions.0.language", "xx", "institutions[1].language ('demo'): input should be 'de', 'en'"),
    ("institutions.0.domains", [], "institutions[1].domains ('demo'): tuple should have at least 1 item"),
    ("institutions.0.domains", ["not a domain"], "is not a domain name"),
    ("institutions.0.envelope_from", "nobody", "the address has no @"),
    (
        "institutions.0.header_from",
        "drop",
        "institutions[1].header_from ('demo'): input should be 'keep', 'rewrite' or",
    ),
    ("institutions.0.header_from", "rewrite", 'header_from = "rewrite" needs a from_mailbox'),
    ("institutions.0.from_mailbox", "a@vendor.example", "from_mailbox a@vendor.example is in none of its domains"),
    ("institutions.0.from_mailbox", "größe@lib.example", "from_mailbox has to be ASCII"),
    ("next_hops.0.rewriting", {"envelope_from": "verp"}, '"verp" is for the institution: set envelope_from there'),
    ("next_hops.0.rewriting", {"envelope_from": "größe@lib.example"}, "envelope_from has to be ASCII"),
    ("next_hops.0.rewriting", {"header_from": "refuse"}, "input should be 'keep' or 'rewrite'"),
    (
        "next_hops.0.rewriting",
        {"header_from": "rewrite"},
        "the institution demo has no from_mailbox to rewrite From to",
    ),
    ("institutions.0.from_name", "{name} {place}", "from_name is text with {name} once at most"),
    ("institutions.0.from_name", "{name} and {name}", "from_name is text with {name} once at most"),
    ("institutions.0.from_name", "{name}\nBcc: x", "from_name is text with {name} once at most"),
    (
        "institutions.0.convert",
        "sometimes",
        "institutions[1].convert ('demo'): input should be 'as-needed', 'always'",
    ),
    ("institutions.0.bounce_domain", None, 'envelope_from = "verp" needs a bounce_domain'),
    (
        "institutions.0.next_hop",
        "campus",
        "institutions[1].next_hop ('demo'): there is no next hop 'campus' (there are: default)",
    ),
    (
        "institutions.0.dkim",
        [{"domain": "lib.example", "selector": "s1", "key_file": "missing.pem"}],
        "dkim[1].key_file ('demo'): the key file {folder}/missing.pem does not exist; `slip-relay dkim",
    ),
    (
        "institutions.0.dkim",
        [{"domain": "lib.example", "selector": "s1"}],
        "dkim[1] ('demo'): a key is named by exactly one of key_file, key_env and",
    ),
    (
        "institutions.0.dkim",
        [{"domain": "lib.example", "selector": "s1", "key_env": "NO_SUCH_KEY"}],
        "dkim[1].key_env ('demo'): the environment variable NO_SUCH_KEY is not set",
    ),
    ("institutions.0.dkim_self_check", 1.5, "dkim_self_check ('demo'): input should be less than or equal to 1"),
    ("sources.0.networks", ["192.0.2.0/33"], "a network is written as in"),
    ("sources.0.networks", [], "a source is known by networks, spf, certificates, or by username and password_hash"),
    ("sources.0.spf", ["not a name"], "sources[1].spf[1] ('alma'): 'not a name' is not a name in the DNS"),
    ("sources.0.certificates", ["aa:bb"], "a certificate is named by its fingerprint"),
    ("sources.0.certificates", ["sha256:aa:bb"], "is not a SHA-256 fingerprint: 64 hexadecimal digits"),
    ("sources.0.certificates", ["dns:mta.example"], "('alma'): no listener asks for certificates: set client_ca"),
    ("sources.0.sandbox", True, "a sandbox names the recipients that it may send to"),
    ("sources.0.divert_to", "tests@lib.example", "divert_to is for a sandbox"),
    (
        "sources",
        [
            {
                "name": "s",
                "institutions": ["demo"],
                "networks": ["::1"],
                "sandbox": True,
                "recipients": [],
                "divert_to": "desk@print.lib.example",
            }
        ],
        "sources[1].divert_to ('s'): desk@print.lib.example stands for a printer",
    ),
    ("listeners.0.tls", "implicit", 'tls = "implicit" needs tls_certificate and tls_key'),
    ("listeners.0.client_ca", "ca.pem", "client certificates travel over TLS only"),
    ("listeners.0.client_certificates", "required", 'client_certificates = "required" needs client_ca'),
    ("listeners.0.proxy_protocol_from", ["lb.example"], "proxy_protocol_from[1] ('smtp'): 'lb.example' does not"),
    ("dns", {"spf_longest": "1m"}, "spf_longest can't be shorter than spf_shortest"),
    ("dns", {"dnssec": "yes"}, "dns.dnssec: input should be 'off', 'local' or 'trusted'"),
    ("dns", {"dnssec": "trusted"}, 'dns: dnssec = "trusted" needs the nameservers that validate'),
    (
        "dns",
        {"dnssec": "local", "nameservers": ["[::1]:5353", "192.0.2.53"]},
        "the name server 192.0.2.53 is not on this machine: where nobody on the way to it can forge its answers, say",
    ),
    ("mta_sts", {"ca_file": "no.pem"}, "mta_sts.ca_file: the file {folder}/no.pem does not exist"),
    ("mta_sts", {"enable": False}, "mta_sts.enable: is unknown; is enabled meant?"),
    ("auth", {"max_failures": 0}, "auth.max_failures: input should be greater than or equal to 1"),
    ("tls", {"look_every": 0}, "tls.look_every: input should be greater than or equal to 0.2"),
    ("sources.0.institutions", ["other"], "sources[1].institutions ('alma'): there is no institution 'other'"),
    ("sources.0.username", "alma", "username and password_hash go together"),
    ("next_hops.0.name", "returned", "returned is a reserved word"),
    ("next_hops.0.username", "me", "username and password go together"),
    ("next_hops.0.hosts", ["a.example", "b.example"], "host is for one smarthost, hosts for several: set one of them"),
    (
        "next_hops",
        [HOP | {"hosts": ["a.example", "A:b:c"]}],
        "hosts ('default'): 'A:b:c' is no host; one is written as",
    ),
    ("next_hops", [HOP | {"hosts": ["a.example", "a.example:25"]}], "a smarthost is named twice in hosts"),
    ("next_hops", [HOP | {"hosts": []}], "next_hops[1].hosts ('default'): tuple should have at least 1 item"),
    ("next_hops.0.host", "smtp.example:0", "'smtp.example:0' has no valid port"),
    ("next_hops.0.host", "[smtp.example]:25", "'smtp.example' is not an IP address"),
    ("next_hops.0.source_address", ["::1", "::2"], "one address, or one for IPv4 and one for IPv6"),
    ("next_hops.0.source_address", "eth0", "source_address[1] ('default'): 'eth0' is not an IP address"),
    ("next_hops.0.pins", ["md5:00"], 'a certificate is named by its fingerprint ("sha256:..."), or that of its public'),
    ("next_hops.0.pins", ["sha256:00"], "is not a SHA-256 fingerprint: 64 hexadecimal digits"),
    ("next_hops.0.pins", [f"sha256:{64 * 'a'}"], 'pins is for verified TLS: set tls to "required" or "implicit"'),
    ("next_hops.0.ca_file", "relay.toml", 'ca_file is for verified TLS: set tls to "required" or "implicit"'),
    ("next_hops", [HOST | {"tls": "required", "ca_file": "no.pem"}], "the file {folder}/no.pem does not exist"),
    ("next_hops.0.client_key", "relay.toml", "client_certificate and client_key go together"),
    (
        "next_hops",
        [HOP | {"tls": "none", "client_certificate": "relay.toml", "client_key": "relay.toml"}],
        "a client certificate is shown over TLS only",
    ),
    ("next_hops", [HOP | {"tls": "required"}], "username, and verified tls, need a host"),
    ("next_hops", [LOGIN], "username and password go together"),
    ("next_hops", [LOGIN | {"tls": "encrypted", "password": {"env": "HOME"}}], "AUTH is done over verified TLS only"),
    ("next_hops", [LOGIN | {"auth": "xoauth2"}], 'auth = "xoauth2" needs a token'),
    ("next_hops", [LOGIN | {"auth": "digest-md5"}], "auth ('default'): input should be 'plain', 'login' or 'xoauth2'"),
    ("next_hops", [HOST | {"auth": "plain"}], "auth needs a username"),
    ("next_hops", [HOST | {"token": {"file": "relay.toml"}}], "token needs a username: the mailbox that it is for"),
    (
        "next_hops",
        [LOGIN | {"token": "ya29.abc"}],
        'is a secret: name its place, as in { file = "/etc/slip-relay/secret"',
    ),
    ("next_hops", [LOGIN | {"token": {}}], "a token comes from exactly one of file and command"),
    ("next_hops", [LOGIN | {"token": {"file": "nowhere"}}], "nowhere does not exist or can't be read"),
    ("next_hops", [LOGIN | {"token": {"command": ["curl"]}}], "by its whole path, as in /usr/bin/curl"),
    (
        "next_hops",
        [LOGIN | {"token": {"command": ["/nowhere"]}}],
        "the program /nowhere does not exist or can't be run",
    ),
    (
        "next_hops",
        [LOGIN | {"password": {"env": "HOME"}, "token": {"command": ["/bin/true"]}}],
        "password and token are two ways to log in: set one of them",
    ),
    (
        "next_hops",
        [LOGIN | {"auth": "plain", "token": {"command": ["/bin/true"]}}],
        'auth = "plain" takes a password; a token is for "xoauth2"',
    ),
    ("printers.0.institution", "other", "printers[1].institution ('desk'): there is no institution 'other'"),
    ("printers.0.profile", "a3", "there is no profile 'a3' (there are: a4, a5, label, letter, receipt58, receipt80)"),
    ("printers.0.mailboxes", ["desk"], "printers[1].mailboxes[1] ('desk'): the address has no @"),
    (
        "printers.0.hours",
        {"monday": ["08:00-18:00"]},
        "printers[1].hours ('desk'): 'monday' is no day: they are mon, tue",
    ),
    ("printers.0.hours", {"fri-mon": ["08:00-18:00"]}, "'fri-mon' is no part of a week"),
    ("printers.0.hours", {"mon-fri": ["8-18"]}, 'hours are written as in "08:00-18:00"'),
    ("printers.0.hours", {"mon-fri": ["08:00-18:00"], "wed": []}, "wed has hours twice, by 'mon-fri' and by 'wed'"),
    ("printers.0.hours", {"mon": []}, "there are no hours in it"),
    (
        "printers.0.holidays",
        ["24.12.2026"],
        "printers[1].holidays[1] ('desk'): '24.12.2026' is no day: one is written as",
    ),
    ("printers.0.holidays", ["2026-02-30"], "'2026-02-30' is no day"),
    ("printers.0.holidays", ["2027-01-02 to 2026-12-24"], "ends before it begins"),
    ("printers.0.time_zone", "Mars/Base", "printers[1].time_zone ('desk'): there is no time zone 'Mars/Base'"),
    ("printers.0.time_zone", "Europe/Berlin", "time_zone goes with hours, holidays or release_at"),
    ("server.time_zone", "MEZ", "server.time_zone: there is no time zone 'MEZ' on this machine"),
    ("printers.0.release_at", ["24:00"], "printers[1].release_at[1] ('desk'): a time of the day is written as in"),
    ("printers.0.outside_hours", "print", "is for a printer that has hours or holidays"),
    ("printers.0.outside_hours", "wait", "printers[1].outside_hours ('desk'): input should be 'hold' or 'print'"),
    ("printers.0.separator", True, "separator is for batches: it needs release_at, or hours"),
    ("printers.0.sort", "td.shelf", "sort is for batches: it needs release_at, or hours"),
    ("printers.0.max_batch", 0, "printers[1].max_batch ('desk'): input should be greater than or equal to 1"),
    (
        "rules",
        [{"name": "r", "print": "nowhere"}],
        "relay.toml: rules[1].print ('r'): there is no printer 'nowhere' (there are: desk)",
    ),
    (
        "rules",
        [{"name": "r"}],
        "a rule has exactly one of print, next_hop, hold, discard and forward, or else copy_to, profile, copies or "
        "merge",
    ),
    ("rules", [{"name": "r", "next_hop": "mars"}], "there is no next hop 'mars'"),
    ("rules", [{"name": "R 1", "discard": True}], "a name is made of small letters"),
    ("delivery", {"retry_first": "soon"}, 'a duration is seconds, or a number with s, m, h or d, as in "30s"'),
    ("profiles", [{"name": "p", "paper": "A9"}], "a paper is A4, A5, A6, Letter, Legal, a sheet as in"),
    ("profiles", [{"name": "p", "paper": "58mm", "margin_mm": 25}], "leave no room"),
    ("printer", [{}], "is unknown; is printers meant?"),
]


@pytest.mark.parametrize(("place", "value", "complaint"), CATALOGUE, ids=[f"{p}-{c[:30]}" for p, _, c in CATALOGUE])
def test_a_mistake_is_told_with_its_place(tmp_path: Path, tree: Tree, place: str, value: Any, complaint: str) -> None:
    node: Any = tree
    *steps, last = [int(step) if step.isdigit() else step for step in place.split(".")]
    for step in steps:
        node = node[step]
    if value is None:
        del node[last]
    else:
        node[last] = value
    told = complaints(tmp_path, tree)
    assert any(complaint.replace("{folder}", str(tmp_path)) in line for line in told), told


def test_the_last_spf_answers_need_a_place(tmp_path: Path, tree: Tree) -> None:
    tree["sources"][0]["spf"] = ["_SPF.cloud.example."]
    config = load(write(tmp_path, tree))
    assert config.sources[0].spf == ("_spf.cloud.example",)
    assert config.spf_file() == tmp_path / "spf.json"
    tree["spool"]["url"] = "postgresql+psycopg://slip-relay@db.example/spool"
    assert "relay.toml: dns.spf_file: with the spool on a server the file" in complaints(tmp_path, tree)[0]
    tree["dns"] = {"spf_file": "answers.json"}
    assert load(write(tmp_path, tree)).spf_file() == tmp_path / "answers.json"


def test_policies_of_recipients_domains_need_a_place_where_mail_goes_by_mx(tmp_path: Path, tree: Tree) -> None:
    tree["spool"]["url"] = "postgresql+psycopg://slip-relay@db.example/spool"
    assert not load(write(tmp_path, tree)).uses_mta_sts
    tree["next_hops"] = [{"name": "default"}]
    assert "relay.toml: mta_sts.policies: with the spool on a server the file" in complaints(tmp_path, tree)[0]
    tree["mta_sts"] = {"enabled": False}
    assert not load(write(tmp_path, tree)).uses_mta_sts
    tree["mta_sts"] = {"policies": "policies.json"}
    assert load(write(tmp_path, tree)).mta_sts_file() == tmp_path / "policies.json"


def test_hours_as_a_librarian_writes_them(tmp_path: Path, tree: Tree) -> None:
    path = write(tmp_path, tree)
    hours = """
hours = { mon-fri = ["08:00-12:00", "22:00-02:00"], sat = ["10:00-14:00"] }
holidays = [2026-12-24, "2026-12-31 to 2027-01-02"]
release_at = ["10:00"]
separator = true
max_batch = 50
"""
    path.write_text(path.read_text(encoding="utf-8") + hours, encoding="utf-8")
    printer = load(path).printers[0]
    assert printer.holidays == ((date(2026, 12, 24),) * 2, (date(2026, 12, 31), date(2027, 1, 2)))
    assert printer.hours is not None
    assert week(printer.hours)[4:] == (((480, 720), (1320, 1560)), ((600, 840),), ())


def test_a_batch_without_a_separator_has_no_parts(tmp_path: Path, tree: Tree) -> None:
    tree["printers"][0] |= {"release_at": ["10:00"], "max_batch": 50}
    assert any("max_batch needs separator = true" in line for line in complaints(tmp_path, tree))


def test_all_mistakes_are_told_at_once(tmp_path: Path, tree: Tree) -> None:
    tree["server"]["hostnam"] = "x"
    tree["sources"][0]["networks"] = ["x"]
    tree["printers"][0]["mailboxes"] = ["x"]
    assert len(complaints(tmp_path, tree)) == 3


def test_the_same_name_or_mailbox_twice_is_a_mistake(tmp_path: Path, tree: Tree) -> None:
    tree["printers"].append({**tree["printers"][0], "mailboxes": ["Desk@print.lib.example"]})
    tree["printers"].append({**tree["printers"][0], "name": "other"})
    told = complaints(tmp_path, tree)
    assert any("another one of printers named 'desk'" in line for line in told)
    assert any("stands for the printer 'desk' already" in line for line in told)


def test_printers_that_share_a_queue_share_its_device(tmp_path: Path, tree: Tree) -> None:
    first = {**tree["printers"][0], "name": "a", "mailboxes": ["a@p.example"]}
    second = {**first, "name": "b", "mailboxes": ["b@p.example"], "device": "ipp://10.0.0.5/ipp/print"}
    third = {**second, "name": "c", "mailboxes": ["c@p.example"], "device": "ipp://10.0.0.6/ipp/print"}
    tree["printers"] = [first, second, third]
    (complaint,) = complaints(tmp_path, tree)
    assert "printers[3].device ('c'): the printer 'b' has the same queue, and names another device" in complaint


def test_conf_d_adds_to_lists_and_is_named_in_messages(tmp_path: Path, tree: Tree) -> None:
    path = write(tmp_path, tree)
    (tmp_path / "conf.d").mkdir()
    more = tmp_path / "conf.d" / "law.toml"
    more.write_text('[[institutions]]\nname = "law"\ndomains = ["law.example"]\nbounce_domain = "b.law.example"\n')
    assert [each.name for each in load(path).institutions] == ["demo", "law"]
    more.write_text('[[institutions]]\nname = "law"\ndomains = ["law.example"]\n[server]\nhostname = "two"\n')
    with pytest.raises(ConfigError) as error:
        load(path)
    told = [str(problem) for problem in error.value.problems]
    assert any(line.startswith("conf.d/law.toml: institutions[1] ('law'): ") for line in told), told
    assert "conf.d/law.toml: server.hostname: is set in relay.toml already" in told


def test_a_file_of_conf_d_that_is_named_like_the_main_file_is_told_from_it(tmp_path: Path, tree: Tree) -> None:
    path = write(tmp_path, tree)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "relay.toml").write_text('[server]\nhostname = "two.example"\n')
    with pytest.raises(ConfigError, match=r"conf\.d/relay\.toml: server\.hostname: is set in relay\.toml already"):
        load(path)


@pytest.mark.parametrize(
    ("content", "complaint"), [(b"[server", "is not TOML"), (b"\xff\xfe", "is not UTF-8"), (None, "can't be read")]
)
def test_a_file_that_can_t_be_read(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    path = tmp_path / "relay.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=complaint):
        load(path)


def test_papers() -> None:
    assert paper_size("A5") == (148.0, 210.0)
    assert paper_size("80mm") == (80.0, None)
    assert paper_size("100x150mm") == (100.0, 150.0)


def sample_on_this_machine(folder: Path) -> Path:
    """The sample configuration with its files made, so that only the sample itself can be wrong."""
    text = SAMPLE.read_text(encoding="utf-8")
    for path in set(re.findall(r'"(/etc/slip-relay/[^"]+)"', text)):
        here = folder / path.removeprefix("/etc/slip-relay/")
        here.parent.mkdir(parents=True, exist_ok=True)
        here.write_text("0123456789abcdef", encoding="utf-8")
        text = text.replace(f'"{path}"', f'"{here}"')
    out = folder / "relay.toml"
    out.write_text(text, encoding="utf-8")
    return out


def test_the_sample_is_right(tmp_path: Path) -> None:
    config = load(sample_on_this_machine(tmp_path))
    assert [printer.name for printer in config.printers] == ["main-desk", "receipts", "branch"]


def test_the_optional_settings_of_the_sample_are_right_too(tmp_path: Path) -> None:
    path = sample_on_this_machine(tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"(?m)^#(?=[a-z_]+ = )", "", text), encoding="utf-8")
    (tmp_path / "campus-ca.pem").touch()
    text = path.read_text(encoding="utf-8").replace("/etc/slip-relay/campus-ca.pem", str(tmp_path / "campus-ca.pem"))
    # The password goes with the other form of the address, which stands in the comment above it.
    text = re.sub(r'(?m)^url = "sqlite.*$', 'url = "postgresql+psycopg://slip-relay@db.lib.example/spool"', text)
    path.write_text(text, encoding="utf-8")
    config = load(path)
    cups = config.cups.model_dump() | {"username": None, "password": None}  # examples, and no defaults
    shown = Config.model_validate(config.model_dump() | {"profiles": (), "cups": cups})
    for table in ("intake", "delivery", "notices", "cups", "rendering"):
        assert getattr(shown, table) == type(getattr(config, table))(), f"the sample shows other defaults in [{table}]"


def test_every_setting_stands_in_the_sample() -> None:
    text = SAMPLE.read_text(encoding="utf-8")
    named = set(re.findall(r"(?m)^#?\s*([a-z_]+) = ", text)) | set(re.findall(r"(?m)^#?\s*\[+([a-z_.]+)\]+", text))
    named |= {name.rpartition(".")[2] for name in named}
    tables: list[type[BaseModel]] = [Config]
    while tables:
        table = tables.pop()
        for name, field in table.model_fields.items():
            assert name in named, f"{table.__name__}.{name} is not in config/relay.toml"
            annotations = [field.annotation, *getattr(field.annotation, "__args__", ())]
            tables += [
                a for a in annotations if isinstance(a, type) and issubclass(a, BaseModel) and a.__name__ != "Secret"
            ]
