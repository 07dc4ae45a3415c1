"""Kernels as the fuzzer runs them, as Python, where numpy's sums keep the eight bits of an element."""

import numpy as np

from laion_etl.parse.kernels.records import _find_html, _has_preview


def test_searches_end_when_they_run_as_python() -> None:
    data = np.frombuffer(b" " * 600 + b'"HTML-Metadata":{' + b" " * 600, np.uint8)
    assert _find_html._function(data, 0, data.size) == 617
    assert not _has_preview._function(data, 0, data.size)
