"""The seam between Airflow and the stages: a task runs one `laion-etl` command and returns its JSON.

A process of its own keeps torch and trio out of Airflow's workers, makes a task repeatable by hand from
its log, and is the one place to change when stages are to run elsewhere (a pod, another machine).
"""

import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, cast

from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowNotFoundException
from psycopg.conninfo import make_conninfo

from laion_alerts import COMMAND, lateness_watched
from laion_etl.errors import SettingsError
from laion_etl.settings import load_settings

USAGE_ERROR = 2  # exit code of laion-etl for wrong settings: trying again can't help
_CLEAN_END_S = 4.0  # Airflow kills a task five seconds after it asked it to end
_TAIL_LINES = 40
_PASSWORD = re.compile(r"(://[^:/@]*):[^@/]+@")
_SECRET = ("_PASSWORD", "_WEBHOOK")
_MASK = r"\1:***@"
_LIBPQ_EXTRAS = ("sslmode", "sslrootcert", "sslcert", "sslkey", "options", "target_session_attrs")

_log = logging.getLogger("laion_etl.stage")


def run_stage(arguments: Sequence[str]) -> dict[str, Any]:
    """Runs `laion-etl <arguments> --json`, its output streamed into the task log; returns its JSON object.

    SIGTERM, timeouts and other interruptions end the command cleanly before they end the task. Raises
    AirflowFailException (no retry) on a usage error, AirflowException with the last error line otherwise.
    """
    command = [sys.executable, "-m", "laion_etl", *arguments, "--json"]
    context = _context()
    context[COMMAND] = shlex.join(["laion-etl", *arguments])
    _log.info("settings: %s", _settings())
    _log.info("command: %s", shlex.join(command))
    with (
        lateness_watched(arguments[0], context),
        _started(command) as process,
        _forwarded_sigterm(process),
    ):
        printed, complained = _stream(process)
        code = process.wait()
    if code == 0:
        return _result(printed)
    error = next((line for line in reversed(complained) if line.strip()), "no error line")
    message = f"laion-etl {arguments[0]} ended with exit code {code}: {error.removeprefix('error: ')}"
    if code == USAGE_ERROR:
        raise AirflowFailException(message)
    raise AirflowException(message)


def _context() -> MutableMapping[str, Any]:
    """The context of the task; outside of Airflow's tasks an empty one."""
    try:
        return cast("MutableMapping[str, Any]", get_current_context())
    except RuntimeError:
        return {}


def _settings() -> str:
    """The LAION_ETL_* of this task as a shell would take them, without secrets."""
    named = sorted(item for item in os.environ.items() if item[0].startswith("LAION_ETL_"))
    shown = {
        name: "***" if name.endswith(_SECRET) and value else _PASSWORD.sub(_MASK, value)
        for name, value in named
    }
    return " ".join(f"{name}={shlex.quote(value)}" for name, value in shown.items())


def _database() -> dict[str, str]:
    """The database of the Airflow connection that the settings name, for the command's environment."""
    try:
        conn_id = load_settings().database.conn_id
        if not conn_id:
            return {}
        from airflow.providers.postgres.hooks.postgres import PostgresHook

        connection = PostgresHook.get_connection(conn_id)
    except (SettingsError, AirflowNotFoundException) as error:
        raise AirflowFailException(str(error)) from error
    parts = {
        "host": connection.host,
        "port": connection.port,
        "user": connection.login,
        "password": connection.password,
        "dbname": connection.schema,
        **{name: value for name, value in connection.extra_dejson.items() if name in _LIBPQ_EXTRAS},
    }
    return {"LAION_ETL_DATABASE_URL": make_conninfo(**{k: v for k, v in parts.items() if v})}


@contextmanager
def _started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """The command in its own process group, which is gone when the block ends, whatever ends it."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"} | _database()
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        process_group=0,
    )
    try:
        yield process
    finally:
        _end(process)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_CLEAN_END_S)
        except subprocess.TimeoutExpired:
            _log.warning("the command did not end within %g s and is killed", _CLEAN_END_S)
    _kill_group(process)  # also what it may have left behind
    process.wait()


def _kill_group(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):  # the group is empty: the normal case
        os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _forwarded_sigterm(process: subprocess.Popen[str]) -> Iterator[None]:
    """SIGTERM goes to the command; its exit code 130 then ends the task."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only
        return

    def forward(number: int, _: FrameType | None) -> None:
        _log.warning("asked to end (signal %d): the command is told, and waited for", number)
        process.terminate()
        if too_late.ident is None:  # not started yet
            too_late.start()

    # A command that outlives its task would work against the task's next try.
    too_late = threading.Timer(_CLEAN_END_S, _kill_group, [process])
    too_late.daemon = True
    previous = signal.signal(signal.SIGTERM, forward)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        too_late.cancel()


def _stream(process: subprocess.Popen[str]) -> tuple[deque[str], deque[str]]:
    """Logs both streams line by line until the command ends; returns the last lines of stdout and stderr."""
    printed: deque[str] = deque(maxlen=_TAIL_LINES)
    complained: deque[str] = deque(maxlen=_TAIL_LINES)
    readers = [
        threading.Thread(target=_follow, args=(process.stdout, printed, _log.info), daemon=True),
        threading.Thread(target=_follow, args=(process.stderr, complained, _log.warning), daemon=True),
    ]
    for reader in readers:
        reader.start()
    process.wait()
    _end(process)  # what it left behind would hold the streams open for ever
    for reader in readers:
        reader.join()
    return printed, complained


def _follow(lines: Iterable[str] | None, tail: deque[str], log: Callable[[str, str], None]) -> None:
    for line in lines or ():
        tail.append(line.rstrip())
        log("%s", tail[-1])


def _result(printed: Sequence[str]) -> dict[str, Any]:
    try:
        result = json.loads(printed[-1])
    except (IndexError, ValueError) as error:
        raise AirflowException("the command ended well but its last line is no JSON object") from error
    if not isinstance(result, dict):
        raise AirflowException(f"the command's last line is no JSON object but {type(result).__name__}")
    return result
