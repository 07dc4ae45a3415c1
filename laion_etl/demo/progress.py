"""The progress of a DAG run on a terminal: bars per stage on a tty, lines like `parse 3/6 done` elsewhere."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from laion_etl.core.errors import DemoError
from laion_etl.demo.airflow import AirflowApi, TaskInstance

STAGES = ("discover", "parse", "load", "plan", "download", "score", "publish")
_POLL_S = 1.5
_RUN_S = 1_800.0


@dataclass(frozen=True, slots=True)
class StageState:
    """Progress of a stage. `total` is 0 until Airflow has expanded its mapped tasks."""

    stage: str
    done: int
    failed: int
    retrying: int
    total: int

    def __str__(self) -> str:
        notes = [f"{self.failed} failed"] if self.failed else []
        notes += [f"{self.retrying} to be retried"] if self.retrying else []
        return f"{self.stage} {self.done}/{self.total} done" + (f" ({', '.join(notes)})" if notes else "")


Show = Callable[[Sequence[StageState]], None]


def follow(airflow: AirflowApi, dag_id: str, run_id: str, console: Console) -> str:
    """Shows a run until it ends; returns its state, success or failed. Raises DemoError on a timeout."""
    deadline = time.monotonic() + _RUN_S
    with _display(console) as show:
        while True:
            airflow.check()
            state = airflow.run_state(dag_id, run_id)
            show(stage_states(airflow.task_instances(dag_id, run_id)))
            if state in ("success", "failed"):
                return state
            if time.monotonic() > deadline:
                raise DemoError(f"run {run_id} of {dag_id} did not end within {_RUN_S:g} s")
            time.sleep(_POLL_S)


def stage_states(tasks: Sequence[TaskInstance]) -> list[StageState]:
    """The state of every stage, in order, including stages without tasks so far."""
    return [_stage_state(stage, [task for task in tasks if _stage(task) == stage]) for stage in STAGES]


def stage_seconds(tasks: Sequence[TaskInstance]) -> dict[str, float]:
    """From the first start to the last end of each stage's tasks; stages overlap."""
    found = {}
    for stage in STAGES:
        spans = [
            (task.started, task.ended)
            for task in tasks
            if _stage(task) == stage and task.started is not None and task.ended is not None
        ]
        if spans:
            first, last = min(start for start, _ in spans), max(end for _, end in spans)
            found[f"  {stage}"] = (last - first).total_seconds()
    return found


def _stage(task: TaskInstance) -> str:
    return task.task_id.rpartition(".")[2]


def _stage_state(stage: str, tasks: Sequence[TaskInstance]) -> StageState:
    states = Counter(task.state for task in tasks)
    return StageState(
        stage,
        done=states["success"],
        failed=states["failed"] + states["upstream_failed"],
        retrying=states["up_for_retry"],
        total=len(tasks),
    )


@contextmanager
def _display(console: Console) -> Iterator[Show]:
    if not console.is_terminal:
        yield _plain_lines(console)
        return
    columns = (TextColumn("{task.description:<40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bars = {stage: progress.add_task(stage, total=None, start=False) for stage in STAGES}

        def show(states: Sequence[StageState]) -> None:
            for state in states:
                bar, notes = bars[state.stage], str(state).partition(" (")[2].rstrip(")")
                if state.done + state.failed + state.retrying:
                    progress.start_task(bar)
                text = f"{state.stage}  {notes}" if notes else state.stage
                progress.update(bar, completed=state.done, total=state.total or None, description=text)

        yield show


def _plain_lines(console: Console) -> Show:
    shown: dict[str, str] = dict.fromkeys(STAGES, "")

    def show(states: Sequence[StageState]) -> None:
        for state in states:
            started = state.done + state.failed + state.retrying > 0
            if started and shown[state.stage] != str(state):
                shown[state.stage] = str(state)
                console.print(str(state), highlight=False)

    return show
