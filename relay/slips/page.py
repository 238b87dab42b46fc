"""The letter inside the page template of the printer's profile.

Does: finds the Jinja2 template that `profile.template` names (one of templates/slips, or the path of one's own, which
may extend ours) and fills in the letter, the paper, the fonts, header and footer, and the code to print large.
Promises: everything is escaped except what `sanitize` and `Album` made, and the operator's own style sheet.
Refuses: a template or a style sheet that is missing or wrong (RenderError with its name and line).

docs/templates.md has what a template of one's own may use.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import (
    Environment,
    FileSystemLoader,
    StrictUndefined,
    Template,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
)
from markupsafe import Markup

from relay.config.profiles import Profile, Sides
from relay.errors import RenderError
from relay.resources import templates_folder
from relay.slips.lines import fill_in
from relay.slips.sanitize import SafeLetter
from relay.slips.slip import Occasion

LONGEST_ROLL_MM = 5000.0
"""PDF knows pages up to 14,400 units, which is 5,080 mm; longer rolls are refused."""
LINE_MM = 10.0
"""Margin of a sheet that holds a header or footer line, at least."""
MAX_STYLESHEET = 256 * 1024
SMALLEST_BIG_PT = 14.0


@dataclass(frozen=True, slots=True)
class Page:
    """The paper as the layout sees it, in millimetres.

    `scale` over 1 lays out on more paper, which is then drawn smaller. `squeeze` 1 gives up what the letter says about
    widths and unbroken lines, 2 also lets words break anywhere.
    """

    width_mm: float
    height_mm: float
    margins: Sides
    is_roll: bool
    scale: float = 1.0
    squeeze: int = 0

    @classmethod
    def of(cls, profile: Profile, scale: float | None = None, squeeze: int = 0) -> Page:
        """The page of a profile; without a scale at that of the profile."""
        scale = 100 / profile.scale_percent if scale is None else scale
        width, height = profile.page_size
        margins = profile.margins
        if height is not None:
            margins = margins._replace(
                top=max(margins.top, LINE_MM if profile.header else 0),
                bottom=max(margins.bottom, LINE_MM if profile.footer else 0),
            )
        tall = height if height is not None else LONGEST_ROLL_MM
        sides = Sides(*(side * scale for side in margins))
        return cls(width * scale, tall * scale, sides, height is None, scale, squeeze)

    @property
    def content_mm(self) -> tuple[float, float]:
        """Width and height between the margins."""
        sides = self.margins
        return self.width_mm - sides.left - sides.right, self.height_mm - sides.top - sides.bottom


@dataclass(frozen=True, slots=True)
class Code:
    """What is printed large: a text, the small label before it, and its size on paper."""

    text: str
    label: str
    size_pt: float


def slip_templates() -> Path:
    """The folder of the templates that come with slip-relay."""
    return templates_folder() / "slips"


def is_own(template: str) -> bool:
    """Whether a template name is the path of one's own file."""
    return "/" in template


def environment(template: str) -> Environment:
    """Where a template and what it extends are looked up. Keep it: it holds the compiled templates."""
    folders = [slip_templates()]
    if is_own(template):
        folders.insert(0, Path(template).parent)
    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=True,  # the desk changes its template and sees it on the next slip
    )


def find_template(templates: Environment, profile: Profile) -> Template:
    """The profile's template, compiled. Raises RenderError when it is missing or wrong."""
    name = Path(profile.template).name if is_own(profile.template) else profile.template
    with _in_words(profile):
        return templates.get_template(name)


@dataclass(frozen=True, slots=True)
class AttachedSheet:
    """An attached page: where its picture is served, and how large it is on paper."""

    url: str
    width_mm: float
    height_mm: float


@dataclass(frozen=True, slots=True)
class Attached:
    """What follows the letter: pages, and lines about what was not printed."""

    sheets: tuple[AttachedSheet, ...] = ()
    notices: tuple[str, ...] = ()


