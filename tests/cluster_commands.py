"""Command lines of kubectl and helm: flags by their references, names by the manifests of docker/kubernetes.

The parsers know the flags that the pages use, as `kubectl COMMAND --help` and https://helm.sh/docs/helm/
describe them. For a flag that they refuse, look there first, then add it.
"""

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import yaml

from laion_etl.settings.checks import STAGES
from tests.kubernetes.answers import ApiError
from tests.kubernetes.rules import check_pod
from tests.kubernetes.schema import check_types

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docker" / "kubernetes"
# What the chart makes for a release of this name, with values.yaml; a Service has ports.
RELEASE = "airflow"
_CHART: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("deployment", f"{RELEASE}-api-server"): (),
    ("deployment", f"{RELEASE}-dag-processor"): (),
    ("deployment", f"{RELEASE}-scheduler"): (),
    ("deployment", f"{RELEASE}-triggerer"): (),
    ("service", f"{RELEASE}-api-server"): ("8080",),
    ("service", f"{RELEASE}-statsd"): ("9125", "9102"),
}
_NOT_GIVEN: Mapping[str, Any] = {
    **dict.fromkeys(("namespace", "kustomize", "selector", "label_columns", "overrides", "image"), ""),
    **dict.fromkeys(("filename", "resource"), ()),
}
# By Airflow, and by laion_etl/airflow/keda.py.
_MADE_BY_US = {"pod", "scaledobject"}
_KINDS = {"deploy": "deployment", "svc": "service", "po": "pod"}
# Of the pods that laion_etl/airflow/pod_spec.py makes.
_LABELS = {"crawl", "stage", "run", "partition", "worker"}
_CHART_VERSION = re.compile(r"apache-airflow/airflow --version (\S+)")


class WrongCommandError(Exception):
    """A command that kubectl or helm would refuse, or that names what is not there."""


class _Parser(argparse.ArgumentParser):
    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more, allow_abbrev=False, add_help=False)

    def error(self, message: str) -> NoReturn:
        raise WrongCommandError(message)


def check_kubectl(arguments: Sequence[str], complete: bool = True) -> tuple[str, ...]:
    """Return the command for a container, if there is one. Raises WrongCommandError."""
    words = list(arguments)
    if not words and not complete:
        return ()
    end = words.index("--") if "--" in words else len(words)
    if not complete and len(words) == 1:
        words.append("-f-" if words[0] in ("apply", "delete") else "pod")
        end += 1
    given = _kubectl().parse_args(words[:end], argparse.Namespace(**_NOT_GIVEN))
    for name in given.filename:
        _check_file(name)
    if words[0] == "kustomize":
        given.kustomize, given.resource = given.resource[0], []
    if given.kustomize and not (ROOT / given.kustomize / "kustomization.yaml").is_file():
        raise WrongCommandError(f"there is no kustomization in {given.kustomize}")
    if complete and not given.filename and not given.kustomize and given.namespace not in _namespaces():
        raise WrongCommandError(f"the namespace {given.namespace} is not in the manifests; use -n")
    _check_labels(given)
    for name in given.resource[:1]:
        _check_resource(name, given)
    if given.overrides:
        return _check_pod(given)
    return tuple(words[end + 1 :])


def check_helm(arguments: Sequence[str], complete: bool = True) -> None:
    """Raises WrongCommandError."""
    if not complete and len(arguments) == 1:
        if arguments[0] not in _HELM:
            raise WrongCommandError(f"helm has no {arguments[0]}")
        return
    given = _helm().parse_args(arguments)
    if given.command == "repo":
        return
    if given.release != RELEASE or given.namespace not in _namespaces():
        raise WrongCommandError(f"the manifests expect the release {RELEASE} in a namespace of theirs")
    for name in given.values:
        _check_file(name)
    for assignment in given.set:
        _check_value(assignment.partition("=")[0])
    if given.version and [given.version] != _CHART_VERSION.findall((FOLDER / "values.yaml").read_text()):
        raise WrongCommandError(f"values.yaml is not for version {given.version}")


@cache
def _kubectl() -> _Parser:
    everywhere = _Parser()
    everywhere.add_argument("-n", "--namespace", default=argparse.SUPPRESS)
    parser = _Parser(prog="kubectl", parents=[everywhere])
    commands = parser.add_subparsers(required=True)

    def command(name: str, values: str = "", switches: str = "", words: str | int = 0) -> None:
        made = commands.add_parser(name, parents=[everywhere])
        for flag in values.split():
            made.add_argument(*flag.split("/"), default=argparse.SUPPRESS)
        for flag in switches.split():
            made.add_argument(*flag.split("/"), action="store_true")
        if words:
            made.add_argument("resource", nargs=words)
        if name in ("apply", "delete"):
            made.add_argument("-f", "--filename", action="append", default=argparse.SUPPRESS)

    command("apply", "-k/--kustomize", "--server-side")
    command("delete", "-k/--kustomize -l/--selector", words="*")
    command("describe", "-l/--selector", words="+")
    command("exec", "-c/--container", "-i/--stdin -t/--tty", words=1)
    command("get", "-l/--selector -L/--label-columns -o/--output", "-w/--watch", words="+")
    command("kustomize", words=1)
    command("logs", "-c/--container -l/--selector", "-f/--follow -p/--previous", words="*")
    command("port-forward", "--address", words=2)
    command("run", "--image --overrides --restart", "--attach --rm -i/--stdin -t/--tty", words=1)
    return parser


