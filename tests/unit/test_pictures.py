"""Pictures on other servers: what may be fetched, the shelf, and real servers that behave badly."""

from __future__ import annotations

import asyncio
import datetime
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from relay.cli import command
from relay.config.load import load
from relay.config.pictures import Pictures, canonical, copy_name
from relay.config.printers import Rendering
from relay.config.profiles import Profile
from relay.pictures import fetch, shelf
from relay.pictures.fetch import FIRST_PAUSE, MAX_PICTURE, Fetcher
from relay.pictures.shelf import Note, Shelf
from relay.slips.copies import MAX_WANTED, Copies
from relay.slips.images import Album
from relay.slips.pool import RenderPool
from tests.unit.conftest import Tree
from tests.unit.slips.letters import colors, letter, raster, solid
from tests.unit.test_config import write

RED, BLUE = solid("red"), solid("blue")
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.mark.parametrize(
    ("given_url", "expected"),
    [
        ("https://WWW.Lib.Example/A.png", "https://www.lib.example/A.png"),
        ("//lib.example/a.png", "https://lib.example/a.png"),
        ("https://lib.example:443/a b.png#x", "https://lib.example/a%20b.png"),
        ("http://lib.example:80", "http://lib.example/"),
        ("http://lib.example:8080/ä?x=1 2", "http://lib.example:8080/%C3%A4?x=1%202"),
        ("https://[2001:DB8::1]/x", "https://[2001:db8::1]/x"),
        ("https://me:secret@lib.example/x", None),
        ("https://@lib.example/x", None),
        ("https://lib.example/logos/../admin", None),
        ("https://lib.example/logos/%2e%2E/admin", None),
        ("https://lib.example\\@evil.example/x", None),
        ("https://lib.example/a\nb", None),
        ("https://lib_example/x", None),
        ("https:///x", None),
        ("https://lib.example:99999/x", None),
        ("https://[::1/x", None),
        ("file:///etc/passwd", None),
        ("ftp://lib.example/x", None),
        ("cid:x", None),
        ("logo.png", None),
        ("https://lib.example/" + "x" * 1000, None),
    ],
)
def test_urls_have_one_spelling(given_url: str, expected: str | None) -> None:
    assert canonical(given_url) == expected


@given(st.text(max_size=60))
def test_canonical_urls_stay_as_they_are(text: str) -> None:
    for url in (text, f"https://{text}", f"https://lib.example/{text}"):
        found = canonical(url)
        assert found is None or canonical(found) == found


def allows(pattern: str, url: str) -> bool:
    found = canonical(url)
    return found is not None and Pictures(allow=(pattern,)).allows(found)


def test_list_of_allowed_urls() -> None:
    assert allows("www.lib.example/logos/*", "https://www.lib.example/logos/a/b.png?v=2")
    assert allows("https://www.lib.example/logos/logo.png", "https://WWW.lib.example/logos/logo.png")
    assert allows("*.lib.example/*.png", "https://cdn.images.lib.example/x.png")
    assert not allows("www.lib.example/logos/*", "http://www.lib.example/logos/a.png")
    assert not allows("www.lib.example/logos/*", "https://www.lib.example/other/a.png")
    assert not allows("www.lib.example/logos/*", "https://www.lib.example:8443/logos/a.png")
    assert not allows("www.lib.example/logos/*", "https://www.lib.example.evil.example/logos/a.png")
    assert not allows("*.lib.example/*", "https://lib.example/a.png")
    assert not allows("*.lib.example/*", "https://evillib.example/a.png")
    assert not allows("*.lib.example/*", "https://evil.example/.lib.example/a.png")
    assert not allows("www.lib.example/a.png", "https://www.lib.example/axpng")


def test_patterns_mean_the_same_when_they_are_read_again() -> None:
    once = Pictures(allow=("*.Lib.example/x/*", "http://127.0.0.1:81/*"))
    assert Pictures.model_validate(once.model_dump(mode="json")) == once


def test_copies_are_beside_the_spool(tmp_path: Path, tree: Tree) -> None:
    assert load(write(tmp_path, tree)).copies().folder is None
    tree["pictures"] = {"allow": ["lib.example/*"]}
    assert load(write(tmp_path, tree)).copies().folder == tmp_path / "pictures"
    tree["pictures"]["folder"] = "other"
    assert load(write(tmp_path, tree)).copies().folder == tmp_path / "other"


