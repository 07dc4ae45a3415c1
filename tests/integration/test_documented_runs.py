"""The commands of the pages are run, page by page and in the order of the page, on a finished mini crawl.

Each page has a copy of the store and the database of a run of two WAT files. A page names a large crawl and
other things that are not here: `STANDS_FOR` says what takes their place, and `KEPT` which settings stay as
they are whatever a page exports. A command for one range is run for each. It has to end with exit code 0, or
the one that a comment above its block gives (tests/documented_commands.py).

Of a block that a page says is printed, each line has to be among the lines that were, in the same order. They
are compared by their shape: any number is as good as another, so are paths, hosts and counts of reasons, a
cell of a table may have a number where another has none, and a table may be wider or narrower; `...` stands
for whatever a page leaves out. Words are compared as they are.
"""

import csv
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from laion_etl.cli import app, common
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.minicrawl.build import MiniCrawl
from laion_etl.minicrawl.scenes import Scene
from laion_etl.minicrawl.web import MiniWeb
from laion_etl.report import png
from tests.database.templates import copied
from tests.documented_commands import (
    PAGES,
    ROOT,
    Block,
    CommandLine,
    blocks,
    commands_in_sentences,
    relative,
)
from tests.preloaded_commands import completed
from tests.runs import FinishedRun, run_environment
from tests.score.conftest import jpeg

pytestmark = pytest.mark.slow

# Named by pages, and here. A batch has to be one of the two.
STANDS_FOR = {
    r"CC-MAIN-2024-38|CC-MAIN-2023-06|CC-MAIN-2024-42": "CC-MAIN-2026-43",
    r"20243800000(\d)": r"20264300000\1",
    "202438004711": "202643000001",
    "0-899": "0-1",
    "^17$": "1",
    "imagenet-val,flickr": "imagenet-val",
    "laion-research-safe": "laion",
    "/data/imagenet": "imagenet",
}
# Of the run, not of the page: there are no other weights, servers and folders here.
KEPT = frozenset(
    f"LAION_ETL_{name}"
    for name in ("CLIP_MODEL", "CLIP_PRETRAINED", "CONFIG", "DATA_DIR", "DATABASE_URL", "STORE")
)
SHELL = {"export", "unset"}  # done here; `unset` is shown for settings of KEPT only
# What a page says about its example.
SETTINGS = {"docs/how-to/publish-large.md": {"LAION_ETL_PUBLISH_BATCHES_PER_RANGE": "1"}}


def has_commands_to_run(page: Path) -> bool:
    run = (block for block in blocks(page) if block.reason_not_to_run is None)
    return any(one.program == "laion-etl" for block in run for one in block.commands)


RUN = [page for page in PAGES if page.name != "CHANGELOG.md" and has_commands_to_run(page)]
_NUMBER = re.compile(r"-?\b\d[\d,]*(?:\.\d+)?(?:e-?\d+)?\b")
_PATH = re.compile(r"(?:s3:/)?/\w\S+|[\w-]+/CC-MAIN\S*")
_HOST = re.compile(r"[\w.-]+\.(?:example|invalid)\b")
_COUNTS = re.compile(r"([│(]) ?[a-z_][a-z_ ]* #(?:, (?:# more|[a-z_ ]+) #)*(?:, \.\.\.)?(?= │|\)|,? *$)")
_CELL = re.compile(r"(?<=│) (?:-|\?|#(?: [a-z]+)?) (?=│)")


def shape(text: str) -> str:
    """A line, or a part of one, without what differs between two runs that print the same."""
    text = _NUMBER.sub("#", _PATH.sub("PATH", _HOST.sub("HOST", text))).replace("under #%", "#%")
    text = " ".join(re.sub(r"\b(?:mini|laion):", "NAME:", text).split())
    return _CELL.sub(" # ", _COUNTS.sub(r"\1COUNTS", text)).rstrip(" ,")


def pattern(line: str) -> re.Pattern[str]:
    """What a line of a page stands for: `...` for anything."""
    return re.compile(".*".join(re.escape(shape(part)) + " ?" for part in line.split("...")))


