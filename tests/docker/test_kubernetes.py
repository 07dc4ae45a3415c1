"""The manifests by the types of the official client, and by rules; the chart's values by names."""

import ipaddress
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes.client
import pytest
import yaml
from kubernetes.client import models

from laion_etl.io.storage import s3_client
from laion_etl.settings import load_settings, names_of_stage, setting_fields
from laion_etl.settings.checks import STAGES
from tests.kubernetes.restricted import missing

FOLDER = Path(__file__).parents[2] / "docker" / "kubernetes"
VALUES = yaml.safe_load((FOLDER / "values.yaml").read_text())
NOT_MANIFESTS = {"values.yaml", "kustomization.yaml"}


def documents() -> list[tuple[str, dict[str, Any]]]:
    paths = [path for path in sorted(FOLDER.glob("*.yaml")) if path.name not in NOT_MANIFESTS]
    return [
        (f"{path.stem}/{document['kind']}/{document['metadata']['name']}", document)
        for path in paths
        for document in yaml.safe_load_all(path.read_text())
    ]


DOCUMENTS = documents()


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [document for _, document in DOCUMENTS if document["kind"] == kind]


@cache
def model(kind: str, version: str) -> Any:
    """The client's class of a kind; RBAC's subject is one of few whose name has the group in it."""
    prefix = version.rsplit("/", 1)[-1].capitalize()
    return getattr(models, f"{prefix}{kind}")


PRIMITIVES: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "bool": bool,
    "float": (int, float),
    "object": object,
}


def check(value: Any, kind: str, where: str) -> None:
    """`value` is what the OpenAPI type says: no unknown field, every required one, the right types."""
    if found := re.fullmatch(r"list\[(.*)\]", kind):
        assert isinstance(value, list), where
        for index, item in enumerate(value):
            check(item, found[1], f"{where}[{index}]")
    elif found := re.fullmatch(r"dict\(str, (.*)\)|dict\[str, (.*)\]", kind):
        assert isinstance(value, dict), where
        for key, item in value.items():
            assert isinstance(key, str), where
            check(item, found[1] or found[2], f"{where}.{key}")
    elif kind in PRIMITIVES:
        assert isinstance(value, PRIMITIVES[kind]), f"{where}: {value!r} is not of type {kind}"
        assert kind == "bool" or not isinstance(value, bool), f"{where}: {value!r}"
    else:
        check_model(value, getattr(kubernetes.client, kind), where)


def check_model(value: Any, kind: Any, where: str) -> None:
    assert isinstance(value, dict), where
    names = {written: name for name, written in kind.attribute_map.items()}
    for written, item in value.items():
        assert written in names, f"{where}: {kind.__name__} has no {written}"
        check(item, kind.openapi_types[names[written]], f"{where}.{written}")
    kind(**{names[written]: item for written, item in value.items()})  # raises for what is missing


@pytest.mark.parametrize(("name", "document"), DOCUMENTS, ids=[name for name, _ in DOCUMENTS])
def test_a_manifest_is_what_the_api_takes(name: str, document: dict[str, Any]) -> None:
    check_model(document, model(document["kind"], document["apiVersion"]), name)


def test_a_wrong_manifest_is_found() -> None:
    wrong = {"apiVersion": "v1", "kind": "Secret", "metadata": {"nam": "x"}}
    with pytest.raises(AssertionError, match="V1ObjectMeta has no nam"):
        check_model(wrong, models.V1Secret, "")
    with pytest.raises(AssertionError, match="is not of type int"):
        check({"port": [], "endPort": "5"}, "V1NetworkPolicyPort", "")


