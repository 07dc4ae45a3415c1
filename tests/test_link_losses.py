"""Diagnosis of a batch and of a crawl: causes, hosts, and what would win back how many links."""

import io
import json
import re
from collections.abc import Sequence

import pytest
from psycopg.types.json import Jsonb
from rich.console import Console
from typer.testing import CliRunner

from laion_etl.cli import app
from laion_etl.core.errors import InputError
from laion_etl.core.funnel import DownloadStatus as S
from laion_etl.core.ids import batch_name
from laion_etl.core.schemas import shard_stem
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.connection import Database
from laion_etl.download.hashes import Digests
from laion_etl.download.images import StoredImage
from laion_etl.download.loss_causes import LOSS_CAUSES, cause_of
from laion_etl.download.shards import shard_writer
from laion_etl.io.storage import LocalStore, Store
from laion_etl.report.link_losses import LinkLosses, batch_losses, crawl_losses
from laion_etl.report.link_losses_text import losses_as_lines
from laion_etl.settings import Settings
from laion_etl.settings.registry import setting_fields

CRAWL = "CC-MAIN-2026-43"
IMAGE = StoredImage(b"image", "jpg", 1, 1, 1, 1, None, None, None)
Link = tuple[str, S, str]

KEPT = [(f"good{n % 3}.example", S.SUCCESS, "") for n in range(6)]
LOST = [
    ("good0.example", S.HTTP_ERROR, "404"),
    ("busy.example", S.HTTP_ERROR, "429"),
    ("busy.example", S.HTTP_ERROR, "429"),
    ("busy.example", S.HTTP_ERROR, "429"),
    ("new.example", S.FORMAT_REFUSED, "AVIF"),
    ("new.example", S.FORMAT_REFUSED, "AVIF"),
    ("old.example", S.FORMAT_REFUSED, "GIF"),
    ("private.example", S.OPTED_OUT_ROBOTS_TXT, ""),
]
NO_DNS = [(f"good{n % 3}.example", S.RESOLVER_FAILED, "") for n in range(13)] + KEPT[:1]


def add_batch(number: int, links: Sequence[Link], store: Store, database: Database) -> int:
    """Write the shard of a downloaded batch, and add it to the queue; return its number."""
    batch = 202643000000 + number
    pairs = [
        {
            "pair_id": bytes([place] * 16),
            "url": f"https://{host}/{place}.jpg",
            "caption": "a caption",
            "language": "en",
            "license": "?",
            "page_url": "https://page.example/",
        }
        for place, (host, _, _) in enumerate(links)
    ]
    dropped: dict[str, int] = {}
    with shard_writer(batch, pairs) as shard:
        for place, (_, status, message) in enumerate(links):
            if status is S.SUCCESS:
                shard.add_image(place, IMAGE, Digests("", ""))
            else:
                shard.add_failure(place, status, message)
                dropped[status.value] = dropped.get(status.value, 0) + 1
        files = shard.write(shard_stem(CRAWL, batch), store)
    kept = len(links) - sum(dropped.values())
    details = {"network": {"latency_s": {"resolve": {"p90": 2.5}}}}
    stats = StageStats("download", CRAWL, batch_name(batch), "f", len(links), kept, dropped, files, details)
    store.write_stats(f"{shard_stem(CRAWL, batch)}_stats.json", stats)
    add_row(batch, stats, database)
    return batch


def add_row(batch: int, stats: StageStats, database: Database) -> None:
    execute = database.connection.execute
    execute("insert into crawl (crawl) values (%s) on conflict do nothing", [CRAWL])
    execute(
        "insert into batch (batch, crawl_no, pairs, file, state, stats) "
        "select %s, crawl_no, %s, '{}', 'downloaded', %s from crawl where crawl = %s",
        [batch, stats.input, Jsonb(stats.to_plain()), CRAWL],
    )


def counts(losses: LinkLosses) -> dict[str, tuple[int, int | None]]:
    return {one.cause.name: (one.links, one.would_win) for one in losses.causes}


def printed(losses: LinkLosses) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    for line in losses_as_lines(losses):
        console.print(line, markup=False, highlight=False)
    return " ".join(console.export_text().split())


def test_every_reason_has_a_cause_and_every_remedy_names_settings_there_are() -> None:
    assert [status for status in S if cause_of(status.value).name == "other"] == [S.SUCCESS]
    known = {field.variable for field in setting_fields()}
    for cause in LOSS_CAUSES:
        for name in re.findall(r"\bLAION_ETL_\w+", f"{cause.sentence} {cause.remedy}"):
            assert name in known
        for name in re.findall(r"(?<= )_[A-Z_]+", cause.remedy):
            assert f"LAION_ETL_DOWNLOAD{name}" in known