class Walk:
    """A reader's way through a page, in a folder of its own."""

    def __init__(self, environment: Mapping[str, str], stands_for: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._stands_for = stands_for
        self._store = Path(environment["LAION_ETL_STORE"])
        self._ranges = ["1/2", "2/2"]
        self.problems: list[str] = []

    def through(self, page: Path) -> None:
        printed: list[str] = []
        self._environment |= SETTINGS.get(relative(page), {})
        for block in blocks(page):
            if block.reason_not_to_run is not None:
                continue
            if block.printed:
                self._compare(block, printed)
            elif block.commands:
                printed = [line for one in block.commands for line in self._output(one, block.exit_code)]

    def _compare(self, block: Block, printed: Sequence[str]) -> None:
        rest = iter([shape(line) for line in printed])
        for number, line in enumerate(block.lines, block.first_line):
            if not any(map(pattern(line).fullmatch, rest)):
                but = "\n".join(map(shape, printed))
                self.problems.append(f"{block.page}:{number}: not printed: {shape(line)}\nbut\n{but}")
                return

    def _output(self, command: CommandLine, exit_code: int) -> Iterator[str]:
        if command.program == "export":
            pairs = (self._here(word).partition("=") for word in command.words[1:])
            self._environment |= {name: value for name, _, value in pairs if name not in KEPT}
            return
        if command.program != "laion-etl":
            if command.program not in SHELL:
                self.problems.append(
                    f"{command.place}: {command.words}: run it or say why not: <!-- not run: ... -->"
                )
            return
        for arguments in self._all_ranges(command.words[1:]):
            settings = {name: value for name, value in command.environment.items() if name not in KEPT}
            done = CliRunner().invoke(app, arguments, env=self._environment | settings)
            code = getattr(done.exception, "exit_code", done.exit_code)  # as `main` has it
            if code != exit_code:
                self.problems.append(
                    f"{command.place}: {arguments}: {code}: {done.output} {done.exception!r}"
                )
            self._remember_ranges(done.stdout)
            yield from done.stdout.splitlines()

    def _all_ranges(self, words: Sequence[str]) -> Iterator[list[str]]:
        """The command for each range, if it is for one."""
        at = next((i + 1 for i, word in enumerate(words) if word in ("--range", "--hashes")), None)
        if at is None:
            yield [self._here(word) for word in words]
            return
        for one in self._ranges:
            number = one.partition("/")[0]
            arguments = [self._here(word.replace("/7.json", f"/{number}.json")) for word in words]
            yield [*arguments[:at], one, *arguments[at + 1 :]]

    def _here(self, word: str) -> str:
        """What stands here for a word of a page."""
        for there, here in self._stands_for.items():
            word = re.sub(there, here, word)
        if word == "ID":
            [request] = (self._store / "removals").glob("*.json")
            return request.stem
        return word.strip("[]")

    def _remember_ranges(self, printed: str) -> None:
        if found := re.search(r"in (\d+) ranges", printed):
            self._ranges = [f"{one + 1}/{found[1]}" for one in range(int(found[1]))]
        elif printed.startswith("{") and "ranges" in (said := json.loads(printed)):
            self._ranges = said["ranges"]


@pytest.fixture
def wide_terminal() -> Iterator[None]:
    """For the one console of a process."""
    common._console.cache_clear()
    yield
    common._console.cache_clear()


@pytest.fixture
def walk(
    finished_run: FinishedRun,
    postgres: EmbeddedServer,
    minicrawl: MiniCrawl,
    miniweb: MiniWeb,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Walk:
    """With files of the names that pages have."""
    store = tmp_path / "store"
    shutil.copytree(finished_run.store, store)
    url = copied(postgres, finished_run.database, f"walk_{uuid4().hex}")
    environment = run_environment(store, url, str(minicrawl.folder), miniweb.connect_to)
    environment |= {
        "LAION_ETL_DATA_DIR": str(tmp_path / "data"),
        "LAION_ETL_CATALOGUE": str(minicrawl.catalogue),
        "COLUMNS": "400",
    }
    (tmp_path / "request.txt").write_text("cdn.minicrawl-shop.example\n")
    for shape_ in ("star", "heart"):
        folder = tmp_path / "imagenet" / "val" / shape_
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_bytes(jpeg(Scene("red", shape_, "beach", "single")))
    (tmp_path / "names.txt").write_text("heart\nstar\n")
    shutil.copy(tmp_path / "imagenet/val/star/a.jpg", tmp_path / "holiday.jpg")
    rows = pq.read_table(next((store / "scored" / minicrawl.crawl).glob("*.parquet"))).to_pylist()
    kept = [row["key"] for row in rows if row["reason"] is None][:2]
    with (tmp_path / "labels.csv").open("w") as labels:
        written = csv.writer(labels)
        written.writerow(("image", "key", "label"))
        for label, (shape_, key) in enumerate(zip(("star", "heart"), kept, strict=True)):
            written.writerow((f"imagenet/val/{shape_}/a.jpg", key, label))
    here = {r"2024380\d{10}": kept[0], "s3://bucket/prefix": str(store), "s3://my-bucket": str(tmp_path)}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(png, "WIDTH_PX", 90)  # at their full size figures take half of the time of publishing
    return Walk(environment, here | STANDS_FOR)


@pytest.mark.usefixtures("forked_scoring", "wide_terminal")
@pytest.mark.parametrize("page", RUN, ids=relative)
def test_commands_of_a_page_run_and_print_what_it_shows(page: Path, walk: Walk) -> None:
    walk.through(page)
    assert not walk.problems, "\n".join(walk.problems)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("163 pairs (domains 163): /tmp/demo/a.json", "9 pairs (urls 9, domains 2): /tmp/x/b.json", True),
        ("│ en  │ 563 │ -0.231 │", "│ en │ 7 │ 0.1 │", True),
        ("│ load │ 3 │ - │", "│ load │ 12 │ 4 pairs │", True),
        (
            "schema: 001_schema, 002_pairs, ..., 016_last",
            "schema: 001_schema, 002_pairs, 003_more, 016_last",
            True,
        ),
        (
            "schema: 001_schema, 002_pairs, ..., 016_last",
            "schema: 001_schema, 002_pears, 003_more, 016_last",
            False,
        ),
        ("mini: last version with it CC-MAIN-2026-43", "laion: last version with it was deleted", False),
        ("│ crawl │ parts │", "┃ crawl ┃ parts ┃", False),
        ("│ crawl │ parts │", "│ crawl │ parts │ pairs │", False),
    ],
)
def test_lines_are_compared_by_their_shape(shown: str, printed: str, same: bool) -> None:
    assert bool(pattern(shown).fullmatch(shape(printed))) is same


