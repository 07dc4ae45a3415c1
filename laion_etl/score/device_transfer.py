"""Asynchronous copies between host memory and a device.

On a GPU each step is queued: the copy to the device, the computation, the copy back. A `DeviceFuture` is the
pending result, so that the next batch can be queued meanwhile. Asynchronous copies need page-locked memory;
`pinned` registers the tables that preparers fill, so that pixels are copied once. A CPU uses threads
(`pinned.py`).
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


class DeviceFuture(Protocol):
    """An array that may still be being computed."""

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

        queue = torch.cuda.current_stream(found.device)  # the calling thread's current GPU may differ
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
def pinned(memory: mmap.mmap, device: str) -> Iterator[None]:
    """Page-locks memory within the block so that a GPU copies from it directly; does nothing on a CPU."""
    if not device.startswith("cuda"):
        yield
        return
    import torch

    driver: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    start = np.frombuffer(memory, np.uint8).ctypes.data
    with torch.cuda.device(device):
        failed = int(driver.cudaHostRegister(start, len(memory), _FOR_ALL_GPUS))
        if failed:  # copies then go through a pinned buffer of torch
            with suppress(RuntimeError):  # clear the error: the next kernel would report it
                torch.zeros(1, device=device)
            _LOG.warning(
                "cannot page-lock the memory for pixels: CUDA error %s; copies will be slower",
                failed,
            )
    try:
        yield
    finally:
        torch.cuda.synchronize(device)
        if not failed:
            driver.cudaHostUnregister(start)
