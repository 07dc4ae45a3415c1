"""Hard cases of URLs and texts: expected values follow from the standards named with them.

`cases/urls.json` has the shape of the web-platform-tests' urltestdata.json (input, base, href or failure),
with our reason for what is refused, and `head_base` where the page has a BASE.
"""

import json
from pathlib import Path

import pytest

from laion_etl.parse.placeholders import placeholder
from laion_etl.parse.text import clean_alt
from tests.parse.outcomes import url_outcome

_CASES = Path(__file__).parent / "cases"
URLS: list[dict[str, str]] = json.loads((_CASES / "urls.json").read_text())
TEXTS: list[dict[str, str]] = json.loads((_CASES / "texts.json").read_text())


def named(case: dict[str, str]) -> str:
    return f"{case['input'][:60]!a} {case.get('head_base', '')}"


@pytest.mark.parametrize("case", URLS, ids=named)
def test_urls(case: dict[str, str]) -> None:
    expected = case.get("href") or case["reason"]
    assert url_outcome(case["input"], case["base"], case.get("head_base")) == expected, case["source"]


@pytest.mark.parametrize("case", [case for case in TEXTS if "text" in case], ids=named)
def test_cleaned_texts(case: dict[str, str]) -> None:
    assert clean_alt(case["input"], 2000) == case["text"], case["source"]


@pytest.mark.parametrize("case", [case for case in TEXTS if "placeholder" in case], ids=named)
def test_placeholders(case: dict[str, str]) -> None:
    assert placeholder(case["input"]) == case["placeholder"], case["source"]


def test_every_case_names_its_source_and_comes_once() -> None:
    for cases in (URLS, TEXTS):
        assert all(case["source"] for case in cases)
        keys = [(case["input"], case.get("base"), case.get("head_base"), "text" in case) for case in cases]
        assert len(set(keys)) == len(keys)
