import logging
import math
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from laion_etl.core.errors import SettingsError
from laion_etl.dataset import variants
from laion_etl.download.images import ENCODINGS
from laion_etl.parse import language
from laion_etl.search import hnsw
from laion_etl.settings import (
    ClipSettings,
    DownloadSettings,
    KubernetesSettings,
    PublishSettings,
    SettingField,
    Settings,
    load_settings,
    loader,
    setting_fields,
)
from laion_etl.settings.fields import Group, declarations
from laion_etl.settings.registry import group_classes

FIELDS = {field.variable: field for field in setting_fields()}


@pytest.fixture(autouse=True)
def _without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_defaults_without_environment() -> None:
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


REFUSED = [
    ("LAION_ETL_STROE", "x", "there is no such setting; did you mean LAION_ETL_STORE?"),
    ("LAION_ETL_ZZZZZZZZZZZZZZZZZZZZZZZZZZZZ", "x", "there is no such setting; see docs/configuration.md"),
    ("LAION_ETL_CONFIG", "/no/such/file.toml", "there is no such file"),
    ("LAION_ETL_CLIP_BATCH_SIZE", "many", "it is not a whole number; write digits only"),
    ("LAION_ETL_CLIP_BATCH_SIZE", "1.5", "it is not a whole number"),
    ("LAION_ETL_CLIP_BATCH_SIZE", "", "it is not a whole number"),
    ("LAION_ETL_CLIP_BATCH_SIZE", "0", "0 is too small; use 1 to 65,536"),
    ("LAION_ETL_CLIP_THRESHOLD_EN", "high", "it is not a number"),
    ("LAION_ETL_CLIP_THRESHOLD_EN", "nan", "nan is not a finite number"),
    ("LAION_ETL_CLIP_THRESHOLD_EN", "1.01", "1.01 is too large; use -1 to 1"),
    ("LAION_ETL_CLIP_PRECISION", "fp8", "'fp8' is not a choice; use auto, fp32, bf16, fp16"),
    ("LAION_ETL_CLIP_DEVICE", "cuda:x", "write auto, cpu, cuda or cuda:0,cuda:1"),
    ("LAION_ETL_CLIP_MODEL", "", "it is empty"),
    ("LAION_ETL_DOWNLOAD_OPT_OUT", "perhaps", "use true or false"),
    ("LAION_ETL_DOWNLOAD_TIMEOUT_S", "inf", "inf is not a finite number"),
    ("LAION_ETL_DOWNLOAD_TIMEOUT_S", "0", "0.0 is too small"),
    ("LAION_ETL_DOWNLOAD_PORTS", "80,https", "LAION_ETL_DOWNLOAD_PORTS=80,https: it is not a whole number"),
    ("LAION_ETL_DOWNLOAD_PORTS", "80,70000", "70,000 is too large; use 1 to 65,535"),
    ("LAION_ETL_DOWNLOAD_PORTS", "", "it is empty"),
    ("LAION_ETL_DOWNLOAD_MIN_BYTES", "30000000", "it is above LAION_ETL_DOWNLOAD_MAX_BYTES=20,000,000"),
    ("LAION_ETL_DOWNLOAD_RESIZE_MODE", "crop", "'crop' is not a choice; use no, keep_ratio"),
    ("LAION_ETL_DOWNLOAD_ENCODE_FORMAT", "gif", "use jpg, webp, png, avif"),
    ("LAION_ETL_DOWNLOAD_ENCODE_QUALITY", "101", "use 1 to 100"),
    ("LAION_ETL_DOWNLOAD_IMAGE_SIZE", "0", "0 is too small"),
    ("LAION_ETL_DOWNLOAD_NAMESERVERS", "1.1.1.1:dns", "write it like 127.0.0.1:53"),
    ("LAION_ETL_DOWNLOAD_NAMESERVERS", "system,dns.example", "'dns.example' is not address"),
    ("LAION_ETL_DOWNLOAD_ALLOW_NETWORKS", "127.0.0.1/8", "has host bits set"),
    ("LAION_ETL_DOWNLOAD_USER_AGENT", "", "cannot be sent as an HTTP header"),
    ("LAION_ETL_DOWNLOAD_USER_AGENT", "me\r\nHost: b", "cannot be sent as an HTTP header"),
    ("LAION_ETL_DOWNLOAD_HASH_BLOCKLISTS", "x", "did you mean LAION_ETL_DOWNLOAD_HASH_BLOCKLIST?"),
    ("LAION_ETL_PARSE_PRESET", "laion6b", "'laion6b' is not a choice; use default, laion5b"),
    ("LAION_ETL_PARSE_MIN_ALT_CHARS", "3000", "it is above LAION_ETL_PARSE_MAX_ALT_CHARS=2,000"),
    ("LAION_ETL_PARSE_LANGUAGE_DETECTOR", "cld4", "use cld3, py3langid, none or module:factory"),
    ("LAION_ETL_PARSE_BLOCKED_URLS", "ftp://a/b", "ftp:// cannot be used here"),
    ("LAION_ETL_LOAD_DEDUPE", "urls", "use pair, url"),
    ("LAION_ETL_PLAN_BATCH_SIZE", "100001", "100,001 is too large; use 1 to 100,000"),
    ("LAION_ETL_PLAN_MAX_PAIRS_PER_HOST", "0", "use at least 1"),
    ("LAION_ETL_PLAN_WINDOW_PAIRS", "0", "use at least 1"),
    ("LAION_ETL_PUBLISH_DUPLICATES", "nera", "'nera' is not a choice; use keep, exact, near"),
    ("LAION_ETL_PUBLISH_DUPLICATE_BITS", "16", "16 is too large; use 0 to 15"),
    ("LAION_ETL_PUBLISH_ROWS_PER_FILE", "0", "use at least 1"),
    ("LAION_ETL_PUBLISH_VARIANTS", "", "it is empty"),
    ("LAION_ETL_PUBLISH_VARIANTS", "research,safe", "'safe' is not a choice; use research, research-safe"),
    ("LAION_ETL_PUBLISH_SAFE_LEAVES_OUT", "UNSURE", "use NSFW or NSFW,UNSURE"),
    ("LAION_ETL_PUBLISH_SAFE_LEAVES_OUT", "NSFW,LEWD", "'LEWD' is not a choice"),
    ("LAION_ETL_PUBLISH_SAFE_MAX_PUNSAFE", "1.5", "1.5 is too large; use 0 to 1"),
    ("LAION_ETL_PUBLISH_NAME", "../up", "letters, digits, dots"),
    ("LAION_ETL_PUBLISH_SUBSETS", "cats", "it is not a table of strings"),
    ("LAION_ETL_PUBLISH_SUBSETS", "cats = 3", "it is not a table of strings"),
    ("LAION_ETL_PUBLISH_SUBSETS", 'report = "true"', "the name 'report' is reserved"),
    ("LAION_ETL_INDEX_DTYPE", "f8", "use f16, i8"),
    ("LAION_ETL_INDEX_JOBS", "0", "0 is too small"),
    ("LAION_ETL_ALERTS_LATE_AFTER", "parse=soon", "'parse=soon' is not like parse=90m"),
    ("LAION_ETL_ALERTS_LATE_AFTER", "prase=1h", "'prase' in 'prase=1h' is not a stage"),
    ("LAION_ETL_ALERTS_LATE_AFTER", "parse=1h,parse=2h", "it names parse twice"),
    ("LAION_ETL_ALERTS_SMTP", "mail.example:smtp", "is not host:port"),
    ("LAION_ETL_ALERTS_SMTP_TLS", "ssl", "use starttls, tls, none"),
    ("LAION_ETL_STATSD", "nowhere", "'nowhere' is not host:port"),
    ("LAION_ETL_STATSD_TAGS", "crawl,host", "'host' is not a choice; use crawl, run"),
    ("LAION_ETL_RUNNER", "moon", "use local, venv, kubernetes"),
    ("LAION_ETL_STORE", "gs://bucket", "gs:// cannot be used here; write a path or s3://..., file://..."),
    ("LAION_ETL_WAT_FILES_PER_PARTITION", "0", "use at least 1"),
    ("LAION_ETL_WAT_FILES_SAMPLE", "-1", "use at least 1"),
    ("LAION_ETL_DATABASE_SSLMODE", "verify", "use nothing, disable"),
    ("LAION_ETL_KUBERNETES_CPU", "other=many", "'other=many' is not like parse=4"),
    ("LAION_ETL_KUBERNETES_MEMORY", "4Gi", "'4Gi' is not like parse=4Gi"),
    ("LAION_ETL_KUBERNETES_SECRETS", "s3,Upper_Case", "'Upper_Case' is not like laion-worker"),
    ("LAION_ETL_KUBERNETES_SECRETS", "fetch=s3", "'fetch' in 'fetch=s3' is not a stage"),
    ("LAION_ETL_KUBERNETES_SERVICE_ACCOUNT", "score=a,score=b", "it names score twice"),
    ("LAION_ETL_KUBERNETES_SERVICE_ACCOUNT", "a,b", "it names all stages twice"),
    ("LAION_ETL_KUBERNETES_NODE_SELECTOR", "=gpu", "write label=value"),
    ("LAION_ETL_KUBERNETES_TOLERATIONS", "gpu:Never", "write key:NoSchedule"),
    ("LAION_ETL_KUBERNETES_GPUS", "-1", "use 0 to 64"),
    *(
        ("LAION_ETL_DOWNLOAD_CONNECT_TO", entry, "is not host-pattern=address:port")
        for entry in ("x", "a=b", "=127.0.0.1:80", "a=127.0.0.1:http", "a=:80", "a=127.0.0.1:70000")
    ),
]


