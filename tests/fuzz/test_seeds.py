from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

SEEDS = Path(__file__).parent / "seeds"


@pytest.mark.parametrize(
    "seed", sorted(SEEDS.glob("*/*")), ids=lambda seed: f"{seed.parent.name}/{seed.name}"
)
def test_what_the_fuzzer_begins_with_and_what_it_found(seed: Path) -> None:
    TARGETS[seed.parent.name](seed.read_bytes())


def test_every_target_has_seeds() -> None:
    assert {path.name for path in SEEDS.iterdir()} == set(TARGETS)
