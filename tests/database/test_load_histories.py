"""After any history, the content of a database depends only on the last versions of the partitions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import md5
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from laion_etl.core.errors import DatabaseError
from laion_etl.core.schemas import pair_id, partition_name
from laion_etl.core.stage_stats import StageStats
from laion_etl.database import conflicts, load, pair_texts, pairs_file, range_load
from laion_etl.database.connection import Database, open_database
from laion_etl.database.dedupe_keys import DedupeRule
from laion_etl.database.load import load_partition
from laion_etl.database.loaded import load_fingerprint
from laion_etl.io.storage import LocalStore, Store
from laion_etl.plan.stage import plan_batches
from laion_etl.settings import LoadSettings, Settings
from tests.database.pairs import Pair, numbered_pairs, write_pairs

PARTITIONS = 3
# Few URLs and texts, so that most pairs meet; texts that the rule `url` prefers differently.
pairs = st.lists(
    st.tuples(
        st.sampled_from([f"https://e.org/{n}.jpg" for n in range(4)]),
        st.sampled_from(["abc", "de", "fg", "hij"]),
    ),
    max_size=8,
)


@dataclass(frozen=True)
class Step:
    """A new version of a partition is loaded, or its load is interrupted after its rows are written."""

    partition: int
    version: list[Pair]
    breaks_off: bool


histories = st.lists(st.builds(Step, st.integers(0, PARTITIONS - 1), pairs, st.booleans()), max_size=7)


class KilledError(Exception):
    """Stands for the end of the process."""


@contextmanager
def killed_before_its_end() -> Iterator[None]:
    """The load ends when its rows are written, before it is recorded as loaded."""

    def killed(*_: object) -> None:
        raise KilledError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(load._Load, "_save", killed)
        yield


def key_by_pair(pair: Pair) -> bytes:
    return pair_id(*pair)


def key_by_url(pair: Pair) -> bytes:
    return md5(pair[0].encode(), usedforsecurity=False).digest()


def order_by_text(pair: Pair) -> tuple[int, bytes]:
    """Longer texts first; all are in a reliable language."""
    return (-len(pair[1]), pair_id(*pair))


def owners(
    partitions: list[list[Pair]], key: Callable[[Pair], bytes], rank: Callable[[Pair], object]
) -> dict[bytes, tuple[int, Pair]]:
    """The partition and the text that get the row of each key."""
    found: dict[bytes, tuple[int, Pair]] = {}
    for number, version in enumerate(partitions):
        for pair in version:
            if key(pair) not in found or rank(pair) < rank(found[key(pair)][1]):  # type: ignore[operator]
                found[key(pair)] = (number, pair)
    return found


@pytest.mark.parametrize("rule", list(DedupeRule))
@hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=25,
    derandomize=True,
)
@given(history=histories, last=st.permutations(range(PARTITIONS)), versions=st.tuples(pairs, pairs, pairs))
def test_only_the_last_versions_count(
    rule: DedupeRule,
    history: list[Step],
    last: list[int],
    versions: tuple[list[Pair], ...],
    settings: Settings,
    database: Database,
) -> None:
    by_rule = replace(settings, load=LoadSettings(dedupe=str(rule), connections=3))
    database.connection.execute("truncate crawl, partition, page, pair, batch, dedupe_rule cascade")
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        # Short runs and segments, as a large partition has many of them.
        patch.setattr(conflicts, "KEYS_PER_CHUNK", 2)
        patch.setattr(range_load, "PAIRS_PER_TRANSACTION", 2)
        patch.setattr(pair_texts, "_ROWS_PER_SEGMENT", 4)
        patch.setattr(pairs_file, "_ROWS_PER_READ", 2)
        store = LocalStore(Path(folder))
        for step in history:
            write_pairs(store, "C", step.partition, step.version)
            if step.breaks_off and not is_loaded(database, store, step.partition, by_rule):
                with killed_before_its_end():
                    load_partition("C", step.partition, by_rule, store, database)
            else:
                load_partition("C", step.partition, by_rule, store, database)
        for partition in last:
            write_pairs(store, "C", partition, versions[partition])
            load_partition("C", partition, by_rule, store, database)
        if rule is DedupeRule.PAIR:
            expected = owners(list(versions), key_by_pair, lambda _: 0)
        else:
            expected = owners(list(versions), key_by_url, order_by_text)
        rows = database.connection.execute(
            "select pair_id, partition, url, caption, page_url from pair_text"
        ).fetchall()
        assert {
            key.bytes: (partition, (url, caption)) for key, partition, url, caption, _ in rows
        } == expected
        assert all(page == f"https://pages.example/{partition}" for _, partition, _, _, page in rows)
        check_counts(database, store, versions, expected)


def is_loaded(database: Database, store: Store, partition: int, settings: Settings) -> bool:
    """Whether this very version is loaded: then there is no load to interrupt."""
    parsed = store.read_stats(f"pairs/C/{partition_name(partition)}.json")
    found = database.connection.execute(
        "select from partition join crawl using (crawl_no) "
        "where crawl = 'C' and partition = %s and fingerprint = %s",
        [partition, load_fingerprint(parsed, DedupeRule.from_settings(settings.load))],
    )
    return found.fetchone() is not None


def check_counts(
    database: Database,
    store: Store,
    versions: tuple[list[Pair], ...],
    expected: dict[bytes, tuple[int, Pair]],
) -> None:
    """Each partition's stats, in the store and in Postgres, match its rows."""
    key = key_by_url if database.rows("load.rule") == [("url",)] else key_by_pair
    for number, version in enumerate(versions):
        stats = store.read_stats(f"load/C/{partition_name(number)}.json")
        own = sum(owner == number for owner, _ in expected.values())
        distinct = len({key(pair) for pair in version})
        counted = {
            "duplicate_in_partition": len(version) - distinct,
            "duplicate_in_crawl": distinct - own,
        }
        assert (stats.input, stats.kept) == (len(version), own)
        assert stats.dropped == {reason: count for reason, count in counted.items() if count}
        in_postgres = database.connection.execute(
            "select stats from partition where partition = %s", [number]
        ).fetchone()
        assert in_postgres is not None
        assert StageStats.from_plain(in_postgres[0]) == stats


