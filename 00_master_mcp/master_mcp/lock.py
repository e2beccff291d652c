"""One hub per data directory, whatever kills it: the kernel frees the lock with the process."""

import fcntl
import os
from pathlib import Path
from types import TracebackType

from fleetkit import trust
from fleetkit.errors import Conflict


class DataDirLock:
    """Holds `$FLEET_DATA_DIR/hub.lock` for the length of a block; the file names the holder's pid.

    Raises Conflict, with that pid, when another process holds it.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._handle = -1

    def __enter__(self) -> "DataDirLock":
        path = _path(trust.private_dir(self._data_dir))
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise Conflict(
                f"{self._data_dir} is in use by the hub with pid {_written(path)}: use that one, stop it with "
                f"`kill {_written(path)}`, or set FLEET_DATA_DIR to another directory"
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        self._handle = handle
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)


def holder(data_dir: Path) -> int | None:
    """The pid of the hub that runs on this data directory, None when none does."""
    try:
        handle = os.open(_path(data_dir), os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(_written(_path(data_dir)))
    finally:
        os.close(handle)
    return None


def _path(data_dir: Path) -> Path:
    return data_dir / "hub.lock"


def _written(path: Path) -> str:
    """The pid in the file; 0 in the instant between locking and writing."""
    return path.read_text(encoding="utf-8").strip() or "0"
