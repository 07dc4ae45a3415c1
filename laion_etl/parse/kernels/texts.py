"""A kernel that finds texts which are already clean: the simple majority."""

import numpy as np

from laion_etl.core.kernels import Bytes, Ints
from laion_etl.core.numba_cache import borrowing_kernel

EMPTY, CLEAN, NEEDS_CLEANING, ABSENT = 0, 1, 2, 3  # judgements of a text

# Characters that cleaning leaves unchanged in any combination: letters and marks in NFC that are in none of
# ftfy's patterns of mojibake, that ftfy does not replace, and that do not compose with the character before.
_PLAIN_RANGES = (
    (0x00DF, 0x00F6),  # Latin-1 small letters
    (0x00F8, 0x00FC),
    (0x0101, 0x0101),
    (0x0103, 0x0103),
    (0x0105, 0x0105),
    (0x0107, 0x0107),
    (0x010D, 0x010D),
    (0x010F, 0x010F),
    (0x0111, 0x0111),
    (0x0113, 0x0113),
    (0x0117, 0x0117),
    (0x0119, 0x0119),
    (0x011B, 0x011B),
    (0x011F, 0x011F),
    (0x012B, 0x012B),
    (0x012F, 0x012F),
    (0x0131, 0x0131),
    (0x0142, 0x0142),
    (0x0144, 0x0144),
    (0x0148, 0x0148),
    (0x0151, 0x0151),
    (0x0155, 0x0155),
    (0x0159, 0x0159),
    (0x015B, 0x015B),
    (0x015F, 0x015F),
    (0x0161, 0x0161),
    (0x0165, 0x0165),
    (0x016B, 0x016B),
    (0x016F, 0x016F),
    (0x0171, 0x0171),
    (0x0173, 0x0173),
    (0x017A, 0x017A),
    (0x017C, 0x017C),
    (0x017E, 0x017E),
    (0x01A1, 0x01A1),  # Vietnamese
    (0x01B0, 0x01B0),
    (0x0219, 0x0219),  # Romanian
    (0x021B, 0x021B),
    (0x03AC, 0x03CE),  # Greek small letters
    (0x0410, 0x044F),  # Cyrillic
    (0x0451, 0x0451),
    (0x0454, 0x0457),
    (0x05D0, 0x05EA),  # Hebrew
    (0x0621, 0x063A),  # Arabic
    (0x0641, 0x064A),
    (0x067E, 0x067E),
    (0x0686, 0x0686),
    (0x0698, 0x0698),
    (0x06A9, 0x06A9),
    (0x06AF, 0x06AF),
    (0x06CC, 0x06CC),
    (0x0E01, 0x0E30),  # Thai, without the marks above and below
    (0x1EA1, 0x1EF9),  # Vietnamese
    (0x2013, 0x2014),  # dashes
    (0x2026, 0x2026),
    (0x3001, 0x3002),
    (0x300C, 0x300F),
    (0x3041, 0x3096),  # kana
    (0x30A1, 0x30FA),
    (0x30FC, 0x30FC),
    (0x4E00, 0x9FFF),  # unified ideographs
    (0xAC00, 0xD7A3),  # Hangul
)


# Capitals that are equally harmless, except after a small letter outside ASCII: that may be mojibake.
_PLAIN_CAPITALS = "ÀÁÄÅÆÇÈÉÊËÌÍÏÑÒÓÔÕÖÚÛÜÝĀĂĄĆČĎĐĒĖĘĚĞİŁŃŇŘŚŞŠŤŮŰŹŻŽȘȚ"


def plain_characters() -> list[int]:
    """Returns the code points that `judge_texts` accepts anywhere, in addition to printable ASCII."""
    return [point for first, last in _PLAIN_RANGES for point in range(first, last + 1)]


def plain_capitals() -> list[int]:
    """Returns the code points that it accepts at the start and after ASCII."""
    return [ord(character) for character in _PLAIN_CAPITALS]


def _plain_table() -> Bytes:
    table = np.zeros(65536, np.uint8)
    table[plain_characters()] = 1
    table[plain_capitals()] = 2
    return table


PLAIN = _plain_table()


@borrowing_kernel
def judge_texts(
    data: Bytes, starts: Ints, ends: Ints, max_chars: int, judgements: Ints, lengths: Ints
) -> None:
    """Sets EMPTY, CLEAN or NEEDS_CLEANING (ABSENT if it begins at -1) and the length in characters per span.

    A clean text is valid UTF-8 of at most `max_chars` plain characters with single spaces between words.
    """
    for row in range(starts.size):
        start, end = starts[row], ends[row]
        lengths[row] = 0
        if start < 0:
            judgements[row] = ABSENT
        elif start == end:
            judgements[row] = EMPTY
        else:
            lengths[row] = _plain_length(data, start, end)
            clean = 0 < lengths[row] <= max_chars
            judgements[row] = CLEAN if clean else NEEDS_CLEANING


@borrowing_kernel
def _plain_length(data: Bytes, start: int, end: int) -> int:
    """Returns the number of characters of a text that is already clean; -1 for every other."""
    length = 0
    position = start
    spaced = True  # at the start or after a space
    while position < end:
        byte = int(data[position])
        length += 1
        if byte < 128:
            if byte < 33:
                if byte != 32 or spaced:
                    return -1
                spaced = True
            elif byte == 60 or byte == 127 or (byte == 38 and _may_be_entity(data, position, end)):
                return -1
            else:
                spaced = False
            position += 1
            continue
        spaced = False
        point, size = multibyte(data, position, end, byte)
        plain = PLAIN[point]
        if size == 0 or plain == 0 or (plain == 2 and position > start and data[position - 1] >= 128):
            return -1
        position += size
    return -1 if spaced else length


@borrowing_kernel
def _may_be_entity(data: Bytes, ampersand: int, end: int) -> bool:
    if ampersand + 1 == end:
        return False
    byte = int(data[ampersand + 1])
    return byte == 35 or byte >= 128 or 48 <= byte <= 57 or 65 <= (byte & 0xDF) <= 90


@borrowing_kernel
def multibyte(data: Bytes, position: int, end: int, byte: int) -> tuple[int, int]:
    """Returns code point and size of a UTF-8 sequence of two or three bytes; size 0 for anything else."""
    if 0xC2 <= byte <= 0xDF and position + 1 < end:
        second = int(data[position + 1])
        if second & 0xC0 == 0x80:
            return (byte & 0x1F) << 6 | second & 0x3F, 2
    elif 0xE0 <= byte <= 0xEF and position + 2 < end:
        second, third = int(data[position + 1]), int(data[position + 2])
        point = (byte & 0x0F) << 12 | (second & 0x3F) << 6 | third & 0x3F
        if second & 0xC0 == 0x80 and third & 0xC0 == 0x80 and point >= 0x800:
            return point, 3
    return 0, 0
