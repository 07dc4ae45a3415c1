"""CLD3's network as compiled loops over many texts, with the answers of its own library.

The library takes 28 µs for a text of 40 characters: it builds a string for each n-gram and a hash map of
their counts. The mean of embeddings over distinct n-grams, weighted by their counts, equals the mean over all
occurrences, so no map is needed here: each occurrence is hashed, and its row is added.

Texts that the loops do not decide (`NOT_DECIDED`) are left to the library: those with characters that it
lowercases unlike Python or that are outside the first two planes of Unicode, repetitive ones, of which it
uses only a part, and those of more than `max_bytes`. See google/cld3: nnet_language_identifier.cc (steps),
script_span/getonescriptspan.cc (what is a word), language_identifier_features.cc (n-grams).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from laion_etl.core.kernels import Bytes, Ints
from laion_etl.core.numba_cache import borrowing_kernel, kernel
from laion_etl.parse.kernels.layers import Floats, add_rows, best_of, probability
from laion_etl.parse.kernels.words import (
    HAN,
    HANGUL,
    HASHES,
    MOST_BYTES,
    RELEVANT_SCRIPTS,
    SPACE,
    Points,
    decoded,
    is_hangul,
    is_repetitive,
    put_utf8,
    relevant_script,
    utf8,
    words_of,
)

NOT_DECIDED, TOO_SHORT = -2, -1  # instead of the number of a language
_BEGIN, _END = 94, 36  # "^" before and "$" after each word
_TEXTS = 8  # go through the network together: its 160 kB of weights are then read once for all of them


class Network(NamedTuple):
    """The weights; embeddings of n-grams have 16 numbers each, those of scripts 8."""

    bigrams: Floats
    quadgrams: Floats
    relevant_scripts: Floats
    scripts: Floats
    trigrams: Floats
    unigrams: Floats
    hidden: Floats
    hidden_bias: Floats
    softmax: Floats
    softmax_bias: Floats


class Space(NamedTuple):
    """Memory for one text at a time, and for the numbers of a few texts in the network."""

    points: Points  # of the text, then of its words
    words: Points
    characters: Bytes  # the words in UTF-8, with terminators
    offsets: Ints
    packed: Points  # each byte with the next three
    ngrams: Ints
    counts: Ints
    predicted: Ints
    rows: Ints  # the texts that go through the network together, and what it makes of each
    features: Floats
    layer: Floats
    scores: Floats


def space(languages: int, hidden: int, features: int) -> Space:
    """Return memory for texts of up to `MOST_BYTES`."""
    return Space(
        np.empty(MOST_BYTES, np.uint32),
        np.empty(3 * MOST_BYTES, np.uint32),
        np.empty(12 * MOST_BYTES, np.uint8),
        np.empty(8 * MOST_BYTES, np.int32),
        np.empty(12 * MOST_BYTES, np.uint32),
        np.empty(8 * MOST_BYTES, np.int32),
        np.empty(RELEVANT_SCRIPTS, np.int32),
        np.empty(HASHES, np.int32),
        np.empty(_TEXTS, np.int32),
        np.empty((_TEXTS, features), np.float32),
        np.empty((_TEXTS, hidden), np.float32),
        np.empty((_TEXTS, languages), np.float32),
    )


@kernel
def find_languages(
    data: Bytes,
    offsets: npt.NDArray[np.int64],
    limits: tuple[int, int],
    script_of: Bytes,
    lower: Points,
    network: Network,
    memory: Space,
    languages: Ints,
    probabilities: Floats,
) -> None:
    """Set the number of the language and its probability for each text of `data`.

    The languages are numbered as in the network; NOT_DECIDED, or TOO_SHORT with fewer than `limits[0]` bytes
    of words, have the probability 0.
    """
    waiting = 0
    for row in range(languages.size):
        probabilities[row] = 0.0
        start, end = offsets[row], offsets[row + 1]
        points = decoded(data, start, end, script_of, memory.points)
        if points < 0:
            languages[row] = NOT_DECIDED
            continue
        words, first_end = words_of(memory.points, points, script_of, lower, memory.words)
        size = utf8(memory.words, words, memory.characters)
        if size < limits[0]:
            languages[row] = TOO_SHORT
        elif size == 0 or size > limits[1] or is_repetitive(memory.characters, size, memory.predicted):
            languages[row] = NOT_DECIDED
        else:
            _set_features(memory, words, first_end, script_of, network, memory.features[waiting])
            memory.rows[waiting] = row
            waiting += 1
            if waiting == memory.rows.size:
                _decide(memory, waiting, network, languages, probabilities)
                waiting = 0
    _decide(memory, waiting, network, languages, probabilities)


@kernel
def _set_features(
    memory: Space, words: int, first_end: int, script_of: Bytes, network: Network, features: Floats
) -> None:
    """Set the 80 numbers that go into the network: means of embeddings."""
    features[:] = 0.0
    count = _with_terminators(memory.words, words, memory.characters, memory.offsets, memory.packed)
    _add_ngrams(memory, count, 2, network.bigrams, features[0:16])
    _add_ngrams(memory, count, 4, network.quadgrams, features[16:32])
    _add_relevant_scripts(memory, words, network.relevant_scripts, features[32:40])
    features[40:48] = network.scripts[_script(memory.words, first_end, script_of)]
    _add_ngrams(memory, count, 3, network.trigrams, features[48:64])
    _add_ngrams(memory, count, 1, network.unigrams, features[64:80])


@borrowing_kernel
def _with_terminators(words: Points, count: int, characters: Bytes, offsets: Ints, packed: Points) -> int:
    """Set the bytes of the words with terminators, and where each character begins; return how many."""
    characters[0] = _BEGIN
    offsets[0] = 0
    size, total = 1, 1
    for index in range(count):
        offsets[total] = size
        total += 1
        if words[index] != SPACE:
            size = put_utf8(words[index], characters, size)
            continue
        characters[size] = _END
        characters[size + 1] = SPACE
        characters[size + 2] = _BEGIN
        offsets[total] = size + 1
        offsets[total + 1] = size + 2
        total += 2
        size += 3
    characters[size] = _END
    offsets[total] = size
    offsets[total + 1] = size + 1
    _pack(characters, size + 1, packed)
    return total + 1


@borrowing_kernel
def _add_ngrams(memory: Space, count: int, length: int, rows: Floats, features: Floats) -> None:
    """Add the mean of the embeddings of all n-grams of this length that have no space."""
    characters, offsets, found = memory.characters, memory.offsets, memory.ngrams
    number = 0
    since = 0  # the character after the last space
    for index in range(count):
        if characters[offsets[index]] == SPACE:
            since = index + 1
        elif index + 1 - since >= length:
            code = _hash(memory.packed, offsets[index + 1 - length], offsets[index + 1])
            found[number] = _row(code, length)
            number += 1
    if number == 0:
        return
    index = 0
    while index + 4 <= number:  # four per pass, as each pass reads and writes the sum
        first, second = rows[found[index]], rows[found[index + 1]]
        third, fourth = rows[found[index + 2]], rows[found[index + 3]]
        for place in range(16):
            features[place] += (first[place] + second[place]) + (third[place] + fourth[place])
        index += 4
    while index < number:
        row = rows[found[index]]
        for place in range(16):
            features[place] += row[place]
        index += 1
    share = np.float32(1.0) / np.float32(number)
    for place in range(16):
        features[place] *= share


@borrowing_kernel
def _row(found: np.uint32, length: int) -> np.int64:
    """Return the row of an n-gram. The divisors are constants: other divisions take longer than the hash."""
    if length == 1:
        return np.int64(found % np.uint32(100))
    if length == 2:
        return np.int64(found % np.uint32(1000))
    return np.int64(found % np.uint32(5000))


@borrowing_kernel
def _pack(characters: Bytes, size: int, packed: Points) -> None:
    """Set for each byte the number that it and the next three are; what follows the last one is not used."""
    word = np.uint32(0)
    for position in range(size - 1, -1, -1):
        word = np.uint32(word << np.uint32(8)) | np.uint32(characters[position])
        packed[position] = word


@borrowing_kernel
def _hash(packed: Points, start: int, end: int) -> np.uint32:
    """Return the 32-bit MurmurHash2 of bytes with CLD3's seed."""
    multiplier = np.uint32(0x5BD1E995)
    found = np.uint32(0xBEEF) ^ np.uint32(end - start)
    position = start
    while end - position >= 4:
        word = np.uint32(packed[position] * multiplier)
        word ^= word >> np.uint32(24)
        word = np.uint32(word * multiplier)
        found = np.uint32(found * multiplier) ^ word
        position += 4
    if end > position:
        last = packed[position] & (np.uint32(0xFFFFFFFF) >> np.uint32(8 * (4 - (end - position))))
        found = np.uint32((found ^ last) * multiplier)
    found ^= found >> np.uint32(13)
    found = np.uint32(found * multiplier)
    return np.uint32(found ^ found >> np.uint32(15))


