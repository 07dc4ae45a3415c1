"""compose.yaml checked by rules, without a Docker engine."""

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from laion_etl.settings import load_settings

DOCKER = Path(__file__).parents[2] / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN_IMAGES = ("laion-etl-airflow", "laion-etl-resolver", "laion-etl-worker")
# One command each, or an image without any program to ask with.
WITHOUT_HEALTHCHECK = {"init", "worker", "otel-collector", "resolver"}

each_service = pytest.mark.parametrize("name", SERVICES)


@each_service
def test_a_service_is_pinned_confined_limited_and_watched(name: str) -> None:
    service = SERVICES[name]
    repository, _, tag = service["image"].rpartition(":")
    assert re.search(r"\d+\.\d+", tag), service["image"]
    assert repository.startswith(("docker.io/", *OWN_IMAGES))
    assert not service.keys() & {
        "privileged",
        "network_mode",
        "pid",
        "ipc",
        "cap_add",
        "devices",
        "container_name",
    }
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert service["restart"] in ("unless-stopped", "on-failure:5", "no")
    assert service["networks"]
    if name in WITHOUT_HEALTHCHECK:
        assert service["healthcheck"] == {"disable": True}
    else:
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


@each_service
def test_no_secret_is_written_down(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        if re.search("PASSWORD|SECRET|FERNET|ACCESS_KEY|CONN|DATABASE_URL", variable):
            left = re.sub(r"\$\{\w+(:\?[^}]*)?\}", "", value)
            secret = re.search(r"(://[^:/]+:)[^@]+@|\"password\": \"[^\"]+\"", left)
            assert secret is None, f"{variable}: {value}"
            if variable.endswith(("PASSWORD", "_KEY", "_SECRET")):
                assert not left, f"{variable}: {value}"


@each_service
def test_no_secret_is_an_argument_of_a_program(name: str) -> None:
    """Which every user of the machine can see; `printf` is a part of the shell."""
    for line in "\n".join(SERVICES[name].get("command", [])).splitlines():
        secrets = [match.start() for match in re.finditer(r"\$\{?\w*(PASSWORD|SECRET|KEY)", line)]
        assert all(line.startswith("printf ") and place < line.index("|") for place in secrets), line


@each_service
def test_ports_are_open_on_this_machine_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))
    assert not any("docker.sock" in volume for volume in SERVICES[name].get("volumes", []))


def test_a_worker_can_not_reach_what_airflow_knows() -> None:
    assert "metadata" not in SERVICES["worker"]["networks"]
    assert SERVICES["airflow-db"]["networks"] == ["metadata"]
    for network in ("metadata", "data", "metrics"):
        assert COMPOSE["networks"][network] == {"internal": True}


def test_downloads_ask_the_resolver() -> None:
    networks = SERVICES["resolver"]["networks"]
    address = networks["resolver"]["ipv4_address"]
    (subnet,) = COMPOSE["networks"]["resolver"]["ipam"]["config"]
    assert ip_address(address) in ip_network(subnet["subnet"])
    for name in ("scheduler", "worker"):  # which run downloads
        assert SERVICES[name]["environment"]["LAION_ETL_DOWNLOAD_NAMESERVERS"] == f"{address}:5353"
        assert "resolver" in SERVICES[name]["networks"]


def test_every_login_needs_a_password() -> None:
    environment = SERVICES["api-server"]["environment"]
    assert "FabAuthManager" in environment["AIRFLOW__CORE__AUTH_MANAGER"]
    assert not any(
        "ALL_ADMINS" in variable
        for service in SERVICES.values()
        for variable in service.get("environment", {})
    )


@each_service
def test_settings_of_ours_exist(name: str) -> None:
    ours = {k: v for k, v in SERVICES[name].get("environment", {}).items() if k.startswith("LAION_ETL_")}
    # What compose fills in: where it asks for a value, one that a person may give.
    load_settings({k: v if "$" not in v else "crawler" if ":?" in v else "" for k, v in ours.items()})


def test_every_variable_is_one_that_secrets_sh_writes() -> None:
    asked = set(re.findall(r"\$\{(\w+)", (DOCKER / "compose.yaml").read_text()))
    written = set(re.findall(r"^(\w+)=", (DOCKER / "secrets.sh").read_text(), re.MULTILINE))
    assert asked <= written


def test_everything_named_is_there() -> None:
    for service in SERVICES.values():
        assert set(service["networks"]) <= COMPOSE["networks"].keys()
        named = {v.split(":")[0] for v in service.get("volumes", [])}
        assert named <= COMPOSE["volumes"].keys()
        assert set(service.get("depends_on", {})) <= SERVICES.keys()
        if "build" in service:
            assert (DOCKER.parent / service["build"]["dockerfile"]).is_file()
    for config in COMPOSE["configs"].values():
        assert yaml.safe_load((DOCKER / config["file"]).read_text())
