"""Settings of the search index."""

from dataclasses import dataclass
from typing import ClassVar

from laion_etl.settings.fields import Group, Stage, setting


@dataclass(frozen=True, slots=True)
class IndexSettings(Group):
    """The index of a published dataset that `laion-etl search` and `laion-etl explore` look into."""

    GROUP: ClassVar[str] = "index"

    dtype: str = setting(
        "f16",
        "Numbers of the indexed vectors: f16, as they were scored, or i8: half the size, rounded.",
        changes=Stage.INDEX,
        choices=("f16", "i8"),
    )
    connectivity: int = setting(
        16,
        "Neighbours of a vector in the graph: more finds better and takes memory.",
        changes=Stage.INDEX,
        unit="neighbours",
        minimum=2,
        maximum=1_024,
    )
    expansion_add: int = setting(
        128,
        "Candidates looked at when a vector is added: more is slower and better.",
        changes=Stage.INDEX,
        unit="candidates",
        minimum=1,
    )
    expansion_search: int = setting(
        128,
        "Candidates looked at in a search: more is slower and finds more.",
        changes=None,
        unit="candidates",
        minimum=1,
    )
    rows_per_part: int = setting(
        500_000,
        "Rows indexed together, whole batches, before anything was left out. A part is built in memory: "
        "about 1.2 kB a row with 512 f16 numbers.",
        changes=Stage.INDEX,
        unit="rows",
        minimum=1,
    )
    jobs: int = setting(
        2,
        "Parts built at the same time, each by one core and in memory of its own.",
        changes=None,
        unit="parts",
        minimum=1,
        maximum=1_024,
    )
    exact_rows: int = setting(
        10_000,
        "When a part has, or the filters leave of it, no more rows than this, each is compared.",
        changes=None,
        unit="rows",
        minimum=0,
    )
    pictures: bool = setting(
        True,
        "Note where the images lie in the tars, so that the page can show them. On S3 that fetches every "
        "tar once.",
        changes=Stage.INDEX,
    )
