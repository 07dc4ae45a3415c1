"""The demo's Airflow: an environment, three processes and a REST API. Airflow is never imported here."""

import base64
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import urllib3

from laion_etl.core.errors import DemoError
from laion_etl.demo.hosts import loopback_hosts
from laion_etl.demo.login import Login

PARALLELISM = 4
# Only for a hang: a server that dies closes its connections, and a busy machine can take minutes instead of a
# second.
_REQUEST = urllib3.Timeout(connect=60, read=300)
_RETRIES = urllib3.Retry(3, backoff_factor=0.3)
_PAGE = 100
_POLL_S = 1.0

# Separate processes: `airflow standalone` would add a triggerer, which the demo does not need.
COMPONENTS = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
}


@dataclass(frozen=True, slots=True)
class TaskInstance:
    """One task of a run; `label` is what the UI shows for a mapped one. Times are None until known."""

    task_id: str
    map_index: int
    state: str | None
    try_number: int
    label: str | None
    started: datetime | None
    ended: datetime | None

    @property
    def name(self) -> str:
        """`partition.parse (partition 3)`."""
        return f"{self.task_id} ({self.label or self.map_index})" if self.map_index >= 0 else self.task_id


def environment(home: Path, database_url: str, port: int, sources: Path, login: Login) -> dict[str, str]:
    """AIRFLOW_* for a small Airflow on loopback with one user; `sources` holds dags/ and plugins/."""
    url = f"http://127.0.0.1:{port}"
    options = {
        "CORE__DAGS_FOLDER": sources / "dags",
        "CORE__PLUGINS_FOLDER": sources / "plugins",
        "CORE__LOAD_EXAMPLES": False,
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": PARALLELISM,
        # Else a process that finds no airflow.cfg makes a key of its own, which others do not have.
        "CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": False,
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": False,
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{login.user}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": login.file,
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "DATABASE__SQL_ALCHEMY_CONN": database_url,
        "API__HOST": "127.0.0.1",
        "API__PORT": port,
        "API__BASE_URL": url,
        "API__WORKERS": 1,
        "API__DEFAULT_WRAP": True,  # messages end with what to do, which would otherwise be off the screen
        "API__SECRET_KEY": secrets.token_hex(16),
        "API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": 600,  # a changed file is parsed at once all the same
        "DAG_PROCESSOR__REFRESH_INTERVAL": 5,
        "DAG_PROCESSOR__PARSING_PROCESSES": 1,
        "LAION_ETL__ALLOWED_HOSTS": ",".join(loopback_hosts(port)),
        "LOGGING__BASE_LOG_FOLDER": home / "logs",
        "LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": home / "logs" / "dag_processor",
        "USAGE_DATA_COLLECTION__ENABLED": False,
    }
    variables = {f"AIRFLOW__{name}": str(value) for name, value in options.items()}
    return {"AIRFLOW_HOME": str(home), **variables}