_HELM = ("repo", "template", "uninstall", "upgrade")


@cache
def _helm() -> _Parser:
    parser = _Parser(prog="helm")
    commands = parser.add_subparsers(dest="command", required=True)
    repository = commands.add_parser("repo").add_subparsers(required=True).add_parser("add")
    repository.add_argument("name")
    repository.add_argument("url")
    for name in _HELM[1:]:
        made = commands.add_parser(name)
        made.set_defaults(values=[], set=[], version="")
        made.add_argument("release")
        made.add_argument("-n", "--namespace", default="")
        if name != "uninstall":
            made.add_argument("chart", choices=["apache-airflow/airflow"])
            made.add_argument("--version")
            made.add_argument("-f", "--values", action="append")
            made.add_argument("--set", action="append")
    upgrade = commands.choices["upgrade"]
    upgrade.add_argument("-i", "--install", action="store_true")
    return parser


def _check_file(name: str) -> None:
    """A file of the repository, stdin, or a copy of an example."""
    example = FOLDER / f"{Path(name).stem}.example.yaml"
    if name != "-" and not (ROOT / name).is_file() and not example.is_file():
        raise WrongCommandError(f"there is no {name}")


def _check_value(path: str) -> None:
    found: Any = yaml.safe_load((FOLDER / "values.yaml").read_text())
    for part in path.split("."):
        if not isinstance(found, dict) or part not in found:
            raise WrongCommandError(f"values.yaml has no {path}")
        found = found[part]


def _check_labels(given: argparse.Namespace) -> None:
    pairs = [pair.partition("=") for pair in given.selector.split(",") if pair]
    names = {name for name, _, _ in pairs} | {name for name in given.label_columns.split(",") if name}
    if unknown := names - _LABELS:
        raise WrongCommandError(f"pods have no label {', '.join(sorted(unknown))}")
    if unknown := {value for name, _, value in pairs if name == "stage"} - set(STAGES):
        raise WrongCommandError(f"there is no stage {', '.join(unknown)}")


def _check_resource(resource: str, given: argparse.Namespace) -> None:
    kind, slash, name = resource.partition("/")
    kind = _KINDS.get(kind, kind).removesuffix("s")
    if not slash:
        known = {one for one, _ in _objects("")} | _MADE_BY_US
        kinds = {_KINDS.get(one, one).removesuffix("s") for one in resource.split(",")}
        if unknown := kinds - known if not given.image else set():
            raise WrongCommandError(f"no manifest has a {', '.join(sorted(unknown))}")
        return
    objects = _objects(given.namespace)
    if (kind, name) not in objects:
        raise WrongCommandError(f"there is no {kind} {name} in the namespace {given.namespace or 'default'}")
    ports = [word.rpartition(":")[2] for word in given.resource[1:]]
    if unknown := set(ports) - set(objects[kind, name]):
        raise WrongCommandError(f"{resource} has no port {', '.join(unknown)}")


def _check_pod(given: argparse.Namespace) -> tuple[str, ...]:
    """Checks it as the API server does, and what it refers to; returns its command."""
    spec = json.loads(given.overrides)["spec"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": given.resource[0]}, "spec": spec}
    try:
        check_types(pod, "V1Pod")
        check_pod(pod)
    except ApiError as error:
        raise WrongCommandError(error.message) from error
    [container] = spec["containers"]
    objects = _objects(given.namespace)
    named = [("serviceaccount", spec["serviceAccountName"])]
    named += [("secret", source["secretRef"]["name"]) for source in container["envFrom"]]
    for kind, name in named:
        if (kind, name) not in objects:
            raise WrongCommandError(f"there is no {kind} {name} in the namespace {given.namespace}")
    if container["image"] != given.image:
        raise WrongCommandError(f"{given.image} is not {container['image']}")
    return ("laion-etl", *container["args"])


def _namespaces() -> set[str]:
    return {name for kind, name in _objects("") if kind == "namespace"}


@cache
def _objects(namespace: str) -> Mapping[tuple[str, str], tuple[str, ...]]:
    """Kind, name and ports of what is in a namespace; of all objects, if it is empty."""
    found = dict(_CHART) if namespace in ("", "airflow") else {}
    for one in _manifests():
        if namespace in ("", one["metadata"].get("namespace")):
            found[one["kind"].lower(), one["metadata"]["name"]] = ()
    return found


def _manifests() -> Iterator[dict[str, Any]]:
    for path in sorted(FOLDER.glob("*.yaml")):
        if path.name not in ("values.yaml", "kustomization.yaml"):
            yield from yaml.safe_load_all(path.read_text())
