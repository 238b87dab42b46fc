"""Files to attach to letters, and messages with files."""

from __future__ import annotations

from email.mime.application import MIMEApplication
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from io import BytesIO

from PIL import Image, ImageDraw
from pypdf import PdfReader, PdfWriter

DPI = 50


def sheet_of(color: str, width_mm: float = 210, height_mm: float = 297, mode: str = "RGB") -> Image.Image:
    """A white page with a block of colour in its upper left quarter."""
    page = Image.new(mode, (round(width_mm / 25.4 * DPI), round(height_mm / 25.4 * DPI)), "white" if mode != "1" else 1)
    ImageDraw.Draw(page).rectangle((0, 0, page.width // 2, page.height // 2), fill=color if mode != "1" else 0)
    return page


def pdf_of(*pages: Image.Image, password: str = "") -> bytes:
    """A PDF of pictures, locked if there is a password."""
    target = BytesIO()
    pages[0].save(target, "PDF", resolution=DPI, save_all=True, append_images=pages[1:])
    if not password:
        return target.getvalue()
    writer = PdfWriter(clone_from=PdfReader(target))
    writer.encrypt(password)
    locked = BytesIO()
    writer.write(locked)
    return locked.getvalue()


def saved(page: Image.Image, kind: str, *more: Image.Image) -> bytes:
    """Pictures as a file that knows its resolution."""
    target = BytesIO()
    several = {"save_all": True, "append_images": more} if more else {}
    page.save(target, kind, dpi=(DPI, DPI), **several)
    return target.getvalue()


def file(
    content: bytes, name: str, kind: str = "application/octet-stream", disposition: str = "attachment"
) -> MIMEBase:
    """An attachment."""
    part = MIMEApplication(content, "x")
    part.replace_header("Content-Type", kind)
    part.add_header("Content-Disposition", disposition, filename=name)
    return part


def message(*parts: MIMEBase, html: str = "") -> bytes:
    """A letter, if there is any HTML, and what comes with it."""
    mixed = MIMEMultipart("mixed")
    for part in (*([MIMEText(html, "html", "utf-8")] if html else []), *parts):
        mixed.attach(part)
    return mixed.as_bytes()
