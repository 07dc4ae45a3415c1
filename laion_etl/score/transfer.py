"""Between this process's memory and a device's, without either waiting for the other.

On a GPU what is asked for is queued: a copy to it, the computing, the copy back. `Later` is what will come of
it, and meanwhile the next batch can be queued. Copies need memory that the driver has locked; `locked` does
that for the tables that preparers fill, so that pixels are copied once. On a CPU all is done at once.
"""

import logging
import mmap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]

_LOG = logging.getLogger(__name__)


class Later:
    """An array that a device may still be computing."""

    def __init__(self, found: "torch.Tensor") -> None:
        self._ready: Any = None
        if found.is_cuda:
            import torch

            found = found.to("cpu", non_blocking=True)
            self._ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._ready.record()
        self._found = found

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
    if device == "cpu":
        return source
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
    failed = int(driver.cudaHostRegister(start, len(memory), 0))
    if failed:  # pixels then go through memory of torch's own
        with suppress(RuntimeError):  # the next kernel is told of the error, too
            torch.zeros(1, device=device)
        _LOG.warning(
            "the GPU's driver can't lock the memory of pixels (error %s): copies take longer", failed
        )
    try:
        yield
    finally:
        torch.cuda.synchronize()
        if not failed:
            driver.cudaHostUnregister(start)
