"""Removal of pairs, domains and images from a store with shards, a dataset in two variants, and reports."""

import base64
import io
import json
import re
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from laion_etl.blocklists.removal_requests import Request, blocked_links, read_requests
from laion_etl.blocklists.removed_images import blocked_images
from laion_etl.cli import app
from laion_etl.core.errors import InputError
from laion_etl.core.schemas import BATCH_SCHEMA, PAIR_SCHEMA, SHARD_SCHEMA, pair_id
from laion_etl.dataset.funnel_report import crawl_funnel
from laion_etl.dataset.manifest import current_manifest
from laion_etl.dataset.variants import RESEARCH_SAFE
from laion_etl.dataset.versions import read_versions
from laion_etl.io.storage import Guard, LocalStore, Store
from laion_etl.publish import at_once
from laion_etl.publish.diff import diff_versions
from laion_etl.publish.stage import publish_dataset
from laion_etl.publish.verify import verify_version
from laion_etl.removal.lists import read_lines, read_list
from laion_etl.removal.stage import Removal, UnfinishedRemovalError, remove
from laion_etl.settings import Settings
from tests.parse.test_url_rules import raise_version
from tests.publish.world import CRAWL, Row, World, build_world, changed, draw_image, write_world

NEXT = "CC-MAIN-2026-47"
HOLDING = [f"laion-research-safe/{CRAWL}", f"laion/{CRAWL}", f"laion/{NEXT}", f"laion/{CRAWL}.2"]
HOST = "xn--bcher-kva.example"


def _world(first_batch: int) -> World:
    world = build_world(batches=2, samples=20, first_batch=first_batch)
    for row in world.rows:
        row["url"] = row["url"].replace("bücher.example", HOST)
        row["caption"] += f" no. {row['key']}"
        row["pair_id"] = pair_id(row["url"], row["caption"])
    return world


def write_all(world: World, crawl: str, store: Store) -> None:
    """Write also what `write_world` leaves out: pairs, batches, parquet of shards, embeddings."""
    write_world(world, store, crawl=crawl)
    pairs = [row | {"title": "", "language_probability": 1.0, "domain": "example",
                    "wat_file": 0, "record_offset": 0} for row in world.rows]  # fmt: skip
    _parquet(f"pairs/{crawl}/part-00000.parquet", pairs, PAIR_SCHEMA, store)
    for batch, rows in world.batches.items():
        _parquet(f"shards/{crawl}/{batch:09d}.parquet", rows, SHARD_SCHEMA, store)
        found = [pair for pair in pairs if pair["key"].startswith(f"{batch:09d}")]
        _parquet(f"batches/{crawl}/{batch:09d}.parquet", found, BATCH_SCHEMA, store)
        kept = sum(row["reason"] is None for row in rows)
        for ending in ("img", "text"):
            with store.create(f"scored/{crawl}/{batch:09d}_{ending}_emb.npy") as file:
                np.save(file, np.arange(kept * 4, dtype=np.float16).reshape(kept, 4))


def _parquet(name: str, rows: list[Row], schema: pa.Schema, store: Store) -> None:
    with store.create(name) as file:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)


@pytest.fixture(scope="module")
def worlds() -> dict[str, World]:
    return {CRAWL: _world(0), NEXT: _world(2)}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, worlds: dict[str, World]) -> Path:
    store = LocalStore(tmp_path_factory.mktemp("full"))
    for crawl, world in worlds.items():
        write_all(world, crawl, store)
        publish_dataset(crawl, Settings(), store)
    publish_dataset(CRAWL, Settings(), store, variant=RESEARCH_SAFE)
    for crawl, world in worlds.items():
        texts = "\n".join(row["url"] for row in world.kept)
        store.write(f"index/laion/_parts/{crawl}/000000000-mark.arrow", texts.encode())
    store.write(f"index/laion/{NEXT}/_stats.json", b"{}")
    return store.root


@pytest.fixture
def store(tmp_path: Path, full: Path) -> LocalStore:
    shutil.copytree(full, tmp_path / "store")
    return LocalStore(tmp_path / "store")


@pytest.fixture(scope="module")
def victims(worlds: dict[str, World]) -> dict[str, Row]:
    """Rows by the rule that names them: a URL, an image, a pair, each kept, and a rejected URL."""
    kept = [row for row in worlds[CRAWL].kept if row["nsfw_tag"] == "UNLIKELY" and HOST not in row["url"]]
    rejected = next(row for row in worlds[CRAWL].rows if row["reason"] == "low_similarity")
    return {"url": kept[0], "image": kept[7], "pair": kept[-1], "rejected": rejected}


