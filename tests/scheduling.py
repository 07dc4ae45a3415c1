"""Which process of a test run (pytest-xdist) runs which tests, and in which order they begin."""

import pytest
from xdist.scheduler import LoadFileScheduling

# Files that take longest, in the order in which they begin; other tests of Airflow and slow ones follow.
LONGEST = (
    "tests/airflow/test_gauntlet.py",
    "tests/airflow/test_disturbed_runs.py",
    "tests/airflow/test_complete_runs.py",
    "tests/airflow/test_demo.py",
    "tests/airflow/test_ui.py",
    "tests/airflow/test_alerts.py",
    "tests/airflow/test_failed_demo.py",
    "tests/airflow/test_run_checks.py",
    "tests/airflow/test_new_crawls.py",
    "tests/airflow/test_dashboard.py",
    "tests/airflow/test_dashboard_runs.py",
)

# These share an Airflow that takes half a minute to start: one process runs them all.
ONE_AIRFLOW = frozenset(
    ("tests/airflow/test_ui.py", "tests/airflow/test_alerts.py", "tests/airflow/test_failed_demo.py")
)


class Scheduling(LoadFileScheduling):
    """The tests of a file run in one process, and so do those of `ONE_AIRFLOW`."""

    def _split_scope(self, nodeid: str) -> str:
        file = file_of(nodeid)
        return "one Airflow" if file in ONE_AIRFLOW else file


def file_of(nodeid: str) -> str:
    return nodeid.split("::", 1)[0]


def rank(item: pytest.Item) -> int:
    """Place of a test in the run: what takes long first, so that no process is left with it at the end."""
    file = file_of(item.nodeid)
    if file in LONGEST:
        return LONGEST.index(file)
    tiers = [item.get_closest_marker(tier) is not None for tier in ("airflow", "slow")]
    return len(LONGEST) + (tiers.index(True) if any(tiers) else len(tiers))