@contextmanager
def reserved_port() -> Iterator[int]:
    """An unused port of 127.0.0.1, which the system gives to no other program until the end of the block.

    A socket is bound to it and never listens. A server that sets SO_REUSEADDR, as uvicorn does, can: one that
    starts takes seconds until then.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


@dataclass(slots=True)
class AirflowApi:
    """The REST API. `check` is called while waiting and may raise, for example because a process died."""

    url: str
    login: Login
    check: Callable[[], None]
    _pool: urllib3.PoolManager = field(
        default_factory=lambda: urllib3.PoolManager(timeout=_REQUEST, retries=False)
    )
    _token: str = ""

    def wait_until_healthy(self, timeout_s: float) -> None:
        """Wait until scheduler, DAG processor and database are healthy, then log in; raises DemoError."""
        self._wait("cannot use Airflow: it is not healthy", timeout_s, self._healthy)
        user = {"username": self.login.user, "password": self.login.password}
        self._token = str(self.call("POST", "/auth/token", user)["access_token"])

    def page(self, dag_id: str) -> str:
        """The address of a DAG's page, for a browser."""
        return f"{self.url}/dags/{quote(dag_id)}"

    def wait_for_dag(self, dag_id: str, timeout_s: float) -> None:
        """Wait until the DAG processor has stored the DAG; raises DemoError, at once for broken files."""
        self._wait(
            f"cannot run {dag_id}: Airflow does not know this DAG", timeout_s, lambda: self._knows(dag_id)
        )

    def trigger(self, dag_id: str, partition_key: str | None, conf: Mapping[str, Any]) -> str:
        """Starts a run, of a partition if the DAG has partitions, and returns its id."""
        body = {"logical_date": None, "partition_key": partition_key, "conf": dict(conf)}
        return str(self.call("POST", f"/api/v2/dags/{quote(dag_id)}/dagRuns", body)["dag_run_id"])

    def run_state(self, dag_id: str, run_id: str) -> str:
        """queued, running, success or failed."""
        return str(self._get(_run_path(dag_id, run_id))["state"])

    def task_instances(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        """All tasks of a run; a mapped task is one entry with index -1 until it is expanded."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances?limit={_PAGE}"
        found: list[TaskInstance] = []
        while True:
            page = self._get(f"{path}&offset={len(found)}")
            found += [_task_instance(entry) for entry in page["task_instances"]]
            if len(found) >= page["total_entries"] or not page["task_instances"]:
                return found

    def asset_events(self) -> list[dict[str, Any]]:
        """The asset events of tasks, each with `name` and `extra`."""
        return list(self._get(f"/api/v2/assets/events?limit={_PAGE}")["asset_events"])

    def log_tail(self, dag_id: str, run_id: str, task: TaskInstance, lines: int) -> list[str]:
        """The last lines of a task's last try."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{quote(task.task_id)}/logs/{task.try_number}"
        content = self._get(f"{path}?map_index={task.map_index}&full_content=true")["content"]
        events = [entry if isinstance(entry, str) else str(entry.get("event", "")) for entry in content]
        return [event for event in events if not event.startswith("::")][-lines:]

    def _healthy(self) -> bool:
        try:
            health = self._request("GET", "/api/v2/monitor/health", retries=None).json()
        except (DemoError, ValueError):
            return False  # not up yet; `check` raises if it never will be
        return all(
            health.get(part, {}).get("status") == "healthy"
            for part in ("metadatabase", "scheduler", "dag_processor")
        )

    def _knows(self, dag_id: str) -> bool:
        if broken := self._get("/api/v2/importErrors")["import_errors"]:
            causes = "\n".join(entry["stack_trace"] for entry in broken)
            raise DemoError(f"Airflow cannot read the DAG files:\n{causes}".rstrip())
        return self._request("GET", f"/api/v2/dags/{quote(dag_id)}").status == 200

    def _wait(self, complaint: str, timeout_s: float, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise DemoError(f"{complaint} after {timeout_s:g} s")
            time.sleep(_POLL_S)

    def _get(self, path: str) -> Any:
        return self.call("GET", path)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON answer of the server; raises DemoError for a status of 400 and above."""
        response = self._request(method, path, body)
        if response.status >= 400:
            answer = response.data[:500].decode(errors="replace")
            raise DemoError(f"cannot {method} {path}: Airflow answered {response.status}: {answer}")
        return response.json()

    def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        retries: urllib3.Retry | None = _RETRIES,
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            return self._pool.request(
                method, self.url + path, headers=headers, json=body, retries=retries or False
            )
        except urllib3.exceptions.HTTPError as error:
            self.check()  # a process that died is the better explanation
            raise DemoError(
                f"Airflow's API at {self.url} does not answer {method} {path}: {error}"
            ) from error


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/api/v2/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}"


def _task_instance(entry: Mapping[str, Any]) -> TaskInstance:
    return TaskInstance(
        task_id=entry["task_id"],
        map_index=entry["map_index"],
        state=entry["state"],
        try_number=entry["try_number"],
        label=entry["rendered_map_index"],
        started=_time(entry["start_date"]),
        ended=_time(entry["end_date"]),
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