@pytest.fixture(scope="module")
def listed(victims: dict[str, Row]) -> bytes:
    lines = (
        "# a request",
        victims["url"]["url"].removeprefix("https://"),
        victims["rejected"]["url"],
        victims["image"]["sha256"].upper(),
        f"pair:{victims['pair']['pair_id'].hex()}",
        "domain:bücher.example",
    )
    return "\n".join(lines).encode()


def gone_rows(worlds: dict[str, World], victims: dict[str, Row]) -> list[Row]:
    named = {row["url"] for row in victims.values()}
    return [
        row for world in worlds.values() for row in world.rows if row["url"] in named or HOST in row["url"]
    ]


def carry_out(listed: bytes, store: Store, *, purge: bool = False) -> Removal:
    return remove(read_list(listed, "list"), Settings(), store, purge=purge)


def contents(store: Store, name: str) -> Iterator[bytes]:
    """Yield all contents of a file, including those of parquet, tar and images embedded in pages."""
    data = store.read(name)
    yield data
    if name.endswith(".parquet"):
        for column in pq.read_table(io.BytesIO(data)).columns:
            yield b"\n".join(_bytes(value) for value in column.to_pylist())
    if name.endswith(".tar"):
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                yield member.name.encode()
                file = tar.extractfile(member)
                yield file.read() if file else b""
    for found in re.findall(rb"data:image/webp;base64,([A-Za-z0-9+/=]+)", data):
        yield base64.b64decode(found)


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def traces(store: Store, rows: list[Row]) -> list[str]:
    """Return the files that still contain the URL, text or image of a row."""
    texts = re.compile(b"|".join(re.escape(row[k].encode()) for row in rows for k in ("url", "caption")))
    images = {draw_image(row["key"]) for row in rows}
    return [
        name
        for name in store.list("")
        if any(content in images or texts.search(content) for content in contents(store, name))
    ]


def test_nothing_that_was_removed_is_left_in_the_store(
    store: LocalStore, listed: bytes, worlds: dict[str, World], victims: dict[str, Row]
) -> None:
    rows = gone_rows(worlds, victims)
    folders = {name.split("/")[0] for name in traces(store, rows)}
    assert folders == {"pairs", "batches", "shards", "scored", "dataset", "index"}
    done = carry_out(listed, store, purge=True)
    assert traces(store, rows) == []
    assert len(done.request.pair_ids) == len(rows) > 10
    assert done.request.counts == {
        "urls": 2, "sha256": 1, "pairs": 1, "domains": sum(HOST in row["url"] for row in rows)
    }  # fmt: skip
    for dataset in ("laion", "laion-research-safe"):
        assert verify_version(dataset, "", store).problems == []
    assert done.purged == tuple(HOLDING)


def test_no_checkpoint_of_parse_keeps_what_was_removed(store: LocalStore, victims: dict[str, Row]) -> None:
    store.write("checkpoints/CC-MAIN-2026-51/part-00000/000000-f.arrows", b"pairs of an interrupted attempt")
    carry_out(victims["url"]["url"].encode(), store)
    assert store.list("checkpoints") == []


def test_the_rest_stays(
    store: LocalStore, listed: bytes, worlds: dict[str, World], victims: dict[str, Row]
) -> None:
    gone = {row["key"] for row in gone_rows(worlds, victims)}
    done = carry_out(listed, store)
    assert [stats.unit for stats in done.published] == [
        f"laion-research-safe/{CRAWL}.2", f"laion/{CRAWL}.2", f"laion/{NEXT}.2"
    ]  # fmt: skip
    left = [row for world in worlds.values() for row in world.kept if row["key"] not in gone]
    manifest = current_manifest("laion", store)
    assert manifest is not None
    assert manifest.document["rows"] == len(left)
    for change in diff_versions("laion", NEXT, f"{NEXT}.2", store).subsets:
        assert (change.added, change.changed) == (0, 0)
    for crawl, world in worlds.items():
        assert crawl_funnel(store, crawl).problems == ()
        for batch, rows in world.batches.items():
            kept = [row["key"] for row in rows if row["reason"] is None]
            places = [place for place, key in enumerate(kept) if key not in gone]
            matrix = np.load(io.BytesIO(store.read(f"scored/{crawl}/{batch:09d}_img_emb.npy")))
            assert (matrix[:, 0] / 4).tolist() == places
            with tarfile.open(fileobj=io.BytesIO(store.read(f"scored/{crawl}/{batch:09d}.tar"))) as tar:
                names = [name.split(".")[0] for name in tar.getnames()]
            assert list(dict.fromkeys(names)) == [kept[place] for place in places]
            for output in store.read_stats(f"scored/{crawl}/{batch:09d}_stats.json").outputs:
                assert len(store.read(output.name)) == output.bytes
            batch_rows = pq.read_table(
                io.BytesIO(store.read(f"batches/{crawl}/{batch:09d}.parquet"))
            ).to_pylist()
            assert [bool(row["url"]) for row in batch_rows] == [row["key"] not in gone for row in rows]


