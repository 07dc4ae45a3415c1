"""Who may log in to an embedded Postgres: root and the OS user that runs it, as any role, without a password.

The kernel says which OS user is at the other end of a Unix socket ("peer" of pg_hba.conf). Earlier versions
made databases with "trust", which takes everyone who reaches the socket, so the files are written at each
start.
"""

import os
from contextlib import suppress
from pathlib import Path

from laion_etl.database.server_user import ServerUser

_HEADER = "# Written by laion_etl each time it starts the server.\n"
_HBA = _HEADER + "local all all peer map=laion_etl\nlocal replication all peer map=laion_etl\n"


def restrict_logins(database: Path, user: ServerUser) -> None:
    """Write pg_hba.conf and pg_ident.conf of a database folder; in force from the next start on."""
    names = dict.fromkeys(("root", user.name))
    ident = "".join(f'laion_etl "{name}" all\n' for name in names)
    _write(database / "pg_ident.conf", _HEADER + ident, user)
    _write(database / "pg_hba.conf", _HBA, user)


def _write(path: Path, text: str, user: ServerUser) -> None:
    """Replace a file. Links are not followed: the folder is the server's, and root writes here."""
    with suppress(FileNotFoundError):
        if not path.is_symlink() and path.read_text() == text:
            return
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with new.open("x") as file:
        os.fchown(file.fileno(), user.uid, user.gid)
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
    new.replace(path)
