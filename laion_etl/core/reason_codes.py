"""Drop reasons as small numbers, for columns: 0 means kept so far, the others stand for a ParseReason."""

import numpy as np

from laion_etl.core.funnel import Outcomes, ParseReason
from laion_etl.core.kernels import Bytes

_REASONS = tuple(ParseReason)
REASON_CODES = {reason: code for code, reason in enumerate(_REASONS, 1)}


def count_drops(reasons: Bytes, outcomes: Outcomes[ParseReason]) -> None:
    """Counts the reasons of a column; kept rows are not counted."""
    for code, count in enumerate(np.bincount(reasons, minlength=1).tolist()):
        if code and count:
            outcomes.drop(_REASONS[code - 1], count)
