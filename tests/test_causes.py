import pytest

from laion_etl.core.causes import cause_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cannot read part-00007.parquet: cut off", "cannot read part-00123.parquet: cut off"),
        ("batch 12 lost its lease", "batch 1,234 lost its lease"),
        ("Postgres at 10.0.0.8:5432 refused", "postgres at 192.168.1.10:6543 refused"),
        ("object at 0x7ffe12ab", "object at 0x55d0c3"),
        (
            "pod 0f1e2d3c-aaaa-bbbb-cccc-ddddeeeeffff was evicted",
            "pod 12345678-90ab-cdef-fedc-ba0987654321 was evicted",
        ),
        (
            "sha256 deadbeefdeadbeefdeadbeefdeadbeef is not expected",
            "sha256 0123456789abcdef0123456789abcdef is not expected",
        ),
        ("took 3.5 s", "took 17 s"),
        ("cannot open\n  the file", "Cannot open the file"),
    ],
)
def test_failures_that_differ_in_numbers_have_the_same_cause(one: str, other: str) -> None:
    assert cause_of(one) == cause_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("no permission", "no such bucket"),
        ("the disk is full", "the disk quota is used up"),
        ("cannot read part-00007.parquet", "cannot read part-00007.tar"),
        ("", "batch 3"),
    ],
)
def test_failures_that_differ_in_words_have_different_causes(one: str, other: str) -> None:
    assert cause_of(one) != cause_of(other)


@pytest.mark.parametrize("start", ["", "_", "1", "x-"])
def test_a_long_reason_takes_linear_time(start: str) -> None:
    """Reasons also come from outside; a quadratic expression would take minutes here."""
    assert cause_of(start + "a" * 500_000 + "!").endswith("!")
