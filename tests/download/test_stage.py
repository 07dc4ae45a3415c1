"""A batch through the whole stage: real server, real decoders, real shard files."""

import gc
import io
import json
import random
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from laion_etl.blocklists.removal_requests import Matcher, Request
from laion_etl.core.errors import OutageError
from laion_etl.core.outages import Outages
from laion_etl.core.schemas import BATCH_FILES, BATCH_SCHEMA, SHARD_SCHEMA, pair_id
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.dataset.rewrite_shards import rewrite_shard
from laion_etl.download import stage
from laion_etl.download.batch_downloader import BatchDownloader, Hooks
from laion_etl.download.hashes import pdq_hash
from laion_etl.download.stage import download_batch
from laion_etl.io.outputs import has_outputs
from laion_etl.io.storage import Guard, LocalStore, Store
from laion_etl.io.tarshard import read_members
from laion_etl.minicrawl.scenes import draw, random_scene
from laion_etl.settings import DownloadSettings, Settings
from tests.download.hostile import ANSWERS, GOOD, LONGEST_S, hostile_server, noise_image, ok
from tests.download.image_files import encoded
from tests.download.test_client import EXPECTED, TOO_SLOW, address


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    with hostile_server() as server:
        yield Settings(
            download=DownloadSettings(
                connect_to=(f"*.hostile.example=127.0.0.1:{server.server_address[1]}",),
                timeout_s=LONGEST_S,
                first_byte_timeout_s=LONGEST_S,
                idle_timeout_s=LONGEST_S,
                max_bytes=2_000_000,
                connections_per_host=100,
                decoders=2,
            )
        )


def plan(store: Store, urls: list[str], batch: int = 7) -> None:
    """Writes what the plan stage leaves for one batch."""
    rows = [
        {
            "pair_id": pair_id(url, f"text {n}"),
            "url": url,
            "caption": f"text {n}",
            "language": "en",
            "license": "?",
            "page_url": "https://page.example/",
        }
        for n, url in enumerate(urls)
    ]
    name = f"batches/C/{batch:09d}.parquet"
    with store.create(name) as file:
        pq.write_table(pa.Table.from_pylist(rows, schema=BATCH_SCHEMA), file)
    outputs: tuple[Output, ...] = (file.output,)
    stats = StageStats("plan", "C", "batches", "f", len(urls), len(urls), outputs=outputs)
    store.write_stats("batches/C/_stats.json", stats)


def rows_of(store: Store) -> list[dict[str, Any]]:
    with store.open("shards/C/000000007.parquet") as file:
        table = pq.read_table(file)
    assert table.schema.equals(SHARD_SCHEMA)
    return table.to_pylist()


def hostile_urls() -> list[str]:
    """All links but those that would wait for the limits of `settings`."""
    return [address(path) for path in sorted(set(ANSWERS) - TOO_SLOW)]


def test_every_link_has_a_row_and_every_success_a_sample(any_store: Store, settings: Settings) -> None:
    plan(any_store, hostile_urls())
    stats = download_batch("C", 7, settings, any_store)
    rows = rows_of(any_store)
    assert [row["key"] for row in rows] == [f"000000007{n:05d}" for n in range(len(rows))]
    expected = {address(path): status.value for path, status in EXPECTED.items() if path not in TOO_SLOW}
    for path in ("/half-a-jpeg", "/short-length"):
        expected[address(path)] = "decode_failed"
    assert {row["url"]: row["status"] for row in rows if row["status"] != "success"} == expected
    counted = Counter(row["status"] for row in rows)
    assert stats.kept == counted.pop("success") == len(rows) - len(expected)
    assert stats.dropped == dict(counted)
    assert stats.input == len(rows) == len(ANSWERS) - len(TOO_SLOW)


def test_a_link_that_took_too_long_has_a_row(store: Store, settings: Settings) -> None:
    plan(store, [address("/silent")])
    short = replace(settings.download, first_byte_timeout_s=0.5, robots_txt=False, tdmrep=False)
    assert download_batch("C", 7, replace(settings, download=short), store).dropped == {"timeout": 1}
    assert [row["status"] for row in rows_of(store)] == ["timeout"]


