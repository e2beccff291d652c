"""A KeePass database (KDBX 3 and 4): one open handle, re-read when the file changes, saved atomically.

Opening costs seconds on purpose (Argon2), so the transformed key is kept: a changed file and a save cost
milliseconds as long as the key derivation's salt stays.
"""

import fcntl
import hashlib
import io
import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fleetkit.errors import Conflict, OverBudget, Unavailable
from secrets_mcp.backends import kdbx
from secrets_mcp.backends.port import Item, NewSecret, Status, replace_file

T = TypeVar("T")
Stamp = tuple[int, int, int]

LOCK_TRIES = 50
LOCK_WAIT_S = 0.1


@dataclass
class _Attempts:
    """Wrong passwords in a row: the same one is never tried twice, others ever more slowly."""

    failed: int = 0
    next_at: float = 0.0
    refused: bytes = b""


@dataclass(frozen=True)
class _Handle:
    kp: Any
    stamp: Stamp


class KeePass:
    """`secret://keepass/group/title#field`. Fields: password, username, url, notes, totp, custom ones."""

    name = "keepass"
    default_field = "password"

    def __init__(
        self,
        path: Path | None,
        password_file: Path | None,
        key_file: Path | None,
        clock: Callable[[], float] = time.monotonic,
        lock_tries: int = LOCK_TRIES,
    ) -> None:
        self._path, self._password_file, self._key_file = path, password_file, key_file
        self._clock, self._lock_tries = clock, lock_tries
        self._guard = threading.RLock()
        self._handle: _Handle | None = None
        self._key: bytes | None = None
        self._attempts = _Attempts()

    @property
    def writable(self) -> bool:
        return self._path is not None

    def status(self) -> Status:
        if self._path is None:
            return Status("not_configured", "set spokes.secrets.keepass_path and keepass_password_file in fleet.yaml")
        missing = [f for f in (self._path, self._password_file, self._key_file) if f and not os.access(f, os.R_OK)]
        if missing:
            return Status("unavailable", f"cannot read {missing[0]}: check the path and its permissions")
        if self._attempts.failed:
            return Status("unavailable", f"the password of {self._path} was wrong: correct {self._password_file}")
        return Status("ready", f"{self._path}, {'open' if self._handle else 'opened on first use'}")

    def items(self) -> list[Item]:
        if self._path is None:
            return []
        with self._guard:
            return kdbx.items(self._current())

    def item(self, path: str) -> Item:
        with self._guard:
            kp = self._current()
            return kdbx.describe(kp, path, kdbx.find(kp, path))

    def value(self, path: str, field: str) -> str:
        with self._guard:
            kp = self._current()
            return kdbx.value(kp, kdbx.find(kp, path), field)

    def create(self, new: NewSecret, value: str) -> Item:
        return self._edit(new.path, lambda kp: kdbx.create(kp, new, value))

    def replace(self, path: str, field: str, value: str) -> Item:
        return self._edit(path, lambda kp: kdbx.replace(kp, path, field, value))

    def restore(self, path: str, field: str) -> Item:
        return self._edit(path, lambda kp: kdbx.restore(kp, path, field))

    def _edit(self, path: str, work: Callable[[Any], None]) -> Item:
        with self._guard, self._file_lock():
            kp = self._current()
            try:
                work(kp)
                self._save(kp)
            except BaseException:
                self._handle = None  # what was changed in memory is not on disk
                raise
            return kdbx.describe(kp, path, kdbx.find(kp, path))

    def _current(self) -> Any:
        stamp = self._stamp()
        if self._handle is None or self._handle.stamp != stamp:
            self._handle = _Handle(self._open(), stamp)
        return self._handle.kp

    def _open(self) -> Any:
        raw, password, key = self._inputs()
        if self._key is not None:
            kp = kdbx.open_with_key(raw, self._key)
            if kp is not None:
                return kp
        tried = hashlib.sha256(b"\0".join((raw, (password or "").encode(), key or b""))).digest()
        self._may_try(tried)
        kp = kdbx.open_with_password(raw, password, key)
        if kp is None:
            self._count_failure(tried)
            raise self._wrong_password()
        self._attempts = _Attempts()
        self._key = kp.transformed_key
        return kp

    def _may_try(self, tried: bytes) -> None:
        if tried == self._attempts.refused:
            raise self._wrong_password()
        wait = self._attempts.next_at - self._clock()
        if wait > 0:
            raise OverBudget(
                f"{self._attempts.failed} wrong passwords for {self._path}: wait {wait:.0f} s before the next",
                retry_after=wait,
            )

    def _count_failure(self, tried: bytes) -> None:
        failed = self._attempts.failed + 1
        self._attempts = _Attempts(failed, self._clock() + min(2.0**failed, 300.0), tried)

    def _wrong_password(self) -> Unavailable:
        given = " and ".join(str(file) for file in (self._password_file, self._key_file) if file)
        return Unavailable(f"{self._path} does not open with {given or 'no password'}: correct that file, then repeat")

    def _inputs(self) -> tuple[bytes, str | None, bytes | None]:
        password = self._read(self._password_file)
        key = self._read(self._key_file)
        text = password.decode(errors="surrogateescape").rstrip("\r\n") if password is not None else None
        return self._read(self._database()) or b"", text, key

    def _read(self, file: Path | None) -> bytes | None:
        try:
            return file.read_bytes() if file else None
        except OSError as error:
            raise Unavailable(f"cannot read {file} ({error.strerror}): check the path and its permissions") from error

    def _database(self) -> Path:
        if self._path is None:
            raise Unavailable("no KeePass database: set spokes.secrets.keepass_path in fleet.yaml")
        return self._path

    def _stamp(self) -> Stamp:
        path = self._database()
        try:
            found = path.stat()
        except OSError as error:
            raise Unavailable(f"cannot read {path} ({error.strerror}): check spokes.secrets.keepass_path") from error
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _save(self, kp: Any) -> None:
        buffer = io.BytesIO()
        kp.save(buffer, transformed_key=self._key)
        if self._handle is None or self._stamp() != self._handle.stamp:
            raise Conflict(f"another program changed {self._path} meanwhile: repeat the call")
        replace_file(self._database(), buffer.getvalue())
        self._handle = _Handle(kp, self._stamp())

    @contextmanager
    def _file_lock(self) -> Generator[None]:
        """One writer of the fleet at a time; other programs are noticed by the file's stamp."""
        path = self._database()
        try:
            handle = os.open(path.with_name(f".{path.name}.fleet-lock"), os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise Unavailable(f"cannot write beside {path} ({error.strerror}): make its folder writable") from error
        try:
            self._wait_for(handle)
            yield
        finally:
            os.close(handle)

    def _wait_for(self, handle: int) -> None:
        for _ in range(self._lock_tries):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(LOCK_WAIT_S)
            else:
                return
        raise Unavailable(f"another process is writing {self._path}: repeat the call in a few seconds")
