from pathlib import Path

import pytest

from laion_etl.errors import SettingsError
from laion_etl.settings import Settings, load_settings, setting_fields


def test_defaults_without_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings({})
    assert settings == Settings()
    assert settings.store_uri == "data"
    assert settings.collinfo_uri == "https://index.commoncrawl.org/collinfo.json"


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "my.toml"
    config.write_text(
        'store = "s3://bucket/x"\n[download]\nconnections = 3\nports = [80, 8080]\nopt_out = false\n'
    )
    settings = load_settings({"LAION_ETL_CONFIG": str(config), "LAION_ETL_DOWNLOAD_CONNECTIONS": "7"})
    assert settings.store_uri == "s3://bucket/x"
    assert settings.download.connections == 7
    assert settings.download.ports == (80, 8080)
    assert settings.download.opt_out is False


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("LAION_ETL_STROE", "x", "did you mean LAION_ETL_STORE"),
        ("LAION_ETL_CLIP_BATCH_SIZE", "many", "LAION_ETL_CLIP_BATCH_SIZE=many: it is not a whole number"),
        ("LAION_ETL_DOWNLOAD_OPT_OUT", "perhaps", "use true or false"),
        ("LAION_ETL_DOWNLOAD_PORTS", "80,https", "LAION_ETL_DOWNLOAD_PORTS"),
        ("LAION_ETL_CONFIG", "/no/such/file.toml", "there is no such file"),
    ],
)
def test_a_wrong_setting_is_named(variable: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings({variable: value})


def test_a_wrong_entry_of_the_file_is_named(tmp_path: Path) -> None:
    config = tmp_path / "my.toml"
    config.write_text("[download]\nconections = 3\n")
    with pytest.raises(SettingsError, match=r"\[download\] conections in .* LAION_ETL_DOWNLOAD_CONNECTIONS"):
        load_settings({"LAION_ETL_CONFIG": str(config)})


def test_every_setting_says_what_it_is() -> None:
    assert len(setting_fields()) > 40
    for field in setting_fields():
        assert field.doc.endswith("."), field.variable
        assert field.variable.startswith("LAION_ETL_")
