"""The letter inside the page template of the printer's profile.

Does: finds the Jinja2 template that `profile.template` names (one of templates/slips, or the path of one's own, which
may extend ours) and fills in the letter, the paper and the fonts.
Promises: everything is escaped except what `sanitize` and `Album` made.
Refuses: a template that is missing or wrong (RenderError with its name and line).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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

from relay.config.kinds import paper_size
from relay.config.printers import Profile
from relay.errors import RenderError
from relay.resources import templates_folder
from relay.slips.sanitize import SafeLetter

LONGEST_ROLL_MM = 5000.0
"""PDF knows pages up to 14,400 units, which is 5,080 mm; longer rolls are refused."""


@dataclass(frozen=True, slots=True)
class Page:
    """The paper as the layout sees it, in millimetres.

    `scale` over 1 lays out on more paper, which is then drawn smaller; `is_tight` lets words break anywhere.
    """

    width_mm: float
    height_mm: float
    margin_mm: float
    is_roll: bool
    scale: float = 1.0
    is_tight: bool = False

    @classmethod
    def of(cls, profile: Profile, scale: float = 1.0, *, is_tight: bool = False) -> Page:
        """The page of a profile."""
        width, height = paper_size(profile.paper)
        tall = height if height is not None else LONGEST_ROLL_MM
        return cls(width * scale, tall * scale, profile.margin_mm * scale, height is None, scale, is_tight)


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


def compose(templates: Environment, profile: Profile, page: Page, letter: SafeLetter, image_css: str) -> str:
    """The whole HTML page. Raises RenderError when the template can't be used."""
    template = find_template(templates, profile)
    with _in_words(profile):
        return template.render(
            page=page,
            font_family=Markup(_font_family(profile.font_family)),  # noqa: S704 - cleaned in the same line
            font_size=profile.font_size_pt,
            letter=letter,
            letter_css=Markup(letter.css),  # noqa: S704 - made by relay.slips.stylesheet
            letter_body=Markup(letter.body),  # noqa: S704 - made by nh3
            image_css=Markup(image_css),  # noqa: S704 - made by relay.slips.images, of numbers
        )


@contextmanager
def _in_words(profile: Profile) -> Iterator[None]:
    """Jinja2's errors as ours."""
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


def _font_family(names: str) -> str:
    """A list of font names as CSS, each quoted except the generic ones (escaping for HTML would break them)."""
    families = []
    for name in names.split(","):
        plain = re.sub(r"[^\w .+-]", "", name).strip()
        generic = plain in ("serif", "sans-serif", "monospace", "cursive", "fantasy")
        families.append(plain if generic else f'"{plain}"')
    return ", ".join(families)
