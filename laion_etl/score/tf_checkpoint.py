"""Tensors of a TensorFlow checkpoint ("tensor bundle") without TensorFlow.

The index is a table of LevelDB's format (doc/table_format.md there), its values are BundleEntryProto messages
(tensorflow/core/protobuf/tensor_bundle.proto); the data file holds the tensors' bytes. Only what a small
Keras model has is supported: one data file, plain tensors. Sizes and offsets are checked before they are
used.
"""

import math
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
_TRAILER_BYTES = 5  # of a block: kind of compression, checksum
_DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    9: np.dtype("<i8"),
}
_MAX_VALUES = 100_000_000
_MAX_KEY_BYTES = 4_096  # an entry of three bytes may repeat the key before it


class BundleError(ValueError):
    """The bytes are not a tensor bundle, or use an unsupported feature of the format."""


def read_bundle(index: bytes, data: bytes) -> dict[str, NDArray[np.generic]]:
    """The tensors by name; tensors of other types than numbers are left out. Raises BundleError."""
    try:
        return dict(_tensors(index, data))
    except BundleError:
        raise
    except (IndexError, ValueError, struct.error, OverflowError) as error:
        raise BundleError("the index of the checkpoint is damaged") from error


def _tensors(index: bytes, data: bytes) -> Iterator[tuple[str, NDArray[np.generic]]]:
    if len(index) < _FOOTER_BYTES or struct.unpack("<Q", index[-8:])[0] != _MAGIC:
        raise BundleError("the index of the checkpoint is not a table")
    _, place = _handle(index, len(index) - _FOOTER_BYTES)
    (start, size), _ = _handle(index, place)
    for _, block in _entries(_block(index, start, size)):
        (start, size), _ = _handle(block, 0)
        for key, value in _entries(_block(index, start, size)):
            if key and (tensor := _tensor(value, data)) is not None:
                yield key.decode(errors="replace"), tensor


def _handle(data: bytes, place: int) -> tuple[tuple[int, int], int]:
    offset, place = _varint(data, place)
    size, place = _varint(data, place)
    return (offset, size), place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise BundleError("a number of the checkpoint's index has no end")


def _block(index: bytes, start: int, size: int) -> bytes:
    if start + size + _TRAILER_BYTES > len(index):
        raise BundleError("a block of the checkpoint's index lies outside of it")
    if index[start + size] != 0:
        raise BundleError("the checkpoint's index is compressed")
    return index[start : start + size]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys, each stored as its difference from the previous one, and values."""
    (restarts,) = struct.unpack("<I", block[-4:])
    end, place, key = len(block) - 4 * (restarts + 1), 0, b""
    while place < end:
        shared, place = _varint(block, place)
        fresh, place = _varint(block, place)
        length, place = _varint(block, place)
        if place + fresh + length > end or shared > len(key) or shared + fresh > _MAX_KEY_BYTES:
            raise BundleError("an entry of the checkpoint's index is too long")
        key = key[:shared] + block[place : place + fresh]
        place += fresh
        yield key, block[place : place + length]
        place += length


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a protobuf message."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == 0:
            value, place = _varint(message, place)
            yield tag >> 3, value
            continue
        length = {1: 8, 5: 4}.get(kind)
        if length is None:
            length, place = _varint(message, place)
        yield tag >> 3, message[place : place + length]
        place += length


def _tensor(message: bytes, data: bytes) -> NDArray[np.generic] | None:
    numbers, shape = {}, b""
    for number, value in fields(message):
        if isinstance(value, int):
            numbers[number] = value
        elif number == 2:
            shape = value
    dtype = _DTYPES.get(numbers.get(1, 0))
    if dtype is None:
        return None
    if numbers.get(3):
        raise BundleError("the checkpoint has several data files")
    sizes = [_size(dim) for number, dim in fields(shape) if number == 2]
    offset, count = numbers.get(4, 0), math.prod(sizes)
    length = count * dtype.itemsize
    if count > _MAX_VALUES or length != numbers.get(5, 0) or offset + length > len(data):
        raise BundleError("a tensor of the checkpoint lies outside of its data")
    found: NDArray[np.generic] = np.frombuffer(data, dtype, count, offset).reshape(sizes)
    return found


def _size(dim: int | bytes) -> int:
    found = dict(fields(dim)).get(1, 0) if isinstance(dim, bytes) else 0
    return found if isinstance(found, int) else 0
