"""What logs and pods show of settings with passwords, tokens and signatures."""

import pytest

from laion_etl.airflow.masked_settings import shown_settings, without_secrets

pytestmark = pytest.mark.airflow

_URL = "LAION_ETL_DATABASE_URL"
_SOURCE = "LAION_ETL_CRAWL_SOURCE"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        (_URL, "postgresql://me:hidden@db/laion", "postgresql://me:***@db/laion"),
        (_URL, "postgresql://me:hidden@db/l?sslpassword=hidden", "postgresql://me:***@db/l?sslpassword=***"),
        (
            _URL,
            "postgresql:///?host=db&password=hidden&user=me",
            "postgresql:///?host=db&password=***&user=me",
        ),
        (_URL, "postgresql://a:hidden@one,b:hidden@two/laion", "postgresql://a:***@two/laion"),
        (_URL, r"host=db password='hid\'den hidden' user=me", "host=db password=*** user=me"),
        (_URL, "postgresql://db/laion", "***"),
        (
            "LAION_ETL_DATABASE_URLS",
            "postgresql://me:hidden@one/l,postgresql://me:hidden@two/l?sslpassword=hidden",
            "postgresql://me:***@one/l,postgresql://me:***@two/l?sslpassword=***",
        ),
        (
            "LAION_ETL_DATABASE_URLS",
            "postgresql://me:hidden@one/l,postgresql://me:hid/den@hid,den@two/l?password=hid'den,hidden",
            "postgresql://me:***@one/l,postgresql://me:***@two/l?password=***",
        ),
        ("LAION_ETL_ALERTS_WEBHOOK", "https://hooks.example/hidden?token=hidden", "***"),
        (
            _SOURCE,
            "https://b.example/cc?X-Amz-Expires=60&X-Amz-Credential=hidden&X-Amz-Signature=hidden",
            "https://b.example/cc?X-Amz-Expires=60&X-Amz-Credential=***&X-Amz-Signature=***",
        ),
        (_SOURCE, "https://b.example/cc?sv=2024&sig=hidden", "https://b.example/cc?sv=2024&sig=***"),
        (_SOURCE, "https://data.commoncrawl.org", "https://data.commoncrawl.org"),
        ("LAION_ETL_ALERTS_LATE_AFTER", "parse=4h,load=1h", "parse=4h,load=1h"),
    ],
)
def test_no_secret_is_shown(name: str, value: str, shown: str) -> None:
    assert without_secrets(name, value) == shown


def test_a_long_value_is_masked_at_once() -> None:
    """Not after a minute, as when each letter was looked at as often as there are letters before it."""
    hidden = "h" * 100_000
    assert without_secrets(_URL, f"postgresql://me:{hidden}@db/laion") == "postgresql://me:***@db/laion"


def test_other_variables_are_not_shown() -> None:
    environment = {"AWS_SECRET_ACCESS_KEY": "hidden", _SOURCE: "https://me:hidden@b.example"}
    assert shown_settings(environment) == f"{_SOURCE}='https://me:***@b.example'"
