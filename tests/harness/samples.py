"""The project's own mail in Alma's true MIME shape: a patron letter and three slips, with invented people and books.

The shape is what one sees on the wire: multipart/related without `type` or `start`, in it multipart/alternative with a
single text/html child, accents as entities, pictures inline with a Content-ID that is a file name, and a logo.jpg that
is a PNG. Text outside Latin-1 makes the HTML quoted-printable. Lines end in CRLF.

Each function gives a whole message as bytes; all texts are parameters with defaults.
"""

from __future__ import annotations

import html
import quopri
import secrets
from base64 import encodebytes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.header import Header
from email.utils import format_datetime
from html.entities import codepoint2name
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from tests.harness import code39

LIBRARY = "Seebrücken Library"
PATRON = "Örtel, Åsa"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing on a shelf."""

    title: str = "Über die Wärme alter Öfen: a history of the tiled stove"
    author: str = "Grünwald, Zoë"
    barcode: str = "SB-20417733"
    call_number: str = "TH7460 .G78 2011"
    due: str = "14/02/2027 18:00"


def patron_letter(
    recipient: str,
    *,
    sender: str = "circulation@lib.example",
    patron: str = PATRON,
    item: Item = Item(),
    message_id: str | None = None,
) -> bytes:
    """A letter to a patron: something waits on the hold shelf. With a logo."""
    body = f"""
<p>Dear {_text(patron)},</p>
<p>The item you asked for has arrived and is waiting for you on the hold shelf.</p>
<table cellpadding="5" class="listing"><tr><td><b>Title:</b></td><td>{_text(item.title)}</td></tr>
<tr><td><b>By:</b></td><td>{_text(item.author)}</td></tr>
<tr><td><b>Pick it up at:</b></td><td>{_text(LIBRARY)}, ground floor</td></tr>
<tr><td><b>We keep it until:</b></td><td>{_text(item.due)}</td></tr></table>
<p>Yours sincerely,<br>The circulation desk</p>"""
    return _message(
        sender, recipient, "Your item is on the hold shelf", _page(body, logo=True), {"logo.jpg": _logo()}, message_id
    )


def request_slip(
    recipient: str,
    *,
    sender: str = "circulation@lib.example",
    patron: str = PATRON,
    item: Item = Item(),
    request: str = "29310448817602",
    logo: bool = False,
    message_id: str | None = None,
) -> bytes:
    """A slip for the stacks: fetch this item. Two barcodes by Content-ID; the logo comes along, shown or not."""
    body = f"""
<h1>Resource request</h1>
<table cellpadding="5"><tr><td><b>Request number:</b></td>
<td><img src="cid:request_id_barcode.png" alt="Request Barcode"></td></tr>
<tr><td><b>Item barcode:</b></td><td><img src="cid:item_id_barcode.png" alt="Item Barcode"></td></tr></table>
<h2>{_text(item.title)}</h2>
<p>By: {_text(item.author)}</p>
<table cellpadding="5"><tr><td><b>Call number:</b></td><td>{_text(item.call_number)}</td></tr>
<tr><td><b>Location:</b></td><td>Closed stacks, level 2</td></tr>
<tr><td><b>For:</b></td><td>{_text(patron)}</td></tr></table>
<p>___ not on the shelf &nbsp;&nbsp; ___ damaged</p>"""
    pictures = {
        "request_id_barcode.png": code39.png(request),
        "item_id_barcode.png": code39.png(item.barcode),
        "logo.jpg": _logo(),
    }
    return _message(sender, recipient, "Resource Request", _page(body, logo=logo), pictures, message_id)


def transit_slip(
    recipient: str,
    *,
    sender: str = "circulation@lib.example",
    item: Item = Item(),
    destination: str = "Hafenstraße Branch Library",
    external: str = "TR-550021",
    message_id: str | None = None,
) -> bytes:
    """A slip that travels with an item. Its pictures are named as the default templates do: bare, without `cid:`."""
    body = f"""
<h1>In transit</h1>
<p>To: <b>{_text(destination)}</b></p>
<table cellpadding="5"><tr><td><b>Transfer:</b></td><td><img src="externalId.png" alt="externalId"></td></tr>
<tr><td><b>Item:</b></td><td><img src="cid:item_id_barcode.png" alt="Item Barcode"></td></tr>
<tr><td><b>Title:</b></td><td>{_text(item.title)}</td></tr></table>"""
    pictures = {"externalId.png": code39.png(external), "item_id_barcode.png": code39.png(item.barcode)}
    return _message(sender, recipient, "Transit Slip", _page(body), pictures, message_id)


def loan_receipt(
    recipient: str,
    *,
    sender: str = "circulation@lib.example",
    patron: str = PATRON,
    items: Sequence[Item] | int = 3,
    message_id: str | None = None,
) -> bytes:
    """A receipt for what was lent just now: as many items as wanted, for a roll printer."""
    lent = invented_items(items) if isinstance(items, int) else items
    rows = "".join(
        f"<tr><td>{_text(item.title)}<br>{_text(item.barcode)}</td><td>due {_text(item.due)}</td></tr>\n"
        for item in lent
    )
    body = f"""
