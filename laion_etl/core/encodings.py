"""The encodings of pages under the labels that the Encoding standard has for them, as codecs of Python."""

from functools import cache

from laion_etl.core.wordlists import words

UNICODE_CODECS = {
    **dict.fromkeys(
        ["utf-8", "utf8", "utf_8", "unicode-1-1-utf-8", "unicode11utf8", "unicode20utf8", "x-unicode20utf8"],
        "utf-8",
    ),
    **dict.fromkeys(
        ["utf-16", "utf-16le", "unicode", "csunicode", "iso-10646-ucs-2", "ucs-2", "unicodefeff"], "utf-16-le"
    ),
    **dict.fromkeys(["utf-16be", "unicodefffe"], "utf-16-be"),
}


@cache
def legacy_codecs() -> dict[str, str]:
    """Returns the codec of each label of an encoding other than UTF-8."""
    lines = [line.split() for line in words("encodings")]
    return {label: codec for codec, *labels in lines for label in labels}


def codec_of(label: str) -> str:
    """Returns the codec of a legacy encoding that a page names, '' for UTF-8 and for unknown names."""
    return legacy_codecs().get(label.strip().lower(), "")


def is_known(label: str) -> bool:
    """Whether a label is that of an encoding, legacy or not."""
    return bool(codec_of(label)) or label.strip().lower() in UNICODE_CODECS
