"""Backups of changed files: made before the change, found again after a crash, undone by id.

A backup is two files in `$FLEET_DATA_DIR/backups/<hash of the path>/`: the bytes, then the record that
makes them count. Both are durable before the change they protect.
"""

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from fleetkit import NotFound
from fleetkit.trust import private_dir, write_private

Action = Literal["write", "append", "edit", "restore", "transfer"]

_ID = re.compile(r"\d{8}T\d{12}-[0-9a-f]{8}")


class Backup(BaseModel):
    """What a file was before one change."""

    backup_id: str
    at: datetime
    path: str
    action: Action = Field(description="the change it was made for")
    existed: bool = Field(description="false: restoring it removes the file")
    size: int
    sha256_before: str | None
    sha256_after: str | None = Field(description="what the change was to write; None for a removal")


class History:
    """The backups under one folder; `keep` is how many remain per file."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    def save(self, path: Path, before: bytes | None, after: str | None, action: Action) -> Backup:
        """Keep `before` (None: no such file) durably; `after` is the hash of what comes. Returns its record."""
        folder = private_dir(self._of(path))
        now = datetime.now(UTC)
        backup = Backup(
            backup_id=f"{now:%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}",
            at=now,
            path=str(path),
            action=action,
            existed=before is not None,
            size=len(before or b""),
            sha256_before=digest(before),
            sha256_after=after,
        )
        _write_durably(folder / f"{backup.backup_id}.bin", before or b"")
        write_private(folder / f"{backup.backup_id}.json", backup.model_dump_json())
        _sync_folder(folder)
        self._prune(path)
        return backup

    def list(self, path: Path) -> list[Backup]:
        """The backups of `path`, newest first."""
        records = sorted(self._of(path).glob("*.json"), reverse=True)
        return [Backup.model_validate_json(record.read_bytes()) for record in records if _ID.fullmatch(record.stem)]

    def read(self, path: Path, backup_id: str) -> bytes | None:
        """The bytes of one backup, None when the file did not exist then; raises NotFound."""
        record = self._of(path) / f"{backup_id}.json"
        if not _ID.fullmatch(backup_id) or not record.exists():
            raise NotFound(f"{path} has no backup {backup_id!r}: getFileHistory lists them")
        backup = Backup.model_validate_json(record.read_bytes())
        return record.with_suffix(".bin").read_bytes() if backup.existed else None

    def _of(self, path: Path) -> Path:
        return self._folder / hashlib.sha256(os.fsencode(path)).hexdigest()[:32]

    def _prune(self, path: Path) -> None:
        """Drop the oldest beyond the limit, and bytes whose record was never written."""
        folder = self._of(path)
        kept = {record.stem for record in sorted(folder.glob("*.json"), reverse=True)[: self._keep]}
        for file in _stale(folder, kept):
            file.unlink(missing_ok=True)


def digest(content: bytes | None) -> str | None:
    """SHA-256 in hex, None for no file."""
    return None if content is None else hashlib.sha256(content).hexdigest()


def _stale(folder: Path, kept: set[str]) -> Iterator[Path]:
    """Records first: without one, its bytes no longer count."""
    for pattern in ("*.json", "*.bin"):
        yield from (file for file in folder.glob(pattern) if file.stem not in kept)


def _write_durably(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