def test_the_shard_has_the_layout_of_webdataset(store: Store, settings: Settings) -> None:
    plan(store, ["http://a.hostile.example/missing", "http://a.hostile.example/good"])
    download_batch("C", 7, settings, store)
    with store.open("shards/C/000000007.tar") as file:
        members = list(read_members(file))
    assert [member for member, _ in members] == [
        f"00000000700001.{suffix}" for suffix in ("jpg", "txt", "json")
    ]
    image, text, described = (data for _, data in members)
    assert image == GOOD  # small and plain: kept as it came
    assert text == b"text 1"
    row = rows_of(store)[1]
    assert json.loads(described) == {**row, "pair_id": row["pair_id"].hex()}
    assert (row["width"], row["height"], row["original_width"]) == (300, 200, 300)
    assert row["bytes"] == len(GOOD)
    with Image.open(io.BytesIO(image)) as opened:
        assert opened.size == (300, 200)


def test_the_same_answers_give_the_same_bytes_whatever_the_order(tmp_path: Path, settings: Settings) -> None:
    urls = [f"http://a.hostile.example/{kind}?{n}" for n in range(15) for kind in ("good", "missing", "gif")]
    outputs = []
    for folder, connections in (("a", 64), ("b", 1)):
        store = LocalStore(tmp_path / folder)
        plan(store, urls)
        other = replace(settings, download=replace(settings.download, connections=connections))
        outputs.append(download_batch("C", 7, other, store).outputs)
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("number", [1, 2])
def test_a_batch_of_an_earlier_format_is_downloaded(number: int, store: Store, settings: Settings) -> None:
    """Format 1 has its captions in `alt`, neither says where they come from."""
    plan(store, ["not a url"])
    name = "batches/C/000000007.parquet"
    with store.open(name) as file:
        table = pq.ParquetFile(file).read()
    earlier = table.drop_columns(BATCH_FILES.added[3]).cast(BATCH_FILES.columns(2).with_metadata(None))
    with store.create(name) as written:
        pq.write_table(earlier.rename_columns(BATCH_FILES.columns(number).names), written)
    download_batch("C", 7, settings, store)
    [row] = rows_of(store)
    assert (row["status"], row["caption"], row["caption_source"]) == ("url_invalid", "text 0", None)


def test_a_finished_batch_is_not_fetched_again(store: Store, settings: Settings) -> None:
    plan(store, ["http://a.hostile.example/good"])
    first = download_batch("C", 7, settings, store)
    elsewhere = replace(settings, download=replace(settings.download, connect_to=()))
    assert download_batch("C", 7, elsewhere, store) == first
    stricter = replace(settings, download=replace(settings.download, min_bytes=1_000_000))
    assert download_batch("C", 7, stricter, store).dropped == {"too_few_bytes": 1}


