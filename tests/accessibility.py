"""Checks a page by axe-core against WCAG 2, levels A and AA, in both themes, on a phone and on a desktop."""

from typing import Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "resultTypes": ["violations"]}
_SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
_WIDTHS = (400, 1_280)


def violations(page: Page) -> list[str]:
    """Return what is wrong with the page as it is shown: theme, width, rule and element."""
    axe = Axe()
    found = []
    for scheme in _SCHEMES:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        for width in _WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            found += [
                f"{scheme}, {width} px: {one['id']}: {node['html']}"
                for one in axe.run(page, options=_RULES).response["violations"]
                for node in one["nodes"]
            ]
    return found