@borrowing_kernel
def _add_relevant_scripts(memory: Space, words: int, rows: Floats, features: Floats) -> None:
    counts, number = memory.counts, 0
    counts[:] = 0
    for index in range(words):
        point = memory.words[index]
        if point != SPACE:
            counts[relevant_script(point)] += 1
            number += 1
    for script in range(counts.size):
        if counts[script]:
            share = np.float32(counts[script]) / np.float32(number)
            for place in range(8):
                features[place] += share * rows[script, place]


@borrowing_kernel
def _script(words: Points, first_end: int, script_of: Bytes) -> int:
    """Return the script of the first span; Hangul if that is most of a span of Han, kana and Hangul."""
    script = int(script_of[words[1]])
    if script != HAN:
        return script
    hangul, others = 0, 0
    for index in range(1, first_end):
        if words[index] != SPACE:
            if is_hangul(words[index]):
                hangul += 1
            else:
                others += 1
    return HANGUL if hangul > others else HAN


@kernel
def _decide(memory: Space, texts: int, network: Network, languages: Ints, probabilities: Floats) -> None:
    """Set languages and probabilities of the texts whose features are in memory."""
    layer, scores = memory.layer, memory.scores
    for text in range(texts):
        layer[text] = network.hidden_bias
        scores[text] = network.softmax_bias
    add_rows(memory.features, network.hidden, layer, texts)
    for text in range(texts):
        for index in range(layer.shape[1]):  # ReLU
            layer[text, index] = max(layer[text, index], np.float32(0.0))
    add_rows(layer, network.softmax, scores, texts)
    for text in range(texts):
        best = best_of(scores[text])
        languages[memory.rows[text]] = best
        probabilities[memory.rows[text]] = probability(scores[text], scores[text, best])