@pytest.mark.parametrize(
    ("status", "message", "name"),
    [
        (S.HTTP_ERROR, "410", "image_gone"),
        (S.HTTP_ERROR, "403", "refused"),
        (S.HTTP_ERROR, "451", "refused"),
        (S.HTTP_ERROR, "503", "server_trouble"),
        *((S.HTTP_ERROR, status, "server_trouble") for status in ("408", "421", "425", "499", "520")),
        *((S.HTTP_ERROR, status, "refused") for status in ("400", "409", "418", "423", "431", "498")),
        (S.HTTP_ERROR, "304", "http_error"),
        (S.HTTP_ERROR, "204", "http_error"),
        (S.TOO_MANY_REDIRECTS, "", "too_many_redirects"),
        (S.TOO_MANY_REDIRECTS, "in a circle", "redirect_loop"),
        (S.INTERNAL_ERROR, "ValueError: x", "rule_failed"),
        (S.REFUSED_BY_RULE, "too red", "own_rules"),
        (S.TLS_FAILED, "certificate: Hostname mismatch", "tls_failed"),
        *(
            (S.TLS_FAILED, message, "tls_handshake")
            for message in ("handshake", "timeout", "no HTTP/1.1", "")
        ),
        (S.HTTP_ERROR, "", "http_error"),
        (S.FORMAT_REFUSED, "JPEG XL", "other_format"),
        (S.ROBOTS_UNREACHABLE, "503", "robots_unreachable"),
    ],
)
def test_messages_tell_causes_apart(status: S, message: str, name: str) -> None:
    assert cause_of(status.value, message).name == name


def test_a_batch(store: Store, database: Database) -> None:
    batch = add_batch(0, KEPT + LOST, store, database)
    losses = batch_losses(CRAWL, batch, store)
    assert (losses.links, losses.kept) == (14, 6)
    # Of the links that got past an error of the server 6 of 10 gave an image; past the format all did.
    assert counts(losses) == {
        "too_many_requests": (3, 2),
        "avif": (2, 2),
        "image_gone": (1, None),
        "other_format": (1, None),
        "opted_out": (1, None),
    }
    assert [(host.host, host.links, host.kept) for host in losses.hosts[:2]] == [
        ("busy.example", 3, 0),
        ("new.example", 2, 0),
    ]
    text = printed(losses)
    assert f"batch {batch} of {CRAWL}: 6 of 14 links gave an image (43%)." in text
    assert "about 2 (14% of all): set LAION_ETL_DOWNLOAD_ACCEPT_AVIF=true" in text
    assert "at most 2 (14% of all): lower LAION_ETL_DOWNLOAD_REQUESTS_PER_HOST_S" in text
    assert "one lookup in ten took over 2.5 s" in text


def test_what_owners_wish_has_no_remedy(store: Store, database: Database) -> None:
    links = [("a.example", status, "") for status in S if status.value.startswith("opted_out")]
    losses = batch_losses(CRAWL, add_batch(0, links, store, database), store)
    assert counts(losses) == {"opted_out": (len(links), None)}
    assert "No setting would win back" in printed(losses)


def test_where_no_link_gave_an_image_the_remedies_come_in_the_order_of_their_causes(
    store: Store, database: Database
) -> None:
    links = [("a.example", S.TIMEOUT, "")] * 3 + [("b.example", S.HTTP_ERROR, "429")] * 2
    links += [("c.example", S.TOO_MANY_REDIRECTS, "in a circle")] * 4
    losses = batch_losses(CRAWL, add_batch(0, links, store, database), store)
    assert counts(losses)["redirect_loop"] == (4, None)
    _, found = printed(losses).split("no gain can be estimated. What may help, the largest cause first: ")
    assert found.startswith("raise LAION_ETL_DOWNLOAD_FIRST_BYTE_TIMEOUT_S")
    assert found.index("_TIMEOUT_S") < found.index("lower LAION_ETL_DOWNLOAD_REQUESTS_PER_HOST_S")