def test_kustomize_takes_all_but_what_has_to_be_edited_first() -> None:
    listed = set(yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"])
    there = {path.name for path in FOLDER.glob("*.yaml")}
    assert listed == there - NOT_MANIFESTS - {"secrets.example.yaml", "resolver.yaml"}


def test_the_page_says_how_many_objects_and_pods_there_will_be() -> None:
    page = " ".join((FOLDER.parents[1] / "docs" / "kubernetes.md").read_text().split())
    resources = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    applied = [name for name, _ in DOCUMENTS if f"{name.partition('/')[0]}.yaml" in resources]
    assert f"a line for each of {len(applied)} objects" in page
    assert f"each of {len(of_kind('Secret'))} Secrets" in page
    parts = ("apiServer", "scheduler", "triggerer", "dagProcessor", "statsd")
    assert sum(VALUES[part].get("replicas", 1) for part in parts) == 8
    assert "eight pods: two each of API server, scheduler and triggerer, one of the DAG processor" in page


def test_the_rule_for_a_bucket_deletes_parts_of_unfinished_uploads(s3_endpoint: str) -> None:
    rules = json.loads((FOLDER.parent / "bucket-lifecycle.json").read_text())
    client = s3_client()
    client.create_bucket(Bucket="rules")
    client.put_bucket_lifecycle_configuration(Bucket="rules", LifecycleConfiguration=rules)
    (rule,) = client.get_bucket_lifecycle_configuration(Bucket="rules")["Rules"]
    assert rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] >= 1
    assert (rule["Status"], rule["Filter"]) == ("Enabled", {"Prefix": ""})


