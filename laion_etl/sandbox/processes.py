"""Starts confined processes; waiting for them is left to their parents, which use trio or poll."""

import subprocess
from collections.abc import Sequence

from laion_etl.core.errors import OutageError
from laion_etl.sandbox.error_output import error_pipe, error_pipe_variable
from laion_etl.sandbox.limits import confined_environment

TRIES = 2  # a process may be killed for another reason; if two die, the image or page is at fault
STARTS = 3  # in a row that may fail: no image or page is at fault, the machine is
START_LIMIT_S = 120.0  # a busy machine may take long to import numpy and Pillow


def start_confined(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Starts a process, with pipes to its input and from its output, that is to call `confine`.

    It has a process group of its own: Ctrl-C and signals to the group of this process, which may finish its
    work first, would end it in the middle of an image, and the image would count as damaged.
    """
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=confined_environment() | error_pipe_variable(),
        pass_fds=[error_pipe()],
        bufsize=0,
        process_group=0,
    )


def cannot_start(work: str) -> OutageError:
    """Returns the error for STARTS processes in a row of which none got ready."""
    return OutageError(
        f"cannot start a process that {work}: {STARTS} ended early or took over {START_LIMIT_S:.0f} s; see "
        "their output above, and check the memory of this machine"
    )
