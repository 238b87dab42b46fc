"""A contact sheet: the first pages of many slips on one picture, each with its name and what is wrong with it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

WIDTH, TALLEST, GAP, CAPTION = 360, 760, 18, 74
COLUMNS = 6

Shown = tuple[str, int, Sequence[str], Image.Image | None]
"""Name, number of pages, faults, thumbnail."""


def thumbnail(page: Image.Image) -> Image.Image:
    """A page of one bit, small: in grey, so that its text stays readable. Of a long roll the upper end."""
    small = page.resize((WIDTH, max(1, round(page.height * WIDTH / page.width))), Image.Resampling.BOX)
    return small.crop((0, 0, WIDTH, min(small.height, TALLEST)))


def draw(shown: Sequence[Shown]) -> Image.Image:
    """All of them, row by row, in the order in which they come."""
    rows = [shown[at : at + COLUMNS] for at in range(0, len(shown), COLUMNS)]
    heights = [max((each[3].height if each[3] else 60) for each in row) + CAPTION + GAP for row in rows]
    sheet = Image.new("RGB", (COLUMNS * (WIDTH + GAP) + GAP, sum(heights) + GAP), (196, 200, 206))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, (name, pages, faults, picture) in enumerate(row):
            left = GAP + column * (WIDTH + GAP)
            title = "\n".join(textwrap.wrap(f"{name} ({pages} p.)", 50)[:2])
            said = "\n".join(textwrap.wrap("; ".join(faults), 52)[:2])
            pen.text((left, top), title, fill=(0, 0, 0), font=font)
            pen.text((left, top + 34), said, fill=(170, 0, 0), font=font)
            if picture is not None:
                sheet.paste(picture.convert("RGB"), (left, top + CAPTION))
        top += height
    return sheet
