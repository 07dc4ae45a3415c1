"""The resolver's configuration: by unbound's own check where it is installed, by rules everywhere."""

import re
import shutil
import subprocess
from collections import defaultdict
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import yaml

from laion_etl.settings import load_settings

FOLDER = Path(__file__).parents[2] / "docker" / "kubernetes"
CONFIG = FOLDER / "unbound.conf"
PORT = 5353


def options() -> dict[str, list[str]]:
    """Values by name, of all sections; a line that is neither a comment nor an option fails."""
    found = defaultdict(list)
    for line in CONFIG.read_text().splitlines():
        text = line.partition("#")[0].strip()
        if not text or text in ("server:", "remote-control:"):
            continue
        parsed = re.fullmatch(r"([a-z0-9-]+): (\S.*)", text)
        assert parsed is not None, line
        found[parsed[1]].append(parsed[2].strip('"'))
    return found


def manifests() -> dict[str, dict[str, object]]:
    return {one["kind"]: one for one in yaml.safe_load_all((FOLDER / "resolver.yaml").read_text())}


@pytest.mark.skipif(
    not shutil.which("unbound-checkconf"), reason="unbound is not installed (Debian: unbound)"
)
def test_unbound_takes_it() -> None:
    checked = subprocess.run(["unbound-checkconf", str(CONFIG)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_it_is_said_once_and_serves_workers_only() -> None:
    found = options()
    several = {"access-control", "private-address"}
    assert [name for name, values in found.items() if len(values) > 1 and name not in several] == []
    rules = dict(reversed(rule.split()) for rule in found["access-control"])
    assert rules.keys() == {"refuse", "allow"}
    allowed = [ip_network(rule.split()[0]) for rule in found["access-control"] if rule.endswith(" allow")]
    assert all(network.is_private or network == ip_network("100.64.0.0/10") for network in allowed)
    assert "0.0.0.0/0 refuse" in found["access-control"]
    assert found["control-enable"] == ["no"]


def test_no_answer_points_into_the_private_network() -> None:
    private = [ip_network(network) for network in options()["private-address"]]
    addresses = "10.1.2.3 127.0.0.1 168.63.129.16 169.254.169.254 172.31.0.1 192.168.0.1 fd00::1"
    for address in addresses.split():
        assert any(ip_address(address) in network for network in private), address


def test_it_runs_read_only_as_an_ordinary_user() -> None:
    found = options()
    for name in ("username", "chroot", "directory", "pidfile", "logfile"):
        assert found[name] == [""]
    assert (found["do-daemonize"], found["use-syslog"]) == (["no"], ["no"])
    assert int(found["port"][0]) == PORT > 1024


def test_service_policy_and_configuration_name_the_same_port() -> None:
    found = manifests()
    container = found["DaemonSet"]["spec"]["template"]["spec"]["containers"][0]  # type: ignore[index]
    assert {port["containerPort"] for port in container["ports"]} == {PORT}
    service = found["Service"]["spec"]
    assert {port["targetPort"] for port in service["ports"]} == {PORT}  # type: ignore[index]
    (rule,) = found["NetworkPolicy"]["spec"]["ingress"]  # type: ignore[index]
    assert {port["port"] for port in rule["ports"]} == {PORT}
    nameserver = f"{service['clusterIP']}:53"  # type: ignore[index]
    settings = load_settings({"LAION_ETL_DOWNLOAD_NAMESERVERS": nameserver})
    assert settings.download.nameservers == (nameserver,)


def test_a_pods_memory_holds_the_caches() -> None:
    found = options()
    caches = sum(int(found[f"{name}-cache-size"][0].removesuffix("m")) for name in ("msg", "rrset", "key"))
    container = manifests()["DaemonSet"]["spec"]["template"]["spec"]["containers"][0]  # type: ignore[index]
    assert container["resources"]["limits"]["memory"] == "1Gi"
    assert 2 * caches < 1024  # as unbound's documentation says: the real use is about twice as much
