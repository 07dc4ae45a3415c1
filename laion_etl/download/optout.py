"""Opt-outs that a server states in response headers.

`X-Robots-Tag: noai` and its kin (the convention of img2dataset and DeviantArt's noai/noimageai; noindex and
noimageindex by Google's documentation of the header). A directive may be limited to an agent,
`examplebot: noai`; it is honoured whatever the agent: who tells one crawler to stay away means us too.
"""

from collections.abc import Iterable

OPT_OUT_DIRECTIVES = frozenset({"noai", "noimageai", "noindex", "noimageindex", "noml", "none"})


def opted_out(robots_tags: Iterable[str]) -> bool:
    """Whether any of the X-Robots-Tag header values forbids the use of the image."""
    return any(
        directive.rpartition(":")[2].strip().lower() in OPT_OUT_DIRECTIVES
        for tag in robots_tags
        for directive in tag.split(",")
    )
