"""Runs a `laion-etl` command in a separate process, with this Python or another one.

A separate process keeps torch and trio out of Airflow's workers, and its command can be repeated by hand from
the log. operators.py chooses between this and a pod (pods.py).
"""

import logging
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import PurePath
from types import FrameType
from typing import Any

from airflow.sdk.exceptions import AirflowException

from laion_etl.airflow.alerts import lateness_watched
from laion_etl.airflow.command_failures import failed_command
from laion_etl.airflow.connections import database, s3
from laion_etl.airflow.masked_settings import shown_settings
from laion_etl.airflow.restarts import RESUMABLE, LimitReachedError, Restarts, in_words
from laion_etl.core.commands import stage_command
from laion_etl.core.errors import SettingsError
from laion_etl.core.hidden_secrets import hide_secrets
from laion_etl.core.plain_json import parse_json
from laion_etl.core.programs import python_module
from laion_etl.settings import CoreSettings, load_settings, setting_fields

_CLEAN_END_S = 4.0  # Airflow kills a task five seconds after asking it to end
_TAIL_LINES = 40
# Lines of stderr that are not progress: of logging and warnings, tracebacks, and our own errors.
_COMPLAINT = re.compile(r"(WARNING|ERROR|CRITICAL|error:|warning:|Traceback )|.*(Warning|Error|Exception): ")
_OF_PYTHON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")  # would mislead another Python
# Airflow's keys, passwords, connections and variables, and the passwords of alerts. A command does without
# them, and reads what strangers wrote.
_OF_AIRFLOW = re.compile(r"AIRFLOW__|AIRFLOW_CONN_|AIRFLOW_VAR_|_AIRFLOW_")
_OF_ALERTS = {field.variable for field in setting_fields() if field.secret and field.group == "alerts"}

_log = logging.getLogger("laion_etl.stage")


@dataclass(frozen=True, slots=True)
class Command:
    """A `laion-etl` command of a task; the LAION_ETL_* of its run are added to those of Airflow."""

    arguments: Sequence[str]  # the stage, and its options
    context: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def stage(self) -> str:
        return self.arguments[0]

    @property
    def words(self) -> list[str]:
        """The arguments of laion-etl: the command of the stage, such as `stage parse`, and its options."""
        return [*stage_command(self.stage), *self.arguments[1:]]

    @property
    def by_hand(self) -> str:
        """The command line to repeat it by hand, in an environment with Airflow's own settings."""
        own = {name: value for name, value in self.settings.items() if name != "LAION_ETL_RUNNER"}
        return f"{shown_settings(own)} {shlex.join(['laion-etl', *self.words])}".lstrip()


def run_here(command: Command) -> dict[str, Any]:
    """Runs the command with Airflow's own Python; see `_run`."""
    return _run(python_module("laion_etl"), command, os.environ)


def run_in_venv(command: Command) -> dict[str, Any]:
    """Runs the command with the Python, or the laion-etl, of LAION_ETL_AIRFLOW_VENV."""
    venv = load_settings().airflow.venv
    if not venv:
        raise SettingsError(
            "cannot use runner venv: LAION_ETL_AIRFLOW_VENV is empty; set it to a python or laion-etl"
        )
    program = [venv, "-P", "-m", "laion_etl"] if PurePath(venv).name.startswith("python") else [venv]
    environment = {name: value for name, value in os.environ.items() if name not in _OF_PYTHON}
    return _run(program, command, environment)


def _run(program: Sequence[str], command: Command, environment: Mapping[str, str]) -> dict[str, Any]:
    """Runs a command, streams its output into the task log, and returns the JSON object that it prints.

    A command that ended early but can go on (an outage, or a SIGTERM that was not Airflow's) is started again
    after a wait. SIGTERM, timeouts and other interruptions of the task end the command cleanly before they
    end the task. Raises FinalError (no retry) on a usage error, AirflowException with the last error line
    otherwise.
    """
    line = [*program, *command.words, "--json"]
    task = command.context.get("ti")
    own = {"LAION_ETL_RUN_ID": run_id(task)} if task else {}
    environment = {**_needed(environment), **command.settings, **own, "PYTHONUNBUFFERED": "1"}
    _log.info("settings: %s", shown_settings(environment))
    _log.info("command: %s", hide_secrets(shlex.join(line)))
    restarts = Restarts()
    with lateness_watched(command.stage, command.context):
        while (ended := _once(line, environment)).code != 0:
            error = failed_command(command.stage, ended.code, ended.complained)
            if ended.asked_to_end or ended.code not in RESUMABLE:
                raise error
            again = "it is started again"
            core = load_settings().core
            restarts, delay_s = next_restart(restarts, time.monotonic(), str(error), again, core)
            time.sleep(delay_s)
    return _result(ended.printed)


