"""Images of others: all are in one list, whose digests `make pin-images` writes wherever they are named."""

import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from tests.docker.scripts import DOCKER, script

OF_OTHERS = re.compile(r"(?:^ARG BASE=|^FROM |image: *[\"']?)([\w.-]+\.[a-z]+/\S+?)[\"']?(?:\s|$)", re.M)
OURS = re.compile(r"registry\.example/laion-etl-")


@pytest.fixture
def pinning() -> ModuleType:
    return script("pin_images")


def named(folder: Path, pinning: ModuleType) -> list[str]:
    found = [name for path in pinning.files(folder) for name in OF_OTHERS.findall(path.read_text())]
    return [name for name in found if not OURS.match(name)]


def test_every_image_of_others_is_in_the_list_and_has_a_tag(pinning: ModuleType) -> None:
    found = named(DOCKER, pinning)
    assert set(found) == set(pinning.listed())
    assert len(found) > len(set(found))  # the base of our own images is named in each Dockerfile
    assert all(re.search(r":v?\d+\.\d", name) for name in found)


def test_other_files_name_no_image_in_another_way(pinning: ModuleType) -> None:
    for path in DOCKER.glob("*.Dockerfile"):
        for line in path.read_text().splitlines():
            assert not line.startswith("FROM ") or re.match(
                r"FROM (\$\{(BASE|WORKER)\}|base|build)( |$)", line
            )
    for image in re.findall(r"image: *(\S+)", (DOCKER / "compose.yaml").read_text()):
        assert image.startswith("laion-etl-") or image in pinning.listed()


def test_digests_are_written_wherever_an_image_is_named_and_replaced_later(
    pinning: ModuleType, tmp_path: Path
) -> None:
    folder = tmp_path / "docker"
    shutil.copytree(DOCKER, folder)
    for digit in "ab":
        pinned = pinning.pin(folder, lambda _, digit=digit: "sha256:" + digit * 64)
        assert pinning.listed(folder) == pinned
        assert set(named(folder, pinning)) == set(pinned)
        assert all(name.endswith("@sha256:" + digit * 64) for name in pinned)
    for path in pinning.files(folder):
        before = (DOCKER / path.relative_to(folder)).read_text()
        assert re.sub(r"@sha256:b{64}", "", path.read_text()) == re.sub(r"@sha256:[0-9a-f]{64}", "", before)


def test_nothing_is_written_if_a_digest_is_unknown(pinning: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "docker"
    shutil.copytree(DOCKER, folder)
    answers = iter(["sha256:" + "a" * 64, "unknown"])
    with pytest.raises(SystemExit, match=r"cannot pin .*: the registry answered 'unknown'"):
        pinning.pin(folder, lambda _: next(answers))
    assert pinning.listed(folder) == pinning.listed()
    assert named(folder, pinning) == named(DOCKER, pinning)
