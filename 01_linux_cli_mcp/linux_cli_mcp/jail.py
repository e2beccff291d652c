"""The only door through which file tools open anything.

Checking a path and opening it later leaves a gap in which a folder can be swapped for a link. Here each
component is opened from the one before it, links are never followed, and everything passed is compared
with what is hidden by identity (device and inode), so a bind mount or a second name opens nothing either.
"""

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from fleetkit import Conflict, FleetError, Invalid, NotFound, Refused, Unavailable
from linux_cli_mcp.policy import Paths

Identity = tuple[int, int]

MAX_SECRETS = 200_000  # hidden files compared with a file that has several names; above it we refuse
BULKY = (Path("/var/lib/docker"), Path("/var/lib/containers"), Path("/proc"), Path("/sys/kernel/tracing"))

_SENTENCES: dict[int, tuple[type[FleetError], str]] = {
    errno.ENOENT: (NotFound, "does not exist: check the spelling with listDirectory"),
    errno.ENOTDIR: (Invalid, "passes through something that is not a folder"),
    errno.EISDIR: (Invalid, "is a folder: use listDirectory"),
    errno.ELOOP: (Refused, "is a symbolic link that cannot be followed"),
    errno.EACCES: (Refused, "is closed to the user this service runs as"),
    errno.EPERM: (Refused, "is closed to the user this service runs as"),
    errno.EROFS: (Refused, "lies on a read-only file system"),
    errno.ENAMETOOLONG: (Invalid, "is too long for a path"),
    errno.EEXIST: (Conflict, "is being written by somebody else: read it again and repeat"),
    errno.ENOSPC: (Unavailable, "cannot be written: the disk is full"),
}


@contextmanager
def explained(path: object) -> Generator[None]:
    """Turn an OSError about `path` into the FleetError that says what it means."""
    try:
        yield
    except OSError as error:
        kind, sentence = _SENTENCES.get(error.errno or 0, (Unavailable, f"cannot be used: {error.strerror}"))
        raise kind(f"{path} {sentence}") from error


@dataclass(frozen=True)
class Opened:
    """A regular file open for reading."""

    real: Path
    file: BinaryIO
    info: os.stat_result


@dataclass(frozen=True)
class Place:
    """Where a file is or will be: an open folder and a name in it. `folder` is None when it does not exist."""

    real: Path
    folder: int | None

    @property
    def name(self) -> str:
        """The last component."""
        return self.real.name


class Jail:
    """The rules of `paths` as they are now: make one per call."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.hidden = paths.hidden
        self._identities = frozenset(filter(None, map(_identity, self.hidden)))
        self._process_devices = frozenset(_process_devices())

    @contextmanager
    def reading(self, path: str | Path) -> Generator[Opened]:
        """The regular file at `path`, open for reading; raises Refused, NotFound or Invalid."""
        with self.reading_real(self.paths.readable(path)) as opened:
            yield opened

    @contextmanager
    def reading_real(self, real: Path) -> Generator[Opened]:
        """`reading` for a real path below a folder that was found readable."""
        with explained(real):
            descriptor = self._open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        with self.opened(real, descriptor) as opened:
            yield opened

    @contextmanager
    def opened(self, real: Path, descriptor: int) -> Generator[Opened]:
        """`descriptor`, open for reading at `real`, once it is known to be a file that tools may have."""
        try:
            info = os.fstat(descriptor)
            self._check_file(info, real)
            with open(descriptor, "rb", closefd=False) as file:
                yield Opened(real, file, info)
        finally:
            os.close(descriptor)

    @contextmanager
    def folder(self, path: str | Path) -> Generator[tuple[Path, int]]:
        """The folder at `path`: its real path and a descriptor; raises Refused, NotFound or Invalid."""
        real = self.paths.readable(path)
        with self.folder_real(real) as descriptor:
            yield real, descriptor

    @contextmanager
    def folder_real(self, real: Path) -> Generator[int]:
        """`folder` for a real path below a folder that was found readable."""
        with explained(real):
            descriptor = self._open(real, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def place(self, path: str | Path, *, create: bool) -> Generator[Place]:
        """The place of a file that may be written; with `create` missing folders are made."""
        real = self.paths.writable(path)
        with explained(path):
            descriptor = self._open_parent(real.parent, create=create)
        try:
            yield Place(real, descriptor)
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _check_file(self, info: os.stat_result, path: object) -> None:
        """Raise unless this is a regular file that is no second name of a hidden one."""
        if stat.S_ISDIR(info.st_mode):
            raise Invalid(f"{path} is a folder: use listDirectory")
        if not stat.S_ISREG(info.st_mode):
            raise Refused(f"{path} is a device, pipe or socket: only regular files are opened")
        if info.st_nlink > 1 and self._is_second_name(info):
            raise Refused(f"{path} is a second name (hard link) of a hidden file")

    def _open_parent(self, real: Path, *, create: bool) -> int | None:
        try:
            return self._open(real, os.O_RDONLY | os.O_DIRECTORY, create=create)
        except FileNotFoundError:
            return None

    def _open(self, real: Path, flags: int, *, create: bool = False) -> int:
        """Walk to `real` and open it. The walk starts at the workspace for what lies in it."""
        base = self.paths.workspace if real.is_relative_to(self.paths.workspace) else Path("/")
        current = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        parts = real.relative_to(base).parts or (".",)
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            wanted = flags if last else os.O_PATH | os.O_DIRECTORY
            try:
                following = _step(current, part, wanted, create=create)
            finally:
                os.close(current)
            current = following
            self._check_identity(current, real)
        return current

    def _check_identity(self, descriptor: int, real: Path) -> None:
        info = os.fstat(descriptor)
        if (info.st_dev, info.st_ino) in self._identities or info.st_dev in self._process_devices:
            os.close(descriptor)
            raise Refused(f"{real} leads to a hidden place")

    def _is_second_name(self, info: os.stat_result) -> bool:
        secrets = self._secret_files
        return secrets is None or (info.st_dev, info.st_ino) in secrets

    @cached_property
    def _secret_files(self) -> frozenset[Identity] | None:
        """The identity of every hidden file, None when there are too many to know."""
        found: set[Identity] = set(self._identities)
        for root in self.hidden:
            if root not in BULKY:  # a link into these could only be made by their own owner, root
                _collect(root, self.paths.workspace, found)
            if len(found) > MAX_SECRETS:
                return None
        return frozenset(found)


def _step(parent: int, part: str, flags: int, *, create: bool) -> int:
    try:
        return os.open(part, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except FileNotFoundError:
        if not create:
            raise
        os.mkdir(part, 0o755, dir_fd=parent)
        return os.open(part, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def _collect(folder: Path, skip: Path, found: set[Identity]) -> None:
    pending = [folder]
    while pending and len(found) <= MAX_SECRETS:
        here = pending.pop()
        try:
            device = here.lstat().st_dev
            with os.scandir(here) as entries:
                for entry in entries:
                    found.add((device, entry.inode()))
                    if entry.is_dir(follow_symlinks=False) and Path(entry.path) != skip:
                        pending.append(Path(entry.path))
        except OSError:
            continue  # a file, gone, or closed to us: then a second name is closed to us as well


def _identity(path: Path) -> Identity | None:
    try:
        info = path.lstat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _process_devices() -> list[int]:
    """The devices of every mounted procfs: a chroot may hold a second one."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    fields = [line.split(" - ", 1) for line in lines]
    mounts = [left.split()[2].split(":") for left, right in fields if right.startswith("proc ")]
    return [os.makedev(int(major), int(minor)) for major, minor in mounts]
