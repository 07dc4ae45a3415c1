"""Cuts texts into words as CLD3's library does, before its network reads them.

See google/cld3: script_span/getonescriptspan.cc (what a word is), script_span/text_processing.cc (what is
repetitive). What these loops leave to the library is in languages.py.
"""

import numpy as np
import numpy.typing as npt

from laion_etl.core.kernels import Bytes, Ints
from laion_etl.core.numba_cache import borrowing_kernel

Points = npt.NDArray[np.uint32]

NO_LETTER, UNKNOWN = 255, 253  # instead of the number of a script
INHERITED, HAN, HANGUL = 40, 24, 102  # scripts; Han has kana and Hangul, too
RELEVANT_SCRIPTS = 12
LAST_POINT = 0x20000  # exclusive
MOST_BYTES = 8_000  # of a text; the library cuts at 10,000
SPACE = 32
HASHES = 4096  # of characters that predict the next

_CHUNK, _SPACES, _PREDICTED = 48, 12, 19  # bytes; a chunk with so many is repetitive


@borrowing_kernel
def decoded(data: Bytes, start: int, end: int, script_of: Bytes, points: Points) -> int:
    """Set the code points of a text; return their number, -1 for what is left to the library."""
    if end - start > MOST_BYTES:
        return -1
    position = start
    count = 0
    while position < end:
        byte = int(data[position])
        if byte < 0x80:
            point, size = byte, 1
        elif byte < 0xE0:
            point, size = (byte & 0x1F) << 6 | int(data[position + 1]) & 0x3F, 2
        elif byte < 0xF0:
            second, third = int(data[position + 1]), int(data[position + 2])
            point, size = (byte & 0x0F) << 12 | (second & 0x3F) << 6 | third & 0x3F, 3
        else:
            second, third, fourth = int(data[position + 1]), int(data[position + 2]), int(data[position + 3])
            point = (byte & 0x07) << 18 | (second & 0x3F) << 12 | (third & 0x3F) << 6 | fourth & 0x3F
            size = 4
        if point >= LAST_POINT or script_of[point] == UNKNOWN:
            return -1
        points[count] = point
        count += 1
        position += size
    return count


@borrowing_kernel
def words_of(points: Points, count: int, script_of: Bytes, lower: Points, words: Points) -> tuple[int, int]:
    """Set the letters in lower case, with spaces around each run of them; return how many, and the first end.

    Runs end at anything but a letter and where the script changes, unless it changes for one letter only. A
    span is a sequence of runs in one script, and has a space of its own at its start; the first end is that
    of the first span.
    """
    put, take, first_end = 0, 0, 0
    while True:
        while take < count and script_of[points[take]] == NO_LETTER:
            take += 1
        if take >= count:
            return put, first_end
        span = script_of[points[take]]
        words[put] = SPACE
        put += 1
        script = span
        while take < count:
            while take < count:
                script = script_of[points[take]]
                if script != span and script != INHERITED:
                    if script == NO_LETTER:
                        break
                    after = script_of[points[take + 1]] if take + 1 < count else NO_LETTER
                    if after != NO_LETTER and after != span:
                        break
                words[put] = lower[points[take]]
                put += 1
                take += 1
            while take < count:
                script = script_of[points[take]]
                if script != NO_LETTER:
                    break
                take += 1
            words[put] = SPACE
            put += 1
            if script != span and script != INHERITED:
                break
        if first_end == 0:
            first_end = put


@borrowing_kernel
def utf8(points: Points, count: int, characters: Bytes) -> int:
    """Set the bytes of code points; return their number."""
    size = 0
    for index in range(count):
        size = put_utf8(points[index], characters, size)
    return size


@borrowing_kernel
def put_utf8(point: int, characters: Bytes, size: int) -> int:
    if point < 0x80:
        characters[size] = point
        return size + 1
    if point < 0x800:
        characters[size] = 0xC0 | point >> 6
        characters[size + 1] = 0x80 | point & 0x3F
        return size + 2
    if point < 0x10000:
        characters[size] = 0xE0 | point >> 12
        characters[size + 1] = 0x80 | point >> 6 & 0x3F
        characters[size + 2] = 0x80 | point & 0x3F
        return size + 3
    characters[size] = 0xF0 | point >> 18
    characters[size + 1] = 0x80 | point >> 12 & 0x3F
    characters[size + 2] = 0x80 | point >> 6 & 0x3F
    characters[size + 3] = 0x80 | point & 0x3F
    return size + 4


@borrowing_kernel
def is_repetitive(characters: Bytes, size: int, predicted: Ints) -> bool:
    """Whether the library would leave out a chunk of 48 bytes: many spaces, or predicted characters."""
    predicted[:] = 0
    key = np.int64(0)
    start = 0
    while start < size:
        end = min(start + _CHUNK, size)
        while end < size and characters[end] & 0xC0 == 0x80:
            end += 1
        spaces = 0
        for position in range(start, start + (end - start & ~3)):
            if characters[position] == SPACE:
                spaces += 1
        right = 0
        position = start
        while position < end:
            code, length = _code(characters, position)
            if predicted[key] == code:
                right += length
            predicted[key] = code
            key = (key << 4 ^ code) & (HASHES - 1)
            position += length
        if spaces >= _SPACES or right >= _PREDICTED:
            return True
        start = end
    return False


@borrowing_kernel
def _code(characters: Bytes, position: int) -> tuple[np.int64, int]:
    """Return a character's bytes as a number, as the library packs them, and how many there are."""
    code = np.int64(characters[position])
    if code < 0xC0:
        return code, 1
    if code < 0xE0:
        return code << 8 | np.int64(characters[position + 1]), 2
    if code < 0xF0:
        return code << 16 | np.int64(characters[position + 1]) << 8 | np.int64(characters[position + 2]), 3
    second, third = np.int64(characters[position + 1]), np.int64(characters[position + 2])
    packed = code << 24 | second << 16 | third << 8 | np.int64(characters[position + 3])
    return packed - (1 << 32), 4  # a signed number of 32 bits


@borrowing_kernel
def relevant_script(point: int) -> int:
    """Return one of twelve groups of characters, script_detector.h: by block, else by bytes in UTF-8."""
    if point < 0x80:
        return 1
    if point >= 0x10000:
        return 4
    if point >= 0x800:
        return _three_byte_script(point)
    if 0x370 <= point <= 0x4FF:
        return 5 if point < 0x400 else 6  # Greek, Cyrillic
    if 0x590 <= point <= 0x6FF:
        return 7 if point < 0x600 else 8  # Hebrew, Arabic
    return 2


@borrowing_kernel
def _three_byte_script(point: int) -> int:
    if 0x1100 <= point <= 0x11FF:
        return 9  # Hangul Jamo
    if 0x3041 <= point <= 0x30FF:
        return 10 if point < 0x30A0 else 11  # Hiragana, Katakana
    return 3


@borrowing_kernel
def is_hangul(point: int) -> bool:
    """Whether a character is a Hangul syllable or one of its parts."""
    return (
        0xAC00 <= point <= 0xD7FF
        or 0x1100 <= point <= 0x11FF
        or 0x3130 <= point <= 0x318F
        or 0xA960 <= point <= 0xA97F
        or 0xFFA0 <= point <= 0xFFDC
    )
