"""A kernel that finds texts which cannot be placeholders, and those that are in the simplest forms."""

from typing import NamedTuple

import numpy as np

from laion_etl.core.kernels import Bytes, Hashes, Ints, hash_of, holds
from laion_etl.core.numba_cache import borrowing_kernel
from laion_etl.parse.kernels.texts import multibyte

MAX_BYTES = 200  # no placeholder is longer
MAY_BE, IS_WORD, IS_FILE_NAME, IS_DATE = 1, 2, 3, 4  # findings of `find_placeholders`
_MOST_ENDING_BYTES = 5
_MODEL_NUMBER_BYTES = 7  # of 747-400, which is not a date
_LEAST_DIGITS = 3  # of the names that cameras give
SENTENCE_BYTES = 12  # that tell a sentence of a content system from other texts


class Lists(NamedTuple):
    """Sorted hashes of what placeholders consist of."""

    words: Hashes
    parts: Hashes  # of placeholders of several words
    cameras: Hashes  # what cameras begin the names of files with
    endings: Hashes  # of these names
    programs: Hashes  # what programs begin such names with that may end in any words
    sentences: Hashes  # the first bytes of what content systems write for an image without a text


def _cases() -> Bytes:
    """Returns 1 for small letters beyond ASCII, and 2 for capitals, by code point."""
    table = np.zeros(65536, np.uint8)
    for point in range(128, table.size):
        letter = chr(point)
        table[point] = 2 if letter.lower() != letter else letter.upper() != letter
    return table


_CASES = _cases()


@borrowing_kernel
def find_placeholders(data: Bytes, starts: Ints, ends: Ints, lists: Lists, findings: Bytes) -> None:
    """Sets IS_WORD for one of the words, and IS_FILE_NAME and IS_DATE for those in the simplest forms; MAY_BE
    for what `placeholder` must check.

    The others (0) neither look like a file name, an identifier or a template, nor begin like a sentence of a
    content system, nor consist of numbers and parts only, nor are one of the words once digits and
    punctuation at their ends are stripped.
    """
    for row in range(starts.size):
        start, end = starts[row], ends[row]
        if start < 0 or end - start > MAX_BYTES:
            findings[row] = 0
        else:
            findings[row] = _find_placeholder(data, start, end, lists)


@borrowing_kernel
def _find_placeholder(data: Bytes, start: int, end: int, lists: Lists) -> int:
    spaces, digits, dots, others, marks, letters, brackets = 0, 0, 0, 0, 0, 0, 0
    for position in range(start, end):
        byte = data[position]
        spaces += byte == 32
        others += byte >= 128
        digits += 48 <= byte <= 57
        letters += 97 <= byte | 32 <= 122
        dots += byte == 46
        marks += byte == 123 or byte == 60 or byte < 32 or byte == 127  # { and <, controls
        brackets += byte == 91 or byte == 37 or byte == 64  # [, % and @
    at_start = data[start] == 37 or data[start] == 91  # % and [
    if marks or at_start or (brackets and _names_an_object(data, start, end)):
        return MAY_BE
    if others == 0 and brackets == 0 and (digits or dots):
        if letters == 0 and digits and end - start != _MODEL_NUMBER_BYTES:
            return IS_DATE
        if spaces == 0 and _is_file_name(data, start, end, lists):
            return IS_FILE_NAME
    if spaces == 0 and others == 0 and (digits or dots):
        return MAY_BE
    if (
        (dots and (_may_end_like_a_file(data, start, end) or _begins_a_sentence(data, start, end, lists)))
        or (digits and _begins_with(data, start, end, lists.programs))
        or _has_only(data, start, end, lists.parts)
    ):
        return MAY_BE
    while end > start and not _is_letter(data[end - 1]):
        end -= 1
    while start < end and not _is_letter(data[start]):
        start += 1
    if others and (end == start or _is_mark(data, start) or _ends_in_mark(data, start, end)):
        return MAY_BE
    if end == start or not holds(lists.words, hash_of(data, start, end)):
        return MAY_BE if others and _has_odd_case(data, start, end) else 0
    return MAY_BE if digits or dots or others else IS_WORD


