"""`slip-relay dkim rotate`: a key changes only when every name server shows the next one, and nothing gets lost."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from click.testing import CliRunner, Result

from relay.cli import command, dkim_rotate
from relay.config.institutions import DkimKey, Institution
from relay.dns import authorities
from relay.dns.dkim_record import key_text
from relay.errors import StartError
from relay.maillog import MailLog
from relay.outgoing.key_folder import STATE, KeyFolder, Retired, read_folder
from relay.outgoing.key_watch import KeyWatch
from relay.outgoing.keys import load_keys
from relay.outgoing.private_key import new_private_key, pem, read_private_key
from relay.outgoing.sign import Signer
from tests.harness import toml
from tests.harness.dns_server import DnsServer
from tests.harness.waiting import free_ports, until

Tree = dict[str, Any]

ZONE = "lib.example"
FIRST = pem(new_private_key("rsa"))
OLD, NEW = f"old._domainkey.{ZONE}", f"new._domainkey.{ZONE}"


@pytest_asyncio.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer(free_ports(1)) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "dkim"
    made.mkdir(mode=0o750)
    (made / "old.pem").write_bytes(FIRST)
    (made / "old.pem").chmod(0o640)
    return made


@pytest.fixture
def config(tree: Tree, folder: Path, dns: DnsServer) -> Tree:
    tree["institutions"][0]["dkim"] = [{"domain": ZONE, "key_folder": str(folder)}]
    tree["dns"] = {"nameservers": [dns.address], "timeout": "2s"}
    return tree


async def run(config: Tree, *arguments: str) -> Result:
    path = Path(config["server"]["secret"]["file"]).parent / "relay.toml"
    path.write_text(toml.dumps(config), encoding="utf-8")
    return await asyncio.to_thread(CliRunner().invoke, command, ["dkim", "rotate", "-c", str(path), *arguments])


def publish(dns: DnsServer, folder: Path, selector: str) -> None:
    text = key_text(read_private_key(folder / f"{selector}.pem").public_key())
    dns.add(f"{selector}._domainkey.{ZONE}", "TXT", text)


@pytest.mark.asyncio
async def test_a_rotation_from_its_begin_to_its_end(
    config: Tree, folder: Path, dns: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(dns, folder, "old")
    begun = await run(config, "--begin", "--selector", "new")
    assert begun.exit_code == 3, begun.output
    assert f"{NEW}: no record" in begun.output
    text = key_text(read_private_key(folder / "new.pem").public_key())
    assert f'{NEW}. IN TXT ( "{text[:255]}" "{text[255:]}" )' in begun.output
    assert (read_folder(folder).signs, read_folder(folder).coming) == (("old",), ("new",))
    again = await run(config)
    assert (again.exit_code, read_folder(folder).signs) == (3, ("old",))

    publish(dns, folder, "new")
    switched = await run(config)
    assert switched.exit_code == 0, switched.output
    assert "lib.example is signed with new" in switched.output
    assert "no service runs here: it signs with the new key from its next start" in switched.output
    assert f"{OLD}: leave it published until " in switched.output
    assert read_folder(folder).signs == ("new",)

    (retired,) = read_folder(folder).retired
    monkeypatch.setattr("relay.cli.dkim_rotate.time.time", lambda: retired.record_until + 1)
    assert f"{OLD}: it may go now: remove the record, and {folder}/old.pem" in (await run(config)).output
    dns.remove(OLD)
    assert f"{OLD}: it is gone, and so is the need of {folder}/old.pem" in (await run(config)).output
    last = await run(config)
    assert (last.exit_code, last.output) == (0, "lib.example is signed with new\n")
    assert (folder / "old.pem").exists()


@pytest.mark.asyncio
async def test_it_waits_until_the_dns_shows_the_record(
    config: Tree, folder: Path, dns: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dkim_rotate, "LOOK_EVERY", 0.05)
    waiting = asyncio.create_task(run(config, "--begin", "--selector", "new", "--wait", "30s"))
    await until(lambda: sum(name == NEW for name, _ in dns.questions) > 2, "looks at the DNS")
    assert read_folder(folder).signs == ("old",)
    dns.add(NEW, "TXT", key_text(new_private_key("rsa").public_key()))
    looks = len(dns.questions)
    await until(lambda: len(dns.questions) > looks + 2, "a look at the wrong key")
    assert read_folder(folder).signs == ("old",)
    dns.remove(NEW)
    publish(dns, folder, "new")
    ended = await asyncio.wait_for(waiting, 30)
    assert ended.exit_code == 0, ended.output
    assert [line for line in ended.output.splitlines() if line.startswith(f"{NEW}: ")] == [
        f"{NEW}: no record",
        f"{NEW}: another key",
        f"{NEW}: there",
    ]


@pytest.mark.asyncio
async def test_every_name_server_of_the_zone_has_to_show_it(
    config: Tree, folder: Path, dns: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers of the zone at one port of two addresses; the second one is late."""
    monkeypatch.setattr(authorities, "PORT", dns.port)
    monkeypatch.setattr(authorities, "TIMEOUT", 0.5)
    dns.add(ZONE, "NS", "ns1.host.example.", "ns2.host.example.")
    dns.add("ns1.host.example", "A", "127.0.0.1")
    dns.add("ns2.host.example", "A", "127.0.0.2")
    await run(config, "--begin", "--selector", "new")
    publish(dns, folder, "new")
    async with DnsServer(dns.port, "127.0.0.2") as second:
        second.add(ZONE, "TXT", "here")
        late = await run(config)
        assert late.exit_code == 3
        assert f"{NEW}: not yet at ns2.host.example (127.0.0.2): no record" in late.output
        second.fail(NEW)
        publish(second, folder, "new")
        assert read_folder(folder).signs == ("old",)
        second.fail(NEW, failing=False)
        assert f"{NEW}: there, at each of 2 name servers of the zone" in (await run(config)).output
    assert read_folder(folder).signs == ("new",)


