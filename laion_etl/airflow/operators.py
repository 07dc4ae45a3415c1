"""`StageOperator`: a task that runs one `laion-etl` command, in a process, in another Python or in a pod.

    StageOperator(
        task_id="load",
        stage="load",
        arguments=["--crawl", "CC-MAIN-2024-38", "--partition", "7"],
        execution_timeout=timedelta(hours=2),
    )

The command prints a JSON object, its result; `on_result` makes the task's value of it. A mapped task
names what it works on in `unit`:

    StageOperator.partial(
        task_id="plan_range",
        stage="plan",
        arguments=["--crawl", "CC-MAIN-2024-38", "--range", "{{ task.unit }}"],
        unit_name=RANGE,
    ).expand(unit=["1/2", "2/2"])
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from airflow.sdk import BaseOperator, Context, RetryPolicy

from laion_etl.airflow.alerts import COMMAND, LABEL
from laion_etl.airflow.commands import Command, run_here, run_in_venv
from laion_etl.airflow.errors import RETRY_POLICY
from laion_etl.airflow.run_params import check_conf, run_settings
from laion_etl.core.errors import SettingsError
from laion_etl.settings import load_settings

if TYPE_CHECKING:
    from laion_etl.airflow.pods import StagePodOperator

Runner = Literal["local", "venv", "kubernetes"]
RUNNERS: tuple[Runner, ...] = get_args(Runner)
RANGE = "range"  # the `unit_name` of units I/N that count from 1
OnResult = Callable[[dict[str, Any], Context], Any]


def counts(result: Mapping[str, Any], _: Context) -> dict[str, int]:
    """Keep what Airflow needs of a stage's result: how many records went in, and how many were kept."""
    return {name: result[name] for name in ("input", "kept")}


class StageOperator(BaseOperator):
    """Run `laion-etl STAGE ARGUMENTS`; return `on_result(result, context)`.

    `arguments` are templates, and so is `unit`. Empty arguments are left out, so that an option may depend on
    a parameter: `"{{ '--wat-files=' ~ params.wat_files if params.wat_files }}"`. The UI and alerts show
    `unit_label` (worker 3, range 7 of 64) instead of the map index. `runner` is local, venv or kubernetes;
    by default the run's parameter of this name decides, then LAION_ETL_RUNNER. Failures in `RETRY_POLICY`
    are final.
    """

    template_fields: Sequence[str] = ("unit", "arguments")

    def __init__(  # noqa: PLR0913 - two are Airflow's, with defaults that suit a stage
        self,
        *,
        stage: str,
        arguments: Sequence[Any] = (),
        unit: Any = None,
        unit_name: str = "",
        on_result: OnResult = counts,
        runner: Runner | None = None,
        map_index_template: str | None = "{{ task.unit_label }}",
        retry_policy: RetryPolicy | None = RETRY_POLICY,
        **of_the_task: Any,
    ) -> None:
        super().__init__(
            map_index_template=map_index_template if unit_name else None,
            retry_policy=retry_policy,
            **of_the_task,
        )
        self.stage = stage
        self.arguments = arguments
        self.unit = unit
        self.unit_name = unit_name
        self.on_result = on_result
        self.runner = runner
        self._pod: StagePodOperator | None = None

    @property
    def unit_label(self) -> str:
        """What a mapped task works on, in words; empty for other tasks."""
        if not self.unit_name:
            return ""
        unit = str(self.unit)
        return f"{self.unit_name} {unit.replace('/', ' of ') if self.unit_name == RANGE else unit}"

    def execute(self, context: Context) -> Any:
        """Run the command and return the task's value; a pod defers the task."""
        command = self._command(context)
        match self.runner or runner_of(command):
            case "local":
                result = run_here(command)
            case "venv":
                result = run_in_venv(command)
            case _:
                result = self._new_pod(command).run(context)
        return self.on_result(result, context)

    def trigger_reentry(self, context: Context, event: dict[str, Any]) -> Any:
        """Resume when the pod has finished or the triggerer gave up on it."""
        result = self._new_pod(self._command(context)).resume(context, event)
        return self.on_result(result, context)

    def on_kill(self) -> None:
        """Kill the pod of a killed task; other runners handle SIGTERM themselves."""
        if self._pod is not None:
            self._pod.on_kill()

    def _command(self, context: Context) -> Command:
        check_conf(context)
        arguments = [text for argument in self.arguments if (text := str(argument))]
        command = Command([self.stage, *arguments], cast("Mapping[str, Any]", context), run_settings(context))
        for_callbacks = cast("MutableMapping[str, Any]", context)
        for_callbacks[LABEL] = self.unit_label
        for_callbacks[COMMAND] = command.by_hand
        return command

    def _new_pod(self, command: Command) -> "StagePodOperator":
        from laion_etl.airflow.pods import stage_pod  # takes seconds to import: only where pods are used

        self._pod = stage_pod(command, self.execution_timeout)
        return self._pod


def runner_of(command: Command) -> str:
    """Return local, venv or kubernetes: the runner of the run, else LAION_ETL_RUNNER."""
    runner = command.settings.get("LAION_ETL_RUNNER") or load_settings().core.runner
    if runner not in RUNNERS:
        raise SettingsError(f"invalid LAION_ETL_RUNNER {runner!r}; expected one of {', '.join(RUNNERS)}")
    return runner
