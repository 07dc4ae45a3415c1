"""A stage's fingerprint covers exactly the settings that are declared to change its output."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import laion_etl.download.stage
import laion_etl.parse.stage
import laion_etl.score.stage
from laion_etl.core.errors import SettingsError
from laion_etl.core.stage_stats import Output, StageStats, fingerprint
from laion_etl.database.dedupe_keys import DedupeRule
from laion_etl.database.loaded import load_fingerprint
from laion_etl.dataset.shaping_settings import shaping_settings
from laion_etl.io.storage import LocalStore
from laion_etl.publish import at_once
from laion_etl.search.index_part import IndexPart
from laion_etl.settings import SettingField, Settings, Stage, load_settings, setting_fields

FIELDS = {field.variable: field for field in setting_fields()}
TEXTS = (
    "x", "cpu", "h:1", "postgresql://h/d", "https://h/x", "NSFW,UNSURE", "80", "1.1.1.1", "127.0.0.0/8",
    "a=1.1.1.1:1", "claim:weights", "parse=3", "parse=3h", "a=b", "a:NoSchedule", 'own = "true"',
    "0.5,0.5,0.5", "alt,title",
)  # fmt: skip


FILE = Output("batches/C/000000000.parquet", 1, "0")


class Reached(Exception):  # noqa: N818 - no error: the fingerprint of a stage, before it does any work
    """Carries the fingerprint of a stage's finished work."""


def changed(field: SettingField, settings: Settings) -> Settings:
    """Returns settings with another value of one of them."""
    group = getattr(settings, field.group)
    return replace(settings, **{field.group: replace(group, **{field.name: other(field)})})  # type: ignore[arg-type]


def other(field: SettingField) -> Any:
    """Returns a valid value that is not the default."""
    default = field.default
    if isinstance(default, bool):
        return not default
    near = [str(default + step) for step in (1, -1, 0.01, -0.01)] if isinstance(default, (int, float)) else []
    for text in (*near, *field.declaration.choices, *TEXTS):
        try:
            value = field.value(load_settings({field.variable: text}))
        except SettingsError:
            continue
        if value != default:
            return value
    raise AssertionError(f"no other value of {field.variable} is known here")


@pytest.fixture
def fingerprint_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Stage, Settings], str]:
    """Returns the fingerprint of a stage's finished work; the inputs are always the same."""
    store = LocalStore(tmp_path)
    planned = StageStats("plan", "C", "batches", "f", 0, 0)
    shard = StageStats("download", "C", "000000000", "f", 0, 0)
    nothing = SimpleNamespace(
        batches=(), missing=(), unplanned=(), partitions=0, missing_partitions=(), rows=lambda *_: [[0]]
    )

    def caught(*parts: object) -> str:
        raise Reached(fingerprint(*parts))

    for module in (laion_etl.parse.stage, laion_etl.download.stage, laion_etl.score.stage):
        monkeypatch.setattr(module, "fingerprint", caught)

    def of_score(settings: Settings) -> str:
        work = laion_etl.score.stage._ShardPipeline("C", [0], settings, store, laion_etl.score.stage.Tools())
        return work._open(shard).fingerprint

    published: Any = nothing
    ways: dict[Stage, Callable[[Settings], Any]] = {
        Stage.PARSE: lambda s: laion_etl.parse.stage.parse_partition("C", 0, [], s, store),
        Stage.LOAD: lambda s: load_fingerprint(planned, DedupeRule.from_settings(s.load)),
        Stage.DOWNLOAD: lambda s: laion_etl.download.stage.download_batch("C", 0, s, store, planned=FILE),
        Stage.SCORE: of_score,
        Stage.PUBLISH: lambda s: at_once._fingerprint("d", published, (), s, "research", ()),
        Stage.INDEX: lambda s: IndexPart("d", published, (), s.index, store, published).fingerprint,
    }

    def found(stage: Stage, settings: Settings) -> str:
        try:
            return str(ways[stage](settings))
        except Reached as reached:
            return str(reached)

    return found


@pytest.mark.parametrize(
    ("place", "stage"),
    [
        ("laion_etl.parse.stage.RULES_VERSION", Stage.PARSE),
        ("laion_etl.urls.normalize.RULE_VERSION", Stage.PARSE),
        ("laion_etl.database.loaded.RULES_VERSION", Stage.LOAD),
        ("laion_etl.download.stage.RULES_VERSION", Stage.DOWNLOAD),
    ],
)
def test_other_rules_are_in_the_fingerprint_of_their_stage_and_in_no_other(
    place: str,
    stage: Stage,
    fingerprint_of: Callable[[Stage, Settings], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stages = (Stage.PARSE, Stage.LOAD, Stage.DOWNLOAD, Stage.SCORE, Stage.PUBLISH, Stage.INDEX)
    before = {one: fingerprint_of(one, Settings()) for one in stages}
    monkeypatch.setattr(place, 99)
    assert [one for one in stages if fingerprint_of(one, Settings()) != before[one]] == [stage]


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_a_setting_is_in_the_fingerprint_of_the_stage_it_changes_and_in_no_other(
    field: SettingField, fingerprint_of: Callable[[Stage, Settings], str], tmp_path: Path
) -> None:
    if field.declaration.by_content:
        pytest.skip("the content of these files is in the fingerprint: tests/parse/test_blocklist.py")
    settings = Settings()
    settings = replace(settings, core=replace(settings.core, data_dir=str(tmp_path)))
    different = changed(field, settings)
    # The fingerprint of a plan is that of its batches, which are cut once: settings change only later ones.
    for stage in set(Stage) - {Stage.CRAWL, Stage.PLAN}:
        same = fingerprint_of(stage, settings) == fingerprint_of(stage, different)
        assert same is (field.declaration.changes is not stage), stage


def test_the_choice_of_wat_files_is_in_the_fingerprint_by_their_list() -> None:
    of_crawl = {f.name for f in FIELDS.values() if f.declaration.changes is Stage.CRAWL}
    assert of_crawl == {"wat_files_sample", "wat_files_per_partition"}


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_the_manifest_names_every_setting_that_shapes_a_dataset(field: SettingField) -> None:
    shapes = field.declaration.changes not in (None, Stage.INDEX)
    before = shaping_settings(Settings())
    after = shaping_settings(changed(field, Settings()))
    named = field.name in before.get(field.group, {})
    assert named is (shapes and not field.declaration.unnamed_default)
    assert (field.name in after.get(field.group, {})) is shapes
    assert (after != before) is shapes


def test_the_manifest_does_not_say_where_files_lie_or_how_to_get_in() -> None:
    settings = Settings()
    lists = ("/home/me/lists/a.txt", "https://me:secret@host/b.txt", "s3://bucket/c.txt")
    settings = replace(settings, parse=replace(settings.parse, blocked_urls=lists))
    settings = replace(settings, safety=replace(settings.safety, nsfw_head="/home/me/head.safetensors"))
    found = shaping_settings(settings)
    assert found["parse"]["blocked_urls"] == ("a.txt", "https://host/b.txt", "s3://bucket/c.txt")
    assert found["safety"]["nsfw_head"] == "head.safetensors"