class Site:
    """A server on 127.0.0.1 that answers as it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answer: Answer = self.picture
        self.asked: list[web.Request] = []
        self.url = ""

    async def picture(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("If-None-Match") == '"1"':
            return web.Response(status=304)
        headers = {"ETag": '"1"', "Last-Modified": "Wed, 01 Jul 2026 10:00:00 GMT", "Set-Cookie": "track=1"}
        return web.Response(body=RED, headers=headers, content_type="text/plain")

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        return await self.answer(request)

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._serve)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        place = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await place.start()
        port = runner.addresses[0][1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/logo.png"
        try:
            yield self
        finally:
            await runner.cleanup()


def settings_for(site: Site, folder: Path) -> Pictures:
    return Pictures(allow=(site.url.replace("logo.png", "*"),), folder=folder)


def content(folder: Path, url: str) -> bytes | None:
    path = folder / copy_name(url)
    return path.read_bytes() if path.exists() else None


def overdue(place: Shelf, url: str) -> None:
    note = place.note(url)
    assert note is not None
    place.keep(replace(note, due=0.0))


@pytest.mark.asyncio
async def test_picture_is_fetched_kept_and_compared_later(tmp_path: Path) -> None:
    place = Shelf(tmp_path / "copies")
    async with Site().running() as site:
        fetcher = Fetcher(settings_for(site, place.folder), place)
        before = time.time()
        fetcher.want([site.url])
        await fetcher.idle()
        assert content(place.folder, site.url) == RED
        note = place.note(site.url)
        assert note is not None
        assert note.due >= before + 6 * 3600
        fetcher.want([site.url])
        await fetcher.idle()
        assert len(site.asked) == 1, "the copy is fresh"
        overdue(place, site.url)
        fetcher.want([site.url])
        await fetcher.idle()
        assert site.asked[1].headers["If-None-Match"] == '"1"'
        assert site.asked[1].headers["If-Modified-Since"] == "Wed, 01 Jul 2026 10:00:00 GMT"
        assert "Cookie" not in site.asked[1].headers
        assert content(place.folder, site.url) == RED
        refreshed = place.note(site.url)
        assert refreshed is not None
        assert refreshed.due > before + 3600
        assert (place.folder.stat().st_mode & 0o077, (place.folder / copy_name(site.url)).stat().st_mode & 0o077) == (
            0,
            0,
        )


async def refused(request: web.Request) -> web.StreamResponse:
    return web.Response(status=404, body=RED)


async def page(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"<html>log in</html>", content_type="image/png")


async def huge(request: web.Request) -> web.StreamResponse:
    return web.Response(body=BLUE + bytes(MAX_PICTURE), content_type="image/png")


async def packed(request: web.Request) -> web.StreamResponse:
    response = web.Response(body=BLUE, content_type="image/png")
    response.enable_compression(web.ContentCoding.gzip)
    response.headers["Content-Encoding"] = "gzip"
    return response


async def elsewhere(request: web.Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/logo.png"})


async def climbing(request: web.Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": "file:///etc/hostname"})


async def round_about(request: web.Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": request.path + "x"})


async def slow(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(BLUE[:10])
    await asyncio.Event().wait()
    return response


async def dropped(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def never_sent(request: web.Request) -> web.StreamResponse:
    return web.Response(status=304)


FAULTS = [
    (refused, "the server answered 404"),
    (page, "what came is no picture"),
    (huge, "more than 2048 KB"),
    (packed, "the answer is compressed"),
    (elsewhere, "redirected to a place that is not allowed"),
    (climbing, "redirected to a place that is not allowed"),
    (round_about, "too many redirects"),
    (slow, "no answer within"),
    (dropped, "Disconnected"),
    (never_sent, "the server answered 304"),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("fault", "trouble"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
async def test_bad_answer_leaves_no_copy_and_the_old_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Answer, trouble: str
) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT", 1.0)
    place = Shelf(tmp_path)
    async with Site().running() as site:
        fetcher = Fetcher(settings_for(site, tmp_path), place)
        site.answer = fault
        note = await fetcher.fetch(site.url)
        assert trouble in note.trouble
        assert content(tmp_path, site.url) is None
        if fault is never_sent:
            return
        site.answer = site.picture
        assert (await fetcher.fetch(site.url)).failures == 0
        site.answer = fault
        pauses = []
        for failures in (1, 2, 3):
            note = await fetcher.fetch(site.url)
            assert note.failures == failures
            pauses.append(note.due - note.asked)
        assert content(tmp_path, site.url) == RED, "the old copy is used as long as the server does not answer"
        assert pauses == pytest.approx([FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE], abs=10)


@pytest.mark.asyncio
async def test_failing_server_is_asked_rarely(tmp_path: Path) -> None:
    async with Site().running() as site:
        site.answer = refused
        fetcher = Fetcher(settings_for(site, tmp_path), Shelf(tmp_path))
        for _ in range(5):
            fetcher.want([site.url])
            await fetcher.idle()
        assert len(site.asked) == 1


@pytest.mark.asyncio
async def test_redirect_within_the_list_is_followed(tmp_path: Path) -> None:
    async with Site().running() as site:

        async def moved(request: web.Request) -> web.StreamResponse:
            if request.path == "/logo.png":
                return web.Response(status=301, headers={"Location": "/new/logo.png"})
            return web.Response(body=BLUE)

        site.answer = moved
        await Fetcher(settings_for(site, tmp_path), Shelf(tmp_path)).fetch(site.url)
        assert content(tmp_path, site.url) == BLUE


@pytest.mark.asyncio
async def test_only_what_the_list_has_is_fetched(tmp_path: Path) -> None:
    async with Site().running() as site:
        fetcher = Fetcher(settings_for(site, tmp_path), Shelf(tmp_path))
        other = site.url.replace("127.0.0.1", "127.0.0.2")
        fetcher.want([other, "https://lib.example/x.png", "file:///etc/passwd", site.url.replace("logo", "a/../logo")])
        await fetcher.idle()
        assert site.asked == []
        assert list(Shelf(tmp_path).notes()) == []


@pytest.mark.asyncio
async def test_name_that_leads_to_this_machine_is_not_followed() -> None:
    """An allowed name belongs to somebody; what listens on loopback does not."""
    resolver = fetch._Elsewhere()
    with pytest.raises(OSError, match="leads nowhere, or to this machine"):
        await resolver.resolve("127.0.0.1", 80)
    assert (await resolver.resolve("localhost", 80))[0]["host"] == "127.0.0.1"
    assert (await resolver.resolve("192.0.2.1", 80))[0]["host"] == "192.0.2.1"
    await resolver.close()


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "169.254.169.254", "fe80::1%lo", "::ffff:127.0.0.1", "0.0.0.0"]
)
def test_addresses_of_this_machine(address: str) -> None:
    assert fetch._is_here(address)
    assert not fetch._is_here("10.0.0.5")
    assert not fetch._is_here("2001:db8::1")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(begin).not_valid_after(begin + datetime.timedelta(9))
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    path = tmp_path / "site.pem"
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(encoded + signed.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.mark.asyncio
async def test_https_is_verified(tmp_path: Path, certificate: Path) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    folder = tmp_path / "copies"
    async with Site().running(server) as site:
        stranger = await Fetcher(settings_for(site, folder), Shelf(folder)).fetch(site.url)
        assert "certificate" in stranger.trouble.lower()
        assert site.asked == []
        trusting = ssl.create_default_context(cafile=certificate)
        known = await Fetcher(settings_for(site, folder), Shelf(folder), tls=trusting).fetch(site.url)
        assert known.failures == 0
        assert content(folder, site.url) == RED


def test_shelf_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "MAX_COPIES", 3)
    monkeypatch.setattr(shelf, "MAX_BYTES", 100)
    place = Shelf(tmp_path)
    for number in range(5):
        place.keep(Note(f"https://lib.example/{number}", size=10, asked=number), b"x" * 10)
    assert [note.url[-1] for note in place.notes()] == ["2", "3", "4"]
    place.keep(Note("https://lib.example/large", size=95, asked=9), b"x" * 95)
    assert [note.url for note in place.notes()] == ["https://lib.example/large"]
    assert len(list(tmp_path.iterdir())) == 2


def test_note_that_can_not_be_read_is_none(tmp_path: Path) -> None:
    place = Shelf(tmp_path)
    for junk in (b"", b"[]", b'{"url": "x", "more": 1}', b"\xff"):
        (tmp_path / (copy_name("https://lib.example/x") + ".json")).write_bytes(junk)
        assert place.note("https://lib.example/x") is None


def test_album_has_copies_of_what_is_allowed_only(tmp_path: Path) -> None:
    url, other = "https://lib.example/logo.png", "https://lib.example/other/logo.png"
    for one in (url, other):
        (tmp_path / copy_name(one)).write_bytes(RED)
    copies = Copies(Pictures(allow=("lib.example/*.png",), folder=tmp_path))
    album = Album((), "1", copies)
    served = album.url_for("https://LIB.example/logo.png")
    assert album.served()[served] == RED
    assert album.notes == []
    narrow = Copies(Pictures(allow=("lib.example/logo.png",), folder=tmp_path))
    album = Album((), "1", narrow)
    served = album.url_for(other)
    assert album.served()[served] != RED
    assert album.notes == [f"The image {other} is on another server and was not fetched."]
    assert narrow.wanted == ()
    missing = Album((), "1", copies)
    missing.url_for("https://lib.example/new.png")
    assert missing.notes == [
        "The image https://lib.example/new.png is on another server, and there is no copy of it yet."
    ]
    assert copies.wanted == (url, "https://lib.example/new.png")


def test_what_one_letter_may_ask_for_is_bounded(tmp_path: Path) -> None:
    copies = Copies(Pictures(allow=("lib.example/*",), folder=tmp_path))
    for number in range(100):
        copies.find(f"https://lib.example/{number}")
    assert len(copies.wanted) == MAX_WANTED


@pytest.mark.asyncio
async def test_slip_has_the_picture_from_the_second_time_on_and_still_when_the_server_is_gone(tmp_path: Path) -> None:
    """The whole way: the child asks, the service fetches afterwards, the next slip has it, offline too."""
    profile = Profile(name="a6", paper="105x148mm")
    async with Site().running() as site:
        settings = settings_for(site, tmp_path / "copies")
        fetcher = Fetcher(settings, Shelf(tmp_path / "copies"))
        mail = letter(f"<p>Slip</p><img src='{site.url}' width=200 height=200>")
        pool = RenderPool(Rendering(children=1), settings, fetcher.want)
        await pool.start()
        try:
            first = await pool.render(mail, profile)
            assert first.wanted == (site.url,)
            assert first.notes == (f"The image {site.url} is on another server, and there is no copy of it yet.",)
            await fetcher.idle()
            assert len(site.asked) == 1
            second = await pool.render(mail, profile)
            assert second.notes == ()
            assert (255, 0, 0) in colors(raster(second.pdf))
            site.answer = refused
            overdue(Shelf(tmp_path / "copies"), site.url)
            await pool.render(mail, profile)
            await fetcher.idle()
            third = await pool.render(mail, profile)
            assert (255, 0, 0) in colors(raster(third.pdf))
        finally:
            await pool.stop()
            await fetcher.close()


@pytest.mark.asyncio
async def test_slips_do_not_wait_for_a_slow_server(tmp_path: Path) -> None:
    async with Site().running() as site:
        site.answer = slow
        settings = settings_for(site, tmp_path)
        fetcher = Fetcher(settings, Shelf(tmp_path))
        pool = RenderPool(Rendering(children=1), settings, fetcher.want)
        await pool.start()
        try:
            mail = letter(f"<p>Slip</p><img src='{site.url}'>")
            await pool.render(mail, Profile(name="a6", paper="105x148mm"))
            second = await pool.render(mail, Profile(name="a6", paper="105x148mm"))
            assert second.pages == 1
            assert content(tmp_path, site.url) is None
        finally:
            await fetcher.close()
            await pool.stop()


def slip_relay(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, list(arguments))
    return result.exit_code, result.output


def test_command_fetches_and_lists(tmp_path: Path, tree: Tree) -> None:
    path = write(tmp_path, tree)
    assert slip_relay("pictures", "list", "-c", str(path)) == (
        1,
        "Error: pictures.allow is empty: nothing is fetched from other servers\n",
    )
    tree["pictures"] = {"allow": ["http://127.0.0.1:1/*"]}
    path = write(tmp_path, tree)
    assert slip_relay("check", "-c", str(path))[0] == 0
    code, output = slip_relay("pictures", "list", "-c", str(path))
    assert (code, output) == (0, f"no copies in {tmp_path}/pictures yet\n")
    code, output = slip_relay("pictures", "fetch", "-c", str(path), "https://lib.example/x.png")
    assert (code, "is not allowed by pictures.allow" in output) == (1, True)
    code, output = slip_relay("pictures", "fetch", "-c", str(path), "http://127.0.0.1:1/x.png")
    assert code == 1
    assert "http://127.0.0.1:1/x.png  no copy  (" in output
    assert "1 of 1 could not be fetched" in output
    Shelf(tmp_path / "pictures").keep(Note("https://gone.example/y.png", size=3, fetched=1e9), b"abc")
    code, output = slip_relay("pictures", "list", "-c", str(path))
    assert code == 0
    assert "3 bytes of 2001-09-0" in output
    assert "no longer allowed, and not used" in output


def test_check_tells_of_a_folder_that_can_not_be_made(tmp_path: Path, tree: Tree) -> None:
    tree["pictures"] = {"allow": ["lib.example/*"], "folder": str(tmp_path / "no" / "such")}
    code, output = slip_relay("check", "-c", str(write(tmp_path, tree)))
    assert code == 1
    assert "pictures.folder: the folder" in output


def test_nonsense_is_said_with_its_place() -> None:
    with pytest.raises(ValidationError, match="no pattern of URLs"):
        Pictures(allow=("lib.example",))
