"""The slips of the bench: letters as Alma sends them, each with text and barcodes of its own, and the page in each.

Three kinds: `request` (A4, two barcodes, a logo: what most of a library's paper is), `scripts` (the same with titles
in Hebrew, Arabic, Chinese, Japanese, Greek or Russian), and `receipt` (an 80 mm roll with five loans). The same number
gives the same slip; no two numbers do, so that no renderer lives from its cache of yesterday's words.

`page_of` is the page that slip-relay lays out for a message, with its pictures inside as `data:` URLs: what the other
renderers are given, so that all of them draw the same thing.
"""

from __future__ import annotations

import base64
import random

from relay.config.profiles import BUILT_IN_PROFILES, Profile
from relay.slips.images import Album
from relay.slips.page import Page, compose, environment
from relay.slips.parts import read_letter
from relay.slips.sanitize import sanitize
from tests.harness.samples import Item, loan_receipt, request_slip

KINDS = ("request", "scripts", "receipt")
PROFILES = {profile.name: profile for profile in BUILT_IN_PROFILES}

_THINGS = """lamps bridges orchards tides clocks ferries gardens kilns quarries signals harbours wool glass maps bells
meadows looms cellars larks granite rye Öfen Größen Gärten île forêt señal niño ærø køb båt żuk łąka""".split()  # noqa: SIM905
_PLACES = "Elmstadt Norrvik Cadelle Brzegowo Říčany Øystad Lindå Pontval Zellbrück Quarhaven Jüterholm Wexcombe".split()  # noqa: SIM905
_NAMES = "Örtel,Åsa Novák,Jiří Łuk,Wanda Perrault,Zoé Quist,Bjørn Yates,Max Günay,Çağla Feijó,João Kővári,Éva".split()  # noqa: SIM905
_TITLES = (
    "תולדות הספרייה העירונית",
    "מדריך לציפורי הצפון",
    "تاريخ المكتبة في المدينة",
    "دليل طيور الشمال",
    "圖書館與城市的歷史",
    "北方的鳥類手冊",
    "図書館の小さな歴史",
    "みずうみと鳥の手引き",
    "Η ιστορία της βιβλιοθήκης",
    "История одной библиотеки",
)


def profile_of(kind: str) -> Profile:
    """The paper of a kind of slip."""
    return PROFILES["receipt80" if kind == "receipt" else "a4"]


def slip(kind: str, number: int) -> bytes:
    """A message: the slip of that kind and number."""
    draw = random.Random(f"{kind} {number}")  # noqa: S311 - the same words in each run
    recipient = "desk@print.lib.example"
    if kind == "receipt":
        return loan_receipt(recipient, patron=_patron(draw), items=[_item(draw, _title(draw)) for _ in range(5)])
    title = _title(draw)
    if kind == "scripts":
        title = f"{draw.choice(_TITLES)} : {title} / {draw.choice(_TITLES)}"
    request = str(draw.randrange(10**13, 10**14))
    return request_slip(recipient, patron=_patron(draw), item=_item(draw, title), request=request, logo=True)


def page_of(message: bytes, profile: Profile) -> str:
    """The page of a message as slip-relay lays it out, complete in itself."""
    letter = read_letter(message)
    album = Album(letter.pictures, "bench")
    safe = sanitize(letter.html, album.url_for)
    page = compose(environment(profile.template), profile, Page.of(profile), safe, album.stylesheet(safe.body))
    for url, content in album.served().items():
        inside = f'"data:image/png;base64,{base64.b64encode(content).decode()}"'
        page = page.replace(f'src="{url}"', f"src={inside}").replace(
            f'src$="{url[url.rindex("/") :]}"', f"src={inside}"
        )
    return page


def _item(draw: random.Random, title: str) -> Item:
    author, barcode = _patron(draw), f"SB-{draw.randrange(10**7, 10**8)}"
    shelf = f"{draw.choice('ABDGHKNPQTZ')}{draw.randrange(100, 9999)} .{draw.choice('BDGKMS')}{draw.randrange(10, 99)}"
    return Item(title=title, author=author, barcode=barcode, call_number=f"{shelf} {draw.randrange(1950, 2026)}")


def _title(draw: random.Random) -> str:
    one, other = draw.sample(_THINGS, 2)
    return f"{one.capitalize()} and {other} of {draw.choice(_PLACES)}: a history in {draw.randrange(2, 90)} chapters"


def _patron(draw: random.Random) -> str:
    return draw.choice(_NAMES).replace(",", ", ")
