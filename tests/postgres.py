"""A real PostgreSQL server of the tests' own: made in a temporary folder, on loopback, ended by its pid."""

import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from support import free_port

USER, PASSWORD = "fleet", "hunter2-not-shown"
READY_WITHIN_S = 45.0


def programs() -> Path | None:
    """Where Debian keeps the newest PostgreSQL's programs; they are not on the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


need_postgres = pytest.mark.skipif(programs() is None, reason="needs postgres: install the package postgresql")


class Postgres:
    """A server that can be stopped and started again on the same port and data."""

    def __init__(self, folder: Path, bin_dir: Path, account: str | None) -> None:
        self._folder, self._bin, self._account = folder, bin_dir, account
        self._numbers = count(1)
        self.port = free_port()
        password_file = folder / "password"
        password_file.write_text(PASSWORD, encoding="utf-8")
        if account is not None:
            for path in (folder, password_file):
                shutil.chown(path, account)
        options = ["-A", "scram-sha-256", f"--pwfile={password_file}", "--no-sync", "-E", "UTF8", "--locale=C"]
        self._run("initdb", "-D", str(folder / "data"), "-U", USER, *options)
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._bin / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, user=self._account, cwd=self._folder)

    def start(self) -> None:
        """Start it and wait until it says that it takes connections."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": 60,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [str(self._bin / "postgres"), "-D", str(self._folder / "data"), *options]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, user=self._account, cwd=self._folder
        )
        ready = threading.Event()
        said: list[str] = []
        self._reader = threading.Thread(target=self._read, args=(ready, said), daemon=True)
        self._reader.start()
        assert ready.wait(READY_WITHIN_S), said
        assert self._process.poll() is None, said

    def _read(self, ready: threading.Event, said: list[str]) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            said.append(line)
            if "ready to accept connections" in line:
                ready.set()
        ready.set()

    def stop(self) -> None:
        """End it, cutting every connection; what was committed stays."""
        self._process.send_signal(2)  # SIGINT is PostgreSQL's "fast shutdown"
        self._process.wait(READY_WITHIN_S)
        self._reader.join(READY_WITHIN_S)
        assert self._process.stderr is not None
        self._process.stderr.close()

    def url(self, database: str, user: str = USER, password: str = PASSWORD) -> str:
        """The SQLAlchemy URL of a database here."""
        return f"postgresql+psycopg://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of a database of its own, empty."""
        name = f"test_{next(self._numbers)}"
        self.admin(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def admin(self, statement: sql.Composed) -> list[tuple[object, ...]]:
        """Run one statement beside the tested program; its rows."""
        where = f"host=127.0.0.1 port={self.port} user={USER} password={PASSWORD} dbname=postgres"
        with psycopg.connect(where, autocommit=True) as connection:
            done = connection.execute(statement)
            return done.fetchall() if done.description else []

    def cut_connections(self, url: str) -> int:
        """End every connection to that database; how many there were."""
        name = url.rpartition("/")[2]
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}"
        return len(self.admin(sql.SQL(query).format(sql.Literal(name))))


@contextmanager
def running_postgres() -> Generator[Postgres]:
    """A new server for the length of a block."""
    bin_dir = programs()
    assert bin_dir is not None
    account = "postgres" if os.geteuid() == 0 and pwd.getpwnam("postgres") else None  # it refuses to run as root
    with tempfile.TemporaryDirectory(prefix="fleet-pg-") as folder:
        server = Postgres(Path(folder), bin_dir, account)
        try:
            yield server
        finally:
            server.stop()