def test_captions_in_files_of_the_previous_version_are_removed_too(
    store: LocalStore, listed: bytes, worlds: dict[str, World], victims: dict[str, Row]
) -> None:
    for name in (n for folder in ("pairs", "batches") for n in store.list(folder) if n.endswith(".parquet")):
        table = pq.read_table(io.BytesIO(store.read(name)))
        names = ["alt" if name == "caption" else name for name in table.column_names]
        with store.create(name) as file:
            pq.write_table(table.rename_columns(names), file)
    carry_out(listed, store, purge=True)
    assert traces(store, gone_rows(worlds, victims)) == []
    left = pq.read_table(io.BytesIO(store.read(f"batches/{CRAWL}/000000000.parquet")))
    assert any(left["alt"].to_pylist())


def test_rows_with_urls_of_an_earlier_rule_are_removed(
    store: LocalStore, victims: dict[str, Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_version(monkeypatch)  # the next rule drops the `www.` that these rows have
    assert "//www." in victims["url"]["url"]
    done = carry_out(victims["url"]["url"].encode(), store, purge=True)
    assert done.request.counts == {"urls": 1}
    assert traces(store, [victims["url"]]) == []
    assert verify_version("laion", "", store).problems == []


def test_versions_that_still_have_it_are_named_until_they_are_purged(
    store: LocalStore, listed: bytes
) -> None:
    done = carry_out(listed, store)
    assert done.holding == tuple(HOLDING)
    again = carry_out(listed, store, purge=True)
    assert (again.published, again.purged, again.request) == ((), done.holding, done.request)
    assert [one.version for one in read_versions("laion", store).listed] == [f"{NEXT}.2"]
    assert carry_out(listed, store, purge=True).purged == ()
    assert verify_version("laion", "", store).problems == []
    assert publish_dataset(CRAWL, changed(Settings(), rows_per_file=7), store).unit == f"laion/{CRAWL}.3"
    assert verify_version("laion", "", store).problems == []


def test_the_request_says_what_but_not_whom(
    store: LocalStore, listed: bytes, victims: dict[str, Row]
) -> None:
    request = carry_out(listed, store).request
    text = store.read(request.name).decode()
    assert json.loads(text)["removed"]["urls"] == 2
    assert all(row["url"] not in text and "example" not in text for row in victims.values())
    same = read_list(b"\n".join(reversed(listed.split(b"\n"))), "other order")
    assert same.id == request.id


def test_a_shard_that_comes_back_is_not_published_and_not_parsed_or_stored_again(
    store: LocalStore, full: Path, listed: bytes, victims: dict[str, Row]
) -> None:
    carry_out(listed, store)
    shutil.copytree(full / "scored", store.root / "scored", dirs_exist_ok=True)
    stats = publish_dataset(CRAWL, Settings(), store)
    assert stats.dropped["removed_by_request"] > 3
    assert not [name for name in traces(store, [victims["url"]]) if f"dataset/laion/{CRAWL}.3" in name]
    requests = read_requests(store)
    lists = blocked_links(requests).blocklists()
    urls = pa.array([victims["url"]["url"], "https://images.example.org/else.jpg"])
    assert lists.urls_blocked(urls).tolist() == [True, False]
    assert lists.domain_blocked(f"cdn.{HOST}")
    first_half = np.frombuffer(victims["image"]["pair_id"][:8], ">u8").astype(np.uint64)
    assert lists.pairs_blocked(first_half).tolist() == [True]
    image = bytes.fromhex(victims["image"]["sha256"])
    assert blocked_images(requests, 31).hashes.matches(bytes(16), image)


def test_another_removal_that_begins_meanwhile_is_taken_in(
    store: LocalStore, listed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of two removals at once had failed where the other was faster, with advice about damaged files."""
    plain, others = at_once.read_rows, [Request({"md5": ("0" * 32,)}, crawls=(CRAWL,))]

    def meanwhile(*args: Any) -> None:
        plain(*args)
        for request in (others.pop() for _ in others[:]):
            store.write(request.name, request.to_json())

    monkeypatch.setattr(at_once, "read_rows", meanwhile)

    assert carry_out(listed, store).published
    assert not others
    assert verify_version("laion", "", store).problems == []


@pytest.mark.parametrize(
    "killed_at",
    [
        "scored/{c}/000000000_stats.json", "scored/{c}/000000000.parquet", "shards/{c}/000000001.tar",
        "batches/{c}/000000001.parquet", "dataset/laion/versions.json",
        "dataset/laion-research-safe/README.md",
    ],
)  # fmt: skip
def test_broken_off_at_any_file_it_ends_the_same(
    store: LocalStore, tmp_path: Path, full: Path, listed: bytes, killed_at: str
) -> None:
    shutil.copytree(full, tmp_path / "calm")
    calm = LocalStore(tmp_path / "calm")
    carry_out(listed, calm)

    class Breaking(LocalStore):
        def create(self, name: str, guard: Guard | None = None):  # type: ignore[no-untyped-def]
            if name == killed_at.format(c=CRAWL):
                raise KeyboardInterrupt
            return super().create(name, guard)

    with pytest.raises(KeyboardInterrupt):
        carry_out(listed, Breaking(store.root))
    carry_out(listed, store)
    assert {name: store.read(name) for name in store.list("")} == {
        name: calm.read(name) for name in calm.list("")
    }


def test_a_file_that_cannot_be_read_stops_no_other_and_is_named(
    store: LocalStore, listed: bytes, worlds: dict[str, World], victims: dict[str, Row]
) -> None:
    [name] = [name for name in store.list(f"scored/{NEXT}") if name.endswith(".parquet")][:1]
    whole = store.read(name)
    store.write(name, whole[:-9])
    with pytest.raises(UnfinishedRemovalError, match=f"cannot read .*{name}") as failed:
        carry_out(listed, store)
    removal = failed.value.removal
    assert {stats.crawl for stats in removal.published} == {CRAWL}
    assert f"laion/{NEXT}" in removal.holding, "its current version still has removed rows"
    urls = {row["url"] for row in gone_rows(worlds, victims)}
    for folder in ("pairs", "batches", "shards", f"scored/{CRAWL}"):
        for other in store.list(folder):
            if other.endswith(".parquet"):
                assert not urls & set(pq.read_table(io.BytesIO(store.read(other)))["url"].to_pylist())

    store.write(name, whole)
    assert {stats.crawl for stats in carry_out(listed, store).published} >= {NEXT}


def test_a_removal_under_other_settings_publishes_with_those_of_the_manifest(
    store: LocalStore, victims: dict[str, Row]
) -> None:
    before = current_manifest("laion", store)
    assert before is not None
    today = changed(Settings(), aesthetic_min=6.5, high_resolution_px=64)
    today = replace(
        today,
        download=replace(today.download, opt_out=False),
        plan=replace(today.plan, batch_size=77),
    )
    remove(read_list(victims["url"]["url"].encode(), "list"), today, store)
    after = current_manifest("laion", store)
    assert after is not None
    parts = [manifest.part(CRAWL) for manifest in (before, after)]
    assert parts[0] is not None and parts[1] is not None
    assert parts[1].version != parts[0].version
    assert parts[1].settings == parts[0].settings
    card = store.read("dataset/laion/README.md").decode()
    assert "Owners' opt-outs were honoured" in card and "**not**" not in card


def test_the_card_says_how_many_published_rows_removals_took_out(
    store: LocalStore, worlds: dict[str, World]
) -> None:
    named = [row for row in worlds[CRAWL].kept if HOST in row["url"]]
    other = next(row for row in worlds[CRAWL].kept if HOST not in row["url"])
    remove(read_list(f"domain:{HOST}".encode(), "list"), Settings(), store)
    card = store.read(f"dataset/laion/{CRAWL}.2/README.md").decode()
    assert f"went through 1 removal request, which left {len(named)} rows" in card
    remove(read_list(other["url"].encode(), "list"), Settings(), store)
    card = store.read(f"dataset/laion/{CRAWL}.3/README.md").decode()
    assert f"went through 2 removal requests, which left {len(named) + 1} rows" in card


def test_removed_duplicates_and_those_that_a_duplicate_replaces_are_counted(tmp_path: Path) -> None:
    world, store = _world(0), LocalStore(tmp_path)
    copies = [row for row in world.kept if HOST not in row["url"]][:4]
    for row, similarity in zip(copies, (0.5, 0.45, 0.4, 0.35), strict=True):
        row.update(sha256="5" * 64, similarity=similarity)
    write_all(world, CRAWL, store)
    publish_dataset(CRAWL, changed(Settings(), duplicates="exact"), store)
    urls = [row["url"] for row in copies]
    backup = {name: store.read(name) for name in store.list(f"scored/{CRAWL}")}
    for listed, count in ((urls[:1], 1), (urls[2:3], 2), ([urls[1], urls[3]], 4)):
        remove(read_list("\n".join(listed).encode(), "list"), Settings(), store)
        manifest = current_manifest("laion", store)
        assert manifest is not None
        assert manifest.parts[0].removed == count
        card = store.read("dataset/laion/README.md").decode()
        assert f"left {count} row{'' if count == 1 else 's'} of this crawl out" in card
    for name, data in backup.items():
        store.write(name, data)
    publish_dataset(CRAWL, changed(Settings(), duplicates="exact", contact="data@example.org"), store)
    manifest = current_manifest("laion", store)
    assert manifest is not None
    part = manifest.parts[0]
    assert (part.removed, part.dropped["removed_by_request"]) == (0, 4), "they are back, and left out again"
    assert verify_version("laion", "", store).problems == []


def test_another_contact_does_not_stop_a_removal(store: LocalStore, listed: bytes) -> None:
    asked = changed(Settings(), contact="removal@example.org")
    result = remove(read_list(listed, "list"), asked, store)
    assert result.published
    assert b"write to removal@example.org" in store.read("dataset/laion/README.md")


def test_what_is_published_and_has_no_shards_any_more_is_not_passed_over(
    store: LocalStore, victims: dict[str, Row]
) -> None:
    for folder in ("shards", "scored", "pairs", "batches"):
        shutil.rmtree(store.root / folder)
    with pytest.raises(InputError, match=f"cannot find a scored batch of {CRAWL}"):
        carry_out(victims["url"]["url"].encode(), store)


def _command(store: LocalStore, tmp_path: Path, lines: list[str], *options: str) -> Result:
    (tmp_path / "list.txt").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAION_ETL_STORE", str(store.root))
        patch.delenv("LAION_ETL_DATABASE_URL", raising=False)
        return CliRunner().invoke(
            app, ["dataset", "remove", "--list", str(tmp_path / "list.txt"), *options], env={"COLUMNS": "400"}
        )


def test_samples_are_removed_by_key_or_id_and_each_line_says_what_it_matched(
    store: LocalStore, worlds: dict[str, World], tmp_path: Path
) -> None:
    kept = [row for row in worlds[CRAWL].kept if HOST not in row["url"]]
    named = {row["pair_id"] for world in worlds.values() for row in world.rows if HOST in row["url"]}
    lines = [
        kept[0]["key"], str(int(kept[1]["key"])), f"key:{kept[2]['key']}", kept[3]["pair_id"].hex(),
        "# asked by mail", HOST, "typo.example.org", "999999999900001",
    ]  # fmt: skip
    before = {name: store.read(name) for name in store.list("")}
    tried = _command(store, tmp_path, lines, "--dry-run")
    assert {name: store.read(name) for name in store.list("")} == before
    done = _command(store, tmp_path, lines)
    for result in (tried, done):
        assert result.exit_code != 0
        for number, pairs in enumerate((1, 1, 1, 1, None, len(named), 0, 0), 1):
            said = rf"line {number}: \S+: {pairs} pairs?\b"
            assert pairs is None or re.search(said, result.output), (number, result.output)
        said = str(result.exception) + result.output
        assert "line 7 (typo.example.org), line 8 (999999999900001) match nothing" in said
    gone = {row["pair_id"].hex() for row in kept[:4]} | {one.hex() for one in named}
    manifest = current_manifest("laion", store)
    assert manifest is not None
    files = [
        file.name
        for name in ("en", "multi", "nolang")
        for file in manifest.data_files(f"laion-{name}", CRAWL)
    ]
    left = [row for name in files for row in pq.read_table(io.BytesIO(store.read(name))).to_pylist()]
    assert not gone & {pair_id(row["URL"], row["TEXT"]).hex() for row in left}
    again = _command(store, tmp_path, lines[:-2], "--json")
    assert again.exit_code == 0
    allowed = _command(store, tmp_path, lines, "--allow-misses")
    assert allowed.exit_code == 0
    assert len(current_manifest("laion", store).parts) == 2  # type: ignore[union-attr]


def test_a_list_of_samples_that_do_not_exist_is_an_error(store: LocalStore, tmp_path: Path) -> None:
    done = _command(store, tmp_path, ["12345"], "--allow-misses")
    assert done.exit_code != 0
    assert "line 1 (12345) match nothing" in str(done.exception) + done.output
    assert not store.list("removals")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"example.org\ncom", "line 2: 'com' is a public suffix"),
        (b"example", "line 1: 'example' is a public suffix"),
        (b"*.co.uk", "line 1: 'co.uk' is a public suffix"),
        (b"https://co.uk/", "line 1: 'co.uk' is a public suffix"),
        (b"github.io", "line 1: 'github.io' is a public suffix.* confirm .* suffix:github.io"),
        (b"http://s3.amazonaws.com/", "line 1: 's3.amazonaws.com' is a public suffix"),
        (b"kawasaki.jp", "line 1: 'kawasaki.jp' is a public suffix"),
        (b"example.org/*", "line 1: a URL has no wildcards; write example.org/ for all"),
        (b"*.example.org/a.jpg", "line 1: a URL has no wildcards; write the domain alone"),
        (b"/media", "line 1: '/media' has no host"),
        (b"https://example.org/a.jpg # by mail", "line 1: a URL has no spaces; write comments on lines"),
        (b"example.org,by mail", "line 1: it looks like a line of a table"),
        (b'"https://example.org/a.jpg",2026', "line 1: it looks like a line of a table"),
        (b"key:12a", "line 1: it is not a key or SAMPLE_ID"),
        (b"", "names nothing to remove"),
        (b"\n# only this\n", "names nothing to remove"),
        (b"example.org\nsha256:12\n", "list line 2: it is not a SHA-256 of 64 hexadecimal digits"),
        (b"\n\nexample.org\nno host\n", "list line 4: 'no host' is not a domain"),
        (b"no host\nftp://a.org/b\ncom\nkey:x", "list line 1: 'no host' is not a domain"),
        (b"example.org\nftp://a.org/b\nno host\n/media", "list line 2: 'ftp://a.org/b' is not a URL"),
        (b"example.org\nco.uk\nno host", "line 2: 'co.uk' is a public suffix"),
        (b"domain:#example.org", "line 1: it has a comment in place of a value"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_a_list_with_a_wrong_line_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_lines(text, "list")


@pytest.mark.parametrize(
    ("line", "same"),
    [
        (b"suffix:github.io", None),
        (b"SAMPLE_ID: 20263600000000001", b"20263600000000001"),
        (b"pair_id:0123456789abcdef0123456789abcdef", b"pair:0123456789abcdef0123456789abcdef"),
        (b"https://octo.github.io/", b"http://octo.github.io"),
    ],
)
def test_columns_are_prefixes_and_a_suffix_can_be_confirmed(line: bytes, same: bytes | None) -> None:
    [found] = read_lines(line, "list").lines
    if same is None:
        assert found.rules.keys() == {"domains"}
        return
    [other] = read_lines(same, "list").lines
    assert (found.rules, found.sample) == (other.rules, other.sample)


def test_each_line_of_a_long_list_has_the_rules_that_it_has_alone() -> None:
    """Lines are hashed in blocks of 4,096, URLs together and domains together."""
    kinds = (
        "h{}.example.org",
        "https://h.org/{}/a.jpg",
        "h.org/{}/",
        "127.0.0.1 a{}.org b.org",
        "url:b{}.org/é",
    )
    texts = [kind.format(number) for number in range(900) for kind in kinds]
    lines = read_lines("\n".join(texts).encode(), "list").lines
    assert [line.text for line in lines] == texts
    assert len({line.rules.get("urls", line.rules.get("domains")) for line in lines}) == len(texts)
    for line in (*lines[:6], *lines[4093:4099], lines[-1]):
        [alone] = read_lines(line.text.encode(), "list").lines
        assert (line.rules, line.folders) == (alone.rules, alone.folders)