@pytest.mark.asyncio
async def test_a_server_that_does_not_answer_is_told_and_holds_nothing_up(
    config: Tree, folder: Path, dns: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authorities, "PORT", dns.port)
    monkeypatch.setattr(authorities, "TIMEOUT", 0.2)
    dns.add(ZONE, "NS", "ns1.host.example.", "ns2.host.example.")
    dns.add("ns1.host.example", "A", "127.0.0.1")
    dns.add("ns2.host.example", "A", "127.0.0.3")
    await run(config, "--begin", "--selector", "new")
    dns.add(NEW, "CNAME", "keys.hoster.example.")
    dns.add("hoster.example", "NS", "ns1.host.example.")
    dns.add("keys.hoster.example", "TXT", key_text(read_private_key(folder / "new.pem").public_key()))
    ended = await run(config)
    assert ended.exit_code == 0, ended.output
    silent = "no answer from ns2.host.example (127.0.0.3)"
    assert f"{NEW}: there, at each of 1 name servers of the zone; {silent}" in ended.output


@pytest.mark.asyncio
async def test_a_dns_that_fails_switches_nothing(config: Tree, folder: Path, dns: DnsServer) -> None:
    await run(config, "--begin", "--selector", "new")
    publish(dns, folder, "new")
    dns.fail(NEW)
    failed = await run(config)
    assert failed.exit_code == 3
    assert f"{NEW}: no answer from the DNS" in failed.output
    assert read_folder(folder).signs == ("old",)


@pytest.mark.asyncio
async def test_the_next_keys_are_like_those_that_sign(config: Tree, folder: Path, dns: DnsServer) -> None:
    (folder / "old.pem").write_bytes(pem(new_private_key("rsa", 3072)))
    (folder / "curve.pem").write_bytes(pem(new_private_key("ed25519")))
    assert (await run(config, "--begin", "--selector", "new")).exit_code == 3
    made = read_folder(folder)
    assert (made.signs, made.coming) == (("old", "curve"), ("new", "new-ed25519"))
    rsa = read_private_key(folder / "new.pem").public_key()
    assert key_text(rsa).startswith("v=DKIM1; k=rsa;")
    assert getattr(rsa, "key_size", 0) == 3072
    assert key_text(read_private_key(folder / "new-ed25519.pem").public_key()).startswith("v=DKIM1; k=ed25519;")
    publish(dns, folder, "new")
    half = await run(config, "--json")
    assert half.exit_code == 3
    assert [each["says"] for each in json.loads(half.output)["next"]] == ["there", "no record"]
    publish(dns, folder, "new-ed25519")
    told = json.loads((await run(config, "--json")).output)
    assert (told["signs"], told["next"]) == (["new", "new-ed25519"], [])
    assert [each["selector"] for each in told["retired"]] == ["old", "curve"]


@pytest.mark.asyncio
async def test_dns_knows_the_key_that_comes(config: Tree, folder: Path, dns: DnsServer) -> None:
    publish(dns, folder, "old")
    await run(config, "--begin", "--selector", "new")

    async def keys() -> dict[str, tuple[str, str]]:
        path = Path(config["server"]["secret"]["file"]).with_name("relay.toml")
        ran = await asyncio.to_thread(CliRunner().invoke, command, ["dns", "-c", str(path), "--json"])
        found = [each for part in json.loads(ran.stdout) for each in part["findings"] if each["topic"] == "dkim"]
        return {each["name"]: (each["verdict"], each["says"]) for each in found}

    assert await keys() == {OLD: ("ok", "our key"), NEW: ("warn", "no record")}
    publish(dns, folder, "new")
    assert await keys() == {OLD: ("ok", "our key"), NEW: ("warn", "our key")}
    await run(config)
    assert await keys() == {NEW: ("ok", "our key")}


