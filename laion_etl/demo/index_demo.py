"""What remains after the demo: an index of its dataset, and a settings file that commands can use."""

import json
import shutil
import sys
from pathlib import Path

from laion_etl.io.storage import open_store
from laion_etl.settings import load_settings


def index_demo(folder: Path, settings: dict[str, str]) -> str:
    """Indexes the dataset of the demo; returns the command that explores it."""
    from laion_etl.search.published_rows import find_published
    from laion_etl.search.stage import index_dataset

    file = folder / "laion_etl.toml"
    file.write_text(_toml(folder, settings))
    found = load_settings({"LAION_ETL_CONFIG": str(file)})
    store = open_store(found.store_uri)
    index_dataset(find_published(found.publish.name, "", store), found, store)
    return f"LAION_ETL_CONFIG={file} {_program()} search serve"


def _program() -> str:
    """Return the command as the shell finds it: the environment of `make demo` is not active."""
    installed = Path(sys.executable).with_name("laion-etl")
    return "laion-etl" if shutil.which("laion-etl") or not installed.exists() else str(installed)


def _toml(folder: Path, settings: dict[str, str]) -> str:
    lines = [
        f"store = {json.dumps(str(folder / 'store'))}",
        f"data_dir = {json.dumps(str(folder))}",
        "[clip]",
        f"model = {json.dumps(settings['LAION_ETL_CLIP_MODEL'])}",
        f"pretrained = {json.dumps(settings['LAION_ETL_CLIP_PRETRAINED'])}",
        "[publish]",
        f"name = {json.dumps(settings['LAION_ETL_PUBLISH_NAME'])}",
    ]
    return "\n".join(lines) + "\n"
