"""What our client makes of each shape of response, next to what curl makes of it."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.download.response_shapes import SHAPES, Shape
from tests.download.shape_server import by_curl, by_ours, shape_server

LISTED = list(SHAPES.values())


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with shape_server(LISTED) as port:
        yield port


@pytest.fixture(scope="module")
def ours(port: int) -> dict[str, str]:
    return dict(zip(SHAPES, by_ours(LISTED, port), strict=True))


def test_the_table_is_large_enough_and_gives_a_reason_for_each_difference_and_no_other() -> None:
    assert len(LISTED) >= 100
    assert {name: shape.why for name, shape in SHAPES.items() if shape.differs != bool(shape.why)} == {}


@pytest.mark.parametrize(("name", "shape"), SHAPES.items(), ids=list(SHAPES))
def test_ours(name: str, shape: Shape, ours: dict[str, str]) -> None:
    assert ours[name] == shape.ours


def test_curl(port: int, tmp_path: Path) -> None:
    """All in one run. Other versions than that of the table may judge some shapes differently."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    version = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout
    found = dict(zip(SHAPES, by_curl(LISTED, port, tmp_path), strict=True))
    different = {name: outcome for name, outcome in found.items() if outcome != SHAPES[name].curl}
    if version.startswith("curl 7.88."):
        assert different == {}
    images = {name for name in different if "image" in (found[name], SHAPES[name].curl)}
    assert len(images) <= len(LISTED) / 10, images
