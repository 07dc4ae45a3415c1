"""Settings of the load stage."""

from dataclasses import dataclass

from laion_etl.settings.fields import setting


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """What counts as a duplicate."""

    dedupe: str = setting(
        "pair",
        "pair: URL and text together (the original's rule); url: the URL alone, the best text is kept. "
        "Fixed by the first load into a database.",
    )
    connections: int = setting(2, "Connections through which the rows of a partition go side by side.")
