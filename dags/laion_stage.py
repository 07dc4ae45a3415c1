"""`@stage`: a task that runs one `laion-etl` command, beside Airflow, in another Python or in a pod.

    @stage(execution_timeout=timedelta(hours=2))
    def load(crawl: str, number: int) -> Stage[dict[str, int]]:
        result = yield ["load", "--crawl", crawl, "--partition", str(number)]
        return counts(result)

The function yields the command's arguments, gets the JSON object the command ended with, and returns what
the task returns. While a pod works nobody waits but the triggerer; when it is done the function runs once
more from its start, so what stands before the `yield` only puts the command together.
"""

import inspect
from collections.abc import Callable, Generator, MutableMapping, Sequence
from typing import Any, TypeVar

from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory
from airflow.sdk.exceptions import AirflowFailException

from laion_alerts import COMMAND
from laion_etl.errors import SettingsError
from laion_etl.settings import load_settings
from laion_runner import Command, run_here, run_in_venv
from laion_tasks import check_conf, run_settings

Returned = TypeVar("Returned")
Stage = Generator[Sequence[str], dict[str, Any], Returned]

RUNNERS = ("local", "venv", "kubernetes")
# It notes new crawls in a file that Airflow's parts read.
_BESIDE_AIRFLOW = ("crawls",)


class StageOperator(DecoratedOperator):
    """The operator behind `@stage`; its `execute` chooses the runner, so a run may have one of its own."""

    custom_operator_name = "@stage"
    _pod: Any = None

    def execute(self, context: Any) -> Any:
        """Runs the command and returns what the function makes of its result; a pod defers the task."""
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
        """The pod is done, or the triggerer gave it up."""
        work = self.python_callable(*self.op_args, **self.op_kwargs)
        self._pod = self._new_pod(self._command(next(work), context))
        return _sent(work, self._pod.go_on(context, event))

    def on_kill(self) -> None:
        """A killed task takes its pod along; other runners hear of SIGTERM themselves."""
        if self._pod is not None:
            self._pod.on_kill()

    def _command(self, arguments: Sequence[str], context: MutableMapping[str, Any]) -> Command:
        check_conf(context)
        command = Command(arguments, context, run_settings(context))
        context[COMMAND] = command.by_hand
        return command

    def _new_pod(self, command: Command) -> Any:
        from laion_pods import stage_pod  # seconds of imports, for those who have pods

        return stage_pod(command, self.execution_timeout)


def stage(**of_the_task: Any) -> Any:
    """Makes a task of a function that yields a command."""

    def made(function: Callable[..., Stage[Any]]) -> Any:
        # Airflow asks for it several times for each of 150 crawls: an eighth of what reading them takes.
        function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        # A mapped task would not show its function's docstring.
        documented = {"doc_md": inspect.getdoc(function), **of_the_task}
        return task_decorator_factory(function, decorated_operator_class=StageOperator, **documented)

    return made


def runner_of(command: Command) -> str:
    """local, venv or kubernetes: what the run asks for, else LAION_ETL_RUNNER."""
    try:
        runner = command.settings.get("LAION_ETL_RUNNER") or load_settings().core.runner
    except SettingsError as error:
        raise AirflowFailException(str(error)) from error
    if runner not in RUNNERS:
        raise AirflowFailException(f"LAION_ETL_RUNNER={runner!r} is none of {', '.join(RUNNERS)}")
    return "local" if command.stage in _BESIDE_AIRFLOW else runner


def counts(result: dict[str, Any]) -> dict[str, int]:
    """The part of a stage's result that is kept in Airflow."""
    return {name: result[name] for name in ("input", "kept")}


def _sent(work: Stage[Returned], result: dict[str, Any]) -> Returned:
    """What the function returns, given the result of its command."""
    try:
        work.send(result)
    except StopIteration as end:
        return end.value
    raise RuntimeError("a stage yields one command only")
