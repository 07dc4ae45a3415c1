"""HTML's character references in texts of the web."""

import html
import re

# Python refuses to convert more than 4,300 digits, with a ValueError; no character has so long a number.
_TOO_LONG = re.compile(r"&#[0-9]{1000,};?")


def unescaped(text: str) -> str:
    """Returns a text with the characters that its references stand for, as html.unescape does."""
    return html.unescape(_TOO_LONG.sub("\ufffd", text))
