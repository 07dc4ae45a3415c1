"""Settings of the search index."""

from dataclasses import dataclass
from typing import ClassVar

from laion_etl.settings.fields import Group, Stage, setting


@dataclass(frozen=True, slots=True)
class IndexSettings(Group):
    """The index of a published dataset that `laion-etl search query` and `laion-etl search serve` use."""

    GROUP: ClassVar[str] = "index"

    dtype: str = setting(
        "f16",
        "Number type of the indexed vectors: f16, as scored, or i8: half the size, rounded.",
        changes=Stage.INDEX,
        choices=("f16", "i8"),
    )
    connectivity: int = setting(
        16,
        "Neighbours of a vector in the graph: more find better results and take more memory.",
        changes=Stage.INDEX,
        unit="neighbours",
        minimum=2,
        maximum=1_024,
    )
    expansion_add: int = setting(
        128,
        "Candidates examined when a vector is added: more are slower and give a better graph.",
        changes=Stage.INDEX,
        unit="candidates",
        minimum=1,
    )
    expansion_search: int = setting(
        128,
        "Candidates examined in a search: more are slower and find better results.",
        changes=None,
        unit="candidates",
        minimum=1,
    )
    rows_per_part: int = setting(
        500_000,
        "Most rows per part of the index, in whole batches, counted before rows are left out. A part is "
        "built in memory: about 1.2 kB per row of 512 f16 numbers.",
        changes=Stage.INDEX,
        unit="rows",
        minimum=1,
    )
    jobs: int = setting(
        2,
        "Parts built at the same time, each on one core and in its own memory.",
        changes=None,
        unit="parts",
        minimum=1,
        maximum=1_024,
    )
    exact_rows: int = setting(
        10_000,
        "Use exact search when a part has, or filters leave, at most this many rows.",
        changes=None,
        unit="rows",
        minimum=0,
    )
    pictures: bool = setting(  # words: ok
        True,
        "Record where the images are in the tars, so that the page can show them. On S3 this fetches every "
        "tar once.",
        changes=Stage.INDEX,
    )
