"""With --json stdout is one JSON object and nothing else, whatever a command has to say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from laion_etl.cli import app
from laion_etl.minicrawl.build import MiniCrawl
from laion_etl.minicrawl.scenes import Scene
from laion_etl.minicrawl.web import MiniWeb
from laion_etl.settings import Settings
from tests.publish.fake_hub import TOKEN, FakeHub, serve
from tests.runs import run_environment
from tests.score.conftest import jpeg
from tests.test_command_names import commands

pytestmark = pytest.mark.slow

KNOWN = dict(commands())


def has_json(command: Any) -> bool:
    return any("--json" in one.opts for one in command.params)


def not_json(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


@pytest.fixture
def place(
    settings: Settings,
    minicrawl: MiniCrawl,
    miniweb: MiniWeb,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A store and a database of the test's own; the working folder has a list, labels and images."""
    given = run_environment(tmp_path / "store", settings.core.database_url, miniweb.url, miniweb.connect_to)
    given |= {"LAION_ETL_DATA_DIR": str(tmp_path / "data"), "LAION_ETL_CATALOGUE": str(minicrawl.catalogue)}
    for name, value in given.items():
        if name.startswith("LAION_ETL_"):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "remove.txt").write_text("https://nowhere.example/a.jpg\n")
    (tmp_path / "labels.csv").write_text("image,label\nimages/star/a.jpg,0\nimages/heart/a.jpg,1\n")
    for shape in ("star", "heart"):
        (tmp_path / "images" / shape).mkdir(parents=True)
        scene = Scene("red", shape, "beach", "single")
        (tmp_path / "images" / shape / "a.jpg").write_bytes(jpeg(scene))
    return tmp_path


def steps(crawl: str) -> Iterator[list[str]]:
    """Every command that has --json, in an order in which each finds what it needs."""
    of, files = ["--crawl", crawl], ["--wat-files", "0:1"]
    yield ["crawl", "list"]
    yield ["crawl", "partitions", *of, *files]
    yield ["stage", "parse", *of, *files, "--partition", "0"]
    yield ["stage", "load", *of, "--partition", "0"]
    yield ["stage", "plan", *of]
    yield ["stage", "download", *of]
    yield ["diagnose", *of]
    yield ["stage", "score", *of]
    yield ["stage", "publish", *of]
    yield ["run", crawl, *files]
    yield ["stage", "download", *of]  # nothing is left
    yield ["stage", "score", *of]
    yield ["requeue", *of]
    yield ["db", "requeue", *of, "--dry-run"]
    yield ["estimate", *of, *files]
    yield ["status"]
    yield ["status", *of]
    yield ["dataset", "verify"]
    yield ["dataset", "diff", crawl, crawl]
    yield ["dataset", "quality", *of]
    yield ["dataset", "report", *of]
    yield ["dataset", "train-check", *of, "--samples", "8", "--batch-size", "4"]
    yield ["dataset", "locate", *of]
    yield ["dataset", "remove", "--list", "remove.txt", "--allow-misses"]
    yield ["dataset", "remove", "--list", "remove.txt", "--allow-misses", "--prepare"]
    [request] = Path("store/removals").glob("*.json")
    yield ["dataset", "republish", "--request", request.stem, "--prepare"]
    yield ["dataset", "receipt", "write", "--list", "remove.txt", "--out", "receipt.json"]
    yield ["dataset", "receipt", "check", "receipt.json"]
    yield ["dataset", "evaluation-set", "images", "--name", "val"]
    yield ["dataset", "push", "me/laion"]
    yield ["model", "check"]
    yield ["model", "calibrate", *of]
    yield ["model", "eval", "retrieval", *of, "--samples", "20"]
    yield ["model", "eval", "zero-shot", "images", "--templates", "photo"]
    yield ["model", "eval", "safety", "--labels", "labels.csv"]
    yield ["search", "index"]
    yield ["search", "query", "a red star", "--top", "2"]
    yield ["search", "embeddings", "embeddings"]
    yield ["db", "seen-keys", "export", "all"]
    yield ["db", "seen-keys", "import", "store/memory/all.parquet"]
    yield ["db", "reconcile", *of]
    yield ["db", "forget", *of]
    yield ["db", "migrate"]
    yield ["db", "move-ranges", "--dry-run"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of huggingface_hub, which reads its environment when it is imported."""
    with serve(FakeHub()) as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield


@pytest.mark.usefixtures("forked_scoring", "hub")
def test_stdout_is_one_json_object(
    place: Path, minicrawl: MiniCrawl, capfd: pytest.CaptureFixture[str]
) -> None:
    found: dict[tuple[str, ...], Any] = {}
    said: dict[tuple[str, ...], str] = {}
    for arguments in steps(minicrawl.crawl):
        done = CliRunner().invoke(
            app, [*arguments, "--json"], env={"HF_TOKEN": TOKEN} if "push" in arguments else {}
        )
        assert done.exit_code == 0, (arguments, done.output, done.exception)
        [line] = done.stdout.splitlines()
        result = json.loads(line, parse_constant=not_json)
        assert isinstance(result, dict)
        words = next(tuple(arguments[:n]) for n in (3, 2, 1) if tuple(arguments[:n]) in KNOWN)
        found[words], said[words] = result, done.stderr
        # What a library or a child process prints on its own reaches the task's stdout, too.
        assert capfd.readouterr().out == "", arguments
    assert set(found) == {words for words, command in KNOWN.items() if has_json(command)}
    assert "no batch of" in said["stage", "download"]
    assert "no batch of" in said["stage", "score"]
    assert found["stage", "publish"]["variants"][0]["unit"] == found["stage", "publish"]["unit"]
    assert found["dataset", "verify"]["problems"] == []
    assert found["run",]["published"][0]["rows"] == found["stage", "publish"]["kept"]


def test_without_json_messages_are_on_stdout(place: Path) -> None:
    """Also after a command of the same process that had it."""
    json.loads(CliRunner().invoke(app, ["crawl", "list", "--json"]).stdout)
    plain = CliRunner().invoke(app, ["crawl", "list"])
    assert "released" in plain.stdout
    assert plain.stderr == ""
