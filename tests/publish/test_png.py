import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from markupsafe import Markup
from PIL import Image

from laion_etl.report import charts
from laion_etl.report.charts import Axis
from laion_etl.report.png import png


def drawing(axis_title: str) -> Markup:
    axis = Axis([0, 1, 2], [(0, "0"), (2, "2")], axis_title, str)
    return charts.histogram(axis, [("kept", [3, 1]), ("rejected", [1, 0])], [], "t")


DRAWING = drawing("units")
_SCRIPT = """
import sys
from markupsafe import Markup
from laion_etl.report import png
png.WIDTH_PX = 90
sys.stdout.buffer.write(png.png(Markup(sys.stdin.read())))
"""


def pixels(data: bytes) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_a_figure_has_the_colours_of_the_page_and_its_text() -> None:
    drawn = pixels(png(DRAWING))
    assert drawn.shape[1] == 90
    colours = {tuple(colour) for colour in drawn.reshape(-1, 3).tolist()}
    assert {(0x2A, 0x6F, 0xB5), (0xFF, 0xFF, 0xFF)} <= colours
    assert not np.array_equal(drawn, pixels(png(drawing(""))))


def test_a_machine_without_fonts_gives_the_same_bytes(tmp_path: Path) -> None:
    """Draw in a process without home and fontconfig; fonts of the machine are not used anyway."""
    environment = {**os.environ, "HOME": str(tmp_path), "FONTCONFIG_FILE": str(tmp_path / "none")}
    other = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        input=str(DRAWING).encode(),
        capture_output=True,
        env=environment,
        check=True,
    )
    assert other.stdout == png(DRAWING)
