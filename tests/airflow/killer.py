"""Kills a stage of a run in the middle of its work."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import psutil

from tests.airflow.started import StartedAirflow, until


class Victim(Enum):
    """The processes that get SIGKILL."""

    COMMAND = "the stage's command, in its process group"
    TASK = "Airflow's task alone: its command keeps running, alongside that of the next try"
    BOTH = "the task with its command"


@dataclass(frozen=True, slots=True)
class Kill:
    """An order to kill a stage as soon as its work has visibly begun."""

    stage: str
    victim: Victim
    begun: Callable[[], bool]


def kill(order: Kill, airflow: StartedAirflow) -> None:
    """Waits for the stage to begin, then kills; the test fails when the command has ended by then."""
    command = until(lambda: _command(airflow, order.stage), f"a command {order.stage}")
    task = command.parent()
    until(lambda: order.begun() or not command.is_running(), f"{order.stage} to begin", every_s=0.02)
    victims = {
        Victim.COMMAND: [command],
        Victim.TASK: [task],
        Victim.BOTH: [task, command],
    }[order.victim]
    assert all(_alive(victim) for victim in victims), f"{order.stage} was too fast to be killed"
    for victim in victims:
        victim.kill()


def _command(airflow: StartedAirflow, stage: str) -> psutil.Process | None:
    for process in airflow.task_processes():
        try:
            if process.cmdline()[3:5] == [
                "stage",
                stage,
            ]:  # after the interpreter, its options and the program
                return process
        except psutil.Error:
            continue  # it has ended
    return None


def _alive(process: psutil.Process | None) -> bool:
    return process is not None and process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def there(folder: Path, pattern: str) -> Callable[[], bool]:
    """Whether a file of this pattern exists, including unfinished ones."""
    return lambda: any(folder.glob(pattern))