def test_a_batch_behind_a_proxy(store: Store, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    links = [("good.example", S.CONNECT_TIMEOUT, "")] * 3
    batch = add_batch(0, links, store, database)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    for losses in (batch_losses(CRAWL, batch, store), crawl_losses(CRAWL, store, database)):
        assert "downloads do not use the proxy that HTTPS_PROXY names" in printed(losses)


def test_a_crawl_and_a_batch_in_which_something_else_went_wrong(store: Store, database: Database) -> None:
    for number in range(5):
        add_batch(number, KEPT + LOST, store, database)
    odd = add_batch(5, NO_DNS, store, database)
    losses = crawl_losses(CRAWL, store, database)
    assert (losses.batches, losses.links, losses.kept) == (6, 84, 31)
    assert losses.sampled_links == losses.links
    # Of 31 + 40 links that got past DNS 31 gave an image.
    assert counts(losses)["resolver_failed"] == (13, 6)
    assert counts(losses)["too_many_requests"][0] == 15
    assert [(one.part.first, one.cause.name, one.links) for one in losses.unusual] == [
        (odd, "resolver_failed", 13)
    ]
    text = printed(losses)
    assert f"Batch {odd} kept only 7% of its links, against 37% overall: 93% failed in DNS" in text
    assert json.loads(json.dumps(losses.to_plain()))["unusual"][0]["first"] == odd


@pytest.mark.parametrize("thousands", [10, 20])
def test_what_is_read_does_not_grow_with_the_crawl(
    thousands: int, store: LocalStore, database: Database
) -> None:
    """Of three batches in each thousand none has a shard; 16 are asked for."""
    stats = StageStats("download", CRAWL, "0", "f", 10, 4, {"http_error": 4, "timeout": 2})
    for thousand in range(thousands):
        for number in range(3):
            add_row(202643000000 + thousand * 1_000 + number, stats, database)
    read: list[str] = []

    class Counting(LocalStore):
        def read(self, name: str) -> bytes:
            read.append(name)
            return super().read(name)

    losses = crawl_losses(CRAWL, Counting(store.root), database)
    assert len(read) == len(set(read)) == 16
    assert losses.notes == ("16 shards of the sample could not be read and were left out",)
    assert (losses.batches, losses.links, losses.hosts) == (3 * thousands, 30 * thousands, ())
    # Without messages of links an error of the server is not told apart.
    assert counts(losses) == {"http_error": (12 * thousands, None), "timeout": (6 * thousands, 3 * thousands)}


def test_a_status_is_divided_as_the_sample_is(store: Store, database: Database) -> None:
    add_batch(0, KEPT + LOST, store, database)
    more = StageStats("download", CRAWL, "1", "f", 33, 0, {"http_error": 33})
    add_row(202643000001, more, database)  # its shard cannot be read
    found = counts(crawl_losses(CRAWL, store, database))
    assert (found["image_gone"][0], found["too_many_requests"][0]) == (9, 28)


def test_shards_that_are_damaged_or_missing(store: LocalStore, database: Database) -> None:
    batch = add_batch(0, KEPT + LOST, store, database)
    parquet = store.root / f"{shard_stem(CRAWL, batch)}.parquet"
    whole = parquet.read_bytes()
    parquet.write_bytes(whole[:-9])
    damaged = f"it is damaged .*stage download --crawl {CRAWL} --batch {batch}"
    with pytest.raises(InputError, match=damaged):
        batch_losses(CRAWL, batch, store)
    parquet.write_bytes(whole[:4] + b"\xff" * 400 + whole[404:])  # its footer is whole
    with pytest.raises(InputError, match=damaged):
        batch_losses(CRAWL, batch, store)
    assert crawl_losses(CRAWL, store, database).sampled_batches == 0
    parquet.unlink()
    with pytest.raises(InputError, match=f"stage download --crawl {CRAWL} --batch {batch}"):
        batch_losses(CRAWL, batch, store)
    with pytest.raises(InputError, match="it has no downloaded batch"):
        crawl_losses("CC-MAIN-2020-05", store, database)


def test_the_command(
    store: LocalStore, database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = add_batch(0, [*KEPT, *LOST, ("[bold]x", S.NOT_AN_IMAGE, "")], store, database)
    monkeypatch.setenv("LAION_ETL_STORE", str(store.root))
    monkeypatch.setenv("LAION_ETL_DATABASE_URL", settings.core.database_url)
    whole = CliRunner().invoke(app, ["diagnose", "--crawl", CRAWL, "--json"])
    assert (whole.exit_code, json.loads(whole.stdout)["links"]) == (0, 15)
    assert "What would win links back:" in whole.stderr
    one = CliRunner().invoke(app, ["diagnose", "--crawl", CRAWL, "--batch", str(batch)])
    assert one.exit_code == 0
    assert "Hosts that lost the most links" in one.stdout
