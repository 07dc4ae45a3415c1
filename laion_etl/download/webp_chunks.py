"""The chunks of a WebP file."""

import struct
from collections.abc import Iterator

HEAD_BYTES = 12
_FLAGS, _ALPHA, _ANIMATION = 20, 0x10, 0x02  # of the extended format: where they are, and two of them
_KINDS = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP "))


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield kind and body of each complete chunk, and where the next one begins."""
    place = HEAD_BYTES
    while place + 8 <= len(data):
        kind, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        body = data[place + 8 : place + 8 + size]
        if len(body) < size:
            return
        place += 8 + size + (size & 1)
        yield kind, body, place


def ends_in_frame(data: bytes) -> bool:
    """Whether a WebP is cut off within a frame of an animation; decoders take the frames in front of it."""
    end = HEAD_BYTES
    for _, _, behind in chunks(data):
        end = behind
    return data[end : end + 4] == b"ANMF"


def with_clear_canvas(data: bytes) -> bytes:
    """Return a WebP whose frame, if it is the only one of an animation, lies on a clear canvas.

    Without alpha, what the frame leaves of the canvas is decoded as black; browsers show the page behind it.
    """
    if data[12:16] != b"VP8X" or len(data) <= _FLAGS or not data[_FLAGS] & _ANIMATION:
        return data
    return data[:_FLAGS] + bytes([data[_FLAGS] | _ALPHA]) + data[_FLAGS + 1 :]


def with_right_length(data: bytes) -> bytes:
    """Return a WebP whose container is as long as its chunks.

    Some writers count the byte that fills up the last chunk wrongly, or leave it out; browsers do not mind.
    """
    length = HEAD_BYTES
    for kind, _, end in chunks(data):
        if kind not in _KINDS:
            break
        length = end
    declared = int.from_bytes(data[4:8], "little") + 8
    if length in (HEAD_BYTES, declared) or length < declared <= len(data):
        return data
    return data[:4] + struct.pack("<I", length - 8) + data[8:length].ljust(length - 8, b"\0")
