"""Replacing a file in one step: at every moment, also after a crash, it is whole, old or new."""

import hashlib
import os
import shutil
import stat
from contextlib import suppress
from typing import BinaryIO

from fleetkit import Conflict
from linux_cli_mcp.jail import Place

DEFAULT_MODE = 0o644


def put(place: Place, content: bytes | BinaryIO | None, before: os.stat_result | None, mode: int | None) -> None:
    """Make the file at `place` hold `content` (None: no file), keeping owner, mode and attributes.

    Raises Conflict when it is no longer the file that `before` describes (None: no file).
    """
    assert place.folder is not None
    # One name per target: what a killed process left here is cleared by the next change of the same file.
    temporary = f".fleet-{hashlib.sha256(os.fsencode(place.name)).hexdigest()[:16]}.tmp"
    _remove(temporary, place.folder)
    try:
        if content is not None:
            _write_new(place, temporary, content, before, mode)
        _check_same(place, before)
        if content is None:
            os.unlink(place.name, dir_fd=place.folder)
        elif before is None:  # unlike a rename, a link never replaces what appeared meanwhile
            os.link(temporary, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
        else:
            os.replace(temporary, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
        os.fsync(place.folder)
    finally:
        _remove(temporary, place.folder)


def _write_new(
    place: Place, temporary: str, content: bytes | BinaryIO, before: os.stat_result | None, mode: int | None
) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(temporary, flags, 0o600, dir_fd=place.folder)
    with open(descriptor, "wb") as file:
        if isinstance(content, bytes):
            file.write(content)
        else:
            shutil.copyfileobj(content, file)
        file.flush()
        if before is not None:
            os.fchown(descriptor, before.st_uid, before.st_gid)
            _copy_attributes(place, descriptor)
        kept = DEFAULT_MODE if before is None else stat.S_IMODE(before.st_mode)
        os.fchmod(descriptor, kept if mode is None else mode)
        os.fsync(descriptor)


def _copy_attributes(place: Place, target: int) -> None:
    """Access lists and labels; a file system without them has nothing to keep."""
    source = os.open(place.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place.folder)
    try:
        with suppress(OSError):
            for name in os.listxattr(source):
                os.setxattr(target, name, os.getxattr(source, name))
    finally:
        os.close(source)


def _check_same(place: Place, before: os.stat_result | None) -> None:
    try:
        now = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
    except FileNotFoundError:
        now = None
    if _version(now) != _version(before):
        raise Conflict(f"{place.real} was changed by somebody else at the same moment: read it again and repeat")


def _version(info: os.stat_result | None) -> tuple[int, int, int] | None:
    return None if info is None else (info.st_ino, info.st_mtime_ns, info.st_size)


def _remove(name: str, folder: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
