"""Between this process's memory and a device's, without either waiting for the other.

On a GPU what is asked for is queued: a copy to it, the computing, the copy back. `Later` is what will come of
it, and meanwhile the next batch can be queued. Copies need memory that the driver has locked; `locked` does
that for the tables that preparers fill, so that pixels are copied once. A CPU has threads (`pinned.py`).
"""

import logging
import mmap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]

_LOG = logging.getLogger(__name__)
_FOR_ALL_GPUS = 1  # cudaHostRegisterPortable


class Later(Protocol):
    """An array that may still be in the making."""

    def get(self) -> Floats:
        """Waits for it."""
        ...


class FromDevice:
    """An array that a device may still be computing."""

    def __init__(self, found: "torch.Tensor") -> None:
        self._ready: Any = None
        if not found.is_cuda:
            self._found = found.cpu()
            return
        import torch

        queue = torch.cuda.current_stream(found.device)  # a thread's own GPU may be another one
        self._found = found.to("cpu", non_blocking=True)
        self._ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._ready.record(queue)

    def get(self) -> Floats:
        """Waits for it."""
        if self._ready is not None:
            self._ready.synchronize()
        array: Floats = self._found.numpy()
        return array


def to_device(array: NDArray[Any], device: str) -> "torch.Tensor":
    """The array as a tensor on the device; the array must stay as it is until a result has come back."""
    import torch

    source = torch.from_numpy(array)
    if not device.startswith("cuda"):
        return source.to(device)
    with torch.cuda.device(device):
        if not source.is_pinned():
            source = source.pin_memory()
        return source.to(device, non_blocking=True)


@contextmanager
def locked(memory: mmap.mmap, device: str) -> Iterator[None]:
    """Memory that a GPU copies from directly, in this block; a CPU needs nothing of the kind."""
    if not device.startswith("cuda"):
        yield
        return
    import torch

    driver: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    start = np.frombuffer(memory, np.uint8).ctypes.data
    with torch.cuda.device(device):
        failed = int(driver.cudaHostRegister(start, len(memory), _FOR_ALL_GPUS))
        if failed:  # pixels then go through memory of torch's own
            with suppress(RuntimeError):  # the next kernel is told of the error, too
                torch.zeros(1, device=device)
            _LOG.warning(
                "the GPU's driver can't lock the memory of pixels (error %s): copies are slow", failed
            )
    try:
        yield
    finally:
        torch.cuda.synchronize(device)
        if not failed:
            driver.cudaHostUnregister(start)
