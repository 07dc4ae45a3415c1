"""The pool of decoder processes: an image that crashes a decoder, hangs or exhausts memory only fails itself.

Processes are forked when first needed, from one that is started for the batch, and reused. One that has not
finished its image when the caller leaves (time limit, cancellation, crash) is killed: the rest of a half-read
answer would be taken for the next one.
"""

import fcntl
import json
import re
import select
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType, UnionType
from typing import Any

import trio

from laion_etl.core.funnel import DownloadStatus
from laion_etl.core.host_resources import usable_cores
from laion_etl.core.plain_json import parse_json
from laion_etl.core.programs import python_module
from laion_etl.download.decoder_protocol import ANSWER, READY, REQUEST
from laion_etl.download.hashes import Digests
from laion_etl.download.images import ENCODINGS, ImageSettings, StoredImage
from laion_etl.sandbox.fork_server import MAX_END_S, ForkServer
from laion_etl.sandbox.limits import prepare_parent
from laion_etl.sandbox.processes import START_LIMIT_S, STARTS, TRIES, cannot_start
from laion_etl.settings import DownloadSettings

PROGRAM: Iterable[str] = python_module("laion_etl.download.decoder_process")
_ANSWER_BYTES = 1 << 17
_MAX_TEXT_BYTES, _MAX_DATA_BYTES = 1 << 16, 1 << 30  # of an answer
_PIPE_BYTES = 1 << 20  # an image in one write; Linux allows this much without privileges
_DIGEST = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}")
_PHASH, _PDQ = re.compile(r"[0-9a-f]{16}"), re.compile(r"[0-9a-f]{64}")
_MOST_PDQS = 8  # an image as it is, mirrored and turned
_MAX_QUALITY, _MAX_SIDE = 100, (1 << 31) - 1
_FIELDS: dict[str, type | UnionType] = {
    "format": str,
    **dict.fromkeys(("width", "height", "original_width", "original_height"), int),
    **dict.fromkeys(("phash", "pdq"), str | None),
    "pdq_quality": int | None,
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """The result of a decoder; `hashes` is None if the image killed it."""

    found: StoredImage | DownloadStatus
    hashes: Digests | None = None


class _DecoderDied(Exception):  # noqa: N818 - an outcome, not an error of the program
    """The process ended in the middle of an image, or its answer makes no sense."""


class _ServerEndedError(Exception):
    """The process ended because the one that it was forked from did, which is no fault of an image."""


class _Decoder:
    """One process and its pipes."""

    def __init__(self, server: ForkServer) -> None:
        self._server = server
        self._number, *pipes = server.fork()
        self._generation = server.generation
        for pipe in pipes:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._stdin, self._stdout = (trio.lowlevel.FdStream(pipe) for pipe in pipes)

    async def ready(self) -> bool:
        """Waits for the process to start, which is not part of the time of its first image."""
        with trio.move_on_after(START_LIMIT_S):
            return await self._stdout.receive_some(1) == READY
        return False

    async def decode(self, data: bytes) -> Decoded:
        try:
            await self._stdin.send_all(REQUEST.pack(len(data)) + data)
            text, stored = await self._answer()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise _DecoderDied from error
        try:
            return _decoded(parse_json(text), stored or data)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _DecoderDied from error  # an image may have taken it over

    async def _answer(self) -> tuple[bytes, bytes]:
        """Receive an answer, usually in one or two reads: a read costs as much as parsing the JSON."""
        received, length = bytearray(), ANSWER.size
        text_length = data_length = 0
        while len(received) < length:
            part = await self._stdout.receive_some(_ANSWER_BYTES)
            if not part:
                raise _DecoderDied
            received += part
            if length == ANSWER.size <= len(received):
                text_length, data_length = ANSWER.unpack_from(received)
                if text_length > _MAX_TEXT_BYTES or data_length > _MAX_DATA_BYTES:
                    raise _DecoderDied
                length += text_length + data_length
        end = ANSWER.size + text_length
        return bytes(received[ANSWER.size : end]), bytes(received[end:length])

    @property
    def server_has_ended(self) -> bool:
        """Whether the process that this one was forked from has ended."""
        return self._server.has_ended(self._generation)

    @property
    def is_alive(self) -> bool:
        """Whether an idle process still has its output open."""
        output = select.poll()
        output.register(self._stdout.fileno(), 0)
        return not output.poll(0)

    async def kill(self) -> None:
        """Ends the process, and waits for that: its memory is needed for the next one."""
        with trio.CancelScope(shield=True):
            self._server.kill(self._number)
            await trio.aclose_forcefully(self._stdin)
            has_ended = False
            with trio.move_on_after(MAX_END_S), suppress(trio.BrokenResourceError):
                while await self._stdout.receive_some(_ANSWER_BYTES):
                    pass
                has_ended = True
            await trio.aclose_forcefully(self._stdout)
            if not has_ended:  # the server hangs
                await trio.to_thread.run_sync(self._server.close)


def _decoded(header: dict[str, Any], data: bytes) -> Decoded:
    """Returns the result that an answer describes. Raises one of several errors if it describes none.

    What is not refused here goes into names of files, columns of a shard and searches of lists.
    """
    hashes = Digests(header.pop("sha256"), header.pop("md5"))
    original_pdqs = tuple(header.pop("original_pdqs", ()))
    if not all(
        isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in (hashes.sha256, hashes.md5)
    ):
        raise ValueError
    if "status" in header:
        if header["status"] == DownloadStatus.SUCCESS:  # which is not a reason
            raise ValueError
        return Decoded(DownloadStatus(header["status"]), hashes)
    wrong = [name for name, value in header.items() if not isinstance(value, _FIELDS[name])]
    if wrong:
        raise TypeError
    found = StoredImage(data=data, original_pdqs=original_pdqs, **header)
    if not _is_possible(found):
        raise ValueError
    return Decoded(found, hashes)


def _is_possible(found: StoredImage) -> bool:
    """Whether a decoder may describe an image so; an image may have taken it over."""
    sides = (found.width, found.height, found.original_width, found.original_height)
    pdqs = [*found.original_pdqs, *filter(None, (found.pdq,))]
    return (
        found.format in ENCODINGS
        and all(0 < side <= _MAX_SIDE for side in sides)
        and (found.pdq_quality is None or 0 <= found.pdq_quality <= _MAX_QUALITY)
        and (found.phash is None or _PHASH.fullmatch(found.phash) is not None)
        and len(found.original_pdqs) <= _MOST_PDQS
        and all(isinstance(pdq, str) and _PDQ.fullmatch(pdq) for pdq in pdqs)
    )


class Decoders:
    """`async with Decoders(settings, images) as decoders:` `await decoders.decode(data)` in any task."""

    def __init__(self, settings: DownloadSettings, images: ImageSettings) -> None:
        prepare_parent()
        self._settings = settings
        self.processes = settings.decoders or usable_cores()
        self._free = trio.Semaphore(self.processes)
        self._idle: list[_Decoder] = []
        image_settings = json.dumps(asdict(images))
        command = [*PROGRAM, str(settings.decode_memory_mb), image_settings]
        # trio.lowlevel.open_process starts processes from a worker thread. That thread exits after ten idle
        # seconds, and PR_SET_PDEATHSIG would take its end for the death of the parent.
        self._server = ForkServer([*command, str(settings.opt_out)])

    async def __aenter__(self) -> "Decoders":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._idle:
            await self._idle.pop().kill()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._server.close)

    @property
    def backlog(self) -> int:
        """Number of images waiting for a free process."""
        return self._free.statistics().tasks_waiting

    async def decode(self, data: bytes) -> Decoded:
        """Waits for a free process. Returns the image to store, or the reason for refusing it.

        Raises OutageError when no process can be started.
        """
        tries = servers = 0
        async with self._free:
            while tries < TRIES and servers < STARTS:
                try:
                    return await self._try(data)
                except _DecoderDied:
                    tries += 1
                except _ServerEndedError:
                    servers += 1
        return Decoded(DownloadStatus.DECODER_CRASHED)

    async def _try(self, data: bytes) -> Decoded:
        decoder = await self._living()
        finished = False
        try:
            with trio.move_on_after(self._settings.decode_timeout_s):
                found = await decoder.decode(data)
                finished = True
        except _DecoderDied as error:
            if decoder.server_has_ended:
                raise _ServerEndedError from error
            raise
        finally:
            if finished:
                self._idle.append(decoder)
            else:
                await decoder.kill()
        return found if finished else Decoded(DownloadStatus.DECODE_TIMEOUT)

    async def _living(self) -> _Decoder:
        """Return an idle decoder or a new one. No image is at fault for idle ones that were killed."""
        while self._idle:
            decoder = self._idle.pop()
            if decoder.is_alive:
                return decoder
            await decoder.kill()
        return await self._started()

    async def _started(self) -> _Decoder:
        for _ in range(STARTS):
            decoder = _Decoder(self._server)
            is_ready = False
            try:
                is_ready = await decoder.ready()
            finally:
                if not is_ready:
                    await decoder.kill()
            if is_ready:
                return decoder
        raise cannot_start("decodes images")