@pytest.mark.asyncio
async def test_new_files_are_read_by_whom_the_present_key_is_read(config: Tree, folder: Path) -> None:
    await run(config, "--begin", "--selector", "new")
    old, new, state = (folder / name for name in ("old.pem", "new.pem", STATE))
    assert [stat.S_IMODE(each.stat().st_mode) for each in (new, state)] == [0o640, 0o640]
    assert (new.stat().st_uid, new.stat().st_gid) == (old.stat().st_uid, old.stat().st_gid)


@pytest.mark.asyncio
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_root_makes_keys_for_the_account_of_the_service(config: Tree, folder: Path) -> None:
    os.chown(folder / "old.pem", 12345, 54321)
    (folder / "old.pem").chmod(0o600)
    await run(config, "--begin", "--selector", "new")
    for name in ("new.pem", STATE):
        made = (folder / name).stat()
        assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (12345, 54321, 0o600)


@pytest.mark.asyncio
async def test_no_key_is_overwritten(config: Tree, folder: Path) -> None:
    before = (folder / "old.pem").read_bytes()
    taken = await run(config, "--begin", "--selector", "old")
    assert taken.exit_code == 1
    assert "exists already; a key in use is not overwritten" in str(taken.exception)
    assert (folder / "old.pem").read_bytes() == before
    assert read_folder(folder) == KeyFolder(folder, ("old",))
    assert (await run(config, "--begin")).exit_code == 3
    (coming,) = read_folder(folder).coming
    assert "is under way" in (await run(config, "--begin")).output
    assert read_folder(folder).coming == (coming,)
    other = await run(config, "--begin", "--selector", "other")
    assert "is under way; it ends before another begins" in str(other.exception)


