"""Tables that the kernels fill: records of a batch and the links on their pages, as spans of bytes."""

from typing import NamedTuple

import numpy as np

from laion_etl.core.kernels import Ints


class Records(NamedTuple):
    """One row per record (in: spans; out: state, page URL, base as in the page, empty if there is none)."""

    start: Ints
    end: Ints
    state: Ints
    url_start: Ints
    url_end: Ints
    base_start: Ints
    base_end: Ints


class Links(NamedTuple):
    """One row per image link: its record and the spans of its JSON strings; start -1 if one is missing.

    `text` is that of a link to an image, or the figcaption of an image. `source` is the code of the caption's
    source (core/caption_source.py) as far as it is known: ALT for an image, LINK, or OG. `escaped` has bit 1
    for a url, 2 for an alt, 4 for a title and 8 for a text that contains a JSON escape.
    """

    record: Ints
    url_start: Ints
    url_end: Ints
    alt_start: Ints
    alt_end: Ints
    title_start: Ints
    title_end: Ints
    text_start: Ints
    text_end: Ints
    source: Ints
    escaped: Ints


def new_records(starts: Ints, ends: Ints) -> Records:
    """Returns rows for the records at these spans, with nothing found yet."""
    return Records(starts, ends, *(np.zeros(starts.size, np.int32) for _ in range(5)))


def new_links(rows: int) -> Links:
    """Allocates rows for links."""
    return Links(*(np.empty(rows, np.int32) for _ in Links._fields))
