"""A real PostgreSQL on loopback, for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from free_ports import free_port

PASSWORD = "correct-horse"


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs; None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return found[-1].parent if found else None


class Postgres:
    """A database server in a folder of its own. As root it runs as the user `postgres`: it refuses to run as root."""

    def __init__(self) -> None:
        folder = programs()
        assert folder is not None
        self._programs = folder
        self._as = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        self._root = Path(tempfile.mkdtemp(prefix="postgres-"))
        if self._as:
            shutil.chown(self._root, "postgres", "postgres")
        self.port = free_port()
        secret = self._root / "password"
        secret.write_text(PASSWORD)
        if self._as:
            shutil.chown(secret, "postgres", "postgres")
        data = str(self._root / "data")
        self._run(
            "initdb",
            "-D",
            data,
            "-U",
            "ablate",
            f"--pwfile={secret}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-sync",
        )
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._root} -c fsync=off"
        self._run("pg_ctl", "-D", data, "-o", options, "-l", str(self._root / "log"), "-w", "start")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [*self._as, str(self._programs / program), *arguments],
            check=True,
            capture_output=True,
            cwd=self._root,
            env=os.environ | {"PGPASSWORD": PASSWORD, "LC_ALL": "C"},
        )

    def database(self, name: str) -> str:
        """Create a database and return its URL, password included."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "ablate", name)
        return f"postgresql+psycopg://ablate:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self._root / "data"), "-m", "immediate", "stop")
        shutil.rmtree(self._root, ignore_errors=True)