<h2>Loan receipt</h2>
<p>{_text(patron)}</p>
<table cellpadding="3" class="listing">
{rows}</table>
<p>{len(lent)} items. Thank you, and happy reading!</p>"""
    return _message(sender, recipient, "Loan Receipt", _page(body, logo=True), {"logo.jpg": _logo()}, message_id)


def invented_items(count: int) -> list[Item]:
    """That many different items."""
    things = ("Lamps", "Bridges", "Orchards", "Tides", "Clocks", "Ferries", "Gardens")
    return [
        Item(title=f"{things[n % len(things)]} of the north, volume {n + 1}", barcode=f"SB-3{n:07d}")
        for n in range(count)
    ]


def _page(body: str, *, logo: bool = False) -> str:
    head = '<div id="logoContainer"><img src="cid:logo.jpg" alt="logo"></div>' if logo else ""
    return f"""<html><head>
<META http-equiv="Content-Type" content="text/html; charset=UTF-8">
<style> body {{background-color:#fff}} .listing td {{border-bottom: 1px solid #eee}} h1 {{font-size: 1.4em}} </style>
</head>
<body>
<table width="100%" bgcolor="#f5f5f5"><tr><td>{head}</td><td align="right">{_text(LIBRARY)}</td></tr></table>
<div class="messageBody">{body}
</div>
</body></html>
"""


def _text(text: str) -> str:
    """Text as Alma's transformation writes it: what Latin-1 has becomes an entity, the rest stays as it is."""
    escaped = html.escape(text, quote=False)
    return "".join(f"&{codepoint2name[ord(c)]};" if 160 <= ord(c) <= 255 else c for c in escaped)


def _message(
    sender: str, recipient: str, subject: str, page: str, pictures: Mapping[str, bytes], message_id: str | None
) -> bytes:
    now = datetime.now(UTC)
    serial, stamp = secrets.randbelow(9000) + 1000, int(now.timestamp() * 1000)
    outer, inner = (f"----=_Part_{serial + n}_{secrets.randbelow(10**9)}.{stamp}" for n in (1, 0))
    unique = message_id or f"<{secrets.randbelow(10**9)}.{serial + 2}.{stamp}.JavaMail.urm@app02.eu07>"
    encoding, content = (
        ("7bit", page.encode()) if page.isascii() else ("quoted-printable", quopri.encodestring(page.encode()))
    )
    lines = [
        f"Date: {format_datetime(now)} (UTC)",
        f"From: {sender}",
        f"To: {recipient}",
        f"Message-ID: {unique}",
        f"Subject: {Header(subject, None if subject.isascii() else 'utf-8').encode()}",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/related; \n\tboundary="{outer}"\n',
        f'--{outer}\nContent-Type: multipart/alternative; \n\tboundary="{inner}"\n',
        f"--{inner}\nContent-Type: text/html; charset=UTF-8\nContent-Transfer-Encoding: {encoding}\n",
        f"{content.decode()}--{inner}--\n",
        *(_picture(outer, name, picture) for name, picture in pictures.items()),
        f"--{outer}--\n",
    ]
    return "\n".join(lines).replace("\n", "\r\n").encode("ascii")


def _picture(boundary: str, name: str, picture: bytes) -> str:
    return (
        f"--{boundary}\nContent-Type: image/png; name={name}\nContent-Transfer-Encoding: base64\n"
        f"Content-Disposition: inline; filename={name}\nContent-ID: <{name}>\n\n"
        f"{encodebytes(picture).decode()}"
    )


def _logo() -> bytes:
    picture = Image.new("RGBA", (300, 54), (255, 255, 255, 0))
    draw = ImageDraw.Draw(picture)
    draw.arc([6, 10, 76, 90], 180, 360, fill=(20, 60, 110, 255), width=6)
    draw.line([(0, 50), (82, 50)], fill=(20, 60, 110, 255), width=4)
    # Pillow's own font has no umlauts.
    draw.text((92, 18), LIBRARY.replace("ü", "ue"), fill=(20, 60, 110, 255), font=ImageFont.load_default(20))
    out = BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