@pytest.mark.parametrize(("variable", "value", "message"), REFUSED)
def test_a_wrong_setting_is_named_with_its_cause_and_what_to_do(
    variable: str, value: str, message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({variable: value})
    text = str(caught.value)
    assert text.startswith("cannot use LAION_ETL_")
    assert message in text
    assert ";" in text or text.endswith("?")
    assert "\n" not in text


@pytest.mark.parametrize(
    "url", ["postgresql://me@host/laion", "host=db user=me dbname=laion", "service=laion"]
)
def test_a_database_is_named_as_libpq_does(url: str) -> None:
    assert load_settings({"LAION_ETL_DATABASE_URL": url}).core.database_url == url


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LAION_ETL_DATABASE_URL", "mysql://me:hunter2@host"),
        ("LAION_ETL_ALERTS_WEBHOOK", "hooks.example/hunter2"),
    ],
)
def test_a_wrong_secret_is_not_shown(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"cannot use {variable}=\*\*\*: ") as caught:
        load_settings({variable: value})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("LAION_ETL_DOWNLOAD_NAMESERVERS", "[::1]:53, 1.1.1.1,::1", ("[::1]:53", "1.1.1.1", "::1")),
        ("LAION_ETL_DOWNLOAD_CONNECT_TO", "*.example=[::1]:80", ("*.example=[::1]:80",)),
        ("LAION_ETL_PARSE_LANGUAGE_DETECTOR", "my.module:make", "my.module:make"),
        ("LAION_ETL_KUBERNETES_TOLERATIONS", "a=b:NoSchedule,spot:", ("a=b:NoSchedule", "spot:")),
        ("LAION_ETL_KUBERNETES_CPU", "parse=500m,other=1.5", ("parse=500m", "other=1.5")),
        ("LAION_ETL_ALERTS_SMTP", "mail.example", "mail.example"),
        ("LAION_ETL_STATSD", "", ""),
        ("LAION_ETL_CLIP_DEVICE", "cuda:0, cuda:2", "cuda:0, cuda:2"),
        ("LAION_ETL_DOWNLOAD_CONNECTIONS", "1_000", 1_000),
        ("LAION_ETL_PUBLISH_SUBSETS", 'big = "WIDTH > 9"', (("big", "WIDTH > 9"),)),
    ],
)
def test_every_form_that_is_documented_is_taken(variable: str, value: str, expected: object) -> None:
    assert FIELDS[variable].value(load_settings({variable: value})) == expected


