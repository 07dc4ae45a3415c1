"""Which text is the caption of a link: the alt, or that of the next source which is long enough.

Sources other than alt are opt-in (LAION_ETL_PARSE_CAPTIONS). An image whose alt is long enough keeps it, so
it never gives two pairs. A link to an image has its title, or its text; a preview has its og:image:alt, which
takes the place of the alt. A link is dropped for having no caption if all its texts are empty, and for a
short one if no text is long enough.
"""

from collections.abc import Sequence

import numpy as np

from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.caption_source import CODES, CaptionSource
from laion_etl.core.funnel import ParseReason
from laion_etl.core.kernels import Bytes, Ints
from laion_etl.core.reason_codes import REASON_CODES
from laion_etl.parse.text import clean_texts, wide_lengths
from laion_etl.settings import ParseSettings

Spans = tuple[Ints, Ints]

_IMAGE, _LINK = CODES[CaptionSource.ALT], CODES[CaptionSource.LINK]


class CaptionRule:
    """Chooses and cleans the captions of a column of links."""

    def __init__(self, settings: ParseSettings) -> None:
        self._settings = settings
        self.has_several_sources = len(set(settings.captions)) > 1
        self._of_images = {  # which text of an image is tried after its alt, and the source that it is
            place: CODES[source]
            for place, source in ((1, CaptionSource.TITLE), (2, CaptionSource.FIGCAPTION))
            if source in settings.captions
        }

    def judge(self, arena: ByteArena, texts: Sequence[Spans], source: Ints, reasons: Bytes) -> None:
        """Replaces the first texts by the cleaned captions; sets their sources, and the reasons of those
        without one.

        `texts`: alt, title and text of each link, as spans of the arena.
        """
        minimum = self._settings.min_alt_chars
        lengths, counted = self._cleaned(arena, texts[0])
        if self.has_several_sources:
            for place in (1, 2):
                self._try(arena, texts, place, source, (lengths, counted))
        reasons[counted < minimum] = REASON_CODES[ParseReason.ALT_TOO_SHORT]
        reasons[lengths == 0] = REASON_CODES[ParseReason.NO_ALT]

    def _try(
        self, arena: ByteArena, texts: Sequence[Spans], place: int, source: Ints, known: tuple[Ints, Ints]
    ) -> None:
        """Takes the text at a place for those links whose text so far is too short."""
        lengths, counted = known
        minimum, code = self._settings.min_alt_chars, self._of_images.get(place)
        may = (source == _LINK) if code is None else (source == _LINK) | (source == _IMAGE)
        rows = np.flatnonzero(may & (counted < minimum))
        (starts, ends), (new_starts, new_ends) = texts[0], tuple(edges[rows] for edges in texts[place])
        new_lengths, new_counted = self._cleaned(arena, (new_starts, new_ends))
        lengths[rows] = np.maximum(lengths[rows], new_lengths)
        taken = np.flatnonzero(new_counted >= minimum)
        rows = rows[taken]
        starts[rows], ends[rows], counted[rows] = new_starts[taken], new_ends[taken], new_counted[taken]
        if code is not None:
            source[rows[source[rows] == _IMAGE]] = code

    def _cleaned(self, arena: ByteArena, spans: Spans) -> tuple[Ints, Ints]:
        """Cleans texts; returns their lengths, and those by which they are judged."""
        settings = self._settings
        lengths = clean_texts(arena, *spans, settings.max_alt_chars)
        if not settings.count_wide_as_two:
            return lengths, lengths.copy()
        return lengths, wide_lengths(arena, *spans, lengths, settings.min_alt_chars)