@borrowing_kernel
def _is_file_name(data: Bytes, start: int, end: int, lists: Lists) -> bool:
    """Whether a text in ASCII, without spaces, ends like a file of an image, or is like IMG_1234."""
    for position in range(end - 1, max(start, end - 2 - _MOST_ENDING_BYTES), -1):
        if data[position] == 46:
            return holds(lists.endings, hash_of(data, position + 1, end))
    position = start
    while position < end and _is_letter(data[position]):
        position += 1
    stop = position
    if position < end and (data[position] == 45 or data[position] == 95):  # - and _
        position += 1
    if end - position < _LEAST_DIGITS or not holds(lists.cameras, hash_of(data, start, stop)):
        return False
    for place in range(position, end):
        if not 48 <= data[place] <= 57:
            return False
    return True


@borrowing_kernel
def _names_an_object(data: Bytes, start: int, end: int) -> bool:
    """Whether `[object ` or `[native ` may be in a text, which JavaScript writes for what is not a text."""
    for position in range(start, end - 1):
        if data[position] == 91 and (data[position + 1] == 111 or data[position + 1] == 110):
            return True
    return False


@borrowing_kernel
def _begins_with(data: Bytes, start: int, end: int, words: Hashes) -> bool:
    """Whether the first run of letters, which is at the beginning, is one of the words."""
    stop = start
    while stop < end and _is_letter(data[stop]):
        stop += 1
    return holds(words, hash_of(data, start, stop))


@borrowing_kernel
def _begins_a_sentence(data: Bytes, start: int, end: int, lists: Lists) -> bool:
    stop = start + SENTENCE_BYTES
    return stop < end and holds(lists.sentences, hash_of(data, start, stop))


@borrowing_kernel
def _has_odd_case(data: Bytes, start: int, end: int) -> bool:
    """Whether a word has small letters beyond ASCII, and capitals behind others: the hashes of the lists are
    those of words in small letters, in capitals, and with a capital at the beginning.
    """
    after_letter, has_small, has_capital = False, False, False
    position = start
    while position < end:
        byte = int(data[position])
        if byte < 128:
            after_letter = _is_letter(byte)
            has_small &= after_letter
            has_capital &= after_letter
            position += 1
            continue
        point, size = multibyte(data, position, end, byte)
        case = _CASES[point] if size else np.uint8(0)
        has_small |= case == 1
        has_capital |= case == 2 and after_letter
        if has_small and has_capital:
            return True
        after_letter = True
        position += max(size, 1)
    return False


@borrowing_kernel
def _may_end_like_a_file(data: Bytes, start: int, end: int) -> bool:
    for position in range(max(start, end - 6), end - 2):
        if data[position] == 46:
            return True
    return False


@borrowing_kernel
def _is_letter(byte: int) -> bool:
    return byte >= 128 or 65 <= (byte & 0xDF) <= 90


@borrowing_kernel
def _is_mark(data: Bytes, position: int) -> bool:
    """Whether a character may be non-ASCII punctuation (Latin-1, U+2000, U+3000 blocks, wide forms)."""
    byte = int(data[position])
    return byte == 0xC2 or byte == 0xE2 or byte == 0xEF or (byte == 0xE3 and int(data[position + 1]) <= 0x83)


@borrowing_kernel
def _ends_in_mark(data: Bytes, start: int, end: int) -> bool:
    position = end - 1
    while position > start and data[position] & 0xC0 == 0x80:
        position -= 1
    return _is_mark(data, position)


@borrowing_kernel
def _has_only(data: Bytes, start: int, end: int, words: Hashes) -> bool:
    """Whether every run of letters is one of the words."""
    position = start
    while position < end:
        if not _is_letter(data[position]):
            position += 1
            continue
        first = position
        while position < end and _is_letter(data[position]):
            position += 1
        if not holds(words, hash_of(data, first, position)):
            return False
    return True
