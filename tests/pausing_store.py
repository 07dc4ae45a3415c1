"""Stores whose writer stops at a chosen moment of a guarded write, as a process stops that is suspended."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from laion_etl.io.storage import Guard, LocalStore, NewFile, S3Store, Store

ENDINGS = (".tar", ".parquet", "_stats.json")
STEPS = ("before its lease is checked", "after its lease is checked", "when it is written")
MOMENTS = [f"{ending} {step}" for ending in ENDINGS for step in STEPS]


class _Pausing:
    """Calls `reached` with each of MOMENTS."""

    reached: Callable[[str], None]

    @contextmanager
    def create(self: Any, name: str, guard: Guard | None = None) -> Iterator[NewFile]:
        ending = next((end for end in ENDINGS if name.endswith(end)), "")

        def paused() -> None:
            self.reached(f"{ending} {STEPS[0]}")
            if guard is not None:
                guard()
            self.reached(f"{ending} {STEPS[1]}")

        with super().create(name, paused) as file:  # type: ignore[misc]
            yield file
        self.reached(f"{ending} {STEPS[2]}")


class _PausingLocal(_Pausing, LocalStore):
    pass


class _PausingS3(_Pausing, S3Store):
    pass


def pausing(store: Store, reached: Callable[[str], None]) -> Store:
    """The same store, which calls `reached`."""
    kind = _PausingLocal if isinstance(store, LocalStore) else _PausingS3
    found = kind.__new__(kind)
    found.__dict__.update(store.__dict__)
    found.reached = reached
    return found
