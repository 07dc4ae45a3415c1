"""Custom rules for images: what they refuse is not stored, and its reason is in the shard."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import laion_etl as le
from laion_etl.core.errors import InternalError, SettingsError
from laion_etl.download.custom_rules import ImageRule
from laion_etl.io.tarshard import read_members
from laion_etl.settings import DownloadSettings, Settings, load_settings
from tests.download.hostile import hostile_server

HERE = __name__
URLS = ["http://a.hostile.example/good", "http://a.hostile.example/missing"]


def portraits(settings: DownloadSettings) -> ImageRule:
    assert isinstance(settings, DownloadSettings)
    return lambda image: None if image.height > image.width else "not_a_portrait"


def masks(_: DownloadSettings) -> Callable[[object], object]:
    return lambda _: False


def sentences(_: DownloadSettings) -> ImageRule:
    return lambda _: "Too wide!"


def fails(_: DownloadSettings) -> ImageRule:
    return lambda image: {}[image.width]  # type: ignore[index]


def speaks_no_utf8(_: DownloadSettings) -> ImageRule:
    def rule(_: object) -> None:
        raise ValueError("\ud800")

    return rule


def nothing(_: DownloadSettings) -> None:
    return None


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    with hostile_server() as server:
        port = server.server_address[1]
        yield Settings(
            download=DownloadSettings(connect_to=(f"*.hostile.example=127.0.0.1:{port}",), decoders=1)
        )


def test_what_a_rule_refuses_is_not_stored_and_has_its_reason(settings: Settings, tmp_path: Path) -> None:
    shard = le.download(URLS, None, tmp_path, settings, image_rules=(f"{HERE}:portraits",))
    good, missing = shard.outcomes.to_pylist()
    assert (good["status"], good["error_message"]) == ("refused_by_rule", "not_a_portrait")
    assert good["sha256"]
    assert good["width"] is None
    assert missing["status"] == "http_error"
    with Path(shard.path).open("rb") as tar:
        assert list(read_members(tar)) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [("fails", "KeyError: 300"), ("speaks_no_utf8", "ValueError: \N{REPLACEMENT CHARACTER}")],
)
def test_an_exception_of_a_rule_costs_its_image(
    name: str, message: str, settings: Settings, tmp_path: Path
) -> None:
    shard = le.download(URLS, None, tmp_path, settings, image_rules=(f"{HERE}:{name}",))
    good, missing = shard.outcomes.to_pylist()
    assert (good["status"], good["error_message"]) == ("internal_error", message)
    assert missing["status"] == "http_error"


def test_a_rule_that_always_fails_makes_no_shard(settings: Settings, tmp_path: Path) -> None:
    urls = [f"http://{number}.hostile.example/good" for number in range(11)]
    broken = r"exceptions for 11 of 11 images, such as KeyError: 300; .*LAION_ETL_DOWNLOAD_IMAGE_RULES"
    with pytest.raises(InternalError, match=broken):
        le.download(urls, None, tmp_path, settings, image_rules=(f"{HERE}:fails",))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("masks", "returned 'False'; return None or a name"),
        ("sentences", "returned 'Too wide!'; return None or a name"),
        ("nothing", "LAION_ETL_DOWNLOAD_IMAGE_RULES.*cannot be called"),
        ("missing", "LAION_ETL_DOWNLOAD_IMAGE_RULES.*has no function missing"),
    ],
)
def test_a_rule_that_cannot_be_used_ends_the_download(
    name: str, cause: str, settings: Settings, tmp_path: Path
) -> None:
    wrong = replace(settings, download=replace(settings.download, image_rules=(f"{HERE}:{name}",)))
    with pytest.raises(SettingsError, match=cause):
        le.download(URLS, None, tmp_path, wrong)
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_a_rule_is_checked_when_settings_are_loaded() -> None:
    with pytest.raises(SettingsError, match=r"LAION_ETL_DOWNLOAD_IMAGE_RULES=mine: 'mine' is not module"):
        load_settings({"LAION_ETL_DOWNLOAD_IMAGE_RULES": "mine"})
