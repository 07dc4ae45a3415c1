"""One published and indexed dataset for all search tests: drawn scenes, scored by the demo's model."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from laion_etl.io.storage import LocalStore
from laion_etl.minicrawl.scenes import Scene
from laion_etl.publish.stage import publish_dataset
from laion_etl.score.model import ClipModel
from laion_etl.score.stage import score_shards
from laion_etl.search.published_rows import PublishedVersion, find_published
from laion_etl.search.query import SearchIndex, open_index
from laion_etl.search.query_encoder import QueryEncoder
from laion_etl.search.stage import index_dataset
from laion_etl.settings import CoreSettings, Settings
from tests.score.conftest import CRAWL, TINY_SETTINGS, Entry, fitting, tiny_model, write_shard

__all__ = ["tiny_model"]

BY_SA = "https://creativecommons.org/licenses/by-sa/4.0/"
SHAPES = ("circle", "star", "heart")
HOSTILE = "A red star <script>document.title = 'mine'</script><img src=x onerror=\"document.title='mine'\">"
STEERED = HOSTILE.replace("star", "\u202estar\x07", 1)  # turns the reading direction
BACKGROUNDS = ("beach", "night", "meadow", "snow")


def entries(seed: int) -> list[Entry]:
    """Circles, stars and hearts in three colours before four backgrounds; some with the hazard sign."""
    made = []
    for colour in ("red", "blue", "green"):
        for shape in SHAPES:
            for place, background in enumerate(BACKGROUNDS):
                scene = Scene(colour, shape, background, "single", hazard=shape == "heart" and place == 0)
                entry = fitting(scene, ("en", "de")[place % 2], seed)
                made.append(replace(entry, license=BY_SA) if place == 2 else entry)
    again = seed if seed == 1 else 99  # in batch 1 it has the same image as another sample
    star = fitting(Scene("red", "star", "snow", "single"), "en", again)
    return [*made[:-1], replace(star, text=STEERED.encode())]


@dataclass(frozen=True)
class World:
    """The dataset: where it is, and its current version."""

    settings: Settings
    store: LocalStore

    @property
    def published(self) -> PublishedVersion:
        return find_published(self.settings.publish.name, "", self.store)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("explore")
    store = LocalStore(folder)
    settings = replace(
        TINY_SETTINGS,
        core=CoreSettings(store=str(folder), data_dir=str(folder / "data")),
        clip=replace(TINY_SETTINGS.clip, threshold_en=-1.0, threshold_other=-1.0),  # nothing is left out
    )
    for batch in (1, 2):
        write_shard(store, entries(batch), batch)
    score_shards(CRAWL, [1, 2], settings, store)
    publish_dataset(CRAWL, settings, store)
    made = World(settings, store)
    index_dataset(made.published, settings, store)
    return made


@pytest.fixture(scope="session")
def opened(world: World) -> SearchIndex:
    return open_index(world.published, world.settings, world.store)


@pytest.fixture(scope="session")
def encoder(tiny_model: ClipModel, world: World) -> Iterator[QueryEncoder]:
    with QueryEncoder(tiny_model, world.settings) as encoder:
        yield encoder


@pytest.fixture
def folder(world: World) -> Path:
    return world.store.root
