"""The tar format of shards: a small writer with the same bytes every time, and a bounded streaming reader.

Written: plain USTAR headers, mtime, uid and gid 0, mode 0644, padded to whole records of 10,240 bytes.
Read: a sequence of regular files. Sizes come from a header whose checksum is verified, and a member larger
than the limit is refused before it is read, so a damaged or hostile tar cannot exhaust memory.
Why not `tarfile`: it follows links, pax and GNU extensions and takes a damaged header for the end of the
archive; a shard needs none of the former, and the latter would lose samples silently.
"""

import re
from collections.abc import Container, Iterable, Iterator
from itertools import chain
from typing import BinaryIO, Protocol

BLOCK = 512
RECORD = 10_240
MAX_NAME_BYTES = 100
MAX_MEMBER_BYTES = 64_000_000

_MODE = b"0000644\0"
_ID = b"0000000\0"
_OWNER = _MODE + _ID + _ID
_MTIME = b"00000000000\0"
_MAGIC = b"ustar\x0000"
_HEADER_END = (b"0".ljust(101, b"\0") + _MAGIC).ljust(356, b"\0")  # a regular file; behind the checksum
_CHECKSUM_SPACES = 8 * ord(" ")  # that a checksum counts in its own place
_CONSTANT_SUM = sum(_OWNER) + sum(_MTIME) + _CHECKSUM_SPACES + sum(_HEADER_END)
_OCTAL = re.compile(rb" *([0-7]+)[ \0]*\Z")


class TarError(ValueError):
    """The bytes are not a tar shard; the message has the offset and the cause."""


class SequentialFile(Protocol):
    """A file as the writer needs it: `write` and `tell`."""

    def write(self, data: bytes, /) -> object: ...

    def tell(self) -> int: ...


def write_member(file: SequentialFile, name: str, data: bytes) -> None:
    """Appends one regular file; raises ValueError when the name is empty or over 100 ASCII bytes."""
    write_members(file, [(name, data)])


def write_members(file: SequentialFile, members: Iterable[tuple[str, bytes]]) -> None:
    """Appends regular files in one write: the store counts and hashes each write at some fixed cost."""
    parts = ((_header(name, len(data)), data, bytes(-len(data) % BLOCK)) for name, data in members)
    file.write(b"".join(chain.from_iterable(parts)))


def finish(file: SequentialFile) -> None:
    """Ends the archive: two zero blocks, then zeros up to a whole record."""
    file.write(bytes(2 * BLOCK))
    file.write(bytes(-file.tell() % RECORD))


def copy_without(source: BinaryIO, target: SequentialFile, keys: Container[str]) -> None:
    """Copies an archive without the samples of these keys. Raises TarError."""
    for name, data in read_members(source):
        if name.partition(".")[0] not in keys:
            write_member(target, name, data)
    finish(target)


def read_members(file: BinaryIO, max_member_bytes: int = MAX_MEMBER_BYTES) -> Iterator[tuple[str, bytes]]:
    """Yields (name, data) of each regular file in order; one member in memory at a time.

    Raises TarError when the archive is cut off, a header is damaged, or a member is too large or of
    another type (links, folders, extensions: shard writers do not make them).
    """
    offset = 0
    while True:
        header = _read_exactly(file, BLOCK, offset)
        if header == bytes(BLOCK):
            return
        name, size = _parse(header, offset)
        if size > max_member_bytes:
            raise TarError(
                f"member {name!r} at offset {offset} has {size} bytes, more than {max_member_bytes}"
            )
        data = _read_exactly(file, size, offset)
        _read_exactly(file, -size % BLOCK, offset)
        offset += BLOCK + size + -size % BLOCK
        yield name, data


def member_places(file: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """Yields (name, offset of the data, bytes) of each regular file in order; skips the data.

    Raises TarError as `read_members` does.
    """
    offset = 0
    while True:
        file.seek(offset)
        header = _read_exactly(file, BLOCK, offset)
        if header == bytes(BLOCK):
            return
        name, size = _parse(header, offset)
        yield name, offset + BLOCK, size
        offset += BLOCK + size + -size % BLOCK


def member_of(data: bytes, offset: int) -> tuple[str, bytes]:
    """Returns (name, data) of a regular file that was read with its header from `offset` of a tar.

    Raises TarError when the bytes are not exactly one such member.
    """
    name, size = _parse(data[:BLOCK], offset)
    if len(data) != BLOCK + size:
        raise TarError(f"member at offset {offset} has {size} bytes, not {len(data) - BLOCK}")
    return name, data[BLOCK:]


def _header(name: str, size: int) -> bytes:
    encoded = name.encode("ascii")
    if not 0 < len(encoded) <= MAX_NAME_BYTES:
        raise ValueError(f"member name {name!r} is empty or over {MAX_NAME_BYTES} bytes")
    octal = b"%011o\0" % size
    checksum = sum(encoded) + sum(octal) + _CONSTANT_SUM
    return b"%b%b%b%b%06o\0 %b" % (encoded.ljust(100, b"\0"), _OWNER, octal, _MTIME, checksum, _HEADER_END)


def _parse(header: bytes, offset: int) -> tuple[str, int]:
    # Without the zeros, which are seven eighths of a header: `sum` takes each byte as an object.
    found = sum(header.translate(None, b"\0")) - sum(header[148:156]) + _CHECKSUM_SPACES
    if _octal(header[148:156], offset) != found:
        raise TarError(f"header at offset {offset} is damaged: wrong checksum")
    if header[156:157] not in (b"0", b"\0"):
        raise TarError(f"member at offset {offset} is not a regular file (type {header[156:157]!r})")
    try:
        name = header[:100].split(b"\0", 1)[0].decode("ascii")
    except UnicodeDecodeError as error:
        raise TarError(f"member at offset {offset} has a name outside ASCII") from error
    return name, _octal(header[124:136], offset)


def _octal(field: bytes, offset: int) -> int:
    match = _OCTAL.match(field)
    if match is None:
        raise TarError(f"header at offset {offset} is damaged: {field!r} is not an octal number")
    return int(match[1], 8)


def _read_exactly(file: BinaryIO, size: int, offset: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise TarError(f"cut off in the member at offset {offset}")
    return data
