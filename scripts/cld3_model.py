"""Makes laion_etl/parse/cld3.npz from the library of cld3-py 3.1.0 (Linux, x86-64, Python 3.11).

    python -m scripts.cld3_model

The weights are copied from where the compiler put them. For each character the script (with CLD2's numbers,
in generated_ulscript.h) and the lowercase form are taken from Unicode, and kept if the compiled loops then
answer like the library for the character alone and within a word; other characters are left to the library.
"""

import hashlib
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gcld3.pybind_ext
import numpy as np
import numpy.typing as npt
import regex

from laion_etl.parse import cld3_model
from laion_etl.parse.cld3_model import Cld3Network
from laion_etl.parse.kernels.words import LAST_POINT, NO_LETTER, UNKNOWN

_SHA256 = "a1c20434404702f8be0761f23306dc4360a6da55e71aaa0329b101d66662e4a7"
_READ_ONLY = 0xB9000  # where the section .rodata begins
_TABLES = {  # name: rows, columns, weights in 8 bits, scales
    "bigrams": (1000, 16, 0x67AC0, 0x6B940),
    "quadgrams": (5000, 16, 0x51B20, 0x653A0),
    "scripts": (12, 8, 0x51AA0, 0x51B00),
    "script": (103, 8, 0x51680, 0x519C0),
    "trigrams": (5000, 16, 0x3B6E0, 0x4EF60),
    "unigrams": (100, 16, 0x3AFC0, 0x3B600),
}
_LAYERS = {  # name: shape, place
    "hidden": ((80, 208), 0x2ABA0),
    "hidden_bias": ((208,), 0x2A840),
    "softmax": ((208, 109), 0x145E0),
    "softmax_bias": ((109,), 0x14420),
}
# fmt: off
_LANGUAGES = (
    "eo co eu ta de mt ps te su uz zh-Latn ne nl sw sq hmn ja no mn so ko kk sl ig mr th zu ml hr bs lo "
    "sd cy hy uk pt lv iw cs vi jv be km mk tr fy am zh da sv fi ht af la id fil sm ca el ka sr it sk "
    "ru ru-Latn bg ny fa haw gl et ms gd bg-Latn ha is ur mi hi bn hi-Latn fr yi hu xh my tg ro ar lb "
    "el-Latn st ceb kn az si ky mg en gu es pl ja-Latn ga lt sn yo pa ku"
)
# By number; Han has kana, Hangul and Bopomofo, too. The others are left to the library.
_SCRIPTS = (
    "- Latin Greek Cyrillic Armenian Hebrew Arabic Syriac Thaana Devanagari Bengali Gurmukhi Gujarati "
    "Oriya Tamil Telugu Kannada Malayalam Sinhala Thai Lao Tibetan Myanmar Georgian Han Ethiopic "
    "Cherokee Canadian_Aboriginal Ogham Runic Khmer Mongolian - - Bopomofo - Yi Old_Italic Gothic "
    "Deseret Inherited Tagalog Hanunoo Buhid Tagbanwa Limbu Tai_Le Linear_B Ugaritic Shavian Osmanya "
    "Cypriot Braille Buginese Coptic New_Tai_Lue Glagolitic Tifinagh Syloti_Nagri Old_Persian "
    "Kharoshthi Balinese Cuneiform Phoenician Phags_Pa Nko Sundanese Lepcha Ol_Chiki - Saurashtra "
    "Kayah_Li Rejang Lycian Carian Lydian Cham Tai_Tham Tai_Viet"
)
# fmt: on
_ALSO_HAN = ("Hiragana", "Katakana", "Hangul")
_INHERITED, _HAN = 40, 24
_CLOSE = 1e-5

Arrays = dict[str, npt.NDArray[np.generic]]


