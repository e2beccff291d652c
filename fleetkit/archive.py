"""A folder as one compressed file: written whole or not at all, unpacked only when every byte is as it was.

The file is a gzipped tar whose first member, `manifest.json`, names each other one with its size and SHA-256. That
finds damage. It proves nothing about who wrote it: whoever can change the file can change the manifest too.
"""

import hashlib
import io
import json
import os
import secrets
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from fleetkit.errors import Conflict, Invalid, Unavailable
from fleetkit.shapes import mapping

FORMAT = 1
MANIFEST = "manifest.json"
MAX_MANIFEST = 64 * 1024 * 1024
CHUNK = 1024 * 1024
_DAMAGE = (tarfile.TarError, EOFError, zlib.error)


def pack(folder: Path, target: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Make `target` (mode 0600) of all files in `folder`; the manifest, which says `facts` and `files`.

    Raises Conflict when there is such a file, Unavailable when it cannot be written.
    """
    if target.exists():
        raise Conflict(f"{target} exists: name another file")
    files = {path.relative_to(folder).as_posix(): _described(path) for path in _files(folder)}
    manifest = {"format": FORMAT, **facts, "files": files}
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            _write(file, folder, manifest)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise Unavailable(f"cannot write {target}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return manifest


def unpack(file: Path, folder: Path) -> dict[str, Any]:
    """Put what a packed file holds into `folder`, which is empty; its manifest.

    Raises Invalid when it is damaged or no such file, Unavailable when it cannot be read or there is no room.
    """
    try:
        with tarfile.open(file, "r:gz") as tar:
            manifest = _manifest(tar, file)
            wanted = dict(mapping(manifest["files"]))
            while (member := tar.next()) is not None:
                known = mapping(wanted.pop(member.name, None))
                if not known or not member.isreg():
                    raise Invalid(f"{file} holds {member.name!r}, which its manifest does not: it is not restored")
                _put(tar, member, _place(folder, member.name, file), known, file)
        if wanted:
            raise Invalid(f"{file} is not whole: {min(wanted)!r} is missing; use another backup")
        return manifest
    except _DAMAGE as error:
        raise Invalid(f"{file} is damaged or no backup ({error}): use another one") from error
    except OSError as error:  # bad gzip is one, without a number
        if error.errno is None:
            raise Invalid(f"{file} is damaged or no backup ({error}): use another one") from error
        raise Unavailable(f"cannot unpack {file}: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _described(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "size": path.stat().st_size}


def _write(file: IO[bytes], folder: Path, manifest: Mapping[str, Any]) -> None:
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as tar:
        text = json.dumps(manifest, indent=1, ensure_ascii=False).encode()
        tar.addfile(_info(MANIFEST, len(text)), io.BytesIO(text))
        for name, known in manifest["files"].items():
            path = folder / name
            with path.open("rb") as content:
                tar.addfile(_info(name, known["size"], path.stat()), content)


def _info(name: str, size: int, known: os.stat_result | None = None) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    if known is not None:
        info.mtime, info.mode = int(known.st_mtime), 0o600 | known.st_mode & 0o100
    return info


def _manifest(tar: tarfile.TarFile, file: Path) -> dict[str, Any]:
    first = tar.next()
    if first is None or first.name != MANIFEST or not first.isreg() or first.size > MAX_MANIFEST:
        raise Invalid(f"{file} is no backup of a fleet: it does not begin with {MANIFEST}")
    content = tar.extractfile(first)
    assert content is not None
    try:
        found: object = json.loads(content.read())
    except ValueError as error:
        raise Invalid(f"{file} is damaged: {MANIFEST} is no JSON; use another backup") from error
    manifest = mapping(found)
    if manifest.get("format") != FORMAT or not isinstance(manifest.get("files"), dict):
        raise Invalid(f"{file} has format {manifest.get('format')!r}: restore it with the version that made it")
    return cast("dict[str, Any]", found)


def _place(folder: Path, name: str, file: Path) -> Path:
    """Where a member goes, its directories made; raises Invalid for a name that leads out of the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\0" in name:
        raise Invalid(f"{file} holds {name!r}, which leads out of the directory: it is not restored")
    for parent in reversed(path.parents):
        (folder / parent).mkdir(mode=0o700, exist_ok=True)
    return folder / path


def _put(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, known: Mapping[str, Any], file: Path) -> None:
    content = tar.extractfile(member)
    assert content is not None
    digest = hashlib.sha256()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o600 | member.mode & 0o100), "wb") as out:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != known.get("sha256"):
        raise Invalid(f"{file} is damaged: {member.name} is not what was backed up; use another backup")
