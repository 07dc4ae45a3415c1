"""Kernels as the fuzzer runs them, as Python, where numpy's sums keep the eight bits of an element."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from laion_etl.core.intrinsics import WEIGHED, WEIGHT_BITS, weigh_lines
from laion_etl.core.kernels import constant
from laion_etl.parse.kernels.image_entry import string_end
from laion_etl.parse.kernels.records import _find, _find_html, _names_commons

NAME = constant(b"og:image:alt")
SLACK = bytes(128)  # as ByteArena has


def padded(data: bytes) -> np.ndarray:
    return np.frombuffer(data + SLACK, np.uint8)


def test_searches_end_when_they_run_as_python() -> None:
    data = padded(b" " * 600 + b'"HTML-Metadata":{' + b" " * 600)
    assert _find_html._function(data, 0, 1_217) == 617
    assert _find._function(data, 0, 1_217, NAME) == -1


@given(st.lists(st.sampled_from([b"og:image:alt", b"og:image", b"o", b"g:", b" " * 60]), max_size=12))
def test_a_name_is_found_alike_by_compiled_code_and_by_python(parts: list[bytes]) -> None:
    text = b"".join(parts)
    data = padded(text)
    found = text.find(b"og:image:alt")
    assert _find(data, 0, len(text), NAME) == found
    assert _find._function(data, 0, len(text), NAME) == found


@given(st.lists(st.sampled_from([b'"', b"\\", b"\x1f", b"a" * 63, b"b"]), max_size=12))
def test_the_end_of_a_string_is_found_alike(parts: list[bytes]) -> None:
    data = padded(b"".join(parts))
    end = data.size - len(SLACK)
    assert string_end(data, 0, end) == string_end._function(data, 0, end)


@given(st.lists(st.sampled_from([b"commons", b"COMMONS", b"COMM", b"ons", b"n", b"s" * 60]), max_size=12))
def test_commons_is_found_alike_in_any_case(parts: list[bytes]) -> None:
    data = padded(b"".join(parts))
    span = (0, data.size - len(SLACK))
    blocks = range(0, span[1], 64)
    assert [_names_commons(data, span, block) for block in blocks] == [
        _names_commons._function(data, span, block) for block in blocks
    ]


def test_weighed_lines_are_rounded_and_clipped_in_python_too() -> None:
    lines = np.arange(3 * WEIGHED, dtype=np.uint8)
    weights = np.array([1 << WEIGHT_BITS, 1 << (WEIGHT_BITS - 1), -(1 << (WEIGHT_BITS + 3))], np.int32)
    out = np.zeros(WEIGHED, np.uint8)
    weigh_lines(out, 0, lines, 0, WEIGHED, weights, 0, 2)
    assert out.tolist() == [min(255, place + (place + WEIGHED + 1) // 2) for place in range(WEIGHED)]
    weigh_lines(out, 0, lines, 0, WEIGHED, weights, 0, 3)
    assert out.tolist() == [0] * WEIGHED
