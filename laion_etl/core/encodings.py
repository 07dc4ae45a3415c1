"""The encodings of pages under the labels that the Encoding standard has for them, as codecs of Python."""

from functools import cache

from laion_etl.core.wordlists import words


@cache
def legacy_codecs() -> dict[str, str]:
    """Returns the codec of each label of an encoding other than UTF-8."""
    lines = [line.split() for line in words("encodings")]
    return {label: codec for codec, *labels in lines for label in labels}


def codec_of(label: str) -> str:
    """Returns the codec of a legacy encoding that a page names, '' for UTF-8 and for unknown names."""
    return legacy_codecs().get(label.strip().lower(), "")
