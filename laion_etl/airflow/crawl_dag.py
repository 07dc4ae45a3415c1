"""One DAG per known crawl: the order of its tasks. The work itself is done by laion_etl's stage commands.

    estimate -> discover -> (parse -> load)[partition] -> plan -> download[worker] -> score[group] -> publish
                                                                                 -> digest, verdict

Parsing it reads one local JSON file, the catalogue: no network, no database, no torch.
"""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import (
    DAG,
    AsyncCallback,
    DeadlineAlert,
    Param,
    TriggerRule,
    get_current_context,
    get_parsing_context,
    task,
    task_group,
)
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from laion_etl.airflow.alerts import ESTIMATE, RunCreated, run_is_late, send_digest
from laion_etl.airflow.operators import Stage, counts, stage
from laion_etl.airflow.tasks import (
    DATASET,
    DEFAULTS,
    PAIRS,
    RUN_PARAMS,
    SETTINGS,
    SHARDS,
    Section,
    checked,
    nothing_produced,
    produced,
    set_params,
    wat_files_param,
)
from laion_etl.airflow.timetable import CrawlTimetable
from laion_etl.crawl import Crawl, known_crawls, written_numbers

# A failed partition, worker or group does not block the others: later tasks continue with those that
# succeeded, and the verdict at the end fails the run.
GO_ON = TriggerRule.ALL_DONE_MIN_ONE_SUCCESS

# A readable label instead of the map index.
MAPPED: dict[str, Any] = {"map_index_template": "{{ label }}"}

PARAMS = {
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
    "score_groups": Param(
        2,
        type="integer",
        minimum=1,
        maximum=512,
        section=Section.HOW_MANY.value,
        title="Score groups",
        description="How many tasks score images in parallel; usually one per GPU.",
    ),
    **RUN_PARAMS,
    "allow_missing_percent": Param(
        0,
        type="number",
        minimum=0,
        maximum=100,
        section=Section.RULES.value,
        title="Missing, at most (%)",
        description="How many percent of the partitions, and of the batches, a published dataset may lack; "
        "its card lists the missing ones.",
    ),
}
CHECKED_PARAMS = checked(PARAMS)

RUN_DEADLINE = DeadlineAlert(
    reference=RunCreated(),
    interval=timedelta(days=SETTINGS.alerts.run_days),
    callback=AsyncCallback(run_is_late, kwargs={"days": SETTINGS.alerts.run_days}),
    name="run",
)

DOC = """\
Builds the image-text dataset of **{crawl.id}** ({crawl.name}, released {crawl.released}).

Press *Trigger*: by default it works on all WAT files, with `0:2` on the first two. Or backfill it over its
release date. It never starts on its own. `discover` checks the parameters of a run, and refuses rules that
differ from those under which pairs of this crawl are already planned.

Every task runs one `laion-etl` command, shown at the top of its log; copy it from there to repeat it by hand.

A red partition does not stop the others, but `publish` refuses to leave it out unless *Missing, at most (%)*
allows that; `verdict` fails the run. Fix the cause and clear the red task with *downstream*; finished work
is recognised and skipped. See docs/operations.md.
"""


@stage(execution_timeout=timedelta(minutes=15))
def estimate(crawl: str) -> Stage[None]:
    """In a dry run, estimate the output of the WAT files; otherwise do nothing."""
    if get_current_context()["params"]["dry_run"]:
        found = yield ["estimate", "--crawl", crawl, *_selection()]
        get_current_context()["ti"].xcom_push(key=ESTIMATE, value=found)
        raise AirflowSkipException("dry run: the estimate is in the log above; nothing else is done")


@stage(execution_timeout=timedelta(minutes=15))
def discover(crawl: str) -> Stage[list[int]]:
    """Check the parameters of the run and list its partitions; returns their numbers."""
    found = yield ["discover", "--crawl", crawl, *_selection()]
    partitions = found["partitions"]
    longest = conf.getint("core", "max_map_length")
    if len(partitions) > longest:
        raise AirflowFailException(
            f"cannot map {len(partitions):,} partitions of {crawl}: Airflow maps at most {longest:,} tasks; "
            "raise LAION_ETL_WAT_FILES_PER_PARTITION, or choose fewer WAT files with the parameter wat_files"
        )
    return partitions


@stage(**MAPPED, pool=SETTINGS.airflow.parse_pool, execution_timeout=timedelta(hours=8))
def parse(crawl: str, number: int) -> Stage[dict[str, int]]:
    """Extract image links with captions from the WAT files of one partition."""
    _label(f"partition {number}")
    result = yield ["parse", "--crawl", crawl, "--partition", str(number), *_selection()]
    return counts(result)


@stage(**MAPPED, execution_timeout=timedelta(hours=2))
def load(crawl: str, number: int) -> Stage[dict[str, int]]:
    """Put the pairs of one partition into Postgres, without duplicates."""
    _label(f"partition {number}")
    result = yield ["load", "--crawl", crawl, "--partition", str(number)]
    return counts(result)


@task_group(group_id="partition", tooltip="Consecutive WAT files")
def partition(crawl: str, number: int) -> None:
    """Parse and then load each partition separately."""
    parse(crawl, number) >> load(crawl, number)


@stage(trigger_rule=GO_ON, execution_timeout=timedelta(hours=6), outlets=[PAIRS])
def plan(crawl: str) -> Stage[list[int]]:
    """Cut the loaded pairs into batches; returns the numbers of the download workers, at most one a batch."""
    result = yield ["plan", "--crawl", crawl]
    batches = result["batches"]
    if batches:
        produced(PAIRS, crawl, batches=len(batches), plan=result["plan"])
    else:
        nothing_produced(PAIRS)
    workers = int(get_current_context()["params"]["download_workers"])
    return list(range(max(1, min(workers, len(batches)))))


