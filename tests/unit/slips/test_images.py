"""What an `<img>` means."""

from __future__ import annotations

import base64

import pytest

from relay.slips.images import Album, decode
from relay.slips.parts import Picture
from tests.unit.slips.letters import barcode, solid

RED, BLUE, GREEN = solid("red"), solid("blue"), solid("lime")


def answered(album: Album, reference: str) -> bytes:
    url = album.url_for(reference)
    return album.served()[url]


@pytest.mark.parametrize(
    "reference",
    ["cid:a.png", "CID:A.PNG", "cid:%61.png", "a.png", "./a.png", "img/sub/a.png", "a.png?x=1", " a.png ", r"C\a.png"],
)
def test_ways_to_name_a_picture(reference: str) -> None:
    for known in (Picture(RED, content_id="a.png"), Picture(RED, name="a.png"), Picture(RED, location="a.png")):
        album = Album((known, Picture(BLUE, "b", "b", "b")), "1")
        assert answered(album, reference) == RED
        assert album.notes == []


def test_content_id_comes_before_file_name_before_location() -> None:
    by_location, by_name, by_id = Picture(RED, location="x"), Picture(BLUE, name="x"), Picture(GREEN, content_id="x")
    assert answered(Album((by_location, by_name, by_id), "1"), "x") == GREEN
    assert answered(Album((by_location, by_name), "1"), "x") == BLUE


def test_remote_url_is_own_part_by_content_location_only() -> None:
    url = "https://example.edu/logo.png"
    assert answered(Album((Picture(RED, location=url),), "1"), url) == RED
    album = Album((Picture(RED, name="logo.png"),), "1")
    assert answered(album, url) != RED
    assert album.notes == [f"The image {url} is on another server and was not fetched."]


def test_data_url_is_a_picture_of_its_own() -> None:
    album = Album((), "1")
    assert answered(album, "data:image/png;base64," + base64.b64encode(RED).decode()) == RED


@pytest.mark.parametrize("reference", ["nothing.png", "cid:", "", "data:image/png;base64,!", "file:///etc/passwd"])
def test_what_is_missing_is_a_placeholder_and_one_note(reference: str) -> None:
    album = Album((Picture(RED, "a", "a", "a"),), "1")
    assert decode(answered(album, reference)) is not None
    assert album.url_for(reference) == album.url_for(reference)
    assert len(album.notes) == 1


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, b"<svg/>", b"%PDF-1.4"])
def test_what_is_no_picture_is_a_placeholder_and_a_note(content: bytes) -> None:
    album = Album((Picture(content, content_id="x"),), "1")
    assert answered(album, "cid:x") != content
    assert album.notes == ["The image x can't be read as a picture."]


def test_too_many_pixels_are_refused() -> None:
    assert decode(solid("red", (6000, 5000))) is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_kinds_are_found_by_looking(kind: str) -> None:
    drawable = decode(solid("red", kind=kind))
    assert drawable is not None
    assert drawable.content[:4] in (b"\x89PNG", b"\xff\xd8\xff\xe0")


@pytest.mark.parametrize(("written", "taken"), [(150, 150), (300, 300), (72, 96), (1, 96), (5000, 96), (None, 96)])
def test_own_resolution(written: int | None, taken: float) -> None:
    drawable = decode(solid("red", dpi=written))
    assert drawable is not None
    assert drawable.dpi == taken


def test_barcodes_are_crisp_and_photos_are_not() -> None:
    crisp, smooth = decode(barcode()), decode(solid("red", kind="JPEG"))
    assert crisp is not None
    assert smooth is not None
    assert (crisp.crisp, smooth.crisp) == (True, False)


def test_urls_differ_from_letter_to_letter() -> None:
    picture = Picture(RED, content_id="item_id_barcode.png")
    first, second = Album((picture,), "1"), Album((picture,), "2")
    assert first.url_for("cid:item_id_barcode.png") != second.url_for("cid:item_id_barcode.png")
