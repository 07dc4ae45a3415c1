"""`@stage`: a task that runs one `laion-etl` command, in its own process, in another Python or in a pod.

    @stage(execution_timeout=timedelta(hours=2))
    def load(crawl: str, number: int) -> Stage[dict[str, int]]:
        result = yield ["load", "--crawl", crawl, "--partition", str(number)]
        return counts(result)

The function yields the command's arguments, receives the JSON object of the command's last line, and returns
the task's value. While a pod runs the task is deferred. On resume the function runs again from the top, so
code before the `yield` must only build the command.
"""

import inspect
from collections.abc import Callable, Generator, MutableMapping, Sequence
from typing import Any, TypeVar

from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory
from airflow.sdk.exceptions import AirflowFailException

from laion_etl.airflow.alerts import COMMAND
from laion_etl.airflow.commands import Command, run_here, run_in_venv
from laion_etl.airflow.tasks import check_conf, run_settings
from laion_etl.core.errors import SettingsError
from laion_etl.settings import load_settings

Returned = TypeVar("Returned")
Stage = Generator[Sequence[str], dict[str, Any], Returned]

RUNNERS = ("local", "venv", "kubernetes")
# Saves new crawls in a file that Airflow's components read, so it runs on their machine.
_LOCAL_STAGES = ("crawls",)


class StageOperator(DecoratedOperator):
    """The operator of `@stage`; `execute` chooses the runner, so that each run can select its own."""

    custom_operator_name = "@stage"
    _pod: Any = None

    def execute(self, context: Any) -> Any:
        """Runs the command and returns the function's value for its result; a pod defers the task."""
        work = self.python_callable(*self.op_args, **self.op_kwargs)
        try:
            command = self._command(next(work), context)
        except StopIteration as nothing_to_run:
            return nothing_to_run.value
        match runner_of(command):
            case "local":
                return _sent(work, run_here(command))
            case "venv":
                return _sent(work, run_in_venv(command))
        self._pod = self._new_pod(command)
        return _sent(work, self._pod.run(context))

    def trigger_reentry(self, context: Any, event: dict[str, Any]) -> Any:
        """Resumes when the pod has finished or the triggerer gave up on it."""
        work = self.python_callable(*self.op_args, **self.op_kwargs)
        self._pod = self._new_pod(self._command(next(work), context))
        return _sent(work, self._pod.go_on(context, event))

    def on_kill(self) -> None:
        """Kills the pod of a killed task; other runners handle SIGTERM themselves."""
        if self._pod is not None:
            self._pod.on_kill()

    def _command(self, arguments: Sequence[str], context: MutableMapping[str, Any]) -> Command:
        check_conf(context)
        command = Command(arguments, context, run_settings(context))
        context[COMMAND] = command.by_hand
        return command

    def _new_pod(self, command: Command) -> Any:
        from laion_etl.airflow.pods import stage_pod  # takes seconds to import: only where pods are used

        return stage_pod(command, self.execution_timeout)


def stage(**of_the_task: Any) -> Any:
    """Turns a function that yields a command into a task."""

    def made(function: Callable[..., Stage[Any]]) -> Any:
        # Airflow reads it several times for each of 150 crawls: an eighth of the parsing time.
        function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        # A mapped task would not show its function's docstring.
        documented = {"doc_md": inspect.getdoc(function), **of_the_task}
        return task_decorator_factory(function, decorated_operator_class=StageOperator, **documented)

    return made


def runner_of(command: Command) -> str:
    """local, venv or kubernetes: the runner of the run, else LAION_ETL_RUNNER."""
    try:
        runner = command.settings.get("LAION_ETL_RUNNER") or load_settings().core.runner
    except SettingsError as error:
        raise AirflowFailException(str(error)) from error
    if runner not in RUNNERS:
        raise AirflowFailException(
            f"invalid LAION_ETL_RUNNER {runner!r}; expected one of {', '.join(RUNNERS)}"
        )
    return "local" if command.stage in _LOCAL_STAGES else runner


def counts(result: dict[str, Any]) -> dict[str, int]:
    """The part of a stage's result that Airflow keeps."""
    return {name: result[name] for name in ("input", "kept")}


def _sent(work: Stage[Returned], result: dict[str, Any]) -> Returned:
    """The function's return value for the result of its command."""
    try:
        work.send(result)
    except StopIteration as end:
        return end.value
    raise RuntimeError("a stage must yield exactly one command")
