"""The parameters of a crawl's run, as its form shows them."""

from airflow.sdk import Param
from airflow.sdk.definitions.param import ParamsDict

from laion_etl.airflow.run_params import RUN_PARAMS, Section, wat_files_param


def _checked(params: dict[str, Param]) -> ParamsDict:
    found = ParamsDict(params)
    found.validate()
    return found


PARAMS = _checked(
    {
        "wat_files": wat_files_param(
            "Which of the crawl's WAT files to work on: 0:2 is the first two, 7 is one file. "
            "Leave it empty for all of them."
        ),
        "dry_run": Param(
            False,
            type="boolean",
            section=Section.WHAT.value,
            title="Dry run",
            description="Only estimate pairs, bytes and hours from earlier runs, and change nothing.",
        ),
        "download_workers": Param(
            4,
            type="integer",
            minimum=1,
            maximum=512,
            section=Section.HOW_MANY.value,
            title="Download workers",
            description="How many tasks download images in parallel.",
        ),
        "score_workers": Param(
            2,
            type="integer",
            minimum=1,
            maximum=512,
            section=Section.HOW_MANY.value,
            title="Score workers",
            description="How many tasks score images while others download; usually one per GPU.",
        ),
        **RUN_PARAMS,
        "allow_missing_percent": Param(
            0,
            type="number",
            minimum=0,
            maximum=100,
            section=Section.RULES.value,
            title="Missing, at most (%)",
            description="How many percent of the partitions, and of the batches, a published dataset may "
            "lack; its card lists the missing ones.",
        ),
    }
)
