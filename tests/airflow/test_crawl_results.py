"""The values that tasks make from the results of their commands."""

import json

import pytest

from tests.airflow.conftest import ROOT, Airflow

pytestmark = pytest.mark.airflow


def test_a_plan_that_lacks_partitions_is_red_and_passes_its_fingerprint_on(airflow: Airflow) -> None:
    result = {"crawl": "C", "input": 7, "kept": 7, "plan": "f", "unplanned": 0}
    value = {"input": 7, "kept": 7, "plan": "f"}
    results = json.dumps([result, result | {"unplanned": 2}])
    complete, lacking = airflow.python_file(ROOT / "tests" / "airflow" / "range_results.py", results)
    assert complete == {"value": value, "pushed": {}}
    assert lacking.pop("error").startswith("cannot plan all of C: 2 partitions loaded after this plan began")
    assert lacking == {"retried": False, "pushed": {"return_value": value}}
