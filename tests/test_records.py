import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from laion_etl.core.funnel import Outcomes, ParseReason
from laion_etl.core.ids import batch_name, batch_of_stats, is_sample_key, sample_key
from laion_etl.core.plain_json import NOT_AS_EXPECTED
from laion_etl.core.schemas import batch_of, keys_of_ids, pair_id, subset_of_language
from laion_etl.core.stage_stats import Output, StageStats, fingerprint
from laion_etl.settings import ParseSettings


def test_counters_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="5 records in, 4 accounted for"):
        StageStats("parse", "C", "part-00000", "f", input=5, kept=3, dropped={"no_alt": 1})


def test_stats_survive_json() -> None:
    stats = StageStats("parse", "C", "u", "f", 3, 1, {"no_alt": 2}, (Output("a", 1, "b"),), {"x": [1]})
    assert StageStats.from_json(stats.to_json()) == stats


@pytest.mark.parametrize("name", ["../secret", "shards/../../secret", "/etc/passwd"])
def test_stats_that_name_a_file_outside_the_store_are_refused(name: str) -> None:
    stats = StageStats("score", "C", "u", "f", 0, 0, outputs=(Output(name, 1, "b"),))
    with pytest.raises(ValueError, match="is outside the store"):
        StageStats.from_json(stats.to_json())


def test_outcomes_add_up_and_order_reasons_by_count() -> None:
    outcomes = Outcomes[ParseReason]()
    outcomes.keep(2)
    outcomes.drop(ParseReason.NO_ALT)
    outcomes.drop(ParseReason.URL_INVALID, 4)
    outcomes.drop(ParseReason.DUPLICATE, 0)
    assert outcomes.input == 7
    assert list(outcomes.dropped.items()) == [("url_invalid", 4), ("no_alt", 1)]


def test_the_pair_id_is_the_originals_md5() -> None:
    # md5("http://a.example/i.jpgA red car") by coreutils' md5sum
    assert pair_id("http://a.example/i.jpg", "A red car").hex() == "d70f05470f78413293cc6b9553b03f3b"


def test_a_fingerprint_changes_with_settings_and_inputs_only() -> None:
    assert fingerprint(ParseSettings(), ["a"]) == fingerprint(ParseSettings(), ["a"])
    assert fingerprint(ParseSettings(), ["a"]) != fingerprint(ParseSettings(min_alt_chars=6), ["a"])
    assert fingerprint(ParseSettings(), ["a"]) != fingerprint(ParseSettings(), ["b"])


def test_keys_sort_by_batch_and_index() -> None:
    assert sample_key(202438000012, 345) == "20243800001200345"
    assert sample_key(12, 345) == "00000001200345"  # of version 0.1
    assert sample_key(9, 99_999) < sample_key(10, 0) < sample_key(202438000000, 0)


@pytest.mark.parametrize(
    ("language", "subset"), [("en", "laion-en"), ("de", "laion-multi"), ("", "laion-nolang")]
)
def test_subsets_follow_the_language(language: str, subset: str) -> None:
    assert subset_of_language(language) == subset


@pytest.mark.parametrize(
    ("batch", "index"),
    [(0, 0), (12, 345), (9, 99_999), (202_643_123, 0), (202438000012, 345), (999999999999, 99_999)],
)
def test_the_batch_of_a_sample_is_found_by_its_id(batch: int, index: int) -> None:
    key = sample_key(batch, index)
    assert is_sample_key(key)
    assert not is_sample_key("0" + key)
    assert keys_of_ids(pa.chunked_array([[int(key)]])).to_pylist() == [key]
    assert batch_of_stats(f"scored/C/{batch_name(batch)}_stats.json") == batch
    assert batch_of(int(key)) == batch
    assert batch_of(np.array([int(key), int(sample_key(batch, 7))])).tolist() == [batch, batch]


@pytest.mark.parametrize(
    "change",
    [
        {"input": math.inf, "kept": math.inf},
        {"input": 0, "kept": -1},
        {"kept": 1.0},
        {"kept": True},
        {"dropped": {"too_short": -5, "no_alt": 6}},
        {"outputs": [{"name": "a", "bytes": math.nan, "sha256": "0"}]},
        {"outputs": [{"name": "a", "bytes": -5, "sha256": "0"}]},
        {"outputs": [{"name": "a", "bytes": 5, "sha256": 0}]},
        {"fingerprint": 7},
    ],
    ids=str,
)
def test_stats_with_counts_that_are_none_are_not_read(change: dict[str, Any]) -> None:
    """Each of them adds up, or has nothing that is added up."""
    plain = StageStats("parse", "CC-MAIN-2024-38", "0", "f", 2, 1, {"too_short": 1}).to_plain()
    with pytest.raises(NOT_AS_EXPECTED):
        StageStats.from_json(json.dumps(plain | change).encode())
