"""The figures of the report as PNG files, for papers and slides: report/png/<figure>.png.

Text is set in the font bundled with Pillow (Aileron, ASCII only), never in a font of the machine: a machine
without fonts gives the same image, and equal data give equal bytes. Only text of this project is drawn; text
from the web appears only on the page.
"""

import re
import tempfile
from functools import cache

import resvg_py
from markupsafe import Markup
from PIL import ImageFont

from laion_etl.report.templating import TEMPLATES

WIDTH_PX = 1_200  # of a journal's column: 360 dots per inch
_RULE = re.compile(r":root \{(.*?)\}", re.DOTALL)
_VARIABLE = re.compile(r"(--[\w-]+):\s*([^;]+);")
_USE = re.compile(r"var\((--[\w-]+)\)")
_ASCII = str.maketrans({"−": "-", "–": "-", "×": "x", "≥": ">", "’": "'"})


def png(drawing: Markup) -> bytes:
    """Render a drawing as PNG, in the page's light colours on white."""
    found = str(drawing).translate(_ASCII).encode("ascii", "replace").decode()
    with tempfile.NamedTemporaryFile(suffix=".ttf") as font:
        font.write(_font())
        font.flush()
        return bytes(
            resvg_py.svg_to_bytes(
                svg_string=found,
                style_sheet=_style(),
                width=WIDTH_PX,
                background="#ffffff",
                skip_system_fonts=True,
                font_files=[font.name],
                font_family="Aileron",
                sans_serif_family="Aileron",
            )
        )


@cache
def _style() -> str:
    """Return the chart styles with colours filled in: the renderer does not support CSS variables."""
    light = _RULE.search((TEMPLATES / "palette.css").read_text())
    colours = dict(_VARIABLE.findall(light[1] if light else ""))
    rules = _USE.sub(lambda use: colours[use[1]], (TEMPLATES / "chart.css").read_text())
    return f"{rules}\ntext {{ font-family: Aileron; }}\n"


@cache
def _font() -> bytes:
    font = ImageFont.load_default(size=12)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("cannot draw text: Pillow was built without FreeType; install its wheel from PyPI")
    return bytes(font.font_bytes)