def test_a_wrong_setting_ends_a_command_before_any_work(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "laion_etl", "stage", "download", "--crawl", "CC-MAIN-2026-43"],
        env={"LAION_ETL_PUBLISH_DUPLICATES": "nera", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "error: cannot use LAION_ETL_PUBLISH_DUPLICATES=nera: 'nera' is not a choice; use keep, exact, near"
    ]
    assert not (tmp_path / "data").exists()


def test_settings_made_in_python_are_checked_too() -> None:
    with pytest.raises(SettingsError, match="LAION_ETL_PUBLISH_DUPLICATES=nera"):
        PublishSettings(duplicates="nera")
    with pytest.raises(SettingsError, match="LAION_ETL_CLIP_THRESHOLD_EN=nan"):
        replace(ClipSettings(), threshold_en=math.nan)


def test_a_wrong_entry_of_the_file_is_named(tmp_path: Path) -> None:
    config = tmp_path / "my.toml"
    config.write_text("[download]\nconections = 3\n")
    with pytest.raises(SettingsError, match=r"\[download\] conections in .* LAION_ETL_DOWNLOAD_CONNECTIONS"):
        load_settings({"LAION_ETL_CONFIG": str(config)})


@pytest.mark.parametrize(
    ("entry", "problem"),
    [("a,b.txt", r"the comma in 'a,b\.txt' separates entries"), (" ", "an entry is empty; leave it out")],
)
def test_an_entry_of_the_file_that_no_variable_could_carry_is_refused(
    entry: str, problem: str, tmp_path: Path
) -> None:
    config = tmp_path / "my.toml"
    config.write_text(f'[parse]\nblocked_urls = ["{entry}"]\n')
    with pytest.raises(SettingsError, match=problem):
        load_settings({"LAION_ETL_CONFIG": str(config)})


