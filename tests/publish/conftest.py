from collections.abc import Iterator

import pytest

from tests.publish.figures import small_figures


@pytest.fixture(scope="package", autouse=True)
def figures() -> Iterator[None]:
    with small_figures():
        yield