def test_a_whole_partition_is_taken_over_by_many_short_runs(
    store: Store, settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of several connections end in any order."""
    monkeypatch.setattr(conflicts, "KEYS_PER_CHUNK", 7)
    monkeypatch.setattr(range_load, "PAIRS_PER_TRANSACTION", 7)
    hasty = replace(
        settings, load=LoadSettings(connections=3), database=replace(settings.database, retry_for_s=0)
    )
    for partition in (1, 0):
        write_pairs(store, "C", partition, numbered_pairs(0, 500))
        with open_database(hasty) as own:
            assert load_partition("C", partition, hasty, store, own).kept == 500
    assert store.read_stats("load/C/part-00001.json").dropped == {"duplicate_in_crawl": 500}
    rows = database.connection.execute("select partition, count(*) from pair_text group by 1").fetchall()
    assert rows == [(0, 500)]


def test_a_broken_off_load_is_not_planned_and_loses_nothing(
    store: Store, settings: Settings, database: Database
) -> None:
    mine = [("https://e.org/1.jpg", "one"), ("https://e.org/2.jpg", "two")]
    write_pairs(store, "C", 0, mine)
    write_pairs(store, "C", 1, [*mine, ("https://e.org/3.jpg", "three")])
    with killed_before_its_end():
        load_partition("C", 0, settings, store, database)
    assert database.connection.execute("select count(*) from pair").fetchone() == (2,)
    assert database.rows("status.loads") == []
    assert load_partition("C", 1, settings, store, database).kept == 1
    stats = load_partition("C", 0, settings, store, database)
    assert (stats.kept, stats.dropped) == (2, {})
    assert store.read_stats("load/C/part-00001.json").kept == 1


def test_counts_are_right_after_a_loader_ends_before_it_wrote_them(
    store: Store, settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had taken pairs over from another partition and committed that."""
    pairs = [(f"https://e.org/{n}.jpg", "one") for n in range(4)]
    write_pairs(store, "C", 0, pairs[:2])
    write_pairs(store, "C", 1, pairs)
    load_partition("C", 1, settings, store, database)

    def killed(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(load, "stats_to_store", killed)
        load_partition("C", 0, settings, store, database)
    assert load_partition("C", 0, settings, store, database).kept == 2
    plan_batches("C", settings, store, database)
    assert store.read_stats("load/C/part-00001.json").kept == 2


def test_a_database_has_one_rule(store: Store, settings: Settings, database: Database) -> None:
    write_pairs(store, "C", 0, [("https://e.org/1.jpg", "one")])
    load_partition("C", 0, settings, store, database)
    by_url = replace(settings, load=LoadSettings(dedupe="url"))
    with pytest.raises(
        DatabaseError,
        match="cannot load with LAION_ETL_LOAD_DEDUPE=url: this database removes duplicates by pair",
    ):
        load_partition("C", 0, by_url, store, database)


def test_the_texts_of_a_url_are_ranked(store: Store, settings: Settings, database: Database) -> None:
    url, long = "https://e.org/1.jpg", "x" * 200
    ranked = [("", "short"), ("", long), ("en", "longer"), ("en", long + "y")]
    by_url = replace(settings, load=LoadSettings(dedupe="url"))
    for number, (language, caption) in enumerate(ranked):
        write_pairs(store, "C", number, [(url, caption)], language)
        stats = load_partition("C", number, by_url, store, database)
        assert stats.kept == 1
        rows = database.connection.execute("select language, caption from pair").fetchall()
        assert rows == [(language, caption)]
    # From 200 characters on, longer is no better: the lower hash decides, whatever was loaded first.
    tied = [long + end for end in "abcdefgh"]
    for number, caption in enumerate(tied):
        write_pairs(store, "C", 10 + number, [(url, caption)])
        load_partition("C", 10 + number, by_url, store, database)
    best = min([long + "y", *tied], key=lambda caption: pair_id(url, caption))
    assert database.connection.execute("select caption from pair").fetchall() == [(best,)]
