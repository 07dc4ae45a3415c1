"""Scaling an image down by up to a half, bit for bit like Pillow's `resize` with its box filter.

libjpeg has scaled a JPEG by a power of two when this follows, so that less than a half is left to do. Then
each pixel of the result is one pixel or the average of two neighbours, along the lines and along the columns,
which takes a few instructions for all colours of a pixel at once.

The loops are written for LLVM (averages.ll) and compiled when they are first needed, for the processor at
hand: llvmlite alone is imported in a quarter of the time that numba takes, and every decoder has them from
the process that it is forked from. Refused: OpenCV's area averaging (slower), loops for any scale (slower
than Pillow where lines are turned into columns for vector instructions), numpy (no faster than Pillow).
"""

import ctypes
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

Size = tuple[int, int]
Places = npt.NDArray[np.int32]

_SOURCE = Path(__file__).with_name("averages.ll")


class _Loops(NamedTuple):
    """The compiled functions of averages.ll, and the engine that owns their memory."""

    average_columns: Callable[..., None]
    average_lines: Callable[..., None]
    engine: Any


@cache
def loops() -> _Loops:
    """Compile the loops."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(_SOURCE.read_text())
    features = llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=3)
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = True
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    at, long = ctypes.c_void_p, ctypes.c_int64
    columns = ctypes.CFUNCTYPE(None, at, long, long, at, at, at, long)
    lines = ctypes.CFUNCTYPE(None, at, long, at, at, at, long)
    return _Loops(
        columns(engine.get_function_address("average_columns")),
        lines(engine.get_function_address("average_lines")),
        engine,
    )


def averaged(image: Image.Image, size: Size) -> Image.Image | None:
    """Return an RGB image resized to `size`; None where Pillow has to do that."""
    if image.mode != "RGB" or not _suits(image.size, size):
        return None
    (width, height), (new_width, new_height) = image.size, size
    pixels = image.tobytes("raw", "RGBX")
    narrower = np.empty((height, new_width), np.uint32)
    left, right = _neighbours(width, new_width)
    upper, lower = _neighbours(height, new_height)
    out = np.empty((new_height, new_width), np.uint32)
    loops().average_columns(
        pixels, width, height, left.ctypes.data, right.ctypes.data, narrower.ctypes.data, new_width
    )
    loops().average_lines(
        narrower.ctypes.data, new_width, upper.ctypes.data, lower.ctypes.data, out.ctypes.data, new_height
    )
    return Image.frombytes("RGB", size, out, "raw", "RGBX")


def _suits(old: Size, new: Size) -> bool:
    """Whether each side shrinks by a half at most, and lines before columns (Pillow from version 13 on)."""
    by_half = all(after <= before <= 2 * after for before, after in zip(old, new, strict=True))
    return by_half and old[1] - new[1] <= 2 * (old[0] - new[0])


@lru_cache(maxsize=1_024)
def _neighbours(length: int, resized: int) -> tuple[Places, Places]:
    """Return the first and last of the pixels that each pixel of a shorter line averages.

    The arithmetic is that of Pillow's Resample.c for its box filter, whose window is half open.
    """
    scale = length / resized
    centre = (np.arange(resized) + 0.5) * scale
    first = np.maximum((centre - 0.5 * scale + 0.5).astype(np.int32), 0)
    end = np.minimum((centre + 0.5 * scale + 0.5).astype(np.int32), length)
    inverse = 1.0 / scale
    while (outside := (first < end - 1) & ((first - centre + 0.5) * inverse <= -0.5)).any():
        first = first + outside.astype(np.int32)
    while (outside := (end > first + 1) & ((end - 1 - centre + 0.5) * inverse > 0.5)).any():
        end = end - outside.astype(np.int32)
    return first, end - 1