def test_arguments_of_modules_are_ones_that_they_accept() -> None:
    """Of `python -m benchmarks.score --samples 512` and the like, also in sentences; none is run."""
    found: list[CommandLine] = []
    for page in PAGES:
        found += [one for block in blocks(page) for one in block.commands] + commands_in_sentences(page)
    given = [one for one in (line.filled_in() for line in found) if one.module[1:] and "$@" not in one.words]
    assert len(given) > 20
    asked = json.dumps([one.module for one in given])
    done = completed(["-m", "tests.parsed_arguments", asked], os.environ, ROOT)
    assert done.returncode == 0, done.stderr
    errors = zip(given, json.loads(done.stdout), strict=True)
    assert [f"{one.place}: {' '.join(one.words)}: {error}" for one, error in errors if error] == []


def test_a_wrong_argument_of_a_module_is_found() -> None:
    asked = [
        ["benchmarks.crawl_size", "--shares"],
        ["laion_etl.airflow.fleet_manifests", "C", "--consumer", "x"],
    ]
    done = completed(["-m", "tests.parsed_arguments", json.dumps(asked)], os.environ, ROOT)
    unknown, choice = json.loads(done.stdout)
    assert "unrecognized arguments: --shares" in unknown or "--shares" in unknown
    assert "x" in choice
