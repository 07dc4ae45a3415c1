"""Settings of the load stage."""

from dataclasses import dataclass
from typing import ClassVar

from laion_etl.settings.fields import Group, Stage, setting


@dataclass(frozen=True, slots=True)
class LoadSettings(Group):
    """Deduplication in Postgres."""

    GROUP: ClassVar[str] = "load"

    dedupe: str = setting(
        "pair",
        "What makes two pairs duplicates. pair: the same URL and caption (the original's rule); url: the "
        "same URL, the best caption is kept. The first load into a database fixes it.",
        changes=Stage.LOAD,
        choices=("pair", "url"),
    )
    connections: int = setting(
        2,
        "Connections of a loader that write different key ranges at the same time.",
        changes=None,
        unit="connections",
        minimum=1,
        maximum=256,
    )
