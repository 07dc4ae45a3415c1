"""The pool of decoder processes: a decoder that crashes, hangs or eats memory costs one image.

Processes are started when first needed and reused. One that is not finished with its image when the caller
leaves (time limit, cancellation, crash) is killed: a half-read answer can't be told from the next one.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from types import TracebackType

import trio

from laion_etl.download.decoder_process import ANSWER, REQUEST
from laion_etl.download.images import ImageLimits, Picture
from laion_etl.funnel import DownloadStatus
from laion_etl.machine import usable_cores
from laion_etl.settings import DownloadSettings


class _DecoderDied(Exception):  # noqa: N818 - an outcome, not an error of the program
    """The process ended in the middle of an image."""


class _Decoder:
    """One process and its pipes."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process

    async def decode(self, data: bytes) -> Picture | DownloadStatus:
        stdin = self._process.stdin
        if stdin is None:
            raise _DecoderDied
        try:
            await stdin.send_all(REQUEST.pack(len(data)) + data)
            text_length, data_length = ANSWER.unpack(await self._exactly(ANSWER.size))
            header = json.loads(await self._exactly(text_length))
            stored = await self._exactly(data_length) if data_length else data
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise _DecoderDied from error
        if "status" in header:
            return DownloadStatus(header["status"])
        return Picture(data=stored, **header)

    async def _exactly(self, length: int) -> bytes:
        stdout = self._process.stdout
        received = bytearray()
        while len(received) < length:
            part = await stdout.receive_some(length - len(received)) if stdout else b""
            if not part:
                raise _DecoderDied
            received += part
        return bytes(received)

    async def kill(self) -> None:
        with trio.CancelScope(shield=True):
            self._process.kill()
            await self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    await trio.aclose_forcefully(pipe)


class Decoders:
    """`async with Decoders(settings) as decoders:` then `await decoders.decode(data)` from any task."""

    def __init__(self, settings: DownloadSettings) -> None:
        self._settings = settings
        self._free = trio.Semaphore(settings.decoders or usable_cores())
        self._idle: list[_Decoder] = []
        limits = json.dumps(asdict(ImageLimits.of(settings)))
        module = "laion_etl.download.decoder_process"
        self._command = [sys.executable, "-m", module, str(settings.decode_memory_mb), limits]

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

    async def decode(self, data: bytes) -> Picture | DownloadStatus:
        """The stored form of an image or the reason why there is none; waits for a free process."""
        async with self._free:
            decoder = self._idle.pop() if self._idle else await self._start()
            finished = False
            try:
                with trio.move_on_after(self._settings.decode_timeout_s):
                    found = await decoder.decode(data)
                    finished = True
            except _DecoderDied:
                return DownloadStatus.DECODER_CRASHED
            finally:
                if finished:
                    self._idle.append(decoder)
                else:
                    await decoder.kill()
            return found if finished else DownloadStatus.DECODE_TIMEOUT

    async def _start(self) -> _Decoder:
        process = await trio.lowlevel.open_process(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        return _Decoder(process)
