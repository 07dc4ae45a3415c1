"""What the demo prints when a task of its run fails."""

from io import StringIO

import pytest
from rich.console import Console

from laion_etl.demo.demo import Phases, run_dag
from tests.airflow.shared import SharedAirflow

pytestmark = pytest.mark.airflow


def test_a_failed_task_is_named_with_the_end_of_its_log(shared_airflow: SharedAirflow) -> None:
    printed = StringIO()
    phases = Phases(Console(file=printed, width=2_000))
    succeeded = run_dag(shared_airflow.unlisted.id, shared_airflow.api, phases)

    assert not succeeded
    output = printed.getvalue()
    assert "failed: discover, try 2" in output
    assert f"cannot find crawl {shared_airflow.unlisted.id}" in output.split("failed: discover")[1]
