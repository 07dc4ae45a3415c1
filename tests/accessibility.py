"""Checks a page by axe-core against WCAG 2.1, levels A and AA, in both themes, on a phone and on a desktop.

Contrasts depend on the theme and, by what is shown at all, on the width; everything else at most on the
width. So contrasts are checked in all four combinations and the other rules once for each width. Most of the
time goes into the contrast of each element: of a table, a list or a drawing two of a kind are checked.
"""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

_ALL = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "resultTypes": ["violations"]}
_CONTRAST = {"runOnly": {"type": "rule", "values": ["color-contrast"]}, "resultTypes": ["violations"]}
_COMBINATIONS = (
    ("light", 400, _ALL),
    ("dark", 400, _CONTRAST),
    ("dark", 1_280, _ALL),
    ("light", 1_280, _CONTRAST),
)
_SHORTEN = """() => {
    for (const list of document.querySelectorAll("tbody, ul, ol, .grid, svg, svg g")) {
        const seen = new Map();
        for (const child of [...list.children]) {
            const kind = `${child.tagName} ${child.getAttribute("class")}`;
            seen.set(kind, (seen.get(kind) ?? 0) + 1);
            if (seen.get(kind) > 2) child.remove();
        }
    }
}"""


def violations(page: Page) -> list[str]:
    """Return what is wrong with the page as it is shown: width, rule and element. Leaves it shortened."""
    page.evaluate(_SHORTEN)
    axe = Axe()
    found = []
    for scheme, width, rules in _COMBINATIONS:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        page.set_viewport_size({"width": width, "height": 900})
        found += [
            f"{scheme}, {width} px: {one['id']}: {node['html']}"
            for one in axe.run(page, options=rules).response["violations"]
            for node in one["nodes"]
        ]
    return found
