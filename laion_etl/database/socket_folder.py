"""Where the socket of an embedded Postgres is: in its database folder, or in a private folder elsewhere.

The names of Unix sockets are short, so a long data folder cannot hold one. The other folder is in the
temporary folder, where all users can make files: its owner can replace the socket by their own and receive
what clients send. So it belongs to the server's OS user, and one that another user made is refused.
"""

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from laion_etl.database.server_user import ServerUser, let_through

_SOCKET = ".s.PGSQL.5432"
_MAX_BYTES = 103  # of a socket's path: macOS; Linux allows four more
_REPLACEABLE = stat.S_IWGRP | stat.S_IWOTH


def socket_folder(database: Path) -> Path:
    """Return the folder for the socket of a database folder.

    Raises PermissionError where no path is short enough.
    """
    if _fits(database):
        return database
    identity = f"{database}-{database.stat().st_ino}"
    name = f"laion-etl-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    places = (Path(tempfile.gettempdir()).resolve(), Path("/tmp").resolve())  # noqa: S108 - checked
    for place in places:
        if _fits(place / name):
            return place / name
    raise PermissionError(f"the path of the data folder is too long for a Unix socket, and so is {places[0]}")


def make_private(folder: Path, user: ServerUser) -> None:
    """Make a folder that only the server's OS user can enter.

    Raises PermissionError where others could replace it.
    """
    for above in folder.parents:
        _check_owner(above, user)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    let_through(folder, user)
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise PermissionError(f"{folder}, which is for its socket, is not a folder of yours") from error
    try:
        if os.fstat(descriptor).st_uid not in (os.geteuid(), user.uid):
            raise PermissionError(f"{folder}, which is for its socket, belongs to another user")
        os.fchown(descriptor, user.uid, user.gid)
        os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def _check_owner(folder: Path, user: ServerUser) -> None:
    status = folder.stat()
    shared = status.st_mode & _REPLACEABLE and not status.st_mode & stat.S_ISVTX
    if shared or status.st_uid not in (0, os.geteuid(), user.uid):
        raise PermissionError(f"other users can replace the folder of its socket in {folder}")


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / _SOCKET)) <= _MAX_BYTES