@pytest.mark.asyncio
@pytest.mark.parametrize("writes", range(3))
async def test_a_rotation_that_is_cut_off_leaves_what_signs(
    config: Tree, folder: Path, dns: DnsServer, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """After each of the writes of its begin: the state, the key, the state again."""
    left = [writes]

    def cut(method: Callable[..., None]) -> Callable[..., None]:
        def write(*arguments: object) -> None:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            method(*arguments)

        return write

    with monkeypatch.context() as patched:
        for name in ("write", "add"):
            patched.setattr(KeyFolder, name, cut(getattr(KeyFolder, name)))
        assert (await run(config, "--begin", "--selector", "new")).exit_code != 3
    table = DkimKey(domain=ZONE, key_folder=folder)
    assert [key.selector for key in load_keys(table)] == ["old"]
    assert (await run(config, "--begin", "--selector", "other")).exit_code == 3
    publish(dns, folder, "other")
    assert (await run(config)).exit_code == 0
    assert [key.selector for key in load_keys(table)] == ["other"]


@pytest.mark.asyncio
async def test_two_rotations_at_once_are_one(config: Tree, folder: Path) -> None:
    with dkim_rotate._alone(folder):
        second = await run(config, "--begin")
    assert isinstance(second.exception, StartError)
    assert "another `slip-relay dkim rotate` is at work" in str(second.exception)
    assert not (folder / STATE).exists()


@pytest.mark.asyncio
async def test_what_is_asked_for_has_to_be_there(config: Tree, folder: Path, tmp_path: Path) -> None:
    assert "no DKIM key of other.example" in str((await run(config, "--domain", "other.example")).exception)
    assert (await run(config, "--selector", "new")).exit_code == 2
    assert (await run(config, "--begin", "--selector", "not a name")).exit_code == 2
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "x.pem").write_bytes(pem(new_private_key("ed25519")))
    tables = config["institutions"][0]["dkim"]
    config["institutions"][0]["domains"].append("law.example")
    tables.append({"domain": "law.example", "key_folder": str(tmp_path / "second")})
    assert "which one? --domain law.example, --domain lib.example" in str((await run(config)).exception)
    assert (await run(config, "--domain", "law.example")).exit_code == 0
    tables[1]["key_folder"] = str(folder)
    ran = await run(config)
    assert f"institutions[1].dkim[2].key_folder ('demo'): the folder has the keys of {ZONE} already" in ran.output
    tables[:] = [{"domain": ZONE, "selector": "old", "key_file": str(folder / "old.pem")}]
    assert "put key_folder = FOLDER in the place of selector and key_file" in str((await run(config)).exception)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"key_folder": "/nowhere"}, "does not exist"),
        ({"selector": "s1"}, "exactly one of key_file, key_env and key_folder"),
        ({"key_env": "PATH"}, "a key goes with its selector"),
        ({"key_folder": "/", "selector": "s1"}, "leave out selector"),
    ],
)
def test_a_table_names_a_key_in_one_way(table: Tree, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        DkimKey.model_validate({"domain": ZONE, **table})


def test_a_folder_that_does_not_say_what_signs_is_refused(folder: Path) -> None:
    def fault() -> str:
        with pytest.raises(StartError) as caught:
            load_keys(DkimKey(domain=ZONE, key_folder=folder))
        return str(caught.value)

    (folder / "second.pem").write_bytes(pem(new_private_key("rsa")))
    assert "has 2 rsa keys (old, second), and no signing.json" in fault()
    for text in (
        "[",
        "{}",
        '{"signs": ["../x"], "next": [], "retired": []}',
        '{"signs": 1, "next": [], "retired": []}',
    ):
        (folder / STATE).write_text(text, encoding="utf-8")
        assert "is not as `slip-relay dkim rotate` writes it" in fault()
    KeyFolder(folder, ("old",)).write()
    assert [key.selector for key in load_keys(DkimKey(domain=ZONE, key_folder=folder))] == ["old"]
    (folder / STATE).write_text('{"signs": ["gone"], "next": [], "retired": []}', encoding="utf-8")
    assert "gone.pem can't be read" in fault()
    (folder / STATE).write_text('{"signs": [], "next": [], "retired": []}', encoding="utf-8")
    assert "names no key that signs" in fault()
    (folder / STATE).unlink()
    for file in folder.glob("*.pem"):
        file.unlink()
    assert "no key is in" in fault()


@pytest.mark.asyncio
async def test_check_finds_a_folder_that_can_t_be_used(config: Tree, folder: Path) -> None:
    (folder / "second.pem").write_bytes(pem(new_private_key("rsa")))
    await run(config)
    path = Path(config["server"]["secret"]["file"]).with_name("relay.toml")
    ran = await asyncio.to_thread(CliRunner().invoke, command, ["check", "-c", str(path)])
    assert ran.exit_code == 1
    assert f"institutions[1].dkim[1].key_folder ('demo'): {folder} has 2 rsa keys (old, second)" in ran.output


@pytest.mark.asyncio
async def test_a_folder_that_somebody_copies_is_taken_when_it_is_whole(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The state comes first and names a key that is not there yet: those of before sign until it is."""
    institution = institution_of(folder)
    signer = Signer([institution])
    watching = asyncio.create_task(KeyWatch(signer, [institution], MailLog(), 0.02).run())
    with caplog.at_level(logging.INFO, "slip-relay"):
        KeyFolder(folder, ("new",)).path.joinpath(STATE).write_text('{"signs": ["new"], "next": [], "retired": []}')
        await until(lambda: "event=keys-kept" in caplog.text, "the log to tell it")
        assert signer.selectors() == {"demo": [OLD]}
        (folder / "new.pem").write_bytes(FIRST)
        await until(lambda: signer.selectors() == {"demo": [NEW]}, "the key to be taken")
    watching.cancel()
    assert caplog.text.count("event=keys-kept") == 1
    assert f"event=keys-taken institution=demo signs={NEW}" in caplog.text


def institution_of(folder: Path) -> Institution:
    return Institution.model_validate(
        {
            "name": "demo",
            "domains": [ZONE],
            "envelope_from": f"a@{ZONE}",
            "dkim": [{"domain": ZONE, "key_folder": str(folder)}],
        }
    )


def test_a_signer_that_takes_other_keys_verifies_what_is_just_being_signed(folder: Path) -> None:
    institution = institution_of(folder)
    signer, header, body = Signer([institution]), b"From: a@lib.example\r\nSubject: x\r\n", b"text\r\n"
    (before,) = signer.sign("demo", header, body)
    present = read_folder(folder)
    present.add("new", new_private_key("rsa"))
    KeyFolder(folder, ("new",), (), (Retired("old", 0.0),)).write()
    signer.load()
    (after,) = signer.sign("demo", header, body)
    assert b"s=old;" in before
    assert b"s=new;" in after
    for field in (before, after):
        signer.verify("demo", field, header + b"\r\n" + body, 1)
    signer.load()
    signer.verify("demo", before, header + b"\r\n" + body, 1)
    (folder / "new.pem").write_bytes(FIRST)  # another key under the same name: who does so publishes it, too
    signer.load()
    (other,) = signer.sign("demo", header, body)
    signer.verify("demo", other, header + b"\r\n" + body, 1)
    (folder / "new.pem").write_text("no key", encoding="utf-8")
    with pytest.raises(StartError):
        signer.load()
    assert signer.selectors() == {"demo": [NEW]}
