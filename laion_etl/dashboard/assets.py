"""The pages' templates, and their scripts and styles, which have a hash in their URL."""

import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from laion_etl.core.quantities import QUANTITIES_JS

_HERE = Path(__file__).parent
_STATIC = _HERE / "static"
CONTENT_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_ASSETS = {
    path.name: path.read_bytes()
    for path in sorted([*_STATIC.iterdir(), QUANTITIES_JS])
    if path.suffix[1:] in CONTENT_TYPES
}
# Browsers cache them without expiry; changed content has another URL.
VERSION = hashlib.sha256(b"\0".join(_ASSETS.values())).hexdigest()[:12]


def asset(name: str) -> bytes | None:
    """Return a script or style; None for any other name."""
    return _ASSETS.get(name)


def page(name: str, **values: str) -> str:
    """Render a page from the templates folder, with values escaped."""
    return _environment().get_template(f"{name}.html.j2").render(version=VERSION, **values)


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=select_autoescape(("html.j2",), default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