def test_nothing_of_a_batch_stays_in_memory(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even until Python looks for unused cycles among what it has known for long: that is seldom."""
    made: list[weakref.ref[BatchDownloader]] = []

    def recorded(*arguments: Any) -> BatchDownloader:
        downloader = BatchDownloader(*arguments)
        made.append(weakref.ref(downloader))
        return downloader

    monkeypatch.setattr("laion_etl.download.stage.BatchDownloader", recorded)
    gc.disable()
    try:
        for batch in (7, 8):
            plan(store, hostile_urls()[:2], batch)
            assert download_batch("C", batch, settings, store).input == 2
        assert [downloader() for downloader in made] == [None, None]
    finally:
        gc.enable()


def test_a_blocked_hash_is_never_written(store: Store, settings: Settings, tmp_path: Path) -> None:
    plan(store, ["http://a.hostile.example/good", "http://a.hostile.example/good-chunked"])
    first = download_batch("C", 7, settings, store)
    assert first.kept == 2
    blocklist = tmp_path / "blocked.txt"
    blocklist.write_text(f"# known\n{rows_of(store)[0]['md5']}\n")
    blocking = replace(settings, download=replace(settings.download, hash_blocklist=str(blocklist)))
    assert download_batch("C", 7, blocking, store).dropped == {"blocked_hash": 2}
    row = rows_of(store)[0]
    assert (row["status"], row["width"], row["phash"]) == ("blocked_hash", None, None)
    assert row["sha256"] is not None
    with store.open("shards/C/000000007.tar") as file:
        assert list(read_members(file)) == []


@pytest.mark.parametrize("perceptual_hashes", [True, False])
def test_an_image_near_a_listed_original_is_never_written(
    store: Store,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    perceptual_hashes: bool,
) -> None:
    """The hash of the image as it is stored, of 256 pixels, is farther from the list than is searched."""
    data = encoded(draw(random_scene(random.Random(4)), 1200, 900, random.Random(4)))
    monkeypatch.setitem(ANSWERS, "/large", lambda send, _: send(ok(data)))
    plan(store, ["http://a.hostile.example/large"])
    blocklist = tmp_path / "blocked.txt"
    blocklist.write_text(pdq_hash(Image.open(io.BytesIO(data)).convert("L")).hash)
    listed = replace(
        settings.download,
        pdq_blocklist=str(blocklist),
        pdq_distance=12,
        perceptual_hashes=perceptual_hashes,
    )
    stats = download_batch("C", 7, replace(settings, download=listed), store)
    assert stats.dropped == {"blocked_hash": 1}


def test_a_listed_pdq_hash_blocks_an_image_unless_there_is_little_to_see_in_it(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hashes of blank images are alike: a listed one would block all of them."""
    pale = encoded(Image.effect_noise((300, 200), 1), "PNG")
    monkeypatch.setitem(ANSWERS, "/pale", lambda send, _: send(ok(pale)))
    plan(store, ["http://a.hostile.example/good", "http://a.hostile.example/pale"])
    assert download_batch("C", 7, settings, store).kept == 2
    rows = rows_of(store)
    assert [row["pdq_quality"] for row in rows] == [100, 0]
    blocklist = tmp_path / "blocked.txt"
    blocklist.write_text("".join(f"{row['pdq']}\n" for row in rows))
    blocking = replace(settings, download=replace(settings.download, pdq_blocklist=str(blocklist)))
    assert download_batch("C", 7, blocking, store).dropped == {"blocked_hash": 1}
    assert [row["status"] for row in rows_of(store)] == ["blocked_hash", "success"]


def test_large_images_are_scaled_down(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = noise_image(size=(1200, 900), quality=60)
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
    monkeypatch.setitem(ANSWERS, "/large", lambda send, _: send(answer))
    plan(store, ["http://a.hostile.example/large"])
    download_batch("C", 7, settings, store)
    [row] = rows_of(store)
    assert (row["original_width"], row["original_height"]) == (1200, 900)
    assert (row["width"], row["height"]) == (341, 256)


def test_what_a_removal_names_while_the_batch_is_downloaded_is_not_stored(
    store: Store, settings: Settings
) -> None:
    urls = [f"http://{host}.hostile.example/good" for host in "ab"]
    plan(store, urls)
    request = Request({"pairs": (pair_id(urls[0], "text 0").hex(),)})

    def report(_done: int, _total: int) -> None:
        store.write(request.name, request.to_json())

    stats = download_batch("C", 7, settings, store, Hooks(report))
    assert [row["url"] for row in rows_of(store)] == urls[1:]
    assert (stats.input, stats.kept, stats.dropped) == (2, 1, {"removed_by_request": 1})
    assert store.read_stats("shards/C/000000007_stats.json") == stats
    assert has_outputs(stats, store)
    assert download_batch("C", 7, settings, store) == stats


def test_an_empty_batch_is_an_empty_shard(store: Store, settings: Settings) -> None:
    plan(store, [])
    stats = download_batch("C", 7, settings, store)
    assert (stats.input, stats.kept, rows_of(store)) == (0, 0, [])


def test_progress_ends_at_the_number_of_links(store: Store, settings: Settings) -> None:
    plan(store, ["http://a.hostile.example/good"] * 5)
    seen: list[tuple[int, int]] = []
    download_batch("C", 7, settings, store, Hooks(lambda *step: seen.append(step)))
    assert seen == [(n, 5) for n in range(1, 6)]


def test_real_and_odd_images_each_end_sanely(
    shared_data: Path, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted((shared_data / "images").iterdir())
    for path in files:
        data = path.read_bytes()
        answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
        monkeypatch.setitem(ANSWERS, f"/real/{path.name}", lambda send, _, answer=answer: send(answer))
    plan(store, [f"http://a.hostile.example/real/{path.name}" for path in files])
    lenient = replace(settings, download=replace(settings.download, min_bytes=100))
    stats = download_batch("C", 7, lenient, store)
    assert stats.input == len(files) > 100
    outcomes = {row["url"].rpartition("/")[2]: row["status"] for row in rows_of(store)}
    assert outcomes == {path.name: outcome_of_real(path.name) for path in files}


OUTCOMES_OF_REAL = {
    "animated": """
        blend_op_source_transparent.png chunk_repeat_fctl.png delay_zero_denom.png delay_zero_numer.png
        dispose_op_background_final.png dispose_op_previous_region.png mode_16bit.png
        mode_grayscale_alpha.png mode_palette_alpha.png sequence_repeat_chunk.png split_fdat_zero_chunk.png
    """,
    "decode_failed": "truncated_image.png",  # of truncated_jpeg.jpg only the last byte is missing
    "too_few_bytes": """
        broken.png no_palette_with_background.gif zero_width.gif
        oom-225817ca0f8c663be7ab4b9e717b02c661e66834.tif
    """,
}


def outcome_of_real(name: str) -> str:
    """The right outcome of a file: by what is known to be wrong with it, else by its format."""
    for outcome, names in OUTCOMES_OF_REAL.items():
        if name in names.split():
            return outcome
    return "success" if name.endswith((".png", ".jpg", ".webp", ".mpo")) else "format_refused"


class _FailsOnce(LocalStore):
    """It fails when the finished stats of a shard without what was removed are written, the first time."""

    failed = False

    def write_stats(self, name: str, stats: StageStats, guard: Guard | None = None) -> StageStats:
        if name.startswith("shards/") and stats.dropped.get("removed_by_request") and not self.failed:
            type(self).failed = True
            raise OutageError("cannot write: the store is down")
        return super().write_stats(name, stats, guard)


def test_an_outage_while_a_removal_is_taken_out_leaves_stats_of_the_shard(
    tmp_path: Path, settings: Settings
) -> None:
    store = _FailsOnce(tmp_path / "store")
    urls = [f"http://{host}.hostile.example/good" for host in "ab"]
    plan(store, urls)
    request = Request({"pairs": (pair_id(urls[0], "text 0").hex(),)})

    def report(_done: int, _total: int) -> None:
        store.write(request.name, request.to_json())

    patient = Outages(600, sleep=lambda _: None)
    stats = download_batch("C", 7, settings, store, Hooks(report), outages=patient)
    assert _FailsOnce.failed
    assert (stats.kept, stats.dropped) == (1, {"removed_by_request": 1})
    assert has_outputs(stats, store)


def test_a_shard_that_a_removal_rewrote_before_its_stats_were_written_is_made_again(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = [f"http://{host}.hostile.example/good" for host in "ab"]
    plan(store, urls)
    request = Request({"pairs": (pair_id(urls[0], "text 0").hex(),)})
    requested_since = stage._requested_since

    def removed_meanwhile(*given: Any) -> Matcher:
        store.write(request.name, request.to_json())
        rewrite_shard("shards/C/000000007", store, Matcher([request], 31))
        return requested_since(*given)

    monkeypatch.setattr(stage, "_requested_since", removed_meanwhile)
    with pytest.raises(OutageError, match="a removal has rewritten its files"):
        download_batch("C", 7, settings, store)
    monkeypatch.undo()
    stats = download_batch("C", 7, settings, store)
    assert [row["url"] for row in rows_of(store) if row["status"] == "success"] == urls[1:]
    assert has_outputs(stats, store)
