"""The words of the `laion-etl` command that runs a stage: Airflow starts them, and messages name them."""

# All others are in the group of the stages.
_ELSEWHERE = {
    "crawls": ("crawl", "list"),
    "discover": ("crawl", "partitions"),
    "estimate": ("estimate",),
    "index": ("search", "index"),
}


def stage_command(stage: str) -> tuple[str, ...]:
    """Return the command that runs a stage, without `laion-etl`: `("stage", "parse")` for parse."""
    return _ELSEWHERE.get(stage, ("stage", stage))
