import json
from pathlib import Path

import pytest

from laion_etl.core import funnel
from laion_etl.core.funnel import STAGE_REASONS, ParseReason, Reason, sentence_of
from laion_etl.dataset.funnel_report import STAGES
from scripts.docs.reason_tables import with_tables

PAGE = Path(__file__).parents[1] / "docs" / "formats.md"
REASONS = [(stage, reason) for stage, reasons in STAGE_REASONS.items() for reason in reasons]


@pytest.mark.parametrize(("stage", "reason"), REASONS, ids=str)
def test_every_reason_has_a_sentence_and_is_documented(stage: str, reason: Reason) -> None:
    assert reason.sentence[0].isupper()
    assert reason.sentence.endswith((".", "..."))
    assert "|" not in reason.sentence, "it stands in tables"
    table = PAGE.read_text().split(f"<!-- reasons: {stage} -->")[1].split("<!-- end of reasons -->")[0]
    assert f"| {reason.value} | {reason.sentence} |" in table.splitlines()


def test_every_enum_of_reasons_belongs_to_a_stage() -> None:
    known = {made for made in vars(funnel).values() if isinstance(made, type) and issubclass(made, Reason)}
    assert known - {Reason} == set(STAGE_REASONS.values())
    assert set(STAGE_REASONS) - {"records"} == set(STAGES) - {"plan"}, "plan drops nothing"


def test_the_tables_of_the_page_are_current() -> None:
    page = PAGE.read_text()
    assert page == with_tables(page), "run `make docs`"


def test_a_reason_is_its_name_wherever_it_is_written() -> None:
    assert ParseReason("no_url") is ParseReason.NO_URL
    assert f"{ParseReason.NO_URL}" == "no_url"
    assert json.dumps({ParseReason.NO_URL: 1}) == '{"no_url": 1}'


def test_the_sentence_of_a_reason_is_found_by_stage_and_name() -> None:
    assert sentence_of("score", "unreadable").startswith("The image cannot be decoded")
    assert sentence_of("load", "duplicate_in_partition") != sentence_of("parse", "duplicate_in_partition")
    assert sentence_of("download", "removed_by_request") == "A removal request names the sample."
    assert sentence_of("parse", "of_a_later_version") == ""
    assert sentence_of("no_stage", "no_url") == ""