NAMES_CODE = [field for field in setting_fields() if field.declaration.or_factory]


@pytest.mark.parametrize("field", NAMES_CODE, ids=lambda field: field.variable)
def test_a_file_that_only_lies_in_the_current_folder_names_no_code(
    field: SettingField, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lists = field.default == ()
    (tmp_path / "laion_etl.toml").write_text(
        f"[{field.group}]\n{field.name} = {['os:system'] if lists else 'os:system'!r}\n"
    )
    refused = (
        rf"cannot use {field.variable}='os:system' of laion_etl.toml: .* set LAION_ETL_CONFIG=laion_etl.toml"
    )
    with pytest.raises(SettingsError, match=refused):
        load_settings({})
    found = field.value(load_settings({"LAION_ETL_CONFIG": "laion_etl.toml"}))
    assert found == (("os:system",) if lists else "os:system")


def test_a_file_that_only_lies_in_the_current_folder_names_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "laion_etl.toml").write_text('[airflow]\nvenv = "./python"\n')
    with pytest.raises(
        SettingsError, match=r"cannot use LAION_ETL_AIRFLOW_VENV='\./python' of laion_etl\.toml"
    ):
        load_settings({})
    assert load_settings({"LAION_ETL_CONFIG": "laion_etl.toml"}).airflow.venv == "./python"


def test_a_file_of_another_user_that_only_lies_in_the_current_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the file is root's, or this user's, and the command another user's."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "laion_etl.toml"
    file.write_text('database_url = "postgresql://elsewhere/x"\n')
    assert load_settings({}).core.database_url == "postgresql://elsewhere/x"
    owner = file.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    monkeypatch.setattr(loader, "_ROOT", owner + 2)
    with pytest.raises(SettingsError, match=r"another user owns it; set LAION_ETL_CONFIG=laion_etl\.toml"):
        load_settings({})
    assert load_settings({"LAION_ETL_CONFIG": "laion_etl.toml"}).core.database_url


def test_every_setting_that_takes_a_factory_is_known_as_such() -> None:
    assert {field.name for field in NAMES_CODE} == {
        field.name for field in setting_fields() if "module:factory" in field.doc
    }