def _needed(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without Airflow's own secrets."""
    return {
        name: value
        for name, value in environment.items()
        if not _OF_AIRFLOW.match(name) and name not in _OF_ALERTS
    }


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a command ended; `asked_to_end`: Airflow asked for it."""

    code: int
    asked_to_end: bool
    printed: Sequence[str]
    complained: Sequence[str]


def _once(line: Sequence[str], environment: Mapping[str, str]) -> _Ended:
    with (
        s3() as keys,
        _started(line, without_none({**environment, **database(), **keys})) as process,
        _forwarded_sigterm(process) as asked,
    ):
        printed, complained = _stream(process)
        return _Ended(process.wait(), asked.is_set(), printed, complained)


def next_restart(
    restarts: Restarts, now: float, why: str, what: str, settings: CoreSettings
) -> tuple[Restarts, float]:
    """Return the restarts with one more, `now`, and the seconds to wait before it; says so in the task's log.

    `what` happens then, such as "another pod is started". Raises AirflowException at the limit.
    """
    try:
        restarts = restarts.another(now, settings.task_restarts)
    except LimitReachedError as limit:
        raise AirflowException(f"{why}; {limit}") from limit
    delay_s = restarts.restart_delay_s(settings.task_restart_delay_s)
    _log.warning(
        "%s; %s in %s, without using up a retry (restart %d, at most %d in 24 hours)",
        why,
        what,
        in_words(delay_s),
        len(restarts.started_at),
        settings.task_restarts,
    )
    return restarts, delay_s


def without_none(environment: Mapping[str, str | None]) -> dict[str, str]:
    """An environment for a process: variables with the value None are removed."""
    return {name: value for name, value in environment.items() if value is not None}


def run_id(task: Any) -> str:
    """LAION_ETL_RUN_ID of a task: run, task and map index."""
    index = f"[{task.map_index}]" if task.map_index is not None and task.map_index >= 0 else ""
    return f"{task.run_id}/{task.task_id}{index}"


@contextmanager
def _started(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Starts the command in its own process group, which is killed when the block ends for any reason."""
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
    _kill_group(process)  # including processes it may have left behind
    process.wait()


def _kill_group(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):  # the group is empty: the normal case
        os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _forwarded_sigterm(process: subprocess.Popen[str]) -> Iterator[threading.Event]:
    """Forwards SIGTERM to the command; its exit code 130 then ends the task. Yields whether one came."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # only the main thread receives signals
        return

    def forward(number: int, _: FrameType | None) -> None:
        asked.set()
        _log.warning("asked to end (signal %d): forwarding it to the command and waiting for that", number)
        process.terminate()
        if too_late.ident is None:  # not started yet
            too_late.start()

    # A command that outlives its task would conflict with the task's next try.
    too_late = threading.Timer(_CLEAN_END_S, _kill_group, [process])
    too_late.daemon = True
    previous = signal.signal(signal.SIGTERM, forward)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, previous)
        too_late.cancel()


def _stream(process: subprocess.Popen[str]) -> tuple[deque[str], deque[str]]:
    """Logs both streams line by line until the command ends; returns the last lines of stdout and stderr."""
    printed: deque[str] = deque(maxlen=_TAIL_LINES)
    complained: deque[str] = deque(maxlen=_TAIL_LINES)
    readers = [
        threading.Thread(target=_follow, args=(process.stdout, printed), daemon=True),
        threading.Thread(target=_follow, args=(process.stderr, complained), daemon=True),
    ]
    for reader in readers:
        reader.start()
    process.wait()
    _end(process)  # processes it left behind would keep the streams open
    for reader in readers:
        reader.join()
    return printed, complained


def _follow(lines: Iterable[str] | None, tail: deque[str]) -> None:
    for line in lines or ():
        tail.append(line.rstrip())
        _log.log(logging.WARNING if _COMPLAINT.match(line) else logging.INFO, "%s", hide_secrets(tail[-1]))


def _result(printed: Sequence[str]) -> dict[str, Any]:
    try:
        result = parse_json(printed[-1])
    except (IndexError, ValueError) as error:
        raise AirflowException(
            "the command exited with 0, but its last output line is not a JSON object"
        ) from error
    if not isinstance(result, dict):
        raise AirflowException(
            f"the command's last output line is not a JSON object but {type(result).__name__}"
        )
    return result
