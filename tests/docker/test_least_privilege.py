"""Each stage's command with its own key for the store and its own login of the database, and nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from laion_etl.database.connection import Connection
from laion_etl.dataset.evaluation_sets import file_of
from laion_etl.minicrawl.build import MiniCrawl
from laion_etl.minicrawl.web import MiniWeb
from laion_etl.settings import Settings
from tests.docker.guarded_s3 import GuardedS3, allows
from tests.flaky_s3 import serving
from tests.preloaded_commands import completed
from tests.runs import run_environment

POLICIES = Path(__file__).parents[2] / "docker" / "s3-policies"
# What docs/kubernetes.md says. Parse and index have no database.
ROLES = {
    "discover": "laion_loader",
    "load": "laion_loader",
    "plan": "laion_planner",
    "download": "laion_worker",
    "score": "laion_worker",
    "publish": "laion_reader",
}
FOLDERS = (
    "pairs",
    "load",
    "plan",
    "batches",
    "ids",
    "shards",
    "scored",
    "score",
    "dataset",
    "publish",
    "locator",
    "removals",
    "memory",
    "checkpoints",
    "alerts",
    "index",
    "usage",
    "results",
)
# All that a stage's key may change, in addition to `usage` and `results`.
CHANGES = {
    "discover": set(),
    "parse": {"pairs", "checkpoints"},
    "load": {"load"},
    "plan": {"plan", "batches", "ids"},
    "download": {"shards"},
    "score": {"scored", "score"},
    "publish": {"dataset", "publish", "locator"},
    "index": {"index"},
}


def policies(bucket: str) -> dict[str, Any]:
    return {
        path.stem: json.loads(path.read_text().replace("my-bucket", bucket))
        for path in sorted(POLICIES.glob("*.json"))
    }


@pytest.fixture
def bucket(s3_endpoint: str) -> str:
    name = f"guarded-{uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture
def guarded(s3_endpoint: str, bucket: str) -> Iterator[GuardedS3]:
    with serving(GuardedS3(s3_endpoint, policies(bucket))) as proxy:
        yield proxy


@pytest.fixture
def logins(settings: Settings, connection: Connection) -> Iterator[dict[str, str]]:
    """Addresses of the database by stage; those without a role get one that answers nothing."""
    names = {stage: f"{stage}_{uuid4().hex}" for stage in ROLES}
    for stage, name in names.items():
        connection.execute(f"create role {name} login; grant {ROLES[stage]} to {name}")  # type: ignore[arg-type]
    urls = {stage: make_conninfo(settings.core.database_url, user=name) for stage, name in names.items()}
    yield dict.fromkeys(CHANGES, "postgresql://nowhere.invalid/laion") | urls
    for name in names.values():
        connection.execute(f"drop role {name}")  # type: ignore[arg-type]


@pytest.mark.slow
def test_stages_work_with_their_own_keys_and_logins(
    bucket: str,
    guarded: GuardedS3,
    logins: dict[str, str],
    minicrawl: MiniCrawl,
    miniweb: MiniWeb,
    tmp_path: Path,
) -> None:
    crawl, store = minicrawl.crawl, f"s3://{bucket}/laion"
    environment = run_environment(tmp_path, "", str(minicrawl.folder), miniweb.connect_to) | {
        "AWS_ENDPOINT_URL": guarded.endpoint,
        "AWS_SECRET_ACCESS_KEY": "secret",
        "LAION_ETL_DATA_DIR": str(tmp_path),
        "LAION_ETL_KEEP_RAW_SHARDS": "false",
        "LAION_ETL_STORE": store,
    }

    def run(stage: str, words: str) -> None:
        own = {"AWS_ACCESS_KEY_ID": stage, "LAION_ETL_DATABASE_URL": logins[stage]}
        result = ("--result", f"{store}/results/{crawl}/r/{stage}.json")
        command = ["-m", "laion_etl", *result, *words.split(), "--json"]
        ended = completed(command, environment | own, Path.cwd())
        assert (ended.returncode, guarded.refused) == (0, []), ended.stderr

    run("discover", f"crawl partitions --wat-files 0:1 --crawl {crawl}")
    run("parse", f"stage parse --partition 0 --wat-files 0:1 --crawl {crawl}")
    run("load", f"stage load --partition 0 --crawl {crawl}")
    run("plan", f"stage plan --prepare --crawl {crawl}")
    run("download", f"stage download --crawl {crawl}")
    run("score", f"stage score --crawl {crawl}")
    run("publish", f"stage publish --prepare --expect 0 --crawl {crawl}")
    run("index", "search index")
    run("index", "search index")  # again: deletes what no index lists
    for folder in (f"dataset/laion/{crawl}", "index/laion"):
        listed = boto3.client("s3").list_objects_v2(Bucket=bucket, Prefix=f"laion/{folder}/")
        assert listed["KeyCount"] > 2


@pytest.mark.parametrize("stage", sorted(CHANGES))
def test_a_stolen_key_changes_only_what_its_stage_writes(stage: str) -> None:
    policy = policies("bucket")[stage]

    def may(action: str, name: str) -> bool:
        return allows(policy, f"s3:{action}", f"arn:aws:s3:::bucket/{name}")

    written = {one for one in FOLDERS if may("PutObject", f"laion/{one}/C/x")}
    assert written == CHANGES[stage] | {"usage", "results"}
    deleted = {one for one in FOLDERS if may("DeleteObject", f"laion/{one}/C/x")}
    # Score deletes raw shards; usage and results are only added to.
    assert deleted <= CHANGES[stage] | ({"shards"} if stage == "score" else set())
    for action in ("GetObject", "PutObject", "DeleteObject", "ListBucket"):
        assert not may(action, "other/x")
        assert not allows(policy, f"s3:{action}", "arn:aws:s3:::bucket-2/laion/pairs/x")


def test_publish_reads_evaluation_sets_and_changes_none() -> None:
    policy, name = policies("bucket")["publish"], f"arn:aws:s3:::bucket/laion/{file_of('flickr')}"
    assert allows(policy, "s3:GetObject", name)
    assert not allows(policy, "s3:PutObject", name)
    assert not allows(policy, "s3:DeleteObject", name)


def test_there_is_a_policy_for_every_stage() -> None:
    assert set(policies("b")) == set(CHANGES)


def test_a_login_of_the_queue_reads_no_pairs(logins: dict[str, str]) -> None:
    with (
        psycopg.connect(logins["download"]) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("select from pair")
