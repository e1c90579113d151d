"""Page: HTML that needs nothing but itself.

Pictures are data URIs, the style is inside, there is no script; the policy at its top has a browser load nothing from
anywhere, also if something slipped in. Every text is escaped by the template engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medld import __version__
from medld.report.cases import SIDES, Column
from medld.report.colours import png_uri
from medld.report.record import RESEARCH_USE

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["POLICY", "render"]

TEMPLATES = Path(__file__).parent / "templates"

PICTURES_WIDTH, PICTURES_HEIGHT, LARGEST_PICTURE = 940, 570, 320
"""Pixels of a screen: A4 across has about 1030 by 700, headings and gaps included."""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Styles are allowed inside because charts carry them; no script is, and nothing from elsewhere."""


def render(template: str, title: str, subtitle: str, sentences: Sequence[str], **values: Any) -> bytes:
    """A page as UTF-8.

    Args:
        template: Name of a file in templates/.
        title: Of the page.
        subtitle: One sentence below it.
        sentences: Warnings.
        **values: What the template shows.
    """
    from markupsafe import Markup

    style = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))
    common = {"policy": Markup(POLICY), "style": style, "use": RESEARCH_USE, "version": __version__, "sides": SIDES}
    page = (
        _environment()
        .get_template(template)
        .render(title=title, subtitle=subtitle, sentences=sentences, **common, **values)
    )
    # A file's name may hold bytes that are no text.
    return page.encode("utf-8", "replace")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    """The templates; whatever they are given is escaped, and a name that is missing is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(png=png_uri, pixels=_screen_pixels, widest=_widest_pixels)
    return environment


def _screen_pixels(length: float, columns: Sequence[Column]) -> int:
    """mm on the page: columns beside each other and planes below one another fit on a sheet, none gets too large."""
    extents = [picture.extent for picture in columns[0].pictures]
    height, width = sum(height for height, _ in extents), max(width for _, width in extents)
    scale = min(PICTURES_HEIGHT / height, PICTURES_WIDTH / len(columns) / width, LARGEST_PICTURE / width)
    return max(1, round(length * scale))


def _widest_pixels(columns: Sequence[Column]) -> int:
    """Of a picture."""
    return max(_screen_pixels(picture.extent[1], columns) for picture in columns[0].pictures)
