"""Settings of the search index."""

from dataclasses import dataclass

from laion_etl.settings.fields import setting


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """The index of a published dataset that `laion-etl search` and `laion-etl explore` look into."""

    dtype: str = setting(
        "f16", "Numbers of the indexed vectors: f16, as they were scored, or i8: half the size, rounded."
    )
    connectivity: int = setting(
        16, "Neighbours of a vector in the graph: more finds better and takes memory."
    )
    expansion_add: int = setting(
        128, "Candidates looked at when a vector is added: more is slower and better."
    )
    expansion_search: int = setting(128, "Candidates looked at in a search: more is slower and finds more.")
    rows_per_part: int = setting(
        500_000,
        "Rows indexed together, whole batches, before anything was left out. A part is built in memory: "
        "about 1.2 kB a row with 512 f16 numbers.",
    )
    jobs: int = setting(2, "Parts built at the same time, each by one core and in memory of its own.")
    exact_rows: int = setting(
        10_000, "When a part has, or the filters leave of it, at most so many rows, each is compared."
    )
    pictures: bool = setting(
        True,
        "Note where the pictures lie in the tars, so that the page can show them. On S3 that fetches every "
        "tar once.",
    )