def test_a_former_name_is_accepted_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings({"LAION_ETL_ALERTS_MOST_ALIKE": "5"})
    assert settings.alerts.max_alike == 5
    assert caplog.messages == [
        "LAION_ETL_ALERTS_MOST_ALIKE is now called LAION_ETL_ALERTS_MAX_ALIKE; the next version takes only "
        "that name"
    ]
    config = tmp_path / "my.toml"
    config.write_text("[alerts]\nmost_alike = 7\n")
    assert load_settings({"LAION_ETL_CONFIG": str(config)}).alerts.max_alike == 7
    both = {"LAION_ETL_CONFIG": str(config), "LAION_ETL_ALERTS_MOST_ALIKE": "8"}
    assert load_settings(both).alerts.max_alike == 8, "the environment wins over the file"
    current = {"LAION_ETL_ALERTS_MAX_ALIKE": "9", "LAION_ETL_ALERTS_MOST_ALIKE": "8"}
    assert load_settings(current).alerts.max_alike == 9, "the current name wins over the former one"


def test_settings_without_former_names_warn_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_settings({"LAION_ETL_ALERTS_MAX_ALIKE": "5"})
    assert caplog.messages == []


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_every_setting_is_declared(field: SettingField) -> None:
    declaration = field.declaration
    assert field.doc.endswith(".")
    assert field.variable.startswith("LAION_ETL_")
    assert declaration.problem(field.default) == ""
    if field.type in (int, float):
        assert declaration.range, "numbers have a range"
        assert declaration.unit or field.name in WITHOUT_UNIT, "numbers have a unit"
    if field.name.endswith("_s") and field.type in (int, float):
        assert declaration.unit in ("s", "1/s")
    if declaration.secret:
        assert declaration.changes is None, "what changes output is in the manifest"


# Counts of tries, a step and a scale of an encoder.
WITHOUT_UNIT = {"task_retries", "retries", "wat_files_sample", "encode_quality"}


def test_a_field_without_a_declaration_is_an_error() -> None:
    @dataclass(frozen=True, slots=True)
    class Careless(Group):
        GROUP: ClassVar[str] = "careless"
        limit: int = 3

    with pytest.raises(TypeError, match=r"cannot use Careless\.limit: it is not declared"):
        Careless()
    for group in group_classes().values():
        assert declarations(group)


@pytest.mark.parametrize(
    ("group", "changes"),
    [
        (PublishSettings, {"subsets": (("big", "TEXT ILIKE '%\"cat\"%'"), ("a-b", "WIDTH > 1\n\t\x7f é😀"))}),
        (PublishSettings, {"variants": ("research", "research-safe"), "duplicates_of_earlier": True}),
        (DownloadSettings, {"ports": (80, 8080), "timeout_s": 2.5, "opt_out": False}),
        (KubernetesSettings, {"cpu": ("parse=2",), "tolerations": ()}),
    ],
)
def test_a_value_as_text_is_read_as_the_same_value(group: type[Group], changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        field = next(f for f in FIELDS.values() if (f.group, f.name) == (group.GROUP, name))
        assert field.value(load_settings({field.variable: field.text(value)})) == value


def test_what_the_code_can_do_is_what_settings_offer() -> None:
    def choices(variable: str) -> set[str]:
        return set(FIELDS[variable].declaration.choices)

    assert choices("LAION_ETL_DOWNLOAD_ENCODE_FORMAT") == set(ENCODINGS)
    assert choices("LAION_ETL_INDEX_DTYPE") == set(hnsw._METRICS) == set(hnsw._TYPES)
    assert choices("LAION_ETL_PARSE_LANGUAGE_DETECTOR") == set(language._SHIPPED)
    assert choices("LAION_ETL_PUBLISH_VARIANTS") == set(variants.VARIANTS)


@pytest.mark.parametrize(
    "content",
    ["a = " + "[" * 5_000, "a = " + "1" * 5_000, "[parse]\njobs = 0x" + "f" * 5_000],
    ids=["nested deeply", "a long number", "a long number in hexadecimal"],
)
def test_a_file_that_no_parser_of_toml_can_take_is_refused(content: str, tmp_path: Path) -> None:
    config = tmp_path / "odd.toml"
    config.write_text(content)
    with pytest.raises(
        SettingsError, match=r"^cannot read .*odd\.toml: .*; correct it, it must be valid TOML$"
    ):
        load_settings({"LAION_ETL_CONFIG": str(config)})


def test_a_table_nested_deeply_in_a_variable_is_refused() -> None:
    with pytest.raises(SettingsError, match="it is not a table of strings"):
        load_settings({"LAION_ETL_PUBLISH_SUBSETS": "a = " + "[" * 5_000})
