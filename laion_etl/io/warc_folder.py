"""WARC files of one's own: all in a local folder, however deep."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from laion_etl.core.user_paths import user_path

_ENDINGS = (".warc", ".warc.gz")


def warc_files_in(root: str, name: str) -> list[str] | None:
    """Returns the paths of the WARC files in folder `name` of a local root, in the order of their names.

    None if the root is not local, or has no such folder.
    """
    if "://" in root and not root.startswith("file://"):
        return None
    base = Path(unquote(urlsplit(root).path)) if root.startswith("file://") else user_path(root)
    folder = base / name
    if not folder.is_dir():
        return None
    return sorted(str(path) for path in folder.rglob("*") if path.name.endswith(_ENDINGS) and path.is_file())
