import io
from collections.abc import Iterator

import numpy as np
import pytest

from laion_etl.core.npy import read_array


def headers() -> Iterator[str]:
    yield "("
    yield "'''"
    yield "-" * 9_000 + "1"
    yield "{{}: 1}"
    yield "{'descr': (), 'fortran_order': False, 'shape': (1,), }"
    yield "{'descr': ('<f4',), 'fortran_order': False, 'shape': (1,), }"
    for descr, shape in (("'<f4'", "(1 << 40,)"), ("'<f4'", "(1099511627776,)"), ("'O'", "(1,)")):
        yield f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize("header", headers(), ids=lambda header: header[:60])
def test_an_odd_header_is_a_value_error(header: str) -> None:
    written = header.encode() + b"\n"
    data = b"\x93NUMPY\x01\x00" + len(written).to_bytes(2, "little") + written
    with pytest.raises(ValueError, match=r"."):
        read_array(io.BytesIO(data))


def test_archives_and_beginnings_are_a_value_error() -> None:
    archive, whole = io.BytesIO(), io.BytesIO()
    np.savez(archive, a=np.ones(3))
    np.save(whole, np.ones(3))
    for data in (archive.getvalue(), whole.getvalue()[:-1], whole.getvalue()[:20], b"", b"PK\x03\x04"):
        with pytest.raises(ValueError, match=r"."):
            read_array(io.BytesIO(data))
    assert read_array(io.BytesIO(whole.getvalue())).tolist() == [1, 1, 1]