def test_the_launcher_may_do_with_pods_what_it_does_and_nothing_else() -> None:
    (role,) = of_kind("Role")
    allowed = {
        (resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
    }
    pods = {("pods", verb) for verb in ("create", "get", "list", "watch", "patch", "delete")}
    assert allowed == pods | {("pods/log", "get"), ("events", "list"), ("events", "watch")}
    assert all(rule["apiGroups"] == [""] for rule in role["rules"])
    assert not of_kind("ClusterRole") + of_kind("ClusterRoleBinding")
    (binding,) = of_kind("RoleBinding")
    accounts = {VALUES[part]["serviceAccount"]["name"] for part in ("scheduler", "triggerer")}
    assert {subject["name"] for subject in binding["subjects"]} == accounts
    assert VALUES["allowPodLaunching"] is False


def policies_of(namespace: str) -> list[dict[str, Any]]:
    return [one for one in of_kind("NetworkPolicy") if one["metadata"]["namespace"] == namespace]


def reaches(address: str, port: int) -> bool:
    """Whether the policies let a pod of a stage go to an address outside of the cluster's selectors."""
    target = ipaddress.ip_address(address)
    for policy in policies_of("laion"):
        for rule in policy["spec"].get("egress", []):
            ports = {entry["port"] for entry in rule["ports"] if entry["protocol"] == "TCP"}
            blocks = [peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer]
            if port in ports and any(in_block(target, block) for block in blocks):
                return True
    return False


def in_block(target: Any, block: dict[str, Any]) -> bool:
    network = ipaddress.ip_network(block["cidr"])
    excepted = [ipaddress.ip_network(one) for one in block.get("except", [])]
    assert all(one.version == network.version and one.subnet_of(network) for one in excepted)  # type: ignore[arg-type]
    return target in network and not any(target in one for one in excepted)


FORBIDDEN = """
168.63.129.16 169.254.169.254 169.254.170.2 169.254.170.23 100.100.100.200 fd00:ec2::254 fe80::a9fe:a9fe
10.0.0.1 10.96.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 127.0.0.1 0.0.0.0 224.0.0.1
255.255.255.255
::1 :: fc00::1 64:ff9b::a9fe:a9fe ::ffff:169.254.169.254 2002:a9fe:a9fe:: 2001:0::1 2001:db8::1 ff02::1
"""


@pytest.mark.parametrize("address", FORBIDDEN.split())
def test_a_pod_reaches_nothing_private(address: str) -> None:
    assert not any(reaches(address, port) for port in (80, 443, 5432, 8080))


def test_a_pod_reaches_the_web_and_no_other_port_of_it() -> None:
    for address in ("93.184.215.14", "172.15.0.1", "172.32.0.1", "2606:2800:21f:cb07::1"):
        assert reaches(address, 80)
        assert reaches(address, 443)
        assert not any(reaches(address, port) for port in (22, 25, 5432, 6443, 8080))


def test_every_pod_of_the_namespace_is_under_the_policies_and_none_is_called() -> None:
    for policy in policies_of("laion"):
        assert policy["spec"]["podSelector"] == {}
        for rule in policy["spec"]["egress"]:
            assert rule["ports"]
            assert all(peer.get("podSelector") or "ipBlock" in peer for peer in rule["to"])
    web = next(policy for policy in policies_of("laion") if policy["metadata"]["name"] == "web-only")
    assert set(web["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    assert web["spec"]["ingress"] == []


def test_pods_get_no_token_and_their_namespace_takes_no_privileged_ones() -> None:
    assert all(account["automountServiceAccountToken"] is False for account in of_kind("ServiceAccount"))
    levels = {
        one["metadata"]["name"]: one["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for one in of_kind("Namespace")
    }
    assert levels["laion"] == levels["laion-resolver"] == "restricted"
    page = (FOLDER.parents[1] / "docs" / "kubernetes.md").read_text()
    by_hand = re.search(r"--overrides='(.+)'$", page, re.MULTILINE)
    assert by_hand
    pods = [document["spec"]["template"] for document in of_kind("DaemonSet")]
    for pod in [*pods, json.loads(by_hand[1])]:
        assert missing(pod["spec"]) == []


def environment() -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in VALUES["env"]}


def test_the_chart_gets_settings_that_exist_and_names_that_fit() -> None:
    ours = {k: v for k, v in environment().items() if k.startswith("LAION_ETL_")}
    settings = load_settings(ours)
    kubernetes_settings = settings.kubernetes
    accounts = {account["metadata"]["name"] for account in of_kind("ServiceAccount")}
    secrets = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): one["stringData"]
        for one in of_kind("Secret")
    }
    assert settings.core.runner == "kubernetes"
    for stage in STAGES:
        (account,) = names_of_stage(kubernetes_settings.service_account, stage)
        (secret,) = names_of_stage(kubernetes_settings.secrets, stage)
        assert account in accounts
        assert (kubernetes_settings.namespace, secret) in secrets
    for entry in VALUES["secret"]:
        assert entry["secretKey"] in secrets["airflow", entry["secretName"]]
    for key, name in (
        ("fernetKey", "fernet-key"),
        ("apiSecretKey", "api-secret-key"),
        ("jwtSecret", "jwt-secret"),
    ):
        holder = VALUES.get(f"{key}SecretName") or VALUES[f"{key}Name"]
        assert name in secrets["airflow", holder]
    assert {"connection", "connection-async"} <= secrets[
        "airflow", VALUES["data"]["metadataSecretName"]
    ].keys()
    (claim,) = of_kind("PersistentVolumeClaim")
    assert VALUES["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_stages_share_no_secret_and_none_has_the_owner_of_the_schema() -> None:
    kubernetes_settings = load_settings(environment()).kubernetes
    by_stage = {stage: names_of_stage(kubernetes_settings.secrets, stage) for stage in STAGES}
    listing = {"crawls", "discover", "estimate"}  # small tasks that look at Common Crawl and at stats
    shared = [names for stage, names in by_stage.items() if stage not in listing]
    assert len(set(shared)) == len(shared)
    assert not {by_stage[stage] for stage in listing} & set(shared)
    assert all("laion-owner" not in names for names in by_stage.values())
    logins = [
        found[1]
        for one in of_kind("Secret")
        if one["metadata"]["namespace"] == "laion"
        and (found := re.search(r"//(\w+):", one["stringData"].get("LAION_ETL_DATABASE_URL", "")))
    ]
    assert len(set(logins)) == len(logins)


def test_the_charts_policies_let_tasks_report_and_stages_send_metrics() -> None:
    """If they are enabled, an empty list in the chart admits no address."""
    assert VALUES["networkPolicies"]["enabled"]
    api = VALUES["apiServer"]["networkPolicy"]["ingress"]["from"]
    assert {"podSelector": {"matchLabels": {"tier": "airflow", "release": "airflow"}}} in api
    senders = {
        peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for peer in VALUES["statsd"]["extraNetworkPolicies"]
    }
    assert environment()["LAION_ETL_KUBERNETES_NAMESPACE"] in senders


def test_no_secret_is_written_down() -> None:
    secret = {field.variable for field in setting_fields() if field.secret}
    assert not secret & environment().keys()
    for document in of_kind("Secret"):
        for name, value in document["stringData"].items():
            assert "REPLACE" in value or name == "kubernetes", name


def test_every_part_of_airflow_has_requests_and_limits() -> None:
    for part in ("apiServer", "scheduler", "dagProcessor", "triggerer", "statsd", "migrateDatabaseJob"):
        resources = VALUES[part]["resources"]
        assert resources["requests"].keys() == resources["limits"].keys() == {"cpu", "memory"}
    context = VALUES["securityContexts"]
    assert context["pod"]["runAsNonRoot"] is True
    assert context["containers"]["allowPrivilegeEscalation"] is False
    assert VALUES["executor"] == "LocalExecutor"
