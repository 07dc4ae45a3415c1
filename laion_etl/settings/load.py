"""Settings of the load stage."""

from dataclasses import dataclass
from typing import ClassVar

from laion_etl.settings.fields import Group, Stage, setting


@dataclass(frozen=True, slots=True)
class LoadSettings(Group):
    """What counts as a duplicate."""

    GROUP: ClassVar[str] = "load"

    dedupe: str = setting(
        "pair",
        "pair: URL and text together (the original's rule); url: the URL alone, the best text is kept. "
        "Fixed by the first load into a database.",
        changes=Stage.LOAD,
        choices=("pair", "url"),
    )
    connections: int = setting(
        2,
        "Connections that load the rows of a partition at the same time.",
        changes=None,
        unit="connections",
        minimum=1,
        maximum=256,
    )
