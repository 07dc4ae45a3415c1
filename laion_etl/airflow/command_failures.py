"""Why a command failed: its exit code and last lines become the exception that alerts show."""

import shlex
import signal
from collections.abc import Sequence

from airflow.sdk.exceptions import AirflowException

from laion_etl.airflow.errors import FinalError
from laion_etl.core.commands import stage_command

_USAGE_ERROR = 2  # exit code of laion-etl for wrong settings: a retry cannot help
_BOX = ("╭", "╰")  # the first characters of the frame in which Typer prints a usage error


def failed_command(stage: str, code: int, lines: Sequence[str]) -> AirflowException:
    """The exception for a failed command: its last error line comes first, because it is the cause."""
    killed = code in (-signal.SIGKILL, 128 + signal.SIGKILL)  # of a process, of a container
    if killed:
        lines = ()  # its last lines are progress, not the cause
    error = _last_sentence(lines) or _unexplained(killed=killed)
    command = shlex.join(["laion-etl", *stage_command(stage)])
    message = f"{error.removeprefix('error: ')} ({command} ended with exit code {code})"
    return FinalError(message) if code == _USAGE_ERROR else AirflowException(message)


def _last_sentence(lines: Sequence[str]) -> str:
    """The last line that is not blank; of a usage error all that is in Typer's frame. '' if there is none."""
    written = [line.strip() for line in lines if line.strip()]
    if not written or not written[-1].startswith(_BOX):
        return written[-1] if written else ""
    top = max((number for number, line in enumerate(written[:-1]) if line.startswith(_BOX)), default=-1)
    return " ".join(line.strip("│ ") for line in written[top + 1 : -1])


def _unexplained(*, killed: bool) -> str:
    """The likely cause for a command that ended without a message."""
    if killed:
        return "the command was killed (SIGKILL), most often because the machine ran out of memory"
    return "the command ended without an error message; see the log above"
