"""One preparer process from its parent's side: what is sent to it, and what is taken from it."""

import fcntl
import mmap
import os
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from laion_etl.core.errors import ModelError
from laion_etl.core.programs import python_module
from laion_etl.sandbox.error_output import error_pipe, error_pipe_variable
from laion_etl.sandbox.limits import confined_environment
from laion_etl.score.preprocess_worker import DONE, ENDINGS, FOLLOWS, IMAGES_BYTES, ITEM
from laion_etl.score.shared_tables import READY, UNREADABLE, WAITING, Plans, Tables, tables
from laion_etl.score.tokens import VOCABULARY

PROGRAM: Iterable[str] = python_module("laion_etl.score.preprocess_worker")
# No new mapping can write: a process that an image has taken over cannot change those that follow.
_SEALED = 0x10 | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW  # F_SEAL_FUTURE_WRITE of linux/fcntl.h
_MEMORY_MB = 2_048  # in addition to the shared memory
_TIME_LIMIT_S = 20.0  # for one sample
_START_LIMIT_S = 120.0
MAX_GROUP = 16  # eight cost this process 35 us of CPU a sample, sixteen 20

ImageFile = tuple[str, bytes]  # ending and bytes


@dataclass(frozen=True, slots=True)
class PreprocessInput:
    """Image and text of one sample. Without an image it counts as unreadable; an empty text has no tokens."""

    image: ImageFile | None
    text: str = ""
    tower: int = 0  # which of the plans' text towers the text is for

    @property
    def size(self) -> int:
        return len(self.image[1]) if self.image else 0


Group = list[tuple[int, PreprocessInput]]  # rows of a buffer


def started_preparer(plans: Plans) -> "Preparer":
    """Return a new preparer. Raises ModelError."""
    try:
        return Preparer(plans)
    except OSError as error:
        raise ModelError(
            f"cannot start a process that decodes images: {error}; free memory, or raise the limits of "
            "processes and open files"
        ) from error


class Preparer:
    """One worker process. The kernel ends it with the thread that started it (PR_SET_PDEATHSIG).

    It shares the tables of one group only, which are copied when the process says that it is done: one
    that was taken over by an image changes no sample of another group. That costs 27 us of CPU a sample.
    """

    def __init__(self, plans: Plans) -> None:
        self._socket, other = socket.socketpair()
        self._socket.settimeout(_START_LIMIT_S)
        size = MAX_GROUP * plans.bytes
        memory_mb = _MEMORY_MB + ((size + IMAGES_BYTES) >> 20)
        samples = os.memfd_create("laion-etl-samples")
        os.ftruncate(samples, size)
        self._shared = tables(mmap.mmap(samples, size), plans)
        images = os.memfd_create("laion-etl-images", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(images, IMAGES_BYTES)
        self._images = mmap.mmap(images, IMAGES_BYTES)
        with suppress(OSError):  # a kernel before 5.1
            fcntl.fcntl(images, fcntl.F_ADD_SEALS, _SEALED)
        try:
            with other, os.fdopen(images), os.fdopen(samples):  # they stay open in the process only
                self._process = subprocess.Popen(
                    [*PROGRAM, str(samples), str(images), str(memory_mb), plans.to_json()],
                    stdin=other.fileno(),
                    stdout=other.fileno(),
                    pass_fds=[samples, images, error_pipe()],
                    env=confined_environment() | error_pipe_variable(),
                    process_group=0,  # as in sandbox/processes.py
                )
        except OSError:
            self._close()
            raise
        if self._answer() != DONE:
            self.end()
            raise ModelError(
                "cannot start a process that decodes images: it exited early; see its output above"
            )
        self._socket.settimeout(_TIME_LIMIT_S)

    def ask(self, group: Group, found: Tables) -> bool:
        """Whether the process finished a group; the rows that it finished are copied to `found`.

        False when it died or exceeded the time limit for a sample.
        """
        states = self._shared.states
        states[: len(group)] = WAITING
        try:
            return self._finished(group)
        finally:
            for place, (row, _) in enumerate(group):
                _copy_row(self._shared, place, found, row)
            states[:] = UNREADABLE

    def _finished(self, group: Group) -> bool:
        try:
            self._socket.sendall(bytes([len(group)]) + b"".join(self._packed(group)))
        except OSError:
            return False
        before = len(group) + 1
        while (left := int((self._shared.states[: len(group)] == WAITING).sum())) < before:
            before = left
            if answer := self._answer():
                return answer == DONE
        return False

    def _answer(self) -> bytes | None:
        """The reply of the process: empty when it has ended, None on a timeout."""
        try:
            return self._socket.recv(1)
        except TimeoutError:
            return None
        except OSError:
            return b""

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        self._socket.close()
        self._images.close()

    def _packed(self, group: Group) -> Iterator[bytes]:
        """What is sent of a group. Images go into the shared memory as far as there is room."""
        used = 0
        for place_in_group, (_, sample) in enumerate(group):
            if sample.image is None:
                continue
            ending, data = sample.image
            text = sample.text.encode()
            fits = used + len(data) <= IMAGES_BYTES
            place = used if fits else FOLLOWS
            yield ITEM.pack(place_in_group, len(data), ENDINGS.index(ending), place, len(text), sample.tower)
            if fits:
                self._images[used : used + len(data)] = data
                used += len(data)
            else:
                yield data
            yield text


def _copy_row(source: Tables, place: int, target: Tables, row: int) -> None:
    """Copy a finished row. Its state is read once, and no token is larger than its model's table."""
    state = int(source.states[place])
    if state == READY:
        tokens = source.tokens[place].view(np.uint32)  # one below zero is past the table, too
        np.minimum(tokens, VOCABULARY - 1, out=target.tokens[row].view(np.uint32))
        for theirs, ours in zip(source.pixels, target.pixels, strict=True):
            ours[row] = theirs[place]
    if state in (READY, UNREADABLE):
        target.states[row] = state