def compose(
    templates: Environment,
    profile: Profile,
    page: Page,
    letter: SafeLetter,
    image_css: str,
    *,
    occasion: Occasion | None = None,
    code: str = "",
    attached: Attached | None = None,
) -> str:
    """The whole HTML page. Raises RenderError when the template or the style sheet can't be used."""
    attached = attached or Attached()
    template = find_template(templates, profile)
    occasion = occasion or Occasion()
    given: dict[str, Any] = {
        "page": page,
        "profile": profile,
        "occasion": occasion,
        "header": fill_in(profile.header, occasion),
        "footer": fill_in(profile.footer, occasion),
        "code": _code(profile, page, code),
        "font_family": Markup(_font_family(profile.font_family)),  # noqa: S704 - cleaned in the same line
        "font_size": profile.font_size_pt,
        "letter": letter,
        "letter_css": Markup(letter.css),  # noqa: S704 - made by relay.slips.stylesheet
        "letter_body": Markup(letter.body),  # noqa: S704 - made by nh3
        "image_css": Markup(image_css),  # noqa: S704 - made by relay.slips.images, of numbers
        "sheets": attached.sheets,
        "notices": attached.notices,
        "own_css": Markup(own_css(profile)),  # noqa: S704 - the operator's
    }
    with _in_words(profile):
        return template.render(given)


def _code(profile: Profile, page: Page, text: str) -> Code | None:
    """The code at a size at which its longest word fits the line, and all of it two lines."""
    if profile.big is None or not text:
        return None
    words = [sum(map(_ems, word)) for word in text.split()]
    longest = max(*words, (sum(words) + 0.4 * len(words)) / 2)
    width_pt = page.content_mm[0] / page.scale / 25.4 * 72
    fitting = width_pt / longest
    return Code(text, profile.big.label, max(SMALLEST_BIG_PT, min(profile.big.size_pt, round(fitting, 1))))


def _ems(character: str) -> float:
    """Width of a bold character, about, and rather too much: fonts differ."""
    if character in "MW@%" or unicodedata.east_asian_width(character) in "WF":
        return 1.0
    return 0.8 if character.isupper() else 0.65


def own_css(profile: Profile) -> str:
    """The operator's style sheet, fit for a `<style>` element. Raises RenderError when it can't be read."""
    if profile.stylesheet is None:
        return ""
    try:
        with profile.stylesheet.open(encoding="utf-8") as file:
            css = file.read(MAX_STYLESHEET + 1)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise RenderError(f"the style sheet {profile.stylesheet} can't be read: {why}") from None
    if len(css) > MAX_STYLESHEET:
        raise RenderError(f"the style sheet {profile.stylesheet} is larger than {MAX_STYLESHEET // 1024} KB")
    return css.replace("</", "<\\/")  # it stands in a <style>; in CSS the two mean the same


@contextmanager
def _in_words(profile: Profile) -> Iterator[None]:
    """Jinja2's errors, and those of what a template computes, as ours."""
    try:
        yield
    except TemplateNotFound as error:
        raise RenderError(f"the template {profile.template} can't be used: there is no {error.name}") from error
    except TemplateSyntaxError as error:
        raise RenderError(
            f"the template {profile.template} is wrong in line {error.lineno}: {error.message}"
        ) from error
    except TemplateError as error:
        raise RenderError(f"the template {profile.template} can't be used: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        # Their text might quote the letter.
        raise RenderError(f"the template {profile.template} can't be used: {type(error).__name__} in it") from error


def _font_family(names: str) -> str:
    """A list of font names as CSS, each quoted except the generic ones (escaping for HTML would break them)."""
    families = []
    for name in names.split(","):
        plain = re.sub(r"[^\w .+-]", "", name).strip()
        generic = plain in ("serif", "sans-serif", "monospace", "cursive", "fantasy")
        families.append(plain if generic else f'"{plain}"')
    return ", ".join(families)
