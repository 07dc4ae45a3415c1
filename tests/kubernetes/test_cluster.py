"""The fake cluster by the official client: what Kubernetes promises of pods, and what goes wrong by order."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import urllib3
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException

from tests.kubernetes.cluster import Cluster, running_cluster
from tests.kubernetes.environment import Image, Namespace
from tests.kubernetes.faults import (
    SERVER_ERROR,
    TOO_MANY_REQUESTS,
    Cut,
    Held,
    PodFault,
    PodTrouble,
    RequestFault,
)

SPACE = "laion"
Api = client.CoreV1Api
UNTIL_TOLD = (
    "import signal, time; signal.signal(signal.SIGTERM, {}); print('up', flush=True); time.sleep(600)"
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    python = Image((sys.executable, "-c"), {"FROM_IMAGE": "image"})
    namespace = Namespace(
        secrets={"database": {"url": "postgresql://secret", "user": "laion"}},
        config_maps={"settings": {"LAION_ETL_STORE": "s3://bucket"}},
    )
    with running_cluster(
        tmp_path_factory.mktemp("cluster"), {"python": python}, {SPACE: namespace}
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def api(cluster: Cluster) -> Api:
    return Api(config.new_client_from_config(str(cluster.kubeconfig)))


def pod(name: str, script: str = "print('done')", **changes: Any) -> dict[str, Any]:
    """A pod that runs a script; `changes` are of its container."""
    container = {"name": "base", "image": "python", "args": [script], **changes}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"task": name}},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }


def until(api: Api, name: str, wanted: Callable[[client.V1PodStatus], Any]) -> client.V1PodStatus:
    """Watches a pod until its status is as wanted."""
    chosen = {"namespace": SPACE, "label_selector": f"task={name}", "timeout_seconds": 200}
    for change in watch.Watch().stream(api.list_namespaced_pod, **chosen):
        if wanted(change["object"].status):
            return change["object"].status
    raise AssertionError(f"the pod {name} did not get there")


def ended(api: Api, name: str) -> client.V1PodStatus:
    return until(api, name, lambda status: status.phase in ("Succeeded", "Failed"))


def terminated(status: client.V1PodStatus) -> client.V1ContainerStateTerminated:
    return status.container_statuses[0].state.terminated


def events(api: Api, name: str) -> list[str]:
    found = api.list_namespaced_event(SPACE, field_selector=f"involvedObject.name={name}")
    return [event.reason for event in found.items]


def log(api: Api, name: str, **options: Any) -> str:
    answer = api.read_namespaced_pod_log(name, SPACE, _preload_content=False, **options)
    return answer.data.decode()


def test_a_pod_goes_from_pending_to_succeeded_and_its_log_stays(cluster: Cluster, api: Api) -> None:
    created = api.create_namespaced_pod(SPACE, pod("good", "print('one'); print('two')"))
    assert created.status.phase == "Pending"
    assert created.metadata.uid
    status = ended(api, "good")
    assert (status.phase, terminated(status).exit_code, terminated(status).reason) == (
        "Succeeded",
        0,
        "Completed",
    )
    assert log(api, "good") == "one\ntwo\n"
    assert log(api, "good", tail_lines=1) == "two\n"
    stamp, _, text = log(api, "good", timestamps=True).splitlines()[0].partition(" ")
    assert (stamp[-1], text) == ("Z", "one")
    assert events(api, "good") == ["Scheduled", "Started"]
    assert [change.found["status"]["phase"] for change in cluster.history("good")] == [
        "Pending",
        "Pending",
        "Running",
        "Succeeded",
    ]
    api.delete_namespaced_pod("good", SPACE)
    with pytest.raises(ApiException, match="404"):
        api.read_namespaced_pod("good", SPACE)


def test_a_failed_command_and_one_that_is_not_there_fail_the_pod(api: Api) -> None:
    policy = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    api.create_namespaced_pod(SPACE, pod("bad", "print('why'); raise SystemExit(3)", **policy))
    status = ended(api, "bad")
    assert (status.phase, terminated(status).exit_code, terminated(status).reason) == ("Failed", 3, "Error")
    assert terminated(status).message == "why\n"
    api.create_namespaced_pod(SPACE, pod("nothing", command=["/no/such/thing"]))
    status = ended(api, "nothing")
    assert (terminated(status).exit_code, terminated(status).reason) == (128, "StartError")


def test_the_environment_is_the_pods_alone(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_SERVER", "must not be seen")
    env = [
        {"name": "PLAIN", "value": "plain"},
        {"name": "BUILT", "value": "$(PLAIN) $$(PLAIN) $(UNKNOWN)"},
        {"name": "URL", "valueFrom": {"secretKeyRef": {"name": "database", "key": "url"}}},
        {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "none", "key": "none", "optional": True}}},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "TASK", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['task']"}}},
    ]
    sources = [{"configMapRef": {"name": "settings"}}, {"prefix": "DB_", "secretRef": {"name": "database"}}]
    script = "import os; print(*sorted(f'{k}={v}' for k, v in os.environ.items()), '$(PLAIN)', sep='\\n')"
    api.create_namespaced_pod(SPACE, pod("env", script, env=env, envFrom=sources))
    assert ended(api, "env").phase == "Succeeded"
    lines = log(api, "env").splitlines()
    names = {line.partition("=")[0] for line in lines}
    assert {
        "PLAIN=plain",
        "BUILT=plain $(PLAIN) $(UNKNOWN)",
        "URL=postgresql://secret",
        "POD=env",
        "TASK=env",
        "LAION_ETL_STORE=s3://bucket",
        "DB_user=laion",
        "FROM_IMAGE=image",
        "plain",  # in the arguments
    } <= set(lines)
    assert not {"OF_THE_SERVER", "NONE", "PATH"} & names


def test_a_secret_that_is_not_there_keeps_the_pod_waiting(api: Api) -> None:
    env = [{"name": "URL", "valueFrom": {"secretKeyRef": {"name": "nothing", "key": "url"}}}]
    api.create_namespaced_pod(SPACE, pod("no-secret", env=env))
    status = until(
        api,
        "no-secret",
        lambda s: s.container_statuses and "Config" in s.container_statuses[0].state.waiting.reason,
    )
    waiting = status.container_statuses[0].state.waiting
    assert (waiting.reason, waiting.message) == ("CreateContainerConfigError", 'secret "nothing" not found')
    with pytest.raises(ApiException, match="is waiting to start"):
        log(api, "no-secret")


WRONG: dict[str, tuple[int, Callable[[dict[str, Any]], None], str]] = {
    "an unknown field": (400, lambda p: p["spec"].update(grace=3), 'unknown field "spec.grace"'),
    "a number for a text": (400, lambda p: base(p).update(env=[{"name": "A", "value": 1}]), "env[0].value"),
    "a missing field": (400, lambda p: base(p).pop("name"), "name"),
    "no such quantity": (422, lambda p: requests(p, cpu="two"), "requests[cpu]"),
    "more requested than allowed": (422, lambda p: requests(p, memory="2Gi"), "memory limit"),
    "half a GPU": (422, lambda p: requests(p, **{"nvidia.com/gpu": "500m"}), "must be an integer"),
    "a name in capitals": (422, lambda p: p["metadata"].update(name="Parse"), "RFC 1123"),
    "a label that is too long": (422, lambda p: p["metadata"]["labels"].update(run="r" * 64), "at most 63"),
    "a label with a colon": (422, lambda p: p["metadata"]["labels"].update(run="a:b"), "valid label"),
    "a label's bad key": (422, lambda p: p["metadata"]["labels"].update({"a/b/c": "d"}), "qualified name"),
    "no image": (422, lambda p: base(p).update(image=""), "image: Required"),
    "a volume that is not there": (422, lambda p: base(p).update(volumeMounts=[MOUNT]), 'Not found: "tmp"'),
    "two containers of a name": (422, lambda p: p["spec"]["containers"].append(base(p)), "Duplicate"),
    "a wrong toleration": (422, lambda p: p["spec"].update(tolerations=[{"value": "gpu"}]), "tolerations[0]"),
    "a policy that is none": (422, lambda p: p["spec"].update(restartPolicy="Sometimes"), "restartPolicy"),
    "an unknown account": (403, lambda p: p["spec"].update(serviceAccountName="root"), "service account"),
}
MOUNT = {"name": "tmp", "mountPath": "/data"}


def base(pod: dict[str, Any]) -> dict[str, Any]:
    return pod["spec"]["containers"][0]


def requests(pod: dict[str, Any], **amounts: str) -> None:
    base(pod)["resources"] = {"requests": amounts, "limits": {"memory": "1Gi", "cpu": "2"}}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_pod_that_breaks_the_rules_is_refused_with_the_field(api: Api, wrong: str) -> None:
    code, change, complaint = WRONG[wrong]
    body = pod("refused")
    change(body)
    with pytest.raises(ApiException) as refused:
        api.create_namespaced_pod(SPACE, body)
    assert refused.value.status == code
    assert complaint in json.loads(refused.value.body)["message"]
    assert not api.list_namespaced_pod(SPACE, label_selector="task=refused").items


def test_a_name_is_taken_once_and_a_namespace_must_be_there(api: Api) -> None:
    api.create_namespaced_pod(SPACE, pod("twice"))
    with pytest.raises(ApiException, match="AlreadyExists"):
        api.create_namespaced_pod(SPACE, pod("twice"))
    with pytest.raises(ApiException, match="NotFound"):
        api.create_namespaced_pod("elsewhere", pod("elsewhere"))


def test_strangers_and_what_the_fake_does_not_have_are_turned_away(cluster: Cluster, api: Api) -> None:
    host = api.api_client.configuration.host
    pods = f"{host}/api/v1/namespaces/{SPACE}/pods"
    assert urllib3.request("POST", pods, json=pod("stranger")).status == 401
    with pytest.raises(ApiException, match="403"):
        api.connect_get_namespaced_pod_exec("twice", SPACE, command="sh", _preload_content=True)
    with pytest.raises(ApiException, match="404"):
        api.list_node()


def test_labels_are_patched_and_select_and_bad_queries_are_refused(api: Api) -> None:
    api.create_namespaced_pod(SPACE, pod("labelled"))
    api.patch_namespaced_pod("labelled", SPACE, {"metadata": {"labels": {"checked": "True"}}})
    for selector, found in (
        ("task=labelled,checked=True", 1),
        ("task=labelled,checked!=True", 0),
        ("task=labelled,checked", 1),
        ("task=labelled,!checked", 0),
        ("task=labelled,!other", 1),
    ):
        assert len(api.list_namespaced_pod(SPACE, label_selector=selector).items) == found, selector
    with pytest.raises(ApiException, match="is not a number"):
        next(watch.Watch().stream(api.list_namespaced_event, SPACE, timeout_seconds=0.5))
    with pytest.raises(ApiException, match="may not change fields"):
        api.patch_namespaced_pod("labelled", SPACE, {"spec": {"restartPolicy": "Always"}})


@pytest.mark.parametrize(
    ("name", "handler", "grace_s", "code"),
    [("polite", "lambda *_: exit(130)", 30, 130), ("rude", "signal.SIG_IGN", 1, 137)],
)
def test_a_deleted_pod_is_asked_to_end_and_then_made_to(
    cluster: Cluster, api: Api, name: str, handler: str, grace_s: int, code: int
) -> None:
    body = pod(name, UNTIL_TOLD.format(handler))
    body["spec"]["terminationGracePeriodSeconds"] = grace_s
    api.create_namespaced_pod(SPACE, body)
    until(api, name, lambda status: status.phase == "Running")
    assert next(watch.Watch().stream(api.read_namespaced_pod_log, name, SPACE)) == "up"
    api.delete_namespaced_pod(name, SPACE)
    gone(api, name)
    last = cluster.history(name)[-1]
    assert last.type == "DELETED"
    assert last.found["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == code


def gone(api: Api, name: str) -> None:
    end = time.monotonic() + 200
    while api.list_namespaced_pod(SPACE, label_selector=f"task={name}").items:
        assert time.monotonic() < end, f"{name} is still there"
        time.sleep(0.02)


def test_a_pod_may_take_no_longer_than_its_deadline(api: Api) -> None:
    body = pod("slow", "import time; time.sleep(600)")
    body["spec"]["activeDeadlineSeconds"] = 1
    api.create_namespaced_pod(SPACE, body)
    status = ended(api, "slow")
    assert (status.phase, status.reason) == ("Failed", "DeadlineExceeded")


@pytest.mark.parametrize(
    ("trouble", "pod_reason", "reason"),
    [(PodTrouble.OOM_KILLED, None, "OOMKilled"), (PodTrouble.EVICTED, "Evicted", "Error")],
)
def test_a_pod_is_killed_in_the_middle_of_its_work_once(
    cluster: Cluster, api: Api, trouble: PodTrouble, pod_reason: str | None, reason: str
) -> None:
    name = trouble.name.lower().replace("_", "-")
    fault = PodFault(trouble, {"task": name}, after="half")
    cluster.faults.order(fault)
    script = "import sys, time; print('half', flush=True); time.sleep(600 if sys.argv[1] == '1' else 0)"
    api.create_namespaced_pod(SPACE, pod(name, args=[script, "1"]))
    status = ended(api, name)
    assert (status.phase, status.reason) == ("Failed", pod_reason)
    assert (terminated(status).exit_code, terminated(status).reason) == (137, reason)
    assert cluster.faults.struck.count(fault) == 1
    again = pod(name, args=[script, "2"])
    api.delete_namespaced_pod(name, SPACE)
    api.create_namespaced_pod(SPACE, again)
    assert ended(api, name).phase == "Succeeded"


def test_an_image_that_can_not_be_pulled_and_a_pod_without_room(cluster: Cluster, api: Api) -> None:
    api.create_namespaced_pod(SPACE, pod("no-image", image="laion-etl:none"))
    status = until(api, "no-image", lambda s: "BackOff" in str(s.container_statuses))
    assert status.phase == "Pending"
    assert "laion-etl:none: not found" in status.container_statuses[0].state.waiting.message
    cluster.faults.order(PodFault(PodTrouble.UNSCHEDULABLE, {"task": "no-room"}))
    api.create_namespaced_pod(SPACE, pod("no-room"))
    condition = until(api, "no-room", lambda s: s.conditions).conditions[0]
    assert (condition.type, condition.status, condition.reason) == ("PodScheduled", "False", "Unschedulable")
    found = watch.Watch().stream(
        api.list_namespaced_event, SPACE, field_selector="involvedObject.name=no-room", timeout_seconds=200
    )
    assert next(found)["object"].reason == "FailedScheduling"


def test_requests_fail_as_ordered_and_then_go_well(cluster: Cluster, api: Api) -> None:
    api.create_namespaced_pod(SPACE, pod("trouble"))
    labels = {"task": "trouble"}
    cluster.faults.order(
        RequestFault("get", "pods", SERVER_ERROR, labels, skip=1),
        RequestFault("get", "pods", TOO_MANY_REQUESTS, labels, skip=2),
    )
    api.read_namespaced_pod("trouble", SPACE)
    with pytest.raises(ApiException) as error:
        api.read_namespaced_pod("trouble", SPACE)
    assert error.value.status == 500
    # The client waits as the answer demands, and repeats the request.
    assert api.read_namespaced_pod("trouble", SPACE).metadata.name == "trouble"
    assert len(cluster.faults.struck) >= 2


def test_a_stream_is_cut_in_the_middle(cluster: Cluster, api: Api) -> None:
    labels = {"task": "cut"}
    cluster.faults.order(
        RequestFault("get", "pods/log", Cut(after_lines=1), labels),
        RequestFault("watch", "events", Cut(after_lines=1)),
    )
    api.create_namespaced_pod(SPACE, pod("cut", "print('one'); print('two')"))
    ended(api, "cut")
    stream = api.read_namespaced_pod_log("cut", SPACE, follow=True, _preload_content=False)
    read = []
    with pytest.raises(urllib3.exceptions.ProtocolError):
        read.extend(stream.stream(amt=None))
    assert b"".join(read) in (b"one\n", b"")
    assert log(api, "cut", follow=True) == "one\ntwo\n"
    chosen = {"namespace": SPACE, "field_selector": "involvedObject.name=cut", "timeout_seconds": 1}
    with pytest.raises(urllib3.exceptions.ProtocolError):
        list(watch.Watch().stream(api.list_namespaced_event, **chosen))
    assert len(list(watch.Watch().stream(api.list_namespaced_event, **chosen))) == 2


def test_a_slow_image_and_a_slow_answer_come_in_the_end(cluster: Cluster, api: Api) -> None:
    labels, there = {"task": "slow-image"}, threading.Event()
    pulled = PodFault(PodTrouble.SLOW_PULL, labels)
    cluster.faults.order(pulled, RequestFault("create", "pods", Held(there), labels))
    posting = threading.Thread(target=api.create_namespaced_pod, args=(SPACE, pod("slow-image")))
    posting.start()
    status = until(api, "slow-image", lambda status: status.container_statuses)
    assert status.container_statuses[0].state.waiting.reason == "ContainerCreating"
    assert posting.is_alive()
    there.set()
    pulled.until.set()
    assert ended(api, "slow-image").phase == "Succeeded"
    posting.join(240)
