"""What costs a task a try, and what does not: pods by the fake cluster, and commands on Airflow's machine.

All tries run in one process, side by side: importing the Kubernetes client takes longest.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.conftest import ROOT, Airflow
from tests.kubernetes.cluster import Cluster, running_cluster
from tests.kubernetes.environment import Image, Namespace
from tests.kubernetes.faults import (
    QUOTA_TOO_SMALL,
    QUOTA_USED_UP,
    SERVER_ERROR,
    TOO_MANY_REQUESTS,
    PodFault,
    PodTrouble,
    RequestFault,
)

pytestmark = pytest.mark.airflow

HOUR_S = 3_600
# The steps of each command; after them it does its work.
PODS: dict[str, list[Any]] = {
    "quota": [],
    "small-quota": [],
    "no-quota-for-long": [],
    "busy": [],
    "failing-api": [],
    "evicted": ["stay"],
    "preempted": ["stay"],
    "deleted": ["stay"],
    "shut-down": ["stay"],
    "node-lost": ["stay"],
    "drained": [130],
    "outage": [75],
    "drained-too-often": [130, 130, 130],
    "out-of-memory": ["stay"],
    "out-of-disk": ["stay"],
    "error": [1],
    "result-late": [],
    "result-too-late": [],
}
COMMANDS: dict[str, list[Any]] = {
    "local-outage": [75],
    "local-sigterm": [130],
    "local-outage-for-long": [75, 75, 75],
    "local-error": [1],
    "unknown-option": ["unknown option"],
}
FAULTS = {
    "evicted": PodTrouble.EVICTED,
    "preempted": PodTrouble.PREEMPTED,
    "deleted": PodTrouble.DELETED,
    "shut-down": PodTrouble.NODE_SHUT_DOWN,
    "node-lost": PodTrouble.NODE_LOST,
    "out-of-memory": PodTrouble.OOM_KILLED,
    "out-of-disk": PodTrouble.OVER_ITS_DISK,
}
REFUSALS = {
    # More than the provider asks by itself (twice).
    "quota": (QUOTA_USED_UP, 2),
    "small-quota": (QUOTA_TOO_SMALL, 1),
    "no-quota-for-long": (QUOTA_USED_UP, 1),
    "busy": (TOO_MANY_REQUESTS, 3),
    "failing-api": (SERVER_ERROR, 3),
}


class Tries:
    """The outcome of every case."""

    def __init__(self, found: Any, cluster: Cluster) -> None:
        self._found, self._cluster = found, cluster

    def outcome(self, case: str) -> tuple[str, Any]:
        kind, what = self._found[case]["outcome"]
        return kind, what

    def log(self, case: str) -> str:
        return "\n".join(self._found[case]["log"])

    def waits(self, case: str) -> int:
        return int(self._found[case]["waits"])

    def put_off_s(self, case: str) -> float:
        return float(self._found[case]["put_off_s"])

    def pods(self, case: str) -> int:
        """The number of pods that were requested, refused ones too."""
        return len([pod for pod in self._cluster.posted if pod["metadata"]["labels"]["crawl"] == case])


@pytest.fixture(scope="module")
def tries(airflow: Airflow, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tries")
    program = folder / "laion-etl"
    program.write_text(f"#!{sys.executable} -IS\n" + Path(__file__).with_name("stand_in.py").read_text())
    program.chmod(0o755)
    for crawl, steps in (PODS | COMMANDS).items():
        (folder / f"{crawl}.json").write_text(json.dumps(steps))
    longer: dict[str, dict[str, Any]] = {
        "quota": {"longer_s": HOUR_S},
        "no-quota-for-long": {"settings": {"LAION_ETL_KUBERNETES_CREATE_TIMEOUT_S": "0"}},
        "result-late": {"store_outages": 2},
        "result-too-late": {"store_outages": 3},
    }
    cases = [{"crawl": crawl, "runner": "kubernetes", **longer.get(crawl, {})} for crawl in PODS]
    cases += [{"crawl": crawl, "runner": "venv"} for crawl in COMMANDS]
    image = Image(environment={"PATH": str(folder), "PLANS": str(folder)})
    with running_cluster(folder, {"worker": image}, {"laion": Namespace()}) as cluster:
        for crawl, (refused, times) in REFUSALS.items():
            cluster.faults.order(RequestFault("create", "pods", refused, {"crawl": crawl}, times=times))
        for crawl, trouble in FAULTS.items():
            cluster.faults.order(PodFault(trouble, {"crawl": crawl}, after="started"))
        connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(cluster.kubeconfig)}}
        out, _ = airflow.run(
            [str(ROOT / "tests" / "airflow" / "tries.py"), json.dumps(cases)],
            PLANS=str(folder),
            AIRFLOW__WORKERS__API_RETRIES="2",
            AIRFLOW__WORKERS__API_RETRY_WAIT_MIN="0.1",
            AIRFLOW_CONN_KUBERNETES_DEFAULT=json.dumps(connection),
            LAION_ETL_AIRFLOW_VENV=str(program),
            LAION_ETL_DATA_DIR=str(folder),
            LAION_ETL_KUBERNETES_IMAGE="worker",
            LAION_ETL_KUBERNETES_NAMESPACE="laion",
            LAION_ETL_KUBERNETES_POLL_S="0.2",
            LAION_ETL_KUBERNETES_LOGS_S="1",
            LAION_ETL_STORE=str(folder / "store"),
            LAION_ETL_TASK_RESTARTS="2",
            LAION_ETL_TASK_RESTART_DELAY_S="0.1",
        )
        assert cluster.faults.outstanding() == []
        yield Tries(json.loads(out.splitlines()[-1]), cluster)


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (
            "quota",
            'the cluster has no quota left for the pod: pods "pod" is forbidden: exceeded quota: laion',
        ),
        ("busy", "the cluster's API answered 429: The server has received too many requests"),
        ("failing-api", "the cluster's API answered 500: Internal error occurred"),
    ],
)
def test_a_pod_that_is_refused_is_requested_again_in_the_same_try(tries: Tries, case: str, why: str) -> None:
    assert tries.outcome(case) == ("result", {"starts": 1})
    assert why in tries.log(case)
    assert tries.waits(case) >= 1
    assert tries.pods(case) == REFUSALS[case][1] + 1


def test_waiting_for_quota_does_not_count_against_the_time_limit(tries: Tries) -> None:
    assert 2 * HOUR_S - 1 <= tries.put_off_s("quota") < 3 * HOUR_S  # the provider cuts to whole seconds
    assert tries.put_off_s("error") == pytest.approx(0, abs=1)


def test_waiting_for_quota_has_a_limit_of_its_own(tries: Tries) -> None:
    kind, message = tries.outcome("no-quota-for-long")
    assert kind == "AirflowException"
    assert "exceeded quota: laion" in message
    assert "LAION_ETL_KUBERNETES_CREATE_TIMEOUT_S" in message


def test_a_pod_that_is_larger_than_its_quota_is_not_waited_for(tries: Tries) -> None:
    kind, message = tries.outcome("small-quota")
    assert kind == "FinalError"
    assert "it requests requests.memory=9Gi, and the quota laion allows" in message
    assert tries.pods("small-quota") == 1


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("evicted", "the pod was evicted by Kubernetes: The node was low on resource: ephemeral-storage."),
        ("preempted", ""),  # the pod may be gone before anyone reads why
        ("deleted", "deleted"),
        (
            "shut-down",
            "the pod was ended by Kubernetes: Pod was terminated in response to imminent node shutdown",
        ),
        (
            "node-lost",
            "the pod was ended by Kubernetes: DeletionByTaintManager: node.kubernetes.io/unreachable",
        ),
        ("drained", "cause of 130 (laion-etl stage parse ended with exit code 130)"),
        ("outage", "cause of 75 (laion-etl stage parse ended with exit code 75)"),
    ],
)
def test_a_pod_that_is_lost_is_replaced_in_the_same_try(tries: Tries, case: str, why: str) -> None:
    assert tries.outcome(case) == ("result", {"starts": 2})
    [line] = [line for line in tries.log(case).splitlines() if "another pod is started in" in line]
    assert why in line
    assert "without using up a retry (restart 1, at most 2 in 24 hours)" in line
    assert (tries.pods(case), tries.waits(case)) == (2, 1)


def test_pods_are_not_replaced_without_end(tries: Tries) -> None:
    kind, message = tries.outcome("drained-too-often")
    assert kind == "AirflowException"
    assert "exit code 130" in message
    assert "it was started again 2 times within 24 hours, the limit of LAION_ETL_TASK_RESTARTS" in message
    assert tries.pods("drained-too-often") == 3


def test_an_outage_of_the_store_while_a_result_is_read_is_waited_for(tries: Tries) -> None:
    assert tries.outcome("result-late") == ("result", {"starts": 1})
    why = "its result cannot be read yet: cannot read .*: it does not answer; it is read again in"
    assert len(re.findall(why, tries.log("result-late"))) == 2
    assert (tries.pods("result-late"), tries.waits("result-late")) == (1, 2)


def test_a_result_is_not_waited_for_without_end(tries: Tries) -> None:
    kind, message = tries.outcome("result-too-late")
    assert kind == "AirflowException"
    assert "it does not answer; it was started again 2 times within 24 hours" in message
    assert tries.pods("result-too-late") == 1


@pytest.mark.parametrize(
    ("case", "kind", "why"),
    [
        ("out-of-memory", "FinalError", "the pod was OOM-killed at 4Gi; raise parse=..."),
        ("out-of-disk", "FinalError", "raise parse=... in LAION_ETL_KUBERNETES_SCRATCH"),
        ("error", "AirflowException", "cause of 1 (laion-etl stage parse ended with exit code 1)"),
    ],
)
def test_failures_of_the_command_itself_cost_a_try(tries: Tries, case: str, kind: str, why: str) -> None:
    found, message = tries.outcome(case)
    assert found == kind
    assert why in message
    assert (tries.pods(case), tries.waits(case)) == (1, 0)


@pytest.mark.parametrize("case", ["local-outage", "local-sigterm"])
def test_a_command_that_can_go_on_is_started_again_in_the_same_try(tries: Tries, case: str) -> None:
    [code] = COMMANDS[case]
    assert tries.outcome(case) == ("result", {"starts": 2})
    assert f"ended with exit code {code}); it is started again in" in tries.log(case)


def test_a_command_is_not_started_again_without_end(tries: Tries) -> None:
    kind, message = tries.outcome("local-outage-for-long")
    assert kind == "AirflowException"
    assert message.startswith(
        "cause of 75 (laion-etl stage parse ended with exit code 75); it was started again 2"
    )


def test_a_command_that_failed_is_not_started_again(tries: Tries) -> None:
    assert tries.outcome("local-error")[0] == "AirflowException"
    assert "started again" not in tries.log("local-error")


def test_the_cause_of_a_usage_error_is_the_sentence_in_its_frame(tries: Tries) -> None:
    assert tries.outcome("unknown-option") == (
        "FinalError",
        "Invalid value for '--partition': Input should be a valid integer, unable to parse string as an "
        "integer (laion-etl stage parse ended with exit code 2)",
    )