def weights() -> Arrays:
    """Return the arrays of the network. Exits if the library is not the one whose addresses are known."""
    data = Path(gcld3.pybind_ext.__file__).read_bytes()
    if hashlib.sha256(data).hexdigest() != _SHA256:
        raise SystemExit(f"cannot read the weights: cld3-py {version('cld3-py')} is another build")
    arrays: Arrays = {"languages": np.frombuffer(_LANGUAGES.encode(), np.uint8)}
    for name, (rows, columns, place, scales) in _TABLES.items():
        found = np.frombuffer(data, np.uint8, rows * columns, _READ_ONLY + place)
        arrays[name] = found.reshape(rows, columns)
        arrays[f"{name}_scale"] = np.frombuffer(data, "<u2", rows, _READ_ONLY + scales)
    for name, (shape, place) in _LAYERS.items():
        found = np.frombuffer(data, "<f4", int(np.prod(shape)), _READ_ONLY + place)
        arrays[name] = found.reshape(shape)
    return arrays


def candidates() -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]]:
    """Yield tables of scripts and of lowercase forms, the most likely first."""
    text = "".join(map(chr, _points()))
    scripts = np.full(LAST_POINT, NO_LETTER, np.uint8)
    for number, name in enumerate(_SCRIPTS.split()):
        for found in regex.finditer(rf"\p{{Script={name}}}", text) if name != "-" else ():
            scripts[ord(found[0])] = number
    for name in _ALSO_HAN:
        for found in regex.finditer(rf"\p{{Script={name}}}", text):
            scripts[ord(found[0])] = _HAN
    lower = np.zeros(LAST_POINT, np.int32)
    for point in _points():
        small = chr(point).lower()
        lower[point] = ord(small) - point if len(small) == 1 else 0
    same = np.zeros_like(lower)
    yield scripts, lower
    yield scripts, same
    for script in (NO_LETTER, _INHERITED, _HAN):
        yield np.full_like(scripts, script), same


def _points() -> Iterator[int]:
    """Yield the code points that text can have."""
    return (point for point in range(LAST_POINT) if not 0xD800 <= point < 0xE000)


def agreeing(network: Cld3Network, points: list[int]) -> npt.NDArray[np.bool_]:
    """Whether the loops decide probes with each character, and answer like the library."""
    library = gcld3.pybind_ext.NNetLanguageIdentifier(1, 2000)
    agree = np.ones(len(points), np.bool_)
    for probe in ("{0}", "{0}{0}{0}", "{0} {0}", "abc{0}xyz", "abc {0}{0}"):
        texts = [probe.format(chr(point)) for point in points]
        found = network.find(texts)
        for row, text in enumerate(texts):
            if agree[row]:
                result = library.FindLanguage(text)
                number = int(found.languages[row])
                name = "und" if number == -1 else network.names[number] if number >= 0 else ""
                close = abs(result.probability - float(found.probabilities[row])) < _CLOSE
                agree[row] = name == result.language and close
    return agree


def main() -> None:
    """Write the file, and say how many characters are left to the library."""
    path = Path(cld3_model.__file__).with_name("cld3.npz")
    arrays: dict[str, Any] = dict(weights())
    arrays["script_of"] = np.full(LAST_POINT, UNKNOWN, np.uint8)
    arrays["lower_by"] = np.zeros(LAST_POINT, np.int32)
    left = list(_points())
    for scripts, lower in candidates():
        arrays["script_of"][left], arrays["lower_by"][left] = scripts[left], lower[left]
        np.savez_compressed(path, **arrays)
        agree = agreeing(Cld3Network(1, 2000), left)
        left = [point for point, agrees in zip(left, agree, strict=True) if not agrees]
    arrays["script_of"][left], arrays["lower_by"][left] = UNKNOWN, 0
    np.savez_compressed(path, **arrays)
    names = re.sub(r"(.{96}) ", r"\1\n", " ".join(f"{point:X}" for point in left[:200]))
    print(f"{len(left):,} characters are left to the library, the first of them:\n{names}")


if __name__ == "__main__":
    main()
