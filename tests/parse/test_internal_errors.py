"""An exception in a rule costs the page or link it came from; too many of them fail the partition."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from laion_etl.blocklists import Blocklists
from laion_etl.core.errors import InternalError, SettingsError
from laion_etl.core.rule_failures import apply_by_rows
from laion_etl.io.storage import Store
from laion_etl.parse import placeholders
from laion_etl.parse.file_counts import FileCounts
from laion_etl.parse.language import Languages
from laion_etl.parse.stage import parse_partition
from laion_etl.parse.wat_workers import FileParser
from laion_etl.settings import ParseSettings, Settings
from tests.parse.wat_files import compact_page_record, image, page_record, write_wat

HERE = __name__
BAD = "p\u00f6ison"  # not ASCII, below a suffix of three labels: every rule sees it in Python


class PoisonedError(Exception):
    """What no rule expects."""


def is_bad(value: object) -> bool:
    if isinstance(value, (bytes, bytearray)):
        value = value.decode(errors="replace")
    if isinstance(value, pa.Array):
        value = value.to_pylist()
    if isinstance(value, (list, tuple)):
        return any(map(is_bad, value))
    return isinstance(value, str) and any(form in value for form in (BAD, "xn--pison", "p%C3%B6ison"))


def failing(rule: Callable[..., Any]) -> Callable[..., Any]:
    """The rule, which raises for what is bad."""

    def wrapped(*values: Any, **named: Any) -> Any:
        if any(map(is_bad, (*values, *named.values()))):
            raise PoisonedError(f"cannot bear {BAD}")
        return rule(*values, **named)

    return wrapped


class Detector:
    """One that raises for bad texts, whatever else it gets with them."""

    def __init__(self, _: ParseSettings) -> None: ...

    def detect(self, texts: Sequence[str]) -> Languages:
        if is_bad(list(texts)):
            raise PoisonedError("cannot say what language that is")
        return Languages(["en"] * len(texts), [1.0] * len(texts))


class ShortDetector(Detector):
    """One that forgets bad texts."""

    def detect(self, texts: Sequence[str]) -> Languages:
        good = [text for text in texts if not is_bad(text)]
        return Languages(["en"] * len(good), [1.0] * len(good))


def bad_filter(_: ParseSettings) -> Callable[[pa.Table], list[None]]:
    def keep_all(pairs: pa.Table) -> list[None]:
        if is_bad(pairs["caption"].to_pylist()):
            raise PoisonedError
        return [None] * pairs.num_rows

    return keep_all


def wrong_filter(_: ParseSettings) -> Callable[[pa.Table], list[None]]:
    return lambda _: []


# Links: whatever the rule, the same ones are lost. Each page has one link, so its URL says which.
LINK_RULES = [
    "laion_etl.parse.text:clean_alt",
    "laion_etl.parse.placeholders:placeholder",
    "laion_etl.urls.normalize:resolve",
    "laion_etl.urls.hosts:registered_domain",
    "laion_etl.urls.hosts:host_is_public",
    "laion_etl.urls.hosts:tracker_paths",
    "urls_blocked",
    f"{HERE}:Detector",
    f"{HERE}:ShortDetector",
    f"{HERE}:bad_filter",
]
PAGE_RULES = [
    "laion_etl.parse.licence:licence_of",
    "laion_etl.parse.wat_record:page_urls",
    "laion_etl.parse.wat_record:without_surrogates",
]


def page(number: int, is_poisoned: bool, compact: bool) -> bytes:
    word = f"{BAD}{number}" if is_poisoned else f"flower{number}"
    licence = {"path": "A@/href", "url": f"https://creativecommons.org/licenses/by/4.0/#{word}"}
    link = image(f"https://{word}.c.kobe.jp/{word}.jpg", f"{word}&amp;more.xyz", f"{word}&amp;title")
    url = f"https://e.org/{number}/{BAD if is_poisoned else ''}"
    write = compact_page_record if compact else page_record
    return write(url, [licence, link] if number % 2 or is_poisoned else [link], f"/{word}/")


def settings_with(rule: str) -> Settings:
    parse = ParseSettings(jobs=1)
    if "etector" in rule:
        parse = replace(parse, language_detector=rule)
    if rule.endswith("_filter"):
        parse = replace(parse, filters=(rule,))
    return Settings(parse=parse)


def break_rule(rule: str, patch: pytest.MonkeyPatch) -> None:
    if rule == "urls_blocked":
        patch.setattr(Blocklists, "blocks_urls", True)
        patch.setattr(Blocklists, "urls_blocked", failing(Blocklists.urls_blocked))
    elif not rule.startswith(HERE):
        placeholders._known.cache_clear()
        module, name = rule.split(":")
        patch.setattr(import_module(module), name, failing(getattr(import_module(module), name)))


@pytest.mark.parametrize("rule", LINK_RULES + PAGE_RULES)
def test_an_exception_costs_what_it_came_from(
    rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(rule)
    poisoned = set(chance.sample(range(100), 8))
    records = [page(n, n in poisoned, chance.random() < 0.5) for n in range(100)]
    wat = write_wat(tmp_path / "a.wat.gz", records)
    break_rule(rule, monkeypatch)
    counts = FileCounts()
    rows = [
        row for table in FileParser(settings_with(rule)).pairs(0, wat, counts) for row in table.to_pylist()
    ]
    kept = [int(row["page_url"].split("/")[3]) for row in rows]
    assert kept == [n for n in range(100) if n not in poisoned]
    if rule in PAGE_RULES:
        assert counts.records.dropped == {"internal_error": 8}
        assert (counts.input, counts.dropped) == (92, {})
    else:
        assert counts.records.dropped == {}
        assert (counts.input, counts.dropped) == (100, {"internal_error": 8})
    assert counts.failures == 8
    assert len(counts.errors.examples) == 5
    for example in counts.errors.examples:
        assert example["page"].startswith("https://e.org/")
        assert example["error"].startswith(("PoisonedError", "ValueError"))


def test_the_stats_and_the_log_name_the_first_ones(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wat = write_wat(tmp_path / "a.wat.gz", [page(n, n == 3, compact=True) for n in range(5)])
    break_rule("laion_etl.parse.text:clean_alt", monkeypatch)
    stats = parse_partition("C", 0, [(0, wat)], Settings(), store)
    assert (stats.kept, stats.dropped) == (4, {"internal_error": 1})
    assert stats.details["internal_errors"] == [
        {"page": f"https://e.org/3/{BAD}", "error": f"PoisonedError: cannot bear {BAD}"}
    ]
    assert f"https://e.org/3/{BAD}: PoisonedError" in caplog.text


@pytest.mark.parametrize("rule", [LINK_RULES[0], LINK_RULES[-3], LINK_RULES[-1], PAGE_RULES[1]])
def test_more_than_one_in_a_hundred_fail_the_partition(
    rule: str, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    wat = write_wat(tmp_path / "a.wat.gz", [page(n, n % 20 == 7, compact=True) for n in range(240)])
    break_rule(rule, monkeypatch)
    with pytest.raises(
        InternalError, match=r"a rule failed for 12 of 240 .*a\.wat\.gz|a\.wat\.gz.*12 of 240"
    ):
        parse_partition("C", 0, [(0, wat)], settings_with(rule), store)
    assert store.list("") == []


def test_a_broken_installation_does_not_make_an_empty_partition(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    wats = [
        (number, write_wat(tmp_path / f"{number}.wat.gz", [page(number, is_poisoned=True, compact=True)]))
        for number in range(2)
    ]
    with monkeypatch.context() as patch:
        break_rule("laion_etl.parse.text:clean_alt", patch)
        with pytest.raises(InternalError, match="no pair is left"):
            parse_partition("C", 0, wats, Settings(parse=ParseSettings(jobs=1)), store)
    assert store.list("pairs/") == []
    repaired = parse_partition("C", 0, wats, Settings(parse=ParseSettings(jobs=1)), store)
    assert (repaired.kept, repaired.dropped) == (2, {})
    assert store.list("checkpoints/") == []


def test_a_filter_against_its_interface_is_still_a_wrong_setting(tmp_path: Path) -> None:
    wat = write_wat(tmp_path / "a.wat.gz", [page(0, is_poisoned=False, compact=True)])
    with pytest.raises(SettingsError, match="it returned 0 values for 1 pair"):
        list(FileParser(settings_with(f"{HERE}:wrong_filter")).pairs(0, wat, FileCounts()))


def test_a_rule_is_asked_about_few_rows_again() -> None:
    calls: list[tuple[int, int]] = []
    failed: list[int] = []

    def rule(start: int, end: int) -> None:
        calls.append((start, end))
        if start <= 700 < end:
            raise PoisonedError

    apply_by_rows(rule, 1_000, lambda row, _: failed.append(row))
    assert failed == [700]
    assert len(calls) < 25
    done = [row for start, end in calls if not start <= 700 < end for row in range(start, end)]
    assert done == [row for row in range(1_000) if row != 700]


def test_a_lack_of_memory_is_not_the_fault_of_a_row() -> None:
    def rule(_start: int, _end: int) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        apply_by_rows(rule, 10, lambda *_: None)