@stage(**MAPPED, pool=SETTINGS.airflow.download_pool, execution_timeout=timedelta(days=14))
def download(crawl: str, worker: int) -> Stage[dict[str, int | str]]:
    """Download images: claim one batch after another until none is left."""
    _label(f"worker {worker}")
    result = yield ["download", "--crawl", crawl]
    return {**counts(result), "done": result["done"], "plan": result["plan"]}


@task(trigger_rule=GO_ON, outlets=[SHARDS])
def group(crawl: str) -> list[str]:
    """Divide the shards among the score groups; returns I/G of every group."""
    context = get_current_context()
    ended = [worker for worker in context["ti"].xcom_pull(task_ids=["download"]) if worker]
    last = max(ended, key=lambda worker: worker["done"], default={"done": 0})
    if last["done"]:
        produced(SHARDS, crawl, batches=last["done"], plan=last["plan"])
    else:
        nothing_produced(SHARDS)
    groups = int(context["params"]["score_groups"])
    return [f"{index}/{groups}" for index in range(groups)]


@stage(**MAPPED, pool=SETTINGS.airflow.score_pool, execution_timeout=timedelta(days=7))
def score(crawl: str, group: str) -> Stage[dict[str, int]]:
    """Compute similarity, safety and aesthetic scores for the shards of one group."""
    _label(f"group {group}")
    result = yield ["score", "--crawl", crawl, "--group", group]
    return counts(result)


@stage(trigger_rule=GO_ON, execution_timeout=timedelta(hours=12), outlets=[DATASET])
def publish(crawl: str) -> Stage[dict[str, Any]]:
    """Write the dataset with its card, manifest and report; returns their locations and the number of rows.

    Returns nothing when the crawl has nothing new.
    """
    context = get_current_context()
    partitions = written_numbers(context["ti"].xcom_pull(task_ids="discover"))
    allowed = str(context["params"]["allow_missing_percent"] / 100)
    published = yield ["publish", "--crawl", crawl, "--expect", partitions, "--allow-missing", allowed]
    if published.get("nothing_new"):
        nothing_produced(DATASET)
        return {}
    places = {what: published[what] for what in ("dataset", "report")}
    produced(DATASET, crawl, **places, fingerprint=published["fingerprint"])
    return {**places, "version": published["unit"], "rows": published["kept"]}


@task(trigger_rule=TriggerRule.ALL_DONE, execution_timeout=timedelta(minutes=15))
def digest() -> None:
    """Send a summary of the run, whether it succeeded or not."""
    send_digest(get_current_context())


def verdict() -> EmptyOperator:
    """Succeed only if every task did: otherwise a published run would hide its failed partitions."""
    # Without its own callback the scheduler runs it, without a worker.
    return EmptyOperator(
        task_id="verdict",
        trigger_rule=TriggerRule.ALL_SUCCESS,
        doc_md=verdict.__doc__,
        on_success_callback=None,
        on_skipped_callback=None,
    )


def crawl_dag(crawl: Crawl) -> DAG:
    """The DAG of a crawl."""
    with DAG(
        dag_id=f"crawl_{crawl.id}",
        # The list of DAGs shows no description, only this name; longer ones wrap in titles and links.
        dag_display_name=f"{crawl.id}: image-text dataset",
        description=f"Builds the image-text dataset of {crawl.name}",
        schedule=CrawlTimetable(crawl.id, crawl.released),
        catchup=False,
        # It never starts on its own (see the timetable), and a run of a paused DAG would wait indefinitely.
        is_paused_upon_creation=False,
        max_active_runs=1,
        default_args=DEFAULTS,
        tags=["laion_etl", "crawl", str(crawl.released.year)],
        doc_md=DOC.format(crawl=crawl),
        deadline=RUN_DEADLINE,
    ) as dag:
        discovered = discover(crawl.id)
        estimate(crawl.id) >> discovered
        loaded = partition.partial(crawl=crawl.id).expand(number=discovered)
        planned = plan(crawl.id)
        downloaded = download.partial(crawl=crawl.id).expand(worker=planned)
        groups = group(crawl.id)
        scored = score.partial(crawl=crawl.id).expand(group=groups)
        published = publish(crawl.id)
        loaded >> planned
        downloaded >> groups
        scored >> published
        everything = [loaded, downloaded, scored, published]
        everything >> verdict()
        everything >> digest()
    set_params(dag, CHECKED_PARAMS)
    return dag


def _selection() -> list[str]:
    """The WAT files of the run, as an option of the command."""
    chosen = get_current_context()["params"]["wat_files"]
    return ["--wat-files", chosen] if chosen else []


def _label(text: str) -> None:
    """Set the label that the UI shows for this mapped task instead of its index."""
    get_current_context()["label"] = text


def _wanted(crawl: Crawl) -> bool:
    """Parse only its own DAG in a task's process."""
    wanted = get_parsing_context().dag_id
    return wanted is None or wanted == f"crawl_{crawl.id}"


def crawl_dags() -> dict[str, DAG]:
    """The DAGs of all known crawls by their ids, for `globals().update(crawl_dags())` in a DAG file."""
    return {f"crawl_{crawl.id}": crawl_dag(crawl) for crawl in filter(_wanted, known_crawls(SETTINGS))}
